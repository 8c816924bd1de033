//! One life of a runner, and the runner that lives several.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fte_events::TaskId;
use futures_util::future::{Either, join, join_all, select};
use tokio::sync::{Notify, oneshot, watch};

use super::admission::{Admitted, Incoming};
use super::decisions::{Answer, CancelError, DecideError, Decided};
use super::index::{Index, LeaseDoc, Purpose, key as lease_key};
use super::pool::Pool;
use super::{admission, decisions, drive, peers};
use crate::document::{InstanceId, TaskDoc, key};
use crate::ports::{Document, Guard, PortError, Ports, Save, Saved};
use crate::settings::Settings;

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
    /// Writes that may have happened, or may still happen. The index entry stays until it is settled.
    doubts: Mutex<BTreeMap<TaskId, VecDeque<Doubt>>>,
    stamps: AtomicU64,
}

/// A write of which it is not known whether it happened.
#[derive(Clone)]
struct Doubt {
    guard: Guard,
    stamp: String,
    purpose: Purpose,
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

/// How an agent's pool is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentUse {
    /// The agent.
    pub agent: String,
    /// Sandboxes it may have.
    pub capacity: u32,
    /// Sandboxes in use.
    pub in_use: u32,
    /// Admitted tasks that wait for one.
    pub queued: u32,
}

/// Runs tasks until it is told to stop, under one instance id after another.
pub struct Runner {
    ports: Ports,
    settings: Arc<Settings>,
    pool: Pool,
    current: watch::Sender<Option<Arc<Instance>>>,
    stopping: Stopping,
}

/// Whether the runner has been told to stop.
#[derive(Clone)]
pub(super) struct Stopping(Arc<watch::Sender<bool>>);

impl Stopping {
    fn is_on(&self) -> bool {
        *self.0.borrow()
    }

    /// Resolves once the runner has been told to stop.
    pub(super) async fn on(&self) {
        // The sender lives in `self`: waiting cannot fail.
        drop(self.0.subscribe().wait_for(|stopping| *stopping).await);
    }
}

impl Runner {
    /// A runner that does nothing before [`Runner::run`].
    pub fn new(ports: Ports, settings: Settings) -> Arc<Self> {
        let pool = Pool::new(settings.places, settings.agents.iter().map(|(agent, limits)| (agent.clone(), limits.max)));
        let settings = Arc::new(settings);
        Arc::new(Self { ports, settings, pool, current: watch::Sender::new(None), stopping: Stopping(Arc::new(watch::Sender::new(false))) })
    }

    /// Works until [`Runner::stop`].
    pub async fn run(self: Arc<Self>) {
        let mut predecessor = None;
        while !self.stopping.is_on() {
            let instance = Instance::new(&self);
            select(Box::pin(instance.begin()), Box::pin(self.stopping.on())).await;
            if self.stopping.is_on() {
                break;
            }
            self.current.send_replace(Some(Arc::clone(&instance)));
            if self.stopping.is_on() {
                // `stop` may have looked just before; what this instance has written so far is an empty index.
                instance.index.fence();
            }
            instance.live(predecessor.take()).await;
            self.current.send_replace(None);
            if self.stopping.is_on() {
                break;
            }
            tracing::warn!(instance = %instance.id.0, "cut off from the lease; going on under a new instance");
            predecessor = Some(instance.id.clone());
        }
    }

    /// Takes nothing new, waits at most `patience` for what runs, then ends its agents and hands everything it was responsible for over.
    pub async fn stop(&self, patience: Duration) {
        self.stopping.0.send_replace(true);
        let instance = self.current.borrow().clone();
        if let Some(instance) = instance {
            let quiet = Box::pin(async {
                while !instance.held().is_empty() {
                    instance.ports.world.sleep(Duration::from_millis(20)).await;
                }
            });
            select(quiet, self.ports.world.sleep(patience)).await;
            instance.index.fence();
            // What is left is handed over at once rather than after the lease has run out. Failing that, a peer does it.
            let handover = Box::pin(peers::take_over(&instance, &instance.id, None));
            select(handover, self.ports.world.sleep(patience.max(Duration::from_secs(2)))).await;
        }
    }

    /// Handles a delivered request to run, or a resumption.
    pub async fn deliver(&self, incoming: Incoming) -> Admitted {
        if self.stopping.is_on() {
            return Admitted::Retry("the runner is stopping".to_owned());
        }
        let Some(instance) = self.live_instance().await else { return Admitted::Retry("the runner is starting, or stopping".to_owned()) };
        let admitted = self.to_its_end(async move { admission::admit(&instance, incoming).await });
        match select(Box::pin(admitted), self.ports.world.sleep(DELIVERY_MAX)).await {
            Either::Left((admitted, _)) => admitted.unwrap_or_else(|| Admitted::Retry("the runner is gone".to_owned())),
            Either::Right(_) => Admitted::Retry("the state store takes too long".to_owned()),
        }
    }

