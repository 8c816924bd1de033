//! A directory of one test, gone with it.

use std::ops::Deref;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A temporary directory, deleted on drop. It is kept when its test fails, and the failure says where.
#[derive(Debug)]
pub struct Dir {
    inner: Option<TempDir>,
}

impl Dir {
    /// A new, empty directory.
    #[expect(clippy::new_without_default, reason = "making a directory is an act, not a default")]
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("fte-test-").tempdir().expect("the temporary directory is writable");
        Self { inner: Some(dir) }
    }

    /// Writes a file into it and returns its path.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(name);
        std::fs::write(&path, content).expect("the test's directory is writable");
        path
    }
}

impl Deref for Dir {
    type Target = Path;
    fn deref(&self) -> &Path {
        self.inner.as_ref().expect("the directory lives until the drop").path()
    }
}

impl AsRef<Path> for Dir {
    fn as_ref(&self) -> &Path {
        self
    }
}

impl Drop for Dir {
    #[expect(clippy::print_stderr, reason = "a failed test says where its files are")]
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(dir) = self.inner.take()
        {
            eprintln!("kept for inspection: {}", dir.keep().display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_gone_with_its_test() {
        let dir = Dir::new();
        let path = dir.write("a.txt", "a");
        assert!(path.exists());
        drop(dir);
        assert!(!path.exists());
    }
}
