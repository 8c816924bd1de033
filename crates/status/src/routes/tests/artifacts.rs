//! What a task made: listed, given, and given to nobody else.

use std::io::Cursor;

use axum::body::Body;
use fte_artifacts::Kept;
use fte_events::{ResultKind, Status, TaskId};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::Fixture;
use crate::Config;
use crate::test_support::History;

fn old_task() -> TaskId {
    TaskId::mint(Timestamp::now() - SignedDuration::from_secs(60), fastrand::u128(..))
}

fn artifact(kept: Kept, name: &str, content_type: &str) -> Value {
    let sha256 = kept.digest.to_string();
    json!({"name": name, "content_type": content_type, "size_bytes": kept.size, "uri": format!("artifact:sha256/{sha256}"), "sha256": sha256})
}

fn naming(history: History, artifact: &Value) -> History {
    history.step_with(Status::Running, |event| drop(event.details.insert("artifact".to_owned(), artifact.clone())))
}

async fn keep(status: &Fixture, content: &[u8]) -> Kept {
    status.artifacts.keep(Cursor::new(content.to_vec()), 1 << 20).await.unwrap()
}

/// A task of the usual tenant that has made one artifact.
async fn made(status: &Fixture, content: &[u8], name: &str, content_type: &str) -> (String, Kept) {
    let kept = keep(status, content).await;
    let history = naming(History::of(old_task()).requested("make"), &artifact(kept, name, content_type));
    let path = format!("/v1/tasks/{}/artifacts", history.task);
    status.record(history.events).await;
    (path, kept)
}

fn header<'r>(response: &'r Response<Body>, name: &str) -> Option<&'r str> {
    response.headers().get(name).map(|value| value.to_str().unwrap())
}

async fn bytes(response: Response<Body>) -> Result<Vec<u8>, axum::Error> {
    response.into_body().collect().await.map(|whole| whole.to_bytes().to_vec())
}

#[tokio::test]
async fn an_artifact_is_listed_and_given_by_name_and_by_digest() {
    let status = Fixture::start().await;
    let (path, kept) = made(&status, b"# Report", "report ü.md", "text/markdown").await;
    let sha256 = kept.digest.to_string();
    let listed = status.get(&path).await.expect(200);
    let expected = json!({"items": [{
        "name": "report ü.md", "content_type": "text/markdown", "size_bytes": 8, "sha256": sha256,
        "uri": format!("artifact:sha256/{sha256}"), "href": format!("{path}/{sha256}"),
    }]});
    assert_eq!(listed, expected);
    for (wanted, cache) in [("report%20%C3%BC.md", "private, no-cache"), (sha256.as_str(), "private, max-age=31536000, immutable")] {
        let response = status.open(&format!("{path}/{wanted}"), &[]).await;
        assert_eq!(response.status(), 200);
        for (name, value) in [
            ("content-type", "text/markdown; charset=utf-8"),
            ("x-content-type-options", "nosniff"),
            ("content-security-policy", "sandbox; default-src 'none'"),
            ("cross-origin-resource-policy", "same-origin"),
            ("content-disposition", "attachment; filename*=UTF-8''report%20%C3%BC.md"),
            ("etag", &format!("\"{sha256}\"")),
            ("cache-control", cache),
            ("accept-ranges", "bytes"),
            ("content-length", "8"),
        ] {
            assert_eq!(header(&response, name), Some(value), "{name}");
        }
        assert_eq!(bytes(response).await.unwrap(), b"# Report");
    }
}

