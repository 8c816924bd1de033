//! Bulk publish: both routes, what an entry may be, where its metadata goes, and what a failure says.

use http::Method;
use serde_json::{Value, json};

use crate::feature::Feature;
use crate::runner::{Case, cases};
use crate::topics::{EVENTS, RAW, UNREAD};
use crate::world::{JSON, World, error_code};

pub(crate) const CASES: &[Case] = cases![
    both_routes_take_every_kind_of_entry,
    raw_payloads_pass_untouched,
    a_malformed_request_publishes_nothing,
    an_unknown_component_is_not_found,
    what_the_broker_refuses_is_named_by_entry,
    metadata_of_an_entry_becomes_its_headers_and_that_of_the_request_wins,
    metadata_of_the_request_reaches_an_envelope_only_beside_metadata_of_the_entry,
];

async fn both_routes_take_every_kind_of_entry(world: &World) {
    let pubsub = &world.target.pubsub;
    let alpha = format!("/v1.0-alpha1/publish/bulk/{pubsub}/{EVENTS}");
    let stable = format!("/v1.0/publish/bulk/{pubsub}/{EVENTS}");
    let text = |mark: &str| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, mark);
    let check = async |method: Method, path: &str| {
        let marks: Vec<String> = (0..6).map(|_| world.mark()).collect();
        let entries = json!([
            {"entryId": "a", "event": {"mark": marks[0]}, "contentType": "application/json"},
            {"entryId": "b", "event": [marks[1], 1], "contentType": "application/json; charset=utf-8"},
            {"entryId": "c", "event": marks[2], "contentType": "text/plain"},
            {"entryId": "d", "event": marks[3], "contentType": "application/xml"},
            {"entryId": "e", "event": text(&marks[4]), "contentType": "application/octet-stream"},
            {"entryId": "f", "event": {"id": "mine", "data": marks[5]}, "contentType": "application/cloudevents+json"},
        ]);
        let answer = world.send(method, path, &[("content-type", JSON)], entries.to_string()).await.expect_status(204);
        assert_eq!(answer.text(), "");
        let mut events = Vec::new();
        for mark in &marks {
            events.push(world.delivered(mark, 1).await.remove(0).event);
        }
        assert_eq!(events[0]["data"], json!({"mark": marks[0]}));
        assert_eq!(events[1]["data"], json!([marks[1], 1]));
        assert_eq!(events[2]["data"], *marks[2]);
        assert_eq!(events[3]["data"], *marks[3]);
        assert_eq!(events[3]["datacontenttype"], "application/xml");
        assert_eq!(events[4]["data_base64"], text(&marks[4]));
        assert_eq!(events[5]["data"], *marks[5]);
        assert_eq!(events[5]["id"], "mine");
        for event in &events {
            assert_eq!(event["topic"], EVENTS);
            assert_eq!(event["pubsubname"], **pubsub);
        }
        let mut ids: Vec<_> = events.iter().map(|event| event["id"].to_string()).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 6, "each has an id of its own");
    };
    check(Method::POST, &alpha).await;
    check(Method::PUT, &alpha).await;
    if world.has(Feature::StableBulkPublish) {
        check(Method::POST, &stable).await;
        check(Method::PUT, &stable).await;
    } else {
        // This 404 is how a client knows an old sidecar.
        let answer = world.post(&stable, &json!([])).await.expect_status(404);
        assert_eq!(error_code(&answer), "ERR_PUBSUB_NOT_FOUND");
        assert_eq!(answer.json::<Value>()["message"], "pubsub bulk is not found");
    }
}

async fn raw_payloads_pass_untouched(world: &World) {
    let encode = |bytes: &[u8]| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes);
    let marks = [world.mark(), world.mark(), world.mark()];
    let bytes = [b"\x00\xff".as_slice(), marks[2].as_bytes()].concat();
    let entries = json!([
        {"entryId": "a", "event": {"mark": marks[0]}, "contentType": JSON},
        {"entryId": "b", "event": format!("text {}", marks[1]), "contentType": "text/plain", "metadata": {}},
        {"entryId": "c", "event": encode(&bytes), "contentType": "application/octet-stream"},
    ]);
    world.post(&world.bulk_path(RAW, "metadata.rawPayload=true"), &entries).await.expect_status(204);
    let expected = [json!({"mark": marks[0]}).to_string().into_bytes(), format!("text {}", marks[1]).into_bytes(), bytes];
    for (mark, expected) in marks.iter().zip(expected) {
        assert_eq!(world.delivered(mark, 1).await[0].event["data_base64"], encode(&expected));
    }
}

