//! The index's tables, and how its connections are set up.
//!
//! WAL mode with `synchronous=NORMAL`: a commit needs no sync, since the index is derived. After a power cut it is an older one that is whole in itself; it
//! says up to which entry it goes, and the rest is read from the log again. `FULL` would add a sync to each group of entries and promise nothing more.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

/// Pages of SQLite's own log after which they are moved into the database; a power cut costs at most so many to be indexed again.
const CHECKPOINT_PAGES: u32 = 1000;
/// Longest wait for another connection's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Version of these tables. One that is not this is made again from the log.
pub(super) const VERSION: i32 = 2;

/// `pos` is a place in all shards, in log order ([`super::pos_of`]); a block is the 256 entries of one bundle.
const TABLES: &str = "
CREATE TABLE done (
    one       INTEGER PRIMARY KEY CHECK (one = 0),
    pos       INTEGER NOT NULL,
    hash      BLOB NOT NULL
) STRICT;
CREATE TABLE identity (
    key       BLOB PRIMARY KEY,
    pos       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE task (
    task      ANY NOT NULL,
    seq       INTEGER NOT NULL,
    pos       INTEGER NOT NULL,
    mark      INTEGER NOT NULL,
    number    INTEGER,
    PRIMARY KEY (task, seq)
) STRICT, WITHOUT ROWID;
CREATE TABLE block (
    block     INTEGER PRIMARY KEY,
    first_ms  INTEGER NOT NULL
) STRICT;
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
    PRIMARY KEY (source, epoch)
) STRICT, WITHOUT ROWID;
CREATE TABLE gap (
    source    TEXT NOT NULL,
    epoch     TEXT NOT NULL,
    first     INTEGER NOT NULL,
    last      INTEGER NOT NULL,
    seen_ms   INTEGER NOT NULL,
    logged    INTEGER,
    PRIMARY KEY (source, epoch, first)
) STRICT, WITHOUT ROWID;
CREATE TABLE filled (
    pos       INTEGER PRIMARY KEY,
    source    TEXT NOT NULL,
    epoch     TEXT NOT NULL,
    number    INTEGER NOT NULL
) STRICT;
CREATE TABLE closing (
    task      ANY PRIMARY KEY,
    since_ms  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX closing_since ON closing (since_ms);
CREATE TABLE place (
    topic     TEXT NOT NULL,
    part      INTEGER NOT NULL,
    highest   INTEGER NOT NULL,
    PRIMARY KEY (topic, part)
) STRICT, WITHOUT ROWID;
";

/// A connection that writes, to an index whose tables exist.
pub(in crate::engine) fn writing(path: &Path, cache_kib: u32) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "page_size", 4096)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "cache_size", -i64::from(cache_kib))?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.set_prepared_statement_cache_capacity(64);
    match connection.query_row("PRAGMA user_version", [], |row| row.get::<_, i32>(0))? {
        0 => {
            connection.execute_batch(&format!("BEGIN IMMEDIATE; {TABLES} PRAGMA user_version = {VERSION}; COMMIT;"))?;
            Ok(connection)
        }
        VERSION => Ok(connection),
        // As good as damaged: it is made again.
        _ => Err(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT), None)),
    }
}

/// A connection that only reads.
pub(in crate::engine) fn reading(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "cache_size", -512)?;
    Ok(connection)
}
