//! What a request to run a task may ask for, whichever way it comes in.
//!
//! Intake refuses what is beyond these limits before it is an event; the runner ends it as `failed` when it came by the bus.

use std::io::Write;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::triggers::TaskRequested;

/// The most characters of a task's text.
pub const TASK_CHARS_MAX: usize = 32_000;
/// The most bytes of a task's context, as JSON.
pub const CONTEXT_BYTES_MAX: usize = 64 * 1024;
/// The most bytes of a task's metadata, as JSON.
pub const METADATA_BYTES_MAX: usize = 16 * 1024;
/// The longest delay, and how far away a deadline may be.
pub const AHEAD_MAX: Duration = Duration::from_secs(366 * 24 * 3600);
/// The largest budget.
pub const BUDGET_USD_MAX: f64 = 1_000_000.0;

/// The largest budget in tokens.
pub const BUDGET_TOKENS_MAX: u64 = 1_000_000_000_000;

/// What a request asks for beyond the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BeyondLimits {
    /// No words, or too many.
    #[error("its task must be a text of 1 to {TASK_CHARS_MAX} characters that are not all spaces")]
    Task,
    /// Too much context.
    #[error("its context must be at most {CONTEXT_BYTES_MAX} bytes as JSON; pass large inputs by reference")]
    Context,
    /// Too much metadata.
    #[error("its metadata must be at most {METADATA_BYTES_MAX} bytes as JSON")]
    Metadata,
    /// No budget anybody has.
    #[error("its budget must be a number above 0 and at most {BUDGET_USD_MAX}")]
    Budget,
    /// No tokens, or more than anybody has.
    #[error("its budget_tokens must be a whole number from 1 to {BUDGET_TOKENS_MAX}")]
    BudgetTokens,
    /// Too late.
    #[error("its start and its deadline must be within 366 days")]
    Ahead,
}

/// Whether a text can be a task's.
pub fn is_task_text(text: &str) -> bool {
    // Bytes bound characters from above, so that a usual task is not counted.
    (text.len() <= TASK_CHARS_MAX || text.chars().count() <= TASK_CHARS_MAX) && !text.trim().is_empty()
}

/// Whether a budget can be a task's.
pub fn is_budget(usd: f64) -> bool {
    usd > 0.0 && usd <= BUDGET_USD_MAX
}

/// Whether a budget in tokens can be a task's.
pub fn is_token_budget(tokens: u64) -> bool {
    (1..=BUDGET_TOKENS_MAX).contains(&tokens)
}

/// Whether a moment is near enough to wait for.
pub fn is_near(at: Timestamp, now: Timestamp) -> bool {
    SignedDuration::try_from(AHEAD_MAX).is_ok_and(|most| at.duration_since(now) <= most)
}

impl TaskRequested {
    /// Whether it keeps the limits, by this clock.
    pub fn within_limits(&self, now: Timestamp) -> Result<(), BeyondLimits> {
        let limits = [
            (is_task_text(&self.task), BeyondLimits::Task),
            (self.context.is_empty() || json_bytes(&self.context) <= CONTEXT_BYTES_MAX, BeyondLimits::Context),
            (self.metadata.is_empty() || json_bytes(&self.metadata) <= METADATA_BYTES_MAX, BeyondLimits::Metadata),
            (self.budget_usd.is_none_or(is_budget), BeyondLimits::Budget),
            (self.budget_tokens.is_none_or(is_token_budget), BeyondLimits::BudgetTokens),
            ([self.not_before, self.deadline].into_iter().flatten().all(|at| is_near(at, now)), BeyondLimits::Ahead),
        ];
        limits.into_iter().find(|(kept, _)| !kept).map_or(Ok(()), |(_, beyond)| Err(beyond))
    }
}

/// How long a value is as JSON, without writing it down.
pub fn json_bytes(value: &impl Serialize) -> usize {
    struct Count(usize);
    impl Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    match serde_json::to_writer(&mut count, value) {
        Ok(()) => count.0,
        Err(_) => usize::MAX,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ids::TaskId;
    use crate::triggers::Origin;

    #[test]
    fn each_limit_is_kept_to_the_last_byte_and_second() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let far = now + SignedDuration::try_from(AHEAD_MAX).unwrap();
        let request = |change: fn(&mut TaskRequested, Timestamp)| {
            let mut request = TaskRequested::new(TaskId::now(), "x", Origin::Event, now);
            change(&mut request, far);
            request.within_limits(now)
        };
        assert_eq!(request(|_, _| {}), Ok(()));
        assert_eq!(request(|it, _| it.task = "\u{e9}".repeat(TASK_CHARS_MAX)), Ok(()));
        assert_eq!(request(|it, _| it.task = "\u{e9}".repeat(TASK_CHARS_MAX + 1)), Err(BeyondLimits::Task));
        assert_eq!(request(|it, _| it.task = " \n".to_owned()), Err(BeyondLimits::Task));
        let filled = |bytes: usize| serde_json::Map::from_iter([("k".to_owned(), json!("v".repeat(bytes - r#"{"k":""}"#.len())))]);
        let mut large = TaskRequested::new(TaskId::now(), "x", Origin::Event, now);
        large.context = filled(CONTEXT_BYTES_MAX);
        large.metadata = filled(METADATA_BYTES_MAX);
        assert_eq!(large.within_limits(now), Ok(()));
        large.metadata = filled(METADATA_BYTES_MAX + 1);
        assert_eq!(large.within_limits(now), Err(BeyondLimits::Metadata));
        large.context = filled(CONTEXT_BYTES_MAX + 1);
        assert_eq!(large.within_limits(now), Err(BeyondLimits::Context));
        assert_eq!(request(|it, _| it.budget_usd = Some(-1.0)), Err(BeyondLimits::Budget));
        assert_eq!(request(|it, _| it.budget_usd = Some(BUDGET_USD_MAX)), Ok(()));
        assert_eq!(request(|it, _| it.budget_tokens = Some(0)), Err(BeyondLimits::BudgetTokens));
        assert_eq!(request(|it, _| it.budget_tokens = Some(BUDGET_TOKENS_MAX)), Ok(()));
        assert_eq!(request(|it, far| it.deadline = Some(far)), Ok(()));
        assert_eq!(request(|it, far| it.not_before = Some(far + SignedDuration::from_secs(1))), Err(BeyondLimits::Ahead));
    }

    #[test]
    fn the_size_of_a_value_is_that_of_its_json() {
        for value in [json!(null), json!({"a": [1, 2.5, "ü\n"]}), json!("x".repeat(1000))] {
            assert_eq!(json_bytes(&value), value.to_string().len());
        }
    }
}
