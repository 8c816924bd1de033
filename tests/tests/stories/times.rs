//! Times in answers: RFC 3339, in UTC, to the millisecond, wherever they come from.

use std::path::Path;

use serde_json::{Value, json};

use crate::trail::settled;
use crate::world::{Fte, look};

/// Puts the times in it that have another form, each with its place, behind those that are known.
fn odd(value: &Value, place: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| odd(value, &format!("{place}/{name}"), found)),
        Value::Array(items) => items.iter().for_each(|value| odd(value, place, found)),
        Value::String(text) if text.parse::<jiff::Timestamp>().is_ok() && *text != fte_bus::time::normal(text) => {
            found.push(format!("{place}: {text}"));
        }
        _ => {}
    }
}

fn times(value: &Value) -> usize {
    match value {
        Value::Object(fields) => fields.values().map(times).sum(),
        Value::Array(items) => items.iter().map(times).sum(),
        value => usize::from(value.as_str().is_some_and(|text| text.parse::<jiff::Timestamp>().is_ok())),
    }
}

#[tokio::test]
async fn every_time_that_anybody_is_answered_has_one_form() {
    let team = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/team/agents.toml");
    let fte = Fte::start_with(&["--quiet", "--agents", team.to_str().unwrap()], &[]).await;
    let api = fte.api();
    let approve = json!({"approved": true, "approver": "ada"});

    // Times that a caller wrote otherwise, a question, hand-offs, and what a person did.
    let deadline = fte_bus::time::now() + jiff::SignedDuration::from_hours(1);
    let body = json!({"task": "why the sky is blue", "agent": "lead", "require_approval": true, "deadline": format!("{deadline:.0}"), "delay": "10ms"});
    let task = fte.post(body).await;
    fte.in_status(&task, "awaiting_approval").await;
    let question = look(&api, &format!("/v1/approvals/{task}")).await.unwrap();
    api.post(&format!("/v1/tasks/{task}/approval"), &approve).await.unwrap().expect_status(200);
    let waiting = fte_testkit::eventually(|| async {
        let list = look(&api, "/v1/tasks?status=awaiting_handoff&agent=human").await?;
        list["items"][0]["task_id"].as_str().map(str::to_owned).ok_or_else(|| list.to_string())
    })
    .await;
    let shown = look(&api, &format!("/v1/tasks/{task}")).await.unwrap();
    let written = fte_bus::time::text(deadline);
    assert_eq!(shown["deadline"].as_str().map(|text| &text[..19]), Some(&written[..19]), "{shown}");
    api.post(&format!("/v1/tasks/{waiting}/reply"), &json!({"result": "yes", "by": "ada"})).await.unwrap().expect_status(200);
    fte.result(&task).await;
    settled(&fte.doors(), &[task.clone(), waiting.clone()]).await;

    // Something that nobody can read.
    let event =
        json!({"specversion": "1.0", "id": "bad", "source": "/test", "type": "fte.task.requested", "time": written, "data": {"task": 7}});
    fte.publish("fte.triggers.inbound", &event).await;
    let letters = fte_testkit::eventually(|| async {
        let letters = look(&api, "/v1/dead-letters").await?;
        if letters["items"].as_array().is_some_and(|items| !items.is_empty()) { Ok(letters) } else { Err(letters.to_string()) }
    })
    .await;
    let letter = letters["items"][0]["id"].as_str().unwrap();
    api.post(&format!("/v1/dead-letters/{letter}/discard"), &json!({})).await.unwrap().expect_status(200);
    let export = api.post("/v1/audit/exports", &json!({"task_id": task})).await.unwrap().json::<Value>();

    let mut answers = vec![("question".to_owned(), question), ("export".to_owned(), export)];
    let paths = [
        "/v1/tasks".to_owned(),
        format!("/v1/tasks/{task}"),
        format!("/v1/tasks/{task}/events?limit=1000"),
        format!("/v1/tasks/{task}/result"),
        format!("/v1/tasks/{task}/tree"),
        format!("/v1/tasks/{waiting}"),
        format!("/v1/tasks/{waiting}/events?limit=1000"),
        format!("/v1/approvals/{task}"),
        "/v1/agents".to_owned(),
        "/v1/dead-letters".to_owned(),
        format!("/v1/dead-letters/{letter}"),
        "/v1/services/runner".to_owned(),
        "/v1/audit/entries?limit=1000".to_owned(),
        format!("/v1/audit/tasks/{task}"),
    ];
    for path in paths {
        let mut answer = look(&api, &path).await.unwrap();
        // What the log notes of an export is as it was digested.
        if let Some(items) = answer["items"].as_array_mut().filter(|_| path.contains("/audit/entries")) {
            items.retain(|item| item["source"] != "/fte/audit");
        }
        answers.push((path, answer));
    }
    let mut found = Vec::new();
    for (path, answer) in &answers {
        assert!(times(answer) > 0 || path == "/v1/agents", "{path} has no time: {answer}");
        odd(answer, path, &mut found);
    }
    assert!(found.is_empty(), "{found:#?}");
}
