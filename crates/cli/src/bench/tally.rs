//! What was sent and what came back: the times, and for every task how many results it has.
//!
//! A result may be seen before the answer that names its task; such ids are kept for a moment, and so are those of other
//! people's tasks, which nobody claims.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Instant;

use hdrhistogram::Histogram;
use http::StatusCode;

use super::connection::Id;
use crate::error::Problem;

/// More than the callers that can be between a result and its answer.
const EARLY_MAX: usize = 8192;
/// Latencies are held from 1 µs to an hour, to three digits.
const LATENCY_US_MAX: u64 = 3_600_000_000;

/// What is known of one task. Packed: the start in microseconds, and in the low bits how many results came (at most 3).
#[derive(Debug, Clone, Copy)]
struct Known(u64);

impl Known {
    fn started_us(self) -> u64 {
        self.0 >> 2
    }
    fn results(self) -> u64 {
        self.0 & 3
    }
}

/// A result of a task that is not known, or not yet.
#[derive(Debug)]
struct Early {
    id: Id,
    at: Instant,
    results: u64,
    is_completed: bool,
}

#[derive(Debug)]
pub(super) struct Tally {
    origin: Instant,
    tasks: HashMap<Id, Known>,
    early: VecDeque<Early>,
    /// From the (intended) start to the 202.
    pub(super) post_us: Histogram<u64>,
    /// From the (intended) start to the result on the event stream.
    pub(super) result_us: Histogram<u64>,
    /// From the (intended) start to the result at the caller that waits for it.
    pub(super) waited_us: Histogram<u64>,
    pub(super) accepted: u64,
    /// Tasks with a result.
    pub(super) completed: u64,
    /// Of those, the ones that did not complete.
    pub(super) unsuccessful: u64,
    /// Results past the first of their task.
    pub(super) duplicates: u64,
    /// Answers that were no 202, by status.
    pub(super) refused: BTreeMap<u16, u64>,
    pub(super) first_refusal: Option<Problem>,
    /// Calls without an answer: their tasks may exist or not.
    pub(super) broken: u64,
    /// How often the event stream was resumed.
    pub(super) resumed: u64,
    pub(super) first_start: Option<Instant>,
    pub(super) last_accepted: Option<Instant>,
    pub(super) last_result: Option<Instant>,
    /// Called for each task's first result.
    pub(super) on_result: Option<std::rc::Rc<tokio::sync::Semaphore>>,
}

fn histogram() -> Histogram<u64> {
    #[expect(clippy::expect_used, reason = "the bounds are constants that the type accepts")]
    Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("valid bounds")
}

impl Tally {
    /// With room for `tasks` ids: to grow on the way would show as latency.
    pub(super) fn new(tasks: usize) -> Self {
        Self {
            origin: Instant::now(),
            tasks: HashMap::with_capacity(tasks),
            early: VecDeque::new(),
            post_us: histogram(),
            result_us: histogram(),
            waited_us: histogram(),
            accepted: 0,
            completed: 0,
            unsuccessful: 0,
            duplicates: 0,
            refused: BTreeMap::new(),
            first_refusal: None,
            broken: 0,
            resumed: 0,
            first_start: None,
            last_accepted: None,
            last_result: None,
            on_result: None,
        }
    }

    /// A task that was to start at `started` was accepted at `at`.
    pub(super) fn accepted(&mut self, id: Id, started: Instant, at: Instant) {
        self.accepted += 1;
        self.last_accepted = Some(at);
        record(&mut self.post_us, started, at);
        let started_us = started.saturating_duration_since(self.origin).as_micros() as u64;
        self.tasks.insert(id, Known(started_us << 2));
        if let Some(place) = self.early.iter().position(|early| early.id == id)
            && let Some(early) = self.early.remove(place)
        {
            for _ in 0..early.results {
                self.result(id, early.at, early.is_completed);
            }
        }
    }

    /// A result was seen.
    pub(super) fn result(&mut self, id: Id, at: Instant, is_completed: bool) {
        let Some(known) = self.tasks.get_mut(&id) else {
            return self.early_result(id, at, is_completed);
        };
        if known.results() < 3 {
            known.0 += 1;
        }
        if known.results() > 1 {
            self.duplicates += 1;
            return;
        }
        self.completed += 1;
        self.unsuccessful += u64::from(!is_completed);
        self.last_result = self.last_result.max(Some(at));
        let started_us = known.started_us();
        let at_us = at.saturating_duration_since(self.origin).as_micros() as u64;
        self.result_us.saturating_record(at_us.saturating_sub(started_us));
        if let Some(room) = &self.on_result {
            room.add_permits(1);
        }
    }

    fn early_result(&mut self, id: Id, at: Instant, is_completed: bool) {
        if let Some(early) = self.early.iter_mut().find(|early| early.id == id) {
            early.results += 1;
            return;
        }
        if self.early.len() == EARLY_MAX {
            self.early.pop_front();
        }
        self.early.push_back(Early { id, at, results: 1, is_completed });
    }

    pub(super) fn waited(&mut self, started: Instant, at: Instant) {
        record(&mut self.waited_us, started, at);
    }

    pub(super) fn refused(&mut self, status: StatusCode, answer: &[u8]) {
        *self.refused.entry(status.as_u16()).or_default() += 1;
        self.first_refusal.get_or_insert_with(|| Problem::read(status, answer, None));
    }

    /// Every accepted task with the number of its results, up to 3.
    pub(super) fn each(&self) -> impl Iterator<Item = (Id, u64)> {
        self.tasks.iter().map(|(id, known)| (*id, known.results()))
    }
}

fn record(histogram: &mut Histogram<u64>, started: Instant, at: Instant) {
    histogram.saturating_record(at.saturating_duration_since(started).as_micros() as u64);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn results_of(tally: &Tally, id: Id) -> u64 {
        tally.each().find(|(other, _)| *other == id).unwrap().1
    }

    #[test]
    fn a_result_counts_once_whether_it_comes_before_or_after_the_answer() {
        let mut tally = Tally::new(4);
        let start = Instant::now();
        let later = start + Duration::from_millis(3);
        tally.result((1, 1), later, true);
        tally.accepted((1, 1), start, later + Duration::from_millis(2));
        tally.accepted((2, 2), start, later);
        tally.result((2, 2), later, false);
        tally.result((9, 9), later, true);
        assert_eq!((tally.accepted, tally.completed, tally.unsuccessful, tally.duplicates), (2, 2, 1, 0));
        assert!((2990..=3010).contains(&tally.result_us.max()), "{}", tally.result_us.max());
    }

    #[test]
    fn a_second_result_is_a_duplicate_whenever_it_comes() {
        let mut tally = Tally::new(4);
        let now = Instant::now();
        tally.result((1, 1), now, true);
        tally.result((1, 1), now, true);
        tally.accepted((1, 1), now, now);
        assert_eq!((tally.completed, tally.duplicates), (1, 1));
        for _ in 0..5 {
            tally.result((1, 1), now, true);
        }
        assert_eq!((tally.completed, tally.duplicates, results_of(&tally, (1, 1))), (1, 6, 3));
    }

    #[test]
    fn other_peoples_results_take_bounded_memory() {
        let mut tally = Tally::new(4);
        let now = Instant::now();
        for n in 0..EARLY_MAX as u64 + 100 {
            tally.result((n, n), now, true);
        }
        assert_eq!(tally.early.len(), EARLY_MAX);
        assert_eq!(tally.completed, 0);
    }
}
