//! Several replicas on one database: each event once, whoever is asked knows everything, and a killed server is waited out.

use std::sync::Arc;
use std::time::Duration;

use fte_events::{DeadLettered, Failure, Outgoing, ResultKind, Status, TENANT, TaskId, dead_letters, sample, triggers};
use fte_service::keys::Scope;
use fte_testkit::{Dir, FakeSidecar, eventually};

use crate::Config;
use crate::feed::Feed;
use crate::store::{PostgresOptions, Store, StoreOptions};
use crate::test_support::cluster::{Cluster, shared};
use crate::test_support::{Fixture, History, incoming};
use crate::wake::Waiters;

/// A replica of the service. Its own look at what others committed comes this often, besides their notices.
async fn replica(cluster: &Cluster, database: &str, look_every: Duration) -> Fixture<true> {
    let config = Config { waiters_max: 64, ..Config::default() };
    let options = PostgresOptions { look_every, ..PostgresOptions::at(cluster.url(database)) };
    let store = Store::connect(options, Waiters::new(config.waiters_max), Feed::new(64 * 1024, config.feeds_max)).await.unwrap();
    let dir = Dir::new();
    Fixture::around(store, StoreOptions::at(dir.join("unused")), config, dir, FakeSidecar::start().await)
}

const NOTICES_ALONE: Duration = Duration::from_secs(3600);

async fn two_replicas() -> [Fixture<true>; 2] {
    let database = shared().database().await;
    [replica(shared(), &database, NOTICES_ALONE).await, replica(shared(), &database, NOTICES_ALONE).await]
}

#[tokio::test]
async fn every_event_is_there_once_however_many_replicas_are_given_it_at_once() {
    let replicas = two_replicas().await;
    let histories: Vec<_> = (0..20).map(|_| History::whole(TaskId::now())).collect();
    let giving = histories.iter().flat_map(|history| {
        let halves = replicas.iter().flat_map(|replica| history.events.chunks(2).map(move |events| (replica, events.to_vec())));
        halves.map(|(replica, events)| async move { replica.store.record(incoming(events)).await.unwrap() })
    });
    futures_util::future::join_all(giving).await;
    for history in &histories {
        for replica in &replicas {
            let read = replica.store.events_of(history.task, TENANT.into(), 0, 1000, usize::MAX >> 1).await.unwrap();
            let mut found: Vec<String> = read.events.iter().map(|event| event.id.to_string()).collect();
            let mut expected = history.ids();
            found.sort();
            expected.sort();
            assert_eq!((found, read.complete), (expected, true));
        }
    }
}

#[tokio::test]
async fn streams_of_either_replica_are_whole_and_in_the_same_order_while_both_write() {
    let replicas = two_replicas().await;
    let mut streams = [replicas[0].stream("/v1/events", None).await, replicas[1].stream("/v1/events", None).await];
    let histories: Vec<_> = (0..60).map(|_| History::whole(TaskId::now())).collect();
    let count: usize = histories.iter().map(|history| history.events.len()).sum();
    let writing = histories.iter().enumerate().map(|(number, history)| {
        let replica = &replicas[number % 2];
        async move {
            for event in &history.events {
                replica.record([event.clone()]).await;
            }
        }
    });
    let (_, (one, other)) = tokio::join!(futures_util::future::join_all(writing), async {
        let [one, other] = &mut streams;
        tokio::join!(one.ids(count), other.ids(count))
    });
    assert_eq!(one, other);
    let mut found = one.clone();
    found.sort();
    found.dedup();
    assert_eq!(found.len(), count, "each once");
    // A stream cut at one replica goes on at the other.
    let middle = count / 2;
    assert_eq!(replicas[1].stream("/v1/events", Some(&one[middle - 1])).await.ids(count - middle).await, one[middle..]);
    let path = format!("/v1/tasks/{}/events", histories[0].task);
    let whole = replicas[0].stream(&path, None).await.rest().await;
    assert_eq!(replicas[1].stream(&path, Some(&whole[1])).await.rest().await, whole[2..]);
}