    /// The current instance; while there is none, the delivery is held for the next one.
    async fn live_instance(&self) -> Option<Arc<Instance>> {
        let mut current = self.current.subscribe();
        let live = Box::pin(async move { current.wait_for(Option::is_some).await.ok().and_then(|current| current.clone()) });
        let over = select(self.ports.world.sleep(self.settings.hold), Box::pin(self.stopping.on()));
        match select(live, over).await {
            Either::Left((instance, _)) => instance,
            Either::Right(_) => None,
        }
    }

    /// A timer fired. While the runner starts it is held: whoever fires tries only a few times, and comes again late after that.
    pub async fn timer(&self, name: &str) -> Result<(), PortError> {
        let name = name.to_owned();
        let starting = || PortError { what: "firing a timer", reason: "the runner is starting, or stopping".to_owned() };
        let instance = self.live_instance().await.ok_or_else(starting)?;
        self.to_its_end(async move { decisions::timer_fired(&instance, &name).await }).await.ok_or_else(gone)?
    }

    /// A person decides.
    pub async fn decide(&self, task: TaskId, answer: Answer) -> Result<Decided, DecideError> {
        let instance = self.ready()?;
        let decided = self.to_its_end(async move { decisions::decide(&instance, task, answer).await }).await;
        decided.ok_or_else(gone)?
    }

    /// Somebody calls a task off.
    pub async fn cancel(&self, task: TaskId, by: String) -> Result<(), CancelError> {
        let instance = self.ready()?;
        self.to_its_end(async move { decisions::cancel(&instance, task, by).await }).await.ok_or_else(gone)?
    }

    /// Runs a handler to its end even if its caller stops waiting, as a server does whose client went away: one that was dropped between its
    /// writes would leave behind an index entry, or an owned task, that nothing in this process knows of.
    async fn to_its_end<T: Send + 'static>(&self, handler: impl Future<Output = T> + Send + 'static) -> Option<T> {
        let (sender, receiver) = oneshot::channel();
        self.ports.world.spawn(Box::pin(async move {
            let _caller_gone = sender.send(handler.await);
        }));
        receiver.await.ok()
    }

    /// How the pools are used.
    pub fn usage(&self) -> Vec<AgentUse> {
        let agents = self.settings.agents.iter().map(|(agent, limits)| {
            let usage = self.pool.usage(agent);
            AgentUse { agent: agent.clone(), capacity: limits.max, in_use: usage.in_use, queued: usage.waiting }
        });
        agents.collect()
    }

    /// Places that are free.
    pub fn free_places(&self) -> usize {
        self.pool.free_places()
    }

    /// Whether it holds a lease and takes tasks.
    pub fn is_live(&self) -> bool {
        self.current.borrow().is_some()
    }

    fn instance(&self) -> Option<Arc<Instance>> {
        self.current.borrow().clone()
    }

    fn ready(&self) -> Result<Arc<Instance>, PortError> {
        self.instance().ok_or_else(|| PortError { what: "taking the change", reason: "the runner is starting".to_owned() })
    }
}

fn gone() -> PortError {
    PortError { what: "taking the change", reason: "the runner is gone".to_owned() }
}

impl Instance {
    fn new(runner: &Runner) -> Arc<Self> {
        let world = &runner.ports.world;
        let id = InstanceId(format!("{:016x}{:016x}", world.random(), world.random()));
        Arc::new(Self {
            id,
            ports: runner.ports.clone(),
            settings: Arc::clone(&runner.settings),
            index: Index::new(runner.settings.places + runner.settings.wake_reserve / 2, runner.settings.wake_reserve),
            pool: runner.pool.clone(),
            stopping: runner.stopping.clone(),
            held: Mutex::default(),
            doubts: Mutex::default(),
            stamps: AtomicU64::new(0),
        })
    }

