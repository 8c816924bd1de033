//! `kill -9` of each part while tasks flow: afterwards every 202 has its one result, and all invariants hold.

use crate::story::Story;
use crate::world::Store;

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
    for part in ["kafka", "redis", "scheduler"] {
        story.flows().await;
        story.loses(part).await;
    }
    story.ends_well().await;
}
