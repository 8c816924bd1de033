//! Tasks and their events, asked for once.

use std::time::Duration;

use fte_events::{ApprovalRequest, Extra, ResultKind, Status, TaskError, TaskId, sample};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::Fixture;
use crate::Config;
use crate::test_support::History;

/// An id that was made so long ago that nothing of it can be on its way.
fn old_task(number: u128) -> TaskId {
    TaskId::mint(Timestamp::now() - SignedDuration::from_secs(60), number << 32)
}

#[tokio::test]
async fn a_task_is_shown_with_all_that_its_events_say() {
    let status = Fixture::start().await;
    let history = History::whole(TaskId::now());
    status.record(history.events.clone()).await;
    let task = status.get(&format!("/v1/tasks/{}", history.task)).await.expect(200);
    let expected = json!({"task_id": history.task, "status": "completed", "attempt": 1, "task": "say hello", "priority": "P2",
        "require_approval": false, "metadata": {}, "origin": "http", "message": null, "stage": null, "progress_pct": null, "approval": null});
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(&task[field], value, "{field}");
    }
    let result = serde_json::to_value(sample::task_result(ResultKind::Completed)).unwrap();
    for field in ["result", "artifacts", "agent", "duration_ms", "started_at", "completed_at"] {
        assert_eq!(task[field], result[field], "{field}");
    }
    assert_eq!(task["created_at"], fte_bus::time::text(history.events[0].event.time.unwrap()));
    assert_eq!(task["updated_at"], fte_bus::time::text(history.events.last().unwrap().event.time.unwrap()));
}

#[tokio::test]
async fn an_approval_is_shown_while_it_is_awaited_and_an_error_when_it_is_told() {
    let status = Fixture::start().await;
    let asked = History::of(TaskId::now()).requested("spend").claimed().step_with(Status::AwaitingApproval, |change| {
        change.approval = Some(ApprovalRequest {
            question: Some(1),
            action: None,
            reason: Some("5 USD".into()),
            data: None,
            expires_at: None,
            default: None,
            link: None,
            extra: Extra::new(),
        });
        change.message = Some("may I?".into());
    });
    let path = format!("/v1/tasks/{}", asked.task);
    status.record(asked.events.clone()).await;
    let task = status.get(&path).await.expect(200);
    assert_eq!((&task["approval"]["reason"], &task["message"]), (&json!("5 USD"), &json!("may I?")));
    let failed = asked.step_with(Status::Failed, |change| change.error = Some(TaskError::new("no_money", "there is none")));
    status.record(failed.events).await;
    let task = status.get(&path).await.expect(200);
    assert_eq!((&task["approval"], &task["error"]["code"], &task["status"]), (&json!(null), &json!("no_money"), &json!("failed")));
}

#[tokio::test]
async fn a_bare_event_is_a_task() {
    let status = Fixture::start().await;
    let event = json!({"id": "7", "source": "/shop", "type": "com.dapr.event.sent", "data": {"task": "pack it"}});
    assert_eq!(status.deliver("fte.triggers.inbound", vec![event]).await, [true]);
    let task = status.get(&format!("/v1/tasks/{}", TaskId::from_source("/shop", "7"))).await.expect(200);
    assert_eq!((&task["task"], &task["status"], &task["priority"]), (&json!("pack it"), &json!("accepted"), &json!("P2")));
}

/// The runner refuses such a request. Who lists tasks must not stumble over it.
#[tokio::test]
async fn a_request_whose_task_is_no_text_is_shown_without_it() {
    let status = Fixture::start().await;
    let event = json!({"id": "7", "source": "/shop", "type": "fte.task.requested", "data": {"task": 7}});
    assert_eq!(status.deliver("fte.triggers.inbound", vec![event]).await, [true]);
    let task = status.get(&format!("/v1/tasks/{}", TaskId::from_source("/shop", "7"))).await.expect(200);
    assert_eq!((task.get("task"), &task["status"]), (None, &json!("accepted")));
}

#[tokio::test]
async fn an_unknown_task_is_not_found_at_once_unless_it_is_young() {
    let status = Fixture::start().await;
    let old = old_task(1);
    for path in ["", "/events", "/result", "/result?wait=10s"] {
        status.get(&format!("/v1/tasks/{old}{path}")).await.expect_code(404, "task_not_found");
    }
    let young = TaskId::now();
    let started = std::time::Instant::now();
    status.get(&format!("/v1/tasks/{young}")).await.expect_code(404, "task_not_found");
    assert!(started.elapsed() >= Duration::from_secs(2), "a young one is waited for");
    status.get("/v1/tasks/nonsense").await.expect_code(400, "invalid_path");
}

