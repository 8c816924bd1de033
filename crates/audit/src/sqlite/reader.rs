//! Those who read: entries by place, by task, by time, and by what they say. One snapshot for each answer, and bounded work for each page.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fte_events::TENANT;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, params};
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::blocks::{self, BLOCK_BITS, Field, block_of, indexed};
use super::schema;
use crate::entry::{Entry, Kind, Position, Task};
use crate::log::{LogError, Page, Query};
use crate::reading::Reading;

/// Most entries and blocks that are looked at for a page.
const STEPS_MAX: usize = 50_000;
/// A page is closed once its events have this many bytes.
const PAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Longest wait for a connection.
const WAIT_MAX: Duration = Duration::from_secs(10);

const COLUMNS: &str = "n, kind, logged_ms, partition, offset, task, topic, sha256, event";

/// A few connections, opened when they are needed and kept.
pub(super) struct Readers {
    path: PathBuf,
    free: Semaphore,
    idle: Arc<Mutex<Vec<Connection>>>,
}

impl Readers {
    pub(super) fn new(path: PathBuf, readers_max: usize) -> Self {
        Self { path, free: Semaphore::new(readers_max), idle: Arc::default() }
    }

    /// Runs `read` on a thread that may block.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, LogError> {
        let waited = tokio::time::timeout(WAIT_MAX, self.free.acquire()).await;
        let Ok(Ok(_permit)) = waited else {
            return Err(schema::explain(&self.path, schema::failure(rusqlite::ffi::SQLITE_BUSY)));
        };
        let (path, idle) = (self.path.clone(), Arc::clone(&self.idle));
        let reading = tokio::task::spawn_blocking(move || {
            let kept = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let connection = kept.map_or_else(|| schema::reading(&path), Ok)?;
            let result = read(&connection);
            if result.is_ok() {
                idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            }
            result
        });
        match reading.await {
            Ok(result) => result.map_err(|error| schema::explain(&self.path, error)),
            Err(_) => Err(LogError::Closed),
        }
    }
}

/// Where each shard begins.
struct Shards(Vec<(u16, i64)>);

impl Shards {
    fn load(connection: &Connection) -> rusqlite::Result<Self> {
        let mut statement = connection.prepare_cached("SELECT shard, first_n FROM shard ORDER BY shard")?;
        let shards = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        shards.collect::<rusqlite::Result<_>>().map(Self)
    }

    fn position(&self, n: i64) -> Position {
        let (shard, first) = self.0.iter().rev().find(|(_, first)| *first <= n).copied().unwrap_or((0, 0));
        Position { shard, index: u64::try_from(n - first).unwrap_or(0) }
    }

    /// The number that the entry at a place has or would have, and where its shard ends.
    fn number(&self, at: Position) -> Option<(i64, i64)> {
        let place = self.0.iter().position(|(shard, _)| *shard == at.shard)?;
        let end = self.0.get(place + 1).map_or(i64::MAX, |(_, first)| *first);
        Some((i64::try_from(at.index).ok()?.checked_add(self.0[place].1)?, end))
    }

    /// The first number after a place, which need not be taken.
    fn after(&self, at: Position) -> i64 {
        match self.number(at) {
            Some((n, end)) => n.saturating_add(1).min(end),
            None => self.0.iter().find(|(shard, _)| *shard > at.shard).map_or(i64::MAX, |(_, first)| *first),
        }
    }
}

pub(super) fn entry(connection: &Connection, at: Position) -> rusqlite::Result<Option<Entry>> {
    let snapshot = connection.unchecked_transaction()?;
    let shards = Shards::load(&snapshot)?;
    let Some((n, _)) = shards.number(at).filter(|(n, end)| n < end) else {
        return Ok(None);
    };
    let mut statement = snapshot.prepare_cached(&format!("SELECT {COLUMNS} FROM entry WHERE n = ?1"))?;
    statement.query_row([n], |row| read_entry(row, &shards)).optional()
}

pub(super) fn entries(connection: &Connection, query: &Query) -> rusqlite::Result<Page> {
    let snapshot = connection.unchecked_transaction()?;
    let shards = Shards::load(&snapshot)?;
    let end = snapshot.query_row("SELECT max(n) FROM entry", [], |row| row.get::<_, Option<i64>>(0))?.map_or(0, |last| last + 1);
    let mut from = query.after.map_or(0, |at| shards.after(at)).min(end);
    let mut to = end;
    if let Some(from_ms) = query.from_ms {
        from = from.max(first_since(&snapshot, from_ms, end)?);
    }
    if let Some(to_ms) = query.to_ms {
        to = first_since(&snapshot, to_ms, end)?;
    }
    let mut scan = Scan { query, shards: &shards, to, page: Page::default(), bytes: 0, steps: 0 };
    // What ends a scan early has set where to go on.
    let _ = match (&query.task, blocks::filters(query).as_slice()) {
        (Some(task), _) => scan.task(&snapshot, task, from)?,
        (None, []) => scan.range(&snapshot, from, to)?,
        (None, filters) => scan.blocks(&snapshot, filters, from)?,
    };
    Ok(scan.page)
}