#[tokio::test]
async fn what_is_known_is_not_sent_again_and_parts_are_sent_alone() {
    let status = Fixture::start().await;
    let (path, kept) = made(&status, b"0123456789", "digits.txt", "text/plain").await;
    let (one, tag) = (format!("{path}/digits.txt"), format!("\"{}\"", kept.digest));
    let known = status.open(&one, &[("if-none-match", &tag)]).await;
    assert_eq!((known.status().as_u16(), header(&known, "etag")), (304, Some(tag.as_str())));
    assert!(bytes(known).await.unwrap().is_empty());

    let part = status.open(&one, &[("range", "bytes=2-4")]).await;
    assert_eq!(
        (part.status().as_u16(), header(&part, "content-range"), header(&part, "content-length")),
        (206, Some("bytes 2-4/10"), Some("3"))
    );
    assert_eq!(bytes(part).await.unwrap(), b"234");
    let beyond = status.open(&one, &[("range", "bytes=10-")]).await;
    assert_eq!((beyond.status().as_u16(), header(&beyond, "content-range")), (416, Some("bytes */10")));

    let head = Request::head(&one).body(Body::empty()).unwrap();
    let head = status.api.clone().oneshot(head).await.unwrap();
    assert_eq!((head.status().as_u16(), header(&head, "content-length")), (200, Some("10")));
    assert!(bytes(head).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_page_of_an_agent_is_saved_and_never_shown() {
    let status = Fixture::start().await;
    for (name, content_type) in [("x.html", "text/html"), ("x.svg", "image/svg+xml"), ("x", "text/html; charset=\u{7f}")] {
        let (path, _) = made(&status, b"<script>alert(1)</script>", name, content_type).await;
        let response = status.open(&format!("{path}/{name}"), &[]).await;
        assert_eq!(header(&response, "content-type"), Some("application/octet-stream"));
        assert!(header(&response, "content-disposition").unwrap().starts_with("attachment;"));
    }
    let (path, _) = made(&status, b"text", "x.txt", "text/plain").await;
    let response = status.open(&format!("{path}/x.txt"), &[]).await;
    assert!(header(&response, "content-disposition").unwrap().starts_with("inline;"));
}

#[tokio::test]
async fn only_the_tasks_own_are_given_and_only_to_who_sees_the_task() {
    let status = Fixture::start().await;
    let kept = keep(&status, b"secret").await;
    let history = naming(History::of(old_task()).requested("make"), &artifact(kept, "s.txt", "text/plain"));
    let history = history.of_tenant("acme");
    let (others_path, _) = made(&status, b"mine", "m.txt", "text/plain").await;
    let (path, unknown) = (format!("/v1/tasks/{}/artifacts", history.task), old_task());
    let task = history.task;
    status.record(history.events).await;
    let (acme, other) = (status.called_by("a", Some("acme")), status.called_by("b", Some("default")));
    assert_eq!(acme.get(&path).await.expect(200)["items"].as_array().unwrap().len(), 1);
    assert_eq!(acme.get(&format!("{path}/s.txt")).await.body, "secret");
    for wanted in [String::new(), "/s.txt".to_owned(), format!("/{}", kept.digest)] {
        let theirs = other.get(&format!("{path}{wanted}")).await.expect(404).to_string();
        let nobodys = other.get(&format!("/v1/tasks/{unknown}/artifacts{wanted}")).await.expect(404).to_string();
        assert_eq!(theirs.replace(&task.to_string(), "ID"), nobodys.replace(&unknown.to_string(), "ID"));
    }
    // The store has it, but this task did not make it.
    other.get(&format!("{others_path}/{}", kept.digest)).await.expect_code(404, "artifact_not_found");
    other.get(&format!("{others_path}/s.txt")).await.expect_code(404, "artifact_not_found");
    other.get(&format!("{others_path}/..%2F..%2Fstatus.sqlite")).await.expect_code(404, "artifact_not_found");
}

#[tokio::test]
async fn of_two_with_one_name_the_last_made_is_under_it_in_whatever_order_the_events_come() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let status = Fixture::start().await;
        let (first, last) = (keep(&status, b"first").await, keep(&status, b"last").await);
        let history = naming(History::of(old_task()), &artifact(first, "a.txt", "text/plain"));
        let history = naming(history, &artifact(last, "a.txt", "text/plain")).ended(ResultKind::Completed);
        let path = format!("/v1/tasks/{}/artifacts", history.task);
        for place in order {
            status.record([history.events[place].clone()]).await;
        }
        let listed = status.get(&path).await.expect(200);
        assert_eq!(
            listed["items"].as_array().unwrap().iter().map(|item| item["sha256"].as_str().unwrap().to_owned()).collect::<Vec<_>>(),
            [last.digest.to_string(), first.digest.to_string()]
        );
        assert_eq!(status.get(&format!("{path}/a.txt")).await.body, "last");
        assert_eq!(status.get(&format!("{path}/{}", first.digest)).await.body, "first");
    }
}

