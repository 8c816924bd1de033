//! How fast an agent's tasks start: what its rate allows, and what that lets one expect. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use fte_service::agents::Rate;

/// Starts that are remembered to tell how fast things go.
const REMEMBERED: usize = 64;

/// The last starts of one agent.
pub(super) struct Pace {
    rate: Option<Rate>,
    starts: VecDeque<Duration>,
}

impl Pace {
    pub(super) fn new(rate: Option<Rate>) -> Self {
        Self { rate, starts: VecDeque::new() }
    }

    /// How long it is until the rate allows a start; none: now.
    pub(super) fn wait(&self, now: Duration) -> Option<Duration> {
        let rate = self.rate?;
        // In no span of its time there are more than it says: so far back must the start lie that makes way.
        let before = self.starts.len().checked_sub(rate.starts as usize)?;
        (self.starts[before] + rate.per).checked_sub(now).filter(|wait| !wait.is_zero())
    }

    /// A task starts.
    pub(super) fn started(&mut self, now: Duration) {
        let most = self.rate.map_or(0, |rate| rate.starts as usize).max(REMEMBERED);
        while self.starts.len() >= most {
            self.starts.pop_front();
        }
        self.starts.push_back(now);
    }

    /// What was counted as a start at that time was none.
    pub(super) fn not_started(&mut self, at: Duration) {
        if let Some(found) = self.starts.iter().rposition(|start| *start == at) {
            self.starts.remove(found);
        }
    }

    /// How long so many starts may take, by the last ones; none while there were too few to say.
    pub(super) fn estimate(&self, now: Duration, count: usize) -> Option<Duration> {
        let last = self.starts.len().min(REMEMBERED);
        let first = *self.starts.get(self.starts.len() - last)?;
        if last < 2 {
            return None;
        }
        let span = now.saturating_sub(first).as_secs_f64() / (last as f64) * (count as f64);
        Duration::try_from_secs_f64(span).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    proptest! {
        #[test]
        fn there_are_never_more_starts_in_a_span_than_the_rate_says(starts in 1..20_u32, gaps in vec(0..400_u64, 1..200)) {
            let per = Duration::from_secs(1);
            let mut pace = Pace::new(Some(Rate { starts, per }));
            let (mut now, mut done) = (ms(0), Vec::new());
            for gap in gaps {
                now += ms(gap);
                match pace.wait(now) {
                    None => {
                        pace.started(now);
                        done.push(now);
                    }
                    Some(wait) => {
                        prop_assert!(done.len() >= starts as usize, "fewer than allowed, and it waits");
                        prop_assert_eq!(pace.wait(now + wait), None, "what it says is enough");
                    }
                }
            }
            for first in &done {
                let inside = done.iter().filter(|start| *start >= first && **start < *first + per).count();
                prop_assert!(inside <= starts as usize);
            }
        }
    }

    #[test]
    fn a_start_that_was_none_makes_way() {
        let mut pace = Pace::new(Some(Rate { starts: 1, per: Duration::from_secs(60) }));
        pace.started(ms(5));
        assert_eq!(pace.wait(ms(6)), Some(ms(59_999)));
        pace.not_started(ms(5));
        assert_eq!(pace.wait(ms(6)), None);
    }

    #[test]
    fn an_estimate_follows_the_last_starts_and_grows_while_there_are_none() {
        let mut pace = Pace::new(None);
        assert_eq!(pace.estimate(ms(0), 10), None);
        pace.started(ms(0));
        assert_eq!(pace.estimate(ms(10), 10), None);
        (1..200).for_each(|start| pace.started(ms(start * 100)));
        assert_eq!(pace.estimate(ms(200 * 100), 10), Some(ms(1000)));
        assert_eq!(pace.estimate(ms(264 * 100), 10), Some(ms(2000)));
    }
}
