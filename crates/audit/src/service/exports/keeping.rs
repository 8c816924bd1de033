//! The archives on the disk: when one may be handed out, and when it goes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{ExportedShard, Failure, KEPT_FOR};

/// Most archives that are kept; a further one takes the place of the oldest.
pub(super) const KEPT_MAX: usize = 8;

/// What is known of an archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(crate) id: Uuid,
    /// The one tenant whose entries it has; none: every tenant's.
    pub(crate) tenant: Option<String>,
    pub(crate) made_at: Timestamp,
    pub(crate) expires_at: Timestamp,
    pub(crate) complete: Option<bool>,
    pub(crate) shards: Vec<ExportedShard>,
    pub(crate) bytes: u64,
}

impl Kept {
    pub(super) fn new(id: Uuid, tenant: Option<String>, made_at: Timestamp) -> Self {
        let expires_at = made_at.checked_add(jiff::SignedDuration::try_from(KEPT_FOR).unwrap_or_default()).unwrap_or(made_at);
        Self { id, tenant, made_at, expires_at, complete: None, shards: Vec::new(), bytes: 0 }
    }

    pub(crate) fn entries(&self) -> usize {
        self.shards.iter().map(|shard| shard.entries).sum()
    }
}

/// The directory. Whoever changes names in it holds the lock.
pub(super) struct Keeping {
    directory: PathBuf,
    erasures: Mutex<Erasures>,
}

#[derive(Default)]
struct Erasures {
    /// What was begun before one is worth nothing after it.
    count: u64,
    /// The last one could not remove all: nothing is handed out before one has.
    is_unfinished: bool,
}

/// An archive that is being made; it goes unless it is published.
pub(super) struct Part<'k> {
    keeping: &'k Keeping,
    id: Uuid,
    erasures: u64,
    is_published: bool,
}

impl Keeping {
    pub(super) fn open(directory: PathBuf) -> Result<Self, Failure> {
        let this = Self { directory, erasures: Mutex::default() };
        let make = || fs::DirBuilder::new().recursive(true).mode(0o700).create(&this.directory);
        make().map_err(|source| this.failed(source))?;
        this.forget()?;
        Ok(this)
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn find(&self, id: Uuid, now: Timestamp) -> Result<Option<Kept>, Failure> {
        let erasures = self.lock();
        if erasures.is_unfinished {
            return Ok(None);
        }
        let read = || match fs::metadata(self.path(id, "tar")).and_then(|_| fs::read(self.path(id, "json"))) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            read => read.and_then(|bytes| serde_json::from_slice::<Kept>(&bytes).map(Some).map_err(io::Error::from)),
        };
        let kept = read().map_err(|source| self.failed(source))?;
        Ok(kept.filter(|kept| now < kept.expires_at))
    }

    pub(super) fn archive(&self, id: Uuid) -> Result<Option<File>, Failure> {
        let erasures = self.lock();
        if erasures.is_unfinished {
            return Ok(None);
        }
        match File::open(self.path(id, "tar")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            opened => opened.map(Some).map_err(|source| self.failed(source)),
        }
    }

    /// Begins an archive.
    pub(super) fn begin(&self, id: Uuid) -> Result<(Part<'_>, File), Failure> {
        let erasures = self.lock();
        if erasures.is_unfinished {
            return Err(Failure::Outdated);
        }
        let erasures = erasures.count;
        let mut options = File::options();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(self.path(id, "part"));
        let file = file.map_err(|source| self.failed(source))?;
        Ok((Part { keeping: self, id, erasures, is_published: false }, file))
    }

    /// Removes all that there is.
    pub(super) fn forget(&self) -> Result<(), Failure> {
        let mut erasures = self.lock();
        erasures.count += 1;
        erasures.is_unfinished = true;
        let remove_all = || {
            for entry in fs::read_dir(&self.directory)? {
                remove(&entry?.path())?;
            }
            File::open(&self.directory)?.sync_all()
        };
        remove_all().map_err(|source| self.failed(source))?;
        erasures.is_unfinished = false;
        Ok(())
    }

    /// Removes what has had its time, and the oldest of too many.
    pub(super) fn expire(&self, now: Timestamp) -> Result<(), Failure> {
        let _lock = self.lock();
        self.make_room(now, KEPT_MAX).map_err(|source| self.failed(source))
    }

    fn make_room(&self, now: Timestamp, places: usize) -> io::Result<()> {
        // What cannot be read, as after a failed write, has had its time.
        let mut expiries = BTreeMap::new();
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            let id = path.file_stem().and_then(|stem| Uuid::try_parse(&stem.to_string_lossy()).ok());
            let Some(id) = id.filter(|_| path.extension().is_some_and(|extension| extension != "part")) else { continue };
            let kept = fs::read(self.path(id, "json")).ok().and_then(|bytes| serde_json::from_slice::<Kept>(&bytes).ok());
            expiries.insert(id, kept.map_or(Timestamp::MIN, |kept| kept.expires_at));
        }
        let mut all: Vec<_> = expiries.into_iter().map(|(id, expires_at)| (expires_at, id)).collect();
        all.sort_unstable();
        let surplus = all.len().saturating_sub(places);
        for (place, (expires_at, id)) in all.into_iter().enumerate() {
            if place < surplus || expires_at <= now {
                // What may be handed out goes first.
                remove(&self.path(id, "tar"))?;
                remove(&self.path(id, "json"))?;
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Erasures> {
        self.erasures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, id: Uuid, extension: &str) -> PathBuf {
        self.directory.join(format!("{id}.{extension}"))
    }

    pub(super) fn failed(&self, source: io::Error) -> Failure {
        Failure::Disk { path: self.directory.clone(), source }
    }
}

/// Removes a file that may be gone: who makes an archive removes an unfinished one, too.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

impl Part<'_> {
    /// Whether somebody was erased since it was begun.
    pub(super) fn is_outdated(&self) -> bool {
        self.keeping.lock().count != self.erasures
    }

    /// Gives the archive the name under which it is handed out. It is whole and synced, and the log has the entry that tells of it.
    pub(super) fn publish(mut self, kept: &Kept) -> Result<(), Failure> {
        let keeping = self.keeping;
        let erasures = keeping.lock();
        if erasures.count != self.erasures {
            return Err(Failure::Outdated);
        }
        let publish = || {
            keeping.make_room(Timestamp::now(), KEPT_MAX - 1)?;
            let mut options = File::options();
            let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(keeping.path(self.id, "json"))?;
            file.write_all(&serde_json::to_vec(kept)?)?;
            file.sync_all()?;
            fs::rename(keeping.path(self.id, "part"), keeping.path(self.id, "tar"))?;
            File::open(&keeping.directory)?.sync_all()
        };
        publish().map_err(|source| keeping.failed(source))?;
        self.is_published = true;
        drop(erasures);
        Ok(())
    }
}

impl Drop for Part<'_> {
    fn drop(&mut self) {
        if !self.is_published {
            // At the latest the next start removes it.
            drop(fs::remove_file(self.keeping.path(self.id, "part")));
        }
    }
}
