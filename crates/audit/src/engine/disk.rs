//! What the log needs of a disk, and no more: so that tests can put one in its place that loses power.
//!
//! The contract is that of POSIX without favours: what was written is on the disk only after `sync` of the file, and a new or renamed name only after
//! `sync_dir` of its directory; until then any part of it may be there or not, in any order. After a `sync` that failed nothing is known of the file.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use crate::lock::DirectoryLock;

/// Files by their paths.
pub trait Disk: Send + Sync + 'static {
    /// Makes an empty file, in the place of one that may be there.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// A file that is there, to write on.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// The names in a directory; none if it is not there.
    fn list(&self, directory: &Path) -> io::Result<Vec<String>>;
    /// Makes a directory and its parents; nothing if it is there.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty directory; nothing if it is not there.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Keeps every other process from locking the same file, until the guard is dropped or this process ends.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send>>>;
}

/// An open file.
pub trait DiskFile: Send {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes content and size durable.
    fn sync(&mut self) -> io::Result<()>;
}

/// The file system.
pub struct RealDisk;

impl DiskFile for File {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }
    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

impl Disk for RealDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(OpenOptions::new().write(true).open(path)?))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let names: io::Result<Vec<_>> = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect();
        names
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        match fs::remove_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send>>> {
        Ok(DirectoryLock::take(path)?.map(|lock| Box::new(lock) as _))
    }
}

/// Whether a new file must be durable at once, or can be made again from what is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    Synced,
    Derived,
}

/// Puts a file in its place whole: under another name first, so that nobody meets half of it. What a crash leaves of that stands where nobody looks.
pub(super) fn install(disk: &dyn Disk, temporary: &Path, path: &Path, bytes: &[u8], durability: Durability) -> io::Result<()> {
    let directory = path.parent().unwrap_or(path);
    let write = |disk: &dyn Disk| {
        let mut file = disk.create(temporary)?;
        file.write_at(0, bytes)?;
        if durability == Durability::Synced { file.sync() } else { Ok(()) }
    };
    write(disk)?;
    match disk.rename(temporary, path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_dir(disk, directory)?;
            disk.rename(temporary, path)?;
        }
        done => done?,
    }
    if durability == Durability::Synced { disk.sync_dir(directory) } else { Ok(()) }
}

/// Makes a directory durable, with each parent that was not there: those that were are synced once more, which costs little and happens seldom.
pub(super) fn make_dir(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    disk.create_dir(path)?;
    // Four levels up are more than any path of ours has below the directory that the service was given.
    for directory in path.ancestors().skip(1).take(5) {
        if directory.as_os_str().is_empty() {
            break;
        }
        match disk.sync_dir(directory) {
            // A parent that is not ours to open is not ours to sync either.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => break,
            synced => synced?,
        }
    }
    Ok(())
}
