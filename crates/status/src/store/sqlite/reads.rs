//! Reading tasks and events. Every query is bounded in rows or bytes and answered from an index.

use fte_events::{Status, TaskId};
use fte_service::keys::Scope;
use rusqlite::{Connection, OptionalExtension, params};

use super::Sqlite;
use super::apply::{event_id_of, record_of};
use crate::model::TaskRecord;
use crate::reading::EventId;
use crate::sse::Filter;
use crate::store::reads::{BYTES_MAX, Bodies, EventRow, ListQuery, ROWS_MAX, Rows, TENANTS_MAX, TaskEvents, TaskPlace, TaskRow};
use crate::store::{StoreError, status_code};
use crate::tenant::{Tenant, tenant};

impl Sqlite {
    /// A task with everything that is known of it, if its tenant is in scope. Of several with the same id, the one that was asked for first.
    pub(crate) async fn task(&self, task: TaskId, scope: Scope) -> Result<Option<TaskRow>, StoreError> {
        self.read(move |connection| {
            let Some((tenant, record)) = first_record(connection, task, &scope)? else { return Ok(None) };
            let bodies = Bodies {
                request: body(connection, record.request.map(|request| request.row))?,
                step: body(connection, record.step.map(|step| step.row))?,
                result: body(connection, record.result.map(|result| result.chosen.row))?,
            };
            Ok(Some(TaskRow { id: task, tenant, record, bodies }))
        })
        .await
    }

    /// Tasks, newest first, without their results: at most as many as asked for, and about 1 MiB.
    pub(crate) async fn tasks(&self, query: ListQuery) -> Result<Rows<TaskRow, TaskPlace>, StoreError> {
        self.read(move |connection| {
            let (mut rows, mut bytes, mut last) = (Vec::new(), 0, None);
            // One more than asked for shows whether there are more.
            for place in newest(connection, &query)? {
                if rows.len() == query.limit || bytes >= BYTES_MAX {
                    return Ok(Rows { rows, next: last });
                }
                let (task, tenant) = (place.1, place.2.clone());
                last = Some(place);
                let Some(record) = record(connection, task, &tenant)? else { continue };
                let bodies = Bodies {
                    request: body(connection, record.request.map(|request| request.row))?,
                    step: body(connection, record.step.map(|step| step.row))?,
                    result: None,
                };
                bytes += [&bodies.request, &bodies.step].into_iter().flatten().map(Vec::len).sum::<usize>();
                rows.push(TaskRow { id: task, tenant, record, bodies });
            }
            Ok(Rows { rows, next: None })
        })
        .await
    }

    /// Events of a task after a row, at most `limit` and about `bytes_max`, and whether the task was complete before they were read.
    pub(crate) async fn events_of(
        &self,
        task: TaskId,
        tenant: Tenant,
        after: i64,
        limit: usize,
        bytes_max: usize,
    ) -> Result<TaskEvents, StoreError> {
        self.read(move |connection| {
            // First the record: whatever it counts is among the events read after it.
            let record = record(connection, task, &tenant)?;
            let mut statement = connection.prepare_cached(
                "SELECT seq, id, type, body FROM event WHERE task = ?1 AND tenant = ?4 AND seq > ?2 ORDER BY seq LIMIT ?3",
            )?;
            let mut rows = statement.query(params![&task.as_bytes()[..], after, i64::try_from(limit).unwrap_or(i64::MAX), tenant])?;
            let (mut events, mut bytes) = (Vec::new(), 0);
            let mut all = true;
            while let Some(row) = rows.next()? {
                if bytes >= bytes_max {
                    all = false;
                    break;
                }
                let event = EventRow { row: row.get(0)?, id: event_id_of(row.get(1)?), event_type: row.get(2)?, body: row.get(3)? };
                bytes += event.body.len();
                events.push(event);
            }
            all &= events.len() < limit;
            let complete = record.as_ref().is_some_and(TaskRecord::is_complete);
            Ok(TaskEvents { events, all, complete })
        })
        .await
    }

    /// The row of an event of a task, or of any, by its id, if its tenant is in scope. Where two producers chose the same id for one task, the first.
    pub(crate) async fn row_of(&self, task: Option<TaskId>, scope: Scope, event: EventId) -> Result<Option<i64>, StoreError> {
        self.read(move |connection| {
            let task = task.as_ref().map(|task| &task.as_bytes()[..]);
            let mut statement = connection
                .prepare_cached("SELECT min(seq) FROM event WHERE id = ?1 AND (?2 IS NULL OR task = ?2) AND (?3 IS NULL OR tenant = ?3)")?;
            statement.query_row(params![event, task, scope.only()], |row| row.get(0))
        })
        .await
    }

