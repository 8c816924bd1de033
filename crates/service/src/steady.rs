//! The clock that things are deleted by, because of their age.
//!
//! What is deleted does not come back, and a clock that was wrong for a moment does: it is a machine's before it has asked for the time, or somebody's who mistyped a year. So ages
//! are taken by the wall clock only as far as it goes with the monotonic one. Where it runs ahead of that by more than [`TOLERATED`], time goes on here as if it had not, for
//! [`DOUBTED`]; then it is believed. A clock that goes back is believed at once: nothing is deleted for it.
//!
//! The monotonic clock stands still while a machine is suspended, so a suspension is doubted, too, and what had its time meanwhile goes a day later. What cannot be known from
//! within a process is whether the time was right when it started.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

/// So much do the two clocks differ in a day at most, if nothing is wrong.
const TOLERATED: Duration = Duration::from_secs(3600);
/// How long the wall clock has to stay ahead until it is believed. As long is the base kept that it is measured from.
const DOUBTED: Duration = Duration::from_secs(24 * 3600);

type Wall = Box<dyn Fn() -> i64 + Send + Sync>;
type Monotonic = Box<dyn Fn() -> Duration + Send + Sync>;

/// A clock to delete by.
pub struct SteadyClock {
    /// What is deleted by it, for the log.
    what: &'static str,
    wall: Wall,
    monotonic: Monotonic,
    steady: Mutex<Steady>,
}

impl SteadyClock {
    /// The machine's, from now on; `what` is deleted by it.
    pub fn new(what: &'static str) -> Self {
        Self::over(what, || Timestamp::now().as_millisecond())
    }

    /// A wall clock, in milliseconds since 1970, as far as it goes with the machine's monotonic one.
    pub fn over(what: &'static str, wall: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        let started = Instant::now();
        Self::of(what, wall, move || started.elapsed())
    }

    /// A wall clock as far as it goes with a monotonic one.
    pub fn of(
        what: &'static str,
        wall: impl Fn() -> i64 + Send + Sync + 'static,
        monotonic: impl Fn() -> Duration + Send + Sync + 'static,
    ) -> Self {
        let steady = Mutex::new(Steady { base_ms: wall(), base: monotonic(), ahead_since: None });
        Self { what, wall: Box::new(wall), monotonic: Box::new(monotonic), steady }
    }

    /// The time, in milliseconds since 1970.
    pub fn now_ms(&self) -> i64 {
        let mut steady = self.steady.lock().unwrap_or_else(PoisonError::into_inner);
        let (now_ms, news) = steady.at((self.wall)(), (self.monotonic)());
        drop(steady);
        let what = self.what;
        match news {
            None => {}
            Some(News::Ahead { by_s }) => {
                tracing::warn!(
                    what,
                    by_s,
                    "the clock went ahead, or the machine was suspended: nothing is deleted for that until the clock has kept it up for a day"
                )
            }
            Some(News::Believed) => tracing::warn!(what, "the clock has stayed ahead for a day: what is too old by it is deleted"),
            Some(News::Back) => tracing::info!(what, "the clock came back: nothing was deleted for its having been ahead"),
        }
        now_ms
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        Timestamp::from_millisecond(self.now_ms()).unwrap_or(Timestamp::MIN)
    }
}

impl fmt::Debug for SteadyClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SteadyClock({})", self.what)
    }
}

/// Where both clocks stood, and since when the wall clock is ahead of that.
struct Steady {
    base_ms: i64,
    base: Duration,
    ahead_since: Option<Duration>,
}

#[derive(Debug, PartialEq, Eq)]
enum News {
    Ahead { by_s: i64 },
    Believed,
    Back,
}

