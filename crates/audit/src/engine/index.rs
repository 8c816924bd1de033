//! The index: which entry has an identity, which are of a task, where a value occurs. All of it is a function of the entries' headers in log order, so it
//! can be deleted and made again, and compared with the log by who has no key.
//!
//! By agent, action, actor, outcome and tenant entries are found through the bundles that they are in: `facet` has a row for each value in a bundle's 256
//! entries, so a bundle costs a dozen rows and not a thousand, and a query for a rare value reads only the bundles it is in. An index row for each
//! field of each entry doubles the cost of writing; that was the other way.
//!
//! Every statement runs in a transaction that ends when its entries are durable: the index is never ahead of the log.

pub(crate) mod compare;
pub(super) mod schema;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use super::retiring::record_id;
use crate::entry::leaf::{Header, Kind};
use crate::entry::mark::Mark;
use crate::entry::{Key, Position, Task};

const INDEX_BITS: u32 = 44;
/// Entries of a block, as a power of two: those of a bundle.
pub(super) const BLOCK_BITS: u32 = 8;
/// Tasks whose next number is remembered.
const RECENT_MAX: usize = 16_384;

/// A place as one number, in log order.
pub(super) fn pos_of(at: Position) -> i64 {
    i64::from(at.shard) << INDEX_BITS | i64::try_from(at.index).unwrap_or(i64::MAX) & ((1 << INDEX_BITS) - 1)
}

pub(super) fn position_of(pos: i64) -> Position {
    Position { shard: u16::try_from(pos >> INDEX_BITS).unwrap_or(0), index: u64::try_from(pos & ((1 << INDEX_BITS) - 1)).unwrap_or(0) }
}

/// A field that is looked for. The numbers are those in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Agent = 1,
    Action = 2,
    Actor = 3,
    Outcome = 4,
    Tenant = 5,
}

/// Numbers of a counter that have not arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Missing {
    pub(super) source: String,
    pub(super) epoch: String,
    pub(super) first: u64,
    pub(super) last: u64,
}

/// What is remembered of a task.
#[derive(Clone, Default)]
struct Recent {
    next: u64,
    closed: bool,
    /// Whose it is, where its first entry was met by this process.
    tenant: Option<Arc<str>>,
}

/// How far a part of a topic has come.
struct Place {
    highest: i64,
    is_stored: bool,
}

/// The writing side.
pub(super) struct Index {
    connection: Connection,
    /// Values that the block being filled has a row of.
    block: i64,
    seen: Vec<(Field, Box<str>)>,
    recent: HashMap<Task, Recent>,
    /// By topic and part. Written once in a group, not once for each entry.
    places: HashMap<Box<str>, HashMap<i32, Place>>,
    /// Numbers of counters that have not arrived.
    pub(super) missing: i64,
    /// The first shard of a log whose earlier ones are retired: there counters may begin anywhere.
    behind: Option<Behind>,
    in_group: bool,
}

/// The first shard that is left, until the log says that the one before it is retired.
struct Behind {
    shard: u16,
    /// The id of the entry that says so.
    until: String,
}

type Result<T> = rusqlite::Result<T>;

