//! From the sidecar's delivery to the public answer, through the real routers.

use std::path::Path;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fte_events::{Payload, TaskId, sample};
use fte_service::{ApiOptions, MapEnv, Readiness, Settings, api_router};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use crate::engine::sim::SimDisk;
use crate::engine::tests::test_key;
use crate::engine::{Engine, EngineOptions, Sealing};
use crate::service::heard::Heard;
use crate::service::subscribe;
use crate::subjects::{Subjects, SubjectsOptions};

pub(super) fn options(directory: &Path) -> EngineOptions {
    EngineOptions::at(directory.join("audit"), test_key())
}

/// Entries that were received, and not written by the log itself.
fn received(list: &Value) -> Vec<&Value> {
    list["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|item| ["event", "unparsed", "conflict"].contains(&item["kind"].as_str().unwrap()))
        .collect()
}

pub(super) struct Audit {
    app: Router,
    pub(super) api: Router,
}

impl Audit {
    pub(super) fn start(directory: &Path) -> Self {
        Self::over(Engine::open(options(directory)).unwrap())
    }

    fn over(log: Engine) -> Self {
        Self::with(Arc::new(log), Reads::default())
    }

    /// On a log that says who reads it.
    fn on_record(directory: &Path, disk: &SimDisk) -> Self {
        let sealing: Arc<dyn Sealing> = Arc::new(Subjects::open(SubjectsOptions::at(directory.join("audit/keys"))).unwrap());
        let options = EngineOptions { disk: Arc::new(disk.clone()), sealing: Arc::clone(&sealing), ..options(directory) };
        let log: App = Arc::new(Engine::open(options).unwrap());
        Self::with(Arc::clone(&log), Reads::on_record(log, sealing))
    }

    pub(super) fn with(log: App, reads: Reads) -> Self {
        let settings =
            Settings::from_env(&MapEnv::of([("APP_API_TOKEN", "s3cret"), ("FTE_BULK_DELIVERY", "true")]), crate::config::PORTS).unwrap();
        let app = subscribe::subscriptions(&settings, &log, &Heard::nothing()).router();
        let readiness = Readiness::new(Vec::new());
        Self { app, api: api_router(vec![reading(&log, reads)], &readiness, ApiOptions::new(&settings)) }
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

    pub(super) async fn get(&self, path: &str) -> Value {
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
pub(super) async fn live(audit: &Audit) -> TaskId {
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
    let items = received(&list);
    let ids: Vec<_> = items.iter().map(|item| item["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["t", "c", "r", "s1", "s2", "s3"]);
    let places: Vec<_> = items.iter().map(|item| item["index"].as_u64().unwrap()).collect();
    assert_eq!(places, [1, 2, 3, 4, 5, 6]);
    assert_eq!(list["items"][0]["kind"], "shard_open");
    assert_eq!(list["next_cursor"], Value::Null);
    assert_eq!(list["actions_missing"], 0);

    let first = items[0];
    assert_eq!(first["source"], "/fte/runner");
    assert_eq!(first["type"], "fte.task.requested");
    assert_eq!(first["task_id"], task.to_string());
    assert_eq!(first["topic"], "fte.triggers.inbound");
    assert_eq!((&first["partition"], &first["offset"]), (&json!(3), &json!(0)));
    assert_eq!(first["time"], "2026-07-01T10:00:00.000Z");
    assert_eq!(first["kind"], "event");
    assert_eq!(first["event"]["data"]["requester"]["id"], "ada");
    assert!(first["logged_time"].as_str().unwrap().ends_with('Z'));
    assert_eq!(first["sha256"].as_str().unwrap().len(), 64);

    let one = audit.get(&format!("/v1/audit/entries/{}/1", first["shard"])).await;
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
        let ids: Vec<_> = received(&list).iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect();
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
        ("from=2020-01-01T00:00:00Z&to=2200-01-01T00:00:00Z", "t c r s1 s2 s3 a o"),
        ("to=2020-01-01T00:00:00%2B01:00", ""),
    ] {
        assert_eq!(ids(query).await, (expected.to_owned(), None), "{query}");
    }
    let (first, cursor) = ids("limit=6").await;
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
    let items = received(&list);
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
    std::fs::create_dir(directory.path().join("audit")).unwrap();
    let disk = SimDisk::new(1);
    disk.set_room(Some(700_000));
    let audit = Audit::over(Engine::open(EngineOptions { disk: Arc::new(disk.clone()), ..options(directory.path()) }).unwrap());
    let large = event("large", sample::task_id(), "t", &json!({"text": "x".repeat(1_000_000)}));
    let small = event("small", sample::task_id(), "t", &json!({}));
    assert_eq!(audit.deliver("fte.status.updates", &[&small, &large]).await, ["RETRY"; 2]);
    assert!(received(&audit.get("/v1/audit/entries").await).is_empty());
    disk.set_room(None);
    assert_eq!(audit.deliver("fte.status.updates", &[&small, &large]).await, ["SUCCESS"; 2]);
    assert_eq!(received(&audit.get("/v1/audit/entries").await).len(), 2);
}

#[tokio::test]
async fn who_reads_what_is_on_record_before_it_is_read_where_that_is_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("audit")).unwrap();
    let disk = SimDisk::new(1);
    let audit = Audit::on_record(directory.path(), &disk);
    let task = live(&audit).await;
    let read = |list: &Value| -> Vec<Value> {
        let items = list["items"].as_array().unwrap();
        items.iter().filter(|item| item["kind"] == "read").map(|item| item["event"]["data"].clone()).collect()
    };
    let first = audit.get("/v1/audit/entries?actor=ada&limit=7").await;
    assert_eq!(first["items"].as_array().unwrap().len(), 1, "ada asked for the task: {first}");
    let history = audit.get(&format!("/v1/audit/tasks/{task}")).await;
    let (shard, index) = (&history["entries"][0]["shard"], &history["entries"][0]["index"]);
    audit.get(&format!("/v1/audit/entries/{shard}/{index}")).await;
    // Neither what everybody may copy, nor what is refused or not there.
    audit.request(Method::GET, "/v1/audit/gaps").await;
    audit.request(Method::GET, "/v1/audit/entries?limit=0").await;
    audit.request(Method::GET, &format!("/v1/audit/tasks/{}", uuid::Uuid::nil())).await;

    let list = audit.get("/v1/audit/entries?limit=1000").await;
    let reads = read(&list);
    assert_eq!(reads.len(), 3, "{reads:?}");
    assert_eq!((&reads[0]["entries"], &reads[0]["query"]["limit"]), (&json!(1), &json!(7)));
    let keyed = reads[0]["query"]["actor"].as_array().unwrap();
    assert!(!keyed.is_empty() && keyed.iter().all(|value| !value.as_str().unwrap().contains("ada")), "{keyed:?}");
    assert_eq!(reads[1]["query"], json!({"task_id": task, "after": null}));
    assert_eq!(reads[1]["entries"], history["entries"].as_array().unwrap().len());
    assert_eq!(reads[2]["query"], json!({"entry": format!("{shard}-{index}")}));
    let by = audit.get("/v1/audit/entries?action=audit.read&limit=1000").await;
    let by: Vec<_> = by["items"].as_array().unwrap().iter().map(|item| item["event"]["data"]["actor"].clone()).collect();
    assert_eq!(by, vec![json!({"type": "user", "id": "unknown"}); 4], "each read so far, by nobody of whom anything is known");

    // What cannot be put on record is not given.
    disk.fail_in(0);
    let (status, refused) = audit.request(Method::GET, &format!("/v1/audit/tasks/{task}")).await;
    assert_eq!((status, &refused["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("audit_unavailable")));
    assert!(refused.get("entries").is_none() && disk.has_failed());
    let again = fte_testkit::eventually(|| async {
        let (status, again) = audit.request(Method::GET, &format!("/v1/audit/tasks/{task}")).await;
        if status == StatusCode::OK { Ok(again) } else { Err(again) }
    })
    .await;
    assert_eq!(again["complete"], history["complete"]);
}

/// Waits for a checkpoint.
pub(super) async fn sealed(audit: &Audit) -> Value {
    loop {
        let list = audit.get("/v1/audit/entries").await;
        if list["checkpoint"]["size"].as_u64() >= Some(list["items"].as_array().unwrap().len() as u64) {
            return list["checkpoint"].clone();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn the_tree_is_served_as_files_that_say_how_long_they_last_and_nothing_else_can_be_reached() {
    let directory = tempfile::tempdir().unwrap();
    let audit = Audit::start(directory.path());
    live(&audit).await;
    let checkpoint = sealed(&audit).await;
    let file = async |path: String| {
        let request = Request::get(&path).header("host", "localhost").body(Body::empty()).unwrap();
        let response = audit.api.clone().oneshot(request).await.unwrap();
        let header = |name: &str| response.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
        let (status, kind, cache) = (response.status().as_u16(), header("content-type"), header("cache-control"));
        (status, kind, cache, response.into_body().collect().await.unwrap().to_bytes())
    };
    let shard = &checkpoint["shard"];
    let (status, kind, cache, note) = file(format!("/v1/audit/log/{shard}/checkpoint")).await;
    assert_eq!((status, kind.as_str(), cache.as_str()), (200, "text/plain; charset=utf-8", "max-age=1"));
    let root = checkpoint["root"].as_str().unwrap();
    assert!(note.starts_with(format!("log.test/{shard}\n7\n{root}\n\n").as_bytes()), "{note:?}");
    let (status, kind, cache, tile) = file(format!("/v1/audit/log/{shard}/tile/0/000.p/7")).await;
    assert_eq!((status, kind.as_str(), tile.len()), (200, "application/octet-stream", 7 * 32));
    assert!(cache.contains("immutable"), "{cache}");
    let (_, _, _, bundle) = file(format!("/v1/audit/log/{shard}/tile/entries/000.p/7")).await;
    assert!(fte_tlog::Bundle::parse(&bundle, 7).is_ok());
    for path in [
        "tile/0/000",
        "tile/0/000.p/8",
        "tile/1/000",
        "tile/0/../0/000.p/7",
        "..%2f..%2fstate%2fepoch",
        "../../state/epoch",
        "%2e%2e/%2e%2e/keys/log.key",
        "blob/x",
        "/checkpoint",
        "checkpoint/",
    ] {
        let (status, ..) = file(format!("/v1/audit/log/{shard}/{path}")).await;
        assert!(status >= 400, "{path}");
    }
    assert_eq!(file("/v1/audit/log/1999/checkpoint".to_owned()).await.0, 404);

    let (status, _, _, proof) = file(format!("/v1/audit/entries/{shard}/3/proof")).await;
    let proof = fte_tlog::ProofFile::parse(std::str::from_utf8(&proof).unwrap()).unwrap();
    let leaf = fte_tlog::Bundle::parse(&bundle, 7).unwrap().leaf(3).map(fte_tlog::leaf_hash).unwrap();
    assert_eq!((status, proof.index), (200, 3));
    fte_tlog::check_inclusion(&proof.proof, 3, &leaf, 7, &root.parse().unwrap()).unwrap();
    let consistency = audit.get("/v1/audit/consistency?from=3").await;
    assert_eq!((&consistency["to"], &consistency["checkpoint"]), (&json!(7), &checkpoint));
    assert!(!consistency["proof"].as_array().unwrap().is_empty());
    let (status, problem) = audit.request(Method::GET, "/v1/audit/consistency?from=8").await;
    assert_eq!((status.as_u16(), &problem["code"]), (400, &json!("invalid_query")));
}

#[tokio::test]
async fn gaps_are_listed() {
    let directory = tempfile::tempdir().unwrap();
    let audit = Audit::start(directory.path());
    let action = |sequence: u64| {
        json!({"id": sequence.to_string(), "source": "/fte/intake", "sequence": sequence.to_string(), "fteepoch": "e"}).to_string()
    };
    audit.deliver("fte.audit.actions", &[action(1), action(4)]).await;
    let gaps = audit.get("/v1/audit/gaps").await;
    assert_eq!(gaps["open"], json!([{"source": "/fte/intake", "epoch": "e", "first": 2, "last": 3}]));
    assert_eq!((&gaps["filled"], &gaps["actions_missing"]), (&json!([]), &json!(2)));
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
        ("/v1/audit/entries?task_id=", 400, "invalid_query"),
        ("/v1/audit/entries?from=2026-07-01T00:00:00Z&actor=", 400, "invalid_query"),
        ("/v1/audit/entries?limit=1001", 400, "invalid_query"),
        ("/v1/audit/entries?from=yesterday", 400, "invalid_query"),
        ("/v1/audit/entries?after=x", 400, "invalid_cursor"),
        ("/v1/audit/entries/2026/x", 400, "invalid_path"),
        ("/v1/audit/entries/2026/0", 404, "entry_not_found"),
        ("/v1/audit/tasks/01980000-0000-7000-8000-000000000001", 404, "task_not_found"),
        ("/v1/audit/log", 404, "route_not_found"),
        ("/v1/audit/gaps?colour=red", 400, "invalid_query"),
        ("/v1/audit/consistency?from=1", 404, "no_checkpoint"),
        ("/v1/audit/log/2026/tile/0/000", 404, "not_in_log"),
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
    let entries = [
        "/v1/audit/entries",
        "/v1/audit/entries/2026/0",
        "/v1/audit/entries/2026/0/proof",
        "/v1/audit/tasks/x",
        "/v1/audit/gaps",
        "/v1/audit/consistency",
    ];
    let files = ["checkpoint", "witnessed", "tile/0/000.p/6", "tile/entries/000.p/6"].map(|file| format!("/v1/audit/log/2026/{file}"));
    for path in entries.into_iter().chain(files.iter().map(String::as_str)) {
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            let (status, problem) = audit.request(method.clone(), path).await;
            assert_eq!((status.as_u16(), problem["code"].as_str()), (405, Some("method_not_allowed")), "{method} {path}");
        }
    }
    assert_eq!(received(&audit.get("/v1/audit/entries").await).len(), 6);
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
    assert_eq!(received(&list).len(), samples.len());
    assert!(received(&list).iter().all(|item| item["kind"] == "event"));
}

#[tokio::test]
async fn the_routes_are_in_the_document() {
    let directory = tempfile::tempdir().unwrap();
    let document = Audit::start(directory.path()).get("/openapi.json").await;
    for path in
        ["/v1/audit/entries", "/v1/audit/entries/{shard}/{index}", "/v1/audit/tasks/{id}", "/v1/audit/gaps", "/v1/audit/consistency"]
    {
        assert!(document["paths"][path]["get"].is_object(), "{path}");
    }
}

#[tokio::test]
async fn a_retired_year_is_gone_but_for_its_checkpoint_and_since_when_is_said() {
    let (july_2026, year) = (1_782_900_000_000, 366 * 24 * 3600 * 1000);
    let directory = tempfile::tempdir().unwrap();
    let at = |ms: i64| EngineOptions { clock: Arc::new(move || ms), ..options(directory.path()) };
    let task = TaskId::now();
    let event = |id: &str| {
        let body = json!({"id": id, "source": "/s", "type": "t", "subject": task}).to_string();
        crate::entry::NewEntry::read(fte_bus::Record { topic: "t".into(), body: body.into(), partition: None, offset: None, key: None })
    };
    for (id, ms) in [("1", july_2026), ("2", july_2026 + year)] {
        Engine::open(at(ms)).unwrap().append(vec![event(id)]).await.unwrap();
    }
    let now_ms = july_2026 + crate::retention::KEPT_MS;
    let mut retirer = crate::engine::Retirer::open(at(now_ms)).unwrap();
    let ended = retirer.standing().ended(2026).unwrap();
    let checkpoint = ended.published.note.to_string();
    let due = crate::retention::Due { shard: 2026, entries: 2, last_ms: ended.last_ms, checkpoint: checkpoint.clone() };
    retirer.retire([due.shard], crate::retention::records(&[due], &[], "ada", now_ms)).unwrap();
    drop(retirer);

    let audit = Audit::over(Engine::open(at(now_ms)).unwrap());
    for path in [
        "log/2026/tile/0/000.p/2",
        "log/2026/tile/entries/000.p/2",
        "entries/2026/1",
        "entries/2026/1/proof",
        "consistency?shard=2026&from=1",
    ] {
        let (status, problem) = audit.request(Method::GET, &format!("/v1/audit/{path}")).await;
        assert_eq!((status.as_u16(), &problem["code"]), (410, &json!("shard_retired")), "{path}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains("was retired on 2033-07-01T10:00:00.000Z, as the entry 2033-"), "{problem}");
    }
    let request = Request::get("/v1/audit/log/2026/checkpoint").header("host", "localhost").body(Body::empty()).unwrap();
    let response = audit.api.clone().oneshot(request).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), checkpoint);
    let said = audit.get("/v1/audit/log/2026/retired").await;
    assert_eq!((&said["shard"], &said["since_ms"]), (&json!(2026), &json!(now_ms)));
    assert_eq!(audit.request(Method::GET, "/v1/audit/log/2027/retired").await.0.as_u16(), 404);
    let history = audit.get(&format!("/v1/audit/tasks/{task}")).await;
    assert_eq!((&history["retired"], history["entries"].as_array().unwrap().len()), (&json!(1), 1));
    assert_eq!(history["missing"], json!(["its first 1 entries, which were logged in a year that is retired"]));
}
