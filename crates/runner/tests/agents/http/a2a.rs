//! A2A 1.0, `protocol = "a2a"`.

use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use fte_runner::agents::{HttpLimits, Limits};
use fte_runner::ports::{Said, Session, Start, Tell};
use futures_util::FutureExt as _;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::server::{Asked, Piece, Server, body, event, events, failure, flood, header, json_answer, never, result};
use super::{Far, SECRET, artifacts, nobody, quick};
use crate::support::{all, eventually, expect_error, next, start, yes};

/// A card that offers the calls of this server.
fn card(url: &str, streaming: bool) -> Value {
    json!({
        "name": "far", "version": "1", "capabilities": {"streaming": streaming},
        "supportedInterfaces": [
            {"url": "grpc://elsewhere", "protocolBinding": "GRPC", "protocolVersion": "1.0"},
            {"url": format!("{url}/rpc"), "protocolBinding": "JSONRPC", "protocolVersion": "1.0"},
        ],
    })
}

fn is_card(asked: &Asked) -> bool {
    asked.path.ends_with("/.well-known/agent-card.json")
}

/// An agent that streams, or does not, and answers calls so.
async fn agent(streaming: bool, answer: impl Fn(&Asked, &str) -> Response + Send + Sync + 'static) -> Server {
    Server::start(move |asked, url| {
        let answer = if is_card(&asked) { json_answer(200, &card(&url, streaming)) } else { answer(&asked, &url) };
        async move { answer }.boxed()
    })
    .await
}

fn far(server: &Server) -> Far {
    Far::new(&server.url, "a2a")
}

fn status(state: &str, words: &str) -> Value {
    let mut status = json!({"state": format!("TASK_STATE_{state}")});
    if !words.is_empty() {
        status["message"] = json!({"messageId": format!("m-{words}"), "role": "ROLE_AGENT", "parts": [{"text": words}]});
    }
    status
}

fn task(state: &str, words: &str) -> Value {
    json!({"id": "t-1", "contextId": "c-1", "status": status(state, words)})
}

fn with_artifact(mut task: Value, text: &str) -> Value {
    task["artifacts"] = json!([{"artifactId": "note", "name": "note.md", "parts": [{"text": text}]}]);
    task
}

fn update(state: &str, words: &str) -> Value {
    json!({"statusUpdate": {"taskId": "t-1", "contextId": "c-1", "status": status(state, words)}})
}

fn made(id: &str, parts: &Value) -> Value {
    let artifact = json!({"artifactId": id, "name": id, "parts": parts});
    json!({"artifactUpdate": {"taskId": "t-1", "contextId": "c-1", "artifact": artifact, "lastChunk": true}})
}

fn stage(name: &str) -> Said {
    Said::Stage(name.to_owned())
}

fn progress(words: &str) -> Said {
    Said::Progress { pct: None, message: Some(words.to_owned()) }
}

fn checkpoint(attempt: u32) -> Said {
    Said::Checkpoint(json!({"a2a_task": "t-1", "attempt": attempt}))
}

/// Told so, and dropped at once, as the runner does it.
async fn tell_and_drop(session: Session, word: Tell) {
    session.tell.send(word).await.unwrap();
    drop(session);
}

async fn until(session: &mut Session, word: &Said) {
    while next(session).await.expect("more to come") != *word {}
}

