//! What an agent elsewhere may take of time and of the runner's memory, in one place.

use std::time::Duration;

/// Limits of the calls to one agent elsewhere.
#[derive(Clone, Debug)]
pub struct HttpLimits {
    /// Longest wait for a connection. Default 10 s.
    pub connect: Duration,
    /// Longest wait for an answer to begin that takes no work: a card, a state, an artifact. Default 30 s. What takes work has the agent's `silent`, else its `timeout`.
    pub answer: Duration,
    /// Longest silence inside an answer. A stream that is silent for longer is taken for lost, and its task is asked for. Default 60 s.
    pub idle: Duration,
    /// Largest answer, or event of a stream, that is held in memory. Default 8 MiB.
    pub answer_bytes_max: usize,
    /// First wait before a task is asked for again; each further wait without news is half as long again. Default 500 ms.
    pub poll: Duration,
    /// Longest such wait. Default 10 s.
    pub poll_max: Duration,
    /// Longest wait that an agent may ask for. Default 60 s.
    pub retry_after_max: Duration,
    /// So many questions in a row may fail before the attempt does. Default 8.
    pub failures_max: u32,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(30),
            idle: Duration::from_secs(60),
            answer_bytes_max: 8 << 20,
            poll: Duration::from_millis(500),
            poll_max: Duration::from_secs(10),
            retry_after_max: Duration::from_secs(60),
            failures_max: 8,
        }
    }
}

/// When to ask again.
#[derive(Debug)]
pub(super) struct Pace {
    next: Duration,
    failures: u32,
    limits: HttpLimits,
}

impl Pace {
    pub(super) fn new(limits: &HttpLimits) -> Self {
        Self { next: limits.poll, failures: 0, limits: limits.clone() }
    }

    /// Something happened: the next look is soon.
    pub(super) fn news(&mut self) {
        self.next = self.limits.poll;
    }

    pub(super) fn answered(&mut self) {
        self.failures = 0;
    }

    /// Whether that was one failure too many.
    pub(super) fn failed(&mut self) -> bool {
        self.failures += 1;
        self.failures >= self.limits.failures_max
    }

    /// How long to wait now; `asked` is what the agent asked for.
    pub(super) fn wait(&mut self, asked: Option<Duration>) -> Duration {
        let own = self.next;
        self.next = (own * 3 / 2).min(self.limits.poll_max);
        asked.map_or(own, |asked| asked.clamp(self.limits.poll, self.limits.retry_after_max.max(self.limits.poll)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_what_an_agent_asks_for_is_bounded() {
        let mut pace = Pace::new(&HttpLimits::default());
        let waits: Vec<u128> = (0..12).map(|_| pace.wait(None).as_millis()).collect();
        assert_eq!((waits[0], waits[1], waits[11]), (500, 750, 10_000));
        pace.news();
        assert_eq!(pace.wait(None), Duration::from_millis(500));
        assert_eq!(pace.wait(Some(Duration::from_secs(5))), Duration::from_secs(5));
        assert_eq!(pace.wait(Some(Duration::from_secs(86_400))), Duration::from_secs(60));
        assert_eq!(pace.wait(Some(Duration::ZERO)), Duration::from_millis(500));
    }

    #[test]
    fn failures_count_in_a_row() {
        let mut pace = Pace::new(&HttpLimits { failures_max: 2, ..HttpLimits::default() });
        assert!(!pace.failed());
        pace.answered();
        assert!(!pace.failed());
        assert!(pace.failed());
    }
}
