//! One life of a runner under one instance id: its lease, what it holds, and how it reads and writes task documents.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fte_events::TaskId;
use futures_util::future::{join, select};
use tokio::sync::{Notify, Semaphore};

use super::doubts::Doubts;
use super::index::{Index, LeaseDoc, key as lease_key};
use super::peers;
use super::pool::Pool;
use super::runner::Stopping;
use crate::document::{InstanceId, TaskDoc, key};
use crate::ports::{Document, Guard, PortError, Ports, Save, Saved};
use crate::settings::Settings;

/// Tasks whose timers are ended at the same time.
const ENDING_TIMERS: usize = 64;

/// One life under one instance id.
pub(super) struct Instance {
    pub(super) id: InstanceId,
    pub(super) ports: Ports,
    pub(super) settings: Arc<Settings>,
    pub(super) index: Index,
    pub(super) pool: Pool,
    pub(super) stopping: Stopping,
    /// Tasks this instance is driving or about to, and how to make the driver look at its document. By turn: a driver that has not noticed yet that
    /// its task moved on may still be there when the task comes back at a later turn.
    held: Mutex<BTreeMap<(TaskId, u32), Held>>,
    pub(super) doubts: Doubts,
    /// Who ends timers.
    pub(super) ending_timers: Semaphore,
    stamps: AtomicU64,
}

/// What is known of a task that somebody here holds.
#[derive(Default)]
struct Held {
    poke: Arc<Notify>,
    /// By a driver; else by an admission, which may still come to nothing.
    driven: bool,
}

/// The right to drive a task at one turn, in this process; given back when dropped.
pub(super) struct Hold {
    instance: Arc<Instance>,
    key: (TaskId, u32),
}

impl Hold {
    /// What makes its driver look at its document.
    pub(super) fn poke(&self) -> Arc<Notify> {
        self.instance.held().get(&self.key).map(|held| Arc::clone(&held.poke)).unwrap_or_default()
    }

    /// A driver has it from now on.
    pub(super) fn drive(&self) {
        if let Some(held) = self.instance.held().get_mut(&self.key) {
            held.driven = true;
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.instance.held().remove(&self.key);
    }
}

impl Instance {
    pub(super) fn new(ports: Ports, settings: Arc<Settings>, pool: Pool, stopping: Stopping) -> Arc<Self> {
        let id = InstanceId(format!("{:016x}{:016x}", ports.world.random(), ports.world.random()));
        Arc::new(Self {
            id,
            index: Index::new(settings.places + settings.wake_reserve / 2, settings.wake_reserve),
            ports,
            settings,
            pool,
            stopping,
            held: Mutex::default(),
            doubts: Doubts::default(),
            ending_timers: Semaphore::new(ENDING_TIMERS),
            stamps: AtomicU64::new(0),
        })
    }

    /// Writes the lease document, then the list: nothing is admitted before. Until it is listed nobody would ever take the document away, so that
    /// it goes by itself; its keeper's first write is for good.
    pub(super) async fn begin(&self) {
        let lease = LeaseDoc { instance: self.id.clone(), beat: 0, seat: self.settings.seat.clone(), fenced_by: None, entries: Vec::new() };
        let key = lease_key(&self.id);
        let created = |document: &Document| serde_json::from_slice::<LeaseDoc>(&document.value).is_ok_and(|found| found.beat == 0);
        while let Ok(value) = serde_json::to_vec(&lease) {
            let save = Save { key: key.clone(), value: value.into(), guard: Guard::Absent, ttl: Some(self.settings.keep_ended) };
            match self.ports.store.save(save).await {
                Ok(Saved::Written) => break,
                Ok(Saved::Conflict) | Err(_) => {
                    if let Ok(Some(found)) = self.ports.store.get(key.clone()).await
                        && created(&found)
                    {
                        break;
                    }
                }
            }
            self.ports.world.sleep(RETRY).await;
        }
        peers::enlist(self).await;
    }

    /// Lives until fenced.
    pub(super) async fn live(self: &Arc<Self>, predecessor: Option<InstanceId>) {
        let keeping = self.index.clone().keep(
            self.ports.clone(),
            self.id.clone(),
            self.settings.seat.clone(),
            self.settings.renew,
            self.settings.self_fence,
        );
        self.ports.world.spawn(Box::pin(keeping));
        let own_work = join(self.sweep(), peers::watch(self, predecessor));
        select(Box::pin(own_work), Box::pin(self.index.fenced())).await;
    }

