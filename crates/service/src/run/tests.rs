use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::routing::{get, post};
use fte_testkit::{Client, FakeSidecar, eventually};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

use super::*;
use crate::Problem;
use crate::env::MapEnv;
use crate::probes::Lack;
use crate::settings::Ports;

struct Running {
    api: Client,
    app: Client,
    shutdown: oneshot::Sender<()>,
    ended: JoinHandle<Result<(), Error>>,
}

fn settings(sidecar: &FakeSidecar, more: &[(&str, &str)]) -> Settings {
    let mut env = MapEnv::of([("FTE_SIDECAR_URL", &sidecar.url())]);
    env.0.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    Settings::from_env(&env, Ports { app: 0, api: 0 }).unwrap()
}

async fn start(settings: Settings, service: impl FnOnce(Service) -> Service) -> Running {
    let bus = Bus::connect(&settings, "test").unwrap();
    let (api, app) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let url = |listener: &TcpListener| Client::new(format!("http://{}", listener.local_addr().unwrap()));
    let (api_client, app_client) = (url(&api), url(&app));
    let service = service(Service::new("test", &bus));
    let (shutdown, told) = oneshot::channel::<()>();
    let ended = tokio::spawn(async move { run(vec![(service, app)], api, &settings, async { drop(told.await) }).await });
    Running { api: api_client, app: app_client, shutdown, ended }
}

#[tokio::test]
async fn both_listeners_have_the_probes_and_readiness_follows_the_sidecar() {
    let mut sidecar = FakeSidecar::start().await;
    let running = start(settings(&sidecar, &[]), |service| service).await;
    for client in [&running.api, &running.app] {
        client.get("/health").await.unwrap().expect_status(200);
        client.get("/ready").await.unwrap().expect_status(200);
        client.get("/metrics").await.unwrap().expect_status(200);
    }
    sidecar.stop().await;
    let not_ready: Value = running.api.get("/ready").await.unwrap().expect_status(503).json();
    assert_eq!(not_ready["checks"][0]["name"], "test/sidecar");
    running.app.get("/ready").await.unwrap().expect_status(503);
    running.api.get("/health").await.unwrap().expect_status(200);
    sidecar.restart().await;
    running.api.get("/ready").await.unwrap().expect_status(200);
}

#[tokio::test]
async fn what_a_service_lacks_stands_in_its_diagnosis() {
    let sidecar = FakeSidecar::start().await;
    let running = start(settings(&sidecar, &[]), |mut service| {
        service.checks.push(("deliveries", check(|| async { Err("nothing comes".to_owned()) })));
        service
    })
    .await;
    let diagnosis: Value = running.api.get("/v1/services/test").await.unwrap().expect_status(200).json();
    assert_eq!(diagnosis["lacks"], json!(["test/deliveries: nothing comes"]));
}

#[tokio::test]
async fn what_it_can_serve_without_stands_in_its_diagnosis_and_keeps_nobody_away() {
    let sidecar = FakeSidecar::start().await;
    let running = start(settings(&sidecar, &[]), |mut service| {
        service.checks.push(("deliveries", check(|| async { Err(Lack::that_serves("nothing comes")) })));
        service
    })
    .await;
    running.api.get("/ready").await.unwrap().expect_status(200);
    let diagnosis: Value = running.api.get("/v1/services/test").await.unwrap().expect_status(200).json();
    assert_eq!(diagnosis["lacks"], json!(["test/deliveries: nothing comes"]));
}

#[tokio::test]
async fn the_header_of_a_request_has_a_limit() {
    let sidecar = FakeSidecar::start().await;
    let running = start(settings(&sidecar, &[]), |service| service).await;
    let address = running.api.base().trim_start_matches("http://").to_owned();
    // One that is over the limit by no more than a read may still pass.
    for (bytes, status) in [(60 * 1024, "200"), (256 * 1024, "431"), (60 * 1024, "200")] {
        let mut connection = tokio::net::TcpStream::connect(&address).await.unwrap();
        let request = format!("GET /health HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\nx-long: {}\r\n\r\n", "x".repeat(bytes));
        // Who is refused may not be heard to the end.
        drop(connection.write_all(request.as_bytes()).await);
        let mut answer = vec![0; 12];
        connection.read_exact(&mut answer).await.unwrap();
        assert_eq!(String::from_utf8(answer).unwrap(), format!("HTTP/1.1 {status}"), "{bytes}");
    }
}