#[tokio::test]
async fn a_stream_is_followed_to_its_result() {
    let server = agent(true, |asked, url| {
        if asked.path == "/files/far.bin" {
            return body(StatusCode::OK, "application/x-far", vec![Piece::Bytes(vec![7; 100_000])]);
        }
        let mut telling = update("WORKING", "writing");
        telling["statusUpdate"]["metadata"] = json!({"stage": "draft", "progress_pct": 40});
        events(vec![
            Piece::Bytes(": a comment\n\nevent: x\nid: 7\n".into()),
            event(&json!({"task": task("SUBMITTED", "")})),
            event(&update("WORKING", "reading")),
            event(&telling),
            event(&made("note", &json!([{"text": "# Note"}, {"data": {"a": 1}}, {"raw": "AQI=", "filename": "../two.bin"}]))),
            event(&made("far", &json!([{"url": format!("{url}/files/far.bin")}, {"url": "/files/far.bin", "mediaType": "text/plain"}]))),
            event(&update("COMPLETED", "done")),
        ])
    })
    .await;
    let far = far(&server);
    let context = json!({"colour": "blue"}).as_object().cloned().unwrap();
    let asked = Start { context, ..start("write") };
    let said = far.all(asked.clone()).await;
    let reports = [checkpoint(1), stage("submitted"), stage("working"), progress("reading"), stage("draft")];
    assert_eq!(said[..5], reports);
    assert_eq!(said[5], Said::Progress { pct: Some(40), message: Some("writing".to_owned()) });
    assert_eq!(said.last(), Some(&Said::Result(json!("done"))));
    assert_eq!(said.len(), 12, "{said:?}");
    let kept: Vec<(String, String, Vec<u8>)> = artifacts(&said)
        .into_iter()
        .map(|said| match said {
            Said::Artifact(artifact) => (artifact.name.clone(), artifact.content_type.clone(), far.kept(said)),
            other => panic!("{other:?}"),
        })
        .collect();
    let expect = |name: &str, media: &str, content: &[u8]| (name.to_owned(), media.to_owned(), content.to_vec());
    assert_eq!(kept[0], expect("note", "text/plain", b"# Note"));
    assert_eq!(kept[1], expect("note-2", "application/json", b"{\"a\":1}"));
    assert_eq!(kept[2], expect(".._two.bin", "application/octet-stream", &[1, 2]));
    assert_eq!(kept[3], expect("far", "application/x-far", &[7; 100_000]));
    assert_eq!(kept[4], expect("far-2", "text/plain", &[7; 100_000]));

    // Everything was asked with what is needed, and the same start says the same message.
    assert!(server.asked().iter().all(|asked| asked.headers["authorization"] == format!("Bearer {SECRET}")));
    far.all(asked.clone()).await;
    far.all(Start { attempt: 2, ..asked.clone() }).await;
    let sent: Vec<Value> = server.calls("SendStreamingMessage").iter().map(|asked| asked.body["params"]["message"].clone()).collect();
    assert_eq!(server.calls("SendStreamingMessage")[0].headers["a2a-version"], "1.0");
    assert_eq!(sent[0], sent[1]);
    assert_ne!(sent[0]["messageId"], sent[2]["messageId"]);
    assert_eq!(sent[0]["parts"], json!([{"text": "write"}, {"data": {"context": {"colour": "blue"}}}]));
    assert_eq!(sent[0]["metadata"], json!({"fte_task_id": asked.task_id.to_string(), "fte_attempt": 1}));
}

#[tokio::test]
async fn an_agent_that_does_not_stream_is_asked() {
    let server = agent(false, |asked, _| match (asked.call(), asked.nth) {
        ("SendMessage", _) => result(&json!({"task": task("SUBMITTED", "")})),
        ("GetTask", 0) => result(&task("WORKING", "reading")),
        ("GetTask", 1) => failure(-32603, "a moment, please"),
        _ => result(&with_artifact(task("COMPLETED", ""), "# Note")),
    })
    .await;
    let said = far(&server).all(start("t")).await;
    assert_eq!(said[..4], [checkpoint(1), stage("submitted"), stage("working"), progress("reading")]);
    assert_eq!(artifacts(&said).len(), 1);
    // It says nothing at its end: what it made is the result.
    assert_eq!(said.last(), Some(&Said::Result(json!("# Note"))));
    assert_eq!(server.calls("SendMessage")[0].body["params"]["configuration"], json!({"historyLength": 0, "returnImmediately": true}));
}

