//! Reading tasks and events. Every query is bounded in rows and bytes and answered from an index.

use std::collections::HashMap;

use fte_events::{Status, TaskId};
use fte_service::keys::Scope;

use super::Postgres;
use super::apply::{event_id_of, id_bytes, record_of, task_of};
use super::connection::Session;
use crate::model::TaskRecord;
use crate::reading::EventId;
use crate::sse::{Filter, write_frame};
use crate::store::reads::{BYTES_MAX, Bodies, EventRow, ListQuery, ROWS_MAX, Rows, TENANTS_MAX, TaskEvents, TaskPlace, TaskRow};
use crate::store::{StoreError, status_code};
use crate::tenant::{Tenant, tenant};

/// Tasks whose texts are read at once.
const TASKS_MAX: usize = 32;
/// Most numbers of rows gone through for one piece of the stream of all tasks.
const SPAN_MAX: i64 = 50_000;

/// Each tenant and status is one range of an index, read from its end; the newest of all of them are the list.
const NEWEST: &str = "
WITH RECURSIVE tenants (tenant) AS (
    SELECT coalesce($1::text COLLATE \"C\", (SELECT min(tenant) FROM fte_status.task))
    UNION ALL
    SELECT (SELECT min(task.tenant) FROM fte_status.task WHERE task.tenant > tenants.tenant)
    FROM tenants WHERE $1::text IS NULL AND tenants.tenant IS NOT NULL
)
SELECT found.created, found.id, found.tenant, found.record
FROM tenants CROSS JOIN unnest($2::smallint[]) AS wanted (status) CROSS JOIN LATERAL (
    SELECT created, id, tenant, record FROM fte_status.task
    WHERE task.tenant = tenants.tenant AND task.status = wanted.status AND created >= $3 AND {agent}
        AND (created, id) <= ($4, $5) AND (created, id, task.tenant) < ($4, $5, $6::text COLLATE \"C\")
    ORDER BY created DESC, id DESC LIMIT $8
) AS found
ORDER BY found.created DESC, found.id DESC, found.tenant DESC LIMIT $8";

impl Postgres {
    pub(crate) async fn task(&self, task: TaskId, scope: Scope) -> Result<Option<TaskRow>, StoreError> {
        let reader = self.pool.reader().await?;
        let sql = "SELECT tenant, record FROM fte_status.task WHERE id = $1 AND ($2::text IS NULL OR tenant = $2) LIMIT $3";
        let rows = reader.query(sql, &[&&task.as_bytes()[..], &scope.only(), &TENANTS_MAX]).await?;
        let records = rows.iter().map(|row| Ok((tenant(Some(row.get(0))), record_of(row.get(1))?)));
        let records: Vec<(Tenant, TaskRecord)> = records.collect::<Result<_, StoreError>>()?;
        let first = records.into_iter().min_by(|one, other| one.1.asked_for().cmp(&other.1.asked_for()).then_with(|| one.0.cmp(&other.0)));
        let Some((tenant, record)) = first else { return Ok(None) };
        let result = record.result.map(|result| result.chosen.row);
        let mut bodies = bodies(&reader, rows_of(&record).into_iter().chain(result).collect()).await?;
        let bodies = Bodies { result: result.and_then(|row| bodies.remove(&row)), ..texts(&record, &mut bodies) };
        Ok(Some(TaskRow { id: task, tenant, record, bodies }))
    }

    pub(crate) async fn tasks(&self, query: ListQuery) -> Result<Rows<TaskRow, TaskPlace>, StoreError> {
        let reader = self.pool.reader().await?;
        let statuses = Status::ALL.into_iter().filter(|status| query.status.is_none_or(|wanted| wanted == *status));
        let statuses: Vec<i16> = statuses.map(|status| i16::from(status_code(status))).collect();
        let (before_us, before_id, before_tenant) = match &query.before {
            Some((created, id, tenant)) => (*created, *id.as_bytes(), &**tenant),
            None => (i64::MAX, [0xff; 16], ""),
        };
        if query.agent.as_ref().is_some_and(|agent| agent.contains('\0')) || before_tenant.contains('\0') {
            return Ok(Rows { rows: Vec::new(), next: None });
        }
        let sql = NEWEST.replace("{agent}", if query.agent.is_some() { "agent = $7" } else { "$7::text IS NULL" });
        let since = query.since_us.unwrap_or(i64::MIN);
        // One more than asked for shows whether there are more.
        let limit = i64::try_from(query.limit + 1).unwrap_or(i64::MAX);
        let only = query.scope.only();
        let found =
            reader.query(&sql, &[&only, &statuses, &since, &before_us, &&before_id[..], &before_tenant, &query.agent, &limit]).await?;
        let (mut rows, mut bytes, mut last) = (Vec::new(), 0, None);
        for some in found.chunks(TASKS_MAX) {
            let mut tasks = Vec::with_capacity(some.len());
            for row in some {
                tasks.push(((row.get::<_, i64>(0), task_of(row.get(1))?, tenant(Some(row.get(2)))), record_of(row.get(3))?));
            }
            let mut bodies = bodies(&reader, tasks.iter().flat_map(|(_, record)| rows_of(record)).collect()).await?;
            for (place, record) in tasks {
                if rows.len() == query.limit || bytes >= BYTES_MAX {
                    return Ok(Rows { rows, next: last });
                }
                let bodies = texts(&record, &mut bodies);
                bytes += [&bodies.request, &bodies.step].into_iter().flatten().map(Vec::len).sum::<usize>();
                rows.push(TaskRow { id: place.1, tenant: place.2.clone(), record, bodies });
                last = Some(place);
            }
        }
        Ok(Rows { rows, next: None })
    }

    pub(crate) async fn events_of(
        &self,
        task: TaskId,
        tenant: Tenant,
        after: i64,
        limit: usize,
        bytes_max: usize,
    ) -> Result<TaskEvents, StoreError> {
        let reader = self.pool.reader().await?;
        // First the record: whatever it counts is among the events read after it.
        let id = &task.as_bytes()[..];
        let record = reader.query("SELECT record FROM fte_status.task WHERE id = $1 AND tenant = $2", &[&id, &&*tenant]).await?;
        let complete = record.first().map(|row| record_of(row.get(0))).transpose()?.is_some_and(|record| record.is_complete());
        let (limit, bytes_max) = (i64::try_from(limit).unwrap_or(i64::MAX), i64::try_from(bytes_max).unwrap_or(i64::MAX));
        let rows = reader
            .query(
                "SELECT seq, id, type, body, found FROM (
                     SELECT seq, id, type, body, count(*) OVER () AS found,
                         sum(octet_length(body)) OVER (ORDER BY seq) - octet_length(body) AS before
                     FROM (SELECT * FROM fte_status.event WHERE task = $1 AND tenant = $2 AND seq > $3 ORDER BY seq LIMIT $4) AS piece
                 ) AS measured WHERE before < $5 ORDER BY seq",
                &[&id, &&*tenant, &after, &limit, &bytes_max],
            )
            .await?;
        let found = rows.first().map_or(0, |row| row.get::<_, i64>(4));
        let all = rows.len() as i64 == found && found < limit;
        let event =
            |row: &tokio_postgres::Row| EventRow { row: row.get(0), id: event_id_of(row.get(1)), event_type: row.get(2), body: row.get(3) };
        Ok(TaskEvents { events: rows.iter().map(event).collect(), all, complete })
    }

    pub(crate) async fn row_of(&self, task: Option<TaskId>, scope: Scope, event: EventId) -> Result<Option<i64>, StoreError> {
        let task = task.as_ref().map(|task| &task.as_bytes()[..]);
        let sql = "SELECT min(seq) FROM fte_status.event
                   WHERE id = $1 AND ($2::bytea IS NULL OR task = $2) AND ($3::text IS NULL OR tenant = $3)";
        Ok(self.pool.reader().await?.query_one(sql, &[&id_bytes(&event), &task, &scope.only()]).await?.get(0))
    }

    pub(crate) async fn frames_after(&self, after: i64, head: i64, filter: Filter, bytes_max: usize) -> Result<(Vec<u8>, i64), StoreError> {
        let reader = self.pool.reader().await?;
        let task = filter.task.as_ref().map(|task| &task.as_bytes()[..]);
        // A task's rows are found by their index; of all others a span is gone through.
        let upto = if task.is_some() { head } else { head.min(after.saturating_add(SPAN_MAX)) };
        let of_task = if task.is_some() { "task = $3" } else { "$3::bytea IS NULL AND task IS NOT NULL" };
        let sql = format!(
            "SELECT seq, id, type, body, tenant, found FROM (
                 SELECT seq, id, type, body, tenant, count(*) OVER () AS found,
                     sum(octet_length(body)) OVER (ORDER BY seq) - octet_length(body) AS before
                 FROM (SELECT * FROM fte_status.event
                       WHERE seq > $1 AND seq <= $2 AND {of_task} AND ($4::text IS NULL OR tenant = $4)
                           AND (cardinality($5::text[]) = 0 OR type = ANY ($5)) ORDER BY seq LIMIT $6) AS piece
             ) AS measured WHERE before < $7 ORDER BY seq"
        );
        let types: Vec<&str> = filter.types.iter().map(|wanted| &**wanted).filter(|wanted| !wanted.contains('\0')).collect();
        if types.len() < filter.types.len() && types.is_empty() {
            return Ok((Vec::new(), upto));
        }
        let (rows_max, bytes_max) = (i64::try_from(ROWS_MAX).unwrap_or(i64::MAX), i64::try_from(bytes_max).unwrap_or(i64::MAX));
        let rows = reader.query(&sql, &[&after, &upto, &task, &filter.scope.only(), &types, &rows_max, &bytes_max]).await?;
        let found = rows.first().map_or(0, |row| row.get::<_, i64>(5));
        let mut frames = Vec::new();
        for row in &rows {
            write_frame(&mut frames, &event_id_of(row.get(1)), row.get(2), row.get(3));
        }
        let exhausted = rows.len() as i64 == found && found < rows_max;
        Ok((frames, if exhausted { upto } else { rows.last().map_or(upto, |row| row.get(0)) }))
    }
}

/// The rows of the events with a task's texts but its result.
fn rows_of(record: &TaskRecord) -> Vec<i64> {
    [record.request.map(|request| request.row), record.step.map(|step| step.row)].into_iter().flatten().collect()
}

fn texts(record: &TaskRecord, bodies: &mut HashMap<i64, Vec<u8>>) -> Bodies {
    let mut take = |row: Option<i64>| row.and_then(|row| bodies.remove(&row));
    Bodies { request: take(record.request.map(|request| request.row)), step: take(record.step.map(|step| step.row)), result: None }
}

async fn bodies(session: &Session, rows: Vec<i64>) -> Result<HashMap<i64, Vec<u8>>, StoreError> {
    let found = session.query("SELECT seq, body FROM fte_status.event WHERE seq = ANY ($1)", &[&rows]).await?;
    Ok(found.iter().map(|row| (row.get(0), row.get(1))).collect())
}
