//! A disk without room, as the sidecar meets it. (Of the SQLite store alone: a server's disk is not this service's to fill.)

use std::sync::atomic::Ordering;

use fte_events::TaskId;
use serde_json::Value;

use crate::test_support::{Fixture, History};

fn request() -> Value {
    serde_json::from_slice(&History::of(TaskId::now()).requested(&"x".repeat(4000)).events[0].record.body).unwrap()
}

#[tokio::test]
async fn a_full_disk_is_a_retry_never_a_dead_letter_and_shows_as_not_ready() {
    let status = Fixture::<false>::start().await;
    let ready = &status.service.checks.iter().find(|check| check.0 == "store").unwrap().1;
    ready().await.unwrap();
    status.options.pages_max.store(1, Ordering::Relaxed);
    let requests: Vec<Value> = (0..64).map(|_| request()).collect();
    assert_eq!(status.deliver("fte.triggers.inbound", requests.clone()).await, [false; 64]);
    assert!(ready().await.unwrap_err().to_string().contains("full"));
    assert!(status.sidecar.published().is_empty());

    status.options.pages_max.store(0, Ordering::Relaxed);
    assert_eq!(status.deliver("fte.triggers.inbound", requests).await, [true; 64]);
    ready().await.unwrap();
    assert_eq!(status.get("/v1/tasks?limit=1000").await.expect(200)["items"].as_array().unwrap().len(), 64);
}
