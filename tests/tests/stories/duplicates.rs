//! The same thing told twice, and twice at once.

use fte_testkit::{bare, cloud_event, request};
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::trail::settled;
use crate::world::Fte;

#[tokio::test]
async fn a_trigger_delivered_again_and_at_once_starts_one_task() {
    let fte = Fte::start().await;
    let request = request("only once");
    let event = serde_json::to_value(cloud_event(&request)).unwrap();
    join_all((0..10).map(|_| fte.publish("fte.triggers.inbound", &event))).await;
    let task = request.task_id.to_string();
    assert_eq!(fte.result(&task).await["status"], "completed");
    fte.publish("fte.triggers.inbound", &event).await;
    // A marker behind the duplicates: once it is done, they have been handled too (or are in another partition, and then done as well).
    let marker = fte.post(json!({ "task": "marker" })).await;
    fte.result(&marker).await;
    // The audit gathers events; what was told of both has arrived when both are whole.
    let trail = settled(&fte.doors(), &[task.clone(), marker]).await;
    assert_eq!(trail[&task].results.len(), 1);
    assert_eq!(trail[&task].claimed.len(), 1);
}

#[tokio::test]
async fn a_bare_event_from_outside_is_a_task() {
    let fte = Fte::start().await;
    let event = bare("/shop", "order-7", json!({ "task": "greet the customer" }));
    let id = fte_events::TaskId::from_source("/shop", "order-7").to_string();
    let event = serde_json::to_value(event).unwrap();
    fte.publish("fte.triggers.inbound", &event).await;
    fte.publish("fte.triggers.inbound", &event).await;
    let result = fte.result(&id).await;
    assert_eq!(result["result"]["echo"], "greet the customer");
}

#[tokio::test]
async fn one_idempotency_key_is_one_task() {
    let fte = Fte::start().await;
    let client = fte.api().with_header("idempotency-key", "order-7");
    let answers =
        join_all((0..8).map(|_| async { client.post("/v1/tasks", &json!({ "task": "once" })).await.unwrap().expect_status(202) })).await;
    let ids: std::collections::BTreeSet<String> =
        answers.iter().map(|answer| answer.json::<Value>()["task_id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids.len(), 1);
    let other = client.post("/v1/tasks", &json!({ "task": "another body" })).await.unwrap().expect_status(409);
    assert_eq!(other.problem_code(), "idempotency_key_reused");
}
