//! `kill -9` of each part while tasks flow: afterwards every 202 has its one result, and all invariants hold.

use fte_tests::tasks::{echo, post};
use serde_json::json;

use crate::story::Story;
use crate::world::{Store, result};

const SERVICES: [&str; 4] = ["intake", "runner", "status", "audit"];

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
    story.flows().await;
    story.scheduler_hangs().await;
    for part in ["kafka", "redis", "scheduler"] {
        story.flows().await;
        story.loses(part).await;
    }
    story.ends_well().await;
}

impl Story {
    /// Only what relies on a timer waits for the scheduler, and holds up nothing else, up to as many tasks as a runner may have. The load would ask for more.
    async fn scheduler_hangs(&self) {
        let doors = self.world.doors();
        self.load.pause().await;
        self.world.infrastructure.pause("scheduler");
        let later = post(&doors.intake, json!({ "task": "later", "delay": "1s" })).await;
        for _ in 0..5 {
            let task = post(&doors.intake, echo("now")).await;
            assert_eq!(result(&doors.status, &task).await["status"], "completed");
        }
        self.world.infrastructure.resume("scheduler");
        assert_eq!(result(&doors.status, &later).await["status"], "completed");
        self.load.open(doors);
    }
}
