//! What a publication becomes: the CloudEvent that the app gets, in golden shapes.

use http::Method;
use serde_json::{Value, json};

use crate::feature::Feature;
use crate::like::assert_like;
use crate::runner::{Case, cases};
use crate::topics::{BROKEN, BROKEN_LETTERS, BULK_RAW, EVENTS, RAW};
use crate::world::{CLOUD_EVENT, World};

pub(crate) const CASES: &[Case] = cases![
    a_publication_becomes_the_data_of_a_new_envelope,
    metadata_overrides_what_an_envelope_says_of_itself,
    a_cloud_event_keeps_what_it_says_except_where_it_goes,
    the_trace_of_a_request_goes_with_its_event,
    a_raw_payload_passes_untouched,
    a_raw_payload_that_is_a_cloud_event_is_delivered_as_one,
    a_raw_subscription_gets_the_record_in_base64,
    a_record_that_is_not_json_goes_to_the_dead_letter_topic_and_the_next_flows,
];

/// The envelope that Dapr makes, but for its data.
fn envelope(world: &World) -> Value {
    json!({
        "id": "<uuid>", "specversion": "1.0", "source": world.app_id(), "type": "com.dapr.event.sent", "datacontenttype": "text/plain",
        "topic": EVENTS, "pubsubname": world.target.pubsub, "time": "<seconds>",
        "traceid": "<trace>", "traceparent": "<trace>", "tracestate": "",
    })
}

fn with(mut value: Value, members: &Value) -> Value {
    for (key, member) in members.as_object().expect("an object") {
        value[key] = member.clone();
    }
    value
}

/// Publishes and returns the event as the app gets it.
async fn published(world: &World, metadata: &str, content_type: Option<&str>, mark: &str, body: Vec<u8>) -> Value {
    let headers: Vec<(&str, &str)> = content_type.map(|value| ("content-type", value)).into_iter().collect();
    world.send(Method::POST, &world.publish_path(EVENTS, metadata), &headers, body).await.expect_status(204);
    let delivery = world.delivered(mark, 1).await.remove(0);
    assert_eq!(delivery.method, Method::POST);
    assert_eq!(delivery.path, format!("/events/{EVENTS}"));
    assert_eq!(delivery.header("content-type"), CLOUD_EVENT);
    delivery.event
}

async fn a_publication_becomes_the_data_of_a_new_envelope(world: &World) {
    let check = async |content_type: Option<&str>, body: fn(&str) -> Vec<u8>, data: fn(&str) -> Value| {
        let mark = world.mark();
        let event = published(world, "", content_type, &mark, body(&mark)).await;
        let pattern = with(envelope(world), &json!({"datacontenttype": content_type.unwrap_or("text/plain")}));
        assert_like(&event, &with(pattern, &data(&mark)));
    };
    let text: fn(&str) -> Vec<u8> = |mark| format!("say \"{mark}\"\n ü").into_bytes();
    let as_text: fn(&str) -> Value = |mark| json!({ "data": format!("say \"{mark}\"\n ü") });
    let object: fn(&str) -> Vec<u8> =
        |mark| json!({"mark": mark, "n": [1, 2.5, null, true], "big": 9007199254740993_u64}).to_string().into();
    let as_object: fn(&str) -> Value = |mark| json!({"data": {"mark": mark, "n": [1, 2.5, null, true], "big": 9007199254740993_u64}});
    check(None, text, as_text).await;
    check(Some("text/plain"), text, as_text).await;
    check(Some("text/plain; charset=utf-8"), text, as_text).await;
    check(Some("application/xml"), text, as_text).await;
    check(Some("image/png"), text, as_text).await;
    check(Some("application/json"), object, as_object).await;
    check(Some("application/json; charset=utf-8"), object, as_object).await;
    check(Some("Application/JSON"), object, as_object).await;
    check(Some("application/json"), |mark| format!("\"{mark}\"").into(), |mark| json!({ "data": mark })).await;
    check(Some("application/json"), |mark| format!("[\"{mark}\"]").into(), |mark| json!({ "data": [mark] })).await;
    // What says that it is JSON and is not is taken as text.
    check(Some("application/json"), text, as_text).await;
    // JSON is `application/json` and nothing like it.
    check(
        Some("application/vnd.mine+json"),
        |mark| format!("{{\"mark\":\"{mark}\"}}").into(),
        |mark| json!({ "data": format!("{{\"mark\":\"{mark}\"}}") }),
    )
    .await;
    let base64: fn(&str) -> Value = |mark| {
        let bytes = [b"\x00\xff ", mark.as_bytes()].concat();
        json!({ "data_base64": base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes) })
    };
    check(Some("application/octet-stream"), |mark| [b"\x00\xff ", mark.as_bytes()].concat(), base64).await;
    check(Some("application/cloudevents+protobuf"), |mark| [b"\x00\xff ", mark.as_bytes()].concat(), base64).await;
}