#[tokio::test]
async fn an_answer_without_a_task_is_the_result() {
    let message = json!({"message": {"messageId": "m", "role": "ROLE_AGENT", "parts": [{"data": {"sum": 3}}]}});
    let other = message.clone();
    let server = agent(false, move |_, _| result(&message)).await;
    assert_eq!(far(&server).all(start("t")).await, [Said::Result(json!({"sum": 3}))]);
    let server = agent(true, move |_, _| events(vec![event(&other)])).await;
    assert_eq!(far(&server).all(start("t")).await, [Said::Result(json!({"sum": 3}))]);
}

/// Asks until it is answered.
fn asking(asked: &Asked, _: &str) -> Response {
    let answer = &asked.body["params"]["message"]["taskId"];
    match (asked.call(), answer.as_str()) {
        ("SendMessage", None) | ("GetTask", _) => result(&json!({"task": task("INPUT_REQUIRED", "may I?")})["task"].clone()),
        _ => result(&json!({"task": task("COMPLETED", "thanks")})),
    }
}

async fn asker() -> Server {
    agent(false, |asked, url| {
        if asked.call() == "SendMessage" && asked.body["params"]["message"]["taskId"].is_null() {
            return result(&json!({"task": task("INPUT_REQUIRED", "may I?")}));
        }
        asking(asked, url)
    })
    .await
}

#[tokio::test]
async fn a_question_is_put_to_a_person_and_the_answer_sent() {
    let server = asker().await;
    let far = far(&server);
    let asked = start("t");
    let mut session = far.start(asked.clone()).await;
    assert_eq!(next(&mut session).await, Some(checkpoint(1)));
    let question = next(&mut session).await.unwrap();
    let data = json!({"a2a_task": "t-1", "question": "m-may I?", "details": null});
    assert_eq!(question, Said::Approval { action: None, reason: Some("may I?".to_owned()), data: Some(data) });
    // Parked: nothing ends elsewhere. Started again it asks the same, and begins no second task.
    drop(session);
    let mut session = far.start(Start { checkpoint: Some(json!({"a2a_task": "t-1", "attempt": 1})), ..asked }).await;
    assert_eq!(next(&mut session).await, Some(checkpoint(1)));
    assert_eq!(next(&mut session).await, Some(question));
    session.tell.send(yes()).await.unwrap();
    // The answer is where it belongs: the checkpoint is said again.
    assert_eq!(all(&mut session).await, [checkpoint(1), Said::Result(json!("thanks"))]);
    let sent = server.calls("SendMessage");
    assert_eq!((sent.len(), server.calls("CancelTask").len()), (2, 0));
    let message = &sent[1].body["params"]["message"];
    assert_eq!((&message["taskId"], &message["contextId"]), (&json!("t-1"), &json!("c-1")));
    assert_eq!(message["parts"], json!([{"text": "fine"}, {"data": {"approved": true, "reason": "fine"}}]));
}

#[tokio::test]
async fn an_answer_that_was_lost_is_sent_again_under_the_same_id() {
    let server = agent(true, |asked, _| {
        let answers = !asked.body["params"]["message"]["taskId"].is_null();
        match asked.call() {
            "SendStreamingMessage" if !answers => events(vec![event(&json!({"task": task("INPUT_REQUIRED", "may I?")}))]),
            "SendStreamingMessage" if asked.nth == 1 => body(StatusCode::OK, "text/event-stream", vec![Piece::Break]),
            "SendStreamingMessage" => events(vec![event(&json!({"task": task("WORKING", "")})), event(&update("COMPLETED", "thanks"))]),
            _ => result(&task("INPUT_REQUIRED", "may I?")),
        }
    })
    .await;
    let far = far(&server);
    let mut session = far.start(start("t")).await;
    while !matches!(next(&mut session).await, Some(Said::Approval { .. })) {}
    session.tell.send(yes()).await.unwrap();
    assert_eq!(all(&mut session).await.pop(), Some(Said::Result(json!("thanks"))));
    let sent = server.calls("SendStreamingMessage");
    assert_eq!(sent.len(), 3);
    assert_eq!(sent[1].body["params"]["message"], sent[2].body["params"]["message"]);
}

