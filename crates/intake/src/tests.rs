//! Intake behind its whole front, before a fake sidecar that fails when told.

mod crashes;

use axum::Router;
use axum::body::{Body, to_bytes};
use fte_service::{ApiOptions, MapEnv, Ports, Readiness, api_router};
use fte_testkit::{Call, FakeSidecar, Fault};
use http::{HeaderMap, Request};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::*;

/// One process of intake.
#[derive(Clone)]
struct Process {
    api: Router,
}

/// An answer, whole.
#[derive(Clone, Debug)]
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

impl Answer {
    fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }
}

impl Process {
    async fn of(sidecar: &FakeSidecar) -> Self {
        Self::with(sidecar, &[]).await
    }

    async fn with(sidecar: &FakeSidecar, more: &[(&str, &str)]) -> Self {
        let mut env = MapEnv::of([("FTE_SIDECAR_URL", &sidecar.url())]);
        env.0.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let settings = Settings::from_env(&env, Ports { app: 0, api: 0 }).unwrap();
        let bus = Bus::connect(&settings, NAME).unwrap();
        let service = start(Config::from_env(&env).unwrap(), &settings, bus).await.unwrap();
        let api = api_router(vec![service.api], &Readiness::new(Vec::new()), ApiOptions::new(&settings));
        Self { api }
    }

    async fn send(&self, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        let mut request = Request::post(path).header("host", "localhost").header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.api.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body: serde_json::from_slice(&body).unwrap() }
    }

    async fn post(&self, body: Value) -> Answer {
        self.send("/v1/tasks", &[], body.to_string()).await
    }

    async fn post_with_key(&self, key: &str, body: Value) -> Answer {
        self.send("/v1/tasks", &[("idempotency-key", key)], body.to_string()).await
    }
}

