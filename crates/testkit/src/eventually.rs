//! Waiting for a condition: never a bare sleep, never for ever, never without saying what was seen last.

use std::fmt::Debug;
use std::panic::Location;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

/// How long [`eventually`] waits: far longer than anything takes, so that a busy machine never decides a test.
pub const PATIENCE: Duration = Duration::from_secs(30);

const PAUSE_FIRST: Duration = Duration::from_millis(2);
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// Asks `condition` until it is `Ok`, and returns that. Panics after [`PATIENCE`] with the last `Err`, the state that was seen.
///
/// ```
/// # use fte_testkit::eventually;
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let mut count = 0;
/// let seen = eventually(|| { count += 1; async move { if count == 3 { Ok(count) } else { Err(count) } } }).await;
/// assert_eq!(seen, 3);
/// # }
/// ```
#[track_caller]
pub fn eventually<T, S: Debug, F: Future<Output = Result<T, S>>>(condition: impl FnMut() -> F) -> impl Future<Output = T> {
    eventually_within(PATIENCE, condition)
}

/// [`eventually`] with a patience of its own.
#[track_caller]
pub fn eventually_within<T, S: Debug, F: Future<Output = Result<T, S>>>(
    patience: Duration,
    mut condition: impl FnMut() -> F,
) -> impl Future<Output = T> {
    let caller = Location::caller();
    async move {
        let deadline = Instant::now() + patience;
        let mut pause = PAUSE_FIRST;
        let mut last: Option<S> = None;
        loop {
            match timeout_at(deadline, condition()).await {
                Ok(Ok(value)) => return value,
                Ok(Err(state)) => last = Some(state),
                Err(_) => panic!("the condition at {caller} did not answer within {patience:?}; before that it was: {last:#?}"),
            }
            assert!(Instant::now() + pause < deadline, "the condition at {caller} did not hold within {patience:?}; last: {last:#?}");
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

/// Longest round of [`in_time`].
const ROUND_MAX: Duration = Duration::from_secs(120);

/// Does what has to be done before some time is over, which the round is given. A round that was late, which its `Err` tells, is done again with
/// twice the time: so a busy machine costs a round, and decides nothing. Panics when there is no more time to give.
#[track_caller]
pub fn in_time<T, S: Debug, F: Future<Output = Result<T, S>>>(
    first: Duration,
    mut round: impl FnMut(Duration) -> F,
) -> impl Future<Output = T> {
    let caller = Location::caller();
    async move {
        let mut time = first;
        loop {
            match round(time).await {
                Ok(value) => return value,
                Err(late) => assert!(time < ROUND_MAX, "the round at {caller} was late even with {time:?}: {late:#?}"),
            }
            time = (time * 2).min(ROUND_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_round_that_was_late_is_done_again_with_twice_the_time() {
        let mut rounds = Vec::new();
        let second = Duration::from_secs(1);
        let took = in_time(second, |time| {
            rounds.push(time);
            async move { if time > 3 * second { Ok(time) } else { Err("late") } }
        })
        .await;
        assert_eq!((took, rounds), (4 * second, vec![second, 2 * second, 4 * second]));
    }

    #[tokio::test]
    #[should_panic(expected = "was late even with 120s: \"too much to do\"")]
    async fn a_round_that_is_always_late_ends_the_test() {
        in_time(Duration::from_secs(50), async |_| Err::<(), _>("too much to do")).await;
    }

    #[tokio::test]
    #[should_panic(expected = "last: Some(\n    \"two tasks\",\n)")]
    async fn a_condition_that_never_holds_tells_its_last_state() {
        eventually_within(Duration::from_millis(20), || async { Err::<(), _>("two tasks") }).await;
    }

    #[tokio::test]
    #[should_panic(expected = "did not answer")]
    async fn a_condition_that_hangs_is_not_waited_for() {
        eventually_within(Duration::from_millis(20), std::future::pending::<Result<(), ()>>).await;
    }
}
