//! Writes in doubt: their answer was lost, or it was a conflict that may have been our own write.
//!
//! Whoever gives a write up while its outcome is not known leaves it here, and its index entry in place. It is settled when that write can no
//! longer happen, and what it did, if it did, is taken care of.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fte_events::TaskId;
use futures_util::future::join_all;

use super::drive;
use super::index::Purpose;
use super::instance::Instance;
use crate::document::{TaskDoc, key};
use crate::ports::{Guard, Saved};

/// Doubts settled side by side.
const TOGETHER: usize = 16;

/// The writes in doubt of one instance, those of a task in the order in which they were made.
#[derive(Default)]
pub(super) struct Doubts(Mutex<BTreeMap<TaskId, VecDeque<Doubt>>>);

/// A write of which it is not known whether it happened.
#[derive(Clone)]
struct Doubt {
    guard: Guard,
    stamp: String,
    purpose: Purpose,
}

impl Doubts {
    /// Remembers a write that may have happened; the caller leaves its index entry in place.
    pub(super) fn add(&self, doc: &TaskDoc, guard: Guard, purpose: Purpose) {
        self.list().entry(doc.task_id).or_default().push_back(Doubt { guard, stamp: doc.stamp.clone(), purpose });
    }

    /// Settles what can be settled now.
    pub(super) async fn settle(&self, instance: &Arc<Instance>) {
        let tasks: Vec<TaskId> = self.list().keys().copied().collect();
        for tasks in tasks.chunks(TOGETHER) {
            join_all(tasks.iter().map(|task| self.settle_task(instance, *task))).await;
        }
    }

    async fn settle_task(&self, instance: &Arc<Instance>, task: TaskId) {
        loop {
            let Some(doubt) = self.list().get(&task).and_then(VecDeque::front).cloned() else { return };
            if !settle_one(instance, task, doubt).await {
                return;
            }
            let mut list = self.list();
            if let Some(doubts) = list.get_mut(&task) {
                doubts.pop_front();
                if doubts.is_empty() {
                    list.remove(&task);
                }
            }
        }
    }

    fn list(&self) -> MutexGuard<'_, BTreeMap<TaskId, VecDeque<Doubt>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Finds out what became of a write that may have happened; false when that has to wait. Its index entry is let go only when that write can no
/// longer happen, and what it did, if it did, is taken care of.
async fn settle_one(instance: &Arc<Instance>, task: TaskId, Doubt { guard, stamp, purpose }: Doubt) -> bool {
    let Ok(found) = instance.ports.store.get(key(task)).await else { return false };
    let unchanged = match (&guard, &found) {
        (Guard::Absent, None) => true,
        (Guard::Unchanged(etag), Some(found)) => found.etag == *etag,
        _ => false,
    };
    let doc = match &found {
        Some(found) => serde_json::from_slice(&found.value).ok(),
        None => Some(TaskDoc::blank(task)),
    };
    let Some(doc) = doc else { return false };
    if unchanged {
        // Rewrite it, so that the write in doubt fails when it arrives after all.
        if !matches!(instance.save(doc, guard).await, (Ok(Saved::Written), _)) {
            return false;
        }
    } else if guard == Guard::Absent && doc.born != stamp {
        // Somebody else made the document, so that write never came to be and never will.
    } else if doc.owner.as_ref() == Some(&instance.id) && !instance.is_driven(&doc) {
        // An admission that holds it may still come to nothing.
        let Some(hold) = instance.hold(&doc) else { return false };
        if instance.index.add(task, Purpose::Run).await.is_err() {
            return false;
        }
        drive::adopt(instance, doc, hold);
    } else if doc.owner.is_none() && !doc.outbox.is_empty() {
        // What the write had to say may be in there, whoever has written since: a takeover rewrites what it does not change.
        // The doubt's hold on the index entry goes with the outbox.
        drive::settle(instance, doc, purpose);
        return true;
    }
    // Its driver, if it has one, has an index entry of its own and sends its outbox.
    instance.index.remove(task, purpose);
    true
}
