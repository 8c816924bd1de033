//! The one that writes: numbers entries, recognises what it has, commits.
//!
//! What it remembers between groups (the next number, the last time, the block being filled) is dropped with the connection after any error and read
//! from the database again, so memory and disk cannot disagree.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use std::time::Instant;

use jiff::Timestamp;
use jiff::tz::Offset;
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::blocks::{self, Filling};
use super::{Shared, SqliteOptions, schema};
use crate::canonical::content_digest;
use crate::entry::{Counted, Kind, NewEntry, Position, Task};
use crate::log::{Appended, LogError};
use crate::metrics;

const INSERT: &str = "INSERT INTO entry (n, kind, logged_ms, partition, offset, key, task, topic, sha256, event)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT (key) DO NOTHING";
const SAME_KEY: &str = "SELECT sha256, event FROM entry WHERE key = ?1";
const EPOCH: &str = "SELECT highest, arrived FROM epoch WHERE source = ?1 AND epoch = ?2";
const SET_EPOCH: &str = "INSERT OR REPLACE INTO epoch (source, epoch, highest, arrived) VALUES (?1, ?2, ?3, ?4)";

pub(super) struct Writer {
    options: SqliteOptions,
    shared: Arc<Shared>,
    open: Option<Open>,
}

/// An open database and what is known of it.
struct Open {
    connection: Connection,
    state: State,
}

#[derive(Default)]
struct State {
    /// The number of the next entry.
    next: i64,
    shard: u16,
    /// The number of the shard's first entry.
    shard_first: i64,
    last_ms: i64,
    filling: Filling,
    /// Numbers of the actions' counters that have not arrived.
    missing: i64,
}

/// What a group did, told once it is durable.
#[derive(Default)]
struct Tally {
    new: [u64; 3],
    known: u64,
    conflicts: Vec<(Position, NewEntry)>,
}

impl Writer {
    pub(super) fn new(options: SqliteOptions, shared: Arc<Shared>) -> Self {
        Self { options, shared, open: None }
    }

    pub(super) fn options(&self) -> &SqliteOptions {
        &self.options
    }

    /// Opens the database.
    pub(super) fn open(&mut self) -> Result<(), LogError> {
        let open = Open::new(&self.options).map_err(|error| self.explained(error))?;
        self.shared.set_missing(open.state.missing);
        self.open = Some(open);
        Ok(())
    }

    /// Appends the calls of a group in order, all or none, and says for each of their entries what became of it.
    pub(super) fn append(&mut self, group: &[Vec<NewEntry>]) -> Result<Vec<Vec<Appended>>, LogError> {
        let started = Instant::now();
        let result = self.try_append(group);
        match &result {
            Err(error) => {
                // What it remembers may be of the failed group.
                self.open = None;
                // The database is well; who brought the entries says what became of them.
                if !matches!(error, LogError::Refused { .. }) {
                    self.shared.fail(error);
                }
            }
            Ok(_) => self.shared.succeed(),
        }
        let (outcomes, tally) = result?;
        metrics::committed(started.elapsed(), &tally.new, tally.known);
        for (position, entry) in &tally.conflicts {
            let reading = crate::reading::Reading::of(&entry.bytes).unwrap_or_default();
            tracing::error!(
                entry = %position, source = %reading.source, id = %reading.id, topic = %entry.topic,
                "an event contradicts an earlier one of the same source and id; both are kept"
            );
        }
        Ok(outcomes)
    }

    fn try_append(&mut self, group: &[Vec<NewEntry>]) -> Result<(Vec<Vec<Appended>>, Tally), LogError> {
        if self.open.is_none() {
            self.open()?;
        }
        let Some(open) = &mut self.open else {
            return Err(LogError::Closed);
        };
        let now_ms = (self.options.clock)();
        let done = open.append(group, now_ms);
        self.shared.set_missing(open.state.missing);
        done.map_err(|error| self.explained(error))
    }

    fn explained(&self, error: rusqlite::Error) -> LogError {
        schema::explain(&self.options.path, error)
    }
}

impl Open {
    fn new(options: &SqliteOptions) -> rusqlite::Result<Self> {
        let connection = schema::writing(&options.path, options.cache_kib, options.pages_max.load(Ordering::Relaxed))?;
        let mut state = State::default();
        let last = connection.query_row("SELECT n, logged_ms FROM entry ORDER BY n DESC LIMIT 1", [], |row| Ok((row.get(0)?, row.get(1)?)));
        if let Some((n, logged_ms)) = last.optional()? {
            let _: i64 = n;
            (state.next, state.last_ms) = (n + 1, logged_ms);
        }
        let shard =
            connection.query_row("SELECT shard, first_n FROM shard ORDER BY shard DESC LIMIT 1", [], |row| Ok((row.get(0)?, row.get(1)?)));
        if let Some(shard) = shard.optional()? {
            (state.shard, state.shard_first) = shard;
        }
        state.missing = connection.query_row("SELECT coalesce(sum(max(highest - arrived, 0)), 0) FROM epoch", [], |row| row.get(0))?;
        Ok(Self { connection, state })
    }

