//! Changing the key that signs the log: the operator's steps, with the service stopped.
//!
//! 1. [`begin`] makes the next key. The service, started again, has the log announce it, and then signs with both.
//! 2. [`finish`], once a checkpoint has both signatures, puts it in the place of the present one, whose private half is gone with that.
//!
//! Each step may be cut off between any two lines, and is done by doing it again; the service starts in between. That rests on three things: a file is in its
//! place whole or not at all; the present key is among the former ones on the disk before another takes its place; and the public halves are made again from
//! the private ones.
//!
//! A key that is in a secret store or in a file of somebody else's is changed by configuration alone: the service itself keeps `former.pub` as soon as it is given
//! a next key, and `log.pub` as soon as that is the present one ([`public`]).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use fte_tlog::{KeyAlgorithm, SignedNote, SignerKey, VerifierKey};

use crate::engine::Stopped;
use crate::files::{install, sync_parent};
use crate::keys::signing::{self, KeyError, KeyPlace};
use crate::log::LogError;

mod public;

/// The file of the next key in the directory of the keys.
pub const NEXT_KEY: &str = "log.next.key";
/// The public keys that signed before, one a line.
pub const FORMER: &str = "former.pub";

/// Why a key cannot be changed, or not yet.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("the log has signed nothing yet, so its key can be changed by removing it: there is no checkpoint in {}", directory.display())]
    NothingSigned { directory: PathBuf },
    #[error("{} is the key of {found}, and the log is {expected}", path.display())]
    Stranger { path: PathBuf, found: String, expected: String },
    #[error(
        "the last checkpoint is not signed by both keys yet: start the service with {} in its place, wait until a checkpoint has two signatures, and stop it", next.display()
    )]
    NotYet { next: PathBuf },
    #[error("there is no key to finish with in {}: begin without --finish", next.display())]
    NothingBegun { next: PathBuf },
    #[error("{} cannot be written", path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// Where the keys of a log are.
#[derive(Clone, Debug)]
pub struct Places {
    /// `<data>/audit`.
    pub directory: PathBuf,
    pub key: PathBuf,
    pub next: PathBuf,
}

impl Places {
    /// The usual ones.
    pub fn at(directory: impl Into<PathBuf>) -> Self {
        let directory = directory.into();
        let keys = directory.join("keys");
        Self { key: keys.join(signing::KEY), next: keys.join(NEXT_KEY), directory }
    }

    /// Where the public half of the present key stands: beside the key, and where whoever checks the log looks for it.
    fn public(&self) -> [PathBuf; 2] {
        [self.key.with_extension("pub"), public::path_in(&self.directory)]
    }
}

/// What [`begin`] did.
#[derive(Clone, Debug)]
pub struct Begun {
    pub next: VerifierKey,
    /// Whether it was there already.
    pub is_old: bool,
}

/// What [`finish`] did.
#[derive(Clone, Debug)]
pub struct Finished {
    pub present: VerifierKey,
    /// What signed before; none where all was done already.
    pub former: Option<VerifierKey>,
}

/// Makes the next key of a stopped log, or finds the one that was made.
pub fn begin(places: &Places) -> Result<Begun, RotationError> {
    let stopped = Stopped::lock(&places.directory)?;
    let name = host(&signed(&stopped, places)?);
    let (next, is_old) = match read_key(&places.next)? {
        Some(next) if next.name() != name => {
            return Err(RotationError::Stranger { path: places.next.clone(), found: next.name().to_owned(), expected: name });
        }
        Some(next) => (next, true),
        None => {
            let next = signing::unnamed()?.renamed(&*name, KeyAlgorithm::Ed25519).map_err(|source| KeyError::Form { source })?;
            write(&places.next, format!("{}\n", next.private_text()).as_bytes(), 0o600)?;
            (next, false)
        }
    };
    // For witnesses and whoever else checks.
    write(&places.next.with_extension("pub"), format!("{}\n", next.verifier()).as_bytes(), 0o644)?;
    Ok(Begun { next: next.verifier(), is_old })
}

/// Puts the next key of a stopped log in the place of the present one.
pub fn finish(places: &Places) -> Result<Finished, RotationError> {
    let stopped = Stopped::lock(&places.directory)?;
    let note = signed(&stopped, places)?;
    let Some(next) = read_key(&places.next)? else { return finished(places, &note) };
    // The private half may be lost; who signed until now is known without it.
    let present = match read_key(&places.key)? {
        Some(key) => key.verifier(),
        None => read_public(places)?.ok_or_else(|| KeyError::Lost { path: places.key.clone() })?,
    };
    if !has_signed(&note, &present) || !has_signed(&note, &next.verifier()) {
        return Err(RotationError::NotYet { next: places.next.clone() });
    }
    remember(&places.directory, &present)?;
    let written = |path: &Path| {
        let path = path.to_owned();
        move |source| RotationError::Write { path, source }
    };
    fs::rename(&places.next, &places.key).map_err(written(&places.key))?;
    sync_parent(&places.key).map_err(written(&places.key))?;
    sync_parent(&places.next).map_err(written(&places.next))?;
    publish(places, &next.verifier())?;
    Ok(Finished { present: next.verifier(), former: Some(present) })
}

