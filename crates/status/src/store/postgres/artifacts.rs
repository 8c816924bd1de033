//! The artifacts that tasks name. See the SQLite ones for what the columns mean.

use std::collections::HashMap;

use fte_artifacts::Digest;
use fte_bus::RawEvent;
use fte_events::TaskId;

use super::apply::task_of;
use super::connection::Session;
use super::{Command, Postgres};
use crate::naming::{ARTIFACTS_MAX, Named, named};
use crate::reading::Incoming;
use crate::store::StoreError;
use crate::store::artifacts::{LATER_MS, Settled, Unnamed};
use crate::tenant::Tenant;

pub(super) const TABLES: &str = r#"
CREATE TABLE fte_status.artifact (
    task   BYTEA NOT NULL,
    tenant TEXT COLLATE "C" NOT NULL,
    name   TEXT COLLATE "C" NOT NULL,
    sha256 BYTEA NOT NULL,
    place  BIGINT NOT NULL,
    type   TEXT NOT NULL,
    size   BIGINT NOT NULL,
    PRIMARY KEY (task, tenant, name, sha256)
);
CREATE INDEX artifact_by_content ON fte_status.artifact (sha256);

CREATE TABLE fte_status.unnamed (sha256 BYTEA NOT NULL PRIMARY KEY, due BIGINT NOT NULL);
CREATE INDEX unnamed_by_due ON fte_status.unnamed (due);
"#;

/// Events that are gone through at once.
const ROWS_MAX: i64 = 2000;

/// An artifact and whose it is.
type Row<'a> = (TaskId, &'a str, &'a Named);

/// The artifacts that an event names.
pub(super) fn of(event: &Incoming) -> Vec<Row<'_>> {
    event.task.map(|task| event.artifacts.iter().map(|named| (task, &*event.tenant, named)).collect()).unwrap_or_default()
}

pub(super) async fn insert(session: &Session, rows: Vec<Row<'_>>) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    let columns = Columns::of(rows);
    session
        .execute(
            "INSERT INTO fte_status.artifact AS known (task, tenant, name, sha256, place, type, size)
             SELECT * FROM unnest($1::bytea[], $2::text[], $3::text[], $4::bytea[], $5::bigint[], $6::text[], $7::bigint[])
             ON CONFLICT (task, tenant, name, sha256) DO UPDATE
             SET place = excluded.place, type = excluded.type, size = excluded.size WHERE excluded.place > known.place",
            &[&columns.tasks, &columns.tenants, &columns.names, &columns.digests, &columns.places, &columns.types, &columns.sizes],
        )
        .await?;
    Ok(())
}

#[derive(Default)]
struct Columns<'a> {
    tasks: Vec<Vec<u8>>,
    tenants: Vec<&'a str>,
    names: Vec<&'a str>,
    digests: Vec<Vec<u8>>,
    places: Vec<i64>,
    types: Vec<&'a str>,
    sizes: Vec<i64>,
}

impl<'a> Columns<'a> {
    /// Each row once, as a statement may change it only once: the last of its places.
    fn of(rows: Vec<Row<'a>>) -> Self {
        let mut last: HashMap<(TaskId, &str, &str, Digest), &Named> = HashMap::new();
        for (task, tenant, named) in rows {
            let known = last.entry((task, tenant, &named.name, named.digest)).or_insert(named);
            if known.place < named.place {
                *known = named;
            }
        }
        let mut columns = Self::default();
        for ((task, tenant, name, digest), named) in last {
            columns.tasks.push(task.as_bytes().to_vec());
            columns.tenants.push(tenant);
            columns.names.push(name);
            columns.digests.push(digest.as_bytes().to_vec());
            columns.places.push(named.place);
            columns.types.push(&named.content_type);
            columns.sizes.push(named.size);
        }
        columns
    }
}

/// Takes the artifacts of the events that an older version has kept.
pub(super) async fn fill(session: &Session) -> Result<(), StoreError> {
    let mut after = i64::MIN;
    loop {
        let rows = session
            .query(
                r#"SELECT seq, task, tenant, CASE WHEN position('"sha256"'::bytea IN body) > 0 THEN body END FROM fte_status.event
                   WHERE seq > $1 AND task IS NOT NULL AND (type IN ('fte.status.changed', 'fte.handoff.requested') OR type LIKE 'fte.result.%')
                   ORDER BY seq LIMIT $2"#,
                &[&after, &ROWS_MAX],
            )
            .await?;
        let mut found = Vec::new();
        for row in &rows {
            let event = row.get::<_, Option<&[u8]>>(3).and_then(|body| RawEvent::parse(body).ok());
            found.push((task_of(row.get(1))?, row.get::<_, &str>(2), event.map(|event| named(&event)).unwrap_or_default()));
        }
        let artifacts = found.iter().flat_map(|(task, tenant, artifacts)| artifacts.iter().map(move |named| (*task, *tenant, named)));
        insert(session, artifacts.collect()).await?;
        match rows.last() {
            Some(last) => after = last.get(0),
            None => return Ok(()),
        }
    }
}

