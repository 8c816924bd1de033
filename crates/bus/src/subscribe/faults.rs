//! Counts panics and time-outs per event: the fifth makes it poison. Bounded; the oldest count is forgotten first.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

/// The crash of a handler that makes its event poison.
pub(super) const FAULTS_MAX: u32 = 5;
const EVENTS_MAX: usize = 4096;

#[derive(Default)]
pub(super) struct Faults {
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    by_event: HashMap<(String, String), u32>,
    order: VecDeque<(String, String)>,
}

impl Faults {
    /// Notes a fault of the event and returns how many it has had.
    pub(super) fn note(&self, source: &str, id: &str) -> u32 {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let event = (source.to_owned(), id.to_owned());
        if !counts.by_event.contains_key(&event) {
            counts.order.push_back(event.clone());
            if counts.order.len() > EVENTS_MAX
                && let Some(oldest) = counts.order.pop_front()
            {
                counts.by_event.remove(&oldest);
            }
        }
        let count = counts.by_event.entry(event).or_insert(0);
        *count += 1;
        *count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_counted_per_event_and_bounded() {
        let faults = Faults::default();
        assert_eq!(faults.note("/s", "1"), 1);
        assert_eq!(faults.note("/s", "1"), 2);
        for other in 0..EVENTS_MAX {
            faults.note("/other", &other.to_string());
        }
        assert_eq!(faults.note("/s", "1"), 1, "the oldest count is forgotten");
        assert!(faults.counts.lock().unwrap().by_event.len() <= EVENTS_MAX);
    }
}