/// What is left to do where the key is in its place: nothing, or the public halves.
fn finished(places: &Places, note: &SignedNote) -> Result<Finished, RotationError> {
    let nothing = || RotationError::NothingBegun { next: places.next.clone() };
    let present = read_key(&places.key)?.ok_or_else(nothing)?.verifier();
    let former = read_former(&places.directory)?;
    if former.iter().all(|key| key.public_bytes() == present.public_bytes()) || !has_signed(note, &present) {
        return Err(nothing());
    }
    publish(places, &present)?;
    Ok(Finished { present, former: None })
}

fn publish(places: &Places, present: &VerifierKey) -> Result<(), RotationError> {
    for path in places.public() {
        public::write(&path, present).map_err(|source| RotationError::Write { path, source })?;
    }
    let stale = places.next.with_extension("pub");
    match fs::remove_file(&stale) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(RotationError::Write { path: stale, source: error }),
        _ => Ok(()),
    }
}

/// The keys that a log is opened with.
pub struct Given {
    pub present: SignerKey,
    pub next: Option<SignerKey>,
    pub former: Vec<VerifierKey>,
}

/// Reads the keys for a process that is about to open the log, and keeps the public ones beside it, which is to be done before the first signature.
///
/// # Errors
/// One is not there where it was named, or is none; the file of former keys cannot be written.
pub fn given(place: &KeyPlace, next: Option<KeyPlace>, origin: Option<&str>, directory: &Path) -> Result<Given, KeyError> {
    let present = signing::key(place, origin, directory)?;
    let next = next_key(next, directory)?;
    let former = former(directory, &present, next.as_ref())?;
    public::renew(directory, place, &present.verifier());
    Ok(Given { present, next, former })
}

/// The next key, where there is one. A file that was named must be there.
fn next_key(place: Option<KeyPlace>, directory: &Path) -> Result<Option<SignerKey>, KeyError> {
    match place {
        Some(KeyPlace::Text(text)) => signing::parse(&text).map(Some),
        Some(KeyPlace::File(path)) => {
            let missing = || KeyError::File { path: path.clone(), source: io::ErrorKind::NotFound.into() };
            read_key(&path)?.ok_or_else(missing).map(Some)
        }
        None => read_key(&directory.join("keys").join(NEXT_KEY)),
    }
}

/// The keys that signed before. The present one is among them, durably, before another may take its place.
fn former(directory: &Path, present: &SignerKey, next: Option<&SignerKey>) -> Result<Vec<VerifierKey>, KeyError> {
    if next.is_some() {
        remember(directory, &present.verifier())?;
    }
    let mut former = read_former(directory)?;
    former.retain(|key| key.public_bytes() != present.verifier().public_bytes());
    Ok(former)
}

/// Adds a key to those that signed before, unless it is there.
fn remember(directory: &Path, key: &VerifierKey) -> Result<(), KeyError> {
    let path = directory.join("keys").join(FORMER);
    let mut former = read_former(directory)?;
    if former.contains(key) {
        return Ok(());
    }
    former.push(key.clone());
    let text: String = former.iter().map(|key| format!("{key}\n")).collect();
    let written = fs::create_dir_all(directory.join("keys")).and_then(|()| install(&path, text.as_bytes(), 0o644));
    written.map_err(|source| KeyError::File { path, source })
}

fn read_former(directory: &Path) -> Result<Vec<VerifierKey>, KeyError> {
    let path = directory.join("keys").join(FORMER);
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read.map_err(|source| KeyError::File { path: path.clone(), source })?,
    };
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.map(|line| line.parse().map_err(|source| KeyError::Former { path: path.clone(), source })).collect()
}

fn read_key(path: &Path) -> Result<Option<SignerKey>, KeyError> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(KeyError::File { path: path.to_owned(), source }),
        Ok(text) => signing::parse(&text).map(Some),
    }
}

fn read_public(places: &Places) -> Result<Option<VerifierKey>, KeyError> {
    for path in places.public() {
        match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(KeyError::File { path, source }),
            Ok(text) => return text.trim().parse().map(Some).map_err(|source| KeyError::Form { source }),
        }
    }
    Ok(None)
}

/// The last checkpoint that was signed.
fn signed(stopped: &Stopped, places: &Places) -> Result<SignedNote, RotationError> {
    stopped.last_signed()?.ok_or_else(|| RotationError::NothingSigned { directory: places.directory.clone() })
}

/// The host's part of the origin of a checkpoint.
fn host(note: &SignedNote) -> String {
    let origin = note.text().lines().next().unwrap_or_default();
    origin.rsplit_once('/').map_or(origin, |(host, _)| host).to_owned()
}

/// Whether a key has signed a checkpoint, under the name of its shard.
fn has_signed(note: &SignedNote, key: &VerifierKey) -> bool {
    let origin = note.text().lines().next().unwrap_or_default();
    let of_shard = VerifierKey::new(origin, KeyAlgorithm::Ed25519, key.public_bytes());
    key.name() == host(note) && of_shard.is_ok_and(|key| note.verify([&key]).is_ok())
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), RotationError> {
    install(path, bytes, mode).map_err(|source| RotationError::Write { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;
