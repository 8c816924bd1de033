//! What is counted, to the number.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use fte_bus::{Message, Outcome, PublishOptions, Publisher, Rejected, SubscribeOptions, Subscriptions};
use fte_testkit::{Call, FakeSidecar, Fault};
use http::Request;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde_json::json;
use tower::ServiceExt;

use super::sidecar;

#[derive(Debug, thiserror::Error)]
#[error("no good")]
struct NoGood;

/// One thread, so that everything that a call starts counts here and nothing else does.
fn metered(test: impl AsyncFnOnce(PrometheusHandle)) {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    metrics::with_local_recorder(&recorder, || runtime.block_on(test(handle)));
}

#[track_caller]
fn shows(handle: &PrometheusHandle, series: &[&str]) {
    let text = handle.render();
    for one in series {
        assert!(text.lines().any(|line| line == *one), "{one} is not in\n{text}");
    }
}

fn publisher(fake: &FakeSidecar) -> Publisher {
    Publisher::new(sidecar(fake), "/test", PublishOptions { retry_wait: Duration::from_millis(1), ..Default::default() })
}

fn message(id: u32) -> Message {
    Message { topic: "orders".into(), key: None, body: Bytes::from(json!({ "id": id.to_string() }).to_string()) }
}

#[test]
fn what_is_published_is_counted_once_and_each_call_is_timed() {
    metered(async |handle| {
        let fake = FakeSidecar::start().await;
        let publisher = publisher(&fake);
        publisher.send(message(0)).await.unwrap();
        fake.next(Call::Publish, [Some(Fault::Refuse(500))]);
        publisher.send(message(1)).await.unwrap();
        shows(
            &handle,
            &[
                "kf_messages_produced_total{topic=\"orders\"} 2",
                "kf_publish_retries_total{topic=\"orders\"} 1",
                "kf_produce_latency_sec_count{topic=\"orders\"} 3",
            ],
        );
    });
}

fn letter(rejected: &Rejected<'_>) -> Message {
    Message { topic: "letters".into(), key: None, body: Bytes::from(json!({ "id": "letter", "code": rejected.code }).to_string()) }
}

async fn post(router: &Router, path: &str, body: String) -> u16 {
    let request = Request::post(path).header("content-type", "application/cloudevents+json").body(Body::from(body)).unwrap();
    router.clone().oneshot(request).await.unwrap().status().as_u16()
}

fn event(id: &str) -> String {
    json!({ "specversion": "1.0", "id": id, "source": "/test", "type": "t", "data": {} }).to_string()
}

#[test]
fn each_delivery_has_one_outcome() {
    metered(async |handle| {
        let fake = FakeSidecar::start().await;
        let seen = handle.clone();
        let router = Subscriptions::new("pubsub", "app")
            .dead_letters(publisher(&fake), letter)
            .each("orders", SubscribeOptions::default(), move |delivery| {
                let seen = seen.clone();
                async move {
                    match delivery.event.id.as_str() {
                        "good" => {
                            shows(&seen, &["kf_messages_in_flight{topic=\"orders\"} 1"]);
                            Outcome::Done
                        }
                        "later" => Outcome::retry(NoGood),
                        _ => Outcome::reject(NoGood),
                    }
                }
            })
            .router();
        for (id, status) in [("good", 200), ("later", 500), ("later", 500), ("bad", 200)] {
            assert_eq!(post(&router, "/events/orders", event(id)).await, status);
        }
        assert_eq!(post(&router, "/events/orders", "oops".to_owned()).await, 200);
        let rejected_twice = [
            "kf_messages_consumed_total{topic=\"orders\",outcome=\"done\"} 1",
            "kf_messages_consumed_total{topic=\"orders\",outcome=\"reject\"} 2",
            "kf_dead_letters_total{topic=\"orders\"} 2",
            "kf_messages_in_flight{topic=\"orders\"} 0",
        ];
        shows(&handle, &rejected_twice);
        shows(&handle, &["kf_messages_consumed_total{topic=\"orders\",outcome=\"retry\"} 2"]);
        // A letter that cannot be published is no rejection yet: its event comes again.
        fake.always(Call::Publish, Some(Fault::Refuse(500)));
        assert_eq!(post(&router, "/events/orders", event("bad")).await, 500);
        shows(&handle, &rejected_twice);
        shows(&handle, &["kf_messages_consumed_total{topic=\"orders\",outcome=\"retry\"} 3"]);
    });
}

#[test]
fn each_record_of_a_batch_has_one_outcome() {
    metered(async |handle| {
        let fake = FakeSidecar::start().await;
        let router = Subscriptions::new("pubsub", "app")
            .dead_letters(publisher(&fake), letter)
            .batches("orders", SubscribeOptions::bulk(), |deliveries| async move {
                let outcome = |id: &str| match id {
                    "good" => Outcome::Done,
                    "later" => Outcome::retry(NoGood),
                    _ => Outcome::reject(NoGood),
                };
                deliveries.iter().map(|delivery| outcome(&delivery.event.id)).collect()
            })
            .router();
        let entries: Vec<_> = ["good", "bad", "later", "good"]
            .iter()
            .enumerate()
            .map(|(place, id)| {
                let event: serde_json::Value = serde_json::from_str(&event(id)).unwrap();
                json!({ "entryId": place.to_string(), "event": event, "contentType": "application/cloudevents+json" })
            })
            .collect();
        let call =
            json!({ "id": "call", "topic": "orders", "pubsubname": "pubsub", "type": "com.dapr.event.sent.bulk", "entries": entries });
        let request =
            Request::post("/events/orders").header("content-type", "application/json").body(Body::from(call.to_string())).unwrap();
        router.oneshot(request).await.unwrap();
        shows(
            &handle,
            &[
                "kf_messages_consumed_total{topic=\"orders\",outcome=\"done\"} 2",
                "kf_messages_consumed_total{topic=\"orders\",outcome=\"reject\"} 1",
                "kf_messages_consumed_total{topic=\"orders\",outcome=\"retry\"} 1",
            ],
        );
    });
}