/// The number of the first entry logged at or after a time; `end` if there is none. Numbers are in order of time.
fn first_since(connection: &Connection, time_ms: i64, end: i64) -> rusqlite::Result<i64> {
    let mut statement = connection.prepare_cached("SELECT logged_ms FROM entry WHERE n = ?1")?;
    let (mut low, mut high) = (0, end);
    while low < high {
        let middle = low + (high - low) / 2;
        let logged_ms: i64 = statement.query_row([middle], |row| row.get(0))?;
        if logged_ms < time_ms {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

type Step = rusqlite::Result<ControlFlow<()>>;

/// The making of a page.
struct Scan<'a> {
    query: &'a Query,
    shards: &'a Shards,
    /// The scan ends before this number.
    to: i64,
    page: Page,
    bytes: usize,
    steps: usize,
}

impl Scan<'_> {
    fn task(&mut self, connection: &Connection, task: &Task, from: i64) -> Step {
        let sql = format!("SELECT {COLUMNS} FROM entry WHERE task = ?1 AND n >= ?2 AND n < ?3 ORDER BY n");
        let mut statement = connection.prepare_cached(&sql)?;
        let mut rows = statement.query(params![task, from, self.to])?;
        self.rows(&mut rows)
    }

    fn range(&mut self, connection: &Connection, from: i64, to: i64) -> Step {
        let mut statement = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM entry WHERE n >= ?1 AND n < ?2 ORDER BY n"))?;
        let mut rows = statement.query(params![from, to])?;
        self.rows(&mut rows)
    }

    /// Looks only into blocks in which every filter's value occurs.
    fn blocks(&mut self, connection: &Connection, filters: &[(Field, &str)], from: i64) -> Step {
        let mut candidates = connection
            .prepare_cached("SELECT block FROM facet WHERE field = ?1 AND value = ?2 AND block >= ?3 AND block <= ?4 ORDER BY block")?;
        let mut occurs = connection.prepare_cached("SELECT 1 FROM facet WHERE field = ?1 AND value = ?2 AND block = ?3")?;
        let (field, value) = filters[0];
        let mut candidates = candidates.query(params![field as i64, indexed(value), block_of(from), block_of(self.to)])?;
        while let Some(row) = candidates.next()? {
            let block: i64 = row.get(0)?;
            let (first, end) = (block << BLOCK_BITS, (block + 1) << BLOCK_BITS);
            let mut all = true;
            for (field, value) in &filters[1..] {
                all = all && occurs.exists(params![*field as i64, indexed(value), block])?;
            }
            let flow = if all { self.range(connection, from.max(first), self.to.min(end))? } else { self.step(end - 1) };
            if flow.is_break() {
                return Ok(flow);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn rows(&mut self, rows: &mut rusqlite::Rows<'_>) -> Step {
        while let Some(row) = rows.next()? {
            let n = row.get(0)?;
            if self.is_wanted(row)? {
                let entry = read_entry(row, self.shards)?;
                self.bytes += entry.bytes.len();
                self.page.entries.push(entry);
            }
            if self.step(n).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Everything up to entry `n` was looked at: is the page full, or enough done for one?
    fn step(&mut self, n: i64) -> ControlFlow<()> {
        self.steps += 1;
        let is_full = self.page.entries.len() >= self.query.limit || self.bytes >= PAGE_BYTES_MAX || self.steps >= STEPS_MAX;
        if !is_full {
            return ControlFlow::Continue(());
        }
        if n + 1 < self.to {
            self.page.next = Some(self.shards.position(n));
        }
        ControlFlow::Break(())
    }

    fn is_wanted(&self, row: &Row<'_>) -> rusqlite::Result<bool> {
        let Query { agent, action, actor, outcome, tenant, .. } = self.query;
        let is = |filter: &Option<String>, value: Option<&str>| filter.is_none() || filter.as_deref() == value;
        let words = [agent, action, actor, outcome].into_iter().any(Option::is_some);
        if !words && tenant.is_none() {
            return Ok(true);
        }
        let Some(reading) = Reading::of(row.get_ref(8)?.as_blob()?) else {
            return Ok(!words && is(tenant, Some(TENANT)));
        };
        Ok(is(tenant, Some(reading.tenant()))
            && is(agent, reading.agent())
            && (is(action, reading.action()) || is(action, Some(&reading.event_type)))
            && is(actor, reading.actor())
            && is(outcome, reading.outcome()))
    }
}

fn read_entry(row: &Row<'_>, shards: &Shards) -> rusqlite::Result<Entry> {
    let kind = Kind::ALL.get(usize::from(row.get::<_, u8>(1)?)).copied().unwrap_or(Kind::Unparsed);
    Ok(Entry {
        position: shards.position(row.get(0)?),
        kind,
        logged_ms: row.get(2)?,
        partition: row.get(3)?,
        offset: row.get(4)?,
        task: row.get(5)?,
        topic: row.get(6)?,
        sha256: row.get(7)?,
        bytes: row.get(8)?,
    })
}

impl FromSql for Task {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value {
            ValueRef::Blob(bytes) => Uuid::from_slice(bytes).map(Self::Id).map_err(|error| FromSqlError::Other(Box::new(error))),
            ValueRef::Text(_) => value.as_str().map(|name| Self::Named(name.into())),
            _ => Err(FromSqlError::InvalidType),
        }
    }
}
