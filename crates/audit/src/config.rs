//! The audit service's own settings.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use fte_service::{ConfigError, Env, Ports};
use fte_tlog::{Policy, SignerKey};
use zeroize::Zeroizing;

use crate::retention::KEPT_DAYS;

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

/// The file of the key that is to follow, while the log's key is changed. By default `audit/keys/log.next.key` in the data directory, where it is there.
pub const ENV_NEXT_KEY_FILE: &str = "FTE_AUDIT_NEXT_KEY_FILE";
/// The name of that key in the secret store, instead of a file.
pub const ENV_NEXT_KEY_SECRET: &str = "FTE_AUDIT_NEXT_KEY_SECRET";

/// The file of the master key, which wraps the keys of personal data. By default `audit/keys/master.key` in the data directory; it is made where there are
/// no keys yet.
pub const ENV_MASTER_KEY_FILE: &str = "FTE_AUDIT_MASTER_KEY_FILE";
/// The name of the master key in the secret store, instead of a file.
pub const ENV_MASTER_KEY_SECRET: &str = "FTE_AUDIT_MASTER_KEY_SECRET";

/// A C2SP tlog-policy that names the witnesses to ask, with their URLs, and the quorum of them. By default nobody is asked.
pub const ENV_WITNESS_POLICY: &str = "FTE_AUDIT_WITNESS_POLICY";

/// `true` to have the log say who read what of it by queries, entries and histories: an entry for each answer, durable before that is given. Default `false`.
pub const ENV_RECORD_READS: &str = "FTE_AUDIT_RECORD_READS";

/// How many days after a task was closed what its events say can still be read: their keys are destroyed then, and what the log says of them stays. By default as
/// long as their entries are there.
pub const ENV_CONTENTS_DAYS: &str = "FTE_AUDIT_CONTENTS_DAYS";

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
    pub next_key_file: Option<PathBuf>,
    pub next_key_secret: Option<String>,
    pub master_key_file: Option<PathBuf>,
    pub master_key_secret: Option<String>,
    pub witness_policy: Option<PathBuf>,
    pub record_reads: bool,
    pub contents_days: Option<u32>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cache_kib: 16_384,
            readers_max: 2,
            origin: None,
            key_file: None,
            key_secret: None,
            next_key_file: None,
            next_key_secret: None,
            master_key_file: None,
            master_key_secret: None,
            witness_policy: None,
            record_reads: false,
            contents_days: None,
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
        let contents_days = match env.get(ENV_CONTENTS_DAYS).filter(|days| !days.is_empty()) {
            None => None,
            Some(text) => match text.parse() {
                Ok(days) if (1..=KEPT_DAYS).contains(&i64::from(days)) => Some(days),
                _ => {
                    return Err(ConfigError::variable(
                        ENV_CONTENTS_DAYS,
                        text,
                        format!("a whole number of days from 1 to {KEPT_DAYS}, or nothing"),
                    ));
                }
            },
        };
        let (key_file, key_secret) = place(env, ENV_KEY_FILE, ENV_KEY_SECRET)?;
        let (next_key_file, next_key_secret) = place(env, ENV_NEXT_KEY_FILE, ENV_NEXT_KEY_SECRET)?;
        let (master_key_file, master_key_secret) = place(env, ENV_MASTER_KEY_FILE, ENV_MASTER_KEY_SECRET)?;
        let witness_policy = env.get(ENV_WITNESS_POLICY).filter(|path| !path.is_empty()).map(PathBuf::from);
        for (name, file) in [(ENV_KEY_FILE, &key_file), (ENV_NEXT_KEY_FILE, &next_key_file)] {
            holds(name, file.as_deref(), "a file with a private key of a log, PRIVATE+KEY+name+id+…", |text| {
                text.is_none_or(|text| text.trim().parse::<SignerKey>().is_ok())
            })?;
        }
        holds(ENV_MASTER_KEY_FILE, master_key_file.as_deref(), "a file with 64 hexadecimal digits", |text| {
            text.map(str::trim_end).is_none_or(|text| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()))
        })?;
        holds(ENV_WITNESS_POLICY, witness_policy.as_deref(), "a file with a C2SP tlog-policy", |text| {
            text.is_some_and(|text| text.parse::<Policy>().is_ok())
        })?;
        Ok(Self {
            cache_kib: env.parsed_or(ENV_CACHE_KIB, default.cache_kib)?,
            readers_max,
            origin,
            key_file,
            key_secret,
            next_key_file,
            next_key_secret,
            master_key_file,
            master_key_secret,
            witness_policy,
            record_reads: env.parsed_or(ENV_RECORD_READS, default.record_reads)?,
            contents_days,
        })
    }
}

