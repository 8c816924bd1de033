//! Intake's own configuration; what all services share is in [`fte_service::Settings`].

use std::time::Duration;

use fte_service::{ConfigError, Env};

/// Longest wait for a task to be safe with the broker, in milliseconds; then 503. Default 10 000.
pub const ENV_ACCEPT_MS_MAX: &str = "FTE_INTAKE_ACCEPT_MS_MAX";

/// Intake's own configuration.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Longest wait for a task to be safe with the broker.
    pub accept_wait_max: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { accept_wait_max: Duration::from_secs(10) }
    }
}

impl Config {
    /// Reads the environment.
    pub fn from_env(env: &impl Env) -> Result<Self, ConfigError> {
        let defaults = Self::default();
        let accept_wait_max = env.millis_or(ENV_ACCEPT_MS_MAX, defaults.accept_wait_max)?;
        if accept_wait_max.is_zero() {
            return Err(ConfigError::variable(ENV_ACCEPT_MS_MAX, "0", "at least 1"));
        }
        Ok(Self { accept_wait_max })
    }
}
