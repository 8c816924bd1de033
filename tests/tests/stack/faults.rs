//! `kill -9` of each part while tasks flow: afterwards every 202 has its one result, and all invariants hold.

use std::time::Duration;

use fte_testkit::eventually_within;
use fte_tests::load::Load;
use fte_tests::tasks::{Dice, setting};
use fte_tests::trail::settled;

use crate::world::{Store, World};

/// The one process that holds this seat is taken over at once; who waits for an approval is soon parked.
const ENV: &[(&str, &str)] = &[("FTE_RUNNER_SEAT", "pod-0"), ("FTE_RUNNER_APPROVAL_STAY_MS", "100")];
const SERVICES: [&str; 4] = ["intake", "runner", "status", "audit"];
const POSTERS: u64 = 4;
/// How many tasks must be accepted between two faults: the load has to go on by itself after each.
const BETWEEN: usize = 10;
/// How long that may take: clients of a broker that was away try again at intervals.
const RECOVERY: Duration = Duration::from_secs(90);

/// People at work on a stack, and chance.
struct Story {
    world: World,
    load: Load,
    dice: Dice,
}

impl Story {
    async fn start(store: Store) -> Self {
        let seed = setting("FTE_STACK_SEED", 7);
        println!("seed: FTE_STACK_SEED={seed}");
        let world = World::start_with(store, ENV).await;
        let load = Load::start(POSTERS, world.doors());
        Self { world, load, dice: Dice::new(seed) }
    }

    /// Waits until tasks flow, and then for a moment that nobody can foresee.
    async fn flows(&mut self) {
        let before = self.load.accepted();
        let load = &self.load;
        eventually_within(RECOVERY, || async {
            let more = load.accepted() - before;
            if more >= BETWEEN { Ok(()) } else { Err(format!("{more} more tasks accepted")) }
        })
        .await;
        tokio::time::sleep(Duration::from_millis(self.dice.below(200))).await;
    }

    /// Kills a part, which comes back after a second or two.
    async fn loses(&mut self, part: &str) {
        self.world.infrastructure.kill(part);
        tokio::time::sleep(Duration::from_millis(500 + self.dice.below(1500))).await;
        self.world.infrastructure.start_again(part);
    }

    /// Ends the load, and holds all that happened to the invariants.
    async fn ends_well(mut self) {
        self.flows().await;
        let accepted = self.load.end().await;
        let told = settled(&self.world.doors(), &accepted).await.len();
        self.load.go_home().await;
        println!("accepted: {}, tasks in the trail: {told}, lost: 0, doubled: 0", accepted.len());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_sidecar_killed_in_turn_loses_nothing_and_doubles_nothing() {
    let mut story = Story::start(Store::Redis).await;
    for service in SERVICES {
        story.flows().await;
        story.world.pair(service).kill_sidecar_and_restart().await;
    }
    story.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_service_and_postgresql_killed_in_turn_lose_nothing_and_double_nothing() {
    let mut story = Story::start(Store::Postgresql).await;
    for service in SERVICES {
        story.flows().await;
        story.world.pair(service).kill_service_and_restart().await;
    }
    story.flows().await;
    story.loses("postgres").await;
    story.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_broker_the_store_and_the_scheduler_killed_in_turn_lose_nothing_and_double_nothing() {
    let mut story = Story::start(Store::Redis).await;
    for part in ["kafka", "redis", "scheduler"] {
        story.flows().await;
        story.loses(part).await;
    }
    story.ends_well().await;
}
