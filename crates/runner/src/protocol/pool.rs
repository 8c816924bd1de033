//! Places and sandboxes of this process.
//!
//! A place is the right to be responsible for a task; a slot is a sandbox of one agent. Both are given back when dropped. Places go by arrival: an agent has as
//! many as it has sandboxes and may have tasks waiting for them (`max + queue`), all agents together so many as this process bears. Slots go in the order of
//! the agent's [`Queue`], at its rate, and never to two tasks of one key.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fte_events::{Priority, TaskId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::pace::Pace;
use super::queue::Queue;
use super::runner::Standing;
use crate::metrics;
use crate::ports::World;
use crate::settings::{AgentLimits, Settings};

/// A full queue that moves on within this time is not called full: who is sent away would come back to find it empty.
const MOMENT: Duration = Duration::from_secs(5);

/// The right to be responsible for one task.
pub(super) struct Place {
    #[expect(dead_code, reason = "given back when dropped")]
    permits: (Option<OwnedSemaphorePermit>, OwnedSemaphorePermit),
}

/// What has no place for another task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// The agent's queue.
    Queue,
    /// This process.
    Process,
}

/// What tasks of which only one runs at a time have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key(pub(super) String);

/// Who waits for a slot.
#[derive(Clone)]
pub(super) struct Ask {
    pub(super) task: TaskId,
    pub(super) priority: Priority,
    pub(super) requester: Arc<str>,
    pub(super) key: Option<Key>,
    /// Since when, by the monotonic clock.
    pub(super) since: Duration,
}

/// One sandbox of an agent, held.
pub(super) struct Slot {
    pool: Arc<AgentPool>,
    number: u32,
    /// Sandboxes of the agent in use, this one included, when it was given.
    pub(super) in_use: u32,
    /// When it was given.
    given_at: Duration,
    /// How long it was waited for.
    pub(super) waited: Duration,
    key: Option<KeyHold>,
}

/// A key, held: no other task of this process gets a slot with it.
pub(super) struct KeyHold {
    pool: Arc<AgentPool>,
    key: Key,
}

/// How much of an agent's pool is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) in_use: u32,
    pub(super) waiting: u32,
}

#[derive(Clone)]
pub(super) struct Pool {
    places: Arc<Semaphore>,
    agents: Arc<BTreeMap<String, Arc<AgentPool>>>,
}

struct AgentPool {
    name: String,
    max: u32,
    places: Arc<Semaphore>,
    world: Arc<dyn World>,
    state: Mutex<State>,
}

struct State {
    /// Numbers that were in use and are free again; the lowest is used next.
    returned: BinaryHeap<Reverse<u32>>,
    /// The lowest number that was never used.
    fresh: u32,
    queue: Queue<Waiter>,
    tickets: BTreeMap<TaskId, u64>,
    keys: BTreeSet<Key>,
    pace: Pace,
    /// Somebody will look again when the rate allows the next start.
    will_look: bool,
    /// Since when deliveries are held for a place of this agent.
    held: BTreeSet<(Duration, u64)>,
    held_before: u64,
}

struct Waiter {
    task: TaskId,
    key: Option<Key>,
    give: oneshot::Sender<Slot>,
}

/// A place in an agent's queue, left when dropped.
struct Waiting<'a> {
    pool: &'a AgentPool,
    task: TaskId,
    ticket: u64,
}

/// A delivery that is held for a place.
struct Held<'a> {
    pool: &'a AgentPool,
    which: (Duration, u64),
}

impl<'a> Held<'a> {
    fn begin(pool: &'a AgentPool) -> Self {
        let now = pool.world.monotonic();
        let mut state = pool.state();
        state.held_before += 1;
        let which = (now, state.held_before);
        state.held.insert(which);
        Self { pool, which }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.pool.state().held.remove(&self.which);
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.pool.state();
        let left = state.queue.remove(self.ticket);
        if left.is_some() {
            state.tickets.remove(&self.task);
            self.pool.show(&state);
        }
        drop(state);
        drop(left);
    }
}

