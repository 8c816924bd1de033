//! Forgets what is older than the retention, now and then, in small steps with pauses.

use std::time::{Duration, Instant};

use fte_artifacts::Artifacts;
use fte_service::{ServiceError, SteadyClock, chain};

use crate::store::{Cutoff, Store, StoreError, Sweep};
use crate::{metrics, removing};

/// Between two steps, so that a sweep takes a small part of the writer's time.
const PAUSE: Duration = Duration::from_millis(50);

/// Sweeps at the start and then each `every`.
pub(crate) async fn sweep_for_ever(store: Store, artifacts: Artifacts, retention: Duration, every: Duration) -> Result<(), ServiceError> {
    let started = Instant::now();
    let clock = SteadyClock::new("ended tasks, and dead letters");
    loop {
        let has_settled = started.elapsed() >= removing::SETTLED_AFTER;
        if let Err(error) = sweep_all(&store, has_settled.then_some(&artifacts), retention, &clock).await {
            tracing::warn!(error = %chain(&error), "the sweep of what is too old stopped; it will be tried again");
        }
        tokio::time::sleep(every).await;
    }
}

/// One sweep, unless another process is at it.
async fn sweep_all(store: &Store, artifacts: Option<&Artifacts>, retention: Duration, clock: &SteadyClock) -> Result<(), removing::Error> {
    // Looked at each time, so that it is known since when it is wrong.
    let now = clock.now();
    let Some(_alone) = store.sweeping_alone().await? else { return Ok(()) };
    sweep(store, Cutoff::at(now, retention)).await?;
    match artifacts {
        Some(artifacts) => removing::remove(store, artifacts, now).await,
        None => Ok(()),
    }
}

/// The tasks, events and letters, from the beginning to the end.
async fn sweep(store: &Store, cutoff: Cutoff) -> Result<(), StoreError> {
    let mut step = Sweep::start();
    while step != Sweep::Finished {
        let swept = store.sweep(step, cutoff).await?;
        metrics::swept("task", swept.tasks);
        metrics::swept("event", swept.events);
        metrics::swept("letter", swept.letters);
        step = swept.next;
        if swept.tasks + swept.events + swept.letters > 0 {
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use fte_artifacts::Place;
    use fte_events::{ResultKind, Status, TaskId};
    use fte_service::keys::Scope;
    use fte_testkit::Dir;
    use serde_json::json;

    use super::*;
    use crate::test_support::{History, fresh, incoming};

    const DAY_S: u64 = 86_400;

    #[tokio::test]
    async fn a_clock_that_is_a_year_ahead_for_a_moment_deletes_nothing() {
        let (_dir, store) = fresh(false).await;
        let now_s = jiff::Timestamp::now().as_second().cast_unsigned();
        // How far both clocks have gone, and how far the wall clock is ahead of that.
        let (gone, ahead) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let wall = {
            let (gone, ahead) = (Arc::clone(&gone), Arc::clone(&ahead));
            move || now_s + gone.load(Ordering::Relaxed) + ahead.load(Ordering::Relaxed)
        };
        let monotonic = {
            let gone = Arc::clone(&gone);
            move || Duration::from_secs(gone.load(Ordering::Relaxed))
        };
        let data = Dir::new();
        let artifacts = Artifacts::open(&Place::Data, &data.join("data")).unwrap().with_clocks(wall.clone(), monotonic.clone());
        let clock = SteadyClock::of("test", move || wall().cast_signed() * 1000, monotonic);

        let kept = artifacts.keep(Cursor::new("a report"), 1000).await.unwrap();
        let task = TaskId::now();
        let digest = kept.digest.to_string();
        let artifact = json!({"name": "a.txt", "content_type": "text/plain", "size_bytes": kept.size, "uri": format!("artifact:sha256/{digest}"), "sha256": digest});
        let running = History::of(task).requested("report").step_with(Status::Running, |event| {
            event.details.insert("artifact".to_owned(), artifact);
        });
        store.record(incoming(running.ended(ResultKind::Completed).events)).await.unwrap();
        // What no task names any more is removed by its own age.
        let stray = artifacts.keep(Cursor::new("a draft"), 1000).await.unwrap();

        let retention = Duration::from_secs(90 * DAY_S);
        let sweep = async || sweep_all(&store, Some(&artifacts), retention, &clock).await.unwrap();
        sweep().await;
        ahead.store(365 * DAY_S, Ordering::Relaxed);
        sweep().await;
        artifacts.remove(stray.digest).await.unwrap();
        ahead.store(0, Ordering::Relaxed);
        sweep().await;
        assert!(store.task(task, Scope::All).await.unwrap().is_some());
        artifacts.look(kept.digest, kept.size).await.unwrap();
        artifacts.look(stray.digest, stray.size).await.unwrap();

        // And a year that was one is.
        gone.store(365 * DAY_S, Ordering::Relaxed);
        sweep().await;
        assert!(store.task(task, Scope::All).await.unwrap().is_none());
        gone.fetch_add(2 * DAY_S, Ordering::Relaxed);
        sweep().await;
        artifacts.look(kept.digest, kept.size).await.unwrap_err();
    }
}
