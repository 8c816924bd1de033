//! A disk that loses power. What was written and not synced is there afterwards in any part, in any order; so are names. Any call may fail, and it may
//! run full. All of it follows from a seed.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::disk::{Disk, DiskFile};

/// The unit in which writes are torn.
const SECTOR: usize = 512;

#[derive(Clone, Default)]
pub(crate) struct SimDisk {
    inner: Arc<Mutex<Inner>>,
}

type FileId = u64;

#[derive(Clone, Default)]
struct Content {
    /// As programs see it.
    now: Vec<u8>,
    /// What is certainly on the disk.
    synced: Vec<u8>,
    /// Sectors written since, whose fate is open.
    dirty: Vec<(usize, Vec<u8>)>,
}

/// A change of a name whose fate is open: what the name was before, and is now.
#[derive(Clone)]
struct NameChange {
    path: PathBuf,
    now: Option<FileId>,
}

#[derive(Clone, Default)]
struct Inner {
    random: Option<fastrand::Rng>,
    files: BTreeMap<FileId, Content>,
    names: BTreeMap<PathBuf, FileId>,
    /// Names that are certainly on the disk, and those whose fate is open, in order.
    synced_names: BTreeMap<PathBuf, FileId>,
    changes: Vec<NameChange>,
    next_id: FileId,
    /// Calls until the power goes; none for never.
    calls_left: Option<u64>,
    /// Calls until one fails.
    fails_in: Option<u64>,
    /// Bytes until the disk is full.
    room: Option<u64>,
    /// Calls until it is.
    full_in: Option<u64>,
    /// Calls that were made of it.
    calls: u64,
    is_off: bool,
    /// Whether any call has failed since the last life began.
    has_failed: bool,
}

impl SimDisk {
    pub(crate) fn new(seed: u64) -> Self {
        let disk = Self::default();
        disk.lock().random = Some(fastrand::Rng::with_seed(seed));
        disk
    }

