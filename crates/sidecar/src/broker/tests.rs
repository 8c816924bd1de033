//! The state machine against a model app that fails, drops, dies and comes back as the generator likes.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proptest::prelude::*;

use super::*;
use crate::resiliency::Backoff;

const PARTITIONS: usize = 4;

fn bounds() -> Bounds {
    Bounds { bulk_calls_max: 2, young: Duration::from_millis(50) }
}

fn policy(retries_max: Option<u32>) -> Policy {
    Policy { backoff: Backoff::Constant(Duration::from_millis(10)), retries_max, codes: None, timeout: None }
}

/// What the generator does to the machine.
#[derive(Debug, Clone)]
enum Step {
    Publish {
        partition: usize,
        records: u64,
    },
    /// Instances in the set are up.
    Instances(BTreeSet<InstanceId>),
    /// Take everything there is to do.
    Poll,
    /// End the call at this place among those out, each record as the bits say.
    Answer {
        which: usize,
        verdicts: Vec<u8>,
    },
    Unreachable {
        which: usize,
    },
    Letter {
        which: usize,
        durable: bool,
    },
    Pass {
        ms: u64,
    },
    /// Begin again from the positions, as after a crash.
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..PARTITIONS, 1..6_u64).prop_map(|(partition, records)| Step::Publish { partition, records }),
        1 => prop::collection::btree_set(0..3_usize, 0..3).prop_map(Step::Instances),
        6 => Just(Step::Poll),
        6 => (0..8_usize, prop::collection::vec(any::<u8>(), 6)).prop_map(|(which, verdicts)| Step::Answer { which, verdicts }),
        1 => (0..8_usize).prop_map(|which| Step::Unreachable { which }),
        2 => (0..8_usize, any::<bool>()).prop_map(|(which, durable)| Step::Letter { which, durable }),
        3 => (0..2000_u64).prop_map(|ms| Step::Pass { ms }),
        1 => Just(Step::Crash),
    ]
}

struct Model {
    group: Group,
    now: Instant,
    heads: Vec<u64>,
    bulk: Option<usize>,
    dead_letter: bool,
    retries_max: Option<u32>,
    up: BTreeSet<InstanceId>,
    calls: Vec<(Call, Vec<u64>)>,
    letters: Vec<DeadLetter>,
    /// Records that are done with, by partition.
    settled: Vec<BTreeSet<u64>>,
    dead: BTreeSet<(u16, u64)>,
    dropped: BTreeSet<(u16, u64)>,
    /// Failed tries of a record since the last crash.
    failures: HashMap<(u16, u64), u32>,
    /// The first offset of each partition that was never delivered.
    fresh: BTreeMap<u16, u64>,
}

impl Model {
    fn new(bulk: Option<usize>, dead_letter: bool, retries_max: Option<u32>) -> Self {
        let mut model = Self {
            group: Group::new(&[0; PARTITIONS], policy(retries_max), bounds()),
            now: Instant::now(),
            heads: vec![0; PARTITIONS],
            bulk,
            dead_letter,
            retries_max,
            up: BTreeSet::from([0]),
            calls: Vec::new(),
            letters: Vec::new(),
            settled: vec![BTreeSet::new(); PARTITIONS],
            dead: BTreeSet::new(),
            dropped: BTreeSet::new(),
            failures: HashMap::new(),
            fresh: BTreeMap::new(),
        };
        model.tell_instances();
        model
    }

    fn tell_instances(&mut self) {
        let mode = Mode { bulk: self.bulk, dead_letter: self.dead_letter };
        self.group.instances(self.up.iter().map(|id| (*id, mode)).collect());
    }

    fn poll(&mut self) {
        self.group.published(&self.heads);
        while let Some(action) = self.group.next(self.now) {
            match action {
                Action::Call(call) => self.called(call),
                Action::DeadLetter(letter) => {
                    assert!(self.dead_letter, "there is no dead-letter topic");
                    assert!(self.letters.iter().all(|other| other.partition != letter.partition));
                    for offset in letter.only.iter() {
                        let key = (letter.partition, *offset);
                        let spent = self.retries_max.is_some_and(|max| self.failures.get(&key).copied().unwrap_or(0) > max);
                        assert!(self.dropped.contains(&key) || spent, "{key:?} has a try left");
                    }
                    self.letters.push(letter);
                }
            }
        }
    }