impl Steady {
    /// The time to delete by, when the clocks say so, and what is to be told.
    fn at(&mut self, wall_ms: i64, monotonic: Duration) -> (i64, Option<News>) {
        let gone = monotonic.saturating_sub(self.base);
        let expected_ms = self.base_ms.saturating_add(millis(gone));
        let ahead_ms = wall_ms.saturating_sub(expected_ms);
        if ahead_ms <= millis(TOLERATED) {
            if ahead_ms < 0 || gone >= DOUBTED {
                (self.base_ms, self.base) = (wall_ms, monotonic);
            }
            return (wall_ms, self.ahead_since.take().map(|_| News::Back));
        }
        match self.ahead_since {
            Some(since) if monotonic.saturating_sub(since) >= DOUBTED => {
                *self = Self { base_ms: wall_ms, base: monotonic, ahead_since: None };
                (wall_ms, Some(News::Believed))
            }
            Some(_) => (expected_ms, None),
            None => {
                self.ahead_since = Some(monotonic);
                (expected_ms, Some(News::Ahead { by_s: ahead_ms / 1000 }))
            }
        }
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: i64 = 3_600_000;
    const YEAR_MS: i64 = 365 * 24 * HOUR_MS;
    const START_MS: i64 = 1_782_900_000_000;

    /// What a clock is taken for that reads so much more than `hours` after the start.
    struct Look {
        steady: Steady,
        hours: u32,
    }

    impl Look {
        fn new() -> Self {
            Self { steady: Steady { base_ms: START_MS, base: Duration::ZERO, ahead_since: None }, hours: 0 }
        }

        /// So many hours later the wall clock is ahead of the monotonic one by `ahead_ms`. Gives how far ahead it is taken to be.
        fn after(&mut self, hours: u32, ahead_ms: i64) -> (i64, Option<News>) {
            self.hours += hours;
            let true_ms = START_MS + i64::from(self.hours) * HOUR_MS;
            let (now_ms, news) = self.steady.at(true_ms + ahead_ms, Duration::from_secs(3600) * self.hours);
            (now_ms - true_ms, news)
        }
    }

    #[test]
    fn a_clock_that_goes_with_the_monotonic_one_is_followed_and_a_little_to_either_side() {
        let mut look = Look::new();
        for ahead_ms in [0, 1000, -1000, 30 * 60_000, -30 * 60_000, 0] {
            assert_eq!(look.after(1, ahead_ms), (ahead_ms, None));
        }
    }

    #[test]
    fn a_clock_that_drifts_is_followed_for_years() {
        let mut look = Look::new();
        for day in 1..1000 {
            // Ten minutes a day: a quarter of a per cent is more than a crystal's.
            assert_eq!(look.after(24, day * 600_000), (day * 600_000, None));
        }
    }

    #[test]
    fn a_year_ahead_for_a_moment_is_no_year() {
        let mut look = Look::new();
        look.after(5, 0);
        assert_eq!(look.after(1, YEAR_MS), (0, Some(News::Ahead { by_s: YEAR_MS / 1000 })));
        assert_eq!(look.after(1, YEAR_MS), (0, None), "it is said once");
        assert_eq!(look.after(1, 0), (0, Some(News::Back)));
        // It takes another day each time.
        for _ in 0..10 {
            assert_eq!(look.after(20, YEAR_MS).0, 0);
            assert_eq!(look.after(20, 0), (0, Some(News::Back)));
        }
    }

    #[test]
    fn a_clock_that_was_put_right_is_believed_a_day_later() {
        let mut look = Look::new();
        look.after(30, 0);
        assert!(look.after(1, YEAR_MS).1.is_some());
        assert_eq!(look.after(23, YEAR_MS), (0, None));
        assert_eq!(look.after(1, YEAR_MS), (YEAR_MS, Some(News::Believed)));
        assert_eq!(look.after(1, YEAR_MS), (YEAR_MS, None));
    }

    #[test]
    fn a_clock_that_goes_back_is_believed_at_once_and_doubted_when_it_goes_ahead_again() {
        let mut look = Look::new();
        look.after(1, 0);
        assert_eq!(look.after(1, -YEAR_MS), (-YEAR_MS, None));
        assert_eq!(look.after(1, -YEAR_MS), (-YEAR_MS, None));
        assert_eq!(look.after(1, 0).0, -YEAR_MS);
        look.after(23, 0);
        assert_eq!(look.after(1, 0), (0, Some(News::Believed)));
    }

    #[test]
    fn the_machine_s_own_clock_is_the_time() {
        let clock = SteadyClock::new("nothing");
        assert!((clock.now_ms() - Timestamp::now().as_millisecond()).abs() < 60_000);
        assert_eq!(clock.now().as_millisecond() / 60_000, clock.now_ms() / 60_000);
    }
}
