//! A task's whole history, and whether it is whole.
//!
//! A history is complete when its trigger is there, its status changes are numbered without a gap from 1 up to one that nothing follows, it has
//! exactly one result, and each sandbox that was claimed was given back exactly once. A contradiction makes it incomplete too. What is
//! missing may still arrive: that of a task under way always lacks its end. Of a task that began in a year which is retired that is said, and nothing is missed that
//! may have been there.

use std::collections::{BTreeMap, BTreeSet};

use fte_events::Status;
use serde::Deserialize;

use crate::engine::Published;
use crate::entry::mark::Mark;
use crate::entry::{Entry, Kind, Position, Task};
use crate::log::{Log, LogError, Query};

/// Entries of an answer; more come on further pages.
pub const ENTRIES_MAX: usize = 10_000;
/// Entries that are looked at to tell whether a history is complete.
const CHECKED_MAX: usize = 200_000;
/// Texts about what is missing.
const MISSING_MAX: usize = 100;

/// What is known of a task.
#[derive(Debug)]
pub struct History {
    pub entries: Vec<Entry>,
    pub next: Option<Position>,
    /// How many entries of its beginning were in shards that are retired.
    pub retired: u64,
    /// What it lacks; nothing if it is complete.
    pub missing: Vec<String>,
    /// The last checkpoint when it was read.
    pub published: Option<Published>,
}

/// The history of a task as far as it is a tenant's, if one is given, with its entries after a place. `None` if the log has nothing of it.
pub async fn of(
    log: &dyn Log,
    task: Task,
    tenant: Option<String>,
    after: Option<Position>,
    limit: usize,
) -> Result<Option<History>, LogError> {
    let mut check = Completeness::default();
    let mut wanted = None;
    let mut from = None;
    loop {
        let asked = Query { task: Some(task.clone()), tenant: tenant.clone(), after: from, limit: ENTRIES_MAX, ..Query::default() };
        let page = log.entries(asked).await?;
        page.entries.iter().for_each(|entry| check.observe(entry));
        from = page.next;
        // The usual case: all of it is on the first page, and wanted.
        if wanted.is_none() {
            wanted = Some(page);
        }
        if from.is_none() || check.observed >= CHECKED_MAX {
            break;
        }
    }
    if check.observed == 0 {
        return Ok(None);
    }
    if check.first_seq > 0 && !log.retired().is_empty() {
        // A tenant may see but a part of it, and the whole may begin with another's.
        let first = log.entries(Query { task: Some(task.clone()), limit: 1, ..Query::default() }).await?;
        check.retired = first.entries.first().and_then(|entry| entry.header.task_seq).unwrap_or(0);
    }
    let retired = check.retired;
    let mut page = wanted.unwrap_or_default();
    if after.is_some() {
        page = log.entries(Query { task: Some(task), tenant, after, limit, ..Query::default() }).await?;
    } else if page.entries.len() > limit {
        page.entries.truncate(limit);
        page.next = page.entries.last().map(|entry| entry.position);
    }
    Ok(Some(History { entries: page.entries, next: page.next, retired, missing: check.missing(from.is_some()), published: page.published }))
}

/// The parts of an event that completeness depends on.
#[derive(Deserialize)]
struct Step<'a> {
    #[serde(borrow, default)]
    data: Option<&'a serde_json::value::RawValue>,
}

#[derive(Deserialize)]
struct Change {
    sequence: u64,
    status: Status,
}

#[derive(Deserialize)]
struct Claim {
    claim_id: String,
}

/// What was seen of a task so far.
#[derive(Default)]
struct Completeness {
    observed: usize,
    /// The number of the first entry that was seen.
    first_seq: u64,
    /// How many entries before it are retired.
    retired: u64,
    triggered: bool,
    sequences: BTreeSet<u64>,
    last: Option<(u64, Status)>,
    results: usize,
    /// How often each was claimed and given back.
    claims: BTreeMap<String, (usize, usize)>,
    faults: Vec<String>,
    /// How many events can be read no more.
    gone: usize,
    /// What the log itself said when it closed the task, if nothing came after that.
    closed: Option<Closed>,
}

/// What a `task_closed` says.
#[derive(Deserialize)]
struct Closed {
    missing: Vec<String>,
}

