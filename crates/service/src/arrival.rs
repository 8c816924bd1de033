//! Waiting for a task whose events may still be on their way: who was given an id may ask for it at once, at whichever service.
//!
//! Only a young id is waited for, so that asking for one that does not exist costs a wait only to who made one up just now.

use std::time::Duration;

use fte_events::TaskId;
use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, timeout_at};

/// A task younger than this that is not known may be on its way.
const YOUNG: SignedDuration = SignedDuration::from_secs(10);
/// Longest wait for it.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// How long a task is waited for that is not known yet.
///
/// Look for the task; when it is not there, [`wait`](Self::wait) for news and look again while that says so. News must not be missed between a look and
/// the wait: begin to listen before the first look.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    deadline: Option<Instant>,
}

impl Arrival {
    /// Two seconds from now for a young task, no wait at all for any other.
    pub fn of(task: Option<TaskId>) -> Self {
        Self { deadline: task.is_some_and(is_young).then(|| Instant::now() + WAIT_MAX) }
    }

    /// Waits for `news`. False when it is over: the task is not known.
    pub async fn wait(self, news: impl Future) -> bool {
        match self.deadline {
            Some(deadline) => timeout_at(deadline, news).await.is_ok(),
            None => false,
        }
    }
}

/// Clocks differ a little, so an id may also be from the near future.
fn is_young(task: TaskId) -> bool {
    task.minted_at().is_some_and(|minted| Timestamp::now().duration_since(minted).abs() < YOUNG)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn old_task() -> TaskId {
        TaskId::mint(Timestamp::now() - SignedDuration::from_secs(60), 1 << 32)
    }

    #[tokio::test(start_paused = true)]
    async fn a_young_task_is_waited_for_until_the_wait_is_over() {
        let (started, arrival) = (Instant::now(), Arrival::of(Some(TaskId::now())));
        let news = || tokio::time::sleep(Duration::from_millis(1500));
        assert!(arrival.wait(news()).await);
        assert!(!arrival.wait(news()).await);
        assert_eq!(started.elapsed(), WAIT_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_old_or_no_task_is_not_waited_for() {
        for task in [Some(old_task()), None] {
            assert!(!Arrival::of(task).wait(std::future::pending::<()>()).await);
        }
    }
}
