//! Entries that the log writes by itself.

use std::borrow::Cow;

use fte_events::{TENANT, hex};
use fte_tlog::VerifierKey;
use serde_json::{Value, json};

use super::index::{Life, Missing};
use super::state::Published;
use crate::entry::Task;
use crate::entry::canonical::canonical;
use crate::entry::leaf::{Header, Kind};

/// Who writes them.
pub const SOURCE: &str = "/fte/audit";

/// What the log promises about keeping; C2SP wants it said before anything is pruned.
pub(crate) const POLICY: &str = "A shard is kept whole for seven years after its last entry, and longer while a legal hold covers it; its final checkpoint is kept for ever.";

/// The id of what the log says of who follows a key, from 0.
pub(super) fn key_rotated_id(key: &VerifierKey, number: u64) -> String {
    format!("key-rotated/{}/{number}", hex(key.public_bytes()))
}

/// An entry about to be written.
#[derive(Debug)]
pub(super) struct OwnEntry {
    kind: Kind,
    id: String,
    tenant: String,
    task: Option<Task>,
    /// Whose number a gap is in.
    actor: Option<String>,
    epoch: Option<String>,
    sequence: Option<u64>,
    pub(super) payload: Vec<u8>,
}

impl OwnEntry {
    fn new(kind: Kind, id: String, payload: &Value) -> Self {
        let payload = canonical(payload).into_bytes();
        Self { kind, id, tenant: TENANT.to_owned(), task: None, actor: None, epoch: None, sequence: None, payload }
    }

    /// The first of a shard.
    pub(super) fn shard_open(shard: u16, previous: Option<&Published>) -> Self {
        let mut payload = json!({"policy": POLICY, "shard": shard});
        if let Some(previous) = previous {
            payload["previous"] = json!({"checkpoint": &*previous.note, "shard": previous.shard});
        }
        Self::new(Kind::ShardOpen, format!("shard-open/{shard}"), &payload)
    }

    /// Another key is to sign, and this is it; both under the name of the shard. `number` counts what was said of the present one.
    pub(super) fn key_rotated(present: &VerifierKey, next: &VerifierKey, number: u64) -> Self {
        let payload = json!({"key": next.to_string(), "previous": present.to_string()});
        Self::new(Kind::KeyRotated, key_rotated_id(present, number), &payload)
    }

    /// A task has ended, and so many entries are there.
    pub(super) fn task_closed(task: Task, tenant: String, entries: u64, life: &Life) -> Self {
        let missing = life.missing();
        let payload = json!({"entries": entries, "missing": missing, "complete": missing.is_empty()});
        let id = format!("task-closed/{task}/{entries}");
        Self { task: Some(task), tenant, ..Self::new(Kind::TaskClosed, id, &payload) }
    }

    /// Numbers of a publisher's counter have not arrived.
    pub(super) fn gap(missing: Missing) -> Self {
        let Missing { source, epoch, first, last } = missing;
        let payload = json!({"source": source, "epoch": epoch, "first": first, "last": last});
        let id = format!("gap/{source}/{epoch}/{first}-{last}");
        Self { actor: Some(source), epoch: Some(epoch), sequence: Some(first), ..Self::new(Kind::Gap, id, &payload) }
    }

    /// One of them has.
    pub(super) fn gap_filled(missing: Missing) -> Self {
        let Missing { source, epoch, first, .. } = missing;
        let payload = json!({"source": source, "epoch": epoch, "number": first});
        let id = format!("gap-filled/{source}/{epoch}/{first}");
        Self { actor: Some(source), epoch: Some(epoch), sequence: Some(first), ..Self::new(Kind::GapFilled, id, &payload) }
    }

    pub(super) fn header(&self, logged_time: i64) -> Header<'_> {
        Header {
            source: Some(Cow::Borrowed(SOURCE)),
            id: Some(Cow::Borrowed(&self.id)),
            tenant: Some(Cow::Borrowed(&self.tenant)),
            task: self.task.as_ref().map(|task| Cow::Owned(task.to_string())),
            actor: self.actor.as_deref().map(Cow::Borrowed),
            epoch: self.epoch.as_deref().map(Cow::Borrowed),
            sequence: self.sequence,
            ..Header::new(self.kind, logged_time, &self.payload)
        }
    }
}
