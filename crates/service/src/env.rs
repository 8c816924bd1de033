//! Reading configuration: each variable by name, into a type that cannot be invalid, through a reader that tests replace by a map.
//!
//! A variable that is set to nothing counts as not set. A bad value names its key and the accepted form; the value of a secret is never shown.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// A value that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A variable of the environment.
    #[error("{name}={value}: expected {expected}")]
    Variable {
        /// Its name.
        name: String,
        /// What it holds.
        value: String,
        /// The accepted form.
        expected: String,
    },
    /// A file that cannot be read.
    #[error("{name}={} cannot be read", path.display())]
    Unreadable {
        /// The variable that names the file.
        name: String,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A value inside a file.
    #[error("{} line {line}, {key}: {problem}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// The key, as `agents.writer.timeout`.
        key: String,
        /// What is wrong, and the accepted form.
        problem: String,
    },
}

impl ConfigError {
    /// The variable `name` holds `value`, but something else was expected.
    pub fn variable(name: &str, value: impl Into<String>, expected: impl Into<String>) -> Self {
        Self::Variable { name: name.to_owned(), value: value.into(), expected: expected.into() }
    }
}

/// A type that a variable may have.
pub trait Setting: FromStr {
    /// The accepted form, for the error.
    const EXPECTED: &'static str;
}

macro_rules! settings {
    ($($type:ty => $expected:literal),+ $(,)?) => {
        $(impl Setting for $type { const EXPECTED: &'static str = $expected; })+
    };
}

settings! {
    bool => "true or false",
    u16 => "a whole number from 0 to 65535",
    u32 => "a whole number from 0 to 4294967295",
    u64 => "a whole number, not negative",
    usize => "a whole number, not negative",
    f64 => "a number",
    String => "a text",
    PathBuf => "a path",
    IpAddr => "an IP address such as 127.0.0.1",
    SocketAddr => "an address with a port, such as 127.0.0.1:8080",
}

/// Where configuration comes from.
pub trait Env {
    /// The variable's value, if it is set to something.
    fn get(&self, name: &str) -> Option<String>;

    /// The names of all variables there are.
    fn names(&self) -> Vec<String>;

    /// The variable as a `T`, if it is set.
    fn parsed<T: Setting>(&self, name: &str) -> Result<Option<T>, ConfigError> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        match value.trim().parse() {
            Ok(parsed) => Ok(Some(parsed)),
            Err(_) => Err(ConfigError::variable(name, value, T::EXPECTED)),
        }
    }

    /// The variable as a `T`, or the default.
    fn parsed_or<T: Setting>(&self, name: &str, default: T) -> Result<T, ConfigError> {
        Ok(self.parsed(name)?.unwrap_or(default))
    }

    /// A duration with its unit, `30s`, or the default.
    fn duration_or(&self, name: &str, default: Duration) -> Result<Duration, ConfigError> {
        let Some(value) = self.get(name) else {
            return Ok(default);
        };
        parse_duration(&value).ok_or_else(|| ConfigError::variable(name, value, r#"a duration such as "500ms", "30s" or "15m""#))
    }

    /// The same, of at least a second: nobody can do anything in no time.
    fn patience_or(&self, name: &str, default: Duration) -> Result<Duration, ConfigError> {
        let found = self.duration_or(name, default)?;
        if found >= Duration::from_secs(1) {
            return Ok(found);
        }
        Err(ConfigError::variable(name, self.get(name).unwrap_or_default(), "a duration of at least 1s"))
    }

    /// A variable whose name ends in a unit: whole milliseconds, or the default.
    fn millis_or(&self, name: &str, default: Duration) -> Result<Duration, ConfigError> {
        Ok(self.parsed::<u64>(name)?.map_or(default, Duration::from_millis))
    }
}

/// The longest duration that configuration and callers can ask for: ten years.
const DURATION_MAX: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

/// Reads `500ms`, `30s`, `15m`, `1h30m`, `24h`: not negative, at most ten years.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let parsed: jiff::SignedDuration = text.trim().parse().ok()?;
    Duration::try_from(parsed).ok().filter(|duration| *duration <= DURATION_MAX)
}

/// The environment of this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessEnv;

impl Env for ProcessEnv {
    #[expect(clippy::disallowed_methods, reason = "the one reader of the process environment")]
    fn get(&self, name: &str) -> Option<String> {
        let value = std::env::var_os(name)?;
        // What is not Unicode then fails to parse, with the variable's name.
        Some(value.to_string_lossy().into_owned()).filter(|value| !value.is_empty())
    }

    fn names(&self) -> Vec<String> {
        std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect()
    }
}

/// A fixed environment: for tests, and for running several services in one process.
#[derive(Clone, Debug, Default)]
pub struct MapEnv(pub BTreeMap<String, String>);

impl MapEnv {
    /// From names and values.
    pub fn of<const N: usize>(pairs: [(&str, &str); N]) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }
}

impl Env for MapEnv {
    fn get(&self, name: &str) -> Option<String> {
        self.0.get(name).filter(|value| !value.is_empty()).cloned()
    }

    fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_value_names_its_key_and_the_accepted_form() {
        let env = MapEnv::of([("FTE_PORT", "abc"), ("FTE_WAIT", "soon"), ("FTE_MS", "-1")]);
        let error = env.parsed_or::<u16>("FTE_PORT", 1).unwrap_err();
        assert_eq!(error.to_string(), "FTE_PORT=abc: expected a whole number from 0 to 65535");
        let error = env.duration_or("FTE_WAIT", Duration::ZERO).unwrap_err();
        assert_eq!(error.to_string(), r#"FTE_WAIT=soon: expected a duration such as "500ms", "30s" or "15m""#);
        let error = env.millis_or("FTE_MS", Duration::ZERO).unwrap_err();
        assert_eq!(error.to_string(), "FTE_MS=-1: expected a whole number, not negative");
    }

    #[test]
    fn what_is_set_to_nothing_is_not_set() {
        assert_eq!(MapEnv::of([("A", "")]).parsed_or::<u16>("A", 7).unwrap(), 7);
    }

    #[test]
    fn durations_carry_their_unit() {
        let check = |text: &str, expected: Option<u64>| assert_eq!(parse_duration(text), expected.map(Duration::from_millis), "{text}");
        check("500ms", Some(500));
        check("30s", Some(30_000));
        check("1h30m", Some(5_400_000));
        check("24h", Some(86_400_000));
        check("30", None);
        check("-30s", None);
        check("", None);
        check("999999h", None);
    }
}
