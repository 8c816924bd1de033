//! The index and lease of one instance, in one document: the tasks it is responsible for, and a beat that shows it is alive.
//!
//! One loop owns the document and writes what has changed since its last write, so that concurrent changes travel together. An `add` is
//! durable, by a write that began after the call, when it returns; removals ride along with later writes. When the document was changed by
//! anybody else, or could not be renewed in time, the instance is fenced, for good.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fte_events::TaskId;
use futures_util::future::{Either, select};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, oneshot, watch};

use crate::document::InstanceId;
use crate::ports::{ETag, Guard, Ports, Save, Saved};

/// Why an instance is responsible for a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It runs it.
    Run,
    /// It is moving it on: its outbox has to go out.
    Wake,
}

/// Why a task was not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AddError {
    /// Too many entries.
    Full,
    /// This instance is over.
    Fenced,
}

/// The document `runner/{instance}`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct LeaseDoc {
    pub(super) instance: InstanceId,
    /// Changes with every write.
    pub(super) beat: u64,
    /// What only one process can hold, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) seat: Option<String>,
    /// Who ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) fenced_by: Option<InstanceId>,
    pub(super) entries: Vec<TaskId>,
}

/// The key of an instance's document.
pub(super) fn key(instance: &InstanceId) -> String {
    format!("runner/{}", instance.0)
}

#[derive(Clone)]
pub(super) struct Index {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Notify,
    fenced: watch::Sender<bool>,
    run_max: usize,
    total_max: usize,
}

#[derive(Default)]
struct State {
    /// How often each task is held, by purpose: an entry stays until the last holder lets go.
    entries: BTreeMap<TaskId, [u32; 2]>,
    waiting: Vec<oneshot::Sender<()>>,
}

