//! Copies in a directory.
//!
//! A file gets its name when it is whole and durable. Then it is given the time until which it is to be kept as the time of its last access, and made read-only.
//! On file systems that keep files for good (`SnapLock` and others of its kind) these two are what commits a file until that time; on any other a copy is as safe
//! as its directory. A file that a crash left in between is whole, and is committed when it is met again.

use std::fs::{self, File, FileTimes, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use jiff::Timestamp;

use super::Shelf;
use crate::files::{install_new, sync_parent};
use crate::verify::{Directory, Source};

/// Files while they are new; the process's mask counts, too.
const MODE: u32 = 0o644;
const MAY_WRITE: u32 = 0o222;

/// The directory of a copy.
#[derive(Debug)]
pub struct DirectoryShelf {
    top: PathBuf,
    until: SystemTime,
}

impl DirectoryShelf {
    /// Files are kept until a time.
    pub fn new(top: impl Into<PathBuf>, until: Timestamp) -> Self {
        Self { top: top.into(), until: until.into() }
    }
}

impl Shelf for DirectoryShelf {
    fn put_new(&self, name: &str, bytes: &[u8]) -> io::Result<bool> {
        let path = self.top.join(name);
        if let Some(folder) = path.parent() {
            make_all(&self.top, folder)?;
        }
        match install_new(&path, bytes, MODE) {
            Ok(()) => self.commit(&path).map(|()| true),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                if !is_committed(&path)? && fs::read(&path)? == bytes {
                    self.commit(&path)?;
                }
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.top.join(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn check_kept(&self, name: &str) -> io::Result<()> {
        if is_committed(&self.top.join(name))? {
            Ok(())
        } else {
            Err(io::Error::other("it is not read-only: the directory does not keep modes of files"))
        }
    }

    fn log(&self, year: u16) -> Box<dyn Source + Send + '_> {
        Box::new(Directory::new(self.top.join(year.to_string()).join("log")))
    }

    fn lanes(&self) -> usize {
        4
    }
}

impl DirectoryShelf {
    fn commit(&self, path: &Path) -> io::Result<()> {
        let file = File::open(path)?;
        file.set_times(FileTimes::new().set_accessed(self.until))?;
        let mode = file.metadata()?.permissions().mode();
        file.set_permissions(Permissions::from_mode(mode & 0o777 & !MAY_WRITE))?;
        file.sync_all()
    }
}

fn is_committed(path: &Path) -> io::Result<bool> {
    Ok(fs::metadata(path)?.permissions().mode() & MAY_WRITE == 0)
}

/// A directory and those above it, durably. The top of the copy is there, or else nothing is.
fn make_all(top: &Path, folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(above) = folder.parent().filter(|above| above.starts_with(top)) {
        make_all(top, above)?;
    }
    match fs::create_dir(folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => sync_parent(folder),
    }
}
