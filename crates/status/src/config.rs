//! The read model's own configuration.

use std::time::Duration;

use fte_service::{ConfigError, Env, Secret};

/// How long ended tasks and dead letters are kept: `2160h`, which is 90 days.
pub const ENV_RETENTION: &str = "FTE_STATUS_RETENTION";
/// How often what is too old is looked for: `1h`.
pub const ENV_SWEEP_EVERY: &str = "FTE_STATUS_SWEEP_EVERY";
/// Requests and streams that may wait for tasks at once. Default 8 192.
pub const ENV_WAITERS_MAX: &str = "FTE_STATUS_WAITERS_MAX";
/// Streams of all tasks that may be open at once. Default 256.
pub const ENV_FEEDS_MAX: &str = "FTE_STATUS_FEEDS_MAX";
/// Connections that read the database. Default 4.
pub const ENV_READERS_MAX: &str = "FTE_STATUS_READERS_MAX";

/// A PostgreSQL that several replicas share, as `postgres://user:password@host/database`: a secret. Without it, a SQLite file of this process.
pub const ENV_DATABASE_URL: &str = "FTE_STATUS_DATABASE_URL";

/// What the read model reads from the environment.
#[derive(Clone, Debug)]
pub struct Config {
    /// See [`ENV_RETENTION`].
    pub retention: Duration,
    /// See [`ENV_SWEEP_EVERY`].
    pub sweep_every: Duration,
    /// See [`ENV_WAITERS_MAX`].
    pub waiters_max: usize,
    /// See [`ENV_FEEDS_MAX`].
    pub feeds_max: usize,
    /// See [`ENV_READERS_MAX`].
    pub readers_max: usize,
    /// See [`ENV_DATABASE_URL`].
    pub database_url: Option<Secret>,
    /// See [`fte_artifacts::ENV_ARTIFACTS`].
    pub artifacts: fte_artifacts::Place,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            retention: Duration::from_secs(90 * 24 * 3600),
            sweep_every: Duration::from_secs(3600),
            waiters_max: 8192,
            feeds_max: 256,
            readers_max: 4,
            database_url: None,
            artifacts: fte_artifacts::Place::Data,
        }
    }
}

impl Config {
    /// Reads the environment.
    pub fn from_env(env: &impl Env) -> Result<Self, ConfigError> {
        let defaults = Self::default();
        Ok(Self {
            retention: at_least(env, ENV_RETENTION, defaults.retention, Duration::from_secs(3600))?,
            sweep_every: at_least(env, ENV_SWEEP_EVERY, defaults.sweep_every, Duration::from_secs(1))?,
            waiters_max: between(env, ENV_WAITERS_MAX, defaults.waiters_max, 1, 1_000_000)?,
            feeds_max: between(env, ENV_FEEDS_MAX, defaults.feeds_max, 1, 10_000)?,
            readers_max: between(env, ENV_READERS_MAX, defaults.readers_max, 1, 64)?,
            database_url: database_url(env)?,
            artifacts: fte_artifacts::Place::from_env(env)?,
        })
    }
}

/// The value is never shown.
fn database_url(env: &impl Env) -> Result<Option<Secret>, ConfigError> {
    let Some(url) = env.get(ENV_DATABASE_URL).filter(|url| !url.is_empty()) else { return Ok(None) };
    let refused = |expected: &str| Err(ConfigError::variable(ENV_DATABASE_URL, "(not shown)", expected));
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return refused("postgres://user:password@host/database");
    }
    if cfg!(not(feature = "postgres")) {
        return refused("nothing: this program was built without PostgreSQL (feature `postgres`)");
    }
    Ok(Some(Secret::new(url)))
}

fn at_least(env: &impl Env, name: &str, default: Duration, min: Duration) -> Result<Duration, ConfigError> {
    let value = env.duration_or(name, default)?;
    if value >= min { Ok(value) } else { Err(ConfigError::variable(name, format!("{value:?}"), format!("at least {min:?}"))) }
}

fn between(env: &impl Env, name: &str, default: usize, min: usize, max: usize) -> Result<usize, ConfigError> {
    let value = env.parsed_or(name, default)?;
    if (min..=max).contains(&value) { Ok(value) } else { Err(ConfigError::variable(name, value.to_string(), format!("{min} to {max}"))) }
}

#[cfg(test)]
mod tests {
    use fte_service::MapEnv;

    use super::*;

    #[test]
    fn a_bad_value_is_refused_by_name() {
        assert_eq!(Config::from_env(&MapEnv::default()).unwrap().retention, Duration::from_secs(7_776_000));
        for (name, value) in [(ENV_RETENTION, "1s"), (ENV_SWEEP_EVERY, "soon"), (ENV_WAITERS_MAX, "0"), (ENV_READERS_MAX, "65")] {
            let error = Config::from_env(&MapEnv::of([(name, value)])).unwrap_err().to_string();
            assert!(error.starts_with(name), "{error}");
        }
        let error = Config::from_env(&MapEnv::of([(ENV_DATABASE_URL, "mysql://u:hunter2@h/d")])).unwrap_err().to_string();
        assert!(error.starts_with(ENV_DATABASE_URL) && !error.contains("hunter2"), "{error}");
    }
}
