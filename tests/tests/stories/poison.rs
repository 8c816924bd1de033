//! Poison: one dead letter with its reason, and the next event flows.

use fte_testkit::eventually;
use serde_json::{Value, json};

use crate::world::{Fte, echo, look};

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

/// Whoever handed it off would wait for a day.
#[tokio::test]
async fn a_hand_off_that_cannot_be_read_fails_for_who_waits_for_it() {
    let fte = Fte::start().await;
    let [task, parent] = [(); 2].map(|()| fte_events::TaskId::now().to_string());
    let poison = json!({
        "specversion": "1.0", "id": "poison-handoff", "source": "/outside", "type": "fte.handoff.requested", "subject": task,
        "data": { "handoff_id": "01980000-0000-8000-8000-000000000001", "parent_task_id": parent, "task_id": task, "from_agent": "demo",
            "to_agent": "echo", "task": { "not": "a text" }, "depth": 1 }
    });
    fte.publish("fte.handoffs.echo", &poison).await;
    let result = fte.result(&task).await;
    assert_eq!((&result["status"], &result["error"]["code"]), (&json!("failed"), &json!("request_unreadable")));
    assert_eq!(result["parent_task_id"], parent.as_str(), "{result}");
    eventually(|| async {
        let found = letters(&fte).await;
        let by_runner = |letter: &Value| letter["consumer"] == "fte-runner" && letter["original_topic"] == "fte.handoffs.echo";
        if found.iter().any(by_runner) { Ok(()) } else { Err(found) }
    })
    .await;
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
    let replay = async || api.post(&format!("/v1/dead-letters/{id}/replay"), &json!({})).await.unwrap().expect_status(200).json::<Value>();
    let replayed = replay().await;
    assert_eq!(replay().await, replayed, "asked for once more it is the same replay");
    // It is as unreadable as before: the replay has a letter of its own, and nobody else has one more of either.
    let found = eventually(|| async {
        let found = letters(&fte).await;
        if found.iter().filter(|letter| letter["consumer"] == "fte-runner").count() >= 2 { Ok(found) } else { Err(found) }
    })
    .await;
    let mut by_consumer = std::collections::BTreeMap::<&str, usize>::new();
    found.iter().for_each(|letter| *by_consumer.entry(letter["consumer"].as_str().unwrap()).or_default() += 1);
    assert!(by_consumer.iter().all(|(consumer, count)| *count == if *consumer == "fte-runner" { 2 } else { 1 }), "{found:?}");
    let recorded = eventually(|| async {
        let page: Value = api.get("/v1/audit/entries?action=deadletter.replayed").await.unwrap().expect_status(200).json();
        if page["items"].as_array().unwrap().is_empty() { Err(page) } else { Ok(page) }
    })
    .await;
    assert_eq!(recorded["items"].as_array().unwrap().len(), 1, "{recorded}");
}

