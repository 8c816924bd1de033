//! What publishing answers, and what becomes of an event on its way.

use http::Method;
use serde_json::{Value, json};

use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_published_event_is_delivered_in_its_envelope() {
    let app = App::start(json!([subscription("orders")])).await;
    let daprd = Daprd::beside(&app).await;
    daprd
        .post("/v1.0/publish/pubsub/orders?metadata.partitionKey=k1&metadata.cloudevent.type=mine&metadata.x=y", &json!({"n": 1}))
        .await
        .expect(204);
    let calls = app.wait_calls(1).await;
    let event = calls[0].json();
    assert_eq!(event["data"], json!({"n": 1}));
    assert_eq!(event["type"], "mine");
    assert_eq!(event["source"], "app");
    assert_eq!(event["topic"], "orders");
    assert_eq!(event["pubsubname"], "pubsub");
    assert_eq!(event["datacontenttype"], "application/json");
    assert_eq!(event["specversion"], "1.0");
    assert_eq!(calls[0].path, "/events");
    assert_eq!(calls[0].header("content-type"), "application/cloudevents+json");
    assert_eq!(calls[0].header("__key"), "k1");
    assert_eq!(calls[0].header("__topic"), "orders");
    assert_eq!(calls[0].header("__offset"), "0");
    assert_eq!(calls[0].header("pubsubname"), "pubsub");
    assert_eq!(calls[0].header("x"), "y");
    assert_eq!(calls[0].header("partitionkey"), "k1");
    let partition: u16 = calls[0].header("__partition").parse().unwrap();
    assert!(partition < 12);
    assert!(calls[0].header("__timestamp").parse::<i64>().unwrap() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn content_types_decide_what_the_data_is() {
    let app = App::start(json!([subscription("t")])).await;
    let daprd = Daprd::with(&app, |options| options.topics.push(one_partition("t"))).await;
    let publish = async |content_type: Option<&str>, body: &str| {
        let headers: Vec<(&str, &str)> = content_type.map(|value| ("content-type", value)).into_iter().collect();
        daprd.send(Method::POST, "/v1.0/publish/pubsub/t", &headers, body.to_owned()).await.expect(204);
    };
    publish(None, "plain").await;
    publish(Some("application/json"), r#"{"a":1}"#).await;
    publish(Some("application/octet-stream"), "\u{1}").await;
    publish(
        Some("application/cloudevents+json; charset=utf-8"),
        r#"{"id":"1","type":"own","source":"me","data":7,"topic":"elsewhere","ext":"kept"}"#,
    )
    .await;
    app.wait_calls(4).await;
    let events = app.events();
    assert_eq!(events[0]["data"], "plain");
    assert_eq!(events[0]["datacontenttype"], "text/plain");
    assert_eq!(events[1]["data"], json!({"a": 1}));
    assert_eq!(events[2]["data_base64"], "AQ==");
    assert_eq!(events[3]["id"], "1");
    assert_eq!(events[3]["type"], "own");
    assert_eq!(events[3]["source"], "me");
    assert_eq!(events[3]["ext"], "kept");
    assert_eq!(events[3]["topic"], "t");
    assert_eq!(events[3]["data"], 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn bulk_publish_takes_every_entry_on_both_routes() {
    let app = App::start(json!([subscription("t")])).await;
    let daprd = Daprd::with(&app, |options| options.topics.push(one_partition("t"))).await;
    for route in ["/v1.0/publish/bulk/pubsub/t", "/v1.0-alpha1/publish/bulk/pubsub/t"] {
        daprd
            .post(
                route,
                &json!([
                    {"entryId": "a", "event": {"n": 1}, "contentType": "application/json"},
                    {"entryId": "b", "event": "text", "contentType": "text/plain"},
                    {"entryId": "c", "event": "AQ==", "contentType": "application/octet-stream"},
                    {"entryId": "d", "event": {"id": "9", "data": 4}, "contentType": "application/cloudevents+json",
                     "metadata": {"partitionKey": "k"}},
                ]),
            )
            .await
            .expect(204);
    }
    app.wait_calls(8).await;
    let events = app.events();
    for events in events.chunks(4) {
        assert_eq!(events[0]["data"], json!({"n": 1}));
        assert_eq!(events[1]["data"], "text");
        assert_eq!(events[2]["data_base64"], "AQ==");
        assert_eq!(events[3]["id"], "9");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_published_says_why() {
    let app = App::start(json!([])).await;
    let daprd = Daprd::with(&app, |options| options.limits.body_bytes_max = 10_000).await;
    let check = async |path: &str, content_type: &str, body: String, status: u16, code: &str| {
        let answer = daprd.send(Method::POST, path, &[("content-type", content_type)], body).await.expect(status);
        assert_eq!(answer.code(), code, "{path}");
        assert!(!answer.json()["message"].as_str().unwrap().is_empty());
    };
    let json = "application/json";
    check("/v1.0/publish/other/t", json, "1".into(), 404, "ERR_PUBSUB_NOT_FOUND").await;
    check("/v1.0/publish/pubsub/", json, "1".into(), 404, "ERR_TOPIC_NAME_EMPTY").await;
    check("/v1.0/publish/pubsub", json, "1".into(), 404, "ERR_TOPIC_NAME_EMPTY").await;
    check("/v1.0/publish/", json, "1".into(), 404, "ERR_PUBSUB_EMPTY").await;
    let not_boolean = "/v1.0/publish/pubsub/t?metadata.rawPayload=perhaps";
    check(not_boolean, json, "1".into(), 400, "ERR_PUBSUB_REQUEST_METADATA").await;
    let cloudevent = "application/cloudevents+json";
    let malformed = "ERR_PUBSUB_CLOUD_EVENTS_SER";
    check("/v1.0/publish/pubsub/t", cloudevent, "[1]".into(), 400, malformed).await;
    let long = "x".repeat(10_001);
    check("/v1.0/publish/pubsub/t", json, long, 413, "ERR_BODY_TOO_LARGE").await;
    let partition = "/v1.0/publish/pubsub/t?metadata.partitionNumber=12";
    check(partition, json, "1".into(), 500, "ERR_PUBSUB_PUBLISH_MESSAGE").await;
    for entries in [
        json!({}),
        json!([{"event": 1, "contentType": json}]),
        json!([{"entryId": "a", "event": 1}]),
        json!([{"entryId": "a", "contentType": json}]),
        json!([{"entryId": "a", "event": 1, "contentType": "text/plain"}]),
        json!([{"entryId": "a", "event": "?", "contentType": "application/octet-stream"}]),
        json!([{"entryId": "a", "event": 1, "contentType": "image/png"}]),
        json!([{"entryId": "a", "event": 1, "contentType": json}, {"entryId": "a", "event": 1, "contentType": json}]),
    ] {
        let path = "/v1.0/publish/bulk/pubsub/t";
        check(path, json, entries.to_string(), 400, "ERR_PUBSUB_EVENTS_SER").await;
    }
    let answer = daprd
        .post("/v1.0/publish/bulk/pubsub/t?metadata.partitionNumber=99", &json!([{"entryId": "a", "event": 1, "contentType": json}]))
        .await
        .expect(500);
    assert_eq!(answer.code(), "ERR_PUBSUB_PUBLISH_MESSAGE");
    assert_eq!(answer.json()["failedEntries"][0]["entryId"], "a");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_decides_the_partition_and_a_number_overrules_it() {
    let app = App::start(json!([subscription("t")])).await;
    let daprd = Daprd::beside(&app).await;
    for n in 0..4 {
        daprd.publish("t", "same", json!(n)).await;
    }
    daprd.post("/v1.0/publish/pubsub/t?metadata.partitionKey=same&metadata.partitionNumber=7", &json!(4)).await.expect(204);
    let calls = app.wait_calls(5).await;
    let partition = |n: i64| {
        let call = calls.iter().find(|call| call.json()["data"] == n).unwrap();
        call.header("__partition").to_owned()
    };
    assert!((1..4).all(|n| partition(n) == partition(0)));
    assert_eq!(partition(4), "7");
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_payloads_pass_untouched() {
    let raw = with(subscription("t"), "metadata", json!({"rawPayload": "true"}));
    let app = App::start(json!([raw])).await;
    let daprd = Daprd::with(&app, |options| options.topics.push(one_partition("t"))).await;
    let path = "/v1.0/publish/pubsub/t?metadata.rawPayload=true";
    daprd.send(Method::POST, path, &[], &b"not json \xff"[..]).await.expect(204);
    let calls = app.wait_calls(1).await;
    let event = calls[0].json();
    assert_eq!(event["data_base64"], "bm90IGpzb24g/w==");
    assert_eq!(event["datacontenttype"], "application/octet-stream");
    assert_eq!(event["topic"], "t");
    assert!(event["id"].is_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_payloads_come_as_base64_in_bulk() {
    let raw = with(bulk("t", 10), "metadata", json!({"rawPayload": "true"}));
    let app = App::start(json!([raw])).await;
    app.answer(|call| Reply::bulk(call, |_| "SUCCESS"));
    let daprd = Daprd::beside(&app).await;
    daprd.publish("t", "k", json!({"n": 1})).await;
    let calls = app.wait_calls(1).await;
    let entry = &calls[0].json()["entries"][0];
    assert_eq!(entry["contentType"], "application/octet-stream");
    let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, entry["event"].as_str().unwrap()).unwrap();
    let event: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(event["data"], json!({"n": 1}));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_event_does_not_reach_the_app() {
    let app = App::start(json!([subscription("t")])).await;
    let daprd = Daprd::with(&app, |options| options.topics.push(one_partition("t"))).await;
    daprd
        .send(
            Method::POST,
            "/v1.0/publish/pubsub/t",
            &[("content-type", "application/cloudevents+json")],
            r#"{"id":"old","data":"old","expiration":"2020-01-01T00:00:00Z"}"#,
        )
        .await
        .expect(204);
    daprd.post("/v1.0/publish/pubsub/t?metadata.ttlInSeconds=3600", &json!("new")).await.expect(204);
    assert_eq!(app.wait_data(1).await, [json!("new")]);
    assert!(app.events()[0]["expiration"].is_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_given_as_a_header_is_delivered_once() {
    let app = App::start(json!([bulk("t", 10)])).await;
    app.answer(|call| Reply::bulk(call, |_| "SUCCESS"));
    let daprd = Daprd::beside(&app).await;
    let path = "/v1.0/publish/pubsub/t?metadata.__key=k%221&metadata.__offset=99&metadata.mine=x";
    daprd.post(path, &json!(1)).await.expect(204);
    let calls = app.wait_calls(1).await;
    let text = String::from_utf8(calls[0].body.to_vec()).unwrap();
    assert_eq!(text.matches("\"__key\"").count(), 1);
    assert_eq!(text.matches("\"__offset\"").count(), 1);
    let metadata = &calls[0].json()["entries"][0]["metadata"];
    assert_eq!(metadata["__key"], "k\"1");
    assert_eq!(metadata["__offset"], "0");
    assert_eq!(metadata["mine"], "x");
}
