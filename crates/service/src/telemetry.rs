//! Logs: to standard error, for people or as one JSON object a line, each line of a request's work with its trace id.

use std::io::IsTerminal;

use tracing::Dispatch;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::env::{ConfigError, Env};

/// What is logged, in the form of `tracing-subscriber`'s `EnvFilter`. Default `info`.
pub const ENV_LOG: &str = "FTE_LOG";
/// `pretty` or `json`. Default `pretty`.
pub const ENV_LOG_FORMAT: &str = "FTE_LOG_FORMAT";

/// Anything: no colours, as <https://no-color.org> has it.
pub const ENV_NO_COLOR: &str = "NO_COLOR";

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// What is logged, and how.
#[derive(Debug)]
pub struct Logs {
    /// How.
    pub format: Format,
    /// What.
    pub filter: EnvFilter,
    /// Whether a terminal may be shown colours.
    pub colours: bool,
}

impl Logs {
    /// From the environment; `default_filter` where it says nothing.
    pub fn from_env(env: &impl Env, default_filter: &str) -> Result<Self, ConfigError> {
        let format = match env.get(ENV_LOG_FORMAT).as_deref() {
            None | Some("pretty") => Format::Pretty,
            Some("json") => Format::Json,
            Some(other) => return Err(ConfigError::variable(ENV_LOG_FORMAT, other, "pretty or json")),
        };
        let text = env.get(ENV_LOG).unwrap_or_else(|| default_filter.to_owned());
        let filter = EnvFilter::try_new(&text)
            .map_err(|_| ConfigError::variable(ENV_LOG, text, r#"a filter such as "info" or "warn,fte_runner=debug""#))?;
        let colours = env.get(ENV_NO_COLOR).is_none();
        Ok(Self { format, filter, colours })
    }
}

/// Starts logging and recording metrics, for the whole process, once.
///
/// # Errors
/// When a logger was installed before.
pub fn init(logs: Logs) -> Result<(), TryInitError> {
    crate::metrics::install();
    match logs.format {
        Format::Pretty => pretty(logs.filter, std::io::stderr, logs.colours && std::io::stderr().is_terminal()).try_init(),
        Format::Json => json(logs.filter, std::io::stderr).try_init(),
    }
}

fn pretty<W: for<'w> MakeWriter<'w> + Send + Sync + 'static>(filter: EnvFilter, writer: W, colours: bool) -> impl Into<Dispatch> {
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(colours).finish()
}

fn json<W: for<'w> MakeWriter<'w> + Send + Sync + 'static>(filter: EnvFilter, writer: W) -> impl Into<Dispatch> {
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    builder.json().flatten_event(true).with_current_span(true).with_span_list(false).finish()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::env::MapEnv;

    /// What a log wrote.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Lines {
        fn of(log: impl FnOnce(EnvFilter, Lines) -> Dispatch) -> String {
            let lines = Lines::default();
            tracing::dispatcher::with_default(&log(EnvFilter::new("warn"), lines.clone()), || {
                let span = tracing::error_span!("request", trace_id = "4bf92f");
                span.in_scope(|| tracing::warn!(count = 3, "the store is slow"));
                tracing::info!("not asked for");
            });
            let text = lines.0.lock().unwrap().clone();
            String::from_utf8(text).unwrap()
        }
    }

    #[test]
    fn a_line_carries_its_trace_id_in_both_forms() {
        let text = Lines::of(|filter, lines| json(filter, move || lines.clone()).into());
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["span"]["trace_id"], "4bf92f");
        assert_eq!((&line["message"], &line["count"], &line["level"]), (&"the store is slow".into(), &3.into(), &"WARN".into()));

        let text = Lines::of(|filter, lines| pretty(filter, move || lines.clone(), false).into());
        assert!(text.contains("4bf92f") && text.contains("the store is slow") && !text.contains("not asked for"), "{text}");
    }

    #[test]
    fn a_bad_filter_or_format_is_refused_by_name() {
        let check = |name: &str, value: &str, expected: &str| {
            let error = Logs::from_env(&MapEnv::of([(name, value)]), "info").unwrap_err().to_string();
            assert!(error.starts_with(&format!("{name}={value}: expected ")) && error.contains(expected), "{error}");
        };
        check(ENV_LOG_FORMAT, "xml", "pretty or json");
        check(ENV_LOG, "fte=loud=very", "a filter such as");
        assert_eq!(Logs::from_env(&MapEnv::of([(ENV_LOG_FORMAT, "json")]), "info").unwrap().format, Format::Json);
        assert!(Logs::from_env(&MapEnv::of([]), "info").unwrap().colours);
        assert!(!Logs::from_env(&MapEnv::of([(ENV_NO_COLOR, "1")]), "info").unwrap().colours);
    }
}
