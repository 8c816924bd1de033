//! The tables, how a connection is set up, and what SQLite's errors mean to the person who must act on them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fte_events::TENANT;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::blocks::{BLOCK_BITS, Field};
use crate::log::LogError;

/// Pages of the write-ahead log after which it is moved into the database.
const CHECKPOINT_PAGES: u32 = 2000;
/// Bytes that the write-ahead log's file keeps once it has been moved.
const WAL_BYTES_KEPT: u32 = 64 * 1024 * 1024;
/// Longest wait for another connection's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Version of these tables.
const VERSION: i32 = 2;

/// `n` counts all entries from 0 in log order; a shard's index is `n` less the shard's first `n`.
///
/// What the event itself says (id, source, type, time) is read from its bytes: no copy of it can then disagree with them.
const TABLES: &str = "
CREATE TABLE shard (
    shard     INTEGER PRIMARY KEY,
    first_n   INTEGER NOT NULL
) STRICT;
CREATE TABLE entry (
    n         INTEGER PRIMARY KEY,
    kind      INTEGER NOT NULL,
    logged_ms INTEGER NOT NULL,
    partition INTEGER,
    offset    INTEGER,
    key       BLOB NOT NULL,
    task      ANY,
    topic     TEXT NOT NULL,
    sha256    BLOB NOT NULL,
    event     BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX entry_key ON entry (key);
CREATE INDEX entry_task ON entry (task) WHERE task IS NOT NULL;
CREATE TABLE facet (
    field     INTEGER NOT NULL,
    value     TEXT NOT NULL,
    block     INTEGER NOT NULL,
    PRIMARY KEY (field, value, block)
) STRICT, WITHOUT ROWID;
CREATE TABLE epoch (
    source    TEXT NOT NULL,
    epoch     TEXT NOT NULL,
    highest   INTEGER NOT NULL,
    arrived   INTEGER NOT NULL,
    PRIMARY KEY (source, epoch)
) STRICT, WITHOUT ROWID;
";

/// A connection that writes, to a database whose tables exist and whose every acknowledged byte is synced.
pub(super) fn writing(path: &Path, cache_kib: u32, pages_max: u32) -> rusqlite::Result<Connection> {
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "page_size", 8192)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "cache_size", -i64::from(cache_kib))?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "journal_size_limit", WAL_BYTES_KEPT)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    if pages_max > 0 {
        connection.query_row(&format!("PRAGMA max_page_count = {pages_max}"), [], |_| Ok(()))?;
    }
    make_tables(&mut connection)?;
    let busy: bool = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    if busy {
        return Err(failure(rusqlite::ffi::SQLITE_BUSY));
    }
    Ok(connection)
}

/// A connection that only reads.
pub(super) fn reading(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "cache_size", -512)?;
    Ok(connection)
}

fn make_tables(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let version: i32 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    match version {
        0 => {
            transaction.execute_batch(TABLES)?;
            transaction.pragma_update(None, "user_version", VERSION)?;
        }
        // Version 1 did not find entries by tenant; there was only one.
        1 => {
            transaction.execute_batch(&format!(
                "INSERT OR IGNORE INTO facet (field, value, block) SELECT {}, '{TENANT}', n >> {BLOCK_BITS} FROM entry GROUP BY n >> {BLOCK_BITS};",
                Field::Tenant as i64
            ))?;
            transaction.pragma_update(None, "user_version", VERSION)?;
        }
        VERSION => {}
        // Made by a newer version, which this one must not write to.
        _ => return Err(failure(rusqlite::ffi::SQLITE_NOTADB)),
    }
    transaction.commit()
}

pub(super) fn failure(code: i32) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None)
}

/// Says what happened in words that help.
pub(super) fn explain(path: &Path, error: rusqlite::Error) -> LogError {
    let why = match error.sqlite_error_code() {
        Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig | ErrorCode::ParameterOutOfRange) => {
            let what = format!("the audit log {}: it refuses an entry", path.display());
            return LogError::Refused { what, source: Arc::new(error) };
        }
        Some(ErrorCode::DiskFull) => "the disk is full, or its limit of pages is reached: nothing is recorded until there is room",
        Some(ErrorCode::ReadOnly) => "it is read-only: give this user the right to write it and its directory",
        Some(ErrorCode::CannotOpen) => "it cannot be opened: check that its directory exists and may be written",
        Some(ErrorCode::SystemIoFailure) => "reading or writing it failed: check the disk",
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => "another process uses it",
        Some(ErrorCode::DatabaseCorrupt) => "it is damaged: restore it from a copy, or move it away to record anew from the topics",
        Some(ErrorCode::NotADatabase) => "it is no audit log, or one of a newer version",
        _ => "it did not take or give an entry",
    };
    LogError::Storage { what: format!("the audit log {}: {why}", path.display()), source: Arc::new(error) }
}
