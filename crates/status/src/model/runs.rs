//! How many sandboxes a task was given, by its steps: `running` begins with a claim, and every later claim follows a `queued` (a new try, a
//! wake after parking, a takeover). So there are as many claims as there are groups of `running` steps with a `queued` between them.

use serde::{Deserialize, Serialize};

/// Most ranges and most `queued` steps that are kept; a task with more of either is taken for complete without counting further ones.
const KEPT_MAX: usize = 512;

/// The places of `queued` and `running` among a task's steps, in whatever order they become known.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Runs {
    /// Sequence numbers of `queued` steps, ascending.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    queued: Vec<u64>,
    /// Ranges of sequence numbers of `running` steps, ascending, with a gap between each two.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ran: Vec<(u64, u64)>,
}

impl Runs {
    /// Whether it neither queued nor ran.
    pub(crate) fn is_empty(&self) -> bool {
        self.queued.is_empty() && self.ran.is_empty()
    }

    pub(super) fn queued(&mut self, sequence: u64) {
        if let Err(place) = self.queued.binary_search(&sequence)
            && self.queued.len() < KEPT_MAX
        {
            self.queued.insert(place, sequence);
        }
    }

    pub(super) fn ran(&mut self, sequence: u64) {
        let place = self.ran.partition_point(|(_, last)| *last < sequence);
        if self.ran.get(place).is_some_and(|(first, _)| *first <= sequence) {
            return;
        }
        let follows = place > 0 && self.ran[place - 1].1.checked_add(1) == Some(sequence);
        let precedes = self.ran.get(place).is_some_and(|(first, _)| sequence.checked_add(1) == Some(*first));
        match (follows, precedes) {
            (true, true) => {
                self.ran[place - 1].1 = self.ran[place].1;
                self.ran.remove(place);
            }
            (true, false) => self.ran[place - 1].1 = sequence,
            (false, true) => self.ran[place].0 = sequence,
            (false, false) if self.ran.len() < KEPT_MAX => self.ran.insert(place, (sequence, sequence)),
            (false, false) => {}
        }
    }

    /// How many claims these steps tell of.
    pub(crate) fn claims(&self) -> u32 {
        let mut claims = 0;
        let mut last_end = None;
        for (first, last) in &self.ran {
            let is_new = last_end.is_none_or(|end| {
                let next_queued = self.queued.partition_point(|queued| queued <= end);
                self.queued.get(next_queued).is_some_and(|queued| queued < first)
            });
            claims += u32::from(is_new);
            last_end = Some(last);
        }
        claims
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `q` queued, `r` running, anything else another step.
    fn runs(steps: &str, order: impl IntoIterator<Item = usize>) -> Runs {
        let steps: Vec<char> = steps.chars().collect();
        let mut runs = Runs::default();
        for place in order {
            match steps[place] {
                'q' => runs.queued(place as u64 + 1),
                'r' => runs.ran(place as u64 + 1),
                _ => {}
            }
        }
        runs
    }

    #[test]
    fn claims_are_counted_in_any_order() {
        for (steps, claims) in [("", 0), ("qc", 0), ("rc", 1), ("qrrrc", 1), ("rrarrc", 1), ("raqrc", 2), ("qrqqrrqrc", 3), ("aqrc", 1)] {
            let in_order = runs(steps, 0..steps.len());
            assert_eq!(in_order.claims(), claims, "{steps}");
            assert_eq!(runs(steps, (0..steps.len()).rev()), in_order);
            let odd_first = (0..steps.len()).filter(|n| n % 2 == 1).chain((0..steps.len()).filter(|n| n % 2 == 0));
            assert_eq!(runs(steps, odd_first), in_order);
        }
    }
}
