//! What other services ask the runner for, by service invocation: which queues are full, and where a task stands. Its shapes are in [`fte_service::pools`].

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use fte_events::TaskId;
use fte_service::pools::{FULL_PATH, FullQueues, Standing, TASK_PATH};
use http::StatusCode;

use crate::protocol::Runner;

/// When a queue drains at a rate that is not known yet.
const UNKNOWN: Duration = Duration::from_secs(30);
/// Nobody is told to come back later than after so many seconds: until then much may change.
const SECONDS_MAX: u64 = 300;

pub(crate) fn methods(runner: Arc<Runner>) -> Router {
    Router::new().route(&format!("/{FULL_PATH}"), get(full)).route(&format!("/{TASK_PATH}/{{id}}"), get(standing)).with_state(runner)
}

async fn full(State(runner): State<Arc<Runner>>) -> Json<FullQueues> {
    let full = runner.usage().into_iter().filter(|usage| runner.is_full(&usage.agent)).map(|usage| {
        let seconds = seconds(runner.drained_in(&usage.agent));
        (usage.agent, seconds)
    });
    Json(FullQueues { full: full.collect() })
}

async fn standing(State(runner): State<Arc<Runner>>, Path(task): Path<TaskId>) -> Result<Json<Standing>, StatusCode> {
    let standing = runner.standing(task).ok_or(StatusCode::NOT_FOUND)?;
    Ok(Json(Standing {
        position: standing.position as u64,
        waiting: standing.waiting as u64,
        wait_s: standing.estimate.map(|estimate| (estimate.as_secs_f64() * 10.0).round() / 10.0),
    }))
}

/// When a full queue may be worth a try: once all that waits now has had its turn, within bounds.
fn seconds(drained_in: Option<Duration>) -> u64 {
    (drained_in.unwrap_or(UNKNOWN).as_secs_f64().ceil() as u64).clamp(1, SECONDS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_told_in_whole_seconds_within_bounds() {
        let check = |ms: Option<u64>, expected| assert_eq!(seconds(ms.map(Duration::from_millis)), expected);
        check(None, 30);
        check(Some(0), 1);
        check(Some(1001), 2);
        check(Some(10_000_000), 300);
    }
}