impl Index {
    pub(super) fn open(path: &Path, cache_kib: u32) -> Result<Self> {
        let connection = schema::writing(path, cache_kib)?;
        let missing = connection.query_row("SELECT coalesce(sum(last - first + 1), 0) FROM gap", [], |row| row.get(0))?;
        let mut places: HashMap<Box<str>, HashMap<i32, Place>> = HashMap::new();
        {
            let mut statement = connection.prepare("SELECT topic, part, highest FROM place")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                places.entry(row.get(0)?).or_default().insert(row.get(1)?, Place { highest: row.get(2)?, is_stored: true });
            }
        }
        Ok(Self { connection, block: -1, seen: Vec::new(), recent: HashMap::new(), places, missing, behind: None, in_group: false })
    }

    /// Whether it has entries before a shard.
    pub(super) fn begins_before(&self, shard: u16) -> Result<bool> {
        let first: Option<i64> = self.connection.query_row("SELECT min(block) FROM block", [], |row| row.get(0))?;
        Ok(first.is_some_and(|block| block < pos_of(Position { shard, index: 0 }) >> BLOCK_BITS))
    }

    /// What was before a shard is retired: a counter whose first number it has may have had others. That is so until the retirement is on record, since who
    /// counts from then on has begun after it. Numbers that a process lost at its very beginning in such a year are not missed any more; and of a process that began
    /// before that year, and recorded nothing in all of it, those before its next one are.
    pub(super) fn begin_behind(&mut self, shard: u16, before: u16) {
        self.behind = Some(Behind { shard, until: record_id(before) });
    }

    /// One that nobody will look for after a crash.
    fn scratch(path: &Path, cache_kib: u32) -> Result<Self> {
        let index = Self::open(path, cache_kib)?;
        index.connection.pragma_update(None, "journal_mode", "OFF")?;
        index.connection.pragma_update(None, "synchronous", "OFF")?;
        Ok(index)
    }

    /// Ends with everything in one file, which can be moved.
    pub(super) fn close(self) -> Result<()> {
        self.connection.pragma_update(None, "journal_mode", "DELETE")
    }

    /// The last entry it knows and the hash of its leaf.
    pub(super) fn done(&self) -> Result<Option<(Position, [u8; 32])>> {
        let row = self.connection.query_row("SELECT pos, hash FROM done", [], |row| Ok((row.get::<_, i64>(0)?, row.get(1)?)));
        Ok(row.optional()?.map(|(pos, hash)| (position_of(pos), hash)))
    }

    /// Begins a group: what is applied from here on counts once it is committed.
    pub(super) fn begin(&mut self) -> Result<()> {
        self.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        self.in_group = true;
        Ok(())
    }

    /// Commits the group; `last` is its last entry and the hash of that one's leaf, if it has entries.
    pub(super) fn commit(&mut self, last: Option<(Position, [u8; 32])>) -> Result<()> {
        if let Some((at, hash)) = last {
            let mut statement = self.connection.prepare_cached("INSERT OR REPLACE INTO done (one, pos, hash) VALUES (0, ?1, ?2)")?;
            statement.execute(params![pos_of(at), hash])?;
        }
        self.store_places()?;
        self.connection.prepare_cached("COMMIT")?.execute([])?;
        self.in_group = false;
        Ok(())
    }

    pub(super) fn find(&self, key: &Key) -> Result<Option<Position>> {
        let mut statement = self.connection.prepare_cached("SELECT pos FROM identity WHERE key = ?1")?;
        Ok(statement.query_row([&key.0[..]], |row| row.get(0)).optional()?.map(position_of))
    }

    /// The number that a task's next entry gets.
    pub(super) fn next_seq(&mut self, task: &Task) -> Result<u64> {
        Ok(self.recent(task)?.next)
    }

    /// Whose a task is, if it is known without its first entry.
    pub(super) fn tenant(&self, task: &Task) -> Option<&str> {
        self.recent.get(task)?.tenant.as_deref()
    }

    fn recent(&mut self, task: &Task) -> Result<Recent> {
        if let Some(recent) = self.recent.get(task) {
            return Ok(recent.clone());
        }
        let mut statement = self.connection.prepare_cached("SELECT seq, mark FROM task WHERE task = ?1 ORDER BY seq DESC LIMIT 1")?;
        let last = statement.query_row([task], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))).optional()?;
        let recent = last.map_or_else(Recent::default, |(seq, mark)| Recent {
            next: u64::try_from(seq + 1).unwrap_or(0),
            closed: Mark::from_number(mark) == Mark::Closed,
            tenant: None,
        });
        Ok(recent)
    }

    /// Whether the log has met a later record of this part of a topic.
    pub(super) fn is_behind(&self, topic: &str, partition: Option<i32>, offset: Option<i64>) -> bool {
        let (Some(partition), Some(offset)) = (partition, offset) else { return false };
        self.places.get(topic).and_then(|parts| parts.get(&partition)).is_some_and(|place| offset <= place.highest)
    }

    /// Takes the next entry in. A number that arrives after its gap was logged is given back: a `gap_filled` is due.
    pub(super) fn apply(&mut self, header: &Header<'_>, at: Position) -> Result<Option<Missing>> {
        let pos = pos_of(at);
        if let Some(key) = self.key_of(header)? {
            let mut statement = self.connection.prepare_cached("INSERT INTO identity (key, pos) VALUES (?1, ?2)")?;
            statement.execute(params![&key.0[..], pos])?;
        }
        self.apply_facets(header, pos)?;
        if let (Some(topic), Some(partition), Some(offset)) = (header.topic.as_deref(), header.partition, header.offset) {
            self.apply_place(topic, partition, offset);
        }
        if let (Some(task), Some(seq)) = (header.task.as_deref(), header.task_seq) {
            self.apply_task(header, &Task::from(task), seq, pos)?;
        }
        match header.kind {
            Kind::Event => match (header.source.as_deref(), header.epoch.as_deref(), header.sequence) {
                (Some(source), Some(epoch), Some(number)) => self.apply_number(
                    source,
                    epoch,
                    number,
                    header.logged_time,
                    self.behind.as_ref().is_some_and(|behind| behind.shard == at.shard),
                ),
                _ => Ok(None),
            },
            Kind::Gap => {
                let mut statement =
                    self.connection.prepare_cached("UPDATE gap SET logged = ?4 WHERE source = ?1 AND epoch = ?2 AND first = ?3")?;
                statement.execute(params![header.actor, header.epoch, header.sequence.map(signed), pos])?;
                Ok(None)
            }
            Kind::GapFilled => {
                let mut statement =
                    self.connection.prepare_cached("INSERT INTO filled (pos, source, epoch, number) VALUES (?1, ?2, ?3, ?4)")?;
                statement.execute(params![pos, header.actor, header.epoch, header.sequence.map(signed)])?;
                Ok(None)
            }
            Kind::ShardRetired => {
                // A year may also have the records of years long before the one that it continues.
                self.behind.take_if(|behind| header.id.as_deref() == Some(&*behind.until));
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    /// What the entry will be recognised by. Contradictions of one event are numbered in log order.
    fn key_of(&self, header: &Header<'_>) -> Result<Option<Key>> {
        let (Kind::Conflict, Some(source), Some(id)) = (header.kind, header.source.as_deref(), header.id.as_deref()) else {
            return Ok(Key::of_header(header));
        };
        Ok(Some(Key::of_conflict(source, id, self.contradictions(source, id)?)))
    }

    /// How many contradictions of an event there are. They are numbered without a gap from 0, so the end is found by halves.
    pub(super) fn contradictions(&self, source: &str, id: &str) -> Result<u64> {
        let is_there = |ordinal| Ok::<_, rusqlite::Error>(self.find(&Key::of_conflict(source, id, ordinal))?.is_some());
        if !is_there(0)? {
            return Ok(0);
        }
        let (mut there, mut end) = (0, 1);
        while is_there(end)? {
            (there, end) = (end, end.saturating_mul(2));
        }
        while end - there > 1 {
            let middle = there + (end - there) / 2;
            if is_there(middle)? { there = middle } else { end = middle }
        }
        Ok(end)
    }

    fn apply_facets(&mut self, header: &Header<'_>, pos: i64) -> Result<()> {
        let block = pos >> BLOCK_BITS;
        if self.block != block {
            self.block = block;
            self.seen.clear();
            let mut statement = self.connection.prepare_cached("INSERT OR IGNORE INTO block (block, first_ms) VALUES (?1, ?2)")?;
            statement.execute(params![block, header.logged_time])?;
        }
        let mut insert = self.connection.prepare_cached("INSERT OR IGNORE INTO facet (field, value, block) VALUES (?1, ?2, ?3)")?;
        for (field, value) in facets(header) {
            if !self.seen.iter().any(|(seen_field, seen)| *seen_field == field && **seen == *value) {
                insert.execute(params![field as i64, value, block])?;
                self.seen.push((field, value.into()));
            }
        }
        Ok(())
    }

    fn apply_place(&mut self, topic: &str, partition: i32, offset: i64) {
        if !self.places.contains_key(topic) {
            self.places.insert(topic.into(), HashMap::new());
        }
        let Some(parts) = self.places.get_mut(topic) else { return };
        let place = parts.entry(partition).or_insert(Place { highest: i64::MIN, is_stored: true });
        if offset > place.highest {
            *place = Place { highest: offset, is_stored: false };
        }
    }

    fn store_places(&mut self) -> Result<()> {
        let mut statement = self.connection.prepare_cached("INSERT OR REPLACE INTO place (topic, part, highest) VALUES (?1, ?2, ?3)")?;
        for (topic, parts) in &mut self.places {
            for (part, place) in parts.iter_mut().filter(|(_, place)| !place.is_stored) {
                statement.execute(params![topic, part, place.highest])?;
                place.is_stored = true;
            }
        }
        Ok(())
    }

    fn apply_task(&mut self, header: &Header<'_>, task: &Task, seq: u64, pos: i64) -> Result<()> {
        let mark = Mark::of(header);
        let before = self.recent(task)?;
        let number = header.sequence.filter(|_| mark == Mark::Status).map(signed);
        let mut statement =
            self.connection.prepare_cached("INSERT INTO task (task, seq, pos, mark, number) VALUES (?1, ?2, ?3, ?4, ?5)")?;
        statement.execute(params![task, signed(seq), pos, mark as i64, number])?;
        if mark == Mark::Closed {
            self.connection.prepare_cached("DELETE FROM closing WHERE task = ?1")?.execute([task])?;
        } else if mark == Mark::Result || before.closed {
            let mut statement = self.connection.prepare_cached("INSERT OR REPLACE INTO closing (task, since_ms) VALUES (?1, ?2)")?;
            statement.execute(params![task, header.logged_time])?;
        }
        if self.recent.len() >= RECENT_MAX {
            self.recent.clear();
        }
        let tenant = if seq == 0 { Some(header.tenant.as_deref().unwrap_or(fte_events::TENANT).into()) } else { before.tenant };
        self.recent.insert(task.clone(), Recent { next: seq + 1, closed: mark == Mark::Closed, tenant });
        Ok(())
    }

    /// Notes a number of a counter that starts at 1. Whoever repeats a number hides no other's hole.
    fn apply_number(&mut self, source: &str, epoch: &str, number: u64, now_ms: i64, is_behind: bool) -> Result<Option<Missing>> {
        let number = signed(number);
        let mut statement = self.connection.prepare_cached("SELECT highest FROM epoch WHERE source = ?1 AND epoch = ?2")?;
        let highest: Option<i64> = statement.query_row(params![source, epoch], |row| row.get(0)).optional()?;
        let highest = highest.unwrap_or(if is_behind { number - 1 } else { 0 });
        let mut insert = self
            .connection
            .prepare_cached("INSERT OR REPLACE INTO gap (source, epoch, first, last, seen_ms, logged) VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
        if number > highest {
            let mut statement =
                self.connection.prepare_cached("INSERT OR REPLACE INTO epoch (source, epoch, highest) VALUES (?1, ?2, ?3)")?;
            statement.execute(params![source, epoch, number])?;
            if number > highest + 1 {
                insert.execute(params![source, epoch, highest + 1, number - 1, now_ms, None::<i64>])?;
                self.missing += number - highest - 1;
            }
            return Ok(None);
        }
        let mut statement = self.connection.prepare_cached(
            "SELECT first, last, seen_ms, logged FROM gap WHERE source = ?1 AND epoch = ?2 AND first <= ?3 ORDER BY first DESC LIMIT 1",
        )?;
        let gap = statement
            .query_row(params![source, epoch, number], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get::<_, Option<i64>>(3)?)));
        let Some((first, last, seen_ms, logged)) = gap.optional()?.filter(|(_, last, ..): &(i64, i64, i64, _)| number <= *last) else {
            return Ok(None);
        };
        self.connection
            .prepare_cached("DELETE FROM gap WHERE source = ?1 AND epoch = ?2 AND first = ?3")?
            .execute(params![source, epoch, first])?;
        for (first, last) in [(first, number - 1), (number + 1, last)] {
            if first <= last {
                insert.execute(params![source, epoch, first, last, seen_ms, logged])?;
            }
        }
        self.missing -= 1;
        let number = u64::try_from(number).unwrap_or(0);
        Ok(logged.map(|_| Missing { source: source.to_owned(), epoch: epoch.to_owned(), first: number, last: number }))
    }

    /// Tasks that have ended or got a late entry, and nothing since `before_ms`.
    pub(super) fn closing(&self, before_ms: i64, limit: usize) -> Result<Vec<Task>> {
        let mut statement = self.connection.prepare_cached("SELECT task FROM closing WHERE since_ms <= ?1 ORDER BY since_ms LIMIT ?2")?;
        let tasks = statement.query_map(params![before_ms, signed(limit as u64)], |row| row.get(0))?;
        tasks.collect()
    }

    /// When the first of the tasks that are to be closed had its last entry.
    pub(super) fn closing_since(&self) -> Result<Option<i64>> {
        self.connection.prepare_cached("SELECT min(since_ms) FROM closing")?.query_row([], |row| row.get(0))
    }

    /// Gaps that were seen at `before_ms` or earlier and are not logged.
    pub(super) fn gaps_due(&self, before_ms: i64, limit: usize) -> Result<Vec<Missing>> {
        let mut statement =
            self.connection.prepare_cached("SELECT source, epoch, first, last FROM gap WHERE logged IS NULL AND seen_ms <= ?1 LIMIT ?2")?;
        let gaps = statement.query_map(params![before_ms, signed(limit as u64)], read_missing)?;
        gaps.collect()
    }

    pub(super) fn gap_since(&self) -> Result<Option<i64>> {
        self.connection.prepare_cached("SELECT min(seen_ms) FROM gap WHERE logged IS NULL")?.query_row([], |row| row.get(0))
    }

    /// The first entry of a task.
    pub(super) fn first_of(&self, task: &Task) -> Result<Option<Position>> {
        let mut statement = self.connection.prepare_cached("SELECT pos FROM task WHERE task = ?1 ORDER BY seq LIMIT 1")?;
        Ok(statement.query_row([task], |row| row.get(0)).optional()?.map(position_of))
    }

    /// What a task's marks say of its life.
    pub(super) fn life(&self, task: &Task) -> Result<Life> {
        let mut statement = self.connection.prepare_cached("SELECT mark, number, seq FROM task WHERE task = ?1 ORDER BY seq LIMIT ?2")?;
        let mut rows = statement.query(params![task, signed(LIFE_MAX)])?;
        let mut life = Life::default();
        let mut is_first = true;
        while let Some(row) = rows.next()? {
            if std::mem::take(&mut is_first) {
                life.retired = u64::try_from(row.get::<_, i64>(2)?).unwrap_or(0);
            }
            life.observe(Mark::from_number(row.get(0)?), row.get::<_, Option<i64>>(1)?.and_then(|number| u64::try_from(number).ok()));
        }
        Ok(life)
    }
}

/// Entries of a task that are looked at when it is closed.
const LIFE_MAX: u64 = 100_000;

/// A task's history without its contents, which may be sealed: whether it ended in a final status, and which sandbox was given back, [`crate::history`] sees.
#[derive(Debug, Default)]
pub(super) struct Life {
    /// So many entries at its beginning were in shards that are retired.
    retired: u64,
    triggered: bool,
    sequences: std::collections::BTreeSet<u64>,
    results: usize,
    claimed: usize,
    ended: usize,
}

impl Life {
    fn observe(&mut self, mark: Mark, number: Option<u64>) {
        match mark {
            Mark::Trigger => self.triggered = true,
            Mark::Status => self.sequences.extend(number),
            Mark::Result => self.results += 1,
            Mark::Claimed => self.claimed += 1,
            Mark::Ended => self.ended += 1,
            Mark::Other | Mark::Closed => {}
        }
    }

    /// What a whole history would have and this one has not; in words that are codes.
    pub(super) fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        // What the rest lacks may have been there.
        if self.retired > 0 {
            return vec![format!("retired: the first {} entries", self.retired)];
        }
        if !self.triggered {
            missing.push("trigger".to_owned());
        }
        if self.results != 1 {
            missing.push(format!("results: {} instead of 1", self.results));
        }
        if self.claimed != self.ended {
            missing.push(format!("sandboxes: {} claimed, {} given back", self.claimed, self.ended));
        }
        let mut expected = 1;
        for sequence in &self.sequences {
            if *sequence > expected && missing.len() < 20 {
                missing.push(format!("status changes {expected} to {}", sequence - 1));
            }
            expected = sequence.saturating_add(1);
        }
        missing
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        if self.in_group {
            // Whatever the group was, it is not in the log.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
    }
}

/// What an entry is found by.
pub(super) fn facets<'a>(header: &'a Header<'_>) -> impl Iterator<Item = (Field, &'a str)> {
    [
        (Field::Agent, header.agent.as_deref()),
        (Field::Action, header.action.as_deref()),
        (Field::Action, header.event_type.as_deref()),
        // The log's own entries are found by what they are.
        (Field::Action, (!header.kind.is_received()).then(|| header.kind.as_str())),
        (Field::Actor, header.actor.as_deref()),
        (Field::Outcome, header.outcome.as_deref()),
        (Field::Tenant, header.tenant.as_deref()),
    ]
    .into_iter()
    .filter_map(|(field, value)| Some((field, value?)))
}

pub(super) fn read_missing(row: &rusqlite::Row<'_>) -> Result<Missing> {
    let number = |value: i64| u64::try_from(value).unwrap_or(0);
    Ok(Missing { source: row.get(0)?, epoch: row.get(1)?, first: number(row.get(2)?), last: number(row.get(3)?) })
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// An id as its 16 bytes, a name as text.
impl ToSql for Task {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Id(id) => ValueRef::Blob(id.as_bytes()),
            Self::Named(name) => ValueRef::Text(name.as_bytes()),
        }))
    }
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
