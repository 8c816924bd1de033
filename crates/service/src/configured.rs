//! What was configured, in a form that may be kept for years: which variables are set, a digest that is another when one of them is, and the digests of
//! the files that they name.
//!
//! Values are not kept, and what is secret is no part of the digest: whoever knows the rest could guess it from that.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::env::Env;
use crate::settings::{ENV_AGENTS, ENV_API_KEYS_FILE};

/// Variables of ours begin with this. Those of the sidecar are not counted: `dapr run` takes other ports each time.
const PREFIX: &str = "FTE_";
/// Variables that end so hold a secret.
const SECRET_ENDS: [&str; 5] = ["_TOKEN", "_SECRET", "_PASSWORD", "_API_KEY", "_DATABASE_URL"];
/// Variables that begin so hold one, by whatever name: where a secret store is the environment, these are it.
const SECRET_BEGINS: &str = "FTE_SECRET_";
/// Variables that name a file which says more than its path.
const FILES: [&str; 2] = [ENV_AGENTS, ENV_API_KEYS_FILE];

/// What was configured when the process began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configured {
    /// The variables that are set, in order.
    pub set: Vec<String>,
    /// Over the variables that are set, and the values of those that hold no secret: SHA-256, in hex.
    pub sha256: String,
    /// What the named files hold: the variable, and SHA-256 in hex.
    pub files: BTreeMap<&'static str, String>,
}

impl Configured {
    /// Of this environment.
    pub fn of(env: &impl Env) -> Self {
        let set: BTreeMap<String, Option<String>> = env
            .names()
            .into_iter()
            .filter(|name| name.starts_with(PREFIX))
            .filter_map(|name| env.get(&name).map(|value| (name, value)))
            .map(|(name, value)| {
                let is_secret = name.starts_with(SECRET_BEGINS) || SECRET_ENDS.iter().any(|end| name.ends_with(end));
                (name, (!is_secret).then_some(value))
            })
            .collect();
        let file = |name: &'static str| Some((name, digest(&std::fs::read(env.get(name)?).ok()?)));
        Self {
            sha256: digest(&serde_json::to_vec(&set).unwrap_or_default()),
            files: FILES.into_iter().filter_map(file).collect(),
            set: set.into_keys().collect(),
        }
    }

    /// As an action tells it.
    pub(crate) fn to_json(&self) -> Value {
        json!({"set": self.set, "sha256": self.sha256, "files": self.files})
    }
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::MapEnv;

    #[test]
    fn another_value_is_another_digest_and_a_secret_is_in_none() {
        let of = |pairs: [(&str, &str); 3]| Configured::of(&MapEnv::of(pairs));
        let one = of([("FTE_DATA", "a"), ("FTE_STATUS_DATABASE_URL", "postgres://ada:hunter2@db"), ("HOME", "x")]);
        assert_eq!(one.set, ["FTE_DATA", "FTE_STATUS_DATABASE_URL"]);
        assert_eq!(one, of([("FTE_DATA", "a"), ("FTE_STATUS_DATABASE_URL", "postgres://ada:hunter3@db"), ("HOME", "y")]));
        assert_ne!(one.sha256, of([("FTE_DATA", "b"), ("FTE_STATUS_DATABASE_URL", "postgres://ada:hunter2@db"), ("HOME", "x")]).sha256);
        assert_ne!(one.sha256, Configured::of(&MapEnv::of([("FTE_DATA", "a")])).sha256);
        assert!(!one.to_json().to_string().contains("hunter"));
    }

    #[test]
    fn what_stands_in_the_environment_for_a_secret_store_is_in_no_digest() {
        let of = |dsn: &str| Configured::of(&MapEnv::of([("FTE_DATA", "a"), ("FTE_SECRET_POSTGRES", dsn)]));
        assert_eq!(of("postgres://ada:hunter2@db"), of("postgres://ada:hunter3@db"));
        assert_eq!(of("postgres://ada:hunter2@db").set, ["FTE_DATA", "FTE_SECRET_POSTGRES"]);
    }

    #[test]
    fn a_file_counts_by_what_it_holds() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agents.toml");
        let of = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Configured::of(&MapEnv::of([(ENV_AGENTS, &path.to_string_lossy())]))
        };
        let (one, other) = (of("default = \"echo\""), of("default = \"demo\""));
        assert_eq!(one.sha256, other.sha256);
        assert_ne!(one.files[ENV_AGENTS], other.files[ENV_AGENTS]);
    }
}