    /// Again and again: settles the writes in doubt, and looks into the documents that are driven here for notes to their drivers.
    async fn sweep(self: &Arc<Self>) {
        loop {
            self.ports.world.sleep(self.settings.sweep).await;
            self.doubts.settle(self).await;
            for tasks in self.held_tasks().chunks(128) {
                let Ok(documents) = self.ports.store.get_many(tasks.iter().copied().map(key).collect()).await else { continue };
                for (task, document) in tasks.iter().zip(documents) {
                    let Some(doc) = document.and_then(|document| serde_json::from_slice::<TaskDoc>(&document.value).ok()) else { continue };
                    let undelivered = doc
                        .approval
                        .as_ref()
                        .is_some_and(|approval| approval.decision.is_some() && !approval.told && !approval.before_start);
                    let noted = doc.cancel_requested.is_some() || doc.deadline_passed || doc.answer.is_some() || doc.has_unread_reply();
                    if doc.owner.as_ref() != Some(&self.id) || noted || undelivered || doc.has_news() {
                        self.poke(*task);
                    }
                }
            }
        }
    }

    /// Writes a task document under a fresh stamp; gives the document back as it was to be written.
    ///
    /// Not even a conflict means that it was not written: an adapter that lost the answer reads back, and finds what somebody else may
    /// have written upon it.
    pub(super) async fn save(&self, mut doc: TaskDoc, guard: Guard) -> (Result<Saved, PortError>, TaskDoc) {
        doc.stamp = self.stamp();
        if guard == Guard::Absent {
            doc.born.clone_from(&doc.stamp);
        }
        if let Some(bytes) = doc.outbox.iter().map(|event| event.body.get().len()).find(|bytes| *bytes > self.settings.event_bytes_max) {
            // Written down, it would be sent for ever and never taken.
            let reason = format!("one of its events has {bytes} bytes, and at most {} can be published", self.settings.event_bytes_max);
            return (Err(PortError { what: "writing a task", reason, refused: true }), doc);
        }
        let value = match serde_json::to_vec(&doc) {
            Ok(value) => value.into(),
            Err(error) => return (Err(PortError::new("writing a task", error.to_string())), doc),
        };
        let ttl = (doc.ended() || doc.request.is_none()).then_some(self.settings.keep_ended);
        (self.ports.store.save(Save { key: key(doc.task_id), value, guard, ttl }).await, doc)
    }

    /// Reads a task document.
    pub(super) async fn load(&self, task: TaskId) -> Result<Option<(TaskDoc, Guard)>, PortError> {
        let Some(found) = self.ports.store.get(key(task)).await? else { return Ok(None) };
        let doc = serde_json::from_slice(&found.value).map_err(|error| PortError::new("reading a task", error.to_string()))?;
        Ok(Some((doc, Guard::Unchanged(found.etag))))
    }

    fn stamp(&self) -> String {
        format!("{}/{}", self.id.0, self.stamps.fetch_add(1, Ordering::Relaxed))
    }

    /// The right to drive the task at this turn; none when somebody here has it.
    pub(super) fn hold(self: &Arc<Self>, doc: &TaskDoc) -> Option<Hold> {
        let key = (doc.task_id, doc.turn);
        match self.held().entry(key) {
            Entry::Occupied(_) => None,
            Entry::Vacant(vacant) => {
                vacant.insert(Held::default());
                Some(Hold { instance: Arc::clone(self), key })
            }
        }
    }

    pub(super) fn is_held(&self, task: TaskId, turn: u32) -> bool {
        self.held().contains_key(&(task, turn))
    }

    /// Whether a driver has it at its turn.
    pub(super) fn is_driven(&self, doc: &TaskDoc) -> bool {
        self.held().get(&(doc.task_id, doc.turn)).is_some_and(|held| held.driven)
    }

    /// Makes the task's driver, if it is here, look at its document now.
    pub(super) fn poke(&self, task: TaskId) {
        for (_, held) in self.held().range((task, 0)..=(task, u32::MAX)) {
            held.poke.notify_one();
        }
    }

    /// Runs work of this instance beside the caller; it is dropped when the instance is fenced.
    pub(super) fn spawn(self: &Arc<Self>, work: impl Future<Output = ()> + Send + 'static) {
        let index = self.index.clone();
        self.ports.world.spawn(Box::pin(async move {
            // Looked at first: work that comes too late does not even begin.
            select(Box::pin(index.fenced()), Box::pin(work)).await;
        }));
    }

    /// The tasks that are held here.
    pub(super) fn held_tasks(&self) -> Vec<TaskId> {
        self.held().keys().map(|(task, _)| *task).collect()
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<(TaskId, u32), Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wait before a failed call is made again.
pub(super) const RETRY: Duration = Duration::from_millis(200);
