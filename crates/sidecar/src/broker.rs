//! What one consumer group does with one topic: a state machine without a clock, without I/O, without bytes.
//!
//! It is told what was published, which instances of the app are up and how calls ended; it says which call to make next
//! and when to be asked again. Always true:
//!
//! * a partition has at most one call in flight, and its records are first delivered in order;
//! * a partition's position moves over a record only when an answer, or a durable dead letter, has settled it;
//! * an instance that cannot be reached costs no retry, and nothing is ever dead-lettered for it;
//! * a record goes to the dead-letter topic only as Dapr's tables say: DROP, or a spent policy, with a topic set.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::resiliency::{Policy, ROUND_PAUSE};

/// An instance of the app, by its place in the options.
pub(crate) type InstanceId = usize;

/// How long records that could not be read wait for the next try.
const UNREADABLE_PAUSE: Duration = Duration::from_millis(200);
/// How long a dead letter that could not be published waits for the next try.
const DEAD_LETTER_PAUSE: Duration = Duration::from_secs(1);

/// What the subscription of an instance asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mode {
    /// Most records of a call; `None` is single mode, one at a time.
    pub(crate) bulk: Option<usize>,
    /// Whether there is a dead-letter topic.
    pub(crate) dead_letter: bool,
}

/// Bounds on calls at one time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Bulk calls in flight at one instance. Few, so that the other partitions gather records meanwhile.
    pub(crate) bulk_calls_max: usize,
    /// A call older than this is held by the app and no longer counts.
    pub(crate) young: Duration,
}

/// What to do next.
#[derive(Debug)]
pub(crate) enum Action {
    Call(Call),
    DeadLetter(DeadLetter),
}

/// Deliver records of one partition. Ends with [`Group::answered`], or [`Group::unreachable`].
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) partition: u16,
    pub(crate) instance: InstanceId,
    /// The first offset.
    pub(crate) from: u64,
    pub(crate) records_max: usize,
    /// On a retry: the offsets still open.
    pub(crate) only: Option<Arc<[u64]>>,
    pub(crate) timeout: Option<Duration>,
    /// Whether the subscription that is called has a dead-letter topic.
    pub(crate) dead_letter: bool,
}

/// Publish records of one partition to the dead-letter topic of `instance`. Ends with [`Group::dead_lettered`].
#[derive(Debug, Clone)]
pub(crate) struct DeadLetter {
    pub(crate) partition: u16,
    pub(crate) instance: InstanceId,
    pub(crate) only: Arc<[u64]>,
}

/// What the app said to one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Done with.
    Success,
    /// To the dead-letter topic if there is one, else done with.
    Drop,
    /// Done with, whatever the topic: a bulk call answered 404.
    Discard,
    /// Again by the policy. `status` is the answer's code, if it had one that says no.
    Retry { status: Option<u16> },
}

/// What became of records, to be counted.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settled {
    pub(crate) succeeded: usize,
    pub(crate) dropped: usize,
    pub(crate) retried: usize,
}

/// One group in one topic.
#[derive(Debug)]
pub(crate) struct Group {
    partitions: Vec<Partition>,
    instances: Vec<(InstanceId, Mode)>,
    policy: Policy,
    bounds: Bounds,
    /// Where the search for a ready partition begins, so that each gets its turn.
    turn: usize,
    stopping: bool,
}

#[derive(Debug)]
struct Partition {
    /// The first offset not settled.
    next: u64,
    /// The next offset that will be published.
    head: u64,
    owner: Option<InstanceId>,
    phase: Phase,
    /// No call before this.
    not_before: Option<Instant>,
    /// Records that were delivered and are not all settled.
    open: Option<Open>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Calling { instance: InstanceId, since: Instant },
    DeadLettering,
}

#[derive(Debug)]
struct Open {
    /// Where the partition goes on once these are settled.
    until: u64,
    /// Offsets to deliver again, ascending.
    pending: Vec<u64>,
    /// Offsets to dead-letter, ascending.
    dead: Vec<u64>,
    /// No dead letter before this: the last one could not be published.
    dead_not_before: Option<Instant>,
    /// Failed tries in this round of the policy.
    failed: u32,
}

impl Group {
    /// A group at `positions`, with nothing published after them that it knows of.
    pub(crate) fn new(positions: &[u64], policy: Policy, bounds: Bounds) -> Self {
        Self {
            partitions: positions
                .iter()
                .map(|next| Partition { next: *next, head: *next, owner: None, phase: Phase::Idle, not_before: None, open: None })
                .collect(),
            instances: Vec::new(),
            policy,
            bounds,
            turn: 0,
            stopping: false,
        }
    }

    /// Everything below `heads` is published.
    pub(crate) fn published(&mut self, heads: &[u64]) {
        for (partition, head) in self.partitions.iter_mut().zip(heads) {
            partition.head = *head;
        }
    }

