//! Where a content lies until its digest is known: a file of its own, under a name that nobody reads.
//!
//! It is read to its end before anything is kept, so that what is kept is what was digested, even while the agent still writes to its file.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::digest::Digest;
use crate::{CHUNK_BYTES, KeepError};

/// A leftover in a directory that others use too belongs to nobody after so long.
const ABANDONED: Duration = Duration::from_secs(24 * 3600);

/// A content on the disk.
#[derive(Debug)]
pub(crate) struct Spooled {
    pub(crate) file: Unfinished,
    pub(crate) size: u64,
    pub(crate) digest: Digest,
}

/// A file under a temporary name, removed unless it was renamed.
#[derive(Debug)]
pub(crate) struct Unfinished(pub(crate) PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        // After a rename there is nothing to remove.
        drop(std::fs::remove_file(&self.0));
    }
}

/// Reads the content to its end. It is on the disk, not only in its cache, when this is over.
pub(crate) fn spool(directory: &Path, content: &mut impl Read, bytes_max: u64) -> Result<Spooled, KeepError> {
    std::fs::create_dir_all(directory).map_err(KeepError::Local)?;
    let unfinished = Unfinished(directory.join(Uuid::new_v4().simple().to_string()));
    let mut file = OpenOptions::new().write(true).create_new(true).open(&unfinished.0).map_err(KeepError::Local)?;
    let (mut size, mut digest, mut chunk) = (0, Sha256::new(), vec![0; CHUNK_BYTES]);
    loop {
        let read = match content.read(&mut chunk) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(KeepError::Local(error)),
        };
        size += read as u64;
        if size > bytes_max {
            return Err(KeepError::TooLarge { bytes_max });
        }
        digest.update(&chunk[..read]);
        file.write_all(&chunk[..read]).map_err(KeepError::Local)?;
    }
    file.sync_all().map_err(KeepError::Local)?;
    Ok(Spooled { file: unfinished, size, digest: Digest::new(digest.finalize().into()) })
}

/// Removes what a killed predecessor left: all of it where nobody else writes, else what is old.
pub(crate) fn sweep(directory: &Path, alone: bool) -> io::Result<()> {
    let absent = |error: io::Error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) };
    if alone {
        return std::fs::remove_dir_all(directory).or_else(absent);
    }
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => return absent(error),
    };
    for entry in entries {
        let entry = entry?;
        let age = entry.metadata().and_then(|metadata| metadata.modified()).map(|changed| SystemTime::now().duration_since(changed));
        if matches!(age, Ok(Ok(age)) if age > ABANDONED) {
            std::fs::remove_file(entry.path()).or_else(absent)?;
        }
    }
    Ok(())
}

/// Makes the names in a directory durable.
pub(crate) fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
