//! The tables of the keys, in a database of their own apart from the log, and how it is opened.
//!
//! A destroyed key's row stays, overwritten in its place with zeros of the same length: SQLite then rewrites the row where it stands, and `secure_delete`
//! clears what it frees, so that no copy is left on a page. The write-ahead log is moved into the database and cut after that.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, TransactionBehavior};

use super::KeyError;

/// Version of these tables.
const VERSION: i32 = 1;
/// Longest wait for another process.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// A unit or a person is named by 25 bytes: a letter, then an id with a keyed hash of the tenant, or a keyed hash of all. Nobody is named in the clear.
///
/// | table | a row is |
/// |---|---|
/// | `meta` | the naming key, wrapped |
/// | `key` | a unit's key, wrapped by the master key; zeros once it was destroyed, with the erasure's id |
/// | `alias` | a name under which a person may be looked for |
/// | `owner` | a person (the number of their key) and a task of theirs |
/// | `kin` | a task and one that works for it |
/// | `gone` | a person who was erased, and when |
/// | `erasure` | an erasure; whom it is about is sealed, and overwritten when all have been told |
/// | `erased_task` | a task that an erasure takes along, until all have been told |
/// | `hold` | a legal hold, sealed |
const TABLES: &str = "
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;
CREATE TABLE key (
    n          INTEGER PRIMARY KEY,
    life       INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    unit       BLOB NOT NULL,
    wrapped    BLOB NOT NULL,
    erasure    BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX key_unit ON key (unit);
CREATE TABLE alias (name BLOB NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (name, n)) STRICT, WITHOUT ROWID;
CREATE INDEX alias_n ON alias (n);
CREATE TABLE owner (n INTEGER NOT NULL, task BLOB NOT NULL, PRIMARY KEY (n, task)) STRICT, WITHOUT ROWID;
CREATE TABLE kin (parent BLOB NOT NULL, child BLOB NOT NULL, PRIMARY KEY (parent, child)) STRICT, WITHOUT ROWID;
CREATE TABLE gone (person BLOB PRIMARY KEY, n INTEGER NOT NULL, at_ms INTEGER NOT NULL, erasure BLOB NOT NULL) STRICT;
CREATE TABLE erasure (
    n          INTEGER PRIMARY KEY,
    id         BLOB NOT NULL UNIQUE,
    subject    BLOB NOT NULL,
    at_ms      INTEGER NOT NULL,
    keys       INTEGER NOT NULL,
    tasks      INTEGER NOT NULL,
    step       INTEGER NOT NULL
) STRICT;
CREATE INDEX erasure_unfinished ON erasure (n) WHERE step < 2;
CREATE TABLE erased_task (erasure INTEGER NOT NULL, task BLOB NOT NULL, PRIMARY KEY (erasure, task)) STRICT, WITHOUT ROWID;
CREATE TABLE hold (
    n          INTEGER PRIMARY KEY,
    id         BLOB NOT NULL UNIQUE,
    sealed     BLOB NOT NULL,
    placed_ms  INTEGER NOT NULL,
    lifted_ms  INTEGER,
    logged     INTEGER NOT NULL
) STRICT;
";

/// The database in the directory of the keys.
pub(crate) fn path_in(directory: &Path) -> PathBuf {
    directory.join("subjects.sqlite")
}

/// A connection whose every committed byte is synced, and behind which no old page waits.
pub(crate) fn open(path: &Path) -> rusqlite::Result<Connection> {
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "page_size", 4096)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "secure_delete", "ON")?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "cache_size", -8192)?;
    connection.pragma_update(None, "wal_autocheckpoint", 2000)?;
    connection.set_prepared_statement_cache_capacity(64);
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    match transaction.query_row("PRAGMA user_version", [], |row| row.get::<_, i32>(0))? {
        0 => {
            transaction.execute_batch(TABLES)?;
            transaction.pragma_update(None, "user_version", VERSION)?;
        }
        VERSION => {}
        _ => return Err(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_NOTADB), None)),
    }
    // Files of before it was needed lack it.
    transaction.execute_batch("CREATE INDEX IF NOT EXISTS kin_child ON kin (child)")?;
    transaction.commit()?;
    scrub(&connection)?;
    Ok(connection)
}

/// Moves the write-ahead log into the database and cuts it to nothing: it has older copies of pages.
pub(crate) fn scrub(connection: &Connection) -> rusqlite::Result<()> {
    let busy: bool = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    if busy { Err(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY), None)) } else { Ok(()) }
}

/// Says what happened in words that help.
pub(crate) fn explain(path: &Path, source: rusqlite::Error) -> KeyError {
    let what = match source.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => "the disk is full: nothing is recorded until there is room",
        Some(ErrorCode::ReadOnly) => "they are read-only: give this user the right to write the file and its directory",
        Some(ErrorCode::CannotOpen) => "they cannot be opened: check that the directory exists and may be written",
        Some(ErrorCode::SystemIoFailure) => "reading or writing failed: check the disk",
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => "another process uses them",
        Some(ErrorCode::DatabaseCorrupt) => "they are damaged: restore them from a copy",
        Some(ErrorCode::NotADatabase) => "the file is none of keys, or one of a newer version",
        _ => "they could not be read or written",
    };
    KeyError::Database { path: path.to_owned(), what, source }
}