async fn metadata_overrides_what_an_envelope_says_of_itself(world: &World) {
    let check = async |metadata: &str, members: Value| {
        let mark = world.mark();
        let event = published(world, metadata, None, &mark, mark.clone().into()).await;
        assert_like(&event, &with(with(envelope(world), &json!({ "data": mark })), &members));
    };
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    check("metadata.cloudevent.id=my-id", json!({"id": "my-id"})).await;
    check("metadata.cloudevent.source=mine&metadata.cloudevent.type=my.type", json!({"source": "mine", "type": "my.type"})).await;
    check("metadata.CloudEvent.Type=my.type", json!({"type": "my.type"})).await;
    check("metadata.cloudevent.tracestate=a=b", json!({"tracestate": "a=b"})).await;
    check(&format!("metadata.cloudevent.traceid={trace}"), json!({"traceid": trace, "traceparent": trace})).await;
    check(&format!("metadata.cloudevent.traceparent={trace}"), json!({"traceid": trace, "traceparent": trace})).await;
    // Both: the trace parent counts.
    check(
        &format!("metadata.cloudevent.traceid=other&metadata.cloudevent.traceparent={trace}"),
        json!({"traceid": trace, "traceparent": trace}),
    )
    .await;
    let one_of_two = if world.has(Feature::FirstValueWins) { "one" } else { "two" };
    check("metadata.cloudevent.id=one&metadata.cloudevent.id=two", json!({ "id": one_of_two })).await;
    // Not to be overridden.
    check(
        "metadata.cloudevent.topic=t&metadata.cloudevent.pubsubname=p&metadata.cloudevent.datacontenttype=d&metadata.cloudevent.data=d\
         &metadata.cloudevent.time=t&metadata.cloudevent.mine=x",
        json!({}),
    )
    .await;
    if world.has(Feature::SubjectOverride) {
        check("metadata.cloudevent.subject=my-subject", json!({"subject": "my-subject"})).await;
    } else {
        check("metadata.cloudevent.subject=my-subject", json!({})).await;
    }
}

async fn a_cloud_event_keeps_what_it_says_except_where_it_goes(world: &World) {
    let check = async |metadata: &str, event: Value, filled: Value| {
        let mark = event["data"].as_str().expect("the mark").to_owned();
        let got = published(world, metadata, Some(CLOUD_EVENT), &mark, event.to_string().into()).await;
        let always = json!({"topic": EVENTS, "pubsubname": world.target.pubsub});
        assert_like(&got, &with(with(event, &always), &filled));
    };
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let defaults = json!({
        "specversion": "1.0", "source": "Dapr", "type": "com.dapr.event.sent", "time": "<seconds>",
        "traceid": "<trace>", "traceparent": "<trace>", "tracestate": "",
    });
    let whole = json!({
        "id": "my-id", "specversion": "0.3", "source": "/mine", "type": "my.type", "subject": "s", "time": "2001-02-03T04:05:06.789Z",
        "datacontenttype": "application/json", "dataschema": "urn:x", "traceid": trace, "traceparent": trace, "tracestate": "a=b",
        "mine": {"a": [1, null]}, "partitionkey": "p",
    });
    check("", with(whole.clone(), &json!({ "data": world.mark() })), json!({})).await;
    let elsewhere = json!({"data": world.mark(), "topic": "elsewhere", "pubsubname": "other"});
    check("", with(whole.clone(), &elsewhere), json!({})).await;
    // Nothing but data: all is filled in, but no id.
    check("", json!({ "data": world.mark() }), defaults.clone()).await;
    check("", json!({"data": world.mark(), "source": null, "type": null, "specversion": null}), defaults.clone()).await;
    // An event says itself what it is.
    let metadata = "metadata.cloudevent.id=other&metadata.cloudevent.type=other&metadata.cloudevent.source=other";
    check(metadata, with(whole, &json!({ "data": world.mark() })), json!({})).await;
    // A trace parent without a trace id: Dapr overwrites it; the embedded sidecar keeps it, for who traces relies on it.
    let kept = if world.has(Feature::Embedded) { json!({"traceid": trace, "traceparent": trace}) } else { json!({}) };
    check("", json!({"data": world.mark(), "traceparent": trace}), with(defaults, &kept)).await;
}

