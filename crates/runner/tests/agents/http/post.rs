//! The plain protocol, `protocol = "post"`.

use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use fte_runner::agents::{HttpLimits, Limits};
use fte_runner::ports::{Said, Start, Tell};
use futures_util::FutureExt as _;
use http::{Method, StatusCode};
use serde_json::json;

use super::server::{Asked, Piece, Server, body, flood, header, json_answer, never};
use super::{Far, SECRET, nobody, quick};
use crate::support::{all, eventually, expect_error, next, start};

/// A server that answers at once.
async fn server(answer: impl Fn(&Asked) -> Response + Send + Sync + 'static) -> Server {
    Server::start(move |asked, _| {
        let answer = answer(&asked);
        async move { answer }.boxed()
    })
    .await
}

fn far(server: &Server) -> Far {
    Far::new(&format!("{}/work", server.url), "post")
}

fn accepted(location: &str) -> Response {
    header(json_answer(202, &json!({})), "location", location)
}

fn place(said: &[Said]) -> serde_json::Value {
    let kept = said.iter().find_map(|said| if let Said::Checkpoint(kept) = said { Some(kept.clone()) } else { None });
    kept.expect("a checkpoint")
}

#[tokio::test]
async fn an_answer_is_the_result() {
    let server = server(|asked| match asked.nth {
        0 => json_answer(200, &json!({"words": 3})),
        1 => body(StatusCode::OK, "text/plain; charset=utf-8", vec![Piece::Bytes("plain\n".into())]),
        _ => body(StatusCode::NO_CONTENT, "text/plain", Vec::new()),
    })
    .await;
    let far = far(&server);
    let context = json!({"colour": "blue"}).as_object().cloned().unwrap();
    let asked = Start { context, attempt: 2, checkpoint: Some(json!({"mine": 1})), ..start("count") };
    assert_eq!(far.all(asked.clone()).await, [Said::Result(json!({"words": 3}))]);
    assert_eq!(far.last("text").await, Said::Result(json!("plain\n")));
    assert_eq!(far.last("nothing").await, Said::Result(json!(null)));
    let seen = &server.asked()[0];
    let id = asked.task_id.to_string();
    assert_eq!((&seen.method, seen.path.as_str()), (&Method::POST, "/work"));
    let sent = json!({"task_id": id, "attempt": 2, "task": "count", "context": {"colour": "blue"}, "checkpoint": {"mine": 1}});
    assert_eq!(seen.body, sent);
    assert_eq!(seen.headers["idempotency-key"], format!("{id}.2"));
    assert_eq!(seen.headers["authorization"], format!("Bearer {SECRET}"));
}

#[tokio::test]
async fn a_result_that_takes_longer_is_asked_for_until_it_is_there() {
    let server = server(|asked| match (asked.method.as_str(), asked.nth) {
        ("POST", _) => header(accepted("/jobs/7"), "retry-after", "0"),
        ("GET", 0 | 1) => json_answer(202, &json!({})),
        ("GET", 2) => header(json_answer(503, &json!({"title": "busy"})), "retry-after", "0"),
        ("GET", _) => json_answer(200, &json!("ready")),
        _ => json_answer(500, &json!({})),
    })
    .await;
    let said = far(&server).all(start("t")).await;
    assert_eq!(place(&said), json!({"http_location": format!("{}/jobs/7", server.url), "attempt": 1}));
    assert_eq!(said.len(), 2, "{said:?}");
    assert_eq!(said[1], Said::Result(json!("ready")));
    let asked = server.asked();
    assert_eq!(asked.len(), 5);
    assert!(asked[1..].iter().all(|asked| asked.path == "/jobs/7" && asked.headers["authorization"] == format!("Bearer {SECRET}")));
}

