//! Finding entries: by place, by task, by time, and by what their headers say. The index says where; what is there is read from the log. Bounded work for
//! each page, and one snapshot of the index; what is newer than that is in memory, taken before it, so nothing falls between them.

use std::ops::ControlFlow;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, params, params_from_iter};

use super::fault::Fault;
use super::index::{BLOCK_BITS, Field, Missing, facets, pos_of, position_of, read_missing};
use super::sealing::Sealing;
use super::view::{Files, Leaves, read_payload};
use crate::entry::leaf::{self, Header};
use crate::entry::{Entry, Position, Task, clip};
use crate::log::{Gap, Page, Query};

/// Most entries and blocks that are looked at for a page.
const STEPS_MAX: usize = 50_000;
/// A page is closed once its events have this many bytes.
const PAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Gaps of an answer.
const GAPS_MAX: i64 = 1000;

pub(super) fn entry(files: &Files, sealing: &dyn Sealing, at: Position) -> Result<Option<Entry>, Fault> {
    match files.leaves().leaf(at)? {
        Some(leaf) => read_entry(files, sealing, at, &leaf).map(Some),
        None => Ok(None),
    }
}

fn read_entry(files: &Files, sealing: &dyn Sealing, at: Position, leaf: &[u8]) -> Result<Entry, Fault> {
    let (header, held) = leaf::decode(leaf)?;
    let payload = read_payload(&*files.disk, &files.layout, at.shard, &header, held)?;
    let bytes = if header.enc.is_some() { sealing.open(&header, payload)? } else { Some(payload) };
    Ok(Entry { position: at, header: header.into_owned(), bytes })
}

/// What is asked for, in the words of headers.
struct Filters<'a> {
    query: &'a Query,
    /// The field, and the values of which one must be there; the likely rarest first.
    fields: Vec<(Field, Vec<String>)>,
}

impl<'a> Filters<'a> {
    fn new(query: &'a Query, sealing: &dyn Sealing) -> Result<Self, Fault> {
        let mut fields = Vec::new();
        if let Some(actor) = &query.actor {
            fields.push((Field::Actor, sealing.actor_values(actor)?));
        }
        for (field, value) in
            [(Field::Action, &query.action), (Field::Agent, &query.agent), (Field::Tenant, &query.tenant), (Field::Outcome, &query.outcome)]
        {
            fields.extend(value.as_deref().map(|value| (field, vec![clip(value).to_owned()])));
        }
        for value in fields.iter_mut().flat_map(|(_, values)| values) {
            *value = clip(value).to_owned();
        }
        Ok(Self { query, fields })
    }

    fn is_wanted(&self, header: &Header<'_>) -> bool {
        let Query { task, from_ms, to_ms, .. } = self.query;
        let in_time = from_ms.is_none_or(|from| header.logged_time >= from) && to_ms.is_none_or(|to| header.logged_time < to);
        let of_task = task.as_ref().is_none_or(|task| header.task.as_deref().is_some_and(|of| Task::from(of) == *task));
        in_time && of_task && self.fields.iter().all(|(field, values)| has(header, *field, values))
    }
}

fn has(header: &Header<'_>, field: Field, values: &[String]) -> bool {
    facets(header).any(|(of, value)| of == field && values.iter().any(|wanted| wanted == value))
}