#[tokio::test]
async fn the_end_waits_for_what_is_under_way_and_accepts_nothing_new() {
    let sidecar = FakeSidecar::start().await;
    let (entered, finish, stopped) = (Arc::new(Notify::new()), Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
    let running = start(settings(&sidecar, &[]), |mut service| {
        let (entered, finish) = (Arc::clone(&entered), Arc::clone(&finish));
        let slow = async move || {
            entered.notify_one();
            finish.notified().await;
            "done"
        };
        service.api = ApiRoutes::default().route("/slow", get(slow));
        let stopped = Arc::clone(&stopped);
        service.stop = Some(Box::new(move || Box::pin(async move { stopped.store(true, Ordering::Relaxed) })));
        service
    })
    .await;
    let (api, base) = (running.api.clone(), running.api.base().to_owned());
    let slow = tokio::spawn(async move { api.get("/slow").await });
    entered.notified().await;
    running.shutdown.send(()).unwrap();
    eventually(|| async {
        let fresh = Client::new(base.clone());
        match fresh.get("/health").await {
            Err(fte_testkit::ClientError::Unreachable(_)) => Ok(()),
            answered => Err(format!("{answered:?}")),
        }
    })
    .await;
    assert!(stopped.load(Ordering::Relaxed));
    assert!(!running.ended.is_finished());
    finish.notify_one();
    assert_eq!(slow.await.unwrap().unwrap().expect_status(200).text(), "done");
    running.ended.await.unwrap().unwrap();
}

/// A proxy keeps connections, and sends the next request on one of them.
#[tokio::test]
async fn who_keeps_a_connection_is_answered_before_anything_stops_and_told_to_open_another() {
    let sidecar = FakeSidecar::start().await;
    let stopped = Arc::new(AtomicBool::new(false));
    // However busy the machine is, there is time for a request.
    let running = start(settings(&sidecar, &[("FTE_DRAIN_MS_MAX", "600000")]), |mut service| {
        let (stopping, asked) = (Arc::clone(&stopped), Arc::clone(&stopped));
        service.api = ApiRoutes::default().route("/stopped", get(async move || asked.load(Ordering::Relaxed).to_string()));
        service.stop = Some(Box::new(move || Box::pin(async move { stopping.store(true, Ordering::Relaxed) })));
        service
    })
    .await;
    let address = running.api.base().trim_start_matches("http://").to_owned();
    let mut connection = tokio::net::TcpStream::connect(&address).await.unwrap();
    let mut ask = async || {
        connection.write_all(format!("GET /stopped HTTP/1.1\r\nhost: {address}\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"false") {
            assert!(connection.read_buf(&mut answer).await.unwrap() > 0, "cut after {}", String::from_utf8_lossy(&answer));
        }
        String::from_utf8(answer).unwrap().to_lowercase()
    };
    assert!(!ask().await.contains("connection: close"));
    running.shutdown.send(()).unwrap();
    while !ask().await.contains("connection: close") {}
    running.ended.await.unwrap().unwrap();
    assert!(stopped.load(Ordering::Relaxed));
}

#[tokio::test]
async fn the_end_is_bounded_whatever_hangs() {
    let sidecar = FakeSidecar::start().await;
    let entered = Arc::new(Notify::new());
    let running = start(settings(&sidecar, &[("FTE_DRAIN_MS_MAX", "100")]), |mut service| {
        let entered = Arc::clone(&entered);
        let hang = async move || {
            entered.notify_one();
            std::future::pending::<()>().await;
        };
        service.api = ApiRoutes::default().route("/hang", get(hang));
        service.stop = Some(Box::new(|| Box::pin(std::future::pending())));
        service.background.push(Box::pin(std::future::pending()));
        service
    })
    .await;
    let api = running.api.clone();
    let hanging = tokio::spawn(async move { api.get("/hang").await });
    entered.notified().await;
    running.shutdown.send(()).unwrap();
    running.ended.await.unwrap().unwrap();
    assert!(hanging.await.unwrap().is_err());
}

#[tokio::test]
async fn work_that_fails_ends_the_process_with_its_reason() {
    let sidecar = FakeSidecar::start().await;
    let running = start(settings(&sidecar, &[]), |mut service| {
        service.background.push(Box::pin(async { Ok(()) }));
        service.background.push(Box::pin(async { Err("the disk is full".into()) }));
        service
    })
    .await;
    let error = running.ended.await.unwrap().unwrap_err();
    assert_eq!(crate::chain(&error), "the background work of test failed: the disk is full");
}

#[tokio::test]
async fn connections_past_the_limit_wait_for_a_place() {
    let sidecar = FakeSidecar::start().await;
    let (entered, finish) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let running = start(settings(&sidecar, &[("FTE_CONNECTIONS_MAX", "1")]), |mut service| {
        let (entered, finish) = (Arc::clone(&entered), Arc::clone(&finish));
        let slow = async move || {
            entered.notify_one();
            finish.notified().await;
            // The client closes too; without this header it might keep the only place.
            [("connection", "close")]
        };
        service.api = ApiRoutes::default().route("/slow", get(slow));
        service
    })
    .await;
    let api = running.api.clone();
    let slow = tokio::spawn(async move { api.get("/slow").await });
    entered.notified().await;
    let second = Client::new(running.api.base());
    let mut health = std::pin::pin!(second.get("/health"));
    assert!(tokio::time::timeout(Duration::from_millis(50), health.as_mut()).await.is_err());
    finish.notify_one();
    slow.await.unwrap().unwrap().expect_status(200);
    health.await.unwrap().expect_status(200);
}

#[tokio::test]
async fn a_caller_that_sends_too_much_still_hears_why() {
    let sidecar = FakeSidecar::start().await;
    let running = start(settings(&sidecar, &[]), |mut service| {
        service.api = ApiRoutes::default().route("/do", post(async |_: crate::extract::Json<Value>| ()));
        service
    })
    .await;
    // A simple client: it writes all it has before it reads.
    let address = running.api.base().trim_start_matches("http://").to_owned();
    let refused = async |header: &str, bytes: usize| {
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        let head = format!("POST /do HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {bytes}\r\n{header}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&vec![b'x'; bytes]).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let too_large = refused("content-type: application/json", 8 * 1024 * 1024).await;
    assert!(too_large.starts_with("HTTP/1.1 413 ") && too_large.contains("body_too_large"), "{too_large}");
    let foreign = refused("origin: https://evil.example", 8 * 1024 * 1024).await;
    assert!(foreign.starts_with("HTTP/1.1 403 ") && foreign.contains("origin_refused"), "{foreign}");
    let not_json = refused("content-type: text/plain", 500 * 1024).await;
    assert!(not_json.starts_with("HTTP/1.1 415 ") && not_json.contains("unsupported_media_type"), "{not_json}");
}

#[tokio::test]
async fn a_start_and_a_refusal_are_recorded() {
    let sidecar = FakeSidecar::start().await;
    let settings = settings(&sidecar, &[]);
    let running = start(settings, |mut service| {
        service.api = ApiRoutes::default().route("/do", post(async || ()));
        service
    })
    .await;
    let foreign = running.api.clone().with_header("origin", "https://evil.example");
    assert_eq!(foreign.post("/do", &json!({})).await.unwrap().expect_status(403).problem_code(), "origin_refused");
    let recorded = async |action: &str| {
        let find = || sidecar.published().iter().map(|event| event.json()).find(|event| event["data"]["action"] == action);
        eventually(|| async { find().ok_or("nothing yet") }).await
    };
    let start = recorded("service.started").await;
    assert_eq!((&start["data"]["resource"], &start["data"]["actor"]["id"]), (&json!("service/test"), &json!("test")));
    assert_eq!(start["data"]["data"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(start["data"]["data"]["configuration"]["sha256"].as_str().unwrap().len(), 64);
    let event = recorded("api.denied").await;
    assert_eq!(event["data"]["outcome"], "denied");
    assert_eq!(event["data"]["data"]["code"], "origin_refused");
    assert!(!event.to_string().contains("evil"));
}

/// An API with keys: `/v1/tasks`, where a task may be posted, and `/v1/agents`, where a handler refuses, one by a status alone.
async fn guarded(sidecar: &FakeSidecar, key: &str) -> (Running, Client) {
    let made = crate::keys::NewKey::make().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("keys.toml");
    std::fs::write(&file, format!("[[keys]]\nname = \"ada\"\nsha256 = \"{}\"\n{key}\n", made.sha256)).unwrap();
    let running = start(settings(sidecar, &[("FTE_API_KEYS_FILE", &file.to_string_lossy())]), |mut service| {
        let foreign = async || Problem::new(StatusCode::FORBIDDEN, "tenant_foreign", "Not yours.");
        service.api = ApiRoutes::default()
            .route("/do", post(async || ()))
            .route("/v1/tasks", post(async || ()))
            .route("/v1/agents", get(foreign))
            .route("/v1/events", get(async || StatusCode::FORBIDDEN))
            .route("/v1/tasks/{id}", get(async || Problem::new(StatusCode::CONFLICT, "legal_hold", "Held.").as_denial()))
            .route("/v1/tasks/{id}/result", get(async || Problem::new(StatusCode::CONFLICT, "task_ended", "It has ended.")));
        service
    })
    .await;
    let ada = running.api.clone().with_header("authorization", &format!("Bearer {}", made.secret));
    (running, ada)
}

/// What was recorded of refusals.
fn denials(sidecar: &FakeSidecar) -> Vec<Value> {
    let events = sidecar.published().iter().map(|event| event.json()).collect::<Vec<_>>();
    events.into_iter().filter(|event| event["data"]["action"] == "api.denied").collect()
}

#[tokio::test]
async fn each_refusal_is_recorded_once_with_whose_key_it_was_whoever_refused() {
    let sidecar = FakeSidecar::start().await;
    let (running, ada) = guarded(&sidecar, "roles = [\"read\"]\ntenant = \"acme\"").await;
    ada.post("/v1/tasks", &json!({})).await.unwrap().expect_status(403);
    ada.get("/v1/agents").await.unwrap().expect_status(403);
    ada.get("/v1/events").await.unwrap().expect_status(403);
    ada.get("/v1/tasks/7").await.unwrap().expect_status(409);
    // Not a matter of who may do what.
    ada.get("/v1/tasks/7/result").await.unwrap().expect_status(409);
    ada.get("/nowhere").await.unwrap().expect_status(404);
    ada.clone().with_header("origin", "https://evil.example").get("/v1/agents").await.unwrap().expect_status(403);
    running.api.get("/v1/agents").await.unwrap().expect_status(401);
    // On its end it has published all.
    running.shutdown.send(()).unwrap();
    running.ended.await.unwrap().unwrap();
    let mut found: Vec<_> = denials(&sidecar)
        .into_iter()
        .map(|event| {
            let data = &event["data"];
            assert_eq!(data["outcome"], "denied");
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            (text(&data["data"]["code"]), text(&data["resource"]), text(&data["actor"]["id"]), text(&event["ftetenant"]))
        })
        .collect();
    found.sort();
    let ada = |code: &str, resource: &str| (code.to_owned(), resource.to_owned(), "ada".to_owned(), "acme".to_owned());
    let nobody = ("key_missing".to_owned(), "GET /v1/agents".to_owned(), "test".to_owned(), "default".to_owned());
    let expected = [
        ada("forbidden", "GET /v1/events"),
        nobody,
        ada("legal_hold", "GET /v1/tasks/{id}"),
        ada("origin_refused", "GET /v1/agents"),
        ada("role_missing", "POST /v1/tasks"),
        ada("tenant_foreign", "GET /v1/agents"),
    ];
    assert_eq!(found, expected);
}

#[tokio::test]
async fn a_key_that_has_expired_is_still_known_as_its_owners() {
    let sidecar = FakeSidecar::start().await;
    let (running, ada) = guarded(&sidecar, "roles = [\"read\"]\nexpires = \"2020-01-01T00:00:00Z\"").await;
    ada.get("/v1/agents").await.unwrap().expect_status(401);
    running.shutdown.send(()).unwrap();
    running.ended.await.unwrap().unwrap();
    let denied = denials(&sidecar).remove(0);
    assert_eq!((&denied["data"]["actor"], &denied["data"]["data"]["code"]), (&json!({"type": "user", "id": "ada"}), &json!("key_expired")));
}

#[tokio::test]
async fn a_flood_of_refusals_is_a_bounded_number_of_entries_that_say_how_many_there_were_and_hides_nobody() {
    let sidecar = FakeSidecar::start().await;
    let (running, ada) = guarded(&sidecar, "roles = [\"read\"]").await;
    for _ in 0..200 {
        running.api.get("/v1/agents").await.unwrap().expect_status(401);
    }
    ada.post("/v1/tasks", &json!({})).await.unwrap().expect_status(403);
    running.shutdown.send(()).unwrap();
    running.ended.await.unwrap().unwrap();
    let (strangers, known): (Vec<_>, Vec<_>) =
        denials(&sidecar).into_iter().partition(|event| event["data"]["data"]["code"] == "key_missing");
    let left_out: u64 = strangers.iter().filter_map(|event| event["data"]["data"]["left_out"].as_u64()).sum();
    let single = strangers.iter().filter(|event| event["data"]["data"]["left_out"].is_null()).count();
    assert_eq!(single as u64 + left_out, 200, "each is in one of them");
    assert!((60..70).contains(&single) && strangers.len() == single + 1, "{single} of {}", strangers.len());
    assert_eq!((known.len(), &known[0]["data"]["actor"]["id"]), (1, &json!("ada")));
}

#[tokio::test]
async fn it_is_recorded_once_that_a_key_is_in_use() {
    let sidecar = FakeSidecar::start().await;
    let (running, ada) = guarded(&sidecar, "roles = [\"admin\"]\ntenant = \"acme\"").await;
    for _ in 0..3 {
        ada.post("/do", &json!({})).await.unwrap().expect_status(200);
    }
    // Recorded after them: what there is of the key is there by then.
    running.api.post("/do", &json!({})).await.unwrap().expect_status(401);
    let actions = || sidecar.published().iter().map(|event| event.json()).collect::<Vec<_>>();
    let of = |events: &[Value], action: &str| events.iter().filter(|event| event["data"]["action"] == action).cloned().collect::<Vec<_>>();
    let actions = eventually(|| async { Some(actions()).filter(|all| !of(all, "api.denied").is_empty()).ok_or("no denial yet") }).await;
    let used = of(&actions, "key.used");
    assert_eq!(used.len(), 1, "{actions:?}");
    assert_eq!((&used[0]["data"]["actor"]["id"], &used[0]["data"]["resource"]), (&json!("ada"), &json!("api-key/ada")));
    assert_eq!(used[0]["ftetenant"], "acme", "whose key it is");
    assert!(!format!("{actions:?}").contains("fte_"), "nothing of a key");
}

#[tokio::test]
async fn a_state_store_that_cannot_be_worked_with_ends_the_process_before_its_work_begins() {
    let sidecar = FakeSidecar::start().await;
    sidecar.careless(fte_testkit::Careless::Replaces);
    let settings = settings(&sidecar, &[]);
    let bus = Bus::connect(&settings, "test").unwrap();
    let running = start(settings, |mut service| {
        service.on_state(&bus, async { panic!("nothing may rest on this store") });
        service
    })
    .await;
    let ended = running.ended.await.unwrap().unwrap_err();
    assert!(sidecar.calls(fte_testkit::Call::Write) >= 6, "it was tried twice");
    let text = chain(&ended);
    assert!(text.contains("\"statestore\" took a write that was only to make a document") && text.contains("take state.redis"), "{text}");
}

#[tokio::test]
async fn work_on_the_state_store_begins_once_it_was_tried_and_one_that_is_away_does_not_keep_the_service_from_being_ready() {
    let sidecar = FakeSidecar::start().await;
    let held = sidecar.hold(fte_testkit::Call::Write);
    sidecar.always(fte_testkit::Call::Write, Some(fte_testkit::Fault::Refuse(500)));
    let (settings, begun) = (settings(&sidecar, &[]), Arc::new(Notify::new()));
    let bus = Bus::connect(&settings, "test").unwrap();
    let running = start(settings, |mut service| {
        let begun = Arc::clone(&begun);
        service.on_state(&bus, async move {
            begun.notify_one();
            std::future::pending().await
        });
        service
    })
    .await;
    eventually(|| async { if sidecar.calls(fte_testkit::Call::Write) > 0 { Ok(()) } else { Err("not tried") } }).await;
    let not_ready: Value = running.api.get("/ready").await.unwrap().expect_status(503).json();
    assert!(not_ready["checks"].to_string().contains("test/statestore"), "{not_ready}");
    drop(held);
    let ready = eventually(|| async {
        let answer = running.api.get("/ready").await.unwrap();
        if answer.status == 200 { Ok(answer.text()) } else { Err("not ready") }
    })
    .await;
    assert!(ready.contains("the test refuses this call"), "what is amiss is said all the same: {ready}");
    tokio::time::timeout(Duration::ZERO, begun.notified()).await.expect_err("it cannot be worked with yet");
    sidecar.heal();
    begun.notified().await;
}
