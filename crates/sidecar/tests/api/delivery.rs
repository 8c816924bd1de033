//! Order, concurrency and shape of deliveries.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::sync::Semaphore;

use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn order_holds_within_a_key() {
    let app = App::start(json!([subscription("t")])).await;
    let daprd = Daprd::beside(&app).await;
    for key in ["a", "b", "c"] {
        daprd.publish_numbers("t", key, 0, 20).await;
    }
    let calls = app.wait_calls(60).await;
    for key in ["a", "b", "c"] {
        let data: Vec<_> = calls.iter().filter(|call| call.header("__key") == key).map(|call| call.json()["data"].clone()).collect();
        assert_eq!(data, numbers(20));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bulk_deliveries_keep_order_and_never_mix_partitions() {
    let app = App::start(json!([bulk("t", 7)])).await;
    app.answer(|call| Reply::bulk(call, |_| "SUCCESS"));
    let daprd = Daprd::beside(&app).await;
    for key in ["a", "b", "c", "d"] {
        daprd.publish_numbers("t", key, 0, 50).await;
    }
    app.wait_data(200).await;
    let mut by_key = std::collections::HashMap::<String, Vec<_>>::new();
    for call in app.calls() {
        let json = call.json();
        assert_eq!(json["type"], "com.dapr.event.sent.bulk");
        assert_eq!(json["topic"], "t");
        let entries = json["entries"].as_array().unwrap();
        assert!(entries.len() <= 7);
        let partition = &entries[0]["metadata"]["__partition"];
        let mut last = None;
        for (index, entry) in entries.iter().enumerate() {
            assert_eq!(entry["entryId"], index.to_string());
            assert_eq!(&entry["metadata"]["__partition"], partition);
            assert_eq!(entry["contentType"], "application/cloudevents+json");
            let offset: u64 = entry["metadata"]["__offset"].as_str().unwrap().parse().unwrap();
            assert!(last.is_none_or(|last| offset == last + 1));
            last = Some(offset);
            let key = entry["metadata"]["__key"].as_str().unwrap();
            by_key.entry(key.to_owned()).or_default().push(entry["event"]["data"].clone());
        }
    }
    for data in by_key.values() {
        assert_eq!(data, &numbers(50));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_delivery_holds_only_its_partition() {
    let app = App::start(json!([subscription("t")])).await;
    let gate = Arc::new(Semaphore::new(0));
    app.answer_later({
        let gate = gate.clone();
        move |call| {
            let gate = gate.clone();
            Box::pin(async move {
                if call.json()["data"] == "held" {
                    drop(gate.acquire().await);
                }
                Reply::ok()
            })
        }
    });
    let daprd = Daprd::beside(&app).await;
    let publish = async |partition: u16, data: &str| {
        daprd.post(&format!("/v1.0/publish/pubsub/t?metadata.partitionNumber={partition}"), &json!(data)).await.expect(204);
    };
    publish(0, "held").await;
    publish(0, "behind").await;
    for partition in 1..12 {
        publish(partition, "free").await;
    }
    assert_eq!(counts(&app.wait_data(12).await)["\"free\""], 11);
    assert!(!app.data().contains(&json!("behind")));
    gate.close();
    assert_eq!(counts(&app.wait_data(13).await)["\"behind\""], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn held_bulk_calls_do_not_starve_other_partitions() {
    let app = App::start(json!([bulk("t", 10)])).await;
    let gate = Arc::new(Semaphore::new(0));
    app.answer_later({
        let gate = gate.clone();
        move |call| {
            let gate = gate.clone();
            Box::pin(async move {
                drop(gate.acquire().await);
                Reply::bulk(&call, |_| "SUCCESS")
            })
        }
    });
    let daprd = Daprd::with(&app, |options| options.limits.bulk_calls_max = 2).await;
    for partition in 0..12 {
        daprd.post(&format!("/v1.0/publish/pubsub/t?metadata.partitionNumber={partition}"), &json!(partition)).await.expect(204);
    }
    // All twelve are at the app although each is held and only two young ones may be there at a time.
    app.wait_calls(12).await;
    gate.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn bulk_calls_gather_what_comes_while_they_are_out() {
    let app = App::start(json!([bulk("t", 100)])).await;
    let in_flight = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    app.answer_later({
        let (in_flight, most) = (in_flight.clone(), most.clone());
        move |call| {
            let (in_flight, most) = (in_flight.clone(), most.clone());
            Box::pin(async move {
                most.fetch_max(in_flight.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(5)).await;
                in_flight.fetch_sub(1, Ordering::SeqCst);
                Reply::bulk(&call, |_| "SUCCESS")
            })
        }
    });
    let daprd = Daprd::with(&app, |options| {
        options.limits.bulk_calls_max = 3;
        options.limits.bulk_call_young = Duration::from_secs(60);
    })
    .await;
    for round in 0..10 {
        let entries: Vec<_> = (0..120)
            .map(|n| {
                json!({"entryId": n.to_string(), "event": round * 120 + n, "contentType": "application/json",
                    "metadata": {"partitionKey": n.to_string()}})
            })
            .collect();
        daprd.post("/v1.0/publish/bulk/pubsub/t", &json!(entries)).await.expect(204);
    }
    let data = app.wait_data(1200).await;
    assert_eq!(counts(&data).len(), 1200);
    assert!(most.load(Ordering::SeqCst) <= 3);
    assert!(app.calls().len() < 600, "{} calls", app.calls().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_topics_of_one_app_have_their_own_routes() {
    let app = App::start(json!([subscription("a"), with(subscription("b"), "route", json!("/b"))])).await;
    let daprd = Daprd::beside(&app).await;
    daprd.publish("a", "k", json!("a")).await;
    daprd.publish("b/with/slashes", "k", json!("nobody")).await;
    daprd.publish("b", "k", json!("b")).await;
    let calls = app.wait_calls(2).await;
    for call in calls {
        let expected = if call.path == "/b" { "b" } else { "a" };
        assert_eq!(call.json()["data"], expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_falls_behind_memory_reads_from_disk() {
    let mut app = App::start(json!([bulk("t", 100)])).await;
    app.answer(|call| Reply::bulk(call, |_| "SUCCESS"));
    let daprd = Daprd::with(&app, |options| options.limits.tail_bytes_max = 10_000).await.ready().await;
    daprd.publish_numbers("t", "first", 0, 1).await;
    app.wait_data(1).await;
    app.down().await;
    for key in 0..40 {
        daprd.publish_numbers("t", &key.to_string(), key * 50, 50).await;
    }
    app.up().await;
    let data = app.wait_data(2001).await;
    assert_eq!(counts(&data[1..]).len(), 2000);
    daprd.publish("t", "k", json!("after")).await;
    assert_eq!(app.wait_data(2002).await[2001], "after");
}
