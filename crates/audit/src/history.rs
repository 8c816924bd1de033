//! A task's whole history, and whether it is whole.
//!
//! A history is complete when its trigger is there, its status changes are numbered without a gap from 1 up to one that nothing follows, it has
//! exactly one result, and each sandbox that was claimed was given back exactly once. A contradiction makes it incomplete too. What is
//! missing may still arrive: that of a task under way always lacks its end.

use std::collections::{BTreeMap, BTreeSet};

use fte_events::{ResultKind, SandboxKind, Status, handoffs, status, triggers};
use serde::Deserialize;

use crate::engine::Published;
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
    let mut page = wanted.unwrap_or_default();
    if after.is_some() {
        page = log.entries(Query { task: Some(task), tenant, after, limit, ..Query::default() }).await?;
    } else if page.entries.len() > limit {
        page.entries.truncate(limit);
        page.next = page.entries.last().map(|entry| entry.position);
    }
    Ok(Some(History { entries: page.entries, next: page.next, missing: check.missing(from.is_some()), published: page.published }))
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
    triggered: bool,
    sequences: BTreeSet<u64>,
    last: Option<(u64, Status)>,
    results: usize,
    /// How often each was claimed and given back.
    claims: BTreeMap<String, (usize, usize)>,
    faults: Vec<String>,
}

impl Completeness {
    fn observe(&mut self, entry: &Entry) {
        self.observed += 1;
        match entry.header.kind {
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
        let unreadable = || match entry.bytes {
            Some(_) => format!("entry {} ({event_type}) has data that cannot be read", entry.position),
            None => format!("entry {} ({event_type}) was erased", entry.position),
        };
        if entry.topic() == triggers::TOPIC || entry.topic().starts_with(handoffs::TOPIC_PREFIX) {
            self.triggered |= !matches!(event_type, "fte.task.resumed" | "fte.erasure.requested" | "fte.handoff.withdrawn");
        } else if entry.topic() == status::TOPIC && event_type == "fte.status.changed" {
            match serde_json::from_str::<Change>(data) {
                Ok(change) => {
                    self.sequences.insert(change.sequence);
                    if self.last.is_none_or(|(sequence, _)| sequence < change.sequence) {
                        self.last = Some((change.sequence, change.status));
                    }
                }
                Err(_) => self.fault(unreadable()),
            }
        } else if ResultKind::from_event_type(event_type).is_some() {
            self.results += 1;
        } else if let Some(kind) = SandboxKind::from_event_type(event_type).filter(|kind| *kind != SandboxKind::ClaimFailed) {
            match serde_json::from_str::<Claim>(data) {
                Ok(claim) => {
                    let (claimed, ended) = self.claims.entry(claim.claim_id).or_default();
                    *if kind.ends_claim() { ended } else { claimed } += 1;
                }
                Err(_) => self.fault(unreadable()),
            }
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
        if !self.triggered {
            missing.push("its trigger".to_owned());
        }
        let mut expected = 1;
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
        if !self.last.is_some_and(|(_, status)| status.is_terminal()) {
            missing.push("a final status".to_owned());
        }
        match self.results {
            0 => missing.push("its result".to_owned()),
            1 => {}
            several => missing.push(format!("a single result: there are {several}")),
        }
        for (claim, counts) in self.claims {
            match counts {
                (1, 1) => {}
                (1, 0) => missing.push(format!("the release of claim {claim}")),
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
