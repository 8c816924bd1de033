//! The right to work with a directory, which one process of a machine has at a time.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// A lock that is held until this is dropped, or the process ends.
pub(crate) struct DirectoryLock(File);

impl DirectoryLock {
    /// Takes the lock of a file, which is made if it is missing; `None` if somebody else has it.
    pub(crate) fn take(path: &Path) -> io::Result<Option<Self>> {
        let file = File::options().create(true).truncate(false).write(true).mode(0o640).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

impl Drop for DirectoryLock {
    /// Closing the file is not enough: a program that another thread starts just now shares it until it is executed, and would keep the lock.
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_free_once_it_is_dropped_even_while_somebody_else_has_the_same_open_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let held = DirectoryLock::take(&path).unwrap().unwrap();
        assert!(DirectoryLock::take(&path).unwrap().is_none());
        // What a child has between fork and exec.
        let shared = held.0.try_clone().unwrap();
        drop(held);
        assert!(DirectoryLock::take(&path).unwrap().is_some());
        drop(shared);
    }
}
