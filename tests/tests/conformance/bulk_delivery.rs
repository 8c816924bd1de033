//! Bulk deliveries: their shape, and what each answer means for each entry.

use std::collections::HashMap;

use http::Method;
use serde_json::{Value, json};

use crate::app::{Delivery, Reply};
use crate::like::assert_like;
use crate::runner::{Case, cases};
use crate::topics::{BULK, BULK_ENTRIES, BULK_GONE, BULK_LETTERS, BULK_MAX, BULK_RAW, BULK_WHOLE, route};
use crate::world::{JSON, World, error_code};

pub(crate) const CASES: &[Case] = cases![
    a_bulk_delivery_has_its_shape,
    a_batch_holds_records_of_one_partition_in_order,
    each_entry_is_settled_by_its_own_status,
    an_answer_that_is_no_list_of_statuses_brings_all_again,
    a_404_drops_all,
];

/// Publishes an event for each mark in one call, all with one key.
async fn publish(world: &World, topic: &str, key: &str, marks: &[String]) {
    let entries: Vec<Value> = marks
        .iter()
        .map(|mark| json!({"entryId": mark, "event": {"mark": mark}, "contentType": JSON, "metadata": {"partitionKey": key}}))
        .collect();
    let answer = world.post(&world.bulk_path(topic, ""), &json!(entries)).await;
    assert_eq!(answer.status, 204, "{}", if answer.status == 500 { answer.text() } else { error_code(&answer) });
}

async fn a_bulk_delivery_has_its_shape(world: &World) {
    let key = world.mark();
    for topic in [BULK, BULK_RAW] {
        let mark = world.mark();
        world.publish(topic, &format!("metadata.partitionKey={key}&metadata.mine=x"), JSON, json!({ "mark": mark }).to_string()).await;
        let delivery = world.delivered(&mark, 1).await.remove(0);
        assert_eq!((delivery.method.clone(), delivery.path.clone()), (Method::POST, route(topic)));
        assert_eq!(delivery.headers["content-type"], JSON);
        assert!(!delivery.headers.contains_key("__key"), "what belongs to a record is not in the headers");
        if let Some(token) = &world.target.app_token {
            assert_eq!(delivery.headers["dapr-api-token"], **token);
        }
        let (envelope, entry) = delivery.bulk.expect("a bulk delivery");
        assert_like(
            &envelope,
            &json!({"id": "<uuid>", "type": "com.dapr.event.sent.bulk", "topic": topic, "pubsubname": world.target.pubsub, "metadata": "<any>"}),
        );
        let raw = topic == BULK_RAW;
        assert_like(
            &entry,
            &json!({
                "entryId": "<number>",
                "event": "<any>",
                "contentType": if raw { "application/octet-stream" } else { "application/cloudevents+json" },
                "metadata": {
                    "__key": key, "__topic": topic, "__partition": "<number>", "__offset": "<number>", "__timestamp": "<number>",
                    "partitionKey": key, "mine": "x",
                },
            }),
        );
        assert_eq!((entry["event"].is_string(), entry["event"]["data"]["mark"] == *mark), (raw, !raw));
    }
}

async fn a_batch_holds_records_of_one_partition_in_order(world: &World) {
    let keys: Vec<String> = (0..5).map(|_| world.mark()).collect();
    let marks: Vec<Vec<String>> = keys.iter().map(|_| (0..25).map(|_| world.mark()).collect()).collect();
    for (key, marks) in keys.iter().zip(&marks) {
        publish(world, BULK, key, marks).await;
    }
    let mut batches: HashMap<u64, Vec<Delivery>> = HashMap::new();
    for marks in &marks {
        let mut offsets = Vec::new();
        for mark in marks {
            let delivery = world.delivered(mark, 1).await.remove(0);
            offsets.push(delivery.header("__offset").parse::<u64>().expect("an offset"));
            batches.entry(delivery.call).or_default().push(delivery);
        }
        assert!(offsets.is_sorted_by(|one, next| one < next), "{offsets:?}");
    }
    for batch in batches.values_mut() {
        assert!(batch.len() <= BULK_MAX, "{} entries", batch.len());
        let entry = |delivery: &Delivery| delivery.bulk.as_ref().expect("a bulk delivery").1.clone();
        batch.sort_by_key(|delivery| entry(delivery)["entryId"].as_str().and_then(|id| id.parse::<u64>().ok()));
        let places: Vec<(String, u64)> = batch
            .iter()
            .map(|delivery| (delivery.header("__partition"), delivery.header("__offset").parse().expect("an offset")))
            .collect();
        assert!(places.iter().all(|place| place.0 == places[0].0), "{places:?}");
        assert!(places.is_sorted_by(|one, next| one.1 < next.1), "{places:?}");
    }
    assert!(batches.values().any(|batch| batch.len() > 1), "125 events came one by one");
}

