//! Events into rows, inside the writer's transaction: each event once, each changed task written once; a statement for all of them, not one for each.

use std::collections::{HashMap, HashSet};

use fte_events::TaskId;

use super::artifacts;
use super::connection::Session;
use crate::model::{Change, Said, TaskRecord};
use crate::reading::{EventId, Incoming};
use crate::store::{Applied, StoreError, status_code};
use crate::tenant::Tenant;

/// Stores what is new of the events behind row `head`, and folds it into the tasks.
pub(super) async fn apply<'a>(session: &Session, head: i64, events: Vec<&'a Incoming>) -> Result<Applied<'a>, StoreError> {
    let stored = store(session, head, &events).await?;
    let doubled = events.len() - stored.len();
    fold(session, &stored).await?;
    let last_row = stored.last().map_or(head, |(row, _)| *row);
    Ok(Applied { stored, doubled, last_row })
}

async fn store<'a>(session: &Session, head: i64, events: &[&'a Incoming]) -> Result<Vec<(i64, &'a Incoming)>, StoreError> {
    if events.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<Vec<u8>> = events.iter().map(|event| id_bytes(&event.id)).collect();
    let tasks: Vec<Option<Vec<u8>>> = events.iter().map(|event| event.task.map(|task| task.as_bytes().to_vec())).collect();
    let tenants: Vec<&str> = events.iter().map(|event| &*event.tenant).collect();
    let sources: Vec<&str> = events.iter().map(|event| &*event.source).collect();
    let types: Vec<&str> = events.iter().map(|event| &*event.event_type).collect();
    let bodies: Vec<&[u8]> = events.iter().map(|event| &event.body[..]).collect();
    let stored_ms = jiff::Timestamp::now().as_millisecond();
    let rows = session
        .query(
            "INSERT INTO fte_status.event (seq, task, tenant, id, source, type, stored, body)
             SELECT $1 + place, task, tenant, id, source, type, $2, body
             FROM unnest($3::bytea[], $4::text[], $5::bytea[], $6::text[], $7::text[], $8::bytea[])
                 WITH ORDINALITY AS new (task, tenant, id, source, type, body, place)
             WHERE NOT EXISTS (SELECT 1 FROM fte_status.erased WHERE erased.task = new.task AND erased.tenant = new.tenant)
             ORDER BY place ON CONFLICT (id, source) DO NOTHING RETURNING seq",
            &[&head, &stored_ms, &tasks, &tenants, &ids, &sources, &types, &bodies],
        )
        .await?;
    let mut seqs: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
    seqs.sort_unstable();
    let event_at = |seq: i64| usize::try_from(seq - head - 1).ok().and_then(|place| events.get(place).copied());
    Ok(seqs.into_iter().filter_map(|seq| Some((seq, event_at(seq)?))).collect())
}

async fn fold(session: &Session, stored: &[(i64, &Incoming)]) -> Result<(), StoreError> {
    let changing = || stored.iter().filter(|(_, event)| event.change != Change::Nothing);
    let keys: HashSet<(TaskId, Tenant)> = changing().filter_map(|(_, event)| Some((event.task?, event.tenant.clone()))).collect();
    if keys.is_empty() {
        return Ok(());
    }
    let mut tasks: HashMap<(TaskId, Tenant), TaskRecord> = load(session, &keys).await?;
    for (row, event) in changing() {
        let Some(task) = event.task else { continue };
        let record = tasks.entry((task, event.tenant.clone())).or_default();
        record.fold(&event.change, Said { row: *row, at_us: event.at_us, mark: event.mark() });
    }
    artifacts::insert(session, changing().flat_map(|(_, event)| artifacts::of(event)).collect()).await?;
    write(session, &tasks).await
}

async fn load(session: &Session, keys: &HashSet<(TaskId, Tenant)>) -> Result<HashMap<(TaskId, Tenant), TaskRecord>, StoreError> {
    let (ids, tenants): (Vec<&[u8]>, Vec<&str>) = keys.iter().map(|(task, tenant)| (&task.as_bytes()[..], &**tenant)).unzip();
    let rows = session
        .query(
            "SELECT task.id, task.tenant, record FROM unnest($1::bytea[], $2::text[]) AS wanted (id, tenant)
             JOIN fte_status.task ON task.id = wanted.id AND task.tenant = wanted.tenant",
            &[&ids, &tenants],
        )
        .await?;
    rows.iter().map(|row| Ok(((task_of(row.get(0))?, crate::tenant::tenant(Some(row.get(1)))), record_of(row.get(2))?))).collect()
}

async fn write(session: &Session, tasks: &HashMap<(TaskId, Tenant), TaskRecord>) -> Result<(), StoreError> {
    let mut ids: Vec<&[u8]> = Vec::with_capacity(tasks.len());
    let (mut tenants, mut statuses, mut agents) = (Vec::new(), Vec::new(), Vec::new());
    let (mut created, mut records) = (Vec::new(), Vec::new());
    for ((task, tenant), record) in tasks {
        ids.push(&task.as_bytes()[..]);
        tenants.push(&**tenant);
        statuses.push(i16::from(status_code(record.status())));
        agents.push(record.agent());
        created.push(record.created_us(*task));
        records.push(serde_json::to_string(record).map_err(|_| StoreError::Unreadable)?);
    }
    session
        .execute(
            "INSERT INTO fte_status.task (id, tenant, status, agent, created, record)
             SELECT * FROM unnest($1::bytea[], $2::text[], $3::smallint[], $4::text[], $5::bigint[], $6::text[])
             ON CONFLICT (id, tenant) DO UPDATE
             SET status = excluded.status, agent = excluded.agent, created = excluded.created, record = excluded.record",
            &[&ids, &tenants, &statuses, &agents, &created, &records],
        )
        .await?;
    Ok(())
}

/// A task's record from its column.
pub(super) fn record_of(text: &str) -> Result<TaskRecord, StoreError> {
    serde_json::from_str(text).map_err(|_| StoreError::Unreadable)
}

/// A task's id from its column.
pub(super) fn task_of(bytes: &[u8]) -> Result<TaskId, StoreError> {
    uuid::Uuid::from_slice(bytes).map(TaskId::from_uuid).map_err(|_| StoreError::Unreadable)
}

pub(super) fn id_bytes(id: &EventId) -> Vec<u8> {
    match id {
        EventId::Uuid(id) => [b"u", &id.as_bytes()[..]].concat(),
        EventId::Text(text) => [b"t", text.as_bytes()].concat(),
    }
}

/// An event's id from its column.
pub(super) fn event_id_of(bytes: &[u8]) -> EventId {
    match bytes.split_first() {
        Some((b'u', id)) if id.len() == 16 => EventId::Uuid(uuid::Uuid::from_slice(id).unwrap_or_default()),
        Some((_, text)) => EventId::Text(String::from_utf8_lossy(text).into()),
        None => EventId::Text("".into()),
    }
}
