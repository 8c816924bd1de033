//! Copies in a directory: `sha256/<first two digits>/<digest>.<epoch>`. A file without an epoch was kept before there were any: it counts as the oldest.
//!
//! Always true: a name is given to a file that is whole and on the disk, and is on the disk itself before anybody hears of it.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use uuid::Uuid;

use crate::digest::Digest;
use crate::epoch::Epoch;
use crate::spool::{Spooled, sync};
use crate::{Away, CHUNK_BYTES, Copy};

#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) root: PathBuf,
}

impl Directory {
    fn shelf(&self, digest: Digest) -> PathBuf {
        self.root.join("sha256").join(&digest.to_string()[..2])
    }

    fn path(&self, digest: Digest, copy: Copy) -> PathBuf {
        let name = if copy.named { format!("{digest}.{}", copy.epoch.0) } else { digest.to_string() };
        self.shelf(digest).join(name)
    }

    /// Finds out whether it can be written. A full disk is no obstacle: that heals by itself.
    pub(crate) fn probe(&self) -> Result<(), Away> {
        let probe = self.root.join(format!("probe-{}", Uuid::new_v4().simple()));
        match std::fs::create_dir_all(&probe).and_then(|()| std::fs::remove_dir(&probe)) {
            Err(error) if error.kind() != io::ErrorKind::StorageFull => Err(Away::Directory { path: self.root.clone(), source: error }),
            _ => Ok(()),
        }
    }

    pub(crate) fn copies(&self, digest: Digest) -> Result<Vec<Copy>, Away> {
        let failed = |source| Away::Directory { path: self.root.clone(), source };
        let name = digest.to_string();
        let entries = match std::fs::read_dir(self.shelf(digest)) {
            Ok(entries) => entries,
            // An empty shelf is no store that is away; without its root there is none.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return std::fs::metadata(&self.root).map(|_| Vec::new()).map_err(failed);
            }
            Err(error) => return Err(failed(error)),
        };
        let mut copies = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let found = entry.file_name();
            let Some(rest) = found.to_str().and_then(|found| found.strip_prefix(&name)) else { continue };
            let (named, epoch) = match rest.strip_prefix('.').map(str::parse) {
                None if rest.is_empty() => (false, Epoch::default()),
                Some(Ok(epoch)) => (true, Epoch(epoch)),
                _ => continue,
            };
            match entry.metadata() {
                Ok(metadata) => copies.push(Copy { epoch, named, size: metadata.len() }),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(copies)
    }

    /// Gives the file its name.
    pub(crate) fn put(&self, spooled: &Spooled, epoch: Epoch) -> io::Result<()> {
        let path = self.path(spooled.digest, Copy { epoch, named: true, size: spooled.size });
        std::fs::create_dir_all(self.shelf(spooled.digest))?;
        std::fs::rename(&spooled.file.0, path)?;
        self.sync(spooled.digest)
    }

    /// Makes sure that the name of a copy that is there is on the disk: whoever gave it may still be about to.
    pub(crate) fn sync(&self, digest: Digest) -> io::Result<()> {
        let shelf = self.shelf(digest);
        for directory in [shelf.as_path(), &self.root.join("sha256"), &self.root] {
            sync(directory)?;
        }
        Ok(())
    }

    pub(crate) fn open(&self, digest: Digest, copy: Copy) -> io::Result<File> {
        File::open(self.path(digest, copy))
    }

    pub(crate) fn remove(&self, digest: Digest, copy: Copy) -> Result<(), Away> {
        let failed = |source| Away::Directory { path: self.root.clone(), source };
        match std::fs::remove_file(self.path(digest, copy)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
            _ => Ok(()),
        }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }
}

/// The next bytes of a file; none at its end.
pub(crate) fn chunk(file: &mut File) -> io::Result<Bytes> {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match file.read(&mut chunk) {
            Ok(read) => {
                chunk.truncate(read);
                return Ok(chunk.into());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