#[tokio::test]
async fn a_young_task_is_answered_as_soon_as_it_arrives() {
    let status = Fixture::start().await;
    let history = History::of(TaskId::now()).requested("soon");
    let asked = status.get_later(&format!("/v1/tasks/{}", history.task));
    status.waiting(1).await;
    status.record(history.events).await;
    assert_eq!(asked.await.unwrap().expect(200)["task"], "soon");
}

#[tokio::test]
async fn the_list_goes_on_where_its_cursor_says_and_refuses_what_it_cannot_read() {
    let status = Fixture::start().await;
    let mut tasks = Vec::new();
    for _ in 0..5 {
        let history = History::whole(TaskId::now());
        tasks.insert(0, history.task.to_string());
        status.record(history.events).await;
    }
    let (mut found, mut path) = (Vec::new(), "/v1/tasks?limit=2&status=completed&agent=".to_owned());
    loop {
        let page = status.get(&path).await.expect(200);
        found.extend(page["items"].as_array().unwrap().iter().map(|task| task["task_id"].as_str().unwrap().to_owned()));
        assert!(page["items"][0].get("artifacts").is_none() && page["items"][0].get("result").is_none());
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/v1/tasks?limit=2&status=completed&cursor={cursor}");
    }
    assert_eq!(found, tasks);
    assert_eq!(status.get("/v1/tasks?since=2999-01-01T00:00:00Z").await.expect(200), json!({"items": []}));
    for bad in ["status=done", "since=yesterday", "limit=0", "limit=1001", "limit=x", "stauts=done"] {
        status.get(&format!("/v1/tasks?{bad}")).await.expect_code(400, "invalid_query");
    }
    status.get("/v1/tasks?cursor=x").await.expect_code(400, "invalid_cursor");
}

#[tokio::test]
async fn events_are_listed_as_they_came_page_by_page() {
    let status = Fixture::start().await;
    let history = History::whole(TaskId::now());
    status.record(history.events.clone()).await;
    let path = format!("/v1/tasks/{}/events", history.task);
    let whole = status.get(&path).await.expect(200);
    let bodies: Vec<serde_json::Value> = history.events.iter().map(|d| serde_json::from_slice(&d.record.body).unwrap()).collect();
    assert_eq!(whole, json!({"items": bodies}));

    let (mut found, mut page_path) = (Vec::new(), format!("{path}?limit=2"));
    loop {
        let page = status.get(&page_path).await.expect(200);
        found.extend(page["items"].as_array().unwrap().clone());
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        page_path = format!("{path}?limit=2&after={cursor}");
    }
    assert_eq!(found, bodies);
    status.get(&format!("{path}?after=unheard-of")).await.expect_code(404, "event_not_found");
}

#[tokio::test]
async fn more_waiters_than_allowed_are_told_to_come_back() {
    let status = Fixture::with(Config { waiters_max: 1, ..Config::default() }).await;
    let history = History::of(TaskId::now()).requested("wait");
    status.record(history.events.clone()).await;
    let first = status.get_later(&format!("/v1/tasks/{}/result?wait=60s", history.task));
    status.waiting(1).await;
    status.get(&format!("/v1/tasks/{}/result?wait=60s", history.task)).await.expect_code(503, "too_many_waiters");
    assert_eq!(status.get(&format!("/v1/tasks/{}", history.task)).await.expect(200)["status"], "accepted");
    status.record(History::whole(history.task).events).await;
    first.await.unwrap().expect(200);
}

#[tokio::test]
async fn every_route_is_in_the_open_api_document() {
    let status = Fixture::start().await;
    let paths: Vec<&str> = status.paths.iter().map(String::as_str).collect();
    let expected = [
        "/v1/dead-letters",
        "/v1/dead-letters/{id}",
        "/v1/dead-letters/{id}/discard",
        "/v1/dead-letters/{id}/replay",
        "/v1/events",
        "/v1/tasks",
        "/v1/tasks/{id}",
        "/v1/tasks/{id}/artifacts",
        "/v1/tasks/{id}/artifacts/{artifact}",
        "/v1/tasks/{id}/events",
        "/v1/tasks/{id}/result",
        "/v1/tasks/{id}/tree",
    ];
    assert_eq!(paths, expected);
}
