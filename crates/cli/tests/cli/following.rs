//! Following a task: through cuts, in the order of time, to an exit code that says how it ended.

use crate::fake::{Fake, Reply, json, problem, stream};
use crate::run::fte;

const ID: &str = "01980000-0000-7000-8000-000000000001";
const ACCEPTED: &str = r#"{"task_id":"01980000-0000-7000-8000-000000000001","status":"accepted"}"#;
const RUNNING: &str = r#"{"type":"fte.status.changed","time":"2026-01-02T09:15:02.1Z","data":{"status":"running","agent":"echo"}}"#;
const COMPLETED: &str = r#"{"type":"fte.status.changed","time":"2026-01-02T09:15:03Z","data":{"status":"completed"}}"#;
const RESULT: &str =
    r#"{"type":"fte.result.completed","time":"2026-01-02T09:15:03Z","data":{"status":"completed","result":"hello","duration_ms":9}}"#;
const FAILED: &str = r#"{"type":"fte.status.changed","time":"2026-01-02T09:15:03Z","data":{"status":"failed"}}"#;
const FAILURE: &str = r#"{"type":"fte.result.failed","time":"2026-01-02T09:15:03Z","data":{"status":"failed","error":{"code":"agent_crashed","message":"exit 1"}}}"#;

fn events() -> String {
    format!("GET /v1/tasks/{ID}/events")
}

/// It shows tasks, and does not only take them.
fn tells() -> (&'static str, Vec<Reply>) {
    ("GET /v1/tasks?limit=1", vec![json(200, "{}")])
}

#[tokio::test]
async fn submit_and_wait_succeeds_only_when_the_task_completed() {
    let good = stream(&[(1, RUNNING), (2, RESULT), (3, COMPLETED)]);
    let bad = stream(&[(1, RUNNING), (2, FAILURE), (3, FAILED)]);
    let events = events();
    let fake = Fake::start([("POST /v1/tasks", vec![json(202, ACCEPTED)]), tells(), (&*events, vec![good.clone(), good, bad])]).await;
    let ran = fte(&fake.url, &["submit", "hi", "--wait"]).await;
    ran.check(0, "hello");
    assert!(ran.err.contains("09:15:02.100  running            agent echo"), "{}", ran.err);
    let ran = fte(&fake.url, &["submit", "hi", "--wait", "--json"]).await;
    assert_eq!((ran.code, ran.json()["result"].as_str()), (0, Some("hello")));
    let ran = fte(&fake.url, &["submit", "hi", "--wait"]).await;
    ran.check(1, "agent_crashed: exit 1");
    assert!(ran.err.contains("ended as failed"), "{}", ran.err);
}

#[tokio::test]
async fn submit_waits_for_whoever_has_not_heard_of_its_task_yet_and_watch_does_not() {
    let unheard = || problem(404, "task_not_found", "Task not found");
    let events = events();
    let parts = vec![unheard(), problem(503, "starting", "Not yet"), unheard(), stream(&[(1, RESULT), (2, COMPLETED)])];
    let fake = Fake::start([("POST /v1/tasks", vec![json(202, ACCEPTED)]), tells(), (&*events, parts)]).await;
    fte(&fake.url, &["submit", "hi", "--wait"]).await.check(0, "hello");
    let fake = Fake::start([(&*events, vec![unheard(), stream(&[(1, RESULT), (2, COMPLETED)])])]).await;
    assert_eq!(fte(&fake.url, &["watch", ID]).await.code, 3);
}

#[tokio::test]
async fn a_wait_that_is_over_is_incomplete() {
    let events = events();
    let parts = vec![stream(&[(1, RUNNING)]), stream(&[])];
    let fake = Fake::start([("POST /v1/tasks", vec![json(202, ACCEPTED)]), tells(), (&*events, parts)]).await;
    let ran = fte(&fake.url, &["submit", "hi", "--wait", "--timeout", "500ms"]).await;
    ran.check(6, "");
    assert!(ran.err.contains(&format!("fte watch {ID}")), "{}", ran.err);
}

#[tokio::test]
async fn watch_goes_on_behind_the_last_event_after_every_cut() {
    let parts =
        vec![stream(&[(1, RUNNING)]), problem(503, "busy", "Not now"), stream(&[]), stream(&[(7, RESULT)]), stream(&[(8, COMPLETED)])];
    let events = events();
    let fake = Fake::start([(&*events, parts)]).await;
    let ran = fte(&fake.url, &["watch", ID, "--json"]).await;
    ran.check(0, &[RUNNING, RESULT, COMPLETED].join("\n"));
    let resumed: Vec<_> =
        fake.asked().iter().map(|asked| asked.headers.get("last-event-id").map(|id| id.to_str().unwrap().to_owned())).collect();
    let expected = [None, Some("1"), Some("1"), Some("1"), Some("7")];
    assert_eq!(resumed.iter().map(Option::as_deref).collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn watch_shows_lines_and_ends_with_the_result() {
    let events = events();
    let fake = Fake::start([(&*events, vec![stream(&[(1, RUNNING), (2, RESULT), (3, COMPLETED)])])]).await;
    let lines = ["09:15:02.100  running            agent echo", "09:15:03.000  completed          in 9 ms", "hello"];
    fte(&fake.url, &["watch", ID]).await.check(0, &lines.join("\n"));
}

#[tokio::test]
async fn watch_fails_when_the_task_ended_otherwise_than_completed() {
    let events = events();
    let fake = Fake::start([(&*events, vec![stream(&[(1, FAILURE), (2, FAILED)])])]).await;
    let ran = fte(&fake.url, &["watch", ID]).await;
    assert!(ran.code == 1 && ran.out.ends_with("agent_crashed: exit 1\n") && ran.err.contains("ended as failed"), "{ran:?}");
    fte(&fake.url, &["watch", ID, "--json"]).await.check(1, &[FAILURE, FAILED].join("\n"));
}

#[tokio::test]
async fn events_are_shown_in_the_order_of_their_times_and_as_they_follow_where_those_are_equal() {
    // Each topic is in order, and the topics come as they come.
    let claimed = r#"{"type":"fte.sandbox.claimed","time":"2026-01-02T09:15:02.1Z","data":{}}"#;
    let released = r#"{"type":"fte.sandbox.released","time":"2026-01-02T09:15:03Z","data":{}}"#;
    let requested = r#"{"type":"fte.task.requested","time":"2026-01-02T09:15:02.09Z","data":{}}"#;
    let made =
        r#"{"type":"fte.status.changed","time":"2026-01-02T09:15:03Z","data":{"status":"running","details":{"artifact":{"name":"a.md"}}}}"#;
    let sent = [(1, requested), (2, RESULT), (3, RUNNING), (4, COMPLETED), (5, claimed), (6, released), (7, made)];
    let events = events();
    let fake = Fake::start([(&*events, vec![stream(&sent)])]).await;
    let ran = fte(&fake.url, &["watch", ID]).await;
    let words: Vec<_> = ran.out.lines().map(|line| line.get(14..).unwrap_or(line).split("  ").next().unwrap()).collect();
    assert_eq!(words, ["requested", "sandbox claimed", "running", "running", "completed", "sandbox released", "hello"], "{}", ran.out);
    // For programs everything is as it was sent.
    fte(&fake.url, &["watch", ID, "--json"]).await.check(0, &sent.map(|(_, event)| event).join("\n"));
}
