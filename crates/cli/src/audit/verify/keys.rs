//! Whose signatures count.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use clap::Args;
use fte_audit::files::{NOTE_BYTES_MAX, read_at_most};
use fte_tlog::{LogKey, Policy, VerifierKey};

use super::local::Found;
use crate::error::Error;

/// How a caller names them.
#[derive(Debug, Args)]
pub(in crate::audit) struct Named {
    /// The log's public key (`name+id+base64`), or a file with it, from a place that is not the log itself
    #[arg(long, value_name = "KEY")]
    public_key: Vec<String>,
    /// The keys of logs and witnesses, and the quorum of these, as C2SP `tlog-policy` has it
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
}

/// The keys, and whether they came with the log.
pub(in crate::audit) struct Keys {
    pub(in crate::audit) policy: Policy,
    pub(in crate::audit) from_log: bool,
}

impl Named {
    /// Those that were named; none where nobody named any.
    pub(in crate::audit) fn policy(&self) -> Result<Option<Policy>, Error> {
        let mut policy = match &self.policy {
            None => Policy::of_logs([]),
            Some(path) => policy_file(path)?,
        };
        for key in &self.public_key {
            let key = public_key(key)?;
            if policy.logs.iter().all(|log| log.key != key) {
                policy.logs.push(LogKey { key, url: None });
            }
        }
        Ok(Some(policy).filter(|policy| !policy.logs.is_empty()))
    }
}

/// A file of keys that stands beside a log.
fn read(path: &Path) -> std::io::Result<String> {
    String::from_utf8(read_at_most(path, NOTE_BYTES_MAX)?).map_err(std::io::Error::other)
}

/// Those that were named, else the one beside the log.
pub(in crate::audit) fn find(named: &Named, found: &Found) -> Result<Keys, Error> {
    if let Some(policy) = named.policy()? {
        return Ok(Keys { policy, from_log: false });
    }
    let mut policy = Policy::of_logs([]);
    for path in &found.key_files {
        if let Ok(text) = read(path) {
            // Those that signed before, too: years that ended are signed by them.
            let former = path.with_file_name(fte_audit::keys::rotation::FORMER);
            let former_text = read(&former).unwrap_or_default();
            for (path, line) in [(path, &*text)].into_iter().chain(former_text.lines().map(|line| (&former, line))) {
                if line.trim().is_empty() {
                    continue;
                }
                let key: VerifierKey = line.trim().parse().map_err(|error| wrong_key(&path.display().to_string(), error))?;
                if policy.logs.iter().all(|log| log.key != key) {
                    policy.logs.push(LogKey { key, url: None });
                }
            }
            return Ok(Keys { policy, from_log: true });
        }
    }
    // No shard, no key: there is nothing to verify.
    if found.shards.is_empty() {
        return Ok(Keys { policy, from_log: true });
    }
    let advice = "give --public-key with the instance's audit/keys/log.pub in its data directory, or its text; or --policy";
    Err(Error::usage("nothing says which key signs this log", advice))
}

/// Reads a policy from a file.
pub(in crate::audit) fn policy_file(path: &Path) -> Result<Policy, Error> {
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
            Err(unread) if unread.kind() == ErrorKind::NotFound && !given.contains('+') => {
                let advice = "give the text of the instance's audit/keys/log.pub, or the name of a file with it that is there";
                Err(Error::usage(format!("{given} is neither a public key nor a file that is there"), advice))
            }
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