async fn a_malformed_request_publishes_nothing(world: &World) {
    let mark = world.mark();
    let check = async |body: String| {
        let answer = world.send(Method::POST, &world.bulk_path(EVENTS, ""), &[("content-type", JSON)], body.clone()).await;
        assert_eq!(answer.status.as_u16(), 400, "{body}: {}", answer.text());
        assert_eq!(error_code(&answer), "ERR_PUBSUB_EVENTS_SER", "{body}");
    };
    let good = json!({"entryId": "good", "event": {"mark": mark}, "contentType": JSON});
    for bad in [
        json!({"event": 1, "contentType": JSON}),
        json!({"entryId": "", "event": 1, "contentType": JSON}),
        json!({"entryId": "good", "event": 1, "contentType": JSON}),
        json!({"entryId": "x", "event": 1}),
        json!({"entryId": "x", "event": 1, "contentType": ""}),
        json!({"entryId": "x", "event": 1, "contentType": "text/plain"}),
        json!({"entryId": "x", "event": {}, "contentType": "application/xml"}),
        json!({"entryId": "x", "event": "?", "contentType": "application/octet-stream"}),
        json!({"entryId": "x", "event": 1, "contentType": "application/octet-stream"}),
        json!({"entryId": "x", "event": 1, "contentType": "image/png"}),
        json!({"entryId": 7, "event": 1, "contentType": JSON}),
        json!({"entryId": "x", "event": 1, "contentType": JSON, "metadata": "text"}),
        json!("entry"),
        json!(["x", 1, JSON]),
    ] {
        check(json!([good, bad]).to_string()).await;
    }
    for body in ["", "{}", "[", "text", "7"] {
        check(body.to_owned()).await;
    }
    let raw = world.post(&world.bulk_path(EVENTS, "metadata.rawPayload=perhaps"), &json!([good])).await.expect_status(400);
    assert_eq!(error_code(&raw), "ERR_PUBSUB_REQUEST_METADATA");
    // The same event, published now, is the first of it that comes.
    world.post(&world.bulk_path(EVENTS, ""), &json!([good])).await.expect_status(204);
    assert_eq!(world.delivered(&mark, 1).await.len(), 1);
    // Nothing is fine, too.
    world.post(&world.bulk_path(EVENTS, ""), &json!([])).await.expect_status(204);
}

async fn an_unknown_component_is_not_found(world: &World) {
    let answer = world.post("/v1.0-alpha1/publish/bulk/nobody/t", &json!([])).await.expect_status(404);
    assert_eq!(error_code(&answer), "ERR_PUBSUB_NOT_FOUND");
    assert_eq!(answer.json::<Value>()["message"], "pubsub nobody is not found");
}

async fn what_the_broker_refuses_is_named_by_entry(world: &World) {
    // Kafka refuses a name that is none; the embedded log a partition that is none.
    let path = if world.has(Feature::Embedded) {
        world.bulk_path(UNREAD, "metadata.partitionNumber=30000")
    } else {
        world.bulk_path("no/name", "")
    };
    let entries = json!([{"entryId": "a", "event": 1, "contentType": JSON}, {"entryId": "b", "event": 2, "contentType": JSON}]);
    let answer: Value = world.post(&path, &entries).await.expect_status(500).json();
    assert_eq!(answer["errorCode"], "ERR_PUBSUB_PUBLISH_MESSAGE");
    let mut failed: Vec<_> =
        answer["failedEntries"].as_array().expect("failedEntries").iter().map(|entry| entry["entryId"].to_string()).collect();
    failed.sort();
    assert_eq!(failed, ["\"a\"", "\"b\""], "{answer}");
    assert!(answer["failedEntries"][0]["error"].as_str().is_some_and(|error| !error.is_empty()), "{answer}");
}

async fn metadata_of_an_entry_becomes_its_headers_and_that_of_the_request_wins(world: &World) {
    let (own, shared, key) = (world.mark(), world.mark(), world.mark());
    let entries = json!([
        {"entryId": "a", "event": {"mark": own}, "contentType": JSON, "metadata": {"partitionKey": key, "mine": "entry", "both": "entry"}},
        {"entryId": "b", "event": {"mark": shared}, "contentType": JSON},
    ]);
    world.post(&world.bulk_path(EVENTS, "metadata.both=request&metadata.more=request"), &entries).await.expect_status(204);
    let own = world.delivered(&own, 1).await.remove(0);
    assert_eq!(
        ["__key", "partitionKey", "mine", "both", "more"].map(|name| own.header(name)),
        [&*key, &*key, "entry", "request", "request"]
    );
    let shared = world.delivered(&shared, 1).await.remove(0);
    assert_eq!(["__key", "mine", "both", "more"].map(|name| shared.header(name)), ["", "", "request", "request"]);

    // So a key of the request moves every entry to one partition.
    let marks = [world.mark(), world.mark()];
    let entries = json!([
        {"entryId": "a", "event": {"mark": marks[0]}, "contentType": JSON, "metadata": {"partitionKey": marks[0]}},
        {"entryId": "b", "event": {"mark": marks[1]}, "contentType": JSON, "metadata": {"partitionKey": marks[1]}},
    ]);
    world.post(&world.bulk_path(EVENTS, &format!("metadata.partitionKey={key}")), &entries).await.expect_status(204);
    for mark in marks {
        assert_eq!(world.delivered(&mark, 1).await[0].header("__key"), key);
    }
}

async fn metadata_of_the_request_reaches_an_envelope_only_beside_metadata_of_the_entry(world: &World) {
    let (with, without) = (world.mark(), world.mark());
    let entries = json!([
        {"entryId": "a", "event": {"mark": with}, "contentType": JSON, "metadata": {}},
        {"entryId": "b", "event": {"mark": without}, "contentType": JSON},
    ]);
    world.post(&world.bulk_path(EVENTS, "metadata.cloudevent.type=mine&metadata.ttlInSeconds=600"), &entries).await.expect_status(204);
    let with = world.delivered(&with, 1).await.remove(0).event;
    let without = world.delivered(&without, 1).await.remove(0).event;
    assert_eq!((with["type"].as_str(), with["expiration"].is_string()), (Some("mine"), true));
    assert_eq!((without["type"].as_str(), without["expiration"].is_string()), (Some("com.dapr.event.sent"), false));
}
