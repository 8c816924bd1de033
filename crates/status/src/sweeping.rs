//! Forgets what is older than the retention, now and then, in small steps with pauses.

use std::time::{Duration, Instant};

use fte_artifacts::Artifacts;
use fte_service::{ServiceError, chain};
use jiff::Timestamp;

use crate::store::{Store, StoreError, Sweep};
use crate::{metrics, removing};

/// Between two steps, so that a sweep takes a small part of the writer's time.
const PAUSE: Duration = Duration::from_millis(50);

/// Sweeps at the start and then each `every`.
pub(crate) async fn sweep_for_ever(store: Store, artifacts: Artifacts, retention: Duration, every: Duration) -> Result<(), ServiceError> {
    let started = Instant::now();
    loop {
        let has_settled = started.elapsed() >= removing::SETTLED_AFTER;
        if let Err(error) = sweep_all(&store, has_settled.then_some(&artifacts), retention).await {
            tracing::warn!(error = %chain(&error), "the sweep of what is too old stopped; it will be tried again");
        }
        tokio::time::sleep(every).await;
    }
}

/// One sweep, unless another process is at it.
async fn sweep_all(store: &Store, artifacts: Option<&Artifacts>, retention: Duration) -> Result<(), removing::Error> {
    let Some(_alone) = store.sweeping_alone().await? else { return Ok(()) };
    sweep(store, retention).await?;
    match artifacts {
        Some(artifacts) => removing::remove(store, artifacts, Timestamp::now()).await,
        None => Ok(()),
    }
}

/// The tasks, events and letters, from the beginning to the end.
async fn sweep(store: &Store, retention: Duration) -> Result<(), StoreError> {
    let cutoff_us = Timestamp::now().as_microsecond().saturating_sub(i64::try_from(retention.as_micros()).unwrap_or(i64::MAX));
    let mut step = Sweep::start();
    while step != Sweep::Finished {
        let swept = store.sweep(step, cutoff_us).await?;
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
