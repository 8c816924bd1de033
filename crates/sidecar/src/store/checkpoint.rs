//! Moves the write-ahead log into the database, off the writer's path.
//!
//! This thread copies most of it while the writer goes on; then the writer copies the little that came meanwhile, between
//! two commits, and the next commit starts the log file again from its beginning. Without that last step a busy writer
//! would let the file grow for ever.

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use tokio::sync::mpsc::WeakSender;

use super::StoreError;
use super::command::Command;

/// Past this size of the write-ahead log readers are waited for, at most `READERS`.
const LOG_BYTES_MAX: i64 = 64 << 20;
const READERS: Duration = Duration::from_millis(250);

/// Asks for a checkpoint; asking again while one runs is harmless.
#[derive(Debug, Clone)]
pub(crate) struct Checkpoints(SyncSender<()>);

impl Checkpoints {
    pub(crate) fn ask(&self) {
        match self.0.try_send(()) {
            Ok(()) | Err(TrySendError::Full(()) | TrySendError::Disconnected(())) => {}
        }
    }
}

/// Copies what can be copied without waiting; returns the bytes of the log.
fn passive(db: &Connection) -> rusqlite::Result<i64> {
    db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get(1)).map(|pages: i64| pages * 4096)
}

/// Copies the rest, on the writer's connection. A reader that is under way at this moment keeps the file from starting
/// again; only when it has grown for that is the reader waited for.
pub(super) fn finish(db: &Connection) -> rusqlite::Result<()> {
    if passive(db)? < LOG_BYTES_MAX {
        return Ok(());
    }
    db.busy_timeout(READERS)?;
    let restarted = db.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(()));
    db.busy_timeout(super::schema::BUSY)?;
    restarted
}

/// Starts the thread. It ends when the writer is gone.
pub(crate) fn start(path: &Path, writer: WeakSender<Command>) -> Result<Checkpoints, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    db.pragma_update(None, "synchronous", "FULL")?;
    db.pragma_update(None, "cache_size", -256)?;
    db.pragma_update_and_check(None, "wal_autocheckpoint", 0, |_| Ok(()))?;
    let (ask, asked) = sync_channel(1);
    std::thread::Builder::new()
        .name("sidecar-checkpoint".to_owned())
        .spawn(move || run(&db, &asked, &writer))
        .map_err(|source| StoreError::from(rusqlite::Error::ToSqlConversionFailure(Box::new(source))))?;
    Ok(Checkpoints(ask))
}

fn run(db: &Connection, asked: &Receiver<()>, writer: &WeakSender<Command>) {
    while asked.recv().is_ok() {
        if let Err(error) = passive(db) {
            tracing::warn!(error = %error, "checkpoint failed; it is tried again");
        }
        let Some(writer) = writer.upgrade() else {
            return;
        };
        if writer.blocking_send(Command::Checkpoint).is_err() {
            return;
        }
    }
}