impl Index {
    pub(super) fn new(run_max: usize, wake_reserve: usize) -> Self {
        let shared = Shared {
            state: Mutex::default(),
            changed: Notify::new(),
            fenced: watch::Sender::new(false),
            run_max,
            total_max: run_max + wake_reserve,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Becomes responsible for a task; durable on return. A caller that stops waiting leaves the entry behind: see `Doubts`.
    pub(super) async fn add(&self, task: TaskId, purpose: Purpose) -> Result<(), AddError> {
        self.begin_add(task, purpose)?.await
    }

    /// Begins to become responsible for a task, which is durable when what this gives back is ready.
    pub(super) fn begin_add(&self, task: TaskId, purpose: Purpose) -> Result<impl Future<Output = Result<(), AddError>> + use<>, AddError> {
        let written = {
            let mut state = self.state();
            if self.is_fenced() {
                return Err(AddError::Fenced);
            }
            let max = if purpose == Purpose::Run { self.shared.run_max } else { self.shared.total_max };
            if state.entries.len() >= max && !state.entries.contains_key(&task) {
                return Err(AddError::Full);
            }
            state.entries.entry(task).or_default()[purpose as usize] += 1;
            let (sender, receiver) = oneshot::channel();
            state.waiting.push(sender);
            receiver
        };
        self.shared.changed.notify_one();
        Ok(async { written.await.map_err(|_| AddError::Fenced) })
    }

    /// Lets go of one hold on a task; the entry leaves the document with a later write.
    pub(super) fn remove(&self, task: TaskId, purpose: Purpose) {
        let mut state = self.state();
        if let Some(holds) = state.entries.get_mut(&task) {
            holds[purpose as usize] = holds[purpose as usize].saturating_sub(1);
            if *holds == [0, 0] {
                state.entries.remove(&task);
            }
        }
    }

    pub(super) fn is_fenced(&self) -> bool {
        *self.shared.fenced.borrow()
    }

    /// Ends this instance: whoever waits is told.
    pub(super) fn fence(&self) {
        self.shared.fenced.send_replace(true);
        self.state().waiting.clear();
        self.shared.changed.notify_one();
    }

    /// Resolves when the instance is over.
    pub(super) async fn fenced(&self) {
        let mut watcher = self.shared.fenced.subscribe();
        // The sender lives in `self`: waiting cannot fail.
        drop(watcher.wait_for(|fenced| *fenced).await);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the document until the instance is over. `etag` is that of the document just created at `beat` 0.
    pub(super) async fn keep(self, ports: Ports, instance: InstanceId, seat: Option<String>, renew: Duration, self_fence: Duration) {
        let keeper = Keeper { index: self.clone(), ports, key: key(&instance), instance, seat };
        let mut beat = 0;
        let mut etag = None;
        let mut renewed_at = keeper.ports.world.monotonic();
        while !self.is_fenced() {
            let deadline = renewed_at + self_fence;
            let Some(current) = keeper.within(deadline, keeper.etag_of(beat, etag.take())).await.flatten() else { break };
            let changed = Box::pin(self.shared.changed.notified());
            let has_waiting = !self.state().waiting.is_empty();
            if !has_waiting {
                // Never past the deadline: a keeper that cannot renew any more ends in time.
                let left = deadline.saturating_sub(keeper.ports.world.monotonic());
                select(changed, keeper.ports.world.sleep(renew.min(left))).await;
            }
            if self.is_fenced() {
                break;
            }
            let started_at = keeper.ports.world.monotonic();
            let (entries, waiting) = {
                let mut state = self.state();
                (state.entries.keys().copied().collect::<Vec<_>>(), std::mem::take(&mut state.waiting))
            };
            beat += 1;
            if keeper.within(deadline, keeper.write(beat, entries, current)).await != Some(true) {
                break;
            }
            renewed_at = started_at;
            for waiter in waiting {
                // A waiter that went away keeps its entry; that is the careful side.
                let _gone = waiter.send(());
            }
        }
        self.fence();
    }
}

struct Keeper {
    index: Index,
    ports: Ports,
    key: String,
    instance: InstanceId,
    seat: Option<String>,
}

impl Keeper {
    /// The outcome, unless the monotonic clock passes `deadline` or the instance is fenced first.
    async fn within<T>(&self, deadline: Duration, work: impl Future<Output = T> + Send) -> Option<T> {
        let left = deadline.checked_sub(self.ports.world.monotonic())?;
        let over = Box::pin(async {
            select(Box::pin(self.index.fenced()), self.ports.world.sleep(left)).await;
        });
        match select(Box::pin(work), over).await {
            Either::Left((value, _)) => Some(value),
            Either::Right(_) => None,
        }
    }

    /// The ETag of the document as this keeper wrote it last; none when somebody else changed it.
    async fn etag_of(&self, beat: u64, known: Option<ETag>) -> Option<ETag> {
        if known.is_some() {
            return known;
        }
        loop {
            match self.ports.store.get(self.key.clone()).await {
                Ok(Some(document)) => {
                    let lease: LeaseDoc = serde_json::from_slice(&document.value).ok()?;
                    return (lease.beat == beat && lease.fenced_by.is_none()).then_some(document.etag);
                }
                Ok(None) => return None,
                Err(_) => self.ports.world.sleep(RETRY).await,
            }
        }
    }

    /// Whether the document now says this beat. A write whose answer was lost is looked for, and repeated if it did not happen.
    async fn write(&self, beat: u64, entries: Vec<TaskId>, mut etag: ETag) -> bool {
        let lease = LeaseDoc { instance: self.instance.clone(), beat, seat: self.seat.clone(), fenced_by: None, entries };
        let Ok(value) = serde_json::to_vec(&lease) else { return false };
        let value = bytes::Bytes::from(value);
        loop {
            let save = Save { key: self.key.clone(), value: value.clone(), guard: Guard::Unchanged(etag.clone()), ttl: None };
            match self.ports.store.save(save).await {
                Ok(Saved::Written) => return true,
                Ok(Saved::Conflict) => {}
                Err(_) => self.ports.world.sleep(RETRY).await,
            }
            if self.etag_of(beat, None).await.is_some() {
                return true;
            }
            match self.etag_of(beat - 1, None).await {
                Some(unchanged) => etag = unchanged,
                None => return false,
            }
        }
    }
}

/// Wait before a failed call is made again.
const RETRY: Duration = Duration::from_millis(200);