/// A task is being removed: its artifacts are to be looked at.
pub(super) async fn forget(session: &Session, task: &[u8], tenant: &str) -> Result<(), StoreError> {
    let now_ms = jiff::Timestamp::now().as_millisecond();
    session
        .execute(
            "INSERT INTO fte_status.unnamed (sha256, due)
             SELECT DISTINCT sha256, $3::bigint FROM fte_status.artifact WHERE task = $1 AND tenant = $2
             ON CONFLICT (sha256) DO UPDATE SET due = excluded.due",
            &[&task, &tenant, &now_ms],
        )
        .await?;
    session.execute("DELETE FROM fte_status.artifact WHERE task = $1 AND tenant = $2", &[&task, &tenant]).await?;
    Ok(())
}

pub(super) async fn settle(session: &Session, settled: &Settled, now_ms: i64) -> Result<(), StoreError> {
    let bytes = |digests: &[Digest]| digests.iter().map(|digest| digest.as_bytes().to_vec()).collect::<Vec<_>>();
    session.execute("DELETE FROM fte_status.unnamed WHERE sha256 = ANY ($1)", &[&bytes(&settled.done)]).await?;
    let due = now_ms.saturating_add(LATER_MS);
    session.execute("UPDATE fte_status.unnamed SET due = $2 WHERE sha256 = ANY ($1)", &[&bytes(&settled.later), &due]).await?;
    Ok(())
}

fn digest_of(bytes: &[u8]) -> Result<Digest, StoreError> {
    bytes.try_into().map(Digest::new).map_err(|_| StoreError::Unreadable)
}

impl Postgres {
    pub(crate) async fn artifacts_of(&self, task: TaskId, tenant: Tenant) -> Result<Vec<Named>, StoreError> {
        let limit = i64::try_from(ARTIFACTS_MAX).unwrap_or(i64::MAX);
        let sql = "SELECT place, name, type, size, sha256 FROM fte_status.artifact WHERE task = $1 AND tenant = $2 AND place >= 0
                   ORDER BY place DESC, name, sha256 LIMIT $3";
        let rows = self.pool.reader().await?.query(sql, &[&&task.as_bytes()[..], &&*tenant, &limit]).await?;
        let named = |row: &tokio_postgres::Row| {
            let digest = digest_of(row.get(4))?;
            Ok(Named { place: row.get(0), name: row.get(1), content_type: row.get(2), size: row.get(3), digest })
        };
        rows.iter().map(named).collect()
    }

    pub(crate) async fn unnamed(&self, due_ms: i64, limit: usize) -> Result<Vec<Unnamed>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let sql = "SELECT sha256, EXISTS (SELECT 1 FROM fte_status.artifact WHERE artifact.sha256 = unnamed.sha256) FROM fte_status.unnamed
                   WHERE due <= $1 ORDER BY due LIMIT $2";
        let rows = self.pool.reader().await?.query(sql, &[&due_ms, &limit]).await?;
        rows.iter().map(|row| Ok(Unnamed { digest: digest_of(row.get(0))?, is_named: row.get(1) })).collect()
    }

    pub(crate) async fn settle(&self, settled: Settled, now_ms: i64) -> Result<(), StoreError> {
        self.ask(|reply| Command::Settle { settled, now_ms, reply }).await
    }
}

#[cfg(test)]
mod tests {
    use fte_artifacts::Digest;

    use crate::test_support::{cluster, connect, incoming, made};

    #[tokio::test]
    async fn a_database_from_before_artifacts_were_named_names_those_of_its_events() {
        let name = cluster::shared().database().await;
        let (history, digest) = made();
        let store = connect(cluster::shared().url(&name)).await;
        store.record(incoming(history.events.clone())).await.unwrap();
        drop(store);
        let before = "DROP TABLE fte_status.artifact, fte_status.unnamed; UPDATE fte_status.head SET version = 1";
        cluster::shared().run(&name, before).await.unwrap();
        for _ in 0..2 {
            let store = connect(cluster::shared().url(&name)).await;
            let named = store.artifacts_of(history.task, "default".into()).await.unwrap();
            assert_eq!(named.iter().map(|named| (named.name.as_str(), named.digest)).collect::<Vec<(&str, Digest)>>(), [("a.txt", digest)]);
        }
    }
}