#[tokio::test]
async fn an_accepted_task_is_published_and_its_answer_says_where_it_goes_on() {
    let sidecar = FakeSidecar::start().await;
    let trace = ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    let answer = Process::of(&sidecar).await.send("/v1/tasks", &[trace], r#"{"task":"summarise","priority":"P1"}"#).await;
    assert_eq!((answer.status, &answer.body["status"]), (202, &json!("accepted")));
    let id = answer.body["task_id"].as_str().unwrap();
    let this = format!("/v1/tasks/{id}");
    assert_eq!(answer.headers["location"], this);
    let links = json!({"self": this, "events": format!("{this}/events"), "result": format!("{this}/result"),
        "approval": format!("{this}/approval"), "cancel": format!("{this}/cancel")});
    assert_eq!(answer.body["links"], links);
    assert!(answer.body["message"].is_string());

    let published = sidecar.published();
    assert_eq!((published.len(), published[0].topic.as_str(), published[0].key.as_deref()), (1, "fte.triggers.inbound", Some(id)));
    let event = published[0].json();
    let task = id.parse().unwrap();
    assert_eq!(event["id"], fte_events::event_id(task, fte_events::EventName::Trigger { turn: 0 }).to_string());
    assert_eq!((&event["type"], &event["source"]), (&json!("fte.task.requested"), &json!("/fte/intake")));
    assert_eq!((&event["subject"], &event["ftetenant"]), (&json!(id), &json!("default")));
    assert!(event["traceparent"].as_str().unwrap().starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"));
    assert_eq!((&event["data"]["task"], &event["data"]["priority"]), (&json!("summarise"), &json!("P1")));
    assert_eq!((&event["data"]["agent"], &event["data"]["origin"]), (&json!("echo"), &json!("http")));
    assert_eq!(event["data"]["submitted_at"], event["time"]);
}

#[tokio::test]
async fn the_short_form_is_the_same() {
    let sidecar = FakeSidecar::start().await;
    let answer = Process::of(&sidecar).await.send("/tasks", &[], r#"{"task":"x"}"#).await;
    assert_eq!(answer.status, 202);
    assert!(answer.headers["location"].to_str().unwrap().starts_with("/v1/tasks/"));
}

#[tokio::test]
async fn without_a_key_a_task_is_one_call() {
    let sidecar = FakeSidecar::start().await;
    assert_eq!(Process::of(&sidecar).await.post(json!({"task": "x"})).await.status, 202);
    assert_eq!((sidecar.calls(Call::Publish), sidecar.calls(Call::Read), sidecar.calls(Call::Write)), (1, 0, 0));
}

#[tokio::test]
async fn what_is_wrong_is_refused_whole_and_nothing_is_sent() {
    let sidecar = FakeSidecar::start().await;
    let process = Process::of(&sidecar).await;
    let check = async |body: &str, status: u16, code: &str| {
        let answer = process.send("/v1/tasks", &[], body.to_owned()).await;
        assert_eq!((answer.status, answer.code()), (status, code), "{body:.80}");
        answer.body
    };
    check("{", 400, "invalid_json").await;
    check(&format!("{}1{}", "{\"a\":".repeat(200), "}".repeat(200)), 422, "invalid_body").await;
    check("[]", 422, "invalid_body").await;
    check("\"task\"", 422, "invalid_body").await;
    // Which of the two was meant is not ours to guess.
    check(r#"{"task":"a","task":"b"}"#, 422, "invalid_body").await;
    check(r#"{"task":"a","context":{"limit":1,"limit":2}}"#, 422, "invalid_body").await;
    let wrong = check(r#"{"task":"","priority":"high","contxt":{}}"#, 422, "invalid_task").await;
    let pointers: Vec<&str> = wrong["errors"].as_array().unwrap().iter().map(|error| error["pointer"].as_str().unwrap()).collect();
    assert_eq!(pointers, ["/task", "/priority", "/contxt"]);
    let unknown = check(r#"{"task":"x","agent":"nobody"}"#, 422, "agent_unknown").await;
    assert!(unknown["detail"].as_str().unwrap().contains("there are: demo, echo"), "{unknown}");
    // Each field within its limit, but the whole event too large: control characters take six bytes each.
    let large = json!({"task": "\u{1}".repeat(32_000), "context": {"a": "x".repeat(65_000)}, "metadata": {"a": "x".repeat(16_000)}});
    check(&large.to_string(), 413, "task_too_large").await;
    check(&json!({"task": "x".repeat(600_000)}).to_string(), 413, "body_too_large").await;
    let bad_key = process.send("/v1/tasks", &[("idempotency-key", "two words")], r#"{"task":"x"}"#).await;
    assert_eq!((bad_key.status, bad_key.code()), (400, "invalid_idempotency_key"));
    let keyed = process.post_with_key("k", json!({"task": ""})).await;
    assert_eq!((keyed.status, keyed.code()), (422, "invalid_task"));
    assert_eq!((sidecar.calls(Call::Publish), sidecar.calls(Call::Write)), (0, 0));
}

#[tokio::test]
async fn a_sidecar_that_is_down_means_503_until_it_is_back() {
    let mut sidecar = FakeSidecar::start().await;
    let process = Process::of(&sidecar).await;
    sidecar.stop().await;
    for answer in [process.post(json!({"task": "x"})).await, process.post_with_key("k", json!({"task": "x"})).await] {
        assert_eq!((answer.status, answer.code(), &answer.body["retryable"]), (503, "task_not_accepted", &json!(true)));
        assert_eq!(answer.headers["retry-after"], "1");
        assert!(answer.body["detail"].as_str().unwrap().contains("Send it again"));
    }
    sidecar.restart().await;
    assert_eq!(process.post(json!({"task": "x"})).await.status, 202);
    assert_eq!(process.post_with_key("k", json!({"task": "x"})).await.status, 202);
    assert_eq!(sidecar.published().len(), 2);
}

#[tokio::test]
async fn a_publish_that_is_not_confirmed_is_never_a_202() {
    let sidecar = FakeSidecar::start().await;
    let process = Process::of(&sidecar).await;
    for (fault, wait) in [(Fault::Refuse(500), "1"), (Fault::Break, "1"), (Fault::LoseAnswer, "1"), (Fault::Refuse(403), "30")] {
        sidecar.always(Call::Publish, Some(fault));
        let answer = process.post(json!({"task": "x"})).await;
        assert_eq!((answer.status, answer.headers["retry-after"].to_str().unwrap()), (503, wait), "{fault:?}");
    }
}

#[tokio::test]
async fn a_sidecar_that_hangs_is_waited_for_a_bounded_time() {
    let sidecar = FakeSidecar::start().await;
    let process = Process::with(&sidecar, &[("FTE_INTAKE_ACCEPT_MS_MAX", "50")]).await;
    let _held = sidecar.hold(Call::Publish);
    let answer = process.post(json!({"task": "x"})).await;
    assert_eq!((answer.status, answer.code()), (503, "task_not_accepted"));
}

#[tokio::test]
async fn a_repeat_gets_the_same_answer_from_any_process_and_publishes_nothing() {
    let sidecar = FakeSidecar::start().await;
    let first = Process::of(&sidecar).await.post_with_key("k", json!({"task": "x", "context": {"a": 1, "b": 2}})).await;
    let again = r#"{ "context": {"b": 2, "a": 1}, "task": "\u0078" }"#;
    let again = Process::of(&sidecar).await.send("/tasks", &[("idempotency-key", "k")], again).await;
    assert_eq!((first.status, again.status), (202, 202));
    assert_eq!((&first.body, &first.headers["location"]), (&again.body, &again.headers["location"]));
    assert_eq!(sidecar.published().len(), 1);
    let other = Process::of(&sidecar).await.post_with_key("k2", json!({"task": "x"})).await;
    assert_ne!(other.body["task_id"], first.body["task_id"]);
}

#[tokio::test]
async fn a_key_with_another_body_is_refused() {
    let sidecar = FakeSidecar::start().await;
    let process = Process::of(&sidecar).await;
    process.post_with_key("k", json!({"task": "x"})).await;
    for other in [json!({"task": "y"}), json!({"task": "x", "priority": "P2"}), json!({"task": ""})] {
        let answer = process.post_with_key("k", other).await;
        assert_eq!((answer.status, answer.code()), (409, "idempotency_key_reused"));
    }
    assert_eq!(sidecar.published().len(), 1);
}

#[tokio::test]
async fn a_key_is_remembered_for_a_day_without_the_event_once_that_is_out() {
    let sidecar = FakeSidecar::start().await;
    let answer = Process::of(&sidecar).await.post_with_key("k", json!({"task": "x"})).await;
    let [name] = &sidecar.keys()[..] else { panic!("{:?}", sidecar.keys()) };
    assert_eq!(sidecar.ttl_s(name), Some(24 * 3600));
    let record = sidecar.document(name).unwrap();
    assert_eq!((&record["task_id"], &record["progress"]), (&answer.body["task_id"], &json!("sent")));
    assert!(record.get("event").is_none() && record["accepted_at"].is_string());
}

#[tokio::test]
async fn what_was_accepted_stays_accepted_when_it_no_longer_could_be() {
    let sidecar = FakeSidecar::start().await;
    let dir = fte_testkit::Dir::new();
    let file = dir.write("agents.toml", "[agents.solo]\nkind = \"builtin\"\nbuiltin = \"echo\"\n");
    let with_solo = Process::with(&sidecar, &[("FTE_AGENTS", file.to_str().unwrap())]).await;
    let body = json!({"task": "x", "agent": "solo"});
    let accepted = with_solo.post_with_key("k", body.clone()).await;
    assert_eq!(accepted.status, 202);
    let without = Process::of(&sidecar).await;
    assert_eq!(without.post_with_key("k", body.clone()).await.body, accepted.body);
    assert_eq!(without.post_with_key("new", body).await.code(), "agent_unknown");
}

#[tokio::test]
async fn a_record_that_is_none_is_an_error_and_never_a_second_task() {
    let sidecar = FakeSidecar::start().await;
    let process = Process::of(&sidecar).await;
    process.post_with_key("k", json!({"task": "x"})).await;
    sidecar.put(&sidecar.keys()[0], json!({"something": "else"}));
    let answer = process.post_with_key("k", json!({"task": "x"})).await;
    assert_eq!((answer.status, answer.code()), (500, "internal"));
    assert_eq!(sidecar.published().len(), 1);
}

#[tokio::test]
async fn the_document_describes_the_route() {
    let sidecar = FakeSidecar::start().await;
    let request = Request::get("/openapi.json").header("host", "localhost").body(Body::empty()).unwrap();
    let response = Process::of(&sidecar).await.api.oneshot(request).await.unwrap();
    let document: Value = serde_json::from_slice(&to_bytes(response.into_body(), usize::MAX).await.unwrap()).unwrap();
    let operation = &document["paths"]["/v1/tasks"]["post"];
    assert_eq!(operation["requestBody"]["content"]["application/json"]["schema"]["$ref"], "#/components/schemas/NewTask");
    assert_eq!(operation["parameters"][0]["name"], "Idempotency-Key");
    let fields = &document["components"]["schemas"]["NewTask"];
    assert_eq!(fields["required"], json!(["task"]));
    let names: Vec<&str> = fields["properties"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        names,
        ["agent", "budget_tokens", "budget_usd", "context", "deadline", "delay", "metadata", "priority", "require_approval", "task"],
        "the document and the reader list the same fields"
    );
}

#[tokio::test]
async fn what_is_remembered_of_a_key_tells_the_store_of_nobody() {
    let sidecar = FakeSidecar::start().await;
    let process = Process::of(&sidecar).await;
    // The event is not out, so that the record still has it.
    sidecar.always(Call::Publish, Some(Fault::Refuse(500)));
    let answer = process.post_with_key("key-of-ada", json!({"task": "call Ada at 555-0199"})).await;
    assert_eq!(answer.status, 503);
    let [name] = &sidecar.keys()[..] else { panic!("one record: {:?}", sidecar.keys()) };
    let record = sidecar.document(name).unwrap();
    assert_eq!(record["progress"], "pending");
    let text = record.to_string();
    assert!(!text.contains("Ada") && !text.contains("555"), "{text}");
    let digest = fte_events::json_object_sha256(json!({"task": "call Ada at 555-0199"}).as_object().unwrap());
    assert!(!text.contains(&digest), "a plain digest could be guessed");
    sidecar.heal();
    let repeated = process.post_with_key("key-of-ada", json!({"task": "call Ada at 555-0199"})).await;
    assert_eq!((repeated.status, sidecar.published().len()), (202, 1));
    assert_eq!(sidecar.published()[0].json()["data"]["task"], "call Ada at 555-0199");
    assert_eq!(process.post_with_key("key-of-ada", json!({"task": "another"})).await.code(), "idempotency_key_reused");
}

#[tokio::test]
async fn a_record_of_an_earlier_version_still_stands_for_its_task() {
    let sidecar = FakeSidecar::start().await;
    let process = Process::of(&sidecar).await;
    process.post_with_key("k", json!({"task": "x"})).await;
    let [name] = &sidecar.keys()[..] else { panic!("one record") };
    let event = sidecar.published()[0].json();
    let digest = fte_events::json_object_sha256(json!({"task": "x"}).as_object().unwrap());
    let task = event["data"]["task_id"].clone();
    sidecar.put(
        name,
        json!({"task_id": task, "body_sha256": digest, "accepted_at": "2026-07-01T10:00:00Z", "progress": "pending", "event": event.to_string()}),
    );
    let repeated = process.post_with_key("k", json!({"task": "x"})).await;
    assert_eq!((repeated.status, &repeated.body["task_id"]), (202, &task));
    assert_eq!(sidecar.published().len(), 2);
    assert_eq!(sidecar.published()[1].json(), event);
}
