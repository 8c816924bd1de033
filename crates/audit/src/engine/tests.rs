//! The promises of the log: each identity once, numbers without a gap, durable when acknowledged, found again.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use fte_bus::Record;
use fte_events::{EventName, TaskId, event_id};
use serde_json::{Value, json};

use super::*;
use crate::entry::Task;
use crate::entry::leaf::Flag;

mod compare;
mod crash;
mod every_call;
mod files;
mod own;
mod retiring;
mod rotation;
mod unparsed;

/// 10:00:00 UTC on the first of July 2026.
const JULY_2026: i64 = 1_782_900_000_000;
const TOPIC: &str = "fte.status.updates";

pub(crate) fn test_key() -> Arc<SignerKey> {
    Arc::new(SignerKey::new("log.test", fte_tlog::KeyAlgorithm::Ed25519, &[7; 32]).unwrap())
}

fn options(directory: &Path) -> EngineOptions {
    EngineOptions { group_open: Duration::ZERO, ..EngineOptions::at(directory.join("audit"), test_key()) }
}

fn open(directory: &Path) -> Engine {
    Engine::open(options(directory)).unwrap()
}

fn record(topic: &str, body: impl Into<Bytes>) -> NewEntry {
    NewEntry::read(Record { topic: topic.into(), body: body.into(), partition: Some(1), offset: Some(7), key: None })
}

fn event(value: &Value) -> NewEntry {
    record(TOPIC, value.to_string())
}

fn numbered(id: usize) -> Value {
    let task = TaskId::mint(jiff::Timestamp::from_millisecond(JULY_2026 + i64::try_from(id).unwrap() / 60).unwrap(), id as u128 / 6);
    let id = event_id(task, EventName::Status { sequence: id as u64 });
    json!({"id": id, "source": "/fte/runner", "type": "fte.status.changed", "subject": task, "data": {"n": id}})
}

/// All entries that a query finds, page by page, but for the log's own.
async fn all(log: &Engine, query: Query) -> Vec<Entry> {
    let mut found = every(log, query).await;
    found.retain(|entry| entry.header.kind.is_received());
    found
}

/// All entries that a query finds, page by page.
async fn every(log: &Engine, query: Query) -> Vec<Entry> {
    let mut found = Vec::new();
    let mut after = query.after;
    loop {
        let page = log.entries(Query { after, ..query.clone() }).await.unwrap();
        found.extend(page.entries);
        after = page.next;
        if after.is_none() {
            return found;
        }
    }
}

fn any() -> Query {
    Query { limit: 1000, ..Query::default() }
}

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &to);
        } else if let Err(error) = std::fs::copy(entry.path(), to) {
            // A partial tile may go at any time.
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
        }
    }
}

fn ids(entries: &[Entry]) -> Vec<String> {
    entries.iter().map(|entry| entry.header.id.clone().unwrap().into_owned()).collect()
}