#[tokio::test]
async fn a_start_after_a_restart_follows_the_task_that_is_there() {
    let check = async |state: &'static str, of: u32, attempt: u32| {
        let server = agent(false, move |asked, _| match asked.call() {
            "GetTask" if state == "GONE" => failure(-32001, "no such task"),
            "GetTask" => result(&task(state, "first")),
            _ => result(&json!({"task": task("COMPLETED", "second")})),
        })
        .await;
        let checkpoint = Some(json!({"a2a_task": "t-1", "attempt": of}));
        let last = far(&server).all(Start { checkpoint, attempt, ..start("t") }).await.pop().unwrap();
        (last, server.calls("SendMessage").len())
    };
    let first = Said::Result(json!("first"));
    assert_eq!(check("COMPLETED", 1, 1).await, (first.clone(), 0));
    assert_eq!(check("COMPLETED", 1, 2).await, (first, 0));
    let (failed, sent) = check("FAILED", 1, 1).await;
    expect_error(&failed, "remote_failed", false);
    let (forgotten, sent_too) = check("GONE", 1, 1).await;
    expect_error(&forgotten, "remote_forgot", true);
    assert_eq!((sent, sent_too), (0, 0));
    // What an earlier attempt began has ended badly: this one begins anew.
    let second = Said::Result(json!("second"));
    assert_eq!(check("FAILED", 1, 2).await, (second.clone(), 1));
    assert_eq!(check("GONE", 1, 2).await, (second, 1));
}

#[tokio::test]
async fn a_broken_stream_is_taken_up_again_and_nothing_is_doubled() {
    let check = async |broken: Piece, limits: Limits| {
        let server = agent(true, move |asked, _| match asked.call() {
            "SendStreamingMessage" => events(vec![
                event(&json!({"task": task("WORKING", "reading")})),
                event(&made("note", &json!([{"text": "# Note"}]))),
                broken.clone(),
            ]),
            "GetTask" => {
                let mut whole = with_artifact(task("WORKING", "reading"), "# Note");
                whole["artifacts"][0]["name"] = json!("note");
                result(&whole)
            }
            "SubscribeToTask" => events(vec![
                event(&json!({"task": with_artifact(task("WORKING", "reading"), "# Note")})),
                event(&update("WORKING", "writing")),
                event(&update("COMPLETED", "done")),
            ]),
            _ => failure(-32601, "no such method"),
        })
        .await;
        let said = Far::with(&server.url, "a2a", "", limits).all(start("t")).await;
        assert_eq!(said[..3], [checkpoint(1), stage("working"), progress("reading")]);
        assert!(matches!(said[3], Said::Artifact(_)));
        assert_eq!(said[4..], [progress("writing"), Said::Result(json!("done"))]);
        assert_eq!((server.calls("SendStreamingMessage").len(), server.calls("SubscribeToTask").len()), (1, 1));
    };
    check(Piece::Break, quick()).await;
    // The middle of an event.
    check(Piece::Bytes("data: {\"jsonrpc\":\"2.0\",".into()), quick()).await;
    let http = HttpLimits { idle: Duration::from_secs(3), ..quick().http };
    check(Piece::Hang, Limits { http, ..quick() }).await;
}

#[tokio::test]
async fn what_cannot_be_reached_or_does_not_answer_is_tried_again() {
    expect_error(&Far::new(&nobody().await, "a2a").last("t").await, "remote_unreachable", true);
    let http = HttpLimits { answer: Duration::from_millis(100), ..quick().http };
    let silent = Server::start(|_, _| never().boxed()).await;
    expect_error(&Far::with(&silent.url, "a2a", "", Limits { http: http.clone(), ..quick() }).last("t").await, "remote_unreachable", true);
    let check = async |streaming: bool, code: &str| {
        let server = Server::start(move |asked, url| {
            async move { if is_card(&asked) { json_answer(200, &card(&url, streaming)) } else { never().await } }.boxed()
        })
        .await;
        // The card has its time even where the machine is busy.
        let limits = if streaming { HttpLimits { answer: Duration::from_secs(2), ..quick().http } } else { quick().http };
        let far = Far::with(&server.url, "a2a", "silent = \"200ms\"", Limits { http: limits, ..quick() });
        expect_error(&far.last("t").await, code, true);
    };
    check(true, "remote_unreachable").await;
    check(false, "agent_silent").await;
    let broken = agent(true, |_, _| events(vec![Piece::Break])).await;
    expect_error(&far(&broken).last("t").await, "remote_unreachable", true);
    let busy = Server::start(|_, _| async { json_answer(503, &json!({"title": "busy"})) }.boxed()).await;
    assert!(expect_error(&far(&busy).last("t").await, "remote_unavailable", true).contains("busy"));
}

