//! What can go wrong with the log's files, in words that help whoever must act on it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::ErrorCode;

use super::wal::WalError;
use crate::entry::Position;
use crate::entry::leaf::LeafError;
use crate::log::LogError;

/// A fault of the log. After one nothing in memory is believed: the log is opened again from what is on the disk.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error(transparent)]
    Wal(#[from] WalError),
    #[error("{}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("the index")]
    Index(#[from] rusqlite::Error),
    /// The index is derived, so what the log has counts: it is made again.
    #[error("the index names the entry {0}, which is not there")]
    Astray(Position),
    /// Somebody who read it met a part of it that is damaged.
    #[error("the index is damaged")]
    DamagedIndex,
    /// It was made again, and that did not help.
    #[error("the index was damaged, was made again from the log, and is damaged again")]
    DamagedAgain(#[source] Box<Self>),
    #[error("the index is being made again")]
    MakingIndex,
    #[error("an entry is no leaf")]
    Leaf(#[from] LeafError),
    /// The files contradict each other, or what was signed.
    #[error("{0}")]
    Refused(String),
    /// Another process writes this log now: this one never does again.
    #[error("{} was raised by another process: this one records and signs nothing more", epoch.display())]
    Fenced { epoch: PathBuf },
    #[error("another process has {} locked: only one may write the log; stop it first", lock.display())]
    Locked { lock: PathBuf },
    #[error(transparent)]
    Log(#[from] LogError),
}

impl Fault {
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }

    /// Whether the index must be made again.
    pub(super) fn is_damaged_index(&self) -> bool {
        let Self::Index(error) = self else { return matches!(self, Self::Astray(_) | Self::DamagedIndex) };
        // A page that SQLite takes for one of its own may have values that nobody wrote, or lack tables; what is asked of it is always the same.
        let is_strange = matches!(
            error,
            rusqlite::Error::Utf8Error(..)
                | rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
                | rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::SqlInputError { .. }
        );
        let code = error.sqlite_error_code();
        let is_damage = |code| {
            use ErrorCode::{ConstraintViolation, DatabaseCorrupt, NotADatabase, TooBig, Unknown};
            matches!(code, DatabaseCorrupt | NotADatabase | ConstraintViolation | TooBig | Unknown)
        };
        is_strange || code.is_some_and(is_damage)
    }

    /// What the log's users are told.
    pub(super) fn explained(self, directory: &Path) -> LogError {
        let why = match &self {
            Self::Log(error) => return error.clone(),
            Self::Io { source, .. } | Self::Wal(WalError::Io { source, .. }) => why_io(source),
            Self::MakingIndex => "its index is being made again from the log: ask again in a while",
            Self::DamagedAgain(_) => {
                "nothing is recorded any more: check the disk and the memory of this machine, make the index again with `fte audit reindex`, and start anew"
            }
            _ if self.is_damaged_index() => "its index is damaged and is made again from the log: try again in a while",
            Self::Index(error) => why_index(error),
            Self::Fenced { .. } | Self::Locked { .. } => "another process writes it now; stop one of them",
            Self::Wal(_) | Self::Refused(_) | Self::Leaf(_) | Self::Astray(_) | Self::DamagedIndex => {
                "it does not start from damaged files, or it would lose or change what is on record"
            }
        };
        LogError::Storage { what: format!("the audit log {}: {why}", directory.display()), source: Arc::new(self) }
    }
}

fn why_io(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            "the disk is full: nothing is recorded until there is room"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "it may not be written: give this user the right to write it and its directory"
        }
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            "a file of it is missing, or its directory is none: check that nothing was moved away"
        }
        _ => "reading or writing it failed: check the disk",
    }
}

fn why_index(error: &rusqlite::Error) -> &'static str {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => "the disk is full: nothing is recorded until there is room",
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            "its index is read-only: give this user the right to write it and its directory"
        }
        Some(ErrorCode::CannotOpen) => "its index cannot be opened: check that the directory exists and may be written",
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => "another process uses its index",
        _ => "reading or writing its index failed: check the disk",
    }
}