    /// Events of all tasks after a row that pass the filter, as about `bytes_max` of frames, and the last row looked at: `head` when there are no more.
    pub(crate) async fn frames_after(&self, after: i64, head: i64, filter: Filter, bytes_max: usize) -> Result<(Vec<u8>, i64), StoreError> {
        self.read(move |connection| {
            let rows_max = i64::try_from(ROWS_MAX).unwrap_or(i64::MAX);
            let mut statement = connection.prepare_cached(match filter.task {
                Some(_) => "SELECT seq, id, type, body, tenant FROM event WHERE task = ?1 AND seq > ?2 AND seq <= ?3 ORDER BY seq LIMIT ?4",
                None => {
                    "SELECT seq, id, type, body, tenant FROM event
                     WHERE ?1 IS NULL AND seq > ?2 AND seq <= ?3 AND task IS NOT NULL ORDER BY seq LIMIT ?4"
                }
            })?;
            let task = filter.task.as_ref().map(|task| &task.as_bytes()[..]);
            let mut rows = statement.query(params![task, after, head, rows_max])?;
            let (mut frames, mut last, mut looked_at) = (Vec::new(), after, 0);
            while frames.len() < bytes_max {
                let Some(row) = rows.next()? else { break };
                (last, looked_at) = (row.get(0)?, looked_at + 1);
                let event_type = row.get_ref(2)?.as_str()?;
                if filter.passes(event_type, filter.task, row.get_ref(4)?.as_str()?) {
                    crate::sse::write_frame(&mut frames, &event_id_of(row.get(1)?), event_type, row.get_ref(3)?.as_bytes()?);
                }
            }
            let exhausted = looked_at < ROWS_MAX && frames.len() < bytes_max;
            Ok((frames, if exhausted { head } else { last }))
        })
        .await
    }
}

fn record(connection: &Connection, task: TaskId, tenant: &str) -> rusqlite::Result<Option<TaskRecord>> {
    let mut statement = connection.prepare_cached("SELECT record FROM task WHERE id = ?1 AND tenant = ?2")?;
    statement.query_row(params![&task.as_bytes()[..], tenant], |row| record_of(row.get_ref(0)?)).optional()
}

fn first_record(connection: &Connection, task: TaskId, scope: &Scope) -> rusqlite::Result<Option<(Tenant, TaskRecord)>> {
    if let Some(own) = scope.only() {
        return Ok(record(connection, task, own)?.map(|record| (tenant(Some(own)), record)));
    }
    let mut statement = connection.prepare_cached("SELECT tenant, record FROM task WHERE id = ?1 LIMIT ?2")?;
    let rows = statement.query_map(params![&task.as_bytes()[..], TENANTS_MAX], |row| {
        Ok((tenant(Some(row.get_ref(0)?.as_str()?)), record_of(row.get_ref(1)?)?))
    })?;
    let records: Vec<_> = rows.collect::<rusqlite::Result<_>>()?;
    Ok(records.into_iter().min_by(|one, other| one.1.asked_for().cmp(&other.1.asked_for()).then_with(|| one.0.cmp(&other.0))))
}

fn body(connection: &Connection, row: Option<i64>) -> rusqlite::Result<Option<Vec<u8>>> {
    let Some(row) = row else { return Ok(None) };
    connection.prepare_cached("SELECT body FROM event WHERE seq = ?1")?.query_row([row], |row| row.get(0)).optional()
}

/// The newest tasks that fit, and one more: each tenant and status is one range of an index, read from its end; the newest of all of them are the list.
fn newest(connection: &Connection, query: &ListQuery) -> rusqlite::Result<Vec<TaskPlace>> {
    let mut found = Vec::new();
    match query.scope.only() {
        Some(own) => newest_of(connection, query, own, &mut found)?,
        None => {
            let mut next = tenant_after(connection, "")?;
            while let Some(tenant) = next {
                newest_of(connection, query, &tenant, &mut found)?;
                found.sort_unstable_by(|one, other| other.cmp(one));
                found.truncate(query.limit + 1);
                next = tenant_after(connection, &tenant)?;
            }
        }
    }
    found.sort_unstable_by(|one, other| other.cmp(one));
    found.truncate(query.limit + 1);
    Ok(found)
}

fn newest_of(connection: &Connection, query: &ListQuery, of: &str, found: &mut Vec<TaskPlace>) -> rusqlite::Result<()> {
    // The same id may be in the list under several tenants.
    let mut statement = connection.prepare_cached(match query.agent {
        Some(_) => {
            "SELECT created, id FROM task WHERE tenant = ?7 AND agent = ?1 AND status = ?2 AND created >= ?3
             AND (created, id) <= (?4, ?5) AND (created, id, tenant) < (?4, ?5, ?8) ORDER BY created DESC, id DESC LIMIT ?6"
        }
        None => {
            "SELECT created, id FROM task WHERE ?1 IS NULL AND tenant = ?7 AND status = ?2 AND created >= ?3
             AND (created, id) <= (?4, ?5) AND (created, id, tenant) < (?4, ?5, ?8) ORDER BY created DESC, id DESC LIMIT ?6"
        }
    })?;
    let (before_us, before_id, before_tenant) = match &query.before {
        Some((created, id, tenant)) => (*created, *id.as_bytes(), &**tenant),
        None => (i64::MAX, [0xff; 16], of),
    };
    let since = query.since_us.unwrap_or(i64::MIN);
    let limit = i64::try_from(query.limit + 1).unwrap_or(i64::MAX);
    for status in Status::ALL.into_iter().filter(|status| query.status.is_none_or(|wanted| wanted == *status)) {
        let columns = params![query.agent, status_code(status), since, before_us, &before_id[..], limit, of, before_tenant];
        let rows = statement.query_map(columns, |row| Ok((row.get::<_, i64>(0)?, row.get::<_, [u8; 16]>(1)?)))?;
        for row in rows {
            let (created, id) = row?;
            found.push((created, TaskId::from_uuid(uuid::Uuid::from_bytes(id)), tenant(Some(of))));
        }
    }
    Ok(())
}

/// The next tenant that has tasks.
pub(super) fn tenant_after(connection: &Connection, tenant: &str) -> rusqlite::Result<Option<String>> {
    connection.prepare_cached("SELECT min(tenant) FROM task WHERE tenant > ?1")?.query_row([tenant], |row| row.get(0))
}
