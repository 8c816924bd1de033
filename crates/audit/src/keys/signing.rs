//! The key that signs the log's checkpoints: where it is, and how it is made where there is none yet.
//!
//! Its text is that of Go's `note` package, `PRIVATE+KEY+name+id+…`; its name is the host's part of the log's origin, and each shard signs under
//! `name/year`. It is made only for a log that has signed nothing: another key in the place of a lost one would make a log that nobody can check.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use fte_events::hex;
use fte_tlog::{KeyAlgorithm, SignerKey};
use sha2::{Digest, Sha256};

use crate::files::{install, install_new};

/// The file of the key in its directory.
pub const KEY: &str = "log.key";

/// Where the key is.
#[derive(Clone, Debug)]
pub enum KeyPlace {
    File(PathBuf),
    /// It itself, from a secret store.
    Text(String),
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("the key file {} cannot be used", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("the key file {} is gone, and the log was signed with it: restore it from a copy", path.display())]
    Lost { path: PathBuf },
    #[error("{} does not list former keys of a log, one a line", path.display())]
    Former { path: PathBuf, source: fte_tlog::KeyError },
    #[error("the log's key is no private key of a log, which looks like PRIVATE+KEY+name+id+…")]
    Form { source: fte_tlog::KeyError },
    #[error("the log's key is named {found}, and FTE_AUDIT_ORIGIN says {expected}: a log keeps its name")]
    Name { found: String, expected: String },
    #[error("no random numbers for a new key: {0}")]
    Random(getrandom::Error),
}

/// The key of the log in a directory. Made, in a file that only its owner can read, where that log has none and has signed nothing.
pub fn key(place: &KeyPlace, origin: Option<&str>, directory: &Path) -> Result<SignerKey, KeyError> {
    let text = match place {
        KeyPlace::Text(text) => text.clone(),
        KeyPlace::File(path) => match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if directory.join("state/epoch").exists() {
                    return Err(KeyError::Lost { path: path.clone() });
                }
                return make(path, origin);
            }
            Err(source) => return Err(KeyError::File { path: path.clone(), source }),
        },
    };
    let key = parse(&text)?;
    if let Some(expected) = origin.filter(|expected| *expected != key.name()) {
        return Err(KeyError::Name { found: key.name().to_owned(), expected: expected.to_owned() });
    }
    Ok(key)
}

/// A private key from its text.
pub(crate) fn parse(text: &str) -> Result<SignerKey, KeyError> {
    text.trim().parse().map_err(|source| KeyError::Form { source })
}

/// A key that nobody has had before, without a name yet.
pub(crate) fn unnamed() -> Result<SignerKey, KeyError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(KeyError::Random)?;
    SignerKey::new("unnamed", KeyAlgorithm::Ed25519, &seed).map_err(|source| KeyError::Form { source })
}

fn make(path: &Path, origin: Option<&str>) -> Result<SignerKey, KeyError> {
    let form = |source| KeyError::Form { source };
    let unnamed = unnamed()?;
    let digest = Sha256::digest(unnamed.verifier().public_bytes());
    let name = origin.map_or_else(|| format!("fte-{}.localhost", hex(&digest[..4])), str::to_owned);
    let key = unnamed.renamed(&name, KeyAlgorithm::Ed25519).map_err(form)?;
    let write = || {
        let directory = path.parent().unwrap_or(path);
        fs::create_dir_all(directory)?;
        // The public half first, for whoever checks: it may be written again, and the other may not.
        install(&path.with_extension("pub"), format!("{}\n", key.verifier()).as_bytes(), 0o644)?;
        install_new(path, format!("{}\n", key.private_text()).as_bytes(), 0o600)?;
        for directory in directory.ancestors().take(3) {
            fs::File::open(directory)?.sync_all()?;
        }
        Ok(())
    };
    write().map_err(|source| KeyError::File { path: path.to_owned(), source })?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_never_in_the_place_of_a_lost_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys/log.key");
        let place = KeyPlace::File(path.clone());
        let made = key(&place, None, directory.path()).unwrap();
        assert!(made.name().starts_with("fte-") && made.name().ends_with(".localhost"), "{made:?}");
        let again = key(&place, None, directory.path()).unwrap();
        assert_eq!(made.verifier(), again.verifier());
        assert!(matches!(key(&place, Some("other"), directory.path()), Err(KeyError::Name { .. })));
        let text = KeyPlace::Text(fs::read_to_string(&path).unwrap());
        assert_eq!(key(&text, None, directory.path()).unwrap().verifier(), made.verifier());

        fs::create_dir(directory.path().join("state")).unwrap();
        fs::write(directory.path().join("state/epoch"), "1\n").unwrap();
        fs::remove_file(&path).unwrap();
        assert!(matches!(key(&place, None, directory.path()), Err(KeyError::Lost { .. })));
    }
}