    fn called(&mut self, call: Call) {
        assert!(self.up.contains(&call.instance), "the instance is down");
        let at_once = self.calls.iter().filter(|(other, _)| other.partition == call.partition);
        assert_eq!(at_once.count(), 0, "one call at a time in a partition");
        assert!(self.letters.iter().all(|letter| letter.partition != call.partition));
        let partition = usize::from(call.partition);
        let offsets: Vec<u64> = match &call.only {
            Some(only) => only.to_vec(),
            None => (call.from..self.heads[partition]).take(call.records_max).collect(),
        };
        assert!(!offsets.is_empty());
        let fresh = self.fresh.entry(call.partition).or_default();
        for offset in &offsets {
            assert!(!self.settled[partition].contains(offset), "{offset} was settled");
            assert!(*offset <= *fresh, "{offset} was delivered before {fresh}");
            *fresh = (*fresh).max(offset + 1);
        }
        self.calls.push((call, offsets));
    }

    fn answer(&mut self, which: usize, kinds: &[u8]) {
        if self.calls.is_empty() {
            return;
        }
        let (call, offsets) = self.calls.swap_remove(which % self.calls.len());
        let verdicts: Vec<(u64, Verdict)> = offsets
            .iter()
            .zip(kinds.iter().cycle())
            .map(|(offset, kind)| {
                let verdict = match kind % 8 {
                    0..=3 => Verdict::Success,
                    4 | 5 => Verdict::Retry { status: Some(500) },
                    6 => Verdict::Drop,
                    _ => Verdict::Discard,
                };
                (*offset, verdict)
            })
            .collect();
        let dead_letter = self.dead_letter;
        for (offset, verdict) in &verdicts {
            let key = (call.partition, *offset);
            match verdict {
                Verdict::Drop if dead_letter => {
                    self.dropped.insert(key);
                }
                Verdict::Success | Verdict::Discard | Verdict::Drop => {
                    self.settled[usize::from(call.partition)].insert(*offset);
                }
                Verdict::Retry { .. } => *self.failures.entry(key).or_default() += 1,
            }
        }
        self.group.answered(&call, &verdicts, self.now, 0.5);
    }

    fn letter(&mut self, which: usize, durable: bool) {
        if self.letters.is_empty() {
            return;
        }
        let letter = self.letters.swap_remove(which % self.letters.len());
        if durable {
            for offset in letter.only.iter() {
                self.settled[usize::from(letter.partition)].insert(*offset);
                self.dead.insert((letter.partition, *offset));
            }
        }
        self.group.dead_lettered(&letter, durable, self.now);
    }