#[tokio::test]
async fn a_card_that_offers_nothing_that_is_spoken_here_is_refused() {
    let check = async |change: fn(&mut Value), code: &str, quote: &str| {
        let server = Server::start(move |_, url| {
            let mut card = card(&url, true);
            change(&mut card);
            async move { json_answer(200, &card) }.boxed()
        })
        .await;
        let message = expect_error(&far(&server).last("t").await, code, false);
        assert!(message.contains(quote), "{message}");
        assert_eq!(server.asked().len(), 1, "nothing was sent");
    };
    check(|card| card["supportedInterfaces"][1]["protocolVersion"] = json!("2.0"), "protocol_unsupported", "JSONRPC 2.0").await;
    check(|card| card["supportedInterfaces"][1]["protocolBinding"] = json!("HTTP+JSON"), "protocol_unsupported", "HTTP+JSON 1.0").await;
    let old = |card: &mut Value| *card = json!({"name": "old", "version": "1", "url": "http://x", "protocolVersion": "0.3.0"});
    check(old, "protocol_unsupported", "0.3.0").await;
    let needy = |card: &mut Value| card["capabilities"]["extensions"] = json!([{"uri": "https://x/pay", "required": true}]);
    check(needy, "protocol_unsupported", "https://x/pay").await;
    check(|card| card["supportedInterfaces"] = json!("many"), "bad_message", "supportedInterfaces").await;
    check(|card| card["supportedInterfaces"][1]["url"] = json!("http://127.0.0.1:1/rpc"), "remote_elsewhere", "http://127.0.0.1:1/rpc")
        .await;
}

#[tokio::test]
async fn answers_that_make_no_sense_are_errors() {
    let check = async |streaming: bool, answer: fn() -> Response, code: &str, quote: &str| {
        let server = agent(streaming, move |asked, _| if asked.call() == "CancelTask" { result(&json!({})) } else { answer() }).await;
        let message = expect_error(&far(&server).last("t").await, code, false);
        assert!(message.contains(quote), "{message}");
        server
    };
    let cut = || body(StatusCode::OK, "application/json", vec![Piece::Bytes("{\"jsonrpc\":".into())]);
    check(false, cut, "bad_message", "{\"jsonrpc\":").await;
    check(false, || json_answer(200, &json!({"jsonrpc": "2.0", "id": 9, "result": {}})), "bad_message", "another question").await;
    check(false, || json_answer(200, &json!({"jsonrpc": "2.0", "id": 1})), "bad_message", "neither").await;
    check(false, || result(&json!({"tusk": {}})), "bad_message", "'task' or 'message'").await;
    check(false, || failure(-32602, "the message is too vague"), "remote_refused", "too vague").await;
    check(false, || failure(-32009, "only 2.0 here"), "protocol_unsupported", "only 2.0").await;
    check(true, || result(&json!({})), "bad_message", "instead of a stream").await;
    check(true, || events(vec![Piece::Bytes("data: rubbish\n\n".into())]), "bad_message", "rubbish").await;
    // Once the task is known, it is ended there as well.
    let begun = || event(&json!({"task": task("WORKING", "")}));
    let mut foreign = update("WORKING", "x");
    foreign["statusUpdate"]["taskId"] = json!("t-2");
    let server = agent(true, move |asked, _| match asked.call() {
        "CancelTask" => result(&task("CANCELED", "")),
        _ => events(vec![begun(), event(&foreign)]),
    })
    .await;
    assert!(expect_error(&far(&server).last("t").await, "bad_message", false).contains("t-2"));
    assert_eq!(server.called("CancelTask").await.body["params"]["id"], "t-1");
}

