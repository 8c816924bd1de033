//! The load generator against an instance that may lose, double or cut: it must notice each.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::run::fte;

const TASKS: [&str; 2] = ["--tasks", "200"];
/// Where a result is missing: gives up on it soon.
const IMPATIENT: [&str; 4] = ["--tasks", "200", "--grace", "1s"];

/// What the fake instance does wrong.
#[derive(Clone, Copy, Default)]
struct Faults {
    /// This task never gets a result.
    lose: Option<usize>,
    /// Neither does this one, which is still at work.
    keep: Option<usize>,
    /// This one gets two.
    double: Option<usize>,
    /// The stream leaves out the result of this one.
    hide: Option<usize>,
    /// Every stream ends after so many events.
    cut_after: Option<usize>,
    /// Every so many posts one is refused.
    refuse_each: Option<usize>,
}

#[derive(Clone)]
struct Instance {
    faults: Faults,
    /// How many tasks were posted.
    posts: Arc<Mutex<usize>>,
    /// The results of the stream, as task numbers.
    results: watch::Sender<Vec<usize>>,
}

fn id(number: usize) -> String {
    format!("01980000-0000-7000-8000-{number:012x}")
}

async fn start(faults: Faults) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let instance = Instance { faults, posts: Arc::default(), results: watch::Sender::new(Vec::new()) };
    let router = Router::new()
        .route("/v1/tasks", post(create))
        .route("/v1/tasks/{id}", get(task))
        .route("/v1/tasks/{id}/events", get(history))
        .route("/v1/tasks/{id}/result", get(result))
        .route("/v1/events", get(stream))
        .with_state(instance);
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

async fn create(State(instance): State<Instance>) -> (axum::http::StatusCode, Json<Value>) {
    let Faults { lose, keep, double, hide, refuse_each, .. } = instance.faults;
    let number = {
        let mut posts = instance.posts.lock().unwrap();
        *posts += 1;
        *posts
    };
    if refuse_each.is_some_and(|each| number.is_multiple_of(each)) {
        return (axum::http::StatusCode::SERVICE_UNAVAILABLE, Json(json!({"code": "busy"})));
    }
    instance.results.send_modify(|results| {
        let is_shown = [lose, keep, hide].iter().all(|hidden| *hidden != Some(number));
        results.extend(is_shown.then_some(number));
        results.extend((double == Some(number)).then_some(number));
    });
    (axum::http::StatusCode::ACCEPTED, Json(json!({"task_id": id(number), "status": "accepted"})))
}

fn number(id: &str) -> usize {
    usize::from_str_radix(&id[24..], 16).unwrap()
}

async fn history(State(instance): State<Instance>, Path(id): Path<String>) -> Json<Value> {
    let has_none = [instance.faults.lose, instance.faults.keep].contains(&Some(number(&id)));
    let count = if has_none { 0 } else { 1 + usize::from(instance.faults.double == Some(number(&id))) };
    let results = std::iter::repeat_n(json!({"type": "fte.result.completed"}), count);
    Json(json!({"items": std::iter::once(json!({"type": "fte.task.requested"})).chain(results).collect::<Vec<_>>()}))
}

/// One that was lost: what it was last known to be, or nothing.
async fn task(State(instance): State<Instance>, Path(id): Path<String>) -> (axum::http::StatusCode, Json<Value>) {
    if instance.faults.keep == Some(number(&id)) {
        return (axum::http::StatusCode::OK, Json(json!({"status": "running"})));
    }
    (axum::http::StatusCode::NOT_FOUND, Json(json!({"code": "task_not_found"})))
}

async fn result() -> Json<Value> {
    Json(json!({"status": "completed"}))
}

