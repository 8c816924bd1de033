//! The audit service's own settings.

use fte_service::{ConfigError, Env, Ports};

/// Memory for pages of the log's writer, in KiB. Default 4096.
pub const ENV_CACHE_KIB: &str = "FTE_AUDIT_CACHE_KIB";
/// Most answers that are read from the log at the same time. Default 2.
pub const ENV_READERS_MAX: &str = "FTE_AUDIT_READERS_MAX";

/// The ports it has where none are set.
pub const PORTS: Ports = Ports { app: 7404, api: 8404 };

/// How much it may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    pub cache_kib: u32,
    pub readers_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { cache_kib: 4096, readers_max: 2 }
    }
}

impl Config {
    /// Reads the environment.
    pub fn from_env(env: &impl Env) -> Result<Self, ConfigError> {
        let default = Self::default();
        let readers_max = env.parsed_or(ENV_READERS_MAX, default.readers_max)?;
        if !(1..=64).contains(&readers_max) {
            return Err(ConfigError::variable(ENV_READERS_MAX, readers_max.to_string(), "a whole number from 1 to 64"));
        }
        Ok(Self { cache_kib: env.parsed_or(ENV_CACHE_KIB, default.cache_kib)?, readers_max })
    }
}

#[cfg(test)]
mod tests {
    use fte_service::MapEnv;

    use super::*;

    #[test]
    fn what_is_set_counts_and_what_cannot_be_used_is_refused_by_name() {
        assert_eq!(Config::from_env(&MapEnv::default()).unwrap(), Config::default());
        let set = MapEnv::of([(ENV_CACHE_KIB, "512"), (ENV_READERS_MAX, "3")]);
        assert_eq!(Config::from_env(&set).unwrap(), Config { cache_kib: 512, readers_max: 3 });
        for (name, value) in [(ENV_CACHE_KIB, "-1"), (ENV_READERS_MAX, "0")] {
            let error = Config::from_env(&MapEnv::of([(name, value)])).unwrap_err().to_string();
            assert!(error.starts_with(name), "{error}");
        }
    }
}