impl Pool {
    pub(super) fn new(settings: &Settings, world: &Arc<dyn World>) -> Self {
        let agent = |(name, limits): (&String, &AgentLimits)| {
            let state = State {
                returned: BinaryHeap::new(),
                fresh: 0,
                queue: Queue::new(settings.ageing),
                tickets: BTreeMap::new(),
                keys: BTreeSet::new(),
                pace: Pace::new(limits.rate),
                will_look: false,
                held: BTreeSet::new(),
                held_before: 0,
            };
            let places = limits.max as usize + limits.queue as usize;
            let pool = AgentPool {
                name: name.clone(),
                max: limits.max,
                places: Arc::new(Semaphore::new(places)),
                world: Arc::clone(world),
                state: Mutex::new(state),
            };
            (name.clone(), Arc::new(pool))
        };
        let places = Arc::new(Semaphore::new(settings.places));
        Self { places, agents: Arc::new(settings.agents.iter().map(agent).collect()) }
    }

    /// A place for a task of this agent, if one is free and nobody waits for it. What has no agent takes one of the process alone.
    pub(super) fn try_place(&self, agent: &str) -> Result<Place, Full> {
        let own = match self.agents.get(agent) {
            Some(pool) => Some(Arc::clone(&pool.places).try_acquire_owned().map_err(|_| Full::Queue)?),
            None => None,
        };
        let all = Arc::clone(&self.places).try_acquire_owned().map_err(|_| Full::Process)?;
        Ok(Place { permits: (own, all) })
    }

    /// A place, as soon as one is free.
    pub(super) async fn place(&self, agent: &str) -> Option<Place> {
        let own = match self.agents.get(agent) {
            Some(pool) => {
                let _held = Held::begin(pool);
                Some(Arc::clone(&pool.places).acquire_owned().await.ok()?)
            }
            None => None,
        };
        let all = Arc::clone(&self.places).acquire_owned().await.ok()?;
        Some(Place { permits: (own, all) })
    }

    /// Places that are free.
    pub(super) fn free_places(&self) -> usize {
        self.places.available_permits()
    }

    /// A sandbox for a task without a key, if one is free now and nobody waits for it.
    pub(super) fn try_slot(&self, agent: &str) -> Option<Slot> {
        let pool = self.agents.get(agent)?;
        let mut state = pool.state();
        if !state.queue.is_empty() {
            return None;
        }
        let now = pool.world.monotonic();
        if state.pace.wait(now).is_some() { None } else { pool.take(&mut state, now, None) }
    }

    /// A sandbox, when it is this task's turn. Who holds the key of the task already does not wait for it. None when the agent is unknown.
    pub(super) async fn slot(&self, agent: &str, ask: Ask, mut held: Option<KeyHold>) -> Option<Slot> {
        let pool = self.agents.get(agent)?;
        loop {
            let (give, given) = oneshot::channel();
            let _waiting = {
                let mut state = pool.state();
                let key = if held.is_some() { None } else { ask.key.clone() };
                let waiter = Waiter { task: ask.task, key, give };
                let ticket = state.queue.push(pool.world.monotonic(), ask.since, ask.priority, &ask.requester, waiter);
                state.tickets.insert(ask.task, ticket);
                pool.show(&state);
                Waiting { pool, task: ask.task, ticket }
            };
            pool.serve();
            if let Ok(mut slot) = given.await {
                slot.waited = slot.given_at.saturating_sub(ask.since);
                if held.is_some() {
                    slot.key = held.take();
                }
                return Some(slot);
            }
        }
    }

    /// How an agent's pool is used.
    pub(super) fn usage(&self, agent: &str) -> Usage {
        let Some(pool) = self.agents.get(agent) else { return Usage { in_use: 0, waiting: 0 } };
        let state = pool.state();
        Usage { in_use: pool.in_use(&state), waiting: u32::try_from(state.queue.len()).unwrap_or(u32::MAX) }
    }

    /// Whether an agent has no place for another task, and will not have one in a moment.
    pub(super) fn is_full(&self, agent: &str) -> bool {
        let Some(pool) = self.agents.get(agent).filter(|pool| pool.places.available_permits() == 0) else { return false };
        let now = pool.world.monotonic();
        let state = pool.state();
        let drained_in = state.pace.estimate(now, state.queue.len());
        let held = state.held.first().map_or(Duration::ZERO, |(since, _)| now.saturating_sub(*since));
        drained_in.is_none_or(|drained_in| drained_in >= MOMENT) || held >= MOMENT
    }

