//! Whose signatures count.

use std::path::Path;

use fte_tlog::{LogKey, Policy, VerifierKey};

use super::Verify;
use super::local::Found;
use crate::error::Error;

/// The keys, and whether they came with the log.
pub(super) struct Keys {
    pub(super) policy: Policy,
    pub(super) from_log: bool,
}

/// From the options, else from beside the log.
pub(super) fn find(verify: &Verify, found: &Found) -> Result<Keys, Error> {
    let mut policy = match &verify.policy {
        None => Policy::of_logs([]),
        Some(path) => policy_file(path)?,
    };
    for key in &verify.public_key {
        let key = public_key(key)?;
        if policy.logs.iter().all(|log| log.key != key) {
            policy.logs.push(LogKey { key, url: None });
        }
    }
    if !policy.logs.is_empty() {
        return Ok(Keys { policy, from_log: false });
    }
    for path in &found.key_files {
        if let Ok(text) = std::fs::read_to_string(path) {
            let key = text.trim().parse().map_err(|error| wrong_key(&path.display().to_string(), error))?;
            policy.logs.push(LogKey { key, url: None });
            return Ok(Keys { policy, from_log: true });
        }
    }
    // No shard, no key: there is nothing to verify.
    if found.shards.is_empty() {
        return Ok(Keys { policy, from_log: true });
    }
    let advice = "give --public-key with the text of the instance's audit/keys/log.pub, or --policy";
    Err(Error::usage("nothing says which key signs this log", advice))
}

/// Reads a policy from a file.
pub(super) fn policy_file(path: &Path) -> Result<Policy, Error> {
    let text = super::read(path)?;
    let text = String::from_utf8(text).map_err(|_| Error::usage(format!("{} is no text", path.display()), "see C2SP tlog-policy"))?;
    text.parse().map_err(|error| Error::usage(format!("{}: {}", path.display(), fte_bus::chain(&error)), "see C2SP tlog-policy"))
}

fn public_key(given: &str) -> Result<VerifierKey, Error> {
    match given.parse() {
        Ok(key) => Ok(key),
        // What has no plus sign is no key and may be a file's name.
        Err(error) => match std::fs::read_to_string(given) {
            Ok(text) => text.trim().parse().map_err(|error| wrong_key(given, error)),
            Err(_) => Err(wrong_key(given, error)),
        },
    }
}

fn wrong_key(given: &str, error: fte_tlog::KeyError) -> Error {
    Error::usage(
        format!("{given} is no public key of a log: {error}"),
        "it looks like audit.example.com+a1b2c3d4+AX…; audit/keys/log.pub has it",
    )
}
