//! Where a log is read from: a directory, or whatever serves the same files by name.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use fte_tlog::{TileLevel, TilePath};

use crate::entry::leaf::LEAF_BYTES_MAX;
use crate::files::{NOTE_BYTES_MAX, read_at_most};

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

    /// The year that it is kept as, where that can be told: its origin must be of that.
    fn year(&self) -> Option<u16> {
        None
    }
}

/// The last checkpoint that witnesses have signed.
pub(super) const WITNESSED: &str = crate::files::WITNESSED;

/// That a shard was retired.
pub(super) const RETIRED: &str = crate::engine::RETIRED;

/// The folder of the blobs.
const BLOBS: &str = "blobs";

/// Where a blob stands.
pub(crate) fn blob_name(digest: &str) -> String {
    format!("{BLOBS}/{}/{digest}", digest.get(..2).unwrap_or_default())
}

/// The files in a directory. A shard's `blobs`, `witnessed` and `retired` may stand beside its `log`.
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
            Some(shard) if (name.starts_with(BLOBS) || name == WITNESSED || name == RETIRED) && !own.exists() => shard.join(name),
            _ => own,
        }
    }
}

impl Source for Directory {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match read_at_most(&self.place(name), limit_of(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn list(&self, folder: &str, seen: &mut dyn FnMut(&str) -> io::Result<()>) -> io::Result<bool> {
        let place = self.place(folder);
        let top = if place.starts_with(&self.log) { &*self.log } else { self.log.parent().unwrap_or(&self.log) };
        walk(top, &place, seen)?;
        if folder.is_empty() {
            self.beside(seen)?;
        }
        Ok(true)
    }

    /// Of `…/2026/log`.
    fn year(&self) -> Option<u16> {
        let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
        name(&self.log).filter(|name| name == "log")?;
        let year = name(self.log.parent()?)?;
        year.parse().ok().filter(|_| year.len() == 4 && year.bytes().all(|byte| byte.is_ascii_digit()))
    }
}

/// No event that a service takes is as large.
pub(crate) const BLOB_BYTES_MAX: u64 = 256 << 20;

/// More than a file of that name ever has.
fn limit_of(name: &str) -> u64 {
    match name.parse::<TilePath>() {
        Ok(TilePath { level: TileLevel::Entries, .. }) => 256 * (LEAF_BYTES_MAX as u64 + 2),
        Ok(_) => 256 * 32,
        Err(_) if name.starts_with(BLOBS) => BLOB_BYTES_MAX,
        Err(_) => NOTE_BYTES_MAX,
    }
}

/// What the engine has in a shard's directory, each checked by itself or no part of what is signed.
const OF_A_SHARD: [&str; 5] = ["log", "blobs", "wal", WITNESSED, RETIRED];

impl Directory {
    /// What else there is beside the log in the directory of its year, where it is in one.
    fn beside(&self, seen: &mut dyn FnMut(&str) -> io::Result<()>) -> io::Result<()> {
        let Some(directory) = self.log.parent().filter(|_| self.year().is_some()) else { return Ok(()) };
        for entry in fs::read_dir(directory)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if !OF_A_SHARD.contains(&name.as_str()) {
                seen(&format!("../{name}"))?;
            }
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(log: &Path) -> Vec<String> {
        let mut names = Vec::new();
        let mut seen = |name: &str| {
            names.push(name.to_owned());
            Ok(())
        };
        Directory::new(log).list("", &mut seen).unwrap();
        names.sort_unstable();
        names
    }

    #[test]
    fn what_stands_beside_a_log_in_its_year_is_listed_unless_it_belongs_there() {
        let top = tempfile::tempdir().unwrap();
        for (shard, foreign) in [("2026", &["../note.txt", "../other"][..]), ("copies", &[])] {
            let shard = top.path().join(shard);
            for directory in ["log", "blobs", "wal", "other"] {
                fs::create_dir_all(shard.join(directory)).unwrap();
            }
            for file in ["log/checkpoint", "wal/new", WITNESSED, RETIRED, "note.txt"] {
                fs::write(shard.join(file), "").unwrap();
            }
            assert_eq!(listed(&shard.join("log")), [foreign, &["checkpoint"]].concat());
        }
    }
}
