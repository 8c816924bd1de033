//! The artifacts that tasks name.

use fte_artifacts::Digest;
use fte_bus::RawEvent;
use fte_events::TaskId;
use rusqlite::{CachedStatement, Connection, params};

use super::Sqlite;
use crate::naming::{ARTIFACTS_MAX, Named, named};
use crate::store::StoreError;
use crate::store::artifacts::{LATER_MS, Settled, Unnamed};
use crate::tenant::Tenant;

pub(super) const TABLES: &str = "
CREATE TABLE artifact (
    task   BLOB NOT NULL,
    tenant TEXT NOT NULL,
    name   TEXT NOT NULL,
    sha256 BLOB NOT NULL,                -- 32 bytes
    place  INTEGER NOT NULL,             -- naming::Named::place
    type   TEXT NOT NULL,
    size   INTEGER NOT NULL,
    PRIMARY KEY (task, tenant, name, sha256)
) WITHOUT ROWID;
CREATE INDEX artifact_by_content ON artifact (sha256);

CREATE TABLE unnamed (
    sha256 BLOB NOT NULL PRIMARY KEY,
    due    INTEGER NOT NULL              -- when to look at it, in milliseconds since 1970
) WITHOUT ROWID;
CREATE INDEX unnamed_by_due ON unnamed (due);
";

const INSERT: &str = "INSERT INTO artifact (task, tenant, name, sha256, place, type, size) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
    ON CONFLICT DO UPDATE SET place = excluded.place, type = excluded.type, size = excluded.size WHERE excluded.place > place";

pub(super) fn inserting(connection: &Connection) -> rusqlite::Result<CachedStatement<'_>> {
    connection.prepare_cached(INSERT)
}

pub(super) fn insert(statement: &mut CachedStatement<'_>, task: TaskId, tenant: &str, named: &Named) -> rusqlite::Result<()> {
    let Named { place, name, content_type, size, digest } = named;
    statement.execute(params![&task.as_bytes()[..], tenant, name, &digest.as_bytes()[..], place, content_type, size]).map(drop)
}

/// Takes the artifacts of the events that an older version has kept.
pub(super) fn fill(connection: &Connection) -> rusqlite::Result<()> {
    let mut insert_artifact = inserting(connection)?;
    let mut events = connection.prepare(
        r#"SELECT task, tenant, body FROM event WHERE task IS NOT NULL AND instr(body, CAST('"sha256"' AS BLOB)) > 0
           AND (type IN ('fte.status.changed', 'fte.handoff.requested') OR type LIKE 'fte.result.%')"#,
    )?;
    let mut rows = events.query([])?;
    while let Some(row) = rows.next()? {
        let task = TaskId::from_uuid(uuid::Uuid::from_bytes(row.get(0)?));
        let Ok(event) = RawEvent::parse(row.get_ref(2)?.as_bytes()?) else { continue };
        for named in named(&event) {
            insert(&mut insert_artifact, task, row.get_ref(1)?.as_str()?, &named)?;
        }
    }
    Ok(())
}

/// A task is being removed: its artifacts are to be looked at.
pub(super) fn forget(connection: &Connection, task: &[u8], tenant: &str) -> rusqlite::Result<()> {
    let now_ms = jiff::Timestamp::now().as_millisecond();
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO unnamed (sha256, due) SELECT DISTINCT sha256, ?3 FROM artifact WHERE task = ?1 AND tenant = ?2",
        )?
        .execute(params![task, tenant, now_ms])?;
    connection.prepare_cached("DELETE FROM artifact WHERE task = ?1 AND tenant = ?2")?.execute(params![task, tenant])?;
    Ok(())
}

impl Sqlite {
    pub(crate) async fn artifacts_of(&self, task: TaskId, tenant: Tenant) -> Result<Vec<Named>, StoreError> {
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT place, name, type, size, sha256 FROM artifact WHERE task = ?1 AND tenant = ?2 AND place >= 0
                 ORDER BY place DESC, name, sha256 LIMIT ?3",
            )?;
            let limit = i64::try_from(ARTIFACTS_MAX).unwrap_or(i64::MAX);
            let rows = statement.query_map(params![&task.as_bytes()[..], tenant, limit], |row| {
                let digest = Digest::new(row.get(4)?);
                Ok(Named { place: row.get(0)?, name: row.get(1)?, content_type: row.get(2)?, size: row.get(3)?, digest })
            })?;
            rows.collect()
        })
        .await
    }

    pub(crate) async fn unnamed(&self, due_ms: i64, limit: usize) -> Result<Vec<Unnamed>, StoreError> {
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT sha256, EXISTS (SELECT 1 FROM artifact WHERE artifact.sha256 = unnamed.sha256) FROM unnamed
                 WHERE due <= ?1 ORDER BY due LIMIT ?2",
            )?;
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let rows = statement
                .query_map(params![due_ms, limit], |row| Ok(Unnamed { digest: Digest::new(row.get(0)?), is_named: row.get(1)? }))?;
            rows.collect()
        })
        .await
    }

    pub(crate) async fn settle(&self, settled: Settled, now_ms: i64) -> Result<(), StoreError> {
        self.write(move |connection| {
            let mut done = connection.prepare_cached("DELETE FROM unnamed WHERE sha256 = ?1")?;
            for digest in &settled.done {
                done.execute([&digest.as_bytes()[..]])?;
            }
            let mut later = connection.prepare_cached("UPDATE unnamed SET due = ?2 WHERE sha256 = ?1")?;
            for digest in &settled.later {
                later.execute(params![&digest.as_bytes()[..], now_ms.saturating_add(LATER_MS)])?;
            }
            Ok(())
        })
        .await
    }
}
