//! When tasks start, in an open loop: by the clock alone.
//!
//! The async timer has a resolution of a millisecond, which would be most of the latency that is measured. So a thread of its own
//! sleeps until each start. From a thousand starts a second on, those of one millisecond start together: to wake for each would cost the
//! server its processor time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use crate::error::Error;

#[derive(Debug)]
pub(super) struct Pace {
    origin: Instant,
    rate: f64,
    due: Arc<Semaphore>,
    is_over: Arc<AtomicBool>,
}

impl Pace {
    /// Starts `tasks` tasks at `rate` a second, the first one now.
    pub(super) fn start(rate: f64, tasks: u64) -> Result<Self, Error> {
        let origin = Instant::now();
        let due = Arc::new(Semaphore::new(0));
        let is_over = Arc::new(AtomicBool::new(false));
        let (clock, over) = (Arc::clone(&due), Arc::clone(&is_over));
        std::thread::Builder::new()
            .name("pace".to_owned())
            .spawn(move || {
                let mut next = 0;
                while next < tasks && !over.load(Ordering::Relaxed) {
                    let at = offset(rate, next);
                    std::thread::sleep(at.saturating_sub(origin.elapsed()));
                    let first = next;
                    while next < tasks && offset(rate, next) <= at {
                        next += 1;
                    }
                    clock.add_permits((next - first) as usize);
                }
            })
            .map_err(|error| Error::Failed(format!("a thread does not start: {error}")))?;
        Ok(Self { origin, rate, due, is_over })
    }

    /// Waits for the start of task `number`, counted from 0, and returns when it was to be. Callers come in order of number.
    pub(super) async fn start_of(&self, number: u64) -> Instant {
        // The semaphore is never closed.
        if let Ok(permit) = self.due.acquire().await {
            permit.forget();
        }
        self.origin + offset(self.rate, number)
    }
}

impl Drop for Pace {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

/// When task `number` starts, after the first.
fn offset(rate: f64, number: u64) -> Duration {
    let seconds = number as f64 / rate;
    if rate <= 1000.0 { Duration::from_secs_f64(seconds) } else { Duration::from_millis((seconds * 1000.0) as u64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_keep_the_rate_and_never_run_ahead_of_it() {
        for rate in [0.5, 10.0, 999.0, 2500.0, 60_000.0] {
            for number in [0, 1, 7, 1000, 100_000] {
                let exact = number as f64 / rate;
                let late = exact - offset(rate, number).as_secs_f64();
                assert!((-1e-6..0.001_001).contains(&late), "rate {rate}, task {number}: {late}");
            }
        }
    }

    #[tokio::test]
    async fn every_task_has_its_start() {
        let pace = Pace::start(20_000.0, 500).unwrap();
        let mut before = pace.origin;
        for number in 0..500 {
            let at = pace.start_of(number).await;
            assert!(at >= before && at <= Instant::now(), "task {number}");
            before = at;
        }
    }
}
