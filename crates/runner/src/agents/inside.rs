//! Files of a workspace, by the names that an agent gives them.
//!
//! Always true: a name is walked step by step from the workspace, each step relative to the directory before it and none through a symbolic link, so that no
//! name and no race leads out of it; what is opened is a regular file.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path};

use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
use rustix::io::Errno;

/// A name does not lead to what is asked for.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("it is no file inside the workspace, named without .. and not through a symbolic link")]
    Outside,
    #[error("there is no such file in the workspace")]
    Missing,
    #[error("it cannot be opened: {0}")]
    Io(io::Error),
}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NOENT => Self::Missing,
            Errno::LOOP | Errno::NOTDIR | Errno::MLINK | Errno::NXIO | Errno::ISDIR => Self::Outside,
            errno => Self::Io(errno.into()),
        }
    }
}

const COMMON: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC);
const DIRECTORY: OFlags = COMMON.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW);
/// Without `NONBLOCK` a named pipe would hold us until somebody is at its other end.
const FILE: OFlags = OFlags::CLOEXEC.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK);

/// Whether missing directories on the way are made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Parents {
    Expected,
    Made,
}

/// Opens a file for reading.
pub(super) fn open(workspace: &Path, path: &Path) -> Result<File, Error> {
    let (directory, name) = walk(workspace, path, Parents::Expected)?;
    regular(openat(&directory, name, COMMON | FILE, Mode::empty())?)
}

/// Opens a file for writing from its start, empty; makes it, and the directories it stands in, where they are not there.
pub(super) fn create(workspace: &Path, path: &Path) -> Result<File, Error> {
    let (directory, name) = walk(workspace, path, Parents::Made)?;
    let file = regular(openat(&directory, name, OFlags::WRONLY | OFlags::CREATE | FILE, Mode::from_raw_mode(0o644))?)?;
    // Only now that it is known what it is.
    file.set_len(0).map_err(Error::Io)?;
    Ok(file)
}

/// Whether this is the workspace or a directory inside it.
pub(super) fn is_directory(workspace: &Path, path: &Path) -> bool {
    match walk(workspace, path, Parents::Expected) {
        Ok((directory, name)) => openat(&directory, name, DIRECTORY, Mode::empty()).is_ok(),
        Err(_) => path == workspace,
    }
}

/// The directory that holds the last step of the path, and that step.
fn walk<'a>(workspace: &Path, path: &'a Path, parents: Parents) -> Result<(OwnedFd, &'a Path), Error> {
    // An absolute name is fine as long as it is inside.
    let inside = path.strip_prefix(workspace).unwrap_or(path);
    let mut steps = Vec::new();
    for component in inside.components() {
        match component {
            Component::Normal(step) => steps.push(Path::new(step)),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return Err(Error::Outside),
        }
    }
    let last = steps.pop().ok_or(Error::Outside)?;
    let mut directory = openat(CWD, workspace, COMMON | OFlags::DIRECTORY, Mode::empty())?;
    for step in steps {
        if parents == Parents::Made {
            match mkdirat(&directory, step, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        directory = openat(&directory, step, DIRECTORY, Mode::empty())?;
    }
    Ok((directory, last))
}

fn regular(file: OwnedFd) -> Result<File, Error> {
    let file = File::from(file);
    match file.metadata() {
        Ok(metadata) if metadata.is_file() => Ok(file),
        Ok(_) => Err(Error::Outside),
        Err(source) => Err(Error::Io(source)),
    }
}