    /// Another disk with all that is on this one.
    pub(crate) fn copied(&self) -> Self {
        Self { inner: Arc::new(Mutex::new(self.lock().clone())) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The power goes in so many calls.
    pub(crate) fn cut_in(&self, calls: u64) {
        self.lock().calls_left = Some(calls);
    }

    /// One call fails, in so many calls; those after it do not.
    pub(crate) fn fail_in(&self, calls: u64) {
        self.lock().fails_in = Some(calls);
    }

    /// The disk is full after so many calls.
    pub(crate) fn full_in(&self, calls: u64) {
        self.lock().full_in = Some(calls);
    }

    /// How many calls were made of it.
    pub(crate) fn calls(&self) -> u64 {
        self.lock().calls
    }

    pub(crate) fn set_room(&self, bytes: Option<u64>) {
        let mut inner = self.lock();
        (inner.room, inner.full_in, inner.has_failed) = (bytes, None, false);
    }

    /// Nothing fails for a while; what was to come is given back.
    pub(crate) fn calm(&self) -> (Option<u64>, Option<u64>) {
        let mut inner = self.lock();
        (inner.calls_left.take(), inner.fails_in.take())
    }

    pub(crate) fn resume(&self, (calls_left, fails_in): (Option<u64>, Option<u64>)) {
        let mut inner = self.lock();
        (inner.calls_left, inner.fails_in) = (calls_left, fails_in);
    }

    /// Whether any call has failed in this life.
    pub(crate) fn has_failed(&self) -> bool {
        self.lock().has_failed
    }

    /// The process is killed, and the disk keeps all.
    pub(crate) fn killed(&self) {
        let mut inner = self.lock();
        (inner.calls_left, inner.fails_in, inner.is_off, inner.has_failed) = (None, None, false, false);
    }

    /// The power comes back: of what was not synced, any part is there.
    pub(crate) fn power_cut(&self) {
        let mut inner = self.lock();
        let mut random = inner.random.take().unwrap();
        for content in inner.files.values_mut() {
            let mut after = content.synced.clone();
            let mut dirty = std::mem::take(&mut content.dirty);
            random.shuffle(&mut dirty);
            // All, none, or some of them.
            let keep = [0, 50, 100][random.usize(..3)];
            for (at, bytes) in dirty {
                if random.u32(..100) >= keep {
                    continue;
                }
                if after.len() < at + bytes.len() {
                    after.resize(at + bytes.len(), 0);
                }
                after[at..at + bytes.len()].copy_from_slice(&bytes);
            }
            content.now.clone_from(&after);
            content.synced = after;
        }
        let mut names = inner.synced_names.clone();
        let keep = [0, 50, 100][random.usize(..3)];
        for change in std::mem::take(&mut inner.changes) {
            if random.u32(..100) < keep {
                match change.now {
                    Some(id) => names.insert(change.path, id),
                    None => names.remove(&change.path),
                };
            }
        }
        inner.names.clone_from(&names);
        inner.synced_names = names;
        (inner.calls_left, inner.fails_in, inner.is_off, inner.has_failed) = (None, None, false, false);
        inner.random = Some(random);
    }
}

impl Inner {
    /// Counts a call; an error when it is the one that fails, or there is no power.
    fn call(&mut self) -> io::Result<()> {
        let called = self.try_call();
        self.has_failed |= called.is_err();
        called
    }

    fn try_call(&mut self) -> io::Result<()> {
        self.calls += 1;
        if let Some(left) = &mut self.full_in {
            if *left == 0 {
                self.room = Some(0);
            }
            *left = left.saturating_sub(1);
        }
        if self.is_off {
            return Err(io::Error::other("no power"));
        }
        if let Some(left) = &mut self.calls_left {
            if *left == 0 {
                self.is_off = true;
                return Err(io::Error::other("no power"));
            }
            *left -= 1;
        }
        match &mut self.fails_in {
            Some(0) => {
                self.fails_in = None;
                Err(io::Error::other("injected"))
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn take_room(&mut self, bytes: usize) -> io::Result<()> {
        let Some(room) = &mut self.room else { return Ok(()) };
        match room.checked_sub(bytes as u64) {
            Some(left) => {
                *room = left;
                Ok(())
            }
            None => {
                self.has_failed = true;
                Err(io::Error::from(io::ErrorKind::StorageFull))
            }
        }
    }

    fn find(&self, path: &Path) -> io::Result<FileId> {
        self.names.get(path).copied().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn set_name(&mut self, path: &Path, now: Option<FileId>) {
        match now {
            Some(id) => self.names.insert(path.to_owned(), id),
            None => self.names.remove(path),
        };
        self.changes.push(NameChange { path: path.to_owned(), now });
    }
}

struct SimFile {
    disk: SimDisk,
    id: FileId,
}

impl DiskFile for SimFile {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.disk.lock();
        let offset = usize::try_from(offset).unwrap();
        let called = inner.call();
        let grows = (offset + bytes.len()).saturating_sub(inner.files[&self.id].now.len());
        let roomy = inner.take_room(grows);
        // A write that fails, or during which the power goes, has written a part.
        let count = if called.is_ok() && roomy.is_ok() { bytes.len() } else { inner.random.as_mut().unwrap().usize(..=bytes.len()) };
        let content = inner.files.get_mut(&self.id).unwrap();
        let end = offset + count;
        if content.now.len() < end {
            content.now.resize(end, 0);
        }
        content.now[offset..end].copy_from_slice(&bytes[..count]);
        let mut at = offset;
        while at < end {
            let next = ((at / SECTOR + 1) * SECTOR).min(end);
            content.dirty.push((at, content.now[at..next].to_vec()));
            at = next;
        }
        called.and(roomy)
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut inner = self.disk.lock();
        match inner.call() {
            Ok(()) => {
                let content = inner.files.get_mut(&self.id).unwrap();
                content.synced.clone_from(&content.now);
                content.dirty.clear();
                Ok(())
            }
            Err(error) => {
                // The pages count as clean now, and what of them is on the disk is anybody's guess: a second sync would succeed and mean nothing.
                let mut random = inner.random.take().unwrap();
                let content = inner.files.get_mut(&self.id).unwrap();
                for (at, bytes) in std::mem::take(&mut content.dirty) {
                    if random.bool() {
                        if content.synced.len() < at + bytes.len() {
                            content.synced.resize(at + bytes.len(), 0);
                        }
                        content.synced[at..at + bytes.len()].copy_from_slice(&bytes);
                    }
                }
                inner.random = Some(random);
                Err(error)
            }
        }
    }
}

impl Disk for SimDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut inner = self.lock();
        inner.call()?;
        let id = inner.next_id;
        inner.next_id += 1;
        inner.files.insert(id, Content::default());
        inner.set_name(path, Some(id));
        Ok(Box::new(SimFile { disk: self.clone(), id }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut inner = self.lock();
        inner.call()?;
        let id = inner.find(path)?;
        Ok(Box::new(SimFile { disk: self.clone(), id }))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut inner = self.lock();
        inner.call()?;
        let id = inner.find(path)?;
        Ok(inner.files[&id].now.clone())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let mut inner = self.lock();
        inner.call()?;
        let children = inner.names.keys().filter_map(|path| path.strip_prefix(directory).ok()?.components().next());
        let mut names: Vec<String> = children.map(|child| child.as_os_str().to_string_lossy().into_owned()).collect();
        names.dedup();
        Ok(names)
    }

    fn create_dir(&self, _: &Path) -> io::Result<()> {
        self.lock().call()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.lock();
        inner.call()?;
        let id = inner.find(from)?;
        inner.set_name(from, None);
        inner.set_name(to, Some(id));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.lock();
        inner.call()?;
        inner.find(path)?;
        inner.set_name(path, None);
        Ok(())
    }

    fn remove_dir(&self, _: &Path) -> io::Result<()> {
        self.lock().call()
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.lock();
        inner.call()?;
        let (mine, others) =
            std::mem::take(&mut inner.changes).into_iter().partition(|change: &NameChange| change.path.parent() == Some(path));
        inner.changes = others;
        let mine: Vec<NameChange> = mine;
        for change in mine {
            match change.now {
                Some(id) => inner.synced_names.insert(change.path, id),
                None => inner.synced_names.remove(&change.path),
            };
        }
        Ok(())
    }

    fn lock(&self, _: &Path) -> io::Result<Option<Box<dyn Send>>> {
        Ok(Some(Box::new(())))
    }
}
