//! Removing what is old, in steps that are small enough not to be felt by the writes they share the writer with.
//!
//! A sweep walks, tenant by tenant, the ended tasks that were asked for before the cutoff, each terminal status in the order of its index, and removes those that also
//! ended before it; then the letters; then the events that belong to no task row. A step says where the next one goes on.

use std::time::Duration;

use jiff::Timestamp;

use super::erasing::MARK_MS;

/// Most tasks looked at, and most rows removed, in one step.
pub(super) const TASKS_MAX: i64 = 64;
pub(super) const ROWS_MAX: i64 = 500;

/// Before when what there is has had its time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cutoff {
    /// What ended, was read or was put away, in microseconds since 1970.
    pub us: i64,
    /// Marks of what was erased, in milliseconds.
    pub marks_ms: i64,
}

impl Cutoff {
    /// What is older than the retention.
    pub(crate) fn at(now: Timestamp, retention: Duration) -> Self {
        let us = now.as_microsecond().saturating_sub(i64::try_from(retention.as_micros()).unwrap_or(i64::MAX));
        Self { us, marks_ms: now.as_millisecond().saturating_sub(MARK_MS) }
    }
}

/// Where a sweep stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Sweep {
    /// At the tenant after this one.
    Tenants {
        /// The last tenant whose tasks were looked at.
        after: String,
    },
    /// At a tenant's tasks of a terminal status (its place in [`Status::ALL`]), after this one.
    Tasks {
        /// Whose.
        tenant: String,
        /// The place of the status.
        status: usize,
        /// The last task looked at: its creation and its id.
        after: (i64, [u8; 16]),
    },
    /// At the letters.
    Letters,
    /// At the events of no task, after this row.
    Strays {
        /// The last row looked at.
        after: i64,
    },
    /// At its end.
    Finished,
}

/// What a step did.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Swept {
    /// Where the next step goes on.
    pub next: Sweep,
    /// How many tasks, events and letters were removed.
    pub tasks: usize,
    /// Events.
    pub events: usize,
    /// Letters.
    pub letters: usize,
}

impl Sweep {
    /// A sweep's beginning.
    pub(crate) fn start() -> Self {
        Self::Tenants { after: String::new() }
    }
}

impl Swept {
    /// Nothing was removed.
    pub(super) fn nothing(next: Sweep) -> Self {
        Self { next, tasks: 0, events: 0, letters: 0 }
    }
}
