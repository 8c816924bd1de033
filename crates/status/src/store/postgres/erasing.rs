//! Forgetting tasks. See the SQLite one for what is done.

use super::artifacts;
use super::connection::Session;
use crate::store::StoreError;
use crate::store::erasing::Forgotten;

pub(super) const TABLES: &str = r#"
CREATE TABLE IF NOT EXISTS fte_status.erased (task BYTEA NOT NULL, tenant TEXT COLLATE "C" NOT NULL, at BIGINT NOT NULL, PRIMARY KEY (task, tenant));
"#;

pub(super) async fn forget(session: &Session, Forgotten { tenant, tasks }: &Forgotten) -> Result<usize, StoreError> {
    let now_ms = jiff::Timestamp::now().as_millisecond();
    let tenant: &str = tenant;
    let mut removed = 0;
    for task in tasks {
        let id = &task.as_bytes()[..];
        session
            .execute(
                "INSERT INTO fte_status.erased (task, tenant, at) VALUES ($1, $2, $3) ON CONFLICT (task, tenant) DO UPDATE SET at = excluded.at",
                &[&id, &tenant, &now_ms],
            )
            .await?;
        removed += session.execute("DELETE FROM fte_status.event WHERE task = $1 AND tenant = $2", &[&id, &tenant]).await?;
        artifacts::forget(session, id, tenant).await?;
        session.execute("DELETE FROM fte_status.task WHERE id = $1 AND tenant = $2", &[&id, &tenant]).await?;
        let text = task.to_string();
        let sql = "DELETE FROM fte_status.letter WHERE tenant = $2 AND position($1::bytea IN record) > 0";
        removed += session.execute(sql, &[&text.as_bytes(), &tenant]).await?;
    }
    Ok(usize::try_from(removed).unwrap_or(usize::MAX))
}

/// Takes back marks that have had their time.
pub(super) async fn sweep(session: &Session, before_ms: i64) -> Result<(), StoreError> {
    session.execute("DELETE FROM fte_status.erased WHERE at < $1", &[&before_ms]).await.map(drop)
}