    /// Whether no sandbox is free for a task of this agent, but one may be within so long.
    pub(super) fn is_free_within(&self, agent: &str, limit: Duration) -> bool {
        let Some(pool) = self.agents.get(agent) else { return false };
        let now = pool.world.monotonic();
        let state = pool.state();
        let is_free = state.queue.is_empty() && pool.has_free(&state) && state.pace.wait(now).is_none();
        !is_free && state.pace.estimate(now, state.queue.len() + 1).is_some_and(|estimate| estimate < limit)
    }

    /// When all that waits for an agent now will have had its turn, as far as the last starts show.
    pub(super) fn drained_in(&self, agent: &str) -> Option<Duration> {
        let pool = self.agents.get(agent)?;
        let now = pool.world.monotonic();
        let state = pool.state();
        state.pace.estimate(now, state.queue.len())
    }

    /// Where a task stands that waits for a sandbox here.
    pub(super) fn position(&self, task: TaskId) -> Option<Standing> {
        self.agents.values().find_map(|pool| {
            let now = pool.world.monotonic();
            let mut state = pool.state();
            let ticket = *state.tickets.get(&task)?;
            let position = state.queue.position(now, ticket)?;
            Some(Standing { position, waiting: state.queue.len(), estimate: state.pace.estimate(now, position) })
        })
    }
}

impl AgentPool {
    /// Gives slots to those whose turn it is, while there are any.
    fn serve(self: &Arc<Self>) {
        // What is refused is dropped outside the lock, for it locks again.
        let mut refused = Vec::new();
        let mut look_in = None;
        let mut state = self.state();
        let served = state.queue.len();
        while !state.queue.is_empty() && self.has_free(&state) {
            let now = self.world.monotonic();
            if let Some(wait) = state.pace.wait(now) {
                look_in = (!std::mem::replace(&mut state.will_look, true)).then_some(wait);
                break;
            }
            let State { queue, keys, .. } = &mut *state;
            let Some(waiter) = queue.pop(now, |waiter| waiter.key.as_ref().is_none_or(|key| !keys.contains(key))) else { break };
            state.tickets.remove(&waiter.task);
            if waiter.give.is_closed() {
                continue;
            }
            let Some(slot) = self.take(&mut state, now, waiter.key) else { break };
            refused.extend(waiter.give.send(slot).err());
        }
        if state.queue.len() != served {
            self.show(&state);
        }
        drop(state);
        refused.into_iter().for_each(|slot| drop(slot.give_back()));
        if let Some(wait) = look_in {
            self.look_in(wait);
        }
    }

    /// Looks again when the rate allows the next start.
    fn look_in(self: &Arc<Self>, wait: Duration) {
        let pool = Arc::clone(self);
        self.world.spawn(Box::pin(async move {
            pool.world.sleep(wait).await;
            pool.state().will_look = false;
            pool.serve();
        }));
    }

    fn take(self: &Arc<Self>, state: &mut State, now: Duration, key: Option<Key>) -> Option<Slot> {
        if !self.has_free(state) {
            return None;
        }
        let number = match state.returned.pop() {
            Some(Reverse(number)) => number,
            None => {
                state.fresh += 1;
                state.fresh - 1
            }
        };
        state.pace.started(now);
        let key = key.map(|key| {
            state.keys.insert(key.clone());
            KeyHold { pool: Arc::clone(self), key }
        });
        Some(Slot { pool: Arc::clone(self), number, in_use: self.in_use(state), given_at: now, waited: Duration::ZERO, key })
    }

    fn has_free(&self, state: &State) -> bool {
        state.fresh < self.max || !state.returned.is_empty()
    }

    fn in_use(&self, state: &State) -> u32 {
        state.fresh - u32::try_from(state.returned.len()).unwrap_or(u32::MAX)
    }

    fn show(&self, state: &State) {
        metrics::queued(&self.name, state.queue.len());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// The sandbox's name.
    pub(super) fn sandbox_id(&self) -> String {
        format!("{}-{}", self.pool.name, self.number)
    }

    /// Nothing was started with it: it does not count as a start. The key, if it came with one, is kept.
    pub(super) fn give_back(mut self) -> Option<KeyHold> {
        self.pool.state().pace.not_started(self.given_at);
        self.key.take()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.pool.state().returned.push(Reverse(self.number));
        self.pool.serve();
    }
}

impl Drop for KeyHold {
    fn drop(&mut self) {
        self.pool.state().keys.remove(&self.key);
        self.pool.serve();
    }
}

#[cfg(test)]
mod tests;