pub(super) fn entries(connection: &Connection, files: &Files, sealing: &dyn Sealing, query: &Query) -> Result<Page, Fault> {
    let (tail, published) = {
        let view = files.shared.view();
        (view.tail_after(query.after), view.published.clone())
    };
    let filters = Filters::new(query, sealing)?;
    let snapshot = connection.unchecked_transaction()?;
    let end = snapshot.query_row("SELECT pos FROM done", [], |row| row.get::<_, i64>(0)).optional()?.map_or(0, |done| done + 1);
    let mut from = query.after.map_or(0, |at| pos_of(at) + 1);
    let mut to = end;
    if let Some(from_ms) = query.from_ms {
        from = from.max(first_block_since(&snapshot, from_ms)? << BLOCK_BITS);
    }
    if let Some(to_ms) = query.to_ms {
        to = to.min(first_block_at(&snapshot, to_ms)?.map_or(end, |block| block << BLOCK_BITS));
    }
    let page = Page { published, ..Page::default() };
    let last = tail.last().map_or(end - 1, |(at, _)| pos_of(*at));
    let mut scan = Scan { files, sealing, filters: &filters, leaves: files.leaves(), to, last, page, bytes: 0, steps: 0 };
    // What ends a scan early has set where to go on.
    let flow = match (&query.task, filters.fields.as_slice()) {
        (Some(task), _) => scan.task(&snapshot, task, from)?,
        (None, []) => scan.range(&snapshot, from)?,
        (None, fields) => scan.blocks(&snapshot, fields, from)?,
    };
    if flow.is_continue() {
        for (at, leaf) in tail.iter().filter(|(at, _)| pos_of(*at) >= end) {
            if scan.look(*at, leaf)?.is_break() {
                break;
            }
        }
    }
    Ok(scan.page)
}

/// The last block that begins before a time, in which the first entry since then may be.
fn first_block_since(connection: &Connection, time_ms: i64) -> rusqlite::Result<i64> {
    search(connection, time_ms).map(|(before, _)| before.unwrap_or(0))
}

/// The first block that begins at or after a time.
fn first_block_at(connection: &Connection, time_ms: i64) -> rusqlite::Result<Option<i64>> {
    search(connection, time_ms).map(|(_, after)| after)
}

/// The blocks on both sides of a time. Blocks are in order of time, with holes where a shard ends.
fn search(connection: &Connection, time_ms: i64) -> rusqlite::Result<(Option<i64>, Option<i64>)> {
    let mut at_or_after = connection.prepare_cached("SELECT block, first_ms FROM block WHERE block >= ?1 ORDER BY block LIMIT 1")?;
    let mut bounds = connection.prepare_cached("SELECT min(block), max(block) FROM block")?;
    let (first, last): (Option<i64>, Option<i64>) = bounds.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let (Some(first), Some(last)) = (first, last) else { return Ok((None, None)) };
    let (mut low, mut high) = (first, last + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        let found = at_or_after.query_row([middle], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))).optional()?;
        match found {
            Some((block, first_ms)) if first_ms < time_ms => low = block + 1,
            _ => high = middle,
        }
    }
    let after = at_or_after.query_row([low], |row| row.get(0)).optional()?;
    let mut before = connection.prepare_cached("SELECT max(block) FROM block WHERE block < ?1")?;
    Ok((before.query_row([low], |row| row.get(0))?, after))
}

type Step = Result<ControlFlow<()>, Fault>;

/// The making of a page.
struct Scan<'a> {
    files: &'a Files,
    sealing: &'a dyn Sealing,
    filters: &'a Filters<'a>,
    leaves: Leaves<'a>,
    /// The scan of the index ends before this place.
    to: i64,
    /// The last place of the log.
    last: i64,
    page: Page,
    bytes: usize,
    steps: usize,
}

