//! The audit service's own settings.

use std::path::PathBuf;

use fte_service::{ConfigError, Env, Ports};

/// Memory for pages of the index, in KiB. Default 16384.
pub const ENV_CACHE_KIB: &str = "FTE_AUDIT_CACHE_KIB";
/// Most answers that are read from the log at the same time. Default 2.
pub const ENV_READERS_MAX: &str = "FTE_AUDIT_READERS_MAX";

/// The host's part of the log's origin, such as `audit.example.com`: it names the log in checkpoints, and never changes. By default it is made from the
/// log's key.
pub const ENV_ORIGIN: &str = "FTE_AUDIT_ORIGIN";
/// The file of the key that signs checkpoints. By default `audit/keys/log.key` in the data directory; it is made where there is no log yet.
pub const ENV_KEY_FILE: &str = "FTE_AUDIT_KEY_FILE";
/// The name of that key in the secret store, instead of a file.
pub const ENV_KEY_SECRET: &str = "FTE_AUDIT_KEY_SECRET";

/// The file of the master key, which wraps the keys of personal data. By default `audit/keys/master.key` in the data directory; it is made where there are
/// no keys yet.
pub const ENV_MASTER_KEY_FILE: &str = "FTE_AUDIT_MASTER_KEY_FILE";
/// The name of the master key in the secret store, instead of a file.
pub const ENV_MASTER_KEY_SECRET: &str = "FTE_AUDIT_MASTER_KEY_SECRET";

/// A C2SP tlog-policy that names the witnesses to ask, with their URLs, and the quorum of them. By default nobody is asked.
pub const ENV_WITNESS_POLICY: &str = "FTE_AUDIT_WITNESS_POLICY";

/// The ports it has where none are set.
pub const PORTS: Ports = Ports { app: 7404, api: 8404 };

/// How much it may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub cache_kib: u32,
    pub readers_max: usize,
    pub origin: Option<String>,
    pub key_file: Option<PathBuf>,
    pub key_secret: Option<String>,
    pub master_key_file: Option<PathBuf>,
    pub master_key_secret: Option<String>,
    pub witness_policy: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cache_kib: 16_384,
            readers_max: 2,
            origin: None,
            key_file: None,
            key_secret: None,
            master_key_file: None,
            master_key_secret: None,
            witness_policy: None,
        }
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
        let origin = env.get(ENV_ORIGIN).filter(|origin| !origin.is_empty());
        if let Some(origin) = origin.as_ref().filter(|origin| !fte_tlog::is_key_name(origin)) {
            return Err(ConfigError::variable(
                ENV_ORIGIN,
                origin.clone(),
                "a name such as audit.example.com, without spaces and plus signs",
            ));
        }
        let key_file = env.get(ENV_KEY_FILE).filter(|path| !path.is_empty()).map(PathBuf::from);
        let key_secret = env.get(ENV_KEY_SECRET).filter(|name| !name.is_empty());
        if let (Some(_), Some(secret)) = (&key_file, &key_secret) {
            return Err(ConfigError::variable(
                ENV_KEY_SECRET,
                secret.clone(),
                format!("nothing, as {ENV_KEY_FILE} is set: the key is in one place"),
            ));
        }
        let master_key_file = env.get(ENV_MASTER_KEY_FILE).filter(|path| !path.is_empty()).map(PathBuf::from);
        let master_key_secret = env.get(ENV_MASTER_KEY_SECRET).filter(|name| !name.is_empty());
        if let (Some(_), Some(secret)) = (&master_key_file, &master_key_secret) {
            let expected = format!("nothing, as {ENV_MASTER_KEY_FILE} is set: the key is in one place");
            return Err(ConfigError::variable(ENV_MASTER_KEY_SECRET, secret.clone(), expected));
        }
        Ok(Self {
            cache_kib: env.parsed_or(ENV_CACHE_KIB, default.cache_kib)?,
            readers_max,
            origin,
            key_file,
            key_secret,
            master_key_file,
            master_key_secret,
            witness_policy: env.get(ENV_WITNESS_POLICY).filter(|path| !path.is_empty()).map(PathBuf::from),
        })
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
        assert_eq!(Config::from_env(&set).unwrap(), Config { cache_kib: 512, readers_max: 3, ..Config::default() });
        for (name, value) in [(ENV_CACHE_KIB, "-1"), (ENV_READERS_MAX, "0"), (ENV_ORIGIN, "a b")] {
            let error = Config::from_env(&MapEnv::of([(name, value)])).unwrap_err().to_string();
            assert!(error.starts_with(name), "{error}");
        }
    }
}
