//! The clock that records, state and groups are dropped by, because of their age.
//!
//! What is deleted does not come back, and a clock that was wrong for a moment does. So the wall clock counts only as far as it goes with the monotonic one: where it runs ahead of that by
//! more than an hour, time goes on here as if it had not, for a day; then it is believed. A clock that goes back is believed at once. The monotonic clock stands still while a machine is
//! suspended, so what had its time meanwhile goes a day later. Whether the time was right at the start cannot be known here.
//!
//! `fte_service::SteadyClock` is the same for the services; this crate knows none of theirs.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::writer::now_ms;

const TOLERATED_MS: i64 = 3_600_000;
const DOUBTED: Duration = Duration::from_secs(24 * 3600);

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct SteadyClock {
    read: Arc<dyn Fn() -> (i64, Duration) + Send + Sync>,
    steady: Arc<Mutex<Steady>>,
}

/// Where both clocks stood, and since when the wall clock is ahead of that.
struct Steady {
    base_ms: i64,
    base: Duration,
    ahead_since: Option<Duration>,
}

impl SteadyClock {
    /// The machine's, from now on.
    pub(crate) fn of_the_machine() -> Self {
        let started = Instant::now();
        Self::of(move || (now_ms(), started.elapsed()))
    }

    /// A wall clock, in Unix milliseconds, as far as it goes with a monotonic one.
    pub(crate) fn of(read: impl Fn() -> (i64, Duration) + Send + Sync + 'static) -> Self {
        let (base_ms, base) = read();
        Self { read: Arc::new(read), steady: Arc::new(Mutex::new(Steady { base_ms, base, ahead_since: None })) }
    }

    /// The time to drop by, in Unix milliseconds.
    pub(crate) fn now_ms(&self) -> i64 {
        let mut steady = self.steady.lock().unwrap_or_else(PoisonError::into_inner);
        let (wall_ms, monotonic) = (self.read)();
        steady.at(wall_ms, monotonic)
    }
}

impl std::fmt::Debug for SteadyClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SteadyClock")
    }
}

impl Steady {
    fn at(&mut self, wall_ms: i64, monotonic: Duration) -> i64 {
        let gone = monotonic.saturating_sub(self.base);
        let expected_ms = self.base_ms.saturating_add(i64::try_from(gone.as_millis()).unwrap_or(i64::MAX));
        let ahead_ms = wall_ms.saturating_sub(expected_ms);
        if ahead_ms <= TOLERATED_MS {
            if self.ahead_since.take().is_some() {
                tracing::info!("the clock came back: nothing was dropped for its having been ahead");
            }
            if ahead_ms < 0 || gone >= DOUBTED {
                (self.base_ms, self.base) = (wall_ms, monotonic);
            }
            return wall_ms;
        }
        let by_s = ahead_ms / 1000;
        match self.ahead_since {
            Some(since) if monotonic.saturating_sub(since) >= DOUBTED => {
                tracing::warn!(by_s, "the clock has stayed ahead for a day: what is too old by it is dropped");
                *self = Self { base_ms: wall_ms, base: monotonic, ahead_since: None };
                wall_ms
            }
            Some(_) => expected_ms,
            None => {
                tracing::warn!(
                    by_s,
                    "the clock went ahead, or the machine was suspended: nothing is dropped for that until the clock has kept it up for a day"
                );
                self.ahead_since = Some(monotonic);
                expected_ms
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: i64 = 3_600_000;
    const YEAR_MS: i64 = 365 * 24 * HOUR_MS;

    #[test]
    fn a_step_ahead_counts_when_it_has_stood_for_a_day_and_a_step_back_at_once() {
        let mut steady = Steady { base_ms: 0, base: Duration::ZERO, ahead_since: None };
        // At which hour, how many milliseconds ahead of the monotonic clock, and how many are taken for true.
        for (hour, ahead_ms, taken_ms) in [
            (1, 1000, 1000),
            (2, YEAR_MS, 0),
            (3, 0, 0),
            (23, YEAR_MS, 0),
            (46, YEAR_MS, 0),
            (47, YEAR_MS, YEAR_MS),
            (48, YEAR_MS, YEAR_MS),
            (49, 0, 0),
            (50, YEAR_MS, 0),
        ] {
            let now_ms = steady.at(hour * HOUR_MS + ahead_ms, Duration::from_millis(hour.cast_unsigned() * HOUR_MS.cast_unsigned()));
            assert_eq!(now_ms - hour * HOUR_MS, taken_ms, "at {hour} h");
        }
    }
}
