//! The order in which the waiting tasks of one agent get its sandboxes. Pure: time comes in, and nothing but what is called changes it.
//!
//! First by urgency: `P1` before `P2` before `P3`, and who has waited for a while counts as one step more urgent, again and again until it counts as `P1`. Among
//! the equally urgent requesters take turns, one task each; of one requester's tasks the first comes first. Always true:
//! * A requester who comes, or comes back, has their turn after all who wait already. So nobody gains by many tasks, nor by being new, and a requester who does not
//!   wait is forgotten: there is nothing to remember.
//! * Whoever counts as `P1` is served after at most as many others as there are requesters at that moment, for each task of their own before it.
//!
//! Lost: virtual times (fair queueing by start tags), where an endless row of new requesters starts at the time of now and passes who was served before; and strict
//! order of arrival for who has waited long, where an old flood would hold up everybody once more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fte_events::Priority;

/// `P1`, `P2` and `P3`.
const CLASSES: usize = 3;

/// What waits, in order.
pub(super) struct Queue<T> {
    ageing: Duration,
    classes: [Class; CLASSES],
    /// By ticket, which count arrivals.
    waiting: BTreeMap<u64, Entry<T>>,
    arrivals: u64,
}

struct Entry<T> {
    requester: Arc<str>,
    class: usize,
    /// When it counts as more urgent.
    due: Duration,
    item: T,
}

/// The equally urgent.
#[derive(Default)]
struct Class {
    /// Whose turn it is, and whose is next.
    turns: BTreeMap<u64, Arc<str>>,
    shares: BTreeMap<Arc<str>, Share>,
    last_turn: u64,
    /// Which tickets become more urgent when.
    due: BTreeSet<(Duration, u64)>,
}

/// What waits of one requester.
struct Share {
    turn: u64,
    tickets: BTreeSet<u64>,
}

impl Class {
    fn insert(&mut self, ticket: u64, requester: &Arc<str>, due: Duration) {
        self.due.insert((due, ticket));
        if let Some(share) = self.shares.get_mut(requester) {
            share.tickets.insert(ticket);
            return;
        }
        let share = Share { turn: self.next_turn(requester), tickets: BTreeSet::from([ticket]) };
        self.shares.insert(Arc::clone(requester), share);
    }

    fn remove(&mut self, ticket: u64, requester: &Arc<str>, due: Duration) {
        self.due.remove(&(due, ticket));
        let Some(share) = self.shares.get_mut(requester) else { return };
        share.tickets.remove(&ticket);
        if share.tickets.is_empty() {
            self.turns.remove(&share.turn);
            self.shares.remove(requester);
        }
    }

    /// The requester was served: the others first.
    fn rotate(&mut self, requester: &Arc<str>) {
        let Some(before) = self.shares.get(requester).map(|share| share.turn) else { return };
        self.turns.remove(&before);
        let turn = self.next_turn(requester);
        if let Some(share) = self.shares.get_mut(requester) {
            share.turn = turn;
        }
    }

    fn next_turn(&mut self, requester: &Arc<str>) -> u64 {
        self.last_turn += 1;
        self.turns.insert(self.last_turn, Arc::clone(requester));
        self.last_turn
    }

    /// The tickets of those whose turn it is, theirs before those of the next.
    fn in_turn(&self) -> impl Iterator<Item = u64> {
        self.turns.values().filter_map(|requester| self.shares.get(requester)).flat_map(|share| share.tickets.iter().copied())
    }
}

impl<T> Queue<T> {
    /// Who has waited for `ageing` counts as one step more urgent.
    pub(super) fn new(ageing: Duration) -> Self {
        Self { ageing, classes: Default::default(), waiting: BTreeMap::new(), arrivals: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Lets an item wait that has waited since `since`; gives its ticket.
    pub(super) fn push(&mut self, now: Duration, since: Duration, priority: Priority, requester: &Arc<str>, item: T) -> u64 {
        // Whoever counts as more urgent by now is there before.
        self.age(now);
        self.arrivals += 1;
        let ticket = self.arrivals;
        let class = match priority {
            Priority::P1 => 0,
            Priority::P2 => 1,
            Priority::P3 => 2,
        };
        let due = since.saturating_add(self.ageing);
        self.classes[class].insert(ticket, requester, due);
        self.waiting.insert(ticket, Entry { requester: Arc::clone(requester), class, due, item });
        ticket
    }

    /// Takes an item out, out of turn.
    pub(super) fn remove(&mut self, ticket: u64) -> Option<T> {
        let entry = self.waiting.remove(&ticket)?;
        self.classes[entry.class].remove(ticket, &entry.requester, entry.due);
        Some(entry.item)
    }

    /// Takes the next item out that may go, and with it the turn of its requester. Looks at each that may not: the queue is bounded.
    pub(super) fn pop(&mut self, now: Duration, may_go: impl Fn(&T) -> bool) -> Option<T> {
        self.age(now);
        let can = |ticket: &u64| self.waiting.get(ticket).is_some_and(|entry| may_go(&entry.item));
        let ticket = self.classes.iter().flat_map(Class::in_turn).find(can)?;
        let entry = self.waiting.remove(&ticket)?;
        let class = &mut self.classes[entry.class];
        class.remove(ticket, &entry.requester, entry.due);
        class.rotate(&entry.requester);
        Some(entry.item)
    }

    /// How many are served up to this one, if nobody comes and each may go.
    pub(super) fn position(&mut self, now: Duration, ticket: u64) -> Option<usize> {
        self.age(now);
        let entry = self.waiting.get(&ticket)?;
        let ahead: usize =
            self.classes[..entry.class].iter().flat_map(|class| class.shares.values()).map(|share| share.tickets.len()).sum();
        let class = &self.classes[entry.class];
        let mine = class.shares.get(&entry.requester)?;
        let rounds = mine.tickets.range(..ticket).count();
        let beside = class.shares.values().map(|share| {
            let rounds = if share.turn <= mine.turn { rounds + 1 } else { rounds };
            share.tickets.len().min(rounds)
        });
        Some(ahead + beside.sum::<usize>())
    }

    /// Who has waited long enough goes on to the more urgent.
    fn age(&mut self, now: Duration) {
        for class in (1..CLASSES).rev() {
            while let Some((due, ticket)) = self.classes[class].due.first().copied().filter(|(due, _)| *due <= now) {
                let Some(entry) = self.waiting.get_mut(&ticket) else { return };
                self.classes[class].remove(ticket, &entry.requester, due);
                (entry.class, entry.due) = (class - 1, due.saturating_add(self.ageing));
                self.classes[class - 1].insert(ticket, &entry.requester, entry.due);
            }
        }
    }
}

#[cfg(test)]
mod tests;