#[tokio::test]
async fn a_task_that_ends_twice_is_an_error_unless_it_says_the_same() {
    let check = async |second: Value| {
        let server = agent(true, move |_, _| {
            events(vec![event(&json!({"task": task("WORKING", "")})), event(&update("COMPLETED", "one")), event(&second)])
        })
        .await;
        far(&server).last("t").await
    };
    assert_eq!(check(update("COMPLETED", "one")).await, Said::Result(json!("one")));
    expect_error(&check(update("COMPLETED", "two")).await, "result_twice", false);
    expect_error(&check(update("FAILED", "one")).await, "result_twice", false);
}

#[tokio::test]
async fn everything_has_a_limit() {
    let check = async |limits: Limits, streaming: bool, answer: fn(&Asked, &str) -> Response, code: &str| {
        let server =
            agent(streaming, move |asked, url| if asked.call() == "CancelTask" { result(&json!({})) } else { answer(asked, url) }).await;
        expect_error(&Far::with(&server.url, "a2a", "", limits).last("t").await, code, false);
    };
    fn making(parts: &Value) -> Response {
        events(vec![event(&json!({"task": task("WORKING", "")})), event(&made("a", parts)), event(&update("COMPLETED", ""))])
    }
    let small = || Limits { output_bytes_max: 100_000, artifact_bytes_max: 1000, data_bytes_max: 2000, artifacts_max: 3, ..quick() };
    let event_max = |bytes: usize| Limits { http: HttpLimits { answer_bytes_max: bytes, ..quick().http }, ..small() };
    check(small(), true, |_, _| flood("text/event-stream", b": nothing but comments\n".repeat(100)), "output_too_large").await;
    check(event_max(10_000), true, |_, _| flood("text/event-stream", vec![b'x'; 4096]), "output_too_large").await;
    check(event_max(10_000), true, |_, _| flood("text/event-stream", b"data: more\n".repeat(100)), "output_too_large").await;
    check(event_max(10_000), false, |_, _| flood("application/json", vec![b'1'; 4096]), "output_too_large").await;
    check(small(), true, |_, _| making(&json!([{"text": "x".repeat(1001)}])), "artifact_too_large").await;
    fn endless(asked: &Asked, url: &str) -> Response {
        if asked.path == "/endless" { flood("text/plain", vec![b'x'; 4096]) } else { making(&json!([{"url": format!("{url}/endless")}])) }
    }
    check(small(), true, endless, "artifact_too_large").await;
    check(small(), true, |_, _| making(&json!([{"text": "a"}, {"data": 1}, {"raw": "AQI="}, {"data": 2}])), "artifacts_too_many").await;
    fn many(_: &Asked, _: &str) -> Response {
        let mut all = vec![event(&json!({"task": task("WORKING", "")}))];
        all.extend((0..4).map(|at| event(&made(&at.to_string(), &json!([])))));
        events(all)
    }
    check(small(), true, many, "artifacts_too_many").await;
    let long =
        |_: &Asked, _: &str| events(vec![event(&json!({"task": task("WORKING", "")})), event(&update("COMPLETED", &"x".repeat(3000)))]);
    check(small(), true, long, "result_too_large").await;
    let asks = |_: &Asked, _: &str| {
        let mut asking = task("INPUT_REQUIRED", "this?");
        asking["status"]["message"]["parts"] = json!([{"data": "x".repeat(3000)}]);
        events(vec![event(&json!({"task": asking}))])
    };
    check(small(), true, asks, "message_too_large").await;
}

#[tokio::test]
async fn what_does_not_fit_into_a_result_is_an_artifact() {
    let server = agent(false, |_, _| result(&json!({"task": with_artifact(task("COMPLETED", ""), &"x".repeat(3000))}))).await;
    let far = Far::with(&server.url, "a2a", "", Limits { data_bytes_max: 2000, ..quick() });
    let said = far.all(start("t")).await;
    assert_eq!(far.kept(artifacts(&said)[0]).len(), 3000);
    assert_eq!(said.last(), Some(&Said::Result(Value::Null)));
}

