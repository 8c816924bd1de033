//! What publishing answers (§2 of Dapr's API): codes, error bodies, keys and partitions, time to live.

use http::Method;
use serde_json::{Value, json};

use crate::feature::Feature;
use crate::runner::{Case, cases};
use crate::topics::{BROKEN, BROKEN_LETTERS, DEAD, DEAD_LETTERS, EVENTS, UNREAD};
use crate::world::{CLOUD_EVENT, JSON, World, error_code};

pub(crate) const CASES: &[Case] = cases![
    an_accepted_event_is_answered_204_without_a_body,
    what_cannot_be_published_says_why,
    a_body_over_the_limit_is_refused,
    a_key_decides_the_partition,
    a_partition_number_overrules_the_key needs [PartitionNumber],
    an_expired_event_does_not_reach_the_app,
    a_time_to_live_becomes_an_expiration,
];

async fn an_accepted_event_is_answered_204_without_a_body(world: &World) {
    for (method, topic) in [(Method::POST, EVENTS), (Method::PUT, EVENTS), (Method::POST, UNREAD)] {
        let mark = world.mark();
        let path = world.publish_path(topic, "");
        let answer = world.send(method, &path, &[], mark.clone()).await.expect_status(204);
        assert_eq!(answer.text(), "");
        if topic == EVENTS {
            world.delivered(&mark, 1).await;
        }
    }
    // A topic is the rest of the path. Kafka takes no slash in a name.
    let slashed = world.send(Method::POST, &world.publish_path("conf/with/slashes", ""), &[], "x").await;
    if world.has(Feature::Embedded) {
        slashed.expect_status(204);
    } else {
        assert_eq!(error_code(&slashed.expect_status(500)), "ERR_PUBSUB_PUBLISH_MESSAGE");
    }
}

async fn what_cannot_be_published_says_why(world: &World) {
    let pubsub = &world.target.pubsub;
    let check = async |path: &str, content_type: &str, body: &str, status: u16, code: &str, message: &str| {
        let answer = world.send(Method::POST, path, &[("content-type", content_type)], body.to_owned()).await;
        assert_eq!(answer.status.as_u16(), status, "{path}: {}", answer.text());
        assert_eq!(error_code(&answer), code, "{path}");
        let said = answer.json::<Value>()["message"].as_str().unwrap_or_default().to_owned();
        assert!(said.starts_with(message), "{path}: {said:?} is not {message:?}");
    };
    check("/v1.0/publish/nobody/t", JSON, "1", 404, "ERR_PUBSUB_NOT_FOUND", "pubsub nobody is not found").await;
    // Without a name it is no route for Dapr, and what is no route is a failed invocation. The embedded one says what is missing.
    let missing = |code: &'static str, message: String| {
        if world.has(Feature::Embedded) { (code, message) } else { ("ERR_DIRECT_INVOKE", "failed getting app id".to_owned()) }
    };
    for path in [format!("/v1.0/publish/{pubsub}/"), format!("/v1.0/publish/{pubsub}"), format!("/v1.0-alpha1/publish/bulk/{pubsub}/")] {
        let (code, message) = missing("ERR_TOPIC_NAME_EMPTY", format!("topic is empty in pubsub {pubsub}"));
        check(&path, JSON, "[]", 404, code, &message).await;
    }
    for path in ["/v1.0/publish/", "/v1.0/publish//t", "/v1.0-alpha1/publish/bulk//t"] {
        let (code, message) = missing("ERR_PUBSUB_EMPTY", "pubsub name is empty".to_owned());
        check(path, JSON, "[]", 404, code, &message).await;
    }
    let raw = world.publish_path(EVENTS, "metadata.rawPayload=perhaps");
    check(&raw, JSON, "1", 400, "ERR_PUBSUB_REQUEST_METADATA", "failed deserializing metadata").await;
    // What is no JSON object is no CloudEvent. Dapr says 500, which asks to try again what can never be accepted.
    let malformed = if world.has(Feature::Embedded) { 400 } else { 500 };
    for body in ["[1]", "{", "\"text\"", ""] {
        let path = world.publish_path(EVENTS, "");
        check(&path, CLOUD_EVENT, body, malformed, "ERR_PUBSUB_CLOUD_EVENTS_SER", "cannot create cloudevent").await;
    }
}

