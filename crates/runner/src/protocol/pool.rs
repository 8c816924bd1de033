//! Places and sandboxes of this process.
//!
//! A place is the right to be responsible for a task; a slot is a sandbox of one agent. Both are given back when dropped. Slots go to waiting
//! tasks by priority, then by arrival; places by arrival.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fte_events::Priority;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// The right to be responsible for one task.
pub(super) struct Place(#[expect(dead_code, reason = "given back when dropped")] OwnedSemaphorePermit);

/// One sandbox of an agent, held.
pub(super) struct Slot {
    pool: Pool,
    agent: String,
    number: u32,
    /// Sandboxes of the agent in use, this one included, when it was given.
    pub(super) in_use: u32,
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
    agents: Arc<Mutex<BTreeMap<String, AgentPool>>>,
}

struct AgentPool {
    max: u32,
    /// Numbers that were in use and are free again; the lowest is used next.
    returned: BinaryHeap<Reverse<u32>>,
    /// The lowest number that was never used.
    fresh: u32,
    waiting: BTreeMap<(Priority, u64), oneshot::Sender<Slot>>,
    arrivals: u64,
}

impl AgentPool {
    fn new(max: u32) -> Self {
        Self { max, returned: BinaryHeap::new(), fresh: 0, waiting: BTreeMap::new(), arrivals: 0 }
    }

    fn in_use(&self) -> u32 {
        self.fresh - u32::try_from(self.returned.len()).unwrap_or(u32::MAX)
    }
}

/// A place in an agent's queue, left when dropped.
struct Waiting<'a> {
    pool: &'a Pool,
    agent: &'a str,
    turn: (Priority, u64),
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let left = self.pool.agents().get_mut(self.agent).and_then(|pool| pool.waiting.remove(&self.turn));
        drop(left);
    }
}

impl Pool {
    pub(super) fn new(places: usize, agents: impl Iterator<Item = (String, u32)>) -> Self {
        let agents = agents.map(|(agent, max)| (agent, AgentPool::new(max)));
        Self { places: Arc::new(Semaphore::new(places)), agents: Arc::new(Mutex::new(agents.collect())) }
    }

    /// A place, if one is free and nobody waits for it.
    pub(super) fn try_place(&self) -> Option<Place> {
        Arc::clone(&self.places).try_acquire_owned().ok().map(Place)
    }

    /// A place, as soon as one is free.
    pub(super) async fn place(&self) -> Option<Place> {
        Arc::clone(&self.places).acquire_owned().await.ok().map(Place)
    }

    /// Places that are free.
    pub(super) fn free_places(&self) -> usize {
        self.places.available_permits()
    }

    /// A sandbox, if one is free and nobody waits for it.
    pub(super) fn try_slot(&self, agent: &str) -> Option<Slot> {
        let mut agents = self.agents();
        let pool = agents.get_mut(agent)?;
        if pool.waiting.is_empty() { self.take(agent, pool) } else { None }
    }

    /// A sandbox, in the order of priority and arrival. None when the agent is unknown.
    pub(super) async fn slot(&self, agent: &str, priority: Priority) -> Option<Slot> {
        loop {
            let (given, _waiting) = {
                let mut agents = self.agents();
                let pool = agents.get_mut(agent)?;
                if pool.waiting.is_empty()
                    && let Some(slot) = self.take(agent, pool)
                {
                    return Some(slot);
                }
                pool.arrivals += 1;
                let (sender, receiver) = oneshot::channel();
                let turn = (priority, pool.arrivals);
                pool.waiting.insert(turn, sender);
                (receiver, Waiting { pool: self, agent, turn })
            };
            if let Ok(slot) = given.await {
                return Some(slot);
            }
        }
    }

    /// How an agent's pool is used.
    pub(super) fn usage(&self, agent: &str) -> Usage {
        let agents = self.agents();
        agents.get(agent).map_or(Usage { in_use: 0, waiting: 0 }, |pool| Usage {
            in_use: pool.in_use(),
            waiting: u32::try_from(pool.waiting.len()).unwrap_or(u32::MAX),
        })
    }

    fn take(&self, agent: &str, pool: &mut AgentPool) -> Option<Slot> {
        let number = match pool.returned.pop() {
            Some(Reverse(number)) => number,
            None if pool.fresh < pool.max => {
                pool.fresh += 1;
                pool.fresh - 1
            }
            None => return None,
        };
        Some(Slot { pool: self.clone(), agent: agent.to_owned(), number, in_use: pool.in_use() })
    }

    fn agents(&self) -> MutexGuard<'_, BTreeMap<String, AgentPool>> {
        self.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// The sandbox's name.
    pub(super) fn sandbox_id(&self) -> String {
        format!("{}-{}", self.agent, self.number)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // Handing on happens outside the lock: a refused slot drops, and that locks again.
        let mut refused = None;
        let mut agents = self.pool.agents();
        let Some(pool) = agents.get_mut(&self.agent) else { return };
        pool.returned.push(Reverse(self.number));
        while let Some((_, waiter)) = pool.waiting.pop_first() {
            if waiter.is_closed() {
                continue;
            }
            if let Some(slot) = self.pool.take(&self.agent, pool) {
                refused = waiter.send(slot).err();
            }
            break;
        }
        drop(agents);
        drop(refused);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn pool(max: u32) -> Pool {
        Pool::new(2, std::iter::once(("a".to_owned(), max)))
    }

    #[test]
    fn a_slot_goes_to_the_most_urgent_then_the_first() {
        let pool = pool(1);
        let held = pool.try_slot("a").unwrap();
        let mut late = Box::pin(pool.slot("a", Priority::P2));
        let mut later = Box::pin(pool.slot("a", Priority::P2));
        let mut urgent = Box::pin(pool.slot("a", Priority::P1));
        for waiting in [&mut late, &mut later, &mut urgent] {
            assert!(waiting.as_mut().now_or_never().is_none());
        }
        drop(held);
        let first = urgent.as_mut().now_or_never().flatten().unwrap();
        assert!(late.as_mut().now_or_never().is_none());
        drop(first);
        let second = late.as_mut().now_or_never().flatten().unwrap();
        drop(second);
        assert!(later.as_mut().now_or_never().flatten().is_some());
    }

    #[test]
    fn a_waiter_that_went_away_does_not_swallow_a_slot() {
        let pool = pool(1);
        let held = pool.try_slot("a").unwrap();
        let mut gone = Box::pin(pool.slot("a", Priority::P1));
        assert!(gone.as_mut().now_or_never().is_none());
        drop(gone);
        drop(held);
        assert!(pool.try_slot("a").is_some());
    }

    #[test]
    fn a_slot_given_to_a_waiter_that_then_goes_away_comes_back() {
        let pool = pool(1);
        let held = pool.try_slot("a").unwrap();
        let mut waiting = Box::pin(pool.slot("a", Priority::P1));
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(held);
        drop(waiting);
        assert_eq!(pool.usage("a"), Usage { in_use: 0, waiting: 0 });
    }
}