#[tokio::test]
async fn a_start_after_a_restart_asks_and_does_not_post() {
    let server = server(|asked| match (asked.method.as_str(), asked.path.as_str()) {
        ("GET", "/jobs/good") => json_answer(200, &json!("first")),
        ("POST", "/work") => json_answer(200, &json!("second")),
        _ => json_answer(404, &json!({"detail": "no such job"})),
    })
    .await;
    let far = far(&server);
    let from = |job: &str, of: u32, attempt: u32| {
        let checkpoint = Some(json!({"http_location": format!("{}/jobs/{job}", server.url), "attempt": of}));
        far.all(Start { checkpoint, attempt, ..start("t") })
    };
    assert_eq!(from("good", 1, 1).await.pop().unwrap(), Said::Result(json!("first")));
    assert_eq!(from("good", 1, 2).await.pop().unwrap(), Said::Result(json!("first")));
    expect_error(&from("bad", 1, 1).await.pop().unwrap(), "remote_refused", false);
    assert!(server.asked().iter().all(|asked| asked.method != Method::POST));
    // What an earlier attempt was told is over: this one begins anew.
    assert_eq!(from("bad", 1, 2).await.pop().unwrap(), Said::Result(json!("second")));
}

#[tokio::test]
async fn a_refusal_is_quoted_and_not_tried_again() {
    let check = async |status: u16, problem: &'static str, code: &str, retryable: bool, quote: &str| {
        let server = server(move |_| body(StatusCode::from_u16(status).unwrap(), "text/plain", vec![Piece::Bytes(problem.into())])).await;
        let message = expect_error(&far(&server).last("t").await, code, retryable);
        assert!(message.contains(quote) && message.contains(&status.to_string()) && message.len() < 1200, "{status}: {message}");
    };
    check(422, r#"{"title":"Unprocessable","detail":"the task is too vague"}"#, "remote_refused", false, "the task is too vague").await;
    check(404, "", "remote_refused", false, "404").await;
    check(401, "", "auth_required", false, "401").await;
    check(429, r#"{"title":"slow down"}"#, "remote_unavailable", true, "slow down").await;
    check(500, "oops", "remote_unavailable", true, "oops").await;
    check(503, Box::leak("x".repeat(500_000).into_boxed_str()), "remote_unavailable", true, "503").await;
    // What repeats our secret is not passed on.
    check(400, "you sent Bearer s3cret-token", "remote_refused", false, "you sent …").await;
}

#[tokio::test]
async fn what_cannot_be_reached_is_tried_again() {
    expect_error(&Far::new(&nobody().await, "post").last("t").await, "remote_unreachable", true);
    let cut = server(|_| body(StatusCode::OK, "text/plain", vec![Piece::Bytes("half".into()), Piece::Break])).await;
    expect_error(&far(&cut).last("t").await, "remote_unreachable", true);
    let http = HttpLimits { idle: Duration::from_millis(50), ..quick().http };
    let stuck = server(|_| body(StatusCode::OK, "text/plain", vec![Piece::Bytes("half".into()), Piece::Hang])).await;
    let far = Far::with(&stuck.url, "post", "", Limits { http, ..quick() });
    expect_error(&far.last("t").await, "remote_unreachable", true);
    let silent = Server::start(|_, _| never().boxed()).await;
    let far = Far::with(&silent.url, "post", "silent = \"100ms\"", quick());
    expect_error(&far.last("t").await, "agent_silent", true);
}

#[tokio::test]
async fn an_agent_that_is_gone_for_long_while_it_is_asked_is_one_failed_attempt() {
    let server = server(|asked| if asked.method == Method::POST { accepted("/jobs/7") } else { json_answer(502, &json!({})) }).await;
    let http = HttpLimits { failures_max: 3, ..quick().http };
    let far = Far::with(&server.url, "post", "", Limits { http, ..quick() });
    expect_error(&far.last("t").await, "remote_unavailable", true);
    assert_eq!(server.asked().len(), 4);
}

#[tokio::test]
async fn answers_have_a_limit_and_make_sense() {
    let check = async |answer: fn() -> Response, code: &str| {
        let server = server(move |_| answer()).await;
        expect_error(&far(&server).last("t").await, code, false)
    };
    check(|| flood("application/json", vec![b'1'; 4096]), "result_too_large").await;
    check(|| body(StatusCode::OK, "application/json", vec![Piece::Bytes("{\"a\":".into())]), "bad_message").await;
    check(|| body(StatusCode::OK, "image/png", vec![Piece::Bytes(vec![0xff, 0xfe])]), "bad_message").await;
    let message = check(|| json_answer(202, &json!({})), "bad_message").await;
    assert!(message.contains("Location"), "{message}");
}

#[tokio::test]
async fn nothing_leads_to_another_origin() {
    let other = Arc::new(server(|_| json_answer(200, &json!("stolen"))).await);
    let check = async |status: u16| {
        let elsewhere = format!("{}/jobs/7", other.url);
        let server = server(move |_| header(json_answer(status, &json!({})), "location", &elsewhere)).await;
        let message = expect_error(&far(&server).last("t").await, "remote_elsewhere", false);
        assert!(message.contains(&other.url), "{message}");
    };
    for status in [202, 301, 302, 303, 307, 308] {
        check(status).await;
    }
    let far = far(&other);
    let checkpoint = Some(json!({"http_location": "http://127.0.0.1:1/x", "attempt": 1}));
    assert_eq!(other.asked().len(), 0);
    assert_eq!(far.all(Start { checkpoint, ..start("t") }).await.pop().unwrap(), Said::Result(json!("stolen")));
}

#[tokio::test]
async fn a_cancel_ends_what_runs_elsewhere() {
    let server = server(|asked| if asked.method == Method::POST { accepted("/jobs/7") } else { json_answer(202, &json!({})) }).await;
    let far = far(&server);
    let deleted = || server.asked().iter().filter(|asked| asked.method == Method::DELETE && asked.path == "/jobs/7").count();
    let mut session = far.start(start("t")).await;
    assert!(matches!(next(&mut session).await, Some(Said::Checkpoint(_))));
    session.tell.send(Tell::Cancel).await.unwrap();
    // As the runner does it: told, and dropped at once.
    drop(session);
    eventually("the operation is ended", || deleted() == 1).await;
    // Told and held: it says so.
    let mut session = far.start(start("t")).await;
    assert!(matches!(next(&mut session).await, Some(Said::Checkpoint(_))));
    session.tell.send(Tell::Cancel).await.unwrap();
    expect_error(&all(&mut session).await.pop().unwrap(), "cancelled", false);
    assert_eq!(deleted(), 2);
}

#[tokio::test]
async fn a_cancel_during_the_post_ends_what_it_began() {
    let gate = Arc::new(tokio::sync::Notify::new());
    let opened = Arc::clone(&gate);
    let server = Server::start(move |asked, _| {
        let opened = Arc::clone(&opened);
        async move {
            if asked.method == Method::POST {
                opened.notified().await;
                return accepted("/jobs/7");
            }
            json_answer(200, &json!({}))
        }
        .boxed()
    })
    .await;
    let limits = Limits { grace: Duration::from_secs(30), ..quick() };
    let session = Far::with(&server.url, "post", "", limits).start(start("t")).await;
    eventually("it was posted", || server.asked().len() == 1).await;
    session.tell.send(Tell::Cancel).await.unwrap();
    drop(session);
    gate.notify_one();
    eventually("the operation is ended", || server.asked().iter().any(|asked| asked.method == Method::DELETE)).await;
}

#[tokio::test]
async fn a_drop_alone_ends_nothing_elsewhere() {
    let server = server(|asked| if asked.method == Method::POST { accepted("/jobs/7") } else { json_answer(202, &json!({})) }).await;
    let far = far(&server);
    let mut session = far.start(start("t")).await;
    assert!(matches!(next(&mut session).await, Some(Said::Checkpoint(_))));
    drop(session.guard);
    // It asks no more, without a word.
    assert_eq!(session.said.recv().await, None);
    assert!(server.asked().iter().all(|asked| asked.method != Method::DELETE));
}
