//! At most so many a second, counted without a lock: for log lines and audit entries that a caller can provoke at will.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Lets a bounded number through in each second.
#[derive(Debug)]
pub struct Throttle {
    started: Instant,
    per_second: u32,
    /// The second in the upper half, how many it let through in the lower.
    window: AtomicU64,
}

impl Throttle {
    /// At most `per_second`.
    pub fn new(per_second: u32) -> Self {
        Self { started: Instant::now(), per_second, window: AtomicU64::new(0) }
    }

    /// Whether this one may pass.
    pub fn admit(&self) -> bool {
        self.admit_at(self.started.elapsed().as_secs())
    }

    fn admit_at(&self, second: u64) -> bool {
        let second = second & u64::from(u32::MAX);
        let next = |window: u64| match (window >> 32 == second, window & u64::from(u32::MAX)) {
            (true, count) if count >= u64::from(self.per_second) => None,
            (true, _) => Some(window + 1),
            (false, _) => Some((second << 32) + 1),
        };
        self.per_second > 0 && self.window.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_second_lets_a_bounded_number_through() {
        let throttle = Throttle::new(2);
        let passed = [0, 0, 0, 5, 5, 5].map(|second| throttle.admit_at(second));
        assert_eq!(passed, [true, true, false, true, true, false]);
        assert!(!Throttle::new(0).admit_at(1));
    }
}