#[tokio::test]
async fn files_come_from_the_agents_own_origin_only() {
    let other = Server::start(|_, _| async { json_answer(200, &json!("stolen")) }.boxed()).await;
    let check = async |url: String, code: &str| {
        let server = agent(true, move |asked, _| match (asked.call(), asked.path.as_str()) {
            ("CancelTask", _) => result(&json!({})),
            (_, "/moved") => header(json_answer(302, &json!({})), "location", &url.replace("/moved", "http://127.0.0.1:1/x")),
            (_, "/missing") => json_answer(404, &json!({"title": "no such file"})),
            _ => events(vec![event(&json!({"task": task("WORKING", "")})), event(&made("a", &json!([{"url": url}])))]),
        })
        .await;
        expect_error(&far(&server).last("t").await, code, false)
    };
    check(format!("{}/x", other.url), "artifact_refused").await;
    check("file:///etc/passwd".to_owned(), "artifact_refused").await;
    check("/moved".to_owned(), "remote_elsewhere").await;
    assert!(check("/missing".to_owned(), "remote_refused").await.contains("no such file"));
    assert_eq!(other.asked().len(), 0);
    let moved = Server::start(|_, _| async { header(json_answer(301, &json!({})), "location", "http://127.0.0.1:1/card") }.boxed()).await;
    expect_error(&far(&moved).last("t").await, "remote_elsewhere", false);
}

#[tokio::test]
async fn a_login_that_is_missing_is_said() {
    let locked = Server::start(|_, _| async { json_answer(401, &json!({"detail": "who are you? not s3cret-token"})) }.boxed()).await;
    let message = expect_error(&far(&locked).last("t").await, "auth_required", false);
    assert!(message.contains("who are you? not …"), "{message}");
    let server = agent(true, |asked, _| match asked.call() {
        "CancelTask" => result(&json!({})),
        _ => events(vec![event(&json!({"task": task("AUTH_REQUIRED", "log in at https://x")}))]),
    })
    .await;
    let message = expect_error(&far(&server).last("t").await, "auth_required", false);
    assert!(message.contains("log in at https://x"), "{message}");
    server.called("CancelTask").await;
}

#[tokio::test]
async fn every_end_has_its_code() {
    let check = async |state: &'static str, code: &str| {
        let server = agent(false, move |_, _| result(&json!({"task": task(state, "because s3cret-token")}))).await;
        let message = expect_error(&far(&server).last("t").await, code, false);
        assert!(message.contains("because …"), "{message}");
    };
    check("FAILED", "remote_failed").await;
    check("REJECTED", "remote_rejected").await;
    check("CANCELED", "remote_cancelled").await;
}

/// An agent that works until it is cancelled, and lets a test open its answers to messages.
async fn worker(gate: Option<Arc<Notify>>) -> Server {
    Server::start(move |asked, url| {
        let gate = gate.clone();
        async move {
            if is_card(&asked) {
                return json_answer(200, &card(&url, true));
            }
            match (asked.call(), gate) {
                ("CancelTask", _) => result(&task("CANCELED", "")),
                (_, Some(gate)) => {
                    gate.notified().await;
                    events(vec![event(&json!({"task": task("WORKING", "")})), Piece::Hang])
                }
                _ => events(vec![event(&json!({"task": task("WORKING", "on it")})), Piece::Hang]),
            }
        }
        .boxed()
    })
    .await
}

