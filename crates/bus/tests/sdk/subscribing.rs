use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use fte_bus::{Bulk, Dedupe, Message, Outcome, PublishOptions, Publisher, Rejected, StateStore, SubscribeOptions, Subscriptions};
use fte_testkit::{Call, FakeSidecar, Fault};
use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::sidecar;

#[derive(Debug, thiserror::Error)]
#[error("no good")]
struct NoGood;

async fn post(router: &Router, path: &str, body: impl Into<Body>) -> (u16, Value) {
    let request = Request::post(path).header("content-type", "application/cloudevents+json").body(body.into()).unwrap();
    let answer = router.clone().oneshot(request).await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or_else(|_| json!(String::from_utf8_lossy(&body))))
}

fn event(id: &str) -> String {
    json!({ "specversion": "1.0", "id": id, "source": "/test", "type": "t", "data": { "n": 1 } }).to_string()
}

fn letter(rejected: &Rejected<'_>) -> Message {
    let body = json!({ "id": "letter", "code": rejected.code, "reason": rejected.reason, "attempts": rejected.attempts });
    Message { topic: "letters".into(), key: None, body: Bytes::from(body.to_string()) }
}

fn with_letters(fake: &FakeSidecar) -> Subscriptions {
    let options = PublishOptions { retry_wait: Duration::from_millis(1), ..Default::default() };
    Subscriptions::new("pubsub", "app").dead_letters(Publisher::new(sidecar(fake), "/test", options), letter)
}

#[tokio::test]
async fn each_outcome_has_its_answer() {
    let fake = FakeSidecar::start().await;
    let router = with_letters(&fake)
        .each("orders", SubscribeOptions::default(), |delivery| async move {
            match delivery.event.id.as_str() {
                "good" => Outcome::Done,
                "later" => Outcome::retry(NoGood),
                _ => Outcome::reject(NoGood),
            }
        })
        .router();
    assert_eq!(post(&router, "/events/orders", event("good")).await, (200, json!({ "status": "SUCCESS" })));
    assert_eq!(post(&router, "/events/orders", event("later")).await, (500, json!({ "status": "RETRY" })));
    assert!(fake.published().is_empty());
    assert_eq!(post(&router, "/events/orders", event("bad")).await, (200, json!({ "status": "SUCCESS" })));
    assert_eq!(fake.published()[0].json()["reason"], "no good");
    // No JSON at all: dead-lettered on first sight.
    assert_eq!(post(&router, "/events/orders", "oops").await.0, 200);
    assert_eq!(fake.published()[1].json()["code"], "unparsable");
}

#[tokio::test]
async fn a_dead_letter_that_cannot_be_published_keeps_its_event() {
    let fake = FakeSidecar::start().await;
    fake.always(Call::Publish, Some(Fault::Refuse(500)));
    let router = with_letters(&fake).each("orders", SubscribeOptions::default(), |_| async { Outcome::reject(NoGood) }).router();
    assert_eq!(post(&router, "/events/orders", event("bad")).await.0, 500);
    fake.always(Call::Publish, None);
    assert_eq!(post(&router, "/events/orders", event("bad")).await.0, 200);
    assert_eq!(fake.published().len(), 1);
}