    /// Writes the lease document, then the list: nothing is admitted before.
    async fn begin(&self) {
        let lease = LeaseDoc { instance: self.id.clone(), beat: 0, seat: self.settings.seat.clone(), fenced_by: None, entries: Vec::new() };
        let key = lease_key(&self.id);
        let created = |document: &Document| serde_json::from_slice::<LeaseDoc>(&document.value).is_ok_and(|found| found.beat == 0);
        while let Ok(value) = serde_json::to_vec(&lease) {
            let save = Save { key: key.clone(), value: value.into(), guard: Guard::Absent, ttl: None };
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
    async fn live(self: &Arc<Self>, predecessor: Option<InstanceId>) {
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
            let doubts: Vec<TaskId> = self.doubts().keys().copied().collect();
            for tasks in doubts.chunks(TOGETHER) {
                join_all(tasks.iter().map(|task| self.settle_doubts(*task))).await;
            }
            let held: Vec<TaskId> = self.held().keys().map(|(task, _)| *task).collect();
            for tasks in held.chunks(128) {
                let Ok(documents) = self.ports.store.get_many(tasks.iter().copied().map(key).collect()).await else { continue };
                for (task, document) in tasks.iter().zip(documents) {
                    let Some(doc) = document.and_then(|document| serde_json::from_slice::<TaskDoc>(&document.value).ok()) else { continue };
                    let undelivered = doc.approval.as_ref().is_some_and(|approval| approval.decision.is_some() && !approval.told);
                    if doc.owner.as_ref() != Some(&self.id) || doc.cancel_requested.is_some() || doc.deadline_passed || undelivered {
                        self.poke(*task);
                    }
                }
            }
        }
    }

    async fn settle_doubts(self: &Arc<Self>, task: TaskId) {
        loop {
            let Some(doubt) = self.doubts().get(&task).and_then(VecDeque::front).cloned() else { return };
            if !self.settle_doubt(task, doubt).await {
                return;
            }
            let mut doubts = self.doubts();
            if let Some(list) = doubts.get_mut(&task) {
                list.pop_front();
                if list.is_empty() {
                    doubts.remove(&task);
                }
            }
        }
    }

    /// Finds out what became of a write that may have happened; false when that has to wait. Its index entry is let go only when that write can no
    /// longer happen, and what it did, if it did, is taken care of.
    async fn settle_doubt(self: &Arc<Self>, task: TaskId, Doubt { guard, stamp, purpose }: Doubt) -> bool {
        let Ok(found) = self.ports.store.get(key(task)).await else { return false };
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
            if !matches!(self.save(doc, guard).await, (Ok(Saved::Written), _)) {
                return false;
            }
        } else if guard == Guard::Absent && doc.born != stamp {
            // Somebody else made the document, so that write never came to be and never will.
        } else if doc.owner.as_ref() == Some(&self.id) && !self.is_driven(&doc) {
            // An admission that holds it may still come to nothing.
            let Some(hold) = self.hold(&doc) else { return false };
            if self.index.add(task, Purpose::Run).await.is_err() {
                return false;
            }
            drive::adopt(self, doc, hold);
        } else if doc.owner.is_none() && !doc.outbox.is_empty() {
            // What the write had to say may be in there, whoever has written since: a takeover rewrites what it does not change.
            // The doubt's hold on the index entry goes with the outbox.
            drive::settle(self, doc, purpose);
            return true;
        }
        // Its driver, if it has one, has an index entry of its own and sends its outbox.
        self.index.remove(task, purpose);
        true
    }

    /// Remembers a write that may have happened; the caller leaves its index entry in place.
    pub(super) fn doubt(&self, doc: TaskDoc, guard: Guard, purpose: Purpose) {
        self.doubts().entry(doc.task_id).or_default().push_back(Doubt { guard, stamp: doc.stamp, purpose });
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
        let value = match serde_json::to_vec(&doc) {
            Ok(value) => value.into(),
            Err(error) => return (Err(PortError { what: "writing a task", reason: error.to_string() }), doc),
        };
        let ttl = (doc.ended() || doc.request.is_none()).then_some(self.settings.keep_ended);
        (self.ports.store.save(Save { key: key(doc.task_id), value, guard, ttl }).await, doc)
    }

    /// Reads a task document.
    pub(super) async fn load(&self, task: TaskId) -> Result<Option<(TaskDoc, Guard)>, PortError> {
        let Some(found) = self.ports.store.get(key(task)).await? else { return Ok(None) };
        let doc = serde_json::from_slice(&found.value).map_err(|error| PortError { what: "reading a task", reason: error.to_string() })?;
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

    fn is_driven(&self, doc: &TaskDoc) -> bool {
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

    fn held(&self) -> MutexGuard<'_, BTreeMap<(TaskId, u32), Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn doubts(&self) -> MutexGuard<'_, BTreeMap<TaskId, VecDeque<Doubt>>> {
        self.doubts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Doubts settled side by side.
const TOGETHER: usize = 16;

/// Longest answer to a delivery: within the time limit of the handlers, which counts against the event.
const DELIVERY_MAX: Duration = Duration::from_secs(45);

/// Wait before a failed call is made again.
pub(super) const RETRY: Duration = Duration::from_millis(200);
