//! Where a log is read from: a directory, or whatever serves the same files by name.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// The files of one shard, by their names below its prefix (`checkpoint`, `tile/0/000`, `blobs/…`). Read from several threads at once.
pub trait Source: Sync {
    /// A whole file; `None` where there is none.
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>>;

    /// A payload that is too large for its entry, by its digest in hex.
    fn blob(&self, digest: &str) -> io::Result<Option<Vec<u8>>> {
        self.read(&blob_name(digest))
    }

    /// Every file below a folder, for who can list them: each is given to `seen`, which may stop the walk by an error. Returns whether there was a list.
    fn list(&self, folder: &str, seen: &mut dyn FnMut(&str) -> io::Result<()>) -> io::Result<bool>;
}

/// The last checkpoint that witnesses have signed.
pub(super) const WITNESSED: &str = crate::witnessing::FILE;

/// Where a blob stands.
pub(super) fn blob_name(digest: &str) -> String {
    format!("blobs/{}/{digest}", digest.get(..2).unwrap_or_default())
}

/// The files in a directory. A shard's `blobs` and `witnessed` may stand beside its `log`.
#[derive(Clone, Debug)]
pub struct Directory {
    log: PathBuf,
}

impl Directory {
    /// `path` is the directory that has the `checkpoint`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { log: path.into() }
    }

    fn place(&self, name: &str) -> PathBuf {
        let own = self.log.join(name);
        // In an installation they stand beside `log`, and in an evidence bundle within it.
        match self.log.parent() {
            Some(shard) if (name.starts_with("blobs/") || name == WITNESSED) && !own.exists() => shard.join(name),
            _ => own,
        }
    }
}

impl Source for Directory {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.place(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn list(&self, folder: &str, seen: &mut dyn FnMut(&str) -> io::Result<()>) -> io::Result<bool> {
        walk(&self.log, &self.log.join(folder), seen)?;
        Ok(true)
    }
}

fn walk(top: &Path, folder: &Path, seen: &mut dyn FnMut(&str) -> io::Result<()>) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            walk(top, &path, seen)?;
        } else {
            seen(&path.strip_prefix(top).unwrap_or(&path).to_string_lossy())?;
        }
    }
    Ok(())
}
