//! What the sidecar delivers, through the routes that it calls.

use fte_events::{TaskId, dead_letters};
use fte_testkit::{Dir, FakeSidecar};
use serde_json::{Value, json};

use super::Fixture;
use crate::Config;
use crate::feed::Feed;
use crate::store::{Store, StoreOptions};
use crate::test_support::History;
use crate::wake::Waiters;

fn json_of(history: &History) -> Vec<Value> {
    history.events.iter().map(|event| serde_json::from_slice(&event.record.body).unwrap()).collect()
}

#[tokio::test]
async fn every_topic_in_use_but_the_audit_actions_is_subscribed_to() {
    let status = Fixture::start().await;
    let list = status.subscriptions().await;
    let list = list.as_array().unwrap();
    let topics: Vec<&str> = list.iter().map(|entry| entry["topic"].as_str().unwrap()).collect();
    let expected = [
        "fte.triggers.inbound",
        "fte.sandbox.lifecycle",
        "fte.status.updates",
        "fte.results.completed",
        "fte.handoffs.demo",
        "fte.handoffs.echo",
        "fte.handoffs.human",
        "fte.deadletter.runner",
        "fte.deadletter.status",
    ];
    assert_eq!(topics, expected);
    for entry in list {
        assert_eq!(entry["bulkSubscribe"]["enabled"], true);
        assert_eq!(entry["metadata"]["rawPayload"], "true", "{entry}");
        assert!(entry["deadLetterTopic"].is_null(), "whatever is put aside has its reason: {entry}");
    }
}

#[tokio::test]
async fn beside_dapr_what_programs_wait_for_comes_in_quick_batches_and_the_rest_in_slow_ones() {
    let (dir, sidecar) = (Dir::new(), FakeSidecar::start().await);
    let options = StoreOptions::at(dir.join("status.sqlite"));
    let store = Store::open(options.clone(), Waiters::new(8), Feed::new(1024, 8)).unwrap();
    let status = Fixture::delivered(false, store, options, Config::default(), dir, sidecar);
    let list = status.subscriptions().await;
    for entry in list.as_array().unwrap() {
        // Never one by one: a Kafka header that HTTP cannot carry would hold up its partition.
        let await_ms = if entry["topic"] == "fte.results.completed" { 5 } else { 200 };
        let expected = json!({"enabled": true, "maxMessagesCount": 512, "maxAwaitDurationMs": await_ms});
        assert_eq!(entry["bulkSubscribe"], expected, "{entry}");
    }
}

#[tokio::test]
async fn poison_becomes_one_dead_letter_with_its_reason_and_the_next_event_flows() {
    let status = Fixture::start().await;
    let history = History::whole(TaskId::now());
    let steps: Vec<Value> = json_of(&history).into_iter().filter(|event| event["type"] == "fte.status.changed").collect();
    let poison = json!({"id": "p", "source": "/x", "type": "fte.status.changed", "subject": history.task, "data": {"status": "running"}});
    let batch = vec![steps[0].clone(), poison, json!("no event"), steps[1].clone()];
    assert_eq!(status.deliver("fte.status.updates", batch).await, [true; 4]);

    let published = status.sidecar.published();
    assert_eq!(published.len(), 2);
    let letter = published.iter().map(|published| published.json()).find(|letter| letter["ftecause"] == "p").unwrap();
    assert_eq!((&letter["source"], &letter["type"]), (&json!("/fte/status"), &json!("fte.event.dead-lettered")));
    assert_eq!(letter["data"]["consumer"], "fte-status");
    assert!(letter["data"]["error"]["message"].as_str().unwrap().contains("task_id"), "{letter}");
    assert!(published.iter().all(|published| published.topic == dead_letters::topic("status")));
    let task = status.get(&format!("/v1/tasks/{}", history.task)).await.expect(200);
    assert_eq!(task["status"], "completed");
}

#[tokio::test]
async fn an_event_that_the_database_refuses_is_a_dead_letter_and_its_neighbours_are_stored() {
    let status = Fixture::start().await;
    status.refuse_events_of("/refused").await;
    let history = History::of(TaskId::now()).requested("x");
    let good = json_of(&history).swap_remove(0);
    let mut bad = json_of(&History::of(TaskId::now()).requested("y")).swap_remove(0);
    bad["source"] = json!("/refused");
    assert_eq!(status.deliver("fte.triggers.inbound", vec![good, bad.clone()]).await, [true, true]);
    status.get(&format!("/v1/tasks/{}", history.task)).await.expect(200);
    let published = status.sidecar.published();
    assert_eq!(published.len(), 1);
    let letter = published[0].json();
    assert_eq!((&letter["ftecause"], published[0].topic.as_str()), (&bad["id"], dead_letters::topic("status").as_str()));
    let ready = &status.service.checks.iter().find(|check| check.0 == "store").unwrap().1;
    ready().await.unwrap();
}

#[tokio::test]
async fn an_event_replayed_for_another_consumer_is_acknowledged_unread() {
    let status = Fixture::start().await;
    let history = History::of(TaskId::now()).requested("x");
    let mut event = json_of(&history).swap_remove(0);
    event["ftereplay"] = json!("fte-runner/abc");
    assert_eq!(status.deliver("fte.triggers.inbound", vec![event.clone()]).await, [true]);
    assert_eq!(status.get("/v1/tasks").await.expect(200)["items"], json!([]));
    event["ftereplay"] = json!("fte-status/abc");
    assert_eq!(status.deliver("fte.triggers.inbound", vec![event]).await, [true]);
    status.get(&format!("/v1/tasks/{}", history.task)).await.expect(200);
}