async fn the_trace_of_a_request_goes_with_its_event(world: &World) {
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for (content_type, body) in [("text/plain", world.mark()), (CLOUD_EVENT, json!({ "data": world.mark() }).to_string())] {
        let headers = [("content-type", content_type), ("traceparent", trace), ("tracestate", "a=b")];
        world.send(Method::POST, &world.publish_path(EVENTS, ""), &headers, body.clone()).await.expect_status(204);
        let mark = body.split('"').nth(3).unwrap_or(&body);
        let event = world.delivered(mark, 1).await.remove(0).event;
        assert_eq!(
            (event["traceid"].as_str(), event["traceparent"].as_str(), event["tracestate"].as_str()),
            (Some(trace), Some(trace), Some("a=b"))
        );
    }
}

async fn a_raw_payload_passes_untouched(world: &World) {
    for payload in ["plain ü", "{broken", "", "{\"a\": 1 }"] {
        let mark = world.mark();
        let body = format!("{payload}{mark}").into_bytes();
        world.publish(RAW, "metadata.rawPayload=true&metadata.ttlInSeconds=1", "image/png", body.clone()).await;
        let delivery = world.delivered(&mark, 1).await.remove(0);
        let base64 = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &body);
        assert_like(
            &delivery.event,
            &json!({
                "id": "<uuid>", "specversion": "1.0", "datacontenttype": "application/octet-stream", "source": "Dapr",
                "type": "com.dapr.event.sent", "topic": RAW, "pubsubname": world.target.pubsub, "data_base64": base64,
            }),
        );
    }
}

async fn a_raw_payload_that_is_a_cloud_event_is_delivered_as_one(world: &World) {
    let mark = world.mark();
    let event = json!({"id": mark, "specversion": "1.0", "type": "t", "source": "s", "data": 5});
    world.publish(EVENTS, "metadata.rawPayload=true", "text/plain", event.to_string()).await;
    assert_like(&world.delivered(&mark, 1).await[0].event, &event);
}

async fn a_raw_subscription_gets_the_record_in_base64(world: &World) {
    for topic in [RAW, BULK_RAW] {
        let mark = world.mark();
        world.publish(topic, "metadata.cloudevent.type=mine", "text/plain", mark.clone()).await;
        let delivery = world.delivered(&mark, 1).await.remove(0);
        let text = match &delivery.bulk {
            Some((_, entry)) => {
                assert_eq!(entry["contentType"], "application/octet-stream");
                entry["event"].as_str()
            }
            None => delivery.event["data_base64"].as_str(),
        };
        let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text.expect("base64")).expect("base64");
        let event: Value = serde_json::from_slice(&bytes).expect("the record is a CloudEvent");
        assert_like(&event, &with(envelope(world), &json!({"topic": topic, "type": "mine", "data": mark})));
    }
}

async fn a_record_that_is_not_json_goes_to_the_dead_letter_topic_and_the_next_flows(world: &World) {
    let (key, mark) = (world.mark(), world.mark());
    let metadata = format!("metadata.rawPayload=true&metadata.partitionKey={key}");
    world.publish(BROKEN, &metadata, "text/plain", format!("{{broken {mark}")).await;
    let letter = world.delivered(&mark, 1).await.remove(0);
    assert_eq!(letter.path, format!("/events/{BROKEN_LETTERS}"));
    world.settled(BROKEN, &key).await;
    assert_eq!(world.seen(&mark).len(), 1, "it never reaches the handler of its topic");
}
