//! Events into rows, inside the writer's transaction: each event once, each changed task written once per transaction.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use fte_events::TaskId;
use rusqlite::types::{ToSql, ToSqlOutput, Value, ValueRef};
use rusqlite::{CachedStatement, Connection, OptionalExtension, params};

use super::artifacts;
use crate::model::{Change, Said, TaskRecord};
use crate::reading::{EventId, Incoming};
use crate::store::{Applied, status_code};
use crate::tenant::Tenant;

pub(super) struct Applier<'c> {
    insert_event: CachedStatement<'c>,
    load_task: CachedStatement<'c>,
    insert_task: CachedStatement<'c>,
    update_record: CachedStatement<'c>,
    update_task: CachedStatement<'c>,
    insert_artifact: CachedStatement<'c>,
    tasks: HashMap<(TaskId, Tenant), Held>,
    last_row: i64,
    stored_ms: i64,
}

/// A task while the transaction works on it.
struct Held {
    record: TaskRecord,
    /// Its indexed columns as they are in the database, if it is there.
    before: Option<Columns>,
}

#[derive(PartialEq)]
struct Columns {
    status: u8,
    agent: Option<String>,
    created: i64,
}

impl<'c> Applier<'c> {
    pub(super) fn new(connection: &'c Connection, last_row: i64) -> rusqlite::Result<Self> {
        Ok(Self {
            insert_event: connection.prepare_cached(
                "INSERT INTO event (seq, task, id, source, type, stored, body, tenant) SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8
                 WHERE NOT EXISTS (SELECT 1 FROM erased WHERE erased.task = ?2 AND erased.tenant = ?8)
                 ON CONFLICT (id, source) DO NOTHING",
            )?,
            load_task: connection.prepare_cached("SELECT status, agent, created, record FROM task WHERE id = ?1 AND tenant = ?2")?,
            insert_task: connection
                .prepare_cached("INSERT INTO task (id, status, agent, created, record, tenant) VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?,
            update_record: connection.prepare_cached("UPDATE task SET record = ?2 WHERE id = ?1 AND tenant = ?3")?,
            update_task: connection
                .prepare_cached("UPDATE task SET status = ?2, agent = ?3, created = ?4, record = ?5 WHERE id = ?1 AND tenant = ?6")?,
            insert_artifact: artifacts::inserting(connection)?,
            tasks: HashMap::new(),
            last_row,
            stored_ms: jiff::Timestamp::now().as_millisecond(),
        })
    }

    pub(super) fn apply<'a>(mut self, events: impl Iterator<Item = &'a Incoming>) -> rusqlite::Result<Applied<'a>> {
        let mut stored = Vec::with_capacity(events.size_hint().0);
        let mut doubled = 0;
        for event in events {
            match self.store(event)? {
                Some(row) => {
                    self.fold(event, row)?;
                    stored.push((row, event));
                }
                None => doubled += 1,
            }
        }
        self.write_tasks()?;
        Ok(Applied { stored, doubled, last_row: self.last_row })
    }

    /// The event's row, or none when it was there, or its task was erased.
    fn store(&mut self, event: &Incoming) -> rusqlite::Result<Option<i64>> {
        let row = self.last_row + 1;
        let task = event.task.as_ref().map(|task| &task.as_bytes()[..]);
        let inserted = self.insert_event.execute(params![
            row,
            task,
            event.id,
            event.source,
            event.event_type,
            self.stored_ms,
            &event.body[..],
            event.tenant
        ])?;
        if inserted == 0 {
            return Ok(None);
        }
        self.last_row = row;
        Ok(Some(row))
    }

    fn fold(&mut self, event: &Incoming, row: i64) -> rusqlite::Result<()> {
        let Some(task) = event.task.filter(|_| event.change != Change::Nothing) else {
            return Ok(());
        };
        let held = match self.tasks.entry((task, event.tenant.clone())) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let held = load(&mut self.load_task, task, &event.tenant)?;
                entry.insert(held)
            }
        };
        held.record.fold(&event.change, Said { row, at_us: event.at_us, mark: event.mark() });
        for named in &event.artifacts {
            artifacts::insert(&mut self.insert_artifact, task, &event.tenant, named)?;
        }
        Ok(())
    }

    fn write_tasks(&mut self) -> rusqlite::Result<()> {
        for ((task, tenant), Held { record, before }) in std::mem::take(&mut self.tasks) {
            let text = serde_json::to_string(&record).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
            let id = &task.as_bytes()[..];
            let (status, created) = (status_code(record.status()), record.created_us(task));
            match before {
                None => {
                    self.insert_task.execute(params![id, status, record.agent(), created, text, tenant])?;
                }
                // Naming an indexed column in an update rewrites its indexes, changed or not.
                Some(before) if (before.status, before.agent.as_deref(), before.created) == (status, record.agent(), created) => {
                    self.update_record.execute(params![id, text, tenant])?;
                }
                Some(_) => {
                    self.update_task.execute(params![id, status, record.agent(), created, text, tenant])?;
                }
            }
        }
        Ok(())
    }
}

fn load(statement: &mut CachedStatement<'_>, task: TaskId, tenant: &str) -> rusqlite::Result<Held> {
    let held = statement.query_row(params![&task.as_bytes()[..], tenant], |row| {
        let columns = Columns { status: row.get(0)?, agent: row.get(1)?, created: row.get(2)? };
        Ok(Held { record: record_of(row.get_ref(3)?)?, before: Some(columns) })
    });
    Ok(held.optional()?.unwrap_or_else(|| Held { record: TaskRecord::default(), before: None }))
}

/// A task's record from its column.
pub(super) fn record_of(value: ValueRef<'_>) -> rusqlite::Result<TaskRecord> {
    serde_json::from_slice(value.as_bytes()?)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, error.into()))
}

impl ToSql for EventId {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Uuid(id) => ToSqlOutput::Borrowed(ValueRef::Blob(id.as_bytes())),
            Self::Text(id) => ToSqlOutput::Borrowed(ValueRef::Text(id.as_bytes())),
        })
    }
}

/// An event's id from its column.
pub(super) fn event_id_of(value: Value) -> EventId {
    match value {
        Value::Blob(bytes) => match uuid::Uuid::from_slice(&bytes) {
            Ok(id) => EventId::Uuid(id),
            Err(_) => EventId::Text(String::from_utf8_lossy(&bytes).into()),
        },
        Value::Text(text) => EventId::Text(text.into()),
        Value::Null | Value::Integer(_) | Value::Real(_) => EventId::Text("".into()),
    }
}
