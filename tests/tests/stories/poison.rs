//! Poison: one dead letter with its reason, and the next event flows.

use fte_testkit::eventually;
use serde_json::{Value, json};

use crate::world::{Fte, echo};

async fn letters(fte: &Fte) -> Vec<Value> {
    let page: Value = fte.api().get("/v1/dead-letters").await.unwrap().expect_status(200).json();
    page["items"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_request_that_cannot_be_read_fails_visibly_and_the_next_one_flows() {
    let fte = Fte::start().await;
    let task = fte_events::TaskId::now().to_string();
    let poison = json!({
        "specversion": "1.0", "id": "poison-1", "source": "/outside", "type": "fte.task.requested", "subject": task,
        "data": { "task_id": task, "task": { "not": "a text" }, "submitted_at": "2026-01-01T00:00:00Z" }
    });
    fte.publish("fte.triggers.inbound", &poison).await;
    let next = fte.post(echo("next")).await;
    assert_eq!(fte.result(&next).await["status"], "completed");
    let result = fte.result(&task).await;
    assert_eq!((&result["status"], &result["error"]["code"]), (&json!("failed"), &json!("request_unreadable")));
    // The runner and the read model each give up on it, in their own names.
    let found = eventually(|| async {
        let found = letters(&fte).await;
        if found.iter().any(|letter| letter["consumer"] == "fte-runner") { Ok(found) } else { Err(found) }
    })
    .await;
    let letter = found.iter().find(|letter| letter["consumer"] == "fte-runner").unwrap();
    assert_eq!(letter["original_topic"], "fte.triggers.inbound", "{letter}");
    assert!(letter["error"]["message"].as_str().unwrap().contains("task"), "{letter}");
}

#[tokio::test]
async fn a_request_from_the_bus_keeps_the_same_limits_as_one_from_the_api() {
    let fte = Fte::start().await;
    let task = fte_events::TaskId::now().to_string();
    let request = json!({
        "specversion": "1.0", "id": "beyond-1", "source": "/outside", "type": "fte.task.requested", "subject": task,
        "data": { "task_id": task, "task": "x".repeat(32_001), "submitted_at": "2026-01-01T00:00:00Z" }
    });
    fte.publish("fte.triggers.inbound", &request).await;
    let result = fte.result(&task).await;
    assert_eq!((&result["status"], &result["error"]["code"]), (&json!("failed"), &json!("request_beyond_limits")));
    assert!(result["error"]["message"].as_str().unwrap().contains("32000 characters"), "{result}");
    assert!(letters(&fte).await.is_empty(), "it was understood, and answered");
}

#[tokio::test]
async fn a_letter_is_replayed_once_and_audited() {
    let fte = Fte::start().await;
    let task = fte_events::TaskId::now().to_string();
    let poison = json!({
        "specversion": "1.0", "id": "poison-2", "source": "/outside", "type": "fte.task.resumed", "subject": task, "data": { "turn": "x" }
    });
    fte.publish("fte.triggers.inbound", &poison).await;
    let letter = eventually(|| async {
        let found = letters(&fte).await;
        found.iter().find(|letter| letter["consumer"] == "fte-runner").cloned().ok_or(found)
    })
    .await;
    let id = letter["id"].as_str().unwrap();
    let api = fte.api();
    let replayed = api.post(&format!("/v1/dead-letters/{id}/replay"), &json!({})).await.unwrap();
    assert!(replayed.status.is_success(), "{}", replayed.text());
    eventually(|| async {
        let page: Value = api.get("/v1/audit/entries?action=deadletter.replayed").await.unwrap().expect_status(200).json();
        if page["items"].as_array().unwrap().len() == 1 { Ok(()) } else { Err(page) }
    })
    .await;
}
