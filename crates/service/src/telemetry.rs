//! Logs: to standard error, for people or as one JSON object a line, each line of a request's work with its trace id.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::env::{ConfigError, Env};

/// What is logged, in the form of `tracing-subscriber`'s `EnvFilter`. Default `info`.
pub const ENV_LOG: &str = "FTE_LOG";
/// `pretty` or `json`. Default `pretty`.
pub const ENV_LOG_FORMAT: &str = "FTE_LOG_FORMAT";

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
        Ok(Self { format, filter })
    }
}

/// Starts logging and recording metrics, for the whole process, once.
///
/// # Errors
/// When a logger was installed before.
pub fn init(logs: Logs) -> Result<(), TryInitError> {
    crate::metrics::install();
    let builder = tracing_subscriber::fmt().with_env_filter(logs.filter).with_writer(std::io::stderr);
    match logs.format {
        Format::Pretty => builder.with_ansi(std::io::stderr().is_terminal()).finish().try_init(),
        Format::Json => builder.json().flatten_event(true).with_current_span(true).with_span_list(false).finish().try_init(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::MapEnv;

    #[test]
    fn a_bad_filter_or_format_is_refused_by_name() {
        let check = |name: &str, value: &str, expected: &str| {
            let error = Logs::from_env(&MapEnv::of([(name, value)]), "info").unwrap_err().to_string();
            assert!(error.starts_with(&format!("{name}={value}: expected ")) && error.contains(expected), "{error}");
        };
        check(ENV_LOG_FORMAT, "xml", "pretty or json");
        check(ENV_LOG, "fte=loud=very", "a filter such as");
        assert_eq!(Logs::from_env(&MapEnv::of([(ENV_LOG_FORMAT, "json")]), "info").unwrap().format, Format::Json);
    }
}