    /// These instances are up. Partitions move as little as an even share allows; calls in flight stay where they are.
    pub(crate) fn instances(&mut self, up: Vec<(InstanceId, Mode)>) {
        self.instances = up;
        let count = self.instances.len();
        if count == 0 {
            for partition in &mut self.partitions {
                partition.owner = None;
            }
            return;
        }
        let share = self.partitions.len() / count;
        let mut larger = self.partitions.len() % count;
        let mut owned = vec![0_usize; count];
        let mut homeless = VecDeque::new();
        for (index, partition) in self.partitions.iter_mut().enumerate() {
            let at = partition.owner.and_then(|owner| self.instances.iter().position(|(id, _)| *id == owner));
            let keeps = at.filter(|at| {
                if owned[*at] < share {
                    true
                } else if owned[*at] == share && larger > 0 {
                    larger -= 1;
                    true
                } else {
                    false
                }
            });
            match keeps {
                Some(at) => owned[at] += 1,
                None => homeless.push_back(index),
            }
        }
        for (at, owned) in owned.iter_mut().enumerate() {
            while *owned < share || (*owned == share && larger > 0) {
                let Some(index) = homeless.pop_front() else {
                    return;
                };
                if *owned == share {
                    larger -= 1;
                }
                *owned += 1;
                self.partitions[index].owner = Some(self.instances[at].0);
            }
        }
    }

    /// No more calls are begun.
    pub(crate) fn stop(&mut self) {
        self.stopping = true;
    }

    /// The first offset of a partition that is not settled.
    pub(crate) fn position(&self, partition: u16) -> u64 {
        self.partitions[usize::from(partition)].next
    }

    /// Whether a partition is read to its head and nothing of it is open.
    pub(crate) fn caught_up(&self, partition: u16) -> bool {
        let partition = &self.partitions[usize::from(partition)];
        partition.next == partition.head && partition.open.is_none() && partition.phase == Phase::Idle
    }

    /// Whether delivered records of a partition are not settled.
    pub(crate) fn open(&self, partition: u16) -> bool {
        self.partitions[usize::from(partition)].open.is_some()
    }

    /// Records published and not settled.
    pub(crate) fn lag(&self) -> u64 {
        self.partitions.iter().map(|partition| partition.head.saturating_sub(partition.next)).sum()
    }

