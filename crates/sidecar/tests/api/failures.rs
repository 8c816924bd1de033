//! What a failed delivery leads to: retries by policy, dead letters, and never either because of an outage.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::Method;
use serde_json::json;

use crate::support::*;

fn dead_letter(topic: serde_json::Value) -> serde_json::Value {
    with(topic, "deadLetterTopic", json!("dead"))
}

/// The dead-letter topic, read as our services read theirs.
fn dead() -> serde_json::Value {
    with(subscription("dead"), "route", json!("/dead"))
}

fn fails_on_bad(call: &Call) -> Reply {
    if call.path == "/events" && call.json()["data"] == "bad" { Reply(500, String::new()) } else { Reply::ok() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_delivery_is_retried_before_the_next_in_its_partition() {
    let app = App::start(json!([subscription("t")])).await;
    let tries = Arc::new(AtomicUsize::new(0));
    app.answer({
        let tries = tries.clone();
        move |call| match call.json()["data"].as_str() {
            Some("bad") if tries.fetch_add(1, Ordering::SeqCst) < 3 => Reply::status("RETRY"),
            _ => Reply::ok(),
        }
    });
    let daprd = Daprd::with(&app, |options| {
        options.resiliency = policy("{policy: constant, duration: 20ms, maxRetries: -1}");
    })
    .await;
    daprd.publish("t", "k", json!("bad")).await;
    daprd.publish("t", "k", json!("good")).await;
    assert_eq!(app.wait_data(5).await, ["bad", "bad", "bad", "bad", "good"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spent_policy_goes_to_the_dead_letter_topic_and_the_next_flows() {
    let app = App::start(json!([dead_letter(subscription("t")), dead()])).await;
    app.answer(fails_on_bad);
    let daprd = Daprd::with(&app, |options| {
        options.resiliency = policy("{policy: constant, duration: 5ms, maxRetries: 2}");
    })
    .await;
    daprd.publish("t", "k", json!("bad")).await;
    daprd.publish("t", "k", json!("good")).await;
    let calls = app.wait_calls(5).await;
    let of = |path: &str| -> Vec<_> { calls.iter().filter(|call| call.path == path).map(|call| call.json()["data"].clone()).collect() };
    assert_eq!(of("/events"), ["bad", "bad", "bad", "good"]);
    assert_eq!(of("/dead"), ["bad"]);
    let letter = calls.iter().find(|call| call.path == "/dead").unwrap();
    // The original place, as on Kafka.
    assert_eq!(letter.header("__topic"), "t");
    assert_eq!(letter.header("__key"), "k");
    assert_eq!(letter.json()["topic"], "t");
}

#[tokio::test(flavor = "multi_thread")]
async fn drop_and_404_are_dead_lettered_without_a_retry() {
    let app = App::start(json!([dead_letter(subscription("t")), dead()])).await;
    app.answer(|call| match (call.path.as_str(), call.json()["data"].as_str()) {
        ("/events", Some("drop")) => Reply::status("DROP"),
        ("/events", Some("gone")) => Reply(404, String::new()),
        _ => Reply::ok(),
    });
    let daprd = Daprd::with(&app, |options| options.topics.push(one_partition("t"))).await;
    for data in ["drop", "gone", "good"] {
        daprd.publish("t", "k", json!(data)).await;
    }
    let calls = app.wait_calls(5).await;
    let dead: Vec<_> = calls.iter().filter(|call| call.path == "/dead").collect();
    assert_eq!(dead.len(), 2);
    assert_eq!(calls.iter().filter(|call| call.path == "/events").count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_dead_letter_topic_drop_is_the_end_of_an_event() {
    let app = App::start(json!([subscription("t")])).await;
    app.answer(|call| match call.json()["data"].as_str() {
        Some("drop") => Reply::status("DROP"),
        _ => Reply::ok(),
    });
    let daprd = Daprd::with(&app, |options| options.topics.push(one_partition("t"))).await;
    for data in ["drop", "good"] {
        daprd.publish("t", "k", json!(data)).await;
    }
    assert_eq!(app.wait_data(2).await, ["drop", "good"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_bulk_only_what_failed_comes_again() {
    let app = App::start(json!([dead_letter(bulk("t", 10)), dead()])).await;
    let first = Arc::new(AtomicUsize::new(0));
    app.answer({
        let first = first.clone();
        move |call| {
            if call.path == "/dead" {
                return Reply::ok();
            }
            let again = first.fetch_add(1, Ordering::SeqCst) > 0;
            Reply::bulk(call, |event| match event["data"].as_i64() {
                Some(2) if !again => "RETRY",
                Some(4) if !again => "",
                Some(5) => "DROP",
                _ => "SUCCESS",
            })
        }
    });
    let daprd = Daprd::with(&app, |options| {
        options.resiliency = policy("{policy: constant, duration: 5ms, maxRetries: 5}");
    })
    .await
    .ready()
    .await;
    daprd.publish_numbers("t", "k", 0, 8).await;
    daprd.publish("t", "k", json!("next")).await;
    let calls = eventually("all", async || {
        let calls = app.calls();
        let dead = calls.iter().any(|call| call.path == "/dead");
        let again = |n: i64| app.data().iter().filter(|data| **data == json!(n)).count() >= 2;
        (dead && again(2) && again(4) && app.data().contains(&json!("next"))).then_some(app.calls())
    })
    .await;
    let events: Vec<Vec<_>> = calls
        .iter()
        .filter(|call| call.path == "/events")
        .map(|call| call.events().iter().map(|event| event["data"].clone()).collect())
        .collect();
    let delivered = counts(&events.concat());
    assert_eq!(delivered["2"], 2);
    assert_eq!(delivered["4"], 2);
    assert!([0, 1, 3, 5, 6, 7].iter().all(|n| delivered[&n.to_string()] == 1), "{events:?}");
    let dead: Vec<_> = calls.iter().filter(|call| call.path == "/dead").collect();
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].json()["data"], 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_answer_that_is_none_retries_everything_and_404_drops_everything() {
    let app = App::start(json!([bulk("t", 10)])).await;
    let turn = Arc::new(AtomicUsize::new(0));
    app.answer({
        let turn = turn.clone();
        move |call| match turn.fetch_add(1, Ordering::SeqCst) {
            0 => Reply(200, "not json".to_owned()),
            1 => Reply(500, String::new()),
            2 => Reply(404, String::new()),
            _ => Reply::bulk(call, |_| "SUCCESS"),
        }
    });
    let daprd = Daprd::with(&app, |options| {
        options.resiliency = policy("{policy: constant, duration: 5ms, maxRetries: -1}");
        options.topics.push(one_partition("t"));
    })
    .await
    .ready()
    .await;
    daprd.publish_numbers("t", "k", 0, 3).await;
    app.wait_calls(3).await;
    daprd.publish("t", "k", json!("next")).await;
    let data = app.wait_data(10).await;
    assert_eq!(data[..9], [numbers(3), numbers(3), numbers(3)].concat());
    assert_eq!(data[9], "next");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_outside_matching_is_not_retried() {
    let app = App::start(json!([dead_letter(subscription("t")), dead()])).await;
    app.answer(|call| match call.path.as_str() {
        "/events" => Reply(400, String::new()),
        _ => Reply::ok(),
    });
    let daprd = Daprd::with(&app, |options| {
        options.resiliency = policy("{policy: constant, duration: 5ms, maxRetries: -1, matching: {httpStatusCodes: 500-599}}");
    })
    .await;
    daprd.publish("t", "k", json!(1)).await;
    let calls = app.wait_calls(2).await;
    assert_eq!([calls[0].path.as_str(), calls[1].path.as_str()], ["/events", "/dead"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_costs_no_retry_and_no_dead_letter() {
    let mut app = App::start(json!([dead_letter(subscription("t")), dead()])).await;
    let daprd = Daprd::with(&app, |options| {
        options.resiliency = policy("{policy: constant, duration: 1ms, maxRetries: 0}");
    })
    .await
    .ready()
    .await;
    app.down().await;
    daprd.publish_numbers("t", "k", 0, 20).await;
    eventually("away", async || (daprd.get("/v1.0/healthz").await.status == 500).then_some(())).await;
    app.up().await;
    assert_eq!(app.wait_data(20).await, numbers(20));
    daprd.publish("t", "k", json!("last")).await;
    app.wait_data(21).await;
    assert!(app.calls().iter().all(|call| call.path == "/events"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_json_goes_to_the_dead_letter_topic_and_the_next_flows() {
    let raw_dead = with(dead(), "metadata", json!({"rawPayload": "true"}));
    for subscription in [subscription("t"), bulk("t", 10)] {
        let app = App::start(json!([dead_letter(subscription), raw_dead])).await;
        app.answer(|call| match call.json().get("entries") {
            Some(_) => Reply::bulk(call, |_| "SUCCESS"),
            None => Reply::ok(),
        });
        let daprd = Daprd::with(&app, |options| options.topics.push(one_partition("t"))).await;
        let raw = "/v1.0/publish/pubsub/t?metadata.rawPayload=true";
        daprd.send(Method::POST, raw, &[], "{broken").await.expect(204);
        daprd.publish("t", "k", json!("next")).await;
        let calls = app.wait_calls(2).await;
        let dead = calls.iter().find(|call| call.path == "/dead").unwrap();
        assert_eq!(dead.json()["data_base64"], "e2Jyb2tlbg==");
        let event = calls.iter().find(|call| call.path == "/events").unwrap();
        assert_eq!(event.events()[0]["data"], "next");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_out_of_the_policy_ends_a_try() {
    let app = App::start(json!([subscription("t")])).await;
    let tries = Arc::new(AtomicUsize::new(0));
    app.answer_later({
        let tries = tries.clone();
        move |_| {
            let first = tries.fetch_add(1, Ordering::SeqCst) == 0;
            Box::pin(async move {
                if first {
                    std::future::pending::<()>().await;
                }
                Reply::ok()
            })
        }
    });
    let daprd = Daprd::with(&app, |options| {
        options.resiliency = fte_sidecar::Resiliency::from_yaml(
            "kind: Resiliency\nspec:\n  policies:\n    timeouts: {t: 50ms}\n    retries: {r: {duration: 5ms}}\n  targets:\n    components:\n      pubsub: {inbound: {retry: r, timeout: t}}\n",
        )
        .unwrap();
    })
    .await;
    daprd.publish("t", "k", json!(1)).await;
    app.wait_calls(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn waits_between_tries_grow_as_the_policy_says() {
    let app = App::start(json!([subscription("t")])).await;
    let times = Arc::new(std::sync::Mutex::new(Vec::new()));
    app.answer({
        let times = times.clone();
        move |_| {
            let mut times = times.lock().unwrap();
            times.push(Instant::now());
            Reply(if times.len() < 4 { 503 } else { 200 }, String::new())
        }
    });
    let daprd = Daprd::with(&app, |options| {
        options.resiliency = policy("{policy: constant, duration: 60ms, maxRetries: -1}");
    })
    .await;
    daprd.publish("t", "k", json!(1)).await;
    app.wait_calls(4).await;
    let times = times.lock().unwrap();
    for pair in times.windows(2) {
        assert!(pair[1] - pair[0] >= Duration::from_millis(60));
    }
}