fn assert_gapless(entries: &[Entry]) {
    let mut next = HashMap::new();
    let mut last_ms = 0;
    for entry in entries {
        let expected = next.entry(entry.position.shard).or_insert(0);
        assert_eq!(entry.position.index, *expected);
        *expected += 1;
        assert!(entry.header.logged_time >= last_ms);
        last_ms = entry.header.logged_time;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p04_each_event_is_there_once_after_duplicates_disorder_and_reopening_without_a_close() {
    const EVENTS: usize = 6000;
    let directory = tempfile::tempdir().unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    let mut deliveries: Vec<usize> = (0..EVENTS).collect();
    deliveries.extend((0..EVENTS * 3 / 10).map(|_| random.usize(..EVENTS)));
    // Out of order, though not wildly: what a rebalance does.
    for chunk in deliveries.chunks_mut(500) {
        random.shuffle(chunk);
    }
    // Each third of the deliveries finds a log that was left without being closed: a copy of its files, as after a crash.
    let mut at = directory.path().join("0");
    std::fs::create_dir(&at).unwrap();
    for (round, third) in deliveries.chunks(deliveries.len() / 3 + 1).enumerate() {
        let log = Arc::new(open(&at));
        let mut calls = tokio::task::JoinSet::new();
        for batch in third.chunks(97) {
            let log = Arc::clone(&log);
            let entries: Vec<_> = batch.iter().map(|id| event(&numbered(*id))).collect();
            // Every batch comes twice, at the same time.
            let again = (Arc::clone(&log), entries.clone());
            calls.spawn(async move { log.append(entries).await.unwrap().len() });
            calls.spawn(async move { again.0.append(again.1).await.unwrap().len() });
        }
        assert_eq!(calls.join_all().await.iter().sum::<usize>(), third.len() * 2);
        let copy = directory.path().join((round + 1).to_string());
        std::fs::create_dir(&copy).unwrap();
        copy_tree(&at, &copy);
        at = copy;
    }

    let log = open(&at);
    assert_gapless(&every(&log, any()).await);
    let entries = all(&log, any()).await;
    let mut found = ids(&entries);
    found.sort();
    let mut expected: Vec<_> = (0..EVENTS).map(|id| numbered(id)["id"].as_str().unwrap().to_owned()).collect();
    expected.sort();
    assert_eq!(found, expected);
    // A replay from the first offset adds nothing.
    let replay: Vec<_> = (0..EVENTS).map(|id| event(&numbered(id))).collect();
    assert!(log.append(replay).await.unwrap().iter().all(|outcome| *outcome == Appended::Known));
    assert_eq!(all(&log, any()).await.len(), EVENTS);
}

#[tokio::test]
async fn an_acknowledged_entry_is_the_exact_bytes_that_came() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    let body = "\n {\"source\":\"/s\" , \"id\":\"1\",\"data\":{\"b\":1.00,\"a\":\"\\u0041\"}}\n";
    let outcome = log.append(vec![record(TOPIC, body)]).await.unwrap();
    let Appended::New(position) = outcome[0] else { panic!("{outcome:?}") };
    let entry = log.entry(position).await.unwrap().unwrap();
    assert_eq!((entry.bytes.as_deref(), entry.header.kind, entry.topic()), (Some(body.as_bytes()), Kind::Event, TOPIC));
    assert_eq!((entry.header.partition, entry.header.offset), (Some(1), Some(7)));
    let digest: [u8; 32] = sha2::Digest::finalize(<sha2::Sha256 as sha2::Digest>::new_with_prefix(body)).into();
    assert_eq!(entry.header.payload_sha256, digest);
    for position in [Position { index: 2, ..position }, Position { shard: 1, index: 0 }, Position { index: u64::MAX, ..position }] {
        assert!(log.entry(position).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn the_same_identity_with_other_content_is_kept_as_a_conflict_once() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    let first = json!({"id": "1", "source": "/s", "type": "t", "data": {"amount": 1}});
    let rewritten = json!({"id": "1", "source": "/s", "type": "t", "data": {"amount": 1.0}, "traceid": "x", "topic": "y"});
    let forged = json!({"id": "1", "source": "/s", "type": "t", "data": {"amount": 2}});
    // All in one group, too: what is not yet committed is recognised as well.
    let outcomes = log.append([&first, &rewritten, &forged, &first, &forged].map(event).to_vec()).await.unwrap();
    let place = |index| Position { shard: outcome_shard(&outcomes[0]), index };
    assert_eq!(outcomes, [Appended::New(place(1)), Appended::Known, Appended::Conflict(place(2)), Appended::Known, Appended::Known]);
    let again = log.append([&forged, &rewritten, &first].map(event).to_vec()).await.unwrap();
    assert_eq!(again, [Appended::Known; 3]);
    let entries = all(&log, any()).await;
    let kinds: Vec<_> = entries.iter().map(|entry| entry.header.kind).collect();
    assert_eq!(kinds, [Kind::Event, Kind::Conflict]);
    assert_eq!(entries[1].bytes.as_deref(), Some(forged.to_string().as_bytes()));
}

fn outcome_shard(outcome: &Appended) -> u16 {
    match outcome {
        Appended::New(position) | Appended::Conflict(position) => position.shard,
        Appended::Known => panic!("not written"),
    }
}

#[tokio::test]
async fn what_is_no_event_is_kept_as_evidence_once_for_each_topic() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    let bodies: [&'static [u8]; 4] = [b"not json", b"", b"\xff\xfe\0", b"{\"no\":\"identity\"}"];
    let records = |topic: &str| bodies.iter().map(|body| record(topic, *body)).collect::<Vec<_>>();
    for topic in ["fte.triggers.inbound", "fte.deadletter.runner", "fte.triggers.inbound"] {
        log.append(records(topic)).await.unwrap();
    }
    assert_gapless(&every(&log, any()).await);
    let entries = all(&log, any()).await;
    assert_eq!(entries.len(), bodies.len() * 2);
    for (entry, body) in entries.iter().zip(bodies.iter().chain(&bodies)) {
        assert_eq!((entry.header.kind, entry.bytes.as_deref()), (Kind::Unparsed, Some(*body)));
    }
}

#[tokio::test]
async fn years_are_shards_and_time_never_goes_back() {
    let directory = tempfile::tempdir().unwrap();
    let now = Arc::new(AtomicI64::new(JULY_2026));
    let clock = Arc::clone(&now);
    let options = EngineOptions { clock: Arc::new(move || clock.load(Ordering::Relaxed)), ..options(directory.path()) };
    let log = Engine::open(options.clone()).unwrap();
    let year = 365 * 24 * 60 * 60 * 1000;
    for (round, time) in [JULY_2026, JULY_2026 - 5, JULY_2026 + year, JULY_2026, JULY_2026 + 3 * year].into_iter().enumerate() {
        now.store(time, Ordering::Relaxed);
        log.append(vec![event(&numbered(round * 2)), event(&numbered(round * 2 + 1))]).await.unwrap();
    }
    drop(log);
    let log = Engine::open(options).unwrap();
    log.append(vec![event(&numbered(100))]).await.unwrap();
    let entries = every(&log, Query { limit: 3, ..any() }).await;
    assert_gapless(&entries);
    let opened: Vec<_> = entries.iter().filter(|entry| entry.header.kind == Kind::ShardOpen).map(|entry| entry.position).collect();
    assert_eq!(opened, [2026, 2027, 2029].map(|shard| Position { shard, index: 0 }));
    // Each names the last checkpoint of the one before, which still stands.
    let payload: Value =
        serde_json::from_slice(entries.iter().find(|entry| entry.position == opened[2]).unwrap().bytes.as_deref().unwrap()).unwrap();
    let last = log.checkpoint(Some(2027)).await.unwrap().unwrap();
    assert_eq!((&payload["previous"]["shard"], payload["previous"]["checkpoint"].as_str()), (&json!(2027), Some(&*last.note)));
    assert_eq!(last.checkpoint.size, 5);
    let back: Vec<_> =
        entries.iter().filter(|entry| entry.header.flags.contains(&Flag::ClockBack)).map(|entry| entry.position.index).collect();
    assert_eq!(back, [3, 4, 3, 4]);
    let entries = all(&log, Query { limit: 3, ..any() }).await;
    let shards: Vec<_> = entries.iter().map(|entry| entry.position.shard).collect();
    assert_eq!(shards, [2026, 2026, 2026, 2026, 2027, 2027, 2027, 2027, 2029, 2029, 2029]);

    let after = |shard, index| Query { after: Some(Position { shard, index }), ..any() };
    for (query, count) in [
        (after(2026, 4), 7),
        (after(2026, 900), 7),
        (after(2025, 0), 11),
        (after(2028, 4), 3),
        (after(2029, 3), 0),
        (after(2030, 0), 0),
        (Query { from_ms: Some(JULY_2026 + 1), ..any() }, 7),
        (Query { to_ms: Some(JULY_2026 + year), ..any() }, 4),
        (Query { from_ms: Some(JULY_2026 + year), to_ms: Some(JULY_2026 + year + 1), ..any() }, 4),
        (Query { from_ms: Some(0), to_ms: Some(0), ..any() }, 0),
    ] {
        assert_eq!(all(&log, query.clone()).await.len(), count, "{query:?}");
    }
}

#[tokio::test]
async fn entries_are_found_by_task_agent_action_actor_and_outcome() {
    const EVENTS: usize = 3000;
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    let task = |n: usize| TaskId::mint(jiff::Timestamp::from_millisecond(JULY_2026).unwrap(), (n % 7) as u128);
    let action = |n: usize| {
        let agent = if n % 500 == 3 { "rare" } else { "writer" };
        let outcome = if n % 300 == 5 { "denied" } else { "success" };
        json!({"id": n.to_string(), "source": "/fte/runner", "type": "fte.action.recorded", "subject": task(n),
            "data": {"agent": agent, "action": format!("tool.{}", n % 3), "actor": {"type": "user", "id": format!("user-{}", n % 1000)}, "outcome": outcome}})
    };
    for first in (0..EVENTS).step_by(250) {
        log.append((first..first + 250).map(|n| event(&action(n))).collect()).await.unwrap();
    }
    let text = |text: &str| Some(text.to_owned());
    let expected = |wanted: &dyn Fn(usize) -> bool| (0..EVENTS).filter(|n| wanted(*n)).map(|n| n.to_string()).collect::<Vec<_>>();
    let rare = Query { agent: text("rare"), ..any() };
    for (query, wanted) in [
        (rare.clone(), expected(&|n| n % 500 == 3)),
        (Query { limit: 1, ..rare.clone() }, expected(&|n| n % 500 == 3)),
        (Query { action: text("tool.1"), ..any() }, expected(&|n| n % 3 == 1)),
        (Query { action: text("fte.action.recorded"), ..any() }, expected(&|_| true)),
        (Query { actor: text("user-17"), ..any() }, expected(&|n| n % 1000 == 17)),
        (Query { outcome: text("denied"), agent: text("writer"), ..any() }, expected(&|n| n % 300 == 5 && n % 500 != 3)),
        (Query { outcome: text("denied"), agent: text("rare"), ..any() }, expected(&|n| n % 300 == 5 && n % 500 == 3)),
        (Query { task: Some(Task::Id(*task(2).as_uuid())), ..any() }, expected(&|n| n % 7 == 2)),
        (Query { task: Some(Task::Id(*task(2).as_uuid())), actor: text("user-16"), ..any() }, expected(&|n| n % 7 == 2 && n % 1000 == 16)),
        (Query { agent: text("nobody"), ..any() }, vec![]),
        (Query { task: Some(Task::from("nothing")), ..any() }, vec![]),
    ] {
        assert_eq!(ids(&all(&log, query.clone()).await), wanted, "{query:?}");
    }
}

#[tokio::test]
async fn a_tenant_finds_its_own_entries_and_the_first_one_what_nobody_can_read() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    let of = |n: usize, tenant: &str| {
        let mut event = numbered(n);
        event["ftetenant"] = tenant.into();
        event
    };
    let mut events: Vec<NewEntry> = (0..600).map(|n| event(&of(n, if n % 100 == 7 { "acme" } else { "default" }))).collect();
    events.push(event(&numbered(600)));
    events.push(record(TOPIC, "no event"));
    log.append(events).await.unwrap();
    let tenant = |name: &str| Query { tenant: Some(name.to_owned()), ..any() };
    assert_eq!(all(&log, tenant("acme")).await.len(), 6);
    assert_eq!(all(&log, tenant("default")).await.len(), 594 + 2);
    assert_eq!(all(&log, tenant("nobody")).await.len(), 0);
    let task = event(&of(7, "acme")).task;
    assert_eq!(all(&log, Query { task: task.clone(), ..tenant("acme") }).await.len(), 1);
    assert_eq!(all(&log, Query { task, ..tenant("default") }).await.len(), 5);
}

#[tokio::test]
async fn a_hole_in_a_publishers_counter_is_seen_until_it_is_filled() {
    let directory = tempfile::tempdir().unwrap();
    let action = |epoch: &str, sequence: u64| {
        let body = json!({"id": format!("{epoch}{sequence}"), "source": "/fte/intake", "type": "fte.action.recorded",
            "sequence": sequence.to_string(), "fteepoch": epoch});
        record("fte.audit.actions", body.to_string())
    };
    let log = open(directory.path());
    let missing = async |log: &Engine| log.entries(any()).await.unwrap().actions_missing;
    log.append(vec![action("a", 2), action("a", 1), action("b", 1), action("a", 2)]).await.unwrap();
    assert_eq!(missing(&log).await, 0);
    log.append(vec![action("a", 5), action("b", 3)]).await.unwrap();
    assert_eq!(missing(&log).await, 3);
    drop(log);
    let log = open(directory.path());
    log.append(vec![action("b", 2), action("a", 3)]).await.unwrap();
    assert_eq!(missing(&log).await, 1);
    // Numbers that no counter reaches do not count, however many come.
    let absurd = (0..4).map(|epoch| action(&format!("e{epoch}"), u64::MAX)).collect();
    log.append(absurd).await.unwrap();
    drop(log);
    assert_eq!(missing(&open(directory.path())).await, 1);
}