#[tokio::test]
async fn who_waits_at_one_replica_is_woken_by_what_the_other_commits() {
    let [one, other] = two_replicas().await;
    let history = History::of(TaskId::now()).requested("x").claimed().step(Status::Running);
    let path = format!("/v1/tasks/{}", history.task);
    let young = one.get_later(&path);
    one.waiting(1).await;
    other.record(history.events.clone()).await;
    assert_eq!(young.await.unwrap().expect(200)["status"], "running");

    let waiting = one.get_later(&format!("{path}/result?wait=60s"));
    one.waiting(1).await;
    let mut stream = one.stream(&format!("{path}/events"), None).await;
    assert_eq!(stream.ids(3).await, history.ids());
    let whole = history.ended(ResultKind::Completed);
    other.record(whole.events[3..].to_vec()).await;
    assert_eq!(waiting.await.unwrap().expect(200)["status"], "completed");
    assert_eq!(stream.rest().await, whole.ids()[3..]);
}

#[tokio::test]
async fn what_others_commit_is_found_without_their_notices_too() {
    let (database, elsewhere) = (shared().database().await, shared().database().await);
    let one = replica(shared(), &database, Duration::from_millis(50)).await;
    let other = replica(shared(), &elsewhere, NOTICES_ALONE).await;
    let mut stream = one.stream("/v1/events", None).await;
    // What `other` stores in a database of its own is copied over: commits that nobody tells of.
    let history = History::whole(TaskId::now());
    other.record(history.events.clone()).await;
    shared().copy_events(&elsewhere, &database).await;
    assert_eq!(stream.ids(history.events.len()).await, history.ids());
}

#[tokio::test]
async fn a_letter_is_decided_once_however_many_replicas_are_asked() {
    let replicas = two_replicas().await;
    let body = &History::of(TaskId::now()).requested("x").events[0].record.body;
    let data = DeadLettered::new(triggers::TOPIC, body, Failure::new("rejected", "no"), 1, sample::time(0), "fte-runner");
    let id = dead_letters::letter_id("fte-runner", body);
    let record = Outgoing::new("runner", id, sample::time(0), &data).to_bytes();
    assert_eq!(replicas[0].deliver_raw("fte.deadletter.runner", &[&record]).await, [true]);
    let path = format!("/v1/dead-letters/{id}/replay");
    let (one, other) = tokio::join!(replicas[0].post(&path), replicas[1].post(&path));
    assert_eq!(one.expect(200), other.expect(200));
    let published = replicas.iter().flat_map(|replica| replica.sidecar.published());
    assert_eq!(published.filter(|published| published.topic == triggers::TOPIC).count(), 1);
}

#[tokio::test]
async fn one_replica_sweeps_at_a_time() {
    let [one, other] = two_replicas().await;
    let first = one.store.sweeping_alone().await.unwrap();
    assert!(first.is_some() && other.store.sweeping_alone().await.unwrap().is_none());
    drop(first);
    eventually(|| async { other.store.sweeping_alone().await.unwrap().map(drop).ok_or("the lock is still held") }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_is_waited_out_and_nothing_acknowledged_is_lost() {
    let cluster = Arc::new(Cluster::start());
    let database = cluster.database().await;
    let replicas = [replica(&cluster, &database, Duration::from_secs(1)).await, replica(&cluster, &database, Duration::from_secs(1)).await];
    let mut live = replicas[1].stream("/v1/events", None).await;
    let mut expected = Vec::new();
    for round in 0..3 {
        let (history, killed) = (History::whole(TaskId::now()), Arc::clone(&cluster));
        let killing = tokio::task::spawn_blocking(move || killed.kill());
        for event in &history.events {
            // As the sidecar does: again until it is acknowledged.
            eventually(|| async { replicas[round % 2].store.record(incoming([event.clone()])).await }).await;
        }
        killing.await.unwrap();
        expected.extend(history.ids());
        for replica in &replicas {
            eventually(|| async { replica.store.check().await }).await;
            eventually(|| async {
                let row = replica.store.task(history.task, Scope::All).await.map_err(|error| error.to_string())?;
                row.filter(|row| row.record.is_complete()).map(drop).ok_or_else(|| "not complete".to_owned())
            })
            .await;
        }
    }
    assert_eq!(live.ids(expected.len()).await, expected);
}

#[tokio::test]
async fn the_password_is_in_no_error() {
    for url in ["postgres://fte:hunter2@127.0.0.1:1/status", "postgres://fte:hunter2@host:port/status", "postgres://fte:hunter2@%zz"] {
        let options = PostgresOptions::at(fte_service::Secret::new(url));
        assert!(!format!("{options:?}").contains("hunter2"));
        let error = Store::connect(options, Waiters::new(1), Feed::new(1, 1)).await.err().unwrap();
        let (chain, debug) = (fte_service::chain(&error), format!("{error:?}"));
        assert!(!chain.contains("hunter2") && !debug.contains("hunter2"), "{chain}");
    }
}
