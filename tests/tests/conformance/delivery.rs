//! Deliveries of one event at a time: what they carry, what each answer means, order inside a partition, and
//! concurrency across partitions.

use std::collections::HashMap;
use std::sync::Arc;

use http::Method;
use serde_json::json;
use tokio::sync::Semaphore;

use crate::app::Reply;
use crate::runner::{Case, cases};
use crate::topics::{ANSWERS, EVENTS, HOLD, ORDER};
use crate::world::{CLOUD_EVENT, JSON, World};

pub(crate) const CASES: &[Case] = cases![
    a_delivery_names_the_place_of_its_record,
    metadata_of_a_publication_becomes_headers,
    a_delivery_carries_the_token_of_the_app needs [AppToken],
    answers_of_success_end_a_delivery,
    answers_of_failure_bring_an_event_again,
    a_drop_ends_a_delivery_without_a_retry,
    retries_wait_as_the_resiliency_file_says,
    order_holds_within_a_key,
    a_held_delivery_holds_only_its_partition,
];

async fn a_delivery_names_the_place_of_its_record(world: &World) {
    let key = world.mark();
    let mut offsets = Vec::new();
    for _ in 0..3 {
        let mark = world.publish_marked(EVENTS, &key).await;
        let delivery = world.delivered(&mark, 1).await.remove(0);
        assert_eq!(delivery.method, Method::POST);
        assert_eq!(delivery.path, format!("/events/{EVENTS}"));
        assert_eq!(delivery.header("content-type"), CLOUD_EVENT);
        assert_eq!(delivery.header("content-length"), delivery.body.len().to_string());
        assert_eq!(delivery.header("__key"), key);
        assert_eq!(delivery.header("__topic"), EVENTS);
        assert_eq!(delivery.header("pubsubname"), world.target.pubsub);
        delivery.header("__partition").parse::<u16>().expect("a partition");
        assert!(delivery.header("__timestamp").parse::<u64>().expect("milliseconds") > 1_700_000_000_000);
        offsets.push(delivery.header("__offset").parse::<u64>().expect("an offset"));
    }
    assert!(offsets.is_sorted_by(|one, next| one < next), "{offsets:?}");
    // A record without a key has no key.
    let mark = world.mark();
    world.publish(EVENTS, "", JSON, json!({ "mark": mark }).to_string()).await;
    assert_eq!(world.delivered(&mark, 1).await[0].header("__key"), "");
}

async fn metadata_of_a_publication_becomes_headers(world: &World) {
    let mark = world.mark();
    let metadata = "metadata.mine=a%20b&metadata.Other=%C3%BC&other=no&metadata.ttlInSeconds=600&metadata.cloudevent.type=t\
                    &metadata.rawPayload=false&metadata.partitionKey=k&metadata.x-bin=no";
    let path = world.publish_path(EVENTS, metadata);
    let headers = [("content-type", JSON), ("x-request", "no"), ("metadata.header", "no")];
    world.send(Method::POST, &path, &headers, json!({ "mark": mark }).to_string()).await.expect_status(204);
    let delivery = world.delivered(&mark, 1).await.remove(0);
    for (name, value) in
        [("mine", "a b"), ("ttlinseconds", "600"), ("cloudevent.type", "t"), ("rawpayload", "false"), ("partitionkey", "k"), ("__key", "k")]
    {
        assert_eq!(delivery.header(name), value, "{name}");
    }
    assert_eq!(delivery.headers.get("other").map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).as_deref(), Some("ü"));
    for name in ["x-request", "header", "metadata.header", "x-bin"] {
        assert_eq!(delivery.header(name), "", "{name}");
    }
}

async fn a_delivery_carries_the_token_of_the_app(world: &World) {
    let mark = world.publish_marked(EVENTS, "k").await;
    let delivery = world.delivered(&mark, 1).await.remove(0);
    assert_eq!(Some(delivery.header("dapr-api-token")), world.target.app_token);
    // A publisher cannot put another in its place.
    let mark = world.mark();
    world.publish(EVENTS, "metadata.content-type=text%2Fplain", JSON, json!({ "mark": mark }).to_string()).await;
    let delivery = world.delivered(&mark, 1).await.remove(0);
    assert_eq!(
        (delivery.header("content-type"), Some(delivery.header("dapr-api-token"))),
        (CLOUD_EVENT.to_owned(), world.target.app_token.clone())
    );
}

/// Answers the first delivery so; returns how often the event came until the next one of its partition did.
async fn deliveries(world: &World, reply: Reply) -> usize {
    let (key, mark) = (world.mark(), world.mark());
    world.reply(&mark, [reply]);
    world.publish_as(ANSWERS, &key, &mark).await;
    world.settled(ANSWERS, &key).await;
    world.seen(&mark).len()
}

