//! The file of API keys: TOML, one table a key, digests only.
//!
//! ```toml
//! [[keys]]
//! name = "ada"                            # who calls, in the audit log
//! sha256 = "9f86d081…"                    # of the key; `fte keys new` makes both
//! roles = ["submit", "read", "approve"]   # or "audit", "admin"
//! tenant = "default"                      # "*": every tenant
//! rate = 20                               # requests a second, and as many at once; none: no limit
//! expires = "2027-01-01T00:00:00Z"        # none: never
//! ```

use std::num::NonZeroU32;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fte_events::{TENANT, hex};
use jiff::Timestamp;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::Role;
use crate::env::ConfigError;

/// What a key begins with, so that a scanner of repositories knows one when it sees it.
const PREFIX: &str = "fte_";
/// Every tenant.
const EVERY: &str = "*";
/// Longest name of an owner or a tenant.
const NAME_CHARS_MAX: usize = 64;

/// A key that has just been made: the only time that it is seen.
pub struct NewKey {
    /// The key itself, for its owner.
    pub secret: String,
    /// Its digest, for the file.
    pub sha256: String,
}

impl NewKey {
    /// 256 random bits from the operating system.
    ///
    /// # Errors
    /// The operating system has none to give.
    pub fn make() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes)?;
        let secret = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
        let sha256 = hex(&digest(&secret));
        Ok(Self { secret, sha256 })
    }
}

pub(super) fn digest(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

/// A key as the file has it.
#[derive(Clone, Debug)]
pub struct KeyEntry {
    /// Its owner.
    pub name: String,
    /// SHA-256 of the key.
    pub digest: [u8; 32],
    /// What its owner may do.
    pub roles: Vec<Role>,
    /// Whose tasks: none is every tenant's.
    pub tenant: Option<String>,
    /// Requests a second.
    pub rate: Option<NonZeroU32>,
    /// Until when it counts.
    pub expires: Option<Timestamp>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    keys: Vec<toml::Spanned<Entry>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    sha256: String,
    roles: Vec<Role>,
    tenant: Option<String>,
    rate: Option<NonZeroU32>,
    expires: Option<Timestamp>,
}

/// Reads a file of keys; `name` is what names the file.
pub(super) fn read(name: &str, path: &Path) -> Result<Vec<KeyEntry>, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { name: name.to_owned(), path: path.to_owned(), source };
    parse(path, &std::fs::read_to_string(path).map_err(unreadable)?)
}

/// Whether a text can be the file of keys at `path`.
///
/// # Errors
/// What is wrong with it, and in which line.
pub fn check_file(path: &Path, text: &str) -> Result<(), ConfigError> {
    parse(path, text).map(drop)
}

fn parse(path: &Path, text: &str) -> Result<Vec<KeyEntry>, ConfigError> {
    let line_of = |at: usize| text.get(..at).unwrap_or_default().matches('\n').count() + 1;
    let content = |line, key: &str, problem: String| ConfigError::Content { path: path.to_owned(), line, key: key.to_owned(), problem };
    let file: File = toml::from_str(text).map_err(|error: toml::de::Error| {
        let line = error.span().map_or(1, |span| line_of(span.start));
        content(line, "keys", error.message().to_owned())
    })?;
    if file.keys.is_empty() {
        return Err(content(1, "keys", "there is no key: nobody could call; make one with `fte keys new`".to_owned()));
    }
    let mut entries: Vec<KeyEntry> = Vec::with_capacity(file.keys.len());
    for entry in file.keys {
        let line = line_of(entry.span().start);
        let entry = checked(entry.into_inner()).map_err(|(key, problem)| content(line, key, problem))?;
        if entries.iter().any(|other| other.digest == entry.digest) {
            return Err(content(line, "keys.sha256", "this key is there twice".to_owned()));
        }
        entries.push(entry);
    }
    Ok(entries)
}

fn checked(entry: Entry) -> Result<KeyEntry, (&'static str, String)> {
    let Entry { name, sha256, roles, tenant, rate, expires } = entry;
    let is_name = |text: &str| {
        (1..=NAME_CHARS_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._@".contains(&byte))
    };
    let expected = format!("expected 1 to {NAME_CHARS_MAX} characters of a-z, A-Z, 0-9, '-', '.', '_', '@'");
    if !is_name(&name) {
        return Err(("keys.name", expected));
    }
    let Some(digest) = fte_events::unhex(&sha256.to_ascii_lowercase()) else {
        return Err(("keys.sha256", "expected 64 hexadecimal digits: `fte keys new` prints them".to_owned()));
    };
    if roles.is_empty() {
        return Err(("keys.roles", "expected at least one of submit, read, approve, audit, admin".to_owned()));
    }
    let tenant = tenant.unwrap_or_else(|| TENANT.to_owned());
    if tenant != EVERY && !is_name(&tenant) {
        return Err(("keys.tenant", format!("{expected}, or \"*\" for every tenant")));
    }
    Ok(KeyEntry { name, digest, roles, tenant: (tenant != EVERY).then_some(tenant), rate, expires })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Vec<KeyEntry>, String> {
        parse(Path::new("keys.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_made_key_is_found_by_what_the_file_says_of_it() {
        let key = NewKey::make().unwrap();
        assert!(key.secret.starts_with("fte_") && key.secret.len() == 47, "256 bits in base64 behind the prefix");
        let text = format!("[[keys]]\nname = \"ada\"\nsha256 = \"{}\"\nroles = [\"submit\"]\nrate = 5\n", key.sha256);
        let entries = parsed(&text).unwrap();
        assert_eq!((entries[0].digest, entries[0].rate), (digest(&key.secret), NonZeroU32::new(5)));
        assert_eq!(entries[0].tenant.as_deref(), Some("default"));
        assert_ne!(NewKey::make().unwrap().secret, key.secret);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let sha256 = "0".repeat(64);
        let entry = |name: &str, sha256: &str, rest: &str| format!("# keys\n[[keys]]\nname = \"{name}\"\nsha256 = \"{sha256}\"\n{rest}\n");
        let check = |text: &str, expected: &str| {
            let error = parsed(text).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        check("", "there is no key");
        check(&entry("ada", "12", "roles = [\"read\"]"), "keys.toml line 2, keys.sha256: expected 64");
        check(&entry("ada", &sha256, "roles = []"), "keys.roles: expected at least one");
        check(&entry("ada", &sha256, "roles = [\"king\"]"), "unknown variant `king`");
        check(&entry("a b", &sha256, "roles = [\"read\"]"), "keys.name");
        check(&entry("ada", &sha256, "roles = [\"read\"]\ntenant = \"a/b\""), "keys.tenant");
        check(&entry("ada", &sha256, "roles = [\"read\"]\nrate = 0"), "line 6");
        check(&entry("ada", &sha256, "secret = \"x\""), "unknown field");
        let twice = entry("ada", &sha256, "roles = [\"read\"]");
        check(&format!("{twice}{twice}"), "there twice");
    }
}