#[tokio::test]
async fn a_cancel_ends_the_task_elsewhere() {
    let server = worker(None).await;
    let mut session = far(&server).start(start("t")).await;
    until(&mut session, &progress("on it")).await;
    tell_and_drop(session, Tell::Cancel).await;
    assert_eq!(server.called("CancelTask").await.body["params"]["id"], "t-1");
    // Told and held: it says so.
    let server = worker(None).await;
    let mut session = far(&server).start(start("t")).await;
    until(&mut session, &progress("on it")).await;
    session.tell.send(Tell::Cancel).await.unwrap();
    expect_error(&all(&mut session).await.pop().unwrap(), "cancelled", false);
    assert_eq!(server.calls("CancelTask").len(), 1);
}

#[tokio::test]
async fn a_cancel_before_the_agent_answers_ends_what_it_began() {
    let gate = Arc::new(Notify::new());
    let server = worker(Some(Arc::clone(&gate))).await;
    let far = Far::with(&server.url, "a2a", "", Limits { grace: Duration::from_secs(30), ..quick() });
    let session = far.start(start("t")).await;
    server.called("SendStreamingMessage").await;
    tell_and_drop(session, Tell::Cancel).await;
    assert!(server.calls("CancelTask").is_empty());
    gate.notify_one();
    server.called("CancelTask").await;
}

#[tokio::test]
async fn a_cancel_before_the_first_call_begins_nothing() {
    let server = Server::start(|_, _| never().boxed()).await;
    let mut session = far(&server).start(start("t")).await;
    session.tell.send(Tell::Cancel).await.unwrap();
    expect_error(&all(&mut session).await.pop().unwrap(), "cancelled", false);
    assert!(server.asked().iter().all(is_card));
}

#[tokio::test]
async fn a_cancel_that_nobody_answers_takes_no_longer_than_the_grace() {
    let server = Server::start(move |asked, url| {
        async move {
            match asked.call() {
                "" => json_answer(200, &card(&url, true)),
                "CancelTask" => never().await,
                _ => events(vec![event(&json!({"task": task("WORKING", "on it")})), Piece::Hang]),
            }
        }
        .boxed()
    })
    .await;
    let far = Far::with(&server.url, "a2a", "", Limits { grace: Duration::from_millis(50), ..quick() });
    let mut session = far.start(start("t")).await;
    until(&mut session, &progress("on it")).await;
    session.tell.send(Tell::Cancel).await.unwrap();
    expect_error(&all(&mut session).await.pop().unwrap(), "cancelled", false);
}

#[tokio::test]
async fn a_cancel_after_the_end_and_a_drop_end_nothing() {
    let server = agent(false, |_, _| result(&json!({"task": task("COMPLETED", "done")}))).await;
    let mut session = far(&server).start(start("t")).await;
    assert_eq!(all(&mut session).await.pop(), Some(Said::Result(json!("done"))));
    drop(session.tell.send(Tell::Cancel).await);
    drop(session);
    assert!(server.calls("CancelTask").is_empty());
    // Parked or taken over: somebody will come back to it.
    let server = worker(None).await;
    let mut session = far(&server).start(start("t")).await;
    until(&mut session, &progress("on it")).await;
    drop(session.guard);
    assert_eq!(session.said.recv().await, None);
    assert!(server.calls("CancelTask").is_empty());
}

#[tokio::test]
async fn a_no_is_sent_and_ends_the_task_elsewhere() {
    let server = asker().await;
    let mut session = far(&server).start(start("t")).await;
    while !matches!(next(&mut session).await, Some(Said::Approval { .. })) {}
    tell_and_drop(session, Tell::Decision { approved: false, reason: None, data: None }).await;
    server.called("CancelTask").await;
    let sent = server.calls("SendMessage");
    assert_eq!(sent[1].body["params"]["message"]["parts"], json!([{"text": "rejected"}, {"data": {"approved": false, "reason": null}}]));
}

#[tokio::test]
async fn an_agent_that_waits_for_a_person_can_be_cancelled() {
    let server = asker().await;
    let mut session = far(&server).start(start("t")).await;
    while !matches!(next(&mut session).await, Some(Said::Approval { .. })) {}
    let asked = server.asked().len();
    tell_and_drop(session, Tell::Cancel).await;
    server.called("CancelTask").await;
    eventually("nothing else was said", || server.asked().len() == asked + 1).await;
}
