//! What is read of the store: tasks, events and pages of them.

use fte_events::{Status, TaskId};
use fte_service::keys::Scope;

use crate::model::TaskRecord;
use crate::reading::EventId;
use crate::tenant::Tenant;

/// A task's row and the events it names.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TaskRow {
    /// The task.
    pub id: TaskId,
    /// Whose it is.
    pub tenant: Tenant,
    /// What its events add up to.
    pub record: TaskRecord,
    /// Its texts.
    pub bodies: Bodies,
}

/// The CloudEvents that a task's record names, as they came.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Bodies {
    /// The request.
    pub request: Option<Vec<u8>>,
    /// The step that gives the status.
    pub step: Option<Vec<u8>>,
    /// The result.
    pub result: Option<Vec<u8>>,
}

/// An event.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct EventRow {
    /// Its place in the order of arrival.
    pub row: i64,
    /// Its id.
    pub id: EventId,
    /// Its type.
    pub event_type: String,
    /// The CloudEvent as it came.
    pub body: Vec<u8>,
}

/// Which tasks to list, newest first.
#[derive(Debug, Clone)]
pub(crate) struct ListQuery {
    /// Only of these tenants.
    pub scope: Scope,
    /// Only in this status.
    pub status: Option<Status>,
    /// Only of this agent.
    pub agent: Option<String>,
    /// Only asked for at or after this, in microseconds since 1970.
    pub since_us: Option<i64>,
    /// Only before this task of an earlier page.
    pub before: Option<TaskPlace>,
    /// How many.
    pub limit: usize,
}

impl Default for ListQuery {
    fn default() -> Self {
        Self { scope: Scope::All, status: None, agent: None, since_us: None, before: None, limit: 0 }
    }
}

/// A task's place in the list, newest first: its creation, its id, and whose it is.
pub(crate) type TaskPlace = (i64, TaskId, Tenant);

/// A page of a list.
#[derive(Debug)]
pub(crate) struct Rows<T, P> {
    /// What is on it.
    pub rows: Vec<T>,
    /// The place of its last row, when there are more.
    pub next: Option<P>,
}

/// Most bytes of events in a page of a list; the event that passes it is still in it.
pub(crate) const BYTES_MAX: usize = 1024 * 1024;
/// Most tenants looked at for one task id.
pub(super) const TENANTS_MAX: i64 = 256;
/// Most rows looked at for one piece of the stream of all tasks.
pub(super) const ROWS_MAX: usize = 2048;

/// Some events of a task.
#[derive(Debug)]
pub(crate) struct TaskEvents {
    /// The events, in order of arrival.
    pub events: Vec<EventRow>,
    /// Whether there are no more for now.
    pub all: bool,
    /// Whether there will be no more, besides these.
    pub complete: bool,
}