impl Scan<'_> {
    fn task(&mut self, connection: &Connection, task: &Task, from: i64) -> Step {
        let mut statement = connection.prepare_cached("SELECT pos FROM task WHERE task = ?1 AND pos >= ?2 AND pos < ?3 ORDER BY seq")?;
        let mut rows = statement.query(params![task, from, self.to])?;
        while let Some(row) = rows.next()? {
            let at = position_of(row.get(0)?);
            if self.look_up(at)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// All entries from a place on.
    fn range(&mut self, connection: &Connection, from: i64) -> Step {
        let mut blocks = connection.prepare_cached("SELECT block FROM block WHERE block >= ?1 AND block <= ?2 ORDER BY block")?;
        let mut blocks = blocks.query(params![from >> BLOCK_BITS, self.to >> BLOCK_BITS])?;
        while let Some(row) = blocks.next()? {
            if self.block(row.get(0)?, from)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Looks only into blocks in which a value of every field occurs.
    fn blocks(&mut self, connection: &Connection, fields: &[(Field, Vec<String>)], from: i64) -> Step {
        let (field, values) = &fields[0];
        let sql = format!(
            "SELECT DISTINCT block FROM facet WHERE field = {} AND value IN ({}) AND block >= {} AND block <= {} ORDER BY block",
            *field as i64,
            vec!["?"; values.len()].join(","),
            from >> BLOCK_BITS,
            self.to >> BLOCK_BITS
        );
        let mut candidates = connection.prepare(&sql)?;
        let mut candidates = candidates.query(params_from_iter(values))?;
        let mut occurs = connection.prepare_cached("SELECT 1 FROM facet WHERE field = ?1 AND value = ?2 AND block = ?3")?;
        while let Some(row) = candidates.next()? {
            let block: i64 = row.get(0)?;
            let mut all = true;
            for (field, values) in &fields[1..] {
                let mut any = false;
                for value in values {
                    any = any || occurs.exists(params![*field as i64, value, block])?;
                }
                all = all && any;
            }
            let flow = if all { self.block(block, from)? } else { self.step(((block + 1) << BLOCK_BITS) - 1) };
            if flow.is_break() {
                return Ok(flow);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn block(&mut self, block: i64, from: i64) -> Step {
        let (first, end) = (from.max(block << BLOCK_BITS), self.to.min((block + 1) << BLOCK_BITS));
        for pos in first..end {
            let at = position_of(pos);
            // A shard may end within a block.
            let Some(leaf) = self.leaves.leaf(at)? else { break };
            if self.look(at, &leaf)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn look_up(&mut self, at: Position) -> Step {
        let leaf = self.leaves.leaf(at)?.ok_or(Fault::Astray(at))?;
        self.look(at, &leaf)
    }

    fn look(&mut self, at: Position, leaf: &Bytes) -> Step {
        let (header, _) = leaf::decode(leaf)?;
        // The log is in order of time: nothing that is wanted comes after that.
        if self.filters.query.to_ms.is_some_and(|to_ms| header.logged_time >= to_ms) {
            return Ok(ControlFlow::Break(()));
        }
        if self.filters.is_wanted(&header) {
            let entry = if self.filters.query.headers_only {
                Entry { position: at, header: header.into_owned(), bytes: None }
            } else {
                read_entry(self.files, self.sealing, at, leaf)?
            };
            self.bytes += entry.bytes.as_ref().map_or(0, Vec::len);
            self.page.entries.push(entry);
        }
        Ok(self.step(pos_of(at)))
    }

    /// Everything up to a place was looked at: is the page full, or enough done for one?
    fn step(&mut self, pos: i64) -> ControlFlow<()> {
        self.steps += 1;
        let is_full = self.page.entries.len() >= self.filters.query.limit || self.bytes >= PAGE_BYTES_MAX || self.steps >= STEPS_MAX;
        if !is_full {
            return ControlFlow::Continue(());
        }
        if pos < self.last {
            self.page.next = Some(position_of(pos));
        }
        ControlFlow::Break(())
    }
}

/// Gaps in the publishers' counters, open and filled, the newest filled ones first.
pub(super) fn gaps(connection: &Connection) -> Result<(Vec<Gap>, Vec<Gap>), Fault> {
    let snapshot = connection.unchecked_transaction()?;
    let gap = |missing: Missing, logged: Option<i64>| Gap {
        source: missing.source,
        epoch: missing.epoch,
        first: missing.first,
        last: missing.last,
        entry: logged.map(position_of),
    };
    let mut statement = snapshot.prepare_cached("SELECT source, epoch, first, last, logged FROM gap ORDER BY seen_ms LIMIT ?1")?;
    let open = statement.query_map([GAPS_MAX], |row| Ok(gap(read_missing(row)?, row.get(4)?)))?.collect::<rusqlite::Result<_>>()?;
    let mut statement = snapshot.prepare_cached("SELECT source, epoch, number, number, pos FROM filled ORDER BY pos DESC LIMIT ?1")?;
    let filled = statement.query_map([GAPS_MAX], |row| Ok(gap(read_missing(row)?, row.get(4)?)))?.collect::<rusqlite::Result<_>>()?;
    Ok((open, filled))
}