/// Where a key is: in a file, or in the secret store, and not in both.
fn place(env: &impl Env, file: &'static str, secret: &'static str) -> Result<(Option<PathBuf>, Option<String>), ConfigError> {
    let path = env.get(file).filter(|path| !path.is_empty()).map(PathBuf::from);
    let name = env.get(secret).filter(|name| !name.is_empty());
    match (&path, &name) {
        (Some(_), Some(name)) => {
            Err(ConfigError::variable(secret, name.clone(), format!("nothing, as {file} is set: the key is in one place")))
        }
        _ => Ok((path, name)),
    }
}

/// Refuses a file that cannot be what it is named as, while nothing is started yet. `fits` is asked of its text, and of none where it is missing.
fn holds(name: &'static str, path: Option<&Path>, expected: &str, fits: impl Fn(Option<&str>) -> bool) -> Result<(), ConfigError> {
    let Some(path) = path else { return Ok(()) };
    match fs::read_to_string(path).map(Zeroizing::new) {
        Ok(text) if fits(Some(&text)) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound && fits(None) => Ok(()),
        Err(source) if source.kind() != io::ErrorKind::InvalidData => {
            Err(ConfigError::Unreadable { name: name.to_owned(), path: path.to_owned(), source })
        }
        _ => Err(ConfigError::variable(name, path.display().to_string(), expected)),
    }
}

#[cfg(test)]
mod tests {
    use fte_service::MapEnv;

    use super::*;

    #[test]
    fn what_is_set_counts_and_what_cannot_be_used_is_refused_by_name() {
        assert_eq!(Config::from_env(&MapEnv::default()).unwrap(), Config::default());
        let set = MapEnv::of([(ENV_CACHE_KIB, "512"), (ENV_READERS_MAX, "3"), (ENV_RECORD_READS, "true"), (ENV_CONTENTS_DAYS, "90")]);
        let expected = Config { cache_kib: 512, readers_max: 3, record_reads: true, contents_days: Some(90), ..Config::default() };
        assert_eq!(Config::from_env(&set).unwrap(), expected);
        for (name, value) in [
            (ENV_CACHE_KIB, "-1"),
            (ENV_READERS_MAX, "0"),
            (ENV_ORIGIN, "a b"),
            (ENV_RECORD_READS, "perhaps"),
            (ENV_CONTENTS_DAYS, "0"),
            (ENV_CONTENTS_DAYS, "2558"),
            (ENV_CONTENTS_DAYS, "90d"),
        ] {
            let error = Config::from_env(&MapEnv::of([(name, value)])).unwrap_err().to_string();
            assert!(error.starts_with(name), "{error}");
        }
        for (file, secret) in
            [(ENV_KEY_FILE, ENV_KEY_SECRET), (ENV_NEXT_KEY_FILE, ENV_NEXT_KEY_SECRET), (ENV_MASTER_KEY_FILE, ENV_MASTER_KEY_SECRET)]
        {
            let error = Config::from_env(&MapEnv::of([(file, "/k"), (secret, "k")])).unwrap_err().to_string();
            assert!(error.starts_with(secret), "{error}");
        }
    }
}
