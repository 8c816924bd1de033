//! Forgetting tasks.

use rusqlite::{Connection, params};

use super::Sqlite;
use crate::store::StoreError;
use crate::store::erasing::Forgotten;

/// Longest wait for those who read.
const CUT_WAIT_MAX: std::time::Duration = std::time::Duration::from_secs(2);

/// `at` is in milliseconds since 1970.
pub(super) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS erased (task BLOB NOT NULL, tenant TEXT NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (task, tenant)) WITHOUT ROWID;
";

impl Sqlite {
    /// Removes all that is kept of tasks; gives how many events and letters that were.
    pub(crate) async fn forget(&self, forgotten: Forgotten) -> Result<usize, StoreError> {
        let removed = self.write(move |connection| forget(connection, &forgotten)).await?;
        // Older copies of pages are in the write-ahead log until it is cut. Best effort: who reads just now may hold it back until the next time.
        let path = self.path.clone();
        let cut = tokio::task::spawn_blocking(move || super::schema::open_to_checkpoint(&path).and_then(|connection| cut(&connection)));
        if let Ok(Err(error)) = cut.await {
            tracing::info!(%error, "the write-ahead log of the status database could not be cut after an erasure; it is overwritten in time");
        }
        Ok(removed)
    }
}

fn cut(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(CUT_WAIT_MAX)?;
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}

fn forget(connection: &Connection, Forgotten { tenant, tasks }: &Forgotten) -> rusqlite::Result<usize> {
    let now_ms = jiff::Timestamp::now().as_millisecond();
    let mut removed = 0;
    for task in tasks {
        let id = &task.as_bytes()[..];
        connection
            .prepare_cached("INSERT OR REPLACE INTO erased (task, tenant, at) VALUES (?1, ?2, ?3)")?
            .execute(params![id, tenant, now_ms])?;
        removed += connection.prepare_cached("DELETE FROM event WHERE task = ?1 AND tenant = ?2")?.execute(params![id, tenant])?;
        super::artifacts::forget(connection, id, tenant)?;
        connection.prepare_cached("DELETE FROM task WHERE id = ?1 AND tenant = ?2")?.execute(params![id, tenant])?;
        // A letter has its event inside, and that names its task; there are few of them.
        removed += connection
            .prepare_cached("DELETE FROM letter WHERE tenant = ?2 AND instr(record, CAST(?1 AS BLOB)) > 0")?
            .execute(params![task.to_string(), tenant])?;
    }
    Ok(removed)
}

/// Takes back marks that have had their time.
pub(super) fn sweep(connection: &Connection, before_ms: i64) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM erased WHERE at < ?1")?.execute([before_ms]).map(drop)
}