#[tokio::test]
async fn the_result_names_them_too_and_the_task_says_where_they_are() {
    let status = Fixture::start().await;
    let kept = keep(&status, b"made").await;
    let named = artifact(kept, "made.txt", "text/plain");
    let mut result = fte_events::sample::task_result(ResultKind::Completed);
    let elsewhere = json!({"name": "e", "content_type": "x/y", "size_bytes": 1, "sha256": "00", "uri": "https://elsewhere/e"});
    result.artifacts = vec![serde_json::from_value(named.clone()).unwrap(), serde_json::from_value(elsewhere.clone()).unwrap()];
    let history = History::of(old_task()).requested("make");
    result.task_id = history.task;
    let (task, history) = (history.task, history.say("runner", fte_events::EventName::Result, &result));
    status.record(history.events).await;
    let shown = status.get(&format!("/v1/tasks/{task}")).await.expect(200);
    let mut with_href = named.clone();
    with_href["href"] = json!(format!("/v1/tasks/{task}/artifacts/{}", kept.digest));
    assert_eq!(shown["artifacts"], json!([with_href, elsewhere]));
    assert_eq!(
        status.get(&format!("/v1/tasks/{task}/result")).await.expect(200)["artifacts"],
        json!([named, elsewhere]),
        "an event stays as it is"
    );
    assert_eq!(status.get(with_href["href"].as_str().unwrap()).await.body, "made");
}

#[tokio::test]
async fn what_is_damaged_breaks_off_and_what_is_gone_is_missing() {
    let status = Fixture::start().await;
    let content = vec![7; 300 << 10];
    let (path, kept) = made(&status, &content, "large.bin", "application/octet-stream").await;
    let one = format!("{path}/large.bin");
    assert_eq!(status.get(&one).await.body, content);
    let shelf = status.dir.join("data/artifacts/sha256").join(&kept.digest.to_string()[..2]);
    let file = std::fs::read_dir(shelf).unwrap().next().unwrap().unwrap().path();
    let mut damaged = content.clone();
    damaged[1000] ^= 1;
    std::fs::write(&file, &damaged).unwrap();
    for range in ["bytes=0-", "bytes=0-10"] {
        let response = status.open(&one, &[("range", range)]).await;
        assert_eq!(response.status(), 206);
        assert!(bytes(response).await.is_err(), "{range}");
    }
    std::fs::write(&file, b"short").unwrap();
    status.get(&one).await.expect_code(500, "artifact_damaged");
    std::fs::remove_file(&file).unwrap();
    status.get(&one).await.expect_code(404, "artifact_missing");
    let head = Request::head(&one).body(Body::empty()).unwrap();
    assert_eq!(status.api.clone().oneshot(head).await.unwrap().status(), 404);
    std::fs::remove_dir_all(status.dir.join("data")).unwrap();
    let problem = status.get(&one).await.expect(503);
    assert_eq!(problem["code"], "artifacts_unavailable");
    assert!(problem["detail"].as_str().unwrap().contains("FTE_ARTIFACTS"), "{problem}");
}

#[tokio::test]
async fn so_many_read_at_a_time() {
    let status = Fixture::with(Config::default()).await;
    let (path, _) = made(&status, &vec![7; 1 << 20], "large.bin", "application/octet-stream").await;
    let one = format!("{path}/large.bin");
    let mut open = Vec::new();
    for _ in 0..64 {
        open.push(status.open(&one, &[]).await);
    }
    assert!(open.iter().all(|response| response.status() == 200));
    status.get(&one).await.expect_code(503, "too_many_downloads");
    drop(open);
    fte_testkit::eventually(|| async {
        let answer = status.get(&one).await;
        if answer.status == 200 { Ok(()) } else { Err(answer.status) }
    })
    .await;
}
