//! Artifacts: files that agents made, kept by their SHA-256 in `<data>/artifacts/sha256/<first two>/<hex>` and named `artifact:sha256/<hex>`.
//!
//! Always true: a kept file is whole and on disk before anybody hears its name (temporary name, fsync, rename, fsync of the directory); what an agent names
//! is opened step by step from its workspace without following a symbolic link, so that no name and no race leads out of it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use fte_events::{Artifact, Extra, hex};
use rustix::fs::{CWD, Mode, OFlags, openat};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::ports::Said;

/// An artifact was not kept.
#[derive(Debug, thiserror::Error)]
pub(super) enum ArtifactError {
    #[error("{path}: an artifact is a file inside the workspace, named without .. and not through a symbolic link")]
    Outside { path: String },
    #[error("{path}: no such file in the workspace")]
    Missing { path: String },
    #[error("{name} is larger than {bytes_max} bytes")]
    TooLarge { name: String, bytes_max: u64 },
    #[error("{name} could not be kept: {source}")]
    Io { name: String, source: io::Error },
}

impl ArtifactError {
    /// As the agent's error.
    pub(super) fn said(&self) -> Said {
        let (code, retryable) = match self {
            Self::Outside { .. } => ("artifact_refused", false),
            Self::Missing { .. } => ("artifact_missing", false),
            Self::TooLarge { .. } => ("artifact_too_large", false),
            Self::Io { .. } => ("artifact_not_kept", true),
        };
        Said::Error { code: code.to_owned(), message: self.to_string(), retryable }
    }
}

/// Where artifacts are kept.
#[derive(Debug)]
pub(super) struct ArtifactStore {
    directory: PathBuf,
    bytes_max: u64,
}

impl ArtifactStore {
    pub(super) fn new(directory: PathBuf, bytes_max: u64) -> Self {
        Self { directory, bytes_max }
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Removes what a killed predecessor left half-written.
    pub(super) fn sweep(&self) -> io::Result<()> {
        match std::fs::remove_dir_all(self.directory.join("tmp")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Keeps the file that an agent named.
    pub(super) fn keep_file(
        &self,
        workspace: &Path,
        path: &str,
        name: Option<&str>,
        media: Option<&str>,
    ) -> Result<Artifact, ArtifactError> {
        let mut file = open_inside(workspace, path)?;
        let name = match name {
            Some(name) => name.to_owned(),
            None => Path::new(path).file_name().map_or_else(|| path.to_owned(), |name| name.to_string_lossy().into_owned()),
        };
        let media = media.unwrap_or_else(|| media_type(&name));
        self.keep(&name, media, &mut file)
    }

    /// Keeps what can be read.
    pub(super) fn keep(&self, name: &str, content_type: &str, content: &mut impl Read) -> Result<Artifact, ArtifactError> {
        let failed = |source| ArtifactError::Io { name: name.to_owned(), source };
        let tmp = self.directory.join("tmp");
        std::fs::create_dir_all(&tmp).map_err(failed)?;
        let tmp = Unfinished(tmp.join(Uuid::new_v4().simple().to_string()));
        let (size_bytes, sha256) = self.write(name, content, &tmp.0)?;
        self.publish(&tmp.0, &sha256).map_err(failed)?;
        let uri = format!("artifact:sha256/{sha256}");
        Ok(Artifact { name: name.to_owned(), content_type: content_type.to_owned(), size_bytes, sha256, uri, extra: Extra::default() })
    }

    fn write(&self, name: &str, content: &mut impl Read, to: &Path) -> Result<(u64, String), ArtifactError> {
        let failed = |source| ArtifactError::Io { name: name.to_owned(), source };
        let mut file = OpenOptions::new().write(true).create_new(true).open(to).map_err(failed)?;
        let (mut size, mut digest, mut chunk) = (0, Sha256::new(), vec![0; 64 << 10]);
        loop {
            let read = match content.read(&mut chunk) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(failed(error)),
            };
            size += read as u64;
            if size > self.bytes_max {
                return Err(ArtifactError::TooLarge { name: name.to_owned(), bytes_max: self.bytes_max });
            }
            digest.update(&chunk[..read]);
            file.write_all(&chunk[..read]).map_err(failed)?;
        }
        file.sync_all().map_err(failed)?;
        Ok((size, hex(&digest.finalize())))
    }

    /// Gives the file its name. One that is there already has the same content; it is replaced all the same, because it may not be on disk yet.
    fn publish(&self, tmp: &Path, sha256: &str) -> io::Result<()> {
        let root = self.directory.join("sha256");
        let directory = root.join(&sha256[..2]);
        std::fs::create_dir_all(&directory)?;
        std::fs::rename(tmp, directory.join(sha256))?;
        for directory in [&directory, &root, &self.directory] {
            File::open(directory)?.sync_all()?;
        }
        Ok(())
    }
}

/// A file under a temporary name, removed unless it was renamed.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        // After a rename there is nothing to remove.
        drop(std::fs::remove_file(&self.0));
    }
}

/// Opens a regular file inside `workspace`, each step relative to the directory before it and none through a symbolic link.
fn open_inside(workspace: &Path, path: &str) -> Result<File, ArtifactError> {
    let outside = || ArtifactError::Outside { path: path.to_owned() };
    let missing = || ArtifactError::Missing { path: path.to_owned() };
    let failed = |errno: rustix::io::Errno| match errno {
        rustix::io::Errno::NOENT => missing(),
        rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR | rustix::io::Errno::MLINK | rustix::io::Errno::NXIO => outside(),
        errno => ArtifactError::Io { name: path.to_owned(), source: errno.into() },
    };
    // An absolute name is fine as long as it is inside.
    let inside = Path::new(path);
    let inside = inside.strip_prefix(workspace).unwrap_or(inside);
    let mut steps = Vec::new();
    for component in inside.components() {
        match component {
            Component::Normal(step) => steps.push(step),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return Err(outside()),
        }
    }
    let last = steps.pop().ok_or_else(outside)?;
    let common = OFlags::RDONLY | OFlags::CLOEXEC;
    let mut directory: OwnedFd = openat(CWD, workspace, common | OFlags::DIRECTORY, Mode::empty()).map_err(failed)?;
    for step in steps {
        directory = openat(&directory, step, common | OFlags::DIRECTORY | OFlags::NOFOLLOW, Mode::empty()).map_err(failed)?;
    }
    // Without NONBLOCK a named pipe would hold us until somebody writes to it.
    let file = File::from(openat(&directory, last, common | OFlags::NOFOLLOW | OFlags::NONBLOCK, Mode::empty()).map_err(failed)?);
    match file.metadata() {
        Ok(metadata) if metadata.is_file() => Ok(file),
        Ok(_) => Err(outside()),
        Err(source) => Err(ArtifactError::Io { name: path.to_owned(), source }),
    }
}

/// The media type of the most common names; a better one is the agent's to say.
fn media_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "txt" | "log" => "text/plain",
        "md" => "text/markdown",
        "html" => "text/html",
        "csv" => "text/csv",
        "json" => "application/json",
        "pdf" => "application/pdf",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "svg" => "image/svg+xml",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests;
