//! The tables, and how connections to them are opened.
//!
//! `event` is in order of arrival, and both of its indexes are nearly so: ids of events and of tasks begin with the task's time. An event's
//! bytes are stored once; a task's row names the events that hold its texts and its result.
//!
//! There is no index by time alone: lists merge the statuses' ranges of `task_by_status` or `task_by_agent` (see `reads`), for each
//! tenant, which costs a list a few more look-ups and every task two index writes less.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::{artifacts, erasing};
use crate::store::StoreError;

/// The version of the tables.
pub(super) const VERSION: i64 = 4;

const TABLES: &str = "
CREATE TABLE event (
    seq    INTEGER PRIMARY KEY,          -- the order of arrival
    task   BLOB,                         -- 16 bytes, or NULL: of no task
    id     NOT NULL,                     -- 16 bytes of a UUID, or any other text
    source TEXT NOT NULL,
    type   TEXT NOT NULL,
    stored INTEGER NOT NULL,             -- milliseconds since 1970
    body   BLOB NOT NULL,                -- the CloudEvent as it came
    tenant TEXT NOT NULL DEFAULT 'default'
);
CREATE UNIQUE INDEX event_identity ON event (id, source);
CREATE INDEX event_of_task ON event (task) WHERE task IS NOT NULL;

CREATE TABLE letter (
    seq     INTEGER PRIMARY KEY,         -- the order of arrival
    id      TEXT NOT NULL UNIQUE,
    state   INTEGER NOT NULL,            -- 0 open, 1 replayed, 2 discarded
    stored  INTEGER NOT NULL,            -- milliseconds since 1970
    decided INTEGER,                     -- microseconds since 1970
    topic   TEXT NOT NULL,               -- the dead-letter topic
    record  BLOB NOT NULL,               -- the record as it came
    tenant  TEXT NOT NULL DEFAULT 'default'
);
CREATE INDEX letter_by_state ON letter (state, seq);
CREATE INDEX letter_by_tenant ON letter (tenant, seq);
";

const TASK_TABLE: &str = "
CREATE TABLE task (
    id      BLOB NOT NULL,
    tenant  TEXT NOT NULL,
    status  INTEGER NOT NULL,            -- apply::status_code
    agent   TEXT,
    created INTEGER NOT NULL,            -- microseconds since 1970
    record  TEXT NOT NULL,               -- model::TaskRecord as JSON
    PRIMARY KEY (id, tenant)
) WITHOUT ROWID;
CREATE INDEX task_by_status ON task (tenant, status, created, id);
CREATE INDEX task_by_agent ON task (tenant, agent, status, created, id) WHERE agent IS NOT NULL;
";

/// From version 1, which knew no tenants: all that it kept is the usual one's.
const TENANTS_COME: &str = "
ALTER TABLE event ADD COLUMN tenant TEXT NOT NULL DEFAULT 'default';
ALTER TABLE letter ADD COLUMN tenant TEXT NOT NULL DEFAULT 'default';
CREATE INDEX letter_by_tenant ON letter (tenant, seq);
DROP INDEX task_by_status;
DROP INDEX task_by_agent;
ALTER TABLE task RENAME TO task_before;
";
const TASKS_MOVE: &str = "
INSERT INTO task (id, tenant, status, agent, created, record) SELECT id, 'default', status, agent, created, record FROM task_before;
DROP TABLE task_before;
";

/// Opens the writing connection, and makes the tables in a new file.
pub(super) fn open_to_write(path: &Path) -> Result<Connection, StoreError> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)
            .map_err(|source| StoreError::Directory { path: directory.to_owned(), source: std::sync::Arc::new(source) })?;
    }
    let mut connection = Connection::open(path)?;
    // SQLite opens what it may not write all the same, to read it.
    if connection.is_readonly(rusqlite::MAIN_DB)? {
        return Err(StoreError::ReadOnly { path: path.to_owned() });
    }
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    // What is removed is overwritten: some of it was removed because somebody is to be forgotten.
    connection.pragma_update(None, "secure_delete", "ON")?;
    // 8 MiB: the right edges of the tables and indexes, where nearly all writes go.
    connection.pragma_update(None, "cache_size", -8 * 1024)?;
    // 64 MiB; see `checkpoint`.
    connection.pragma_update(None, "wal_autocheckpoint", 16_000)?;
    connection.pragma_update(None, "journal_size_limit", 64 * 1024 * 1024)?;
    connection.set_prepared_statement_cache_capacity(64);
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    match found {
        0 => {
            let transaction = connection.transaction()?;
            transaction.execute_batch(TABLES)?;
            transaction.execute_batch(TASK_TABLE)?;
            transaction.execute_batch(artifacts::TABLES)?;
            transaction.execute_batch(erasing::TABLES)?;
            transaction.pragma_update(None, "user_version", VERSION)?;
            transaction.commit()?;
        }
        1..=3 => {
            tracing::info!("the status database is brought to the schema of this version");
            let transaction = connection.transaction()?;
            if found == 1 {
                for step in [TENANTS_COME, TASK_TABLE, TASKS_MOVE] {
                    transaction.execute_batch(step)?;
                }
            }
            if found < 3 {
                transaction.execute_batch(artifacts::TABLES)?;
                artifacts::fill(&transaction)?;
            }
            transaction.execute_batch(erasing::TABLES)?;
            transaction.pragma_update(None, "user_version", VERSION)?;
            transaction.commit()?;
        }
        VERSION => {}
        _ => return Err(StoreError::Newer { path: path.to_owned(), found, known: VERSION }),
    }
    Ok(connection)
}

/// Opens a reading connection to a file that the writer has made.
pub(super) fn open_to_read(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "cache_size", -1024)?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

/// Opens a connection that moves the WAL into the file.
pub(super) fn open_to_checkpoint(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "cache_size", -64)?;
    Ok(connection)
}

/// Fails where there is no room for a batch of events, and leaves nothing but a page that is as it was.
pub(super) fn probe(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(
        "SAVEPOINT probe; CREATE TABLE probe (filler); INSERT INTO probe VALUES (zeroblob(262144)); ROLLBACK TO probe; RELEASE probe;",
    )?;
    connection.pragma_update(None, "user_version", VERSION)
}