#[tokio::test]
async fn the_fifth_crash_makes_an_event_poison_and_its_neighbours_do_not_suffer() {
    let fake = FakeSidecar::start().await;
    let handled = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&handled);
    let options = SubscribeOptions { bulk: Some(Bulk::default()), ..Default::default() };
    let router = with_letters(&fake)
        .each("orders", options, move |delivery| {
            let count = Arc::clone(&count);
            async move {
                assert_ne!(delivery.event.id, "poison", "as the test wants it");
                count.fetch_add(1, Ordering::Relaxed);
                Outcome::Done
            }
        })
        .router();
    let entry = |id: &str| format!(r#"{{"entryId":"{id}","event":{},"metadata":{{}}}}"#, event(id));
    let body = format!(r#"{{"entries":[{},{}]}}"#, entry("poison"), entry("good"));
    for attempt in 1..=5 {
        let (status, answer) = post(&router, "/events/orders", body.clone()).await;
        assert_eq!(status, 200);
        let expected = if attempt < 5 { "RETRY" } else { "SUCCESS" };
        assert_eq!(answer["statuses"], json!([{ "entryId": "poison", "status": expected }, { "entryId": "good", "status": "SUCCESS" }]));
    }
    assert_eq!(handled.load(Ordering::Relaxed), 5);
    assert_eq!(fake.published().len(), 1);
    assert_eq!(fake.published()[0].json()["attempts"], 5);
}

#[tokio::test]
async fn the_last_words_about_poison_come_before_its_dead_letter() {
    let fake = FakeSidecar::start().await;
    let said = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&said);
    let router = with_letters(&fake)
        .before_poison(move |delivery, reason| {
            assert_eq!((delivery.event.id.as_str(), reason.as_str()), ("poison", "the handler panicked"));
            let times = count.fetch_add(1, Ordering::Relaxed);
            async move { if times == 0 { Outcome::retry(NoGood) } else { Outcome::Done } }
        })
        .each("orders", SubscribeOptions::default(), |_| async { panic!("as the test wants it") })
        .router();
    for _ in 1..=4 {
        assert_eq!(post(&router, "/events/orders", event("poison")).await.0, 500);
    }
    assert_eq!(said.load(Ordering::Relaxed), 0, "it may heal until then");
    assert_eq!(post(&router, "/events/orders", event("poison")).await.0, 500, "they could not be said");
    assert!(fake.published().is_empty());
    assert_eq!(post(&router, "/events/orders", event("poison")).await.0, 200);
    assert_eq!((said.load(Ordering::Relaxed), fake.published().len()), (2, 1));
}

#[tokio::test]
async fn poison_is_put_aside_even_when_its_last_words_fail_too() {
    let fake = FakeSidecar::start().await;
    let router = with_letters(&fake)
        .before_poison(|_, _| async { panic!("as the test wants it") })
        .each("orders", SubscribeOptions::default(), |_| async { panic!("as the test wants it") })
        .router();
    for _ in 1..=9 {
        assert_eq!(post(&router, "/events/orders", event("poison")).await.0, 500);
    }
    assert_eq!(post(&router, "/events/orders", event("poison")).await.0, 200);
    assert_eq!(fake.published()[0].json()["attempts"], 10);
}

#[tokio::test]
async fn a_handler_that_hangs_is_stopped_and_counted() {
    let fake = FakeSidecar::start().await;
    let options = SubscribeOptions { handler_timeout: Duration::from_millis(1), ..Default::default() };
    let router = with_letters(&fake).each("orders", options, |_| std::future::pending()).router();
    for _ in 1..=4 {
        assert_eq!(post(&router, "/events/orders", event("slow")).await.0, 500);
    }
    assert_eq!(post(&router, "/events/orders", event("slow")).await.0, 200);
    assert!(fake.published()[0].json()["reason"].as_str().unwrap().contains("longer than 1 ms"));
}

