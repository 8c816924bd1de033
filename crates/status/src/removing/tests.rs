//! Contents are shared by tasks, named late, kept again, and looked at by passes that are cut short: whatever a kept task names is there, and in the
//! end nothing else is.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use fte_artifacts::{Artifacts, EPOCH_SECONDS, Kept, Place};
use fte_events::{ResultKind, Status, TaskId};
use fte_testkit::Dir;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::*;
use crate::store::{Cutoff, Sweep};
use crate::test_support::{History, fresh, incoming};

const BASE: i64 = 1_700_000_000;

struct World {
    store: Store,
    artifacts: Artifacts,
    clock: Arc<AtomicU64>,
    /// Days since the beginning, for what is looked at again a day later.
    days: i64,
    /// Who names what, by the time of the task.
    named: BTreeMap<i64, Vec<Kept>>,
    contents: Vec<(Kept, String)>,
    _dirs: [Dir; 2],
}

/// Polls it so many times and then drops it, as a crash would. Whether it came to its end.
async fn cut<F: Future>(polls: u32, future: F) -> Option<F::Output> {
    let (mut future, mut left) = (pin!(future), polls);
    std::future::poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        future.as_mut().poll(context).map(Some)
    })
    .await
}

impl World {
    async fn new(on_server: bool) -> Self {
        let (dir, store) = fresh(on_server).await;
        let data = Dir::new();
        let clock = Arc::new(AtomicU64::new(3000 * EPOCH_SECONDS));
        let told = Arc::clone(&clock);
        let artifacts = Artifacts::open(&Place::Data, &data.join("data")).unwrap().with_clock(move || told.load(Ordering::Relaxed));
        Self { store, artifacts, clock, days: 0, named: BTreeMap::new(), contents: Vec::new(), _dirs: [dir, data] }
    }

    async fn keep(&mut self, content: &str) -> Kept {
        let kept = self.artifacts.keep(Cursor::new(content.to_owned()), 1000).await.unwrap();
        if !self.contents.iter().any(|(known, _)| *known == kept) {
            self.contents.push((kept, content.to_owned()));
        }
        kept
    }

    /// A task that was asked for then, and ended at once, has named these.
    async fn ended(&mut self, at: i64, kept: &[Kept]) {
        let task = TaskId::mint(Timestamp::from_second(BASE + at).unwrap(), fastrand::u128(..));
        let history = kept.iter().fold(History::of(task).requested("make"), |history, kept| {
            let digest = kept.digest.to_string();
            let artifact = json!({"name": "a.txt", "content_type": "text/plain", "size_bytes": kept.size, "uri": format!("artifact:sha256/{digest}"), "sha256": digest});
            history.step_with(Status::Running, |event| drop(event.details.insert("artifact".to_owned(), artifact)))
        });
        self.store.record(incoming(history.ended(ResultKind::Completed).events)).await.unwrap();
        self.named.entry(at).or_default().extend(kept);
    }

    /// Some steps of the sweep of tasks asked for before then, or all.
    async fn sweep(&mut self, before: i64, steps: u32) {
        let (mut step, mut left) = (Sweep::start(), steps);
        while step != Sweep::Finished && left > 0 {
            step = self.store.sweep(step, Cutoff::at(Timestamp::from_second(BASE + before).unwrap(), Duration::ZERO)).await.unwrap().next;
            left -= 1;
        }
        // Of a sweep that was cut short some are gone.
        self.named = self.named.split_off(&before);
    }

    async fn pass(&mut self, polls: u32) -> bool {
        self.days += 2;
        let now = Timestamp::now() + SignedDuration::from_hours(24 * self.days);
        match cut(polls, remove(&self.store, &self.artifacts, now)).await {
            Some(outcome) => {
                outcome.unwrap();
                true
            }
            None => false,
        }
    }

    async fn assert_named_is_there(&self, seed: u64) {
        for kept in self.named.values().flatten() {
            self.artifacts.look(kept.digest, kept.size).await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        }
    }
}

async fn schedule(on_server: bool, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut world = World::new(on_server).await;
    let (mut now, mut swept) = (0, 0);
    // What was kept, and whose event has not come yet.
    let mut on_the_way: Vec<(u64, i64, Vec<Kept>)> = Vec::new();
    for _ in 0..40 {
        match random.u8(..8) {
            0..=2 => {
                let mut kept = Vec::new();
                for _ in 0..random.usize(1..3) {
                    kept.push(world.keep(&format!("content {}", random.u8(..4))).await);
                }
                now += 1;
                if random.bool() {
                    world.ended(now, &kept).await;
                } else {
                    on_the_way.push((world.clock.load(Ordering::Relaxed), now, kept));
                }
            }
            3 => {
                swept = random.i64(swept..=now);
                world.sweep(swept, if random.bool() { u32::MAX } else { random.u32(1..12) }).await;
            }
            4 | 5 => drop(world.pass(if random.bool() { u32::MAX } else { random.u32(1..40) }).await),
            _ => {
                let passed = random.u64(..EPOCH_SECONDS);
                let clock = world.clock.load(Ordering::Relaxed) + passed;
                // An event is on its way for less than an epoch.
                let (late, early): (Vec<_>, Vec<_>) = on_the_way.into_iter().partition(|(kept, ..)| clock - kept >= EPOCH_SECONDS);
                on_the_way = early;
                for (_, at, kept) in late {
                    world.ended(at.max(swept), &kept).await;
                }
                world.clock.store(clock, Ordering::Relaxed);
            }
        }
        world.assert_named_is_there(seed).await;
    }
    for (_, at, kept) in on_the_way {
        world.ended(at.max(swept), &kept).await;
    }
    world.sweep(now + 2, u32::MAX).await;
    world.clock.fetch_add(4 * EPOCH_SECONDS, Ordering::Relaxed);
    assert!(world.pass(u32::MAX).await);
    for (kept, content) in &world.contents {
        let left = world.artifacts.look(kept.digest, kept.size).await;
        assert!(matches!(left, Err(fte_artifacts::ReadError::Missing { .. })), "seed {seed}: {content} {left:?}");
    }
}

#[tokio::test]
async fn what_a_task_names_outlives_every_pass_and_the_rest_goes() {
    for seed in 0..60 {
        schedule(false, seed).await;
    }
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn what_a_task_names_outlives_every_pass_and_the_rest_goes_on_a_server_too() {
    for seed in 100..106 {
        schedule(true, seed).await;
    }
}

#[tokio::test]
async fn a_content_that_no_task_here_ever_named_is_left_alone() {
    let mut world = World::new(false).await;
    let kept = world.keep("of a read model that was lost").await;
    world.clock.fetch_add(100 * EPOCH_SECONDS, Ordering::Relaxed);
    assert!(world.pass(u32::MAX).await);
    world.artifacts.look(kept.digest, kept.size).await.unwrap();
}

#[tokio::test]
async fn a_store_that_is_away_ends_the_pass_and_forgets_nothing() {
    let mut world = World::new(false).await;
    let kept = world.keep("x").await;
    world.ended(1, &[kept]).await;
    world.sweep(5, u32::MAX).await;
    let nowhere = Artifacts::open(&Place::Directory("/nowhere/at/all".into()), std::path::Path::new("/nowhere")).unwrap();
    let now = Timestamp::now() + SignedDuration::from_hours(24);
    assert!(matches!(remove(&world.store, &nowhere, now).await, Err(Error::Away(_))));
    assert_eq!(world.store.unnamed(now.as_millisecond(), 10).await.unwrap().len(), 1);
}
