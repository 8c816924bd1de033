//! Records that no service of ours would write, put straight on the topic by Kafka's own producer: each ends as one dead letter with its reason for each
//! service that gives up on it, and the next event flows.

use std::collections::BTreeMap;

use fte_events::TOPICS;
use fte_testkit::eventually_within;
use fte_tests::tasks::{echo, look, post};
use serde_json::{Value, json};

use crate::world::{START_PATIENCE, Store, World, result};

const TRIGGERS: &str = "fte.triggers.inbound";
/// What Kafka takes by default is less.
const LARGE_BYTES: usize = 2 * 1024 * 1024;

/// A record as the console producer reads it: headers, key, value.
fn record(headers: &str, key: &str, value: &str) -> String {
    format!("{headers}\t{key}\t{value}\n")
}

impl World {
    /// Writes records with Kafka's console producer.
    fn produce(&self, topic: &str, records: &str) -> String {
        let properties = ["parse.headers=true", "parse.key=true", "null.marker=<null>"];
        let mut arguments = vec!["kafka-console-producer", "--topic", topic, "--producer-property", "max.request.size=4194304"];
        properties.iter().for_each(|property| arguments.extend(["--property", property]));
        self.infrastructure.feed(&arguments, records)
    }
}

/// Headers that Dapr uses itself, that no HTTP header can carry, and many of them.
fn odd_headers() -> String {
    let mut headers =
        "__topic:elsewhere,__offset:x,traceparent:no trace,rawPayload:yes,\u{1}bell:\u{7}\u{1b},ümlaut:\u{fffd},content-length:3"
            .to_owned();
    (0..100).for_each(|number| headers.push_str(&format!(",header-{number}:{}", "v".repeat(100))));
    headers
}

