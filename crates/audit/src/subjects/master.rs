//! The master key, which wraps all others, in a file of its own: 64 hexadecimal digits and a line feed, for its owner's eyes only.
//!
//! It is made once, where there are no keys yet. Where there are some, a missing master key is an error and never a reason for a new one.
//!
//! Another one takes its place in steps that may be cut short anywhere: it is written beside the old one, all keys are wrapped anew in one transaction,
//! and the file is renamed. Whoever opens the keys tries both, and tidies up ([`candidates`]).

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use fte_events::{hex, unhex};
use fte_service::Secret;
use zeroize::Zeroizing;

use super::KeyError;
use super::cipher::{Key, random_key};
use crate::files::{install, sync_parent};

/// Where the next master key stands until it is the one.
pub(super) fn next_path(path: &Path) -> PathBuf {
    path.with_extension("key.next")
}

/// The master key and, after a change of it that was cut short, the next one.
pub(super) fn candidates(path: &Path, secret: Option<&Secret>) -> Result<Vec<(PathBuf, Key)>, KeyError> {
    if let Some(secret) = secret {
        let key = digits(secret.expose()).ok_or_else(|| KeyError::MasterMalformed { path: PathBuf::from("the secret store") })?;
        return Ok(vec![(PathBuf::from("the secret store"), Zeroizing::new(key))]);
    }
    let mut found = Vec::new();
    for path in [path.to_owned(), next_path(path)] {
        if let Some(key) = read(&path)? {
            found.push((path, key));
        }
    }
    Ok(found)
}

/// A key from its 64 digits, in whatever case somebody wrote them.
fn digits(text: &str) -> Option<[u8; 32]> {
    unhex(&Zeroizing::new(text.trim_end().to_ascii_lowercase()))
}

fn read(path: &Path) -> Result<Option<Key>, KeyError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => Zeroizing::new(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(KeyError::File { path: path.to_owned(), what: "cannot be read: it is the master key of the audit log", source });
        }
    };
    if fs::metadata(path).is_ok_and(|metadata| metadata.mode() & 0o007 != 0) {
        tracing::warn!(path = %path.display(), "everybody on this machine can read the master key of the audit log: take that right away (chmod 600)");
    }
    let key = digits(&text).ok_or_else(|| KeyError::MasterMalformed { path: path.to_owned() })?;
    Ok(Some(Zeroizing::new(key)))
}

/// Makes a master key that is durable on return; one that is there is not touched.
pub(super) fn make(path: &Path) -> Result<Key, KeyError> {
    let key = random_key()?;
    write(path, &key).map_err(|source| KeyError::File {
        path: path.to_owned(),
        what: "cannot be written: it is to be the master key of the audit log",
        source,
    })?;
    Ok(key)
}

fn write(path: &Path, key: &Key) -> io::Result<()> {
    let text = Zeroizing::new(format!("{}\n", hex(&**key)));
    install(path, text.as_bytes(), 0o600)
}

/// The next master key is the one from now on.
pub(super) fn promote(path: &Path) -> Result<(), KeyError> {
    let failed = |source| KeyError::File { path: path.to_owned(), what: "cannot be replaced by the next master key", source };
    fs::rename(next_path(path), path).and_then(|()| sync_parent(path)).map_err(failed)
}

/// The next master key was never used.
pub(super) fn discard_next(path: &Path) -> Result<(), KeyError> {
    let next = next_path(path);
    let failed = |source| KeyError::File { path: next.clone(), what: "cannot be removed: it is a master key that was never used", source };
    fs::remove_file(&next).and_then(|()| sync_parent(path)).map_err(failed)
}