impl Completeness {
    fn observe(&mut self, entry: &Entry) {
        if self.observed == 0 {
            self.first_seq = entry.header.task_seq.unwrap_or(0);
        }
        self.observed += 1;
        if entry.header.kind.is_received() {
            self.closed = None;
        }
        match entry.header.kind {
            Kind::TaskClosed => self.closed = entry.bytes.as_deref().and_then(|bytes| serde_json::from_slice(bytes).ok()),
            Kind::Event if entry.bytes.is_none() => self.gone += 1,
            Kind::Conflict => self.fault(format!("entry {} contradicts an earlier one of the same source and id", entry.position)),
            Kind::Event => {
                let step = entry.bytes.as_deref().and_then(|bytes| serde_json::from_slice::<Step<'_>>(bytes).ok());
                self.step(entry, step.and_then(|step| step.data));
            }
            _ => {}
        }
    }

    fn step(&mut self, entry: &Entry, data: Option<&serde_json::value::RawValue>) {
        let data = data.map_or("null", |data| data.get());
        let event_type = entry.header.event_type.as_deref().unwrap_or_default();
        let unreadable = || format!("entry {} ({event_type}) has data that cannot be read", entry.position);
        match Mark::of(&entry.header) {
            Mark::Trigger => self.triggered = true,
            Mark::Status => match serde_json::from_str::<Change>(data) {
                Ok(change) => {
                    self.sequences.insert(change.sequence);
                    if self.last.is_none_or(|(sequence, _)| sequence < change.sequence) {
                        self.last = Some((change.sequence, change.status));
                    }
                }
                Err(_) => self.fault(unreadable()),
            },
            Mark::Result => self.results += 1,
            mark @ (Mark::Claimed | Mark::Ended) => match serde_json::from_str::<Claim>(data) {
                Ok(claim) => {
                    let (claimed, ended) = self.claims.entry(claim.claim_id).or_default();
                    *if mark == Mark::Ended { ended } else { claimed } += 1;
                }
                Err(_) => self.fault(unreadable()),
            },
            Mark::Closed | Mark::Other => {}
        }
    }

    fn fault(&mut self, text: String) {
        if self.faults.len() < MISSING_MAX {
            self.faults.push(text);
        }
    }

    /// What a complete history would have.
    fn missing(self, cut: bool) -> Vec<String> {
        let mut missing = Vec::new();
        if cut {
            missing.push(format!("only the first {} entries were looked at", self.observed));
        }
        let is_whole = self.retired == 0;
        if !is_whole {
            missing.push(format!("its first {} entries, which were logged in a year that is retired", self.retired));
        }
        if self.gone > 0 {
            // What they said counted when the task was closed, and no entry of the log can be changed since.
            match self.closed {
                Some(closed) => missing.extend(closed.missing),
                None => {
                    missing.push(format!("what {} of its entries say, which can be read no more, and the log has not closed it", self.gone))
                }
            }
            missing.extend(self.faults);
            missing.truncate(MISSING_MAX);
            return missing;
        }
        if is_whole && !self.triggered {
            missing.push("its trigger".to_owned());
        }
        let mut expected = if is_whole { 1 } else { self.sequences.first().copied().unwrap_or(1) };
        for sequence in self.sequences {
            if sequence > expected {
                let last = sequence - 1;
                missing.push(if last == expected {
                    format!("status change {last}")
                } else {
                    format!("status changes {expected} to {last}")
                });
            }
            expected = expected.max(sequence.saturating_add(1));
        }
        if is_whole && !self.last.is_some_and(|(_, status)| status.is_terminal()) {
            missing.push("a final status".to_owned());
        }
        match self.results {
            0 if is_whole => missing.push("its result".to_owned()),
            0 | 1 => {}
            several => missing.push(format!("a single result: there are {several}")),
        }
        for (claim, counts) in self.claims {
            match counts {
                (1, 1) => {}
                (1, 0) => missing.push(format!("the release of claim {claim}")),
                (0, 1) if !is_whole => {}
                (0, 1) => missing.push(format!("the claim {claim}, which was released")),
                (claimed, ended) => missing.push(format!("one claim and one release of {claim}: there are {claimed} and {ended}")),
            }
        }
        missing.extend(self.faults);
        missing.truncate(MISSING_MAX);
        missing
    }
}

#[cfg(test)]
mod tests;
