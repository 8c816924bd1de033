//! The tables, and how a connection is set up.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::StoreError;
use crate::options::{Options, StartError};

/// Version of the tables below.
const VERSION: i64 = 1;

/// Longest wait for another connection's lock. Only checkpoints ever hold one.
pub(super) const BUSY: Duration = Duration::from_secs(10);

/// * `batches.id` is topic << 40 | number of the batch; `total` counts the topic's bytes up to and including the row, so
///   that the size of what is kept is a subtraction. The last batch of a topic is never deleted: it knows the heads.
/// * `cursors.positions` is 16 bytes a partition: next offset, and the last batch that holds nothing unread.
/// * `state` has a row id of its own, so that an update stays where the row is and new rows lie together.
const TABLES: &str = "
CREATE TABLE topics(
  id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, partitions INTEGER NOT NULL, retention_ms INTEGER NOT NULL) STRICT;
CREATE TABLE batches(
  id INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, total INTEGER NOT NULL, places BLOB NOT NULL, data BLOB NOT NULL) STRICT;
CREATE TABLE cursors(
  app TEXT NOT NULL, topic INTEGER NOT NULL, seen_ms INTEGER NOT NULL, positions BLOB NOT NULL,
  PRIMARY KEY(app, topic)) STRICT, WITHOUT ROWID;
CREATE TABLE state(
  id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, etag INTEGER NOT NULL, expires_ms INTEGER, value BLOB NOT NULL) STRICT;
CREATE INDEX state_expiry ON state(expires_ms) WHERE expires_ms IS NOT NULL;
CREATE TABLE jobs(
  id INTEGER PRIMARY KEY, app TEXT NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL, next_ms INTEGER NOT NULL,
  due_ms INTEGER NOT NULL, fired INTEGER NOT NULL, failed INTEGER NOT NULL, expires_ms INTEGER, spec BLOB NOT NULL,
  UNIQUE(app, name)) STRICT;
CREATE INDEX jobs_next ON jobs(app, next_ms);
";

/// Opens the database to write, making its tables if they are missing.
pub(crate) fn open(path: &Path, options: &Options) -> Result<Connection, StartError> {
    let broken = |error: rusqlite::Error| match error.sqlite_error_code() {
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            StartError::ReadOnly { path: options.data_dir.clone(), source: std::io::Error::other(error) }
        }
        _ => StartError::Database { path: path.to_owned(), source: StoreError::from(error) },
    };
    let mut db = Connection::open(path).map_err(broken)?;
    let found = prepare(&mut db, options).map_err(broken)?;
    if found > VERSION {
        return Err(StartError::Schema { path: path.to_owned(), found, known: VERSION });
    }
    Ok(db)
}

fn prepare(db: &mut Connection, options: &Options) -> rusqlite::Result<i64> {
    // The page size counts only while the database is empty.
    db.pragma_update(None, "page_size", 4096)?;
    db.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    db.pragma_update(None, "synchronous", "FULL")?;
    db.pragma_update(None, "foreign_keys", false)?;
    db.pragma_update(None, "secure_delete", false)?;
    db.pragma_update(None, "temp_store", "MEMORY")?;
    db.pragma_update(None, "cache_size", -8192)?;
    // The checkpoint thread decides.
    db.pragma_update_and_check(None, "wal_autocheckpoint", 0, |_| Ok(()))?;
    db.busy_timeout(BUSY)?;
    db.set_prepared_statement_cache_capacity(64);
    if let Some(bytes_max) = options.database_bytes_max {
        let pages = i64::try_from(bytes_max / 4096).unwrap_or(i64::MAX).max(1);
        db.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?;
    }
    let found: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found == 0 {
        let tx = db.transaction()?;
        tx.execute_batch(TABLES)?;
        tx.pragma_update(None, "user_version", VERSION)?;
        tx.commit()?;
    } else if found == VERSION {
        // A write now, so that a directory that cannot be written is found before anything is promised.
        let tx = db.transaction()?;
        tx.pragma_update(None, "user_version", VERSION)?;
        tx.commit()?;
    }
    Ok(found)
}

/// Opens a connection that only reads.
pub(crate) fn open_reader(path: &Path, cache_kib: i64) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(BUSY)?;
    db.pragma_update(None, "cache_size", -cache_kib)?;
    Ok(db)
}