async fn answers_of_success_end_a_delivery(world: &World) {
    let check = async |reply: Reply| assert_eq!(deliveries(world, reply.clone()).await, 1, "{reply:?}");
    for status in [200, 201, 202, 204] {
        check(Reply::status(status)).await;
    }
    for body in [
        "thanks",
        "{}",
        "[]",
        r#"["RETRY"]"#,
        "7",
        r#"{"status":""}"#,
        r#"{"status":"SUCCESS"}"#,
        r#"{"status":"SUCCESS","more":1}"#,
        r#"{"other":"RETRY"}"#,
        "{broken",
    ] {
        check(Reply::Http(200, body.to_owned())).await;
    }
}

async fn answers_of_failure_bring_an_event_again(world: &World) {
    let check = async |reply: Reply| assert_eq!(deliveries(world, reply.clone()).await, 2, "{reply:?}");
    for status in [302, 400, 401, 403, 405, 409, 410, 413, 415, 422, 429, 500, 501, 503] {
        check(Reply::status(status)).await;
    }
    for verdict in ["RETRY", "WHATEVER", "success"] {
        check(Reply::verdict(verdict)).await;
    }
    check(Reply::Http(500, r#"{"status":"SUCCESS"}"#.to_owned())).await;
    check(Reply::Broken).await;
}

async fn a_drop_ends_a_delivery_without_a_retry(world: &World) {
    let check = async |reply: Reply| assert_eq!(deliveries(world, reply.clone()).await, 1, "{reply:?}");
    check(Reply::verdict("DROP")).await;
    check(Reply::Http(201, r#"{"status":"DROP"}"#.to_owned())).await;
    check(Reply::status(404)).await;
    check(Reply::Http(404, r#"{"status":"RETRY"}"#.to_owned())).await;
}

async fn retries_wait_as_the_resiliency_file_says(world: &World) {
    let mark = world.mark();
    world.reply(&mark, [Reply::status(500), Reply::verdict("RETRY"), Reply::status(503)]);
    world.publish_as(ANSWERS, &mark, &mark).await;
    let deliveries = world.delivered(&mark, 4).await;
    for pair in deliveries.windows(2) {
        let waited = pair[1].at - pair[0].at;
        assert!(waited.as_millis() >= 95, "100 ms between tries, not {waited:?}");
        assert_eq!(pair[0].body, pair[1].body, "the very same event");
        assert_eq!(pair[0].header("__offset"), pair[1].header("__offset"));
    }
}

async fn order_holds_within_a_key(world: &World) {
    let keys: Vec<String> = (0..8).map(|_| world.mark()).collect();
    let mut marks: HashMap<&String, Vec<String>> = HashMap::new();
    // The third of each key fails twice: nothing may overtake it.
    for round in 0..12 {
        for key in &keys {
            let mark = world.mark();
            if round == 2 {
                world.reply(&mark, [Reply::status(500), Reply::verdict("RETRY")]);
            }
            world.publish_as(ORDER, key, &mark).await;
            marks.entry(key).or_default().push(mark);
        }
    }
    for (key, marks) in &marks {
        let mut calls = Vec::new();
        for (round, mark) in marks.iter().enumerate() {
            let times = if round == 2 { 3 } else { 1 };
            calls.extend(world.delivered(mark, times).await.iter().map(|delivery| delivery.call));
        }
        assert_eq!(calls.len(), 14, "{key}");
        assert!(calls.is_sorted(), "{key}: {calls:?}");
    }
}

async fn a_held_delivery_holds_only_its_partition(world: &World) {
    // Which key lies where.
    let mut by_partition: HashMap<String, String> = HashMap::new();
    for _ in 0..24 {
        let mark = world.mark();
        world.publish_as(HOLD, &mark, &mark).await;
        by_partition.insert(world.delivered(&mark, 1).await[0].header("__partition"), mark);
    }
    let mut keys = by_partition.into_values();
    let (held, others) = (keys.next().expect("a partition"), keys.collect::<Vec<_>>());
    assert!(!others.is_empty(), "all keys lie on one partition");

    let gate = Arc::new(Semaphore::new(0));
    let mark = world.mark();
    world.reply(&mark, [Reply::Held(gate.clone())]);
    world.publish_as(HOLD, &held, &mark).await;
    world.delivered(&mark, 1).await;
    let behind = world.publish_marked(HOLD, &held).await;
    for key in &others {
        world.settled(HOLD, key).await;
    }
    world.settled(EVENTS, &held).await;
    assert!(world.seen(&behind).is_empty(), "an event overtook the one before it");
    gate.close();
    world.delivered(&behind, 1).await;
    assert_eq!(world.seen(&mark).len(), 1, "a delivery that takes its time is not made again");
}
