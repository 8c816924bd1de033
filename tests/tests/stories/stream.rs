//! A stream that is cut and resumed tells every event once, in order.

use serde_json::json;

use crate::world::{Fte, told};

#[tokio::test]
async fn a_cut_stream_resumes_with_nothing_lost_or_repeated() {
    let fte = Fte::start().await;
    let task = fte.post(json!({ "task": "show", "agent": "demo", "context": { "demo": { "step_ms": 1 } } })).await;
    fte.in_status(&task, "awaiting_approval").await;
    fte.api()
        .post(&format!("/v1/tasks/{task}/approval"), &json!({ "approved": true, "approver": "ada" }))
        .await
        .unwrap()
        .expect_status(200);
    fte.result(&task).await;

    let api = fte.api();
    // Topics come in no order among each other, and a stream does not wait for this one.
    told(&api, &task, |event| event["type"] == "fte.task.requested").await;
    let path = format!("/v1/tasks/{task}/events");
    let whole: Vec<String> = api.events(&path, None).await.unwrap().rest().await.into_iter().map(|event| event.id).collect();
    assert!(whole.len() > 10, "{whole:?}");
    // Cut after each event, and resumed from it.
    let mut pieced = Vec::new();
    loop {
        let mut stream = api.events(&path, pieced.last().map(String::as_str)).await.unwrap();
        match stream.next().await {
            Some(event) => pieced.push(event.id),
            None => break,
        }
    }
    assert_eq!(pieced, whole);
}

#[tokio::test]
async fn a_stream_ends_by_itself_when_all_is_told() {
    let fte = Fte::start().await;
    let task = fte.post(json!({ "task": "short", "require_approval": true })).await;
    fte.in_status(&task, "awaiting_approval").await;
    told(&fte.api(), &task, |event| event["type"] == "fte.task.requested").await;
    let stream = fte.api().events(&format!("/v1/tasks/{task}/events"), None).await.unwrap();
    fte.api()
        .post(&format!("/v1/tasks/{task}/approval"), &json!({ "approved": true, "approver": "ada" }))
        .await
        .unwrap()
        .expect_status(200);
    let events = stream.rest().await;
    let kinds: Vec<_> = events.iter().map(|event| event.event.clone()).collect();
    for kind in ["fte.task.requested", "fte.sandbox.claimed", "fte.result.completed", "fte.sandbox.released"] {
        assert_eq!(kinds.iter().filter(|told| *told == kind).count(), 1, "{kind} in {kinds:?}");
    }
}