#[tokio::test]
async fn a_request_that_was_given_up_is_done_once_when_it_is_replayed() {
    let fte = Fte::start().await;
    // As the runner's own letter would be after it had failed five times over a request that is in order.
    let request = fte_testkit::cloud_event(&fte_testkit::request("do it now"));
    let failure = fte_events::Failure::new("panicked", "it panicked");
    let body = request.to_bytes().unwrap();
    let letter = fte_events::DeadLettered::new("fte.triggers.inbound", &body, failure, 5, jiff::Timestamp::now(), "fte-runner");
    let id = fte_events::letter_id("fte-runner", &body).to_string();
    let letter = json!({"specversion": "1.0", "id": id, "source": "/fte/runner", "type": "fte.event.dead-lettered", "data": letter});
    fte.publish("fte.deadletter.runner", &letter).await;
    eventually(|| async {
        let found = letters(&fte).await;
        if found.iter().any(|letter| letter["id"] == *id) { Ok(()) } else { Err(found) }
    })
    .await;
    let api = fte.api();
    let replay = async || api.post(&format!("/v1/dead-letters/{id}/replay"), &json!({})).await.unwrap().expect_status(200).json::<Value>();
    let (one, other) = tokio::join!(replay(), replay());
    assert_eq!(one, other, "twice at once it is one replay");
    let task = one["task_id"].as_str().unwrap();
    assert_eq!(fte.result(task).await["result"]["echo"], "do it now");
    // Complete is a history with one result, and with a release of each claim.
    eventually(|| async {
        let history = look(&api, &format!("/v1/audit/tasks/{task}")).await?;
        if history["complete"] == true { Ok(()) } else { Err(history.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn a_hand_off_that_was_given_up_is_not_replayed_for_its_end_has_been_told() {
    let fte = Fte::start().await;
    // As the runner's own letter would be after it had failed five times over a hand-off that is in order, and had ended it.
    let mut handoff = fte_events::sample::handoff_requested();
    handoff.to_agent = "echo".parse().unwrap();
    let child = handoff.task_id;
    let event = fte_events::Outgoing::new("runner", handoff.handoff_id, jiff::Timestamp::now(), &handoff).about(child).to_bytes();
    let failure = fte_events::Failure::new("panicked", "it panicked");
    let letter = fte_events::DeadLettered::new("fte.handoffs.echo", &event, failure, 5, jiff::Timestamp::now(), "fte-runner");
    let id = fte_events::letter_id("fte-runner", &event).to_string();
    let letter = json!({"specversion": "1.0", "id": id, "source": "/fte/runner", "type": "fte.event.dead-lettered", "data": letter});
    fte.publish("fte.deadletter.runner", &letter).await;
    let found = eventually(|| async {
        let found = letters(&fte).await;
        found.iter().find(|letter| letter["id"] == *id).cloned().ok_or(found)
    })
    .await;
    assert_eq!(found["replayable"], false, "{found}");
    let refused = fte.api().post(&format!("/v1/dead-letters/{id}/replay"), &json!({})).await.unwrap().expect_status(409);
    assert_eq!(refused.problem_code(), "letter_not_replayable");
    assert!(refused.text().contains("has been told so"), "{}", refused.text());
    // What came after it is done; of the child there is nothing.
    let next = fte.post(echo("next")).await;
    assert_eq!(fte.result(&next).await["status"], "completed");
    assert_eq!(letters(&fte).await[0]["status"], "open");
    fte.api().post(&format!("/v1/dead-letters/{id}/discard"), &json!({})).await.unwrap().expect_status(200);
}

/// An object that a common parser takes for the JSON in its text, so many times within itself, each within so many lists.
fn nested_in_texts(times: usize, lists: usize) -> Value {
    let mut inner = "1".to_owned();
    for _ in 0..times {
        let escaped = inner.replace('\\', "\\u005c").replace('"', "\\u0022");
        inner = format!("{}{{\"{RESERVED}\":\"{escaped}\"}}{}", "[".repeat(lists), "]".repeat(lists));
    }
    json!({ RESERVED: inner })
}

const RESERVED: &str = "$serde_json::private::RawValue";

/// Says its task's text as it is, as a line and as an output.
const PARROTS: &str = r#"
    default = "echo"
    [agents.echo]
    kind = "builtin"
    [agents.cat]
    kind = "command"
    command = ["cat"]
    [agents.line]
    kind = "process"
    command = ["python3", "-c", "import json, sys; print(json.loads(sys.stdin.readline())['task'], flush=True); sys.stdin.readline()"]
    attempts = 1
"#;

#[tokio::test]
async fn json_that_would_end_its_reader_ends_nothing_whoever_sends_it() {
    let mut fte = Fte::with_agents(PARROTS, &[]).await;
    let api = fte.api();
    let bomb = nested_in_texts(16, 100);
    // By the API.
    for context in [json!({ "a": bomb }), bomb.clone()] {
        let refused = api.post("/v1/tasks", &json!({ "task": "x", "context": context })).await.unwrap();
        assert_eq!(refused.expect_status(422).problem_code(), "invalid_body");
    }
    // By the bus: in the data, and beside it.
    let task = fte_events::TaskId::now().to_string();
    let event = |id: &str, data: Value| json!({"specversion": "1.0", "id": id, "source": "/outside", "type": "fte.task.requested", "subject": task, "data": data});
    let request = json!({ "task_id": task, "task": "x", "submitted_at": "2026-01-01T00:00:00Z", "context": { "a": bomb } });
    fte.publish("fte.triggers.inbound", &event("bomb-1", request)).await;
    let mut beside = event("bomb-2", json!({ "task": "x" }));
    beside["extension"] = bomb.clone();
    fte.publish("fte.triggers.inbound", &beside).await;
    // By agents, who get it as a text.
    let text = bomb.to_string();
    let said = fte.post(json!({ "task": text, "agent": "cat" })).await;
    assert_eq!(fte.result(&said).await["result"], json!(text));
    let line = fte.post(json!({ "task": text, "agent": "line" })).await;
    let end = fte.result(&line).await;
    assert_eq!((&end["status"], &end["error"]["code"]), (&json!("failed"), &json!("bad_message")), "{end}");
    let found = eventually(|| async {
        let found = letters(&fte).await;
        if found.iter().filter(|letter| letter["consumer"] == "fte-runner").count() == 2 { Ok(found) } else { Err(found) }
    })
    .await;
    assert!(found.iter().all(|letter| letter["error"]["message"].as_str().unwrap().contains("reserved")), "{found:?}");
    // It ends no start either, and what was logged verifies.
    fte.process.kill().await;
    fte.process.restart().await;
    let next = fte.post(echo("next")).await;
    assert_eq!(fte.result(&next).await["status"], "completed");
}

#[tokio::test]
async fn what_is_nested_too_deeply_is_refused_and_what_is_not_can_be_read_to_the_end() {
    let fte = Fte::start().await;
    let nested = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!([inner]));
    // The body and its context are levels, too.
    let refused = fte.api().post("/v1/tasks", &json!({ "task": "x", "context": { "a": nested(63) } })).await.unwrap();
    assert!(refused.expect_status(422).text().contains("nested deeper than 64 levels"));
    let deep = json!({ "task": "x", "context": { "a": nested(62) }, "require_approval": true });
    let task = fte.post(deep).await;
    fte.asking(&task, 1).await;
    let edit = json!({ "task": "y", "context": { "a": nested(60) } });
    fte.api()
        .post(&format!("/v1/tasks/{task}/approval"), &json!({ "approved": true, "approver": "ada", "edit": edit }))
        .await
        .unwrap()
        .expect_status(200);
    assert_eq!(fte.result(&task).await["status"], "completed");
    let cancelled = fte.post(json!({ "task": "z", "context": { "a": nested(62) }, "require_approval": true })).await;
    fte.asking(&cancelled, 1).await;
    fte.api().post(&format!("/v1/tasks/{cancelled}/cancel"), &json!({})).await.unwrap().expect_status(202);
    assert_eq!(fte.result(&cancelled).await["status"], "cancelled");
}