#[tokio::test]
async fn a_replay_is_for_the_consumer_it_names() {
    let fake = FakeSidecar::start().await;
    let handled = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&handled);
    let router = with_letters(&fake)
        .each("orders", SubscribeOptions::default(), move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            async { Outcome::Done }
        })
        .router();
    let replay = |consumer: &str| json!({ "id": "1", "source": "/s", "type": "t", "ftereplay": format!("{consumer}/letter") }).to_string();
    assert_eq!(post(&router, "/events/orders", replay("other")).await.0, 200);
    assert_eq!(handled.load(Ordering::Relaxed), 0);
    assert_eq!(post(&router, "/events/orders", replay("app")).await.0, 200);
    assert_eq!(handled.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn records_arrive_whole_whatever_they_are() {
    let router =
        Subscriptions::new("pubsub", "app")
            .records("audit", SubscribeOptions::bulk(), |records| async move {
                records.iter().map(|record| record.body == "not json").collect()
            })
            .router();
    let body = r#"{"entries":[{"entryId":"0","event":"bm90IGpzb24="},{"entryId":"1","event":"b3RoZXI="}]}"#;
    let (status, answer) = post(&router, "/events/audit", body).await;
    assert_eq!(status, 200);
    assert_eq!(answer["statuses"], json!([{ "entryId": "0", "status": "SUCCESS" }, { "entryId": "1", "status": "RETRY" }]));
}

#[tokio::test]
async fn no_event_or_job_route_answers_404_and_a_wrong_token_is_401() {
    let router = Subscriptions::new("pubsub", "app").app_token(Some("secret".to_owned())).router();
    assert_eq!(post(&router, "/events/orders", event("1")).await.0, 401);
    let open = Subscriptions::new("pubsub", "app").router();
    assert_eq!(post(&open, "/events/unknown", event("1")).await.0, 500);
    assert_eq!(post(&open, "/job/unknown", "").await.0, 500);
}

#[tokio::test]
async fn a_job_is_handled_by_its_whole_name() {
    let router = Subscriptions::new("pubsub", "app")
        .on_job(|name| async move { if name == "approval-1" { Outcome::Done } else { Outcome::retry(NoGood) } })
        .router();
    assert_eq!(post(&router, "/job/approval-1", "").await.0, 200);
    assert_eq!(post(&router, "/job/other", "").await.0, 500);
}

#[tokio::test]
async fn what_was_done_before_is_not_handled_again_unless_it_is_replayed() {
    let fake = FakeSidecar::start().await;
    let handled = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&handled);
    let dedupe = Dedupe { store: StateStore::new(sidecar(&fake), "statestore"), ttl: Duration::from_secs(3600) };
    let options = SubscribeOptions { dedupe: Some(dedupe), ..Default::default() };
    let router = with_letters(&fake)
        .each("orders", options, move |_| {
            let first = count.fetch_add(1, Ordering::Relaxed) == 0;
            async move { if first { Outcome::retry(NoGood) } else { Outcome::Done } }
        })
        .router();
    assert_eq!(post(&router, "/events/orders", event("1")).await.0, 500);
    for _ in 0..3 {
        assert_eq!(post(&router, "/events/orders", event("1")).await.0, 200);
    }
    assert_eq!(handled.load(Ordering::Relaxed), 2, "once to fail, once to be done");
    let replay = json!({ "id": "1", "source": "/test", "type": "t", "ftereplay": "app/letter" }).to_string();
    assert_eq!(post(&router, "/events/orders", replay).await.0, 200);
    assert_eq!(handled.load(Ordering::Relaxed), 3);
    fake.always(Call::Read, Some(Fault::Refuse(500)));
    assert_eq!(post(&router, "/events/orders", event("2")).await.0, 500, "without marks nothing is handled");
}

#[tokio::test]
async fn of_raw_records_those_that_are_no_events_are_dead_lettered_with_a_reason() {
    use base64::Engine;
    let encoded = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let fake = FakeSidecar::start().await;
    let options = SubscribeOptions { bulk: Some(Bulk::default()), raw: true, ..SubscribeOptions::default() };
    let router = with_letters(&fake).each("orders", options, |_| async { Outcome::Done }).router();
    let request = Request::get("/dapr/subscribe").body(Body::empty()).unwrap();
    let list = router.clone().oneshot(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    let list: Value = serde_json::from_slice(&list).unwrap();
    assert_eq!(list[0]["metadata"], json!({ "rawPayload": "true" }));
    // An empty record is what a deletion on a compacted topic looks like.
    let records = [event("good"), "no JSON".to_owned(), String::new(), "{\"task\":1}".to_owned()];
    let entries = records.iter().enumerate().map(|(at, text)| json!({ "entryId": at.to_string(), "event": encoded(text) }));
    let body = json!({ "entries": entries.collect::<Vec<_>>() }).to_string();
    let request = Request::post("/events/orders").header("content-type", "application/json").body(Body::from(body)).unwrap();
    assert_eq!(router.oneshot(request).await.unwrap().status(), 200);
    let codes: Vec<_> = fake.published().iter().map(|letter| letter.json()["code"].clone()).collect();
    assert_eq!(codes, ["unparsable", "unparsable", "unparsable"]);
}
