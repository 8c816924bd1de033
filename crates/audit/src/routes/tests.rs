//! From the sidecar's delivery to the public answer, through the real routers.

use std::path::Path;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fte_events::{Payload, TaskId, sample};
use fte_service::{ApiOptions, MapEnv, Readiness, Settings, api_router};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use crate::sqlite::{SqliteLog, SqliteOptions};
use crate::subscribe;

struct Audit {
    app: Router,
    api: Router,
}

impl Audit {
    fn start(directory: &Path) -> Self {
        Self::over(SqliteLog::open(SqliteOptions::at(directory.join("audit.sqlite"))).unwrap())
    }

    fn over(log: SqliteLog) -> Self {
        let log: App = Arc::new(log);
        let settings =
            Settings::from_env(&MapEnv::of([("APP_API_TOKEN", "s3cret"), ("FTE_BULK_DELIVERY", "true")]), crate::config::PORTS).unwrap();
        let app = subscribe::subscriptions(&settings, &log).router();
        let readiness = Readiness::new(Vec::new());
        Self { app, api: api_router(vec![routes(&log)], &readiness, ApiOptions::new(&settings)) }
    }

    /// Delivers records as Dapr does in bulk with `rawPayload`, and gives the status of each.
    async fn deliver(&self, topic: &str, bodies: &[impl AsRef<[u8]>]) -> Vec<String> {
        let entries: Vec<_> = bodies
            .iter()
            .enumerate()
            .map(|(place, body)| {
                let metadata = json!({"__partition": "3", "__offset": place.to_string()});
                json!({"entryId": place.to_string(), "event": STANDARD.encode(body), "contentType": "application/octet-stream", "metadata": metadata})
            })
            .collect();
        let body = json!({"id": "b", "topic": topic, "pubsubname": "pubsub", "entries": entries}).to_string();
        let request =
            Request::post(format!("/events/{topic}")).header("dapr-api-token", "s3cret").header("content-type", "application/json");
        let response = self.app.clone().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let answer: Value = serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
        let statuses = answer["statuses"].as_array().unwrap();
        assert_eq!(statuses.len(), bodies.len());
        statuses.iter().map(|status| status["status"].as_str().unwrap().to_owned()).collect()
    }