/// The dead letters by who gave up, and what on.
async fn letters(world: &World) -> BTreeMap<(String, String), Vec<Value>> {
    let page: Value = world.doors().status.get("/v1/dead-letters?limit=200").await.unwrap().expect_status(200).json();
    let mut letters = BTreeMap::<_, Vec<Value>>::new();
    for letter in page["items"].as_array().unwrap() {
        let text = |name: &str| letter[name].as_str().unwrap_or_default().to_owned();
        letters.entry((text("consumer"), letter["error"]["code"].as_str().unwrap().to_owned())).or_default().push(letter.clone());
    }
    letters
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_poison_record_ends_as_a_dead_letter_with_its_reason_and_the_next_event_flows() {
    let world = World::start(Store::Redis).await;
    let doors = world.doors();
    // The topic's own limit keeps out what is too large, and says so.
    let large = format!("{{\"task\":\"{}\"}}", "x".repeat(LARGE_BYTES));
    let said = world.produce(TRIGGERS, &record("a:b", "large", &large));
    assert!(said.contains("RecordTooLargeException"), "{said}");
    // Where somebody has raised it, such a record arrives.
    let raise =
        ["kafka-configs", "--alter", "--entity-type", "topics", "--entity-name", TRIGGERS, "--add-config", "max.message.bytes=4194304"];
    world.infrastructure.ask(&raise);
    let poison = [
        ("no JSON", record("a:b", "1", "this is no JSON")),
        ("an array", record("a:b", "2", "[1,2]")),
        ("JSON, and no event", record("a:b", "3", "{\"hello\":\"world\"}")),
        ("a tombstone", record("a:b", "4", "<null>")),
        ("2 MiB", record("a:b", "6", &large)),
        // Dapr before 1.18.3 would end on it, and again at each start.
        ("a number as traceid", record("a:b", "7", "{\"id\":\"\",\"source\":\"/x\",\"type\":\"t\",\"traceid\":7}")),
    ];
    let records: String = poison.iter().map(|(_, record)| record.as_str()).collect();
    let said = world.produce(TRIGGERS, &records);
    assert!(!said.contains("Exception"), "{said}");

    // Good requests in odd clothes.
    let task = fte_events::TaskId::now().to_string();
    let request = json!({"specversion": "1.0", "id": "odd-headers", "source": "/outside", "type": "fte.task.requested", "subject": task,
        "traceid": 7, "data": {"task_id": task, "task": "in odd clothes", "submitted_at": "2026-01-01T00:00:00Z"}});
    world.produce(TRIGGERS, &record(&odd_headers(), "8", &request.to_string()));
    // A deletion whose header names a trace ends a sidecar that looks into it.
    world.produce(TRIGGERS, &record("traceparent:00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "9", "<null>"));

    assert_eq!(result(&doors.status, &task).await["status"], "completed", "headers are no part of an event");
    for text in ["one", "two", "three"] {
        let next = post(&doors.intake, echo(text)).await;
        assert_eq!(result(&doors.status, &next).await["status"], "completed", "the next event flows");
    }
    let found = eventually_within(START_PATIENCE, || async {
        let found = letters(&world).await;
        let count: usize = found.values().map(Vec::len).sum();
        // Each of the two consumers gives up on each; both deletions are one and the same.
        if count >= 2 * poison.len() { Ok(found) } else { Err(format!("{count} letters: {found:#?}")) }
    })
    .await;
    for consumer in ["fte-runner", "fte-status"] {
        let own = &found[&(consumer.to_owned(), "unparsable".to_owned())];
        assert_eq!(own.len(), poison.len(), "{own:#?}");
        for letter in own {
            assert_eq!(letter["original_topic"], TRIGGERS, "{letter}");
            assert!(letter["error"]["message"].as_str().is_some_and(|message| !message.is_empty()), "{letter}");
        }
    }
    // The audit has them all, as they were.
    let unreadable = eventually_within(START_PATIENCE, || async {
        let trail = fte_tests::trail::entries(&doors.audit).await;
        let unreadable = trail.iter().filter(|entry| entry["kind"] != "event" && entry["topic"] == TRIGGERS).count();
        if unreadable >= poison.len() { Ok(unreadable) } else { Err(format!("{unreadable} in the audit")) }
    })
    .await;
    assert_eq!(unreadable, poison.len(), "the two deletions are the same bytes");
    for pair in &world.pairs {
        assert!(!pair.daprd.log().contains("panic"), "{}", pair.daprd.log_tail());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_headers_hold_up_no_topic() {
    let world = World::start(Store::Redis).await;
    let doors = world.doors();
    let task = post(&doors.intake, echo("whatever")).await;
    assert_eq!(result(&doors.status, &task).await["status"], "completed");
    let events: Value = eventually_within(START_PATIENCE, || async {
        let events = look(&doors.status, &format!("/v1/tasks/{task}/events?limit=1000")).await?;
        let count = events["items"].as_array().unwrap().len();
        // The request, its claim and its release, running and completed, the result.
        if count >= 6 { Ok(events) } else { Err(events.to_string()) }
    })
    .await;
    // The same happened to somebody else: once with odd headers, and then as it should be, in the same partition of each topic.
    let others = [fte_events::TaskId::now().to_string(), fte_events::TaskId::now().to_string()];
    for (other, headers) in others.iter().zip([odd_headers(), "a:b".to_owned()]) {
        let mut records: BTreeMap<String, String> = BTreeMap::new();
        for event in events["items"].as_array().unwrap() {
            let kind = event["type"].as_str().unwrap();
            let topic = TOPICS.iter().find(|topic| topic.types.iter().any(|it| it.name == kind)).unwrap();
            // A request would be worked on, and come to a second result.
            if topic.name == TRIGGERS {
                continue;
            }
            let mut event = event.clone();
            event["id"] = json!(format!("{}-of-{other}", event["id"].as_str().unwrap()));
            let value = event.to_string().replace(&task, other);
            records.entry(topic.name.to_string()).or_default().push_str(&record(&headers, "same", &value));
        }
        for (topic, records) in &records {
            let said = world.produce(topic, records);
            assert!(!said.contains("Exception"), "{said}");
        }
    }
    for other in &others {
        assert_eq!(result(&doors.status, other).await["status"], "completed", "{other}");
        eventually_within(START_PATIENCE, || async {
            let events = look(&doors.status, &format!("/v1/tasks/{other}/events?limit=1000")).await?;
            if events["items"].as_array().unwrap().len() >= 5 { Ok(()) } else { Err(events.to_string()) }
        })
        .await;
        eventually_within(START_PATIENCE, || async {
            let entries = look(&doors.audit, &format!("/v1/audit/entries?task_id={other}")).await?;
            if entries["items"].as_array().unwrap().len() >= 5 { Ok(()) } else { Err(entries.to_string()) }
        })
        .await;
    }
}