    fn check(&self) {
        for partition in 0..PARTITIONS as u16 {
            let position = self.group.position(partition);
            assert!(position <= self.heads[usize::from(partition)]);
            for offset in 0..position {
                assert!(
                    self.settled[usize::from(partition)].contains(&offset),
                    "position {position} of {partition} is past {offset}, which is not settled"
                );
            }
        }
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Publish { partition, records } => self.heads[*partition] += records,
            Step::Instances(up) => {
                self.up = up.clone();
                self.tell_instances();
            }
            Step::Poll => self.poll(),
            Step::Answer { which, verdicts } => self.answer(*which, verdicts),
            Step::Unreachable { which } => {
                if !self.calls.is_empty() {
                    let (call, _) = self.calls.swap_remove(which % self.calls.len());
                    self.group.unreachable(&call);
                    self.up.remove(&call.instance);
                    self.tell_instances();
                }
            }
            Step::Letter { which, durable } => self.letter(*which, *durable),
            Step::Pass { ms } => self.now += Duration::from_millis(*ms),
            Step::Crash => {
                let positions: Vec<u64> = (0..PARTITIONS as u16).map(|p| self.group.position(p)).collect();
                self.group = Group::new(&positions, policy(self.retries_max), bounds());
                self.calls.clear();
                self.letters.clear();
                self.failures.clear();
                // What was not settled for good is delivered again.
                for (partition, position) in positions.iter().enumerate() {
                    self.settled[partition].retain(|offset| offset < position);
                }
                self.tell_instances();
            }
        }
        self.check();
    }

    /// With an app that is well, everything comes to its end.
    fn finish(&mut self) {
        self.up = BTreeSet::from([0, 1]);
        self.tell_instances();
        for _ in 0..10_000 {
            self.poll();
            while !self.calls.is_empty() {
                self.answer(0, &[0]);
            }
            while !self.letters.is_empty() {
                self.letter(0, true);
            }
            self.check();
            let done = (0..PARTITIONS as u16).all(|p| self.group.position(p) == self.heads[usize::from(p)]);
            if done {
                assert!((0..PARTITIONS as u16).all(|p| self.group.caught_up(p)));
                assert_eq!(self.group.lag(), 0);
                return;
            }
            // Either there is something to do now, or it is known when.
            self.group.published(&self.heads);
            if let Some(at) = self.group.wake_at(self.now) {
                self.now = at;
            }
        }
        panic!("something is never delivered: {:?}", self.group);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_and_order_holds_whatever_happens(
        bulk in prop_oneof![Just(None), Just(Some(3)), Just(Some(100))],
        dead_letter in any::<bool>(),
        retries_max in prop_oneof![Just(None), (0..3_u32).prop_map(Some)],
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut model = Model::new(bulk, dead_letter, retries_max);
        for step in &steps {
            model.apply(step);
        }
        model.finish();
    }

    #[test]
    fn partitions_are_shared_evenly_and_move_little(
        first in prop::collection::btree_set(0..5_usize, 1..5),
        second in prop::collection::btree_set(0..5_usize, 1..5),
    ) {
        let mode = Mode { bulk: None, dead_letter: false };
        let mut group = Group::new(&[0; 12], policy(None), bounds());
        let mut assign = |up: &BTreeSet<InstanceId>| -> Vec<Option<InstanceId>> {
            group.instances(up.iter().map(|id| (*id, mode)).collect());
            group.partitions.iter().map(|partition| partition.owner).collect()
        };
        let before = assign(&first);
        let after = assign(&second);
        for (up, owners) in [(&first, &before), (&second, &after)] {
            let counts: Vec<usize> = up.iter()
                .map(|id| owners.iter().filter(|owner| **owner == Some(*id)).count())
                .collect();
            prop_assert_eq!(counts.iter().sum::<usize>(), 12);
            prop_assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1);
        }
        // Whoever stays keeps up to its new share.
        for id in first.intersection(&second) {
            let had = before.iter().filter(|owner| **owner == Some(*id)).count();
            let keeps = before.iter().zip(&after).filter(|(b, a)| **b == Some(*id) && a == b).count();
            prop_assert!(keeps >= had.min(12 / second.len()));
        }
    }
}

#[test]
fn a_held_call_stops_counting() {
    let mut group = Group::new(&[0; 12], policy(None), bounds());
    let mode = Mode { bulk: Some(10), dead_letter: false };
    group.instances(vec![(0, mode)]);
    group.published(&[1; 12]);
    let now = Instant::now();
    let calls = |group: &mut Group, now| std::iter::from_fn(|| group.next(now)).count();
    assert_eq!(calls(&mut group, now), 2);
    assert_eq!(group.wake_at(now), Some(now + Duration::from_millis(50)));
    assert_eq!(calls(&mut group, now + Duration::from_millis(49)), 0);
    assert_eq!(calls(&mut group, now + Duration::from_millis(50)), 2);
}

#[test]
fn a_spent_round_without_a_dead_letter_topic_begins_again_after_five_seconds() {
    let mut group = Group::new(&[0], policy(Some(1)), bounds());
    let mode = Mode { bulk: None, dead_letter: false };
    group.instances(vec![(0, mode)]);
    group.published(&[1]);
    let mut now = Instant::now();
    for wait_ms in [10, 5000, 10, 5000] {
        let Some(Action::Call(call)) = group.next(now) else {
            panic!("a call is due");
        };
        group.answered(&call, &[(0, Verdict::Retry { status: None })], now, 0.5);
        assert!(group.next(now).is_none());
        let at = group.wake_at(now).unwrap();
        assert_eq!(at - now, Duration::from_millis(wait_ms));
        now = at;
    }
}