    /// The next thing to do now, if there is one.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Action> {
        if self.stopping {
            return None;
        }
        let count = self.partitions.len();
        for step in 0..count {
            let index = (self.turn + step) % count;
            let partition = &self.partitions[index];
            let Some(instance) = partition.owner.filter(|_| partition.phase == Phase::Idle) else {
                continue;
            };
            if let Some(only) = partition.dead_letters(now) {
                self.partitions[index].phase = Phase::DeadLettering;
                return Some(Action::DeadLetter(DeadLetter { partition: index as u16, instance, only }));
            }
            let Some(mode) = self.mode(instance).filter(|_| partition.callable(now)) else {
                continue;
            };
            if mode.bulk.is_some() && self.young_calls(instance, now) >= self.bounds.bulk_calls_max {
                continue;
            }
            self.turn = index + 1;
            let partition = &mut self.partitions[index];
            partition.phase = Phase::Calling { instance, since: now };
            let only: Option<Arc<[u64]>> = partition.open.as_ref().map(|open| open.pending.as_slice().into());
            return Some(Action::Call(Call {
                partition: index as u16,
                instance,
                from: only.as_ref().and_then(|only| only.first().copied()).unwrap_or(partition.next),
                records_max: mode.bulk.unwrap_or(1),
                only,
                timeout: self.policy.timeout,
                dead_letter: mode.dead_letter,
            }));
        }
        None
    }

    /// When [`next`](Self::next) may have something without anything else happening.
    pub(crate) fn wake_at(&self, now: Instant) -> Option<Instant> {
        if self.stopping {
            return None;
        }
        let owned = || self.partitions.iter().filter(|partition| partition.owner.is_some());
        let waits = owned().filter(|partition| partition.phase == Phase::Idle).flat_map(|partition| {
            let dead = partition.open.as_ref().and_then(|open| open.dead_not_before);
            [partition.not_before, dead]
        });
        // A partition that could be called now and was not waits for a call to grow old.
        let starved = owned().any(|partition| partition.phase == Phase::Idle && partition.callable(now));
        let ages = owned().map(|partition| match partition.phase {
            Phase::Calling { since, .. } if starved => Some(since + self.bounds.young),
            _ => None,
        });
        waits.chain(ages).flatten().filter(|at| *at > now).min()
    }

    fn mode(&self, instance: InstanceId) -> Option<Mode> {
        self.instances.iter().find(|(id, _)| *id == instance).map(|(_, mode)| *mode)
    }

    fn young_calls(&self, instance: InstanceId, now: Instant) -> usize {
        self.partitions
            .iter()
            .filter(|partition| {
                matches!(partition.phase, Phase::Calling { instance: at, since }
                    if at == instance && now.saturating_duration_since(since) < self.bounds.young)
            })
            .count()
    }

    /// A call was answered: `verdicts` names every record that was sent, ascending. `jitter` is uniform in 0..1.
    /// Without verdicts nothing could be read, and the call is made again a little later.
    pub(crate) fn answered(&mut self, call: &Call, verdicts: &[(u64, Verdict)], now: Instant, jitter: f64) -> Settled {
        // As it was when the call was made: the instance may be gone by now.
        let dead_letter = call.dead_letter;
        let partition = &mut self.partitions[usize::from(call.partition)];
        let mut settled = Settled::default();
        let Some((last, _)) = verdicts.last() else {
            partition.phase = Phase::Idle;
            partition.not_before = Some(now + UNREADABLE_PAUSE);
            return settled;
        };
        let open = partition.open.get_or_insert_with(|| Open {
            until: last + 1,
            pending: verdicts.iter().map(|(offset, _)| *offset).collect(),
            dead: Vec::new(),
            dead_not_before: None,
            failed: 0,
        });
        let failed = open.failed + 1;
        let mut wait: Option<Duration> = None;
        let mut again = Vec::new();
        // What was pending and not sent (a body had no room for it) stays pending, unfailed.
        let mut unsent: Vec<u64> =
            open.pending.iter().copied().filter(|offset| verdicts.binary_search_by_key(offset, |(sent, _)| *sent).is_err()).collect();
        for (offset, verdict) in verdicts {
            match verdict {
                Verdict::Success => settled.succeeded += 1,
                Verdict::Discard => settled.dropped += 1,
                Verdict::Drop if dead_letter => open.dead.push(*offset),
                Verdict::Drop => settled.dropped += 1,
                Verdict::Retry { status } => match self.policy.wait(failed, *status, jitter) {
                    Some(pause) => {
                        wait = Some(wait.map_or(pause, |other| other.max(pause)));
                        again.push(*offset);
                        settled.retried += 1;
                    }
                    None if dead_letter => open.dead.push(*offset),
                    None => {
                        // Spent without a dead-letter topic: Dapr's Kafka component begins again after a pause, for ever.
                        wait = Some(ROUND_PAUSE);
                        again.push(*offset);
                        settled.retried += 1;
                    }
                },
            }
        }
        let spent = self.policy.wait(failed, None, jitter).is_none();
        open.failed = if again.is_empty() || spent { 0 } else { failed };
        again.append(&mut unsent);
        again.sort_unstable();
        open.pending = again;
        open.dead.sort_unstable();
        partition.phase = Phase::Idle;
        partition.not_before = wait.map(|wait| now + wait);
        partition.settle();
        settled
    }

    /// The instance of a call could not be reached: nothing is counted. The caller also says which instances are up.
    pub(crate) fn unreachable(&mut self, call: &Call) {
        self.partitions[usize::from(call.partition)].phase = Phase::Idle;
    }

    /// Dead letters are durable, or could not be published.
    pub(crate) fn dead_lettered(&mut self, letter: &DeadLetter, durable: bool, now: Instant) {
        let partition = &mut self.partitions[usize::from(letter.partition)];
        partition.phase = Phase::Idle;
        if let Some(open) = &mut partition.open {
            if durable {
                open.dead.clear();
                open.dead_not_before = None;
            } else {
                open.dead_not_before = Some(now + DEAD_LETTER_PAUSE);
            }
        }
        partition.settle();
    }
}

impl Partition {
    /// Offsets to dead-letter now.
    fn dead_letters(&self, now: Instant) -> Option<Arc<[u64]>> {
        let open = self.open.as_ref()?;
        let due = open.dead_not_before.is_none_or(|at| at <= now);
        (due && !open.dead.is_empty()).then(|| open.dead.as_slice().into())
    }

    /// Whether there are records to deliver now.
    fn callable(&self, now: Instant) -> bool {
        let something = match &self.open {
            Some(open) => !open.pending.is_empty(),
            None => self.next < self.head,
        };
        something && self.not_before.is_none_or(|at| at <= now)
    }

    /// Moves the position over what is settled.
    fn settle(&mut self) {
        let Some(open) = &self.open else {
            return;
        };
        match open.pending.first().into_iter().chain(open.dead.first()).min() {
            Some(first) => self.next = self.next.max(*first),
            None => {
                self.next = open.until;
                self.open = None;
                self.not_before = None;
            }
        }
    }
}
