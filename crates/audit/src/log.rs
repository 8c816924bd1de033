//! The seam between whoever records and asks, and what keeps the log ([`crate::engine`]).
//!
//! Of every implementation: an appended entry is durable and numbered when `append` returns, each identity once, in gapless order; after an error
//! nothing of that call is acknowledged, and a repeat is safe.

use std::sync::Arc;

use bytes::Bytes;
use fte_tlog::{Hash, ProofFile, TilePath};
use futures_util::future::BoxFuture;

use crate::engine::{Published, Retired};
use crate::entry::{Entry, NewEntry, Position, Task};

/// Where entries are kept.
pub trait Log: Send + Sync + 'static {
    /// Writes what is new of these records, in order, and says for each what became of it.
    fn append(&self, entries: Vec<NewEntry>) -> BoxFuture<'_, Result<Vec<Appended>, LogError>>;

    /// The entry at a place.
    fn entry(&self, at: Position) -> BoxFuture<'_, Result<Option<Entry>, LogError>>;

    /// Entries in log order.
    fn entries(&self, query: Query) -> BoxFuture<'_, Result<Page, LogError>>;

    /// Numbers of the publishers' counters that have not arrived, and those that came late.
    fn gaps(&self) -> BoxFuture<'_, Result<Gaps, LogError>>;

    /// The last checkpoint of a shard, or of the newest that has one.
    fn checkpoint(&self, shard: Option<u16>) -> BoxFuture<'_, Result<Option<Published>, LogError>>;

    /// A tile or bundle of a shard; `None` for what is not in its last checkpoint.
    fn tile(&self, shard: u16, tile: TilePath) -> BoxFuture<'_, Result<Option<Bytes>, LogError>>;

    /// A payload that is not in its leaf.
    fn blob(&self, shard: u16, digest: [u8; 32]) -> BoxFuture<'_, Result<Option<Bytes>, LogError>>;

    /// That an entry is in the last checkpoint of its shard; `None` as long as it is in none.
    fn proof(&self, at: Position) -> BoxFuture<'_, Result<Option<ProofFile>, LogError>>;

    /// That a shard only grew between two sizes, both at most that of its last checkpoint.
    fn consistency(&self, shard: u16, from: u64, to: u64) -> BoxFuture<'_, Result<Option<Vec<Hash>>, LogError>>;

    /// The shards of which only the final checkpoint is left, the oldest first.
    fn retired(&self) -> Vec<Retired> {
        Vec::new()
    }

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
    /// Without what their events say, which is not opened then.
    pub headers_only: bool,
}

/// Some of the entries that were asked for.
#[derive(Clone, Debug, Default)]
pub struct Page {
    pub entries: Vec<Entry>,
    /// Ask again after this place: there may be more. A page can be short, even empty, and not the last, since the work for one is bounded.
    pub next: Option<Position>,
    /// How many numbers of the publishers' counters on the actions topic have not arrived.
    pub actions_missing: u64,
    /// The last checkpoint when the page was made. Entries after it are durable, and are in the next one.
    pub published: Option<Published>,
}

/// Numbers that did not arrive, or late.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    pub source: String,
    pub epoch: String,
    pub first: u64,
    pub last: u64,
    /// The entry that tells of it; none while it may only be late.
    pub entry: Option<Position>,
}

/// What is known of the publishers' counters.
#[derive(Clone, Debug, Default)]
pub struct Gaps {
    pub open: Vec<Gap>,
    /// Numbers that arrived after their absence was recorded, the newest first.
    pub filled: Vec<Gap>,
    /// How many numbers the open ones have, in all.
    pub missing: u64,
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
    #[error("the audit log is closed")]
    Closed,
}
