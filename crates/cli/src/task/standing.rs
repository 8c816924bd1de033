//! Where a task stands in its queue, in words.

use std::collections::HashMap;
use std::time::Duration;

use fte_service::pools::Standing;
use futures_util::future::join_all;

use super::Task;
use crate::client::{Client, escaped};

/// So many tasks of a list are asked about: one question each, all at a time.
const ASKED_MAX: usize = 20;

/// `3 of 7, about 12 s`.
pub(super) fn words(standing: &Standing) -> String {
    let wait = standing.wait_s.map(|seconds| format!(", about {}", rounded(seconds))).unwrap_or_default();
    format!("{} of {}{wait}", standing.position, standing.waiting)
}

/// A guess, told as one: `12 s`, `3 min`, `2 h`.
fn rounded(seconds: f64) -> String {
    match seconds {
        _ if seconds < 90.0 => format!("{} s", seconds.ceil()),
        _ if seconds < 5_400.0 => format!("{} min", (seconds / 60.0).round()),
        _ => format!("{} h", (seconds / 3_600.0).round()),
    }
}

/// Where it stands, as far as the instance says so.
pub(super) async fn of(client: &Client, task_id: &str) -> Option<Standing> {
    let answer = client.get(&format!("/v1/tasks/{}", escaped(task_id))).await.ok()?;
    answer.json::<Task>().ok()?.queue
}

/// Where the queued ones among these stand, by their ids.
pub(super) async fn of_all(client: &Client, tasks: &[Task]) -> HashMap<String, String> {
    let queued = tasks.iter().filter(|task| task.status == "queued").take(ASKED_MAX);
    let asked = queued.map(async |task| Some((task.task_id.clone(), words(&of(client, &task.task_id).await?))));
    join_all(asked).await.into_iter().flatten().collect()
}

/// Tells `each` where a task stands whenever that has changed, as long as `is_queued`. Ends never.
pub(super) async fn tell(
    client: &Client,
    task_id: &str,
    is_queued: impl Fn() -> bool,
    mut each: impl FnMut(String),
) -> std::convert::Infallible {
    let mut last = None;
    loop {
        // A task whose turn comes at once stands nowhere.
        tokio::time::sleep(Duration::from_secs(1)).await;
        if !is_queued() {
            last = None;
            continue;
        }
        let Some(standing) = of(client, task_id).await else { continue };
        let place = (standing.position, standing.waiting);
        if is_queued() && last != Some(place) {
            last = Some(place);
            each(words(&standing));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_told_with_the_time_that_it_may_take() {
        let check = |wait_s: Option<f64>, expected: &str| assert_eq!(words(&Standing { position: 3, waiting: 7, wait_s }), expected);
        check(None, "3 of 7");
        check(Some(0.2), "3 of 7, about 1 s");
        check(Some(12.0), "3 of 7, about 12 s");
        check(Some(100.0), "3 of 7, about 2 min");
        check(Some(7_300.0), "3 of 7, about 2 h");
    }
}
