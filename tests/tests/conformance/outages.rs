//! The app goes away, the sidecar is killed: nothing that was answered 204 is lost. Run after the others, one by one.

use std::sync::Arc;
use std::time::Duration;

use fte_testkit::eventually;
use serde_json::json;
use tokio::sync::Semaphore;

use crate::app::{Reply, Who};
use crate::feature::Feature;
use crate::runner::{Case, cases};
use crate::topics::OUTAGES;
use crate::world::{World, error_code};

pub(crate) const CASES: &[Case] = cases![alone:
    an_app_that_was_away_gets_everything_in_order,
    a_killed_sidecar_loses_nothing needs [Restart],
    a_job_survives_a_killed_sidecar needs [Restart, Jobs],
    a_sidecar_that_stops_waits_for_what_is_out needs [Stop],
];

/// The instances of the first app.
fn instances(world: &World) -> Vec<usize> {
    (0..world.target.sidecars.len()).filter(|index| world.target.sidecars[*index].who == Who::First).collect()
}

async fn an_app_that_was_away_gets_everything_in_order(world: &World) {
    let key = world.mark();
    world.settled(OUTAGES, &key).await;
    for index in instances(world) {
        world.apps.down(index).await;
    }
    if world.has(Feature::Embedded) {
        let health = eventually(|| async {
            let health = world.get("/v1.0/healthz").await;
            if health.status == 500 { Ok(health) } else { Err(health.status) }
        })
        .await;
        assert_eq!(error_code(&health), "ERR_HEALTH_NOT_READY");
    }
    world.get("/v1.0/healthz/outbound").await.expect_status(204);
    let mut marks = Vec::new();
    for _ in 0..20 {
        marks.push(world.publish_marked(OUTAGES, &key).await);
    }
    for index in instances(world) {
        world.apps.up(index).await;
    }
    let mut calls = Vec::new();
    for mark in &marks {
        calls.push(world.delivered(mark, 1).await[0].call);
    }
    assert!(calls.is_sorted(), "{calls:?}");
    world.ready().await;
}

async fn a_killed_sidecar_loses_nothing(world: &World) {
    let (key, held) = (world.mark(), world.mark());
    let row = format!("/v1.0/state/{}/{key}", world.target.statestore);
    let item = json!([{"key": key, "value": "kept"}]);
    world.post(&format!("/v1.0/state/{}", world.target.statestore), &item).await.expect_status(204);
    // One delivery is out, unanswered, and more are behind it.
    let gate = Arc::new(Semaphore::new(0));
    world.reply(&held, [Reply::Held(gate.clone())]);
    world.publish_as(OUTAGES, &key, &held).await;
    world.delivered(&held, 1).await;
    let mut marks = vec![held];
    for _ in 0..10 {
        marks.push(world.publish_marked(OUTAGES, &key).await);
    }
    world.target.restart().await;
    gate.close();
    world.ready().await;
    assert_eq!(world.get(&row).await.expect_status(200).json::<serde_json::Value>(), "kept");
    // The group forms again without its dead members.
    world.arrives(Who::First, marks.last().expect("marks")).await;
    assert!(world.seen(&marks[0]).len() > 1, "a delivery that was cut off is made again");
    let mut last = Vec::new();
    for mark in &marks {
        last.push(world.delivered(mark, 1).await.last().expect("a delivery").call);
    }
    assert!(last.is_sorted(), "{last:?}");
    world.settled(OUTAGES, &key).await;
}

async fn a_job_survives_a_killed_sidecar(world: &World) {
    let mark = world.mark();
    world.post(&format!("/v1.0-alpha1/jobs/{mark}"), &json!({"dueTime": "2s"})).await.expect_status(204);
    world.target.restart().await;
    world.ready().await;
    world.delivered(&mark, 1).await;
}

async fn a_sidecar_that_stops_waits_for_what_is_out(world: &World) {
    let (key, held) = (world.mark(), world.mark());
    let gate = Arc::new(Semaphore::new(0));
    world.reply(&held, [Reply::Held(gate.clone())]);
    world.publish_as(OUTAGES, &key, &held).await;
    world.delivered(&held, 1).await;
    let mut kept = String::new();
    let meanwhile = async {
        // It has begun to stop when it delivers nothing more; it takes what apps still publish.
        loop {
            kept = world.publish_marked(OUTAGES, &world.mark()).await;
            if tokio::time::timeout(Duration::from_millis(500), world.delivered(&kept, 1)).await.is_err() {
                break;
            }
        }
        gate.close();
    };
    world.target.stop_and_start(meanwhile).await;
    world.ready().await;
    world.settled(OUTAGES, &key).await;
    assert_eq!(world.seen(&held).len(), 1, "it was answered, so it is not made again");
    world.delivered(&kept, 1).await;
}