    fn append(&mut self, group: &[Vec<NewEntry>], now_ms: i64) -> rusqlite::Result<(Vec<Vec<Appended>>, Tally)> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut outcomes = Vec::with_capacity(group.len());
        let mut tally = Tally::default();
        // The clock may go back; the log's time does not.
        self.state.last_ms = self.state.last_ms.max(now_ms);
        self.state.open_shard(&transaction)?;
        {
            let mut appending = Appending::new(&transaction, &mut self.state)?;
            for call in group {
                let mut outcome = Vec::with_capacity(call.len());
                for entry in call {
                    outcome.push(appending.append(entry, &mut tally)?);
                }
                outcomes.push(outcome);
            }
        }
        transaction.commit()?;
        Ok((outcomes, tally))
    }
}

impl State {
    /// A year that begins opens a shard.
    fn open_shard(&mut self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        let year = Timestamp::from_millisecond(self.last_ms).map_or(0, |time| Offset::UTC.to_datetime(time).year());
        let year = u16::try_from(year).unwrap_or(0);
        if self.next == 0 && self.shard == 0 || year > self.shard {
            transaction.execute("INSERT INTO shard (shard, first_n) VALUES (?1, ?2)", params![year, self.next])?;
            (self.shard, self.shard_first) = (year, self.next);
        }
        Ok(())
    }

    fn position(&self, n: i64) -> Position {
        Position { shard: self.shard, index: u64::try_from(n - self.shard_first).unwrap_or(0) }
    }
}

/// A transaction's statements, prepared once.
struct Appending<'a> {
    state: &'a mut State,
    insert: CachedStatement<'a>,
    same_key: CachedStatement<'a>,
    facet: CachedStatement<'a>,
    epoch: CachedStatement<'a>,
    set_epoch: CachedStatement<'a>,
}

impl<'a> Appending<'a> {
    fn new(transaction: &'a Transaction<'_>, state: &'a mut State) -> rusqlite::Result<Self> {
        Ok(Self {
            state,
            insert: transaction.prepare_cached(INSERT)?,
            same_key: transaction.prepare_cached(SAME_KEY)?,
            facet: transaction.prepare_cached(blocks::INSERT)?,
            epoch: transaction.prepare_cached(EPOCH)?,
            set_epoch: transaction.prepare_cached(SET_EPOCH)?,
        })
    }

    fn append(&mut self, entry: &NewEntry, tally: &mut Tally) -> rusqlite::Result<Appended> {
        if let Some(position) = self.insert(entry)? {
            tally.new[entry.kind as usize] += 1;
            return Ok(Appended::New(position));
        }
        let (sha256, stored): ([u8; 32], Vec<u8>) = self.same_key.query_row([&entry.key.0[..]], |row| Ok((row.get(0)?, row.get(1)?)))?;
        if sha256 != entry.sha256 && content_digest(&stored) != content_digest(&entry.bytes) {
            let conflict = entry.clone().into_conflict();
            if let Some(position) = self.insert(&conflict)? {
                tally.new[Kind::Conflict as usize] += 1;
                tally.conflicts.push((position, conflict));
                return Ok(Appended::Conflict(position));
            }
        }
        tally.known += 1;
        Ok(Appended::Known)
    }

    /// Inserts an entry unless its key is there.
    fn insert(&mut self, entry: &NewEntry) -> rusqlite::Result<Option<Position>> {
        let n = self.state.next;
        let inserted = self.insert.execute(params![
            n,
            entry.kind as i64,
            self.state.last_ms,
            entry.partition,
            entry.offset,
            &entry.key.0[..],
            entry.task,
            &*entry.topic,
            &entry.sha256[..],
            &entry.bytes[..],
        ])?;
        if inserted == 0 {
            return Ok(None);
        }
        self.state.next += 1;
        self.state.filling.note(&mut self.facet, n, &entry.facets)?;
        if let Some(counted) = &entry.counted {
            self.count(counted)?;
        }
        Ok(Some(self.state.position(n)))
    }

    /// Notes a number of a counter that starts at 1: as many are missing as the highest exceeds those that arrived.
    fn count(&mut self, counted: &Counted) -> rusqlite::Result<()> {
        let Counted { source, epoch, sequence } = counted;
        let before = self.epoch.query_row(params![source, epoch], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        let (highest, arrived): (i64, i64) = before.unwrap_or((0, 0));
        let after = (highest.max(i64::try_from(*sequence).unwrap_or(i64::MAX)), arrived + 1);
        self.set_epoch.execute(params![source, epoch, after.0, after.1])?;
        // A publisher that repeats a number must not hide another's hole.
        self.state.missing += (after.0 - after.1).max(0) - (highest - arrived).max(0);
        Ok(())
    }
}

/// An id as its 16 bytes, a name as text.
impl ToSql for Task {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Id(id) => ValueRef::Blob(id.as_bytes()),
            Self::Named(name) => ValueRef::Text(name.as_bytes()),
        }))
    }
}