async fn stream(State(instance): State<Instance>, headers: HeaderMap) -> Response {
    let from: usize = headers.get("last-event-id").map_or(0, |id| id.to_str().unwrap().parse().unwrap());
    let until = instance.faults.cut_after.map(|after| from + after);
    let results = instance.results.subscribe();
    let frames = futures_util::stream::unfold((results, from), move |(mut results, at)| async move {
        if until == Some(at) {
            return None;
        }
        let number = results.wait_for(|results| results.len() > at).await.ok()?[at];
        let frame = format!("id: {}\nevent: fte.result.completed\ndata: {{\"subject\":\"{}\"}}\n\n", at + 1, id(number));
        Some((Ok::<_, Infallible>(Bytes::from(frame)), (results, at + 1)))
    });
    Response::builder().header("content-type", "text/event-stream").body(Body::from_stream(frames)).unwrap()
}

async fn bench(faults: Faults, args: &[&str]) -> (i32, Value) {
    let url = start(faults).await;
    let common = ["bench", "--json", "--concurrency", "8"];
    let ran = fte(&url, &[&common[..], args].concat()).await;
    (ran.code, ran.json())
}

#[track_caller]
fn check(report: &Value, expected: [(&str, u64); 4]) {
    for (field, value) in expected {
        assert_eq!(report[field], value, "{field} of {report}");
    }
}

#[tokio::test]
async fn a_good_instance_gets_a_good_report() {
    let (code, report) = bench(Faults::default(), &TASKS).await;
    check(&report, [("accepted", 200), ("completed", 200), ("lost", 0), ("duplicates", 0)]);
    assert_eq!(code, 0);
    for latency in ["post_ms", "result_ms"] {
        let [p50, p99, max] = ["p50", "p99", "max"].map(|field| report[latency][field].as_f64().unwrap());
        assert!(p50 > 0.0 && p50 <= p99 && p99 <= max, "{report}");
    }
    assert!(report["accepted_per_s"].as_f64().unwrap() > 0.0 && report["completed_per_s"].as_f64().unwrap() > 0.0);
}

#[tokio::test]
async fn a_lost_task_is_found() {
    let (code, report) = bench(Faults { lose: Some(17), ..Faults::default() }, &[&IMPATIENT[..], &["--check", "0"]].concat()).await;
    check(&report, [("accepted", 200), ("completed", 199), ("lost", 1), ("duplicates", 0)]);
    assert_eq!(code, 1);
}

#[tokio::test]
async fn a_task_that_is_under_way_is_unfinished_and_not_lost_and_the_bench_has_not_succeeded() {
    let args = [&IMPATIENT[..], &["--check", "0"]].concat();
    let (code, report) = bench(Faults { keep: Some(17), ..Faults::default() }, &args).await;
    check(&report, [("completed", 199), ("lost", 0), ("unfinished", 1), ("duplicates", 0)]);
    assert_eq!(code, 6);
    let (code, report) = bench(Faults { keep: Some(17), lose: Some(18), ..Faults::default() }, &args).await;
    check(&report, [("completed", 198), ("lost", 1), ("unfinished", 1), ("duplicates", 0)]);
    assert_eq!(code, 1);
    let url = start(Faults { keep: Some(1), ..Faults::default() }).await;
    let ran = fte(&url, &["bench", "--tasks", "5", "--grace", "200ms"]).await;
    assert!(ran.out.contains("1 unfinished when no more results came") && ran.err.contains("error: 1 task unfinished"), "{ran:?}");
}

#[tokio::test]
async fn a_doubled_result_is_found() {
    let (code, report) = bench(Faults { double: Some(3), ..Faults::default() }, &[&TASKS[..], &["--check", "all"]].concat()).await;
    check(&report, [("accepted", 200), ("completed", 200), ("lost", 0), ("duplicates", 1)]);
    assert_eq!(code, 1);
}

#[tokio::test]
async fn a_result_that_the_stream_left_out_is_found_and_not_called_lost() {
    // Patient enough to see all the others.
    let (code, report) = bench(Faults { hide: Some(200), ..Faults::default() }, &["--tasks", "200", "--grace", "5s"]).await;
    check(&report, [("accepted", 200), ("completed", 200), ("lost", 0), ("unseen", 1)]);
    assert_eq!(code, 1);
}