    async fn request(&self, method: Method, path: &str) -> (StatusCode, Value) {
        let request = Request::builder().method(method).uri(path).header("host", "localhost").body(Body::empty()).unwrap();
        let response = self.api.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    async fn get(&self, path: &str) -> Value {
        let (status, body) = self.request(Method::GET, path).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        body
    }
}

fn event(id: &str, task: TaskId, event_type: &str, data: &Value) -> String {
    json!({"specversion": "1.0", "id": id, "source": "/fte/runner", "type": event_type, "subject": task, "time": "2026-07-01T10:00:00Z", "data": data})
        .to_string()
}

/// Delivers what a task's life says, and gives the task.
async fn live(audit: &Audit) -> TaskId {
    let task = sample::task_id();
    let claim = json!({"claim_id": "c", "agent": "echo"});
    let status = |sequence: u64, status: &str| {
        event(&format!("s{sequence}"), task, "fte.status.changed", &json!({"sequence": sequence, "status": status, "agent": "echo"}))
    };
    audit
        .deliver("fte.triggers.inbound", &[event("t", task, "fte.task.requested", &json!({"requester": {"type": "user", "id": "ada"}}))])
        .await;
    audit
        .deliver(
            "fte.sandbox.lifecycle",
            &[event("c", task, "fte.sandbox.claimed", &claim), event("r", task, "fte.sandbox.released", &claim)],
        )
        .await;
    audit.deliver("fte.status.updates", &[status(1, "queued"), status(2, "running"), status(3, "completed")]).await;
    task
}

#[tokio::test]
async fn an_entry_that_is_refused_waits_alone() {
    let directory = tempfile::tempdir().unwrap();
    let log = SqliteLog::open(SqliteOptions::at(directory.path().join("audit.sqlite"))).unwrap();
    let other = rusqlite::Connection::open(directory.path().join("audit.sqlite")).unwrap();
    other.execute_batch("CREATE TRIGGER refuse BEFORE INSERT ON entry WHEN NEW.topic = 'fte.sandbox.lifecycle' OR NEW.offset = 1 BEGIN SELECT RAISE(ABORT, 'refused'); END").unwrap();
    let audit = Audit::over(log);
    let task = sample::task_id();
    let step = |n: u64| event(&format!("s{n}"), task, "fte.status.changed", &json!({"sequence": n, "status": "running", "agent": "echo"}));
    let claim = event("c", task, "fte.sandbox.claimed", &json!({"claim_id": "c", "agent": "echo"}));
    let request = event("t", task, "fte.task.requested", &json!({}));
    let running = [step(1), step(2), step(3)];
    // All that comes while the writer cannot write forms one group.
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let (steps, claims, triggers, ()) = tokio::join!(
        audit.deliver("fte.status.updates", &running),
        audit.deliver("fte.sandbox.lifecycle", std::slice::from_ref(&claim)),
        audit.deliver("fte.triggers.inbound", std::slice::from_ref(&request)),
        async { other.execute_batch("COMMIT").unwrap() },
    );
    assert_eq!(triggers, ["SUCCESS"]);
    assert_eq!(claims, ["RETRY"]);
    assert_eq!(steps, ["SUCCESS", "RETRY", "SUCCESS"], "of one delivery, too, only what is refused waits");
    assert_eq!(audit.get(&format!("/v1/audit/tasks/{task}")).await["entries"].as_array().unwrap().len(), 3);

    other.execute_batch("DROP TRIGGER refuse").unwrap();
    assert_eq!(audit.deliver("fte.sandbox.lifecycle", &[claim]).await, ["SUCCESS"]);
}

#[tokio::test]
async fn every_topic_in_use_is_subscribed_to_as_raw_records_in_bulk_without_a_dead_letter_topic() {
    let directory = tempfile::tempdir().unwrap();
    let audit = Audit::start(directory.path());
    let request = Request::get("/dapr/subscribe").header("dapr-api-token", "s3cret").body(Body::empty()).unwrap();
    let response = audit.app.clone().oneshot(request).await.unwrap();
    let list: Vec<Value> = serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
    let topics: Vec<_> = list.iter().map(|entry| entry["topic"].as_str().unwrap()).collect();
    for topic in [
        "fte.triggers.inbound",
        "fte.sandbox.lifecycle",
        "fte.status.updates",
        "fte.results.completed",
        "fte.audit.actions",
        "fte.deadletter.runner",
        "fte.deadletter.status",
    ] {
        assert!(topics.contains(&topic), "{topic} is not among {topics:?}");
    }
    for entry in &list {
        assert_eq!(entry["metadata"]["rawPayload"], "true");
        assert_eq!(entry["bulkSubscribe"], json!({"enabled": true, "maxMessagesCount": 512, "maxAwaitDurationMs": 20}));
        assert!(entry["deadLetterTopic"].is_null());
    }
}

#[tokio::test]
async fn what_is_delivered_is_listed_to_the_byte_and_once() {
    let directory = tempfile::tempdir().unwrap();
    let audit = Audit::start(directory.path());
    let task = live(&audit).await;
    live(&audit).await;
    let list = audit.get("/v1/audit/entries").await;
    let items = list["items"].as_array().unwrap();
    let ids: Vec<_> = items.iter().map(|item| item["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["t", "c", "r", "s1", "s2", "s3"]);
    let places: Vec<_> = items.iter().map(|item| item["index"].as_u64().unwrap()).collect();
    assert_eq!(places, [0, 1, 2, 3, 4, 5]);
    assert_eq!(list["next_cursor"], Value::Null);
    assert_eq!(list["actions_missing"], 0);

    let first = &items[0];
    assert_eq!(first["source"], "/fte/runner");
    assert_eq!(first["type"], "fte.task.requested");
    assert_eq!(first["task_id"], task.to_string());
    assert_eq!(first["topic"], "fte.triggers.inbound");
    assert_eq!((&first["partition"], &first["offset"]), (&json!(3), &json!(0)));
    assert_eq!(first["time"], "2026-07-01T10:00:00Z");
    assert_eq!(first["kind"], "event");
    assert_eq!(first["event"]["data"]["requester"]["id"], "ada");
    assert!(first["logged_time"].as_str().unwrap().ends_with('Z'));
    assert_eq!(first["sha256"].as_str().unwrap().len(), 64);

    let one = audit.get(&format!("/v1/audit/entries/{}/0", first["shard"])).await;
    assert_eq!(&one, first);
}

#[tokio::test]
async fn filters_and_cursors_select_in_log_order() {
    let directory = tempfile::tempdir().unwrap();
    let audit = Audit::start(directory.path());
    let task = live(&audit).await;
    let action = json!({"action": "tool.called", "actor": {"type": "agent", "id": "echo"}, "outcome": "denied", "agent": "echo"});
    audit.deliver("fte.audit.actions", &[event("a", task, "fte.action.recorded", &action)]).await;
    audit
        .deliver(
            "fte.audit.actions",
            &[r#"{"id":"o","source":"shop","type":"com.dapr.event.sent","data":{"action":"sold","agent":"shop"}}"#],
        )
        .await;
    let ids = async |query: &str| {
        let list = audit.get(&format!("/v1/audit/entries?{query}")).await;
        let ids: Vec<_> = list["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect();
        (ids.join(" "), list["next_cursor"].as_str().map(str::to_owned))
    };
    for (query, expected) in [
        ("action=tool.called", "a"),
        ("action=fte.sandbox.claimed", "c"),
        ("actor=ada", "t"),
        ("actor=echo&outcome=denied", "a"),
        ("outcome=success", ""),
        ("agent=shop", "o"),
        ("agent=echo&action=fte.status.changed", "s1 s2 s3"),
        (&format!("task_id={task}"), "t c r s1 s2 s3 a"),
        (&format!("task_id={task}&action=tool.called"), "a"),
        ("from=2020-01-01T00:00:00Z&to=2200-01-01T00:00:00Z&actor=", "t c r s1 s2 s3 a o"),
        ("to=2020-01-01T00:00:00%2B01:00", ""),
    ] {
        assert_eq!(ids(query).await, (expected.to_owned(), None), "{query}");
    }
    let (first, cursor) = ids("limit=5").await;
    let (rest, end) = ids(&format!("limit=5&after={}", cursor.unwrap())).await;
    assert_eq!((first.as_str(), rest.as_str(), end), ("t c r s1 s2", "s3 a o", None));
}

#[tokio::test]
async fn a_task_is_complete_when_nothing_of_it_is_missing() {
    let directory = tempfile::tempdir().unwrap();
    let audit = Audit::start(directory.path());
    let task = live(&audit).await;
    let path = format!("/v1/audit/tasks/{task}");
    let history = audit.get(&path).await;
    assert_eq!((&history["complete"], &history["missing"]), (&json!(false), &json!(["its result"])));
    audit.deliver("fte.results.completed", &[event("result", task, "fte.result.completed", &json!({}))]).await;
    let history = audit.get(&path).await;
    assert_eq!((&history["complete"], &history["missing"], &history["task_id"]), (&json!(true), &json!([]), &json!(task)));
    assert_eq!(history["entries"].as_array().unwrap().len(), 7);
    // A part of the entries, but the completeness of all.
    let part = audit.get(&format!("{path}?limit=4")).await;
    assert_eq!((part["entries"].as_array().unwrap().len(), &part["complete"]), (4, &json!(true)));
    let rest = audit.get(&format!("{path}?after={}", part["next_cursor"].as_str().unwrap())).await;
    assert_eq!((rest["entries"].as_array().unwrap().len(), &rest["complete"], &rest["next_cursor"]), (3, &json!(true), &Value::Null));
}

#[tokio::test]
async fn whatever_arrives_on_a_topic_is_acknowledged_and_kept() {
    let directory = tempfile::tempdir().unwrap();
    let audit = Audit::start(directory.path());
    let bodies: [&[u8]; 5] = [b"", b"\xff\xfe", b"plain text", b" {\"spaced\": true} ", b"{\"id\":7}"];
    assert_eq!(audit.deliver("fte.deadletter.runner", &bodies).await, ["SUCCESS"; 5]);
    let list = audit.get("/v1/audit/entries").await;
    let items = list["items"].as_array().unwrap();
    for (item, body) in items.iter().zip(bodies) {
        assert_eq!((&item["kind"], &item["id"], &item["topic"]), (&json!("unparsed"), &Value::Null, &json!("fte.deadletter.runner")));
        match item["event_base64"].as_str() {
            Some(text) => assert_eq!(STANDARD.decode(text).unwrap(), body),
            None => assert_eq!(item["event"].to_string().as_bytes(), body),
        }
    }
    assert_eq!(items[3]["event"]["spaced"], true);
    assert_eq!(items.len(), bodies.len());
}

#[tokio::test]
async fn a_log_that_cannot_write_asks_for_the_records_again_and_can_still_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let options = SqliteOptions::at(directory.path().join("audit.sqlite"));
    let pages_max = Arc::clone(&options.pages_max);
    pages_max.store(20, Ordering::Relaxed);
    let audit = Audit::over(SqliteLog::open(options).unwrap());
    let large = event("large", sample::task_id(), "t", &json!({"text": "x".repeat(1_000_000)}));
    let small = event("small", sample::task_id(), "t", &json!({}));
    assert_eq!(audit.deliver("fte.status.updates", &[&small, &large]).await, ["RETRY"; 2]);
    assert_eq!(audit.get("/v1/audit/entries").await["items"], json!([]));
    assert_eq!(audit.deliver("fte.status.updates", &[&small]).await, ["SUCCESS"]);
    pages_max.store(0, Ordering::Relaxed);
    // The limit is looked at when the log is opened again, which the next refusal does.
    assert_eq!(audit.deliver("fte.status.updates", &[&small, &large]).await, ["RETRY"; 2]);
    assert_eq!(audit.deliver("fte.status.updates", &[&small, &large]).await, ["SUCCESS"; 2]);
    assert_eq!(audit.get("/v1/audit/entries").await["items"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_task_that_was_accepted_just_now_is_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let audit = Audit::start(directory.path());
    let task = TaskId::now();
    let request = event("t", task, "fte.task.requested", &json!({}));
    let path = format!("/v1/audit/tasks/{task}");
    // The question is there first.
    let (found, _) = tokio::join!(audit.get(&path), audit.deliver("fte.triggers.inbound", std::slice::from_ref(&request)));
    assert_eq!(found["entries"].as_array().unwrap().len(), 1);

    let started = std::time::Instant::now();
    let (status, problem) = audit.request(Method::GET, &format!("/v1/audit/tasks/{}", TaskId::now())).await;
    assert_eq!((status.as_u16(), &problem["code"]), (404, &json!("task_not_found")));
    assert!(started.elapsed() >= Duration::from_secs(2));
}

#[tokio::test]
async fn refusals_are_problems_with_stable_codes() {
    let directory = tempfile::tempdir().unwrap();
    let audit = Audit::start(directory.path());
    for (path, status, code) in [
        ("/v1/audit/entries?colour=red", 400, "invalid_query"),
        ("/v1/audit/tasks/x?colour=red", 400, "invalid_query"),
        ("/v1/audit/entries?limit=0", 400, "invalid_query"),
        ("/v1/audit/entries?limit=1001", 400, "invalid_query"),
        ("/v1/audit/entries?from=yesterday", 400, "invalid_query"),
        ("/v1/audit/entries?after=x", 400, "invalid_cursor"),
        ("/v1/audit/entries/2026/x", 400, "invalid_path"),
        ("/v1/audit/entries/2026/0", 404, "entry_not_found"),
        ("/v1/audit/tasks/01980000-0000-7000-8000-000000000001", 404, "task_not_found"),
        ("/v1/audit/log", 404, "route_not_found"),
    ] {
        let (found, problem) = audit.request(Method::GET, path).await;
        assert_eq!((found.as_u16(), problem["code"].as_str().unwrap()), (status, code), "{path}");
    }
}

#[tokio::test]
async fn no_method_but_reading_is_taken() {
    let directory = tempfile::tempdir().unwrap();
    let audit = Audit::start(directory.path());
    live(&audit).await;
    for path in ["/v1/audit/entries", "/v1/audit/entries/2026/0", "/v1/audit/tasks/x"] {
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            let (status, problem) = audit.request(method.clone(), path).await;
            assert_eq!((status.as_u16(), problem["code"].as_str()), (405, Some("method_not_allowed")), "{method} {path}");
        }
    }
    assert_eq!(audit.get("/v1/audit/entries").await["items"].as_array().unwrap().len(), 6);
}

#[tokio::test]
async fn every_event_of_the_catalogue_is_recorded_as_an_event() {
    let directory = tempfile::tempdir().unwrap();
    let audit = Audit::start(directory.path());
    let in_use = fte_events::subscribed_by("audit", &[]);
    let samples: Vec<_> = sample::all().into_iter().filter(|sample| in_use.iter().any(|topic| topic.name == sample.topic())).collect();
    for (place, sample) in samples.iter().enumerate() {
        let event = event(&place.to_string(), sample::task_id(), sample.event_type(), &serde_json::to_value(sample).unwrap());
        assert_eq!(audit.deliver(&sample.topic(), &[event]).await, ["SUCCESS"], "{}", sample.topic());
    }
    let list = audit.get("/v1/audit/entries").await;
    let items = list["items"].as_array().unwrap();
    assert_eq!(items.len(), samples.len());
    assert!(items.iter().all(|item| item["kind"] == "event"));
}

#[tokio::test]
async fn the_routes_are_in_the_document() {
    let directory = tempfile::tempdir().unwrap();
    let document = Audit::start(directory.path()).get("/openapi.json").await;
    for path in ["/v1/audit/entries", "/v1/audit/entries/{shard}/{index}", "/v1/audit/tasks/{id}"] {
        assert!(document["paths"][path]["get"].is_object(), "{path}");
    }
}