async fn a_body_over_the_limit_is_refused(world: &World) {
    // Dapr's limit is 4 MiB. It says 400 or 500; the embedded one 413, because a 500 asks to be tried again.
    let path = world.publish_path(UNREAD, "");
    let answer = world.send(Method::POST, &path, &[], vec![b'x'; (4 << 20) + 1]).await;
    if world.has(Feature::Embedded) {
        assert_eq!(error_code(&answer.expect_status(413)), "ERR_BODY_TOO_LARGE");
    } else {
        assert!(!answer.status.is_success(), "{}", answer.status);
    }
}

async fn a_key_decides_the_partition(world: &World) {
    let key = world.mark();
    let mut partitions = Vec::new();
    for parameter in ["partitionKey", "__key", "partitionKey", "__key"] {
        let mark = world.mark();
        world.publish(EVENTS, &format!("metadata.{parameter}={key}"), JSON, json!({ "mark": mark }).to_string()).await;
        let delivery = world.delivered(&mark, 1).await.remove(0);
        assert_eq!(delivery.header("__key"), key, "{parameter}");
        partitions.push(delivery.header("__partition"));
    }
    partitions.dedup();
    assert_eq!(partitions.len(), 1, "one key, one partition");
    // Other keys land on others.
    let mut used = std::collections::HashSet::new();
    for _ in 0..24 {
        let mark = world.mark();
        world.publish_as(EVENTS, &mark, &mark).await;
        used.insert(world.delivered(&mark, 1).await[0].header("__partition"));
    }
    assert!(used.len() > 1, "24 keys on one partition");
}

async fn a_partition_number_overrules_the_key(world: &World) {
    for partition in ["0", "1", "2"] {
        let mark = world.mark();
        let metadata = format!("metadata.partitionKey=k&metadata.partitionNumber={partition}");
        world.publish(EVENTS, &metadata, JSON, json!({ "mark": mark }).to_string()).await;
        assert_eq!(world.delivered(&mark, 1).await[0].header("__partition"), partition);
    }
    let nowhere = world.send(Method::POST, &world.publish_path(UNREAD, "metadata.partitionNumber=30000"), &[], "x").await;
    assert_eq!(error_code(&nowhere.expect_status(500)), "ERR_PUBSUB_PUBLISH_MESSAGE");
}

async fn an_expired_event_does_not_reach_the_app(world: &World) {
    let expired = |mark: &str| json!({"id": mark, "data": mark, "expiration": "2020-01-01T00:00:00Z"}).to_string();
    let (key, gone) = (world.mark(), world.mark());
    world.publish(EVENTS, &format!("metadata.partitionKey={key}"), CLOUD_EVENT, expired(&gone)).await;
    world.settled(EVENTS, &key).await;
    assert!(world.seen(&gone).is_empty());

    // With a dead-letter topic it goes there; as it has expired, a subscription there does not get it either unless it
    // reads raw payloads.
    let letter = world.mark();
    world.publish(BROKEN, &format!("metadata.partitionKey={key}"), CLOUD_EVENT, expired(&letter)).await;
    let letters = world.delivered(&letter, 1).await;
    assert_eq!(letters[0].path, format!("/events/{BROKEN_LETTERS}"));

    let twice = world.mark();
    world.publish(DEAD, &format!("metadata.partitionKey={key}"), CLOUD_EVENT, expired(&twice)).await;
    world.settled(DEAD, &key).await;
    world.settled(DEAD_LETTERS, &key).await;
    assert!(world.seen(&twice).iter().all(|delivery| delivery.path.ends_with(DEAD_LETTERS)));
}

async fn a_time_to_live_becomes_an_expiration(world: &World) {
    let check = async |metadata: &str, content_type: &str, body: fn(&str) -> Value, expires: bool| {
        let mark = world.mark();
        world.publish(EVENTS, metadata, content_type, body(&mark).to_string()).await;
        let delivery = world.delivered(&mark, 1).await.remove(0);
        assert_eq!(delivery.event["expiration"].is_string(), expires, "{metadata} {}", delivery.event);
    };
    let plain: fn(&str) -> Value = |mark| json!({ "mark": mark });
    let event: fn(&str) -> Value = |mark| json!({"id": mark, "data": 1});
    check("metadata.ttlInSeconds=600", JSON, plain, true).await;
    check("metadata.ttlInSeconds=600", CLOUD_EVENT, event, true).await;
    check("metadata.ttl=600", JSON, plain, true).await;
    check("", JSON, plain, false).await;
}
