//! Files that are in their place whole and durably, or not at all: keys, and what was signed.
//!
//! Each is written beside its place, synced, and then given its name. The engine's own files go through its disk, which tests can make fail.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// The name of a shard's last cosigned checkpoint, beside its `log`.
pub(crate) const WITNESSED: &str = "witnessed";

/// A note, a key or another small text: a checkpoint with the signatures of many witnesses.
pub const NOTE_BYTES_MAX: u64 = 1 << 20;

/// Opens a file that somebody else may have put there. What is no file, such as a pipe that nobody ever writes to, is not waited for.
///
/// # Errors
/// It is no file, or cannot be opened.
pub fn open_file(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no file")) }
}

/// Reads a file, or as much of it as tells that it is longer than it may be: one byte more than `limit`.
///
/// # Errors
/// As for [`open_file`], or it cannot be read.
pub fn read_at_most(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = open_file(path)?;
    let mut bytes = Vec::with_capacity(usize::try_from(file.metadata()?.len().min(limit) + 1).unwrap_or(0));
    file.take(limit + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Puts a file in its place, over one that is there.
pub fn install(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    fs::rename(beside(path, bytes, mode)?, path)?;
    sync_parent(path)
}

/// Puts a file in its place where there is none.
///
/// # Errors
/// `AlreadyExists`: somebody was there first, and theirs is not touched.
pub fn install_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let beside = beside(path, bytes, mode)?;
    // Renaming would take the place of another's.
    let linked = fs::hard_link(&beside, path);
    fs::remove_file(&beside)?;
    linked?;
    sync_parent(path)
}

/// Makes the names in a file's directory durable.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    File::open(parent(path))?.sync_all()
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

/// The bytes in a file of this process's own, durably.
fn beside(path: &Path, bytes: &[u8], mode: u32) -> io::Result<PathBuf> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let beside = PathBuf::from(name);
    // One that was left may be anybody's to read.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(beside)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_is_in_its_place_with_its_mode_and_nothing_is_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let names = || fs::read_dir(directory.path()).unwrap().count();
        install_new(&path, b"one", 0o600).unwrap();
        assert_eq!((fs::read(&path).unwrap(), names()), (b"one".to_vec(), 1));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(install_new(&path, b"two", 0o600).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!((fs::read(&path).unwrap(), names()), (b"one".to_vec(), 1));
        install(&path, b"three", 0o640).unwrap();
        assert_eq!((fs::read(&path).unwrap(), names()), (b"three".to_vec(), 1));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        // What a crash left is no obstacle, and nobody else may read what is written over it.
        let left = directory.path().join(format!("other.{}.tmp", std::process::id()));
        fs::write(&left, "half").unwrap();
        install_new(&directory.path().join("other"), b"whole", 0o600).unwrap();
        assert_eq!(fs::metadata(directory.path().join("other")).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(names(), 2);
    }
}