#[tokio::test]
async fn a_stream_that_is_cut_is_resumed_without_loss() {
    let (code, report) = bench(Faults { cut_after: Some(60), ..Faults::default() }, &["--tasks", "200"]).await;
    check(&report, [("completed", 200), ("lost", 0), ("duplicates", 0), ("stream_resumed", 3)]);
    assert_eq!(code, 0);
}

#[tokio::test]
async fn refused_tasks_are_counted_and_not_called_lost() {
    let (code, report) = bench(Faults { refuse_each: Some(10), ..Faults::default() }, &[&TASKS[..], &["--in-flight", "4"]].concat()).await;
    check(&report, [("accepted", 180), ("refused", 20), ("lost", 0), ("duplicates", 0)]);
    assert_eq!(code, 0);
}

#[tokio::test]
async fn an_open_loop_keeps_its_rate_and_waits_for_results_at_low_ones() {
    let (code, report) = bench(Faults::default(), &["--rate", "400", "--duration", "250ms"]).await;
    check(&report, [("accepted", 100), ("completed", 100), ("lost", 0), ("duplicates", 0)]);
    assert_eq!(code, 0);
    // The clock decides when tasks start: a hundred at 400 a second take their quarter second however fast the instance is.
    assert!(report["seconds"].as_f64().unwrap() >= 0.247, "{report}");
    assert!(report.get("stream_ms").is_none());

    let (code, report) = bench(Faults::default(), &["--rate", "50", "--tasks", "5"]).await;
    check(&report, [("accepted", 5), ("completed", 5), ("lost", 0), ("duplicates", 0)]);
    assert!(code == 0 && report["stream_ms"]["p50"].is_number(), "{report}");
}

#[tokio::test]
async fn an_instance_that_is_not_there_is_unavailable() {
    let ran = fte("http://127.0.0.1:1", &["bench", "--tasks", "1"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (5, ""), "{}", ran.err);
}

#[tokio::test]
async fn its_errors_say_what_happened_why_and_what_to_do() {
    let refusal =
        r#"{"code":"agent_unknown","title":"Agent unknown","detail":"There is echo.","errors":[{"pointer":"/agent","detail":"unknown"}]}"#;
    let fake = crate::fake::Fake::start([
        ("POST /v1/tasks", vec![crate::fake::json(422, refusal)]),
        (
            &*format!("GET /v1/events?type={}", fte_events::ResultKind::ALL.map(fte_events::ResultKind::event_type).join(",")),
            vec![crate::fake::stream(&[])],
        ),
    ])
    .await;
    let ran = fte(&fake.url, &["bench", "--tasks", "1"]).await;
    assert_eq!(ran.code, 4, "{ran:?}");
    assert!(ran.err.starts_with("error: Agent unknown (422 agent_unknown)\n  why: There is echo.\n  why: /agent: unknown"), "{}", ran.err);

    let ran = fte("http://127.0.0.1:1", &["bench", "--tasks", "1", "--disk", "/nowhere"]).await;
    assert!(ran.code == 2 && ran.err.contains("try: ") && ran.err.contains("--disk"), "{ran:?}");
    let url = start(Faults { lose: Some(1), ..Faults::default() }).await;
    let ran = fte(&url, &["bench", "--tasks", "5", "--grace", "200ms"]).await;
    assert!(ran.code == 1 && ran.err.contains("error: a promise is broken\n  why: 1 task lost") && ran.err.contains("  try: "), "{ran:?}");
}

#[tokio::test]
async fn the_disk_and_the_server_s_memory_are_measured_when_asked() {
    let dir = fte_testkit::Dir::new();
    let pid = std::process::id().to_string();
    let (code, report) = bench(Faults::default(), &["--tasks", "50", "--disk", dir.to_str().unwrap(), "--sample-memory", &pid]).await;
    assert!(code == 0 && report["fdatasync_ms"].as_f64().unwrap() > 0.0, "{report}");
    assert!(report["server_memory_mib"]["peak"].as_f64().unwrap() > 1.0, "{report}");
    assert_eq!(std::fs::read_dir(&*dir).unwrap().count(), 0);
}