async fn each_entry_is_settled_by_its_own_status(world: &World) {
    let (key, marks) = (world.mark(), (0..8).map(|_| world.mark()).collect::<Vec<_>>());
    // 0 and 7 succeed.
    let failing = [
        (1, vec![Reply::Entry(Some("RETRY"))]),
        (2, vec![Reply::Entry(None)]),
        (3, vec![Reply::Entry(Some(""))]),
        (4, vec![Reply::Entry(Some("WHATEVER"))]),
        (5, vec![Reply::Entry(Some("DROP"))]),
        (6, vec![Reply::Entry(Some("RETRY")); 4]),
    ];
    for (index, replies) in failing {
        world.reply(&marks[index], replies);
    }
    publish(world, BULK_ENTRIES, &key, &marks).await;
    // 6 spends its policy, 5 none of it; both become dead letters.
    world.delivered(&marks[6], 5).await;
    world.delivered(&marks[5], 2).await;
    world.settled(BULK_ENTRIES, &key).await;
    world.settled(BULK_LETTERS, &key).await;
    let times = |mark: &String, topic: &str| world.seen(mark).iter().filter(|delivery| delivery.path == route(topic)).count();
    let entries: Vec<_> = marks.iter().map(|mark| times(mark, BULK_ENTRIES)).collect();
    let letters: Vec<_> = marks.iter().map(|mark| times(mark, BULK_LETTERS)).collect();
    assert_eq!(entries, [1, 2, 2, 2, 2, 1, 4, 1], "only what failed comes again");
    assert_eq!(letters, [0, 0, 0, 0, 0, 1, 1, 0]);
}

async fn an_answer_that_is_no_list_of_statuses_brings_all_again(world: &World) {
    for reply in [
        Reply::status(200),
        Reply::Http(200, "thanks".to_owned()),
        Reply::Http(200, "{}".to_owned()),
        Reply::Http(200, "[]".to_owned()),
        Reply::verdict("SUCCESS"),
        Reply::Http(200, r#"[[{"entryId":"0","status":"SUCCESS"},{"entryId":"1","status":"SUCCESS"}]]"#.to_owned()),
        Reply::Http(200, r#"{"statuses":[]}"#.to_owned()),
        Reply::status(500),
        Reply::status(400),
        Reply::Broken,
    ] {
        let (key, marks) = (world.mark(), [world.mark(), world.mark(), world.mark()]);
        world.reply(&marks[0], [reply.clone()]);
        publish(world, BULK_WHOLE, &key, &marks).await;
        world.delivered(&marks[0], 2).await;
        world.settled(BULK_WHOLE, &key).await;
        let first = world.seen(&marks[0])[0].call;
        for mark in &marks {
            let seen = world.seen(mark);
            // Those that were in the very call come twice, those that went in one of their own once.
            let expected = if seen[0].call == first { 2 } else { 1 };
            assert_eq!(seen.len(), expected, "{reply:?}");
        }
    }
}

async fn a_404_drops_all(world: &World) {
    // Never the dead-letter topic, though there is one.
    let (key, marks) = (world.mark(), [world.mark(), world.mark(), world.mark()]);
    for mark in &marks {
        world.reply(mark, [Reply::status(404)]);
    }
    publish(world, BULK_GONE, &key, &marks).await;
    for mark in &marks {
        world.delivered(mark, 1).await;
    }
    world.settled(BULK_GONE, &key).await;
    world.settled(BULK_LETTERS, &key).await;
    for mark in &marks {
        assert_eq!(world.seen(mark).len(), 1);
    }
}
