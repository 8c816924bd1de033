//! What a witness remembers: one file for each log, named by the digest of its origin, with the last checkpoint it signed.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use fte_events::hex;
use fte_tlog::{Checkpoint, SignedNote};
use sha2::{Digest, Sha256};

use crate::files::install;
use crate::lock::DirectoryLock;

/// Why a witness cannot remember.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{} cannot be used", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("another process uses {}: two witnesses of one memory could sign two histories", path.display())]
    Locked { path: PathBuf },
    #[error("{} is no checkpoint: what was signed is not known any more. Restore it from a copy, and never from an older one", path.display())]
    Damaged { path: PathBuf },
    #[error("{} was not written whole before; start the witness again, which reads what is on the disk", path.display())]
    Unknown { path: PathBuf },
    #[error("a witness signs with a key of type 0x04, and this is one of a log")]
    Key,
}

/// The memory of a witness, in a directory that it has alone.
pub(super) struct Store {
    directory: PathBuf,
    latest: HashMap<String, (Checkpoint, String)>,
    /// A write that failed: nobody knows what is on the disk.
    failed: Option<PathBuf>,
    _lock: DirectoryLock,
}

/// A file's name.
pub(super) fn origin_sha256(origin: &str) -> String {
    hex(&Sha256::digest(origin))
}

impl Store {
    pub(super) fn open(directory: &Path) -> Result<Self, StoreError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::Io { path, source }
        };
        fs::create_dir_all(directory).map_err(io(directory))?;
        let path = directory.join("lock");
        let taken = DirectoryLock::take(&path).map_err(io(&path))?;
        let lock = taken.ok_or_else(|| StoreError::Locked { path: directory.to_owned() })?;
        let mut latest = HashMap::new();
        for entry in fs::read_dir(directory).map_err(io(directory))? {
            let path = entry.map_err(io(directory))?.path();
            if path.extension().is_none_or(|kind| kind != "checkpoint") {
                continue;
            }
            let bytes = fs::read(&path).map_err(io(&path))?;
            let damaged = || StoreError::Damaged { path: path.clone() };
            let note = SignedNote::parse(&bytes).map_err(|_| damaged())?;
            let checkpoint = Checkpoint::parse(note.text()).map_err(|_| damaged())?;
            let name = origin_sha256(&checkpoint.origin);
            if path.file_stem().is_none_or(|stem| stem != &*name) {
                return Err(damaged());
            }
            latest.insert(name, (checkpoint, note.to_string()));
        }
        Ok(Self { directory: directory.to_owned(), latest, failed: None, _lock: lock })
    }

    pub(super) fn latest(&self, origin: &str) -> Option<&Checkpoint> {
        self.latest.get(&origin_sha256(origin)).map(|(checkpoint, _)| checkpoint)
    }

    pub(super) fn note(&self, origin_sha256: &str) -> Option<String> {
        self.latest.get(origin_sha256).map(|(_, note)| note.clone())
    }

    /// Remembers a checkpoint, durably.
    pub(super) fn store(&mut self, checkpoint: &Checkpoint, note: &str) -> Result<(), StoreError> {
        if let Some(path) = &self.failed {
            return Err(StoreError::Unknown { path: path.clone() });
        }
        let name = origin_sha256(&checkpoint.origin);
        let path = self.directory.join(format!("{name}.checkpoint"));
        if let Err(source) = install(&path, note.as_bytes(), 0o644) {
            self.failed = Some(path.clone());
            return Err(StoreError::Io { path, source });
        }
        self.latest.insert(name, (checkpoint.clone(), note.to_owned()));
        Ok(())
    }
}
