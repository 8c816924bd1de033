//! The seam to whatever keeps the log. A tamper-evident one can replace today's SQLite behind it without a change of any route.
//!
//! Of every implementation: an appended entry is durable and numbered when `append` returns, each identity once, in gapless order; after an error
//! nothing of that call is acknowledged, and a repeat is safe. What is wrong with one call is no other's error.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::entry::{Entry, NewEntry, Position, Task};

/// Where entries are kept.
pub trait Log: Send + Sync + 'static {
    /// Writes what is new of these records, in order, and says for each what became of it.
    fn append(&self, entries: Vec<NewEntry>) -> BoxFuture<'_, Result<Vec<Appended>, LogError>>;

    /// The entry at a place.
    fn entry(&self, at: Position) -> BoxFuture<'_, Result<Option<Entry>, LogError>>;

    /// Entries in log order.
    fn entries(&self, query: Query) -> BoxFuture<'_, Result<Page, LogError>>;

    /// Whether the last append succeeded.
    fn ready(&self) -> Result<(), LogError>;
}

/// What became of a record. All of them are durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// It is a new entry.
    New(Position),
    /// It was in the log before.
    Known,
    /// It contradicts an earlier entry of the same identity, and is an entry of its own.
    Conflict(Position),
}

/// Which entries to find. Absent means any.
#[derive(Clone, Debug, Default)]
pub struct Query {
    pub task: Option<Task>,
    pub agent: Option<String>,
    /// The event's own word or its type.
    pub action: Option<String>,
    pub actor: Option<String>,
    pub outcome: Option<String>,
    pub tenant: Option<String>,
    /// Logged at or after this, in milliseconds.
    pub from_ms: Option<i64>,
    /// Logged before this, in milliseconds.
    pub to_ms: Option<i64>,
    /// After this place.
    pub after: Option<Position>,
    /// At most this many.
    pub limit: usize,
}

/// Some of the entries that were asked for.
#[derive(Clone, Debug, Default)]
pub struct Page {
    pub entries: Vec<Entry>,
    /// Ask again after this place: there may be more. A page can be short, even empty, and not the last, since the work for one is bounded.
    pub next: Option<Position>,
    /// How many numbers of the publishers' counters on the actions topic have not arrived.
    pub actions_missing: u64,
}

/// The log cannot be written or read now.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogError {
    #[error("{what}")]
    Storage {
        /// Which file, what happened, what to do.
        what: String,
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The log works, but not with these entries: they fail again, others do not.
    #[error("{what}")]
    Refused {
        /// Which file, and what happened.
        what: String,
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    #[error("the audit log is closed")]
    Closed,
}
