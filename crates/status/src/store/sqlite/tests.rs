//! What is SQLite's own: files, disks and older versions.

use std::sync::atomic::Ordering;

use fte_events::{Status, TENANT, TaskId};
use fte_service::keys::Scope;
use fte_testkit::Dir;

use super::StoreOptions;
use crate::feed::Feed;
use crate::store::tests::{events, seen};
use crate::store::{ListQuery, NewLetter, Store, StoreError};
use crate::test_support::{History, incoming, made, open};
use crate::wake::Waiters;

#[tokio::test]
async fn what_was_acknowledged_survives_a_crash() {
    let dir = Dir::new();
    let store = open(StoreOptions::at(dir.join("status.sqlite")));
    let crashed = Dir::new();
    for round in 0..4 {
        let history = History::whole(TaskId::now());
        store.record(incoming(history.events.clone())).await.unwrap();
        // What a crash would leave: the files as they are, without the shared memory, nothing closed.
        let copy = crashed.join(format!("{round}"));
        std::fs::create_dir(&copy).unwrap();
        for file in ["status.sqlite", "status.sqlite-wal"] {
            std::fs::copy(dir.join(file), copy.join(file)).unwrap();
        }
        let after = open(StoreOptions::at(copy.join("status.sqlite")));
        assert_eq!(seen(&after).await, seen(&store).await);
        after.record(incoming(History::whole(TaskId::now()).events)).await.unwrap();
        assert_eq!(seen(&after).await.len(), round + 2);
    }
}

#[tokio::test]
async fn a_full_disk_acknowledges_nothing_and_heals_by_itself() {
    let dir = Dir::new();
    let options = StoreOptions::at(dir.join("status.sqlite"));
    let store = open(options.clone());
    store.record(incoming(History::whole(TaskId::now()).events)).await.unwrap();
    options.pages_max.store(64, Ordering::Relaxed);

    let mut acknowledged = 1;
    let lost = loop {
        let history = History::whole(TaskId::now());
        match store.record(incoming(history.events.clone())).await {
            Ok(()) => acknowledged += 1,
            Err(error) => {
                assert!(fte_service::chain(&error).contains("full"), "{}", fte_service::chain(&error));
                break history;
            }
        }
    };
    assert!(acknowledged > 1);
    assert_eq!(seen(&store).await.len(), acknowledged, "a failed write changes nothing");
    options.pages_max.store(1, Ordering::Relaxed);
    assert!(store.check().await.is_err(), "not ready while it is full");

    options.pages_max.store(0, Ordering::Relaxed);
    store.check().await.unwrap();
    store.record(incoming(lost.events.clone())).await.unwrap();
    assert_eq!(events(&store, lost.task).await, lost.ids());
}

/// A store that refuses events of this type, as no valid one is refused today.
fn refusing(path: &std::path::Path, event_type: &str) -> rusqlite::Connection {
    let other = rusqlite::Connection::open(path).unwrap();
    let sql =
        format!("CREATE TRIGGER refuse BEFORE INSERT ON event WHEN NEW.type = '{event_type}' BEGIN SELECT RAISE(ABORT, 'refused'); END");
    other.execute_batch(&sql).unwrap();
    other
}

#[tokio::test]
async fn a_row_that_is_refused_fails_nobody_else() {
    let dir = Dir::new();
    let path = dir.join("status.sqlite");
    let store = open(StoreOptions::at(&path));
    let other = refusing(&path, "fte.status.changed");
    let (good, bad, letter) = (History::of(TaskId::now()).requested("say hello"), History::whole(TaskId::now()), "a".to_owned());
    // All that comes while the writer cannot write forms one group.
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let letter = NewLetter {
        id: letter,
        task: None,
        tenant: TENANT.into(),
        topic: "fte.deadletter.status".into(),
        record: bytes::Bytes::from_static(b"{}"),
    };
    let (first, good_one, bad_one, good_other, letters, ()) = tokio::join!(
        store.record(incoming(History::of(TaskId::now()).requested("first").events)),
        store.record(incoming(good.events.clone())),
        store.record(incoming(bad.events.clone())),
        store.record(incoming(History::of(TaskId::now()).requested("other").events)),
        store.record_letters(vec![letter]),
        async { other.execute_batch("COMMIT").unwrap() },
    );
    first.unwrap();
    good_one.unwrap();
    good_other.unwrap();
    assert_eq!(letters.unwrap(), 1);
    assert!(bad_one.unwrap_err().is_refusal());
    assert!(store.task(bad.task, Scope::All).await.unwrap().is_none(), "a refused command changes nothing");
    store.check().await.unwrap();

    // Of one delivery, too, only what is refused fails.
    let outcomes = store.record_each(incoming(bad.events.clone())).await;
    let refused: Vec<bool> = outcomes.iter().map(Result::is_err).collect();
    let expected: Vec<bool> = bad.events.iter().map(|delivery| delivery.event.event_type == "fte.status.changed").collect();
    assert_eq!(refused, expected);
    assert!(store.task(bad.task, Scope::All).await.unwrap().is_some());
}

#[tokio::test]
async fn a_removed_database_is_an_empty_one() {
    let dir = Dir::new();
    let options = StoreOptions::at(dir.join("deeper/status.sqlite"));
    let store = open(options.clone());
    store.record(incoming(History::whole(TaskId::now()).events)).await.unwrap();
    drop(store);
    std::fs::remove_dir_all(dir.join("deeper")).unwrap();
    let store = open(options);
    assert_eq!(seen(&store).await.len(), 0);
    store.record(incoming(History::whole(TaskId::now()).events)).await.unwrap();
    assert_eq!(seen(&store).await.len(), 1);
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_not_touched() {
    let dir = Dir::new();
    let path = dir.join("status.sqlite");
    rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let error = Store::open(StoreOptions::at(&path), Waiters::new(1), Feed::new(1, 1)).err().unwrap();
    assert!(matches!(error, StoreError::Newer { found: 99, .. }), "{error}");
}

#[tokio::test]
async fn a_database_from_before_there_were_tenants_is_the_usual_tenants() {
    let dir = Dir::new();
    let path = dir.join("status.sqlite");
    // As the version before wrote it.
    let (task, seq) = (TaskId::now(), 7);
    let history = History::of(task).requested("say hello");
    let before = rusqlite::Connection::open(&path).unwrap();
    before.execute_batch(include_str!("tests/schema_1.sql")).unwrap();
    let said = crate::model::Said { row: seq, at_us: Some(1), mark: 1 };
    let mut record = crate::model::TaskRecord::default();
    record.fold(&incoming(history.events.clone())[0].change, said);
    let (id, body) = (&task.as_bytes()[..], &history.events[0].record.body[..]);
    let event_id = uuid::Uuid::parse_str(&history.events[0].event.id).unwrap();
    let event = rusqlite::params![seq, id, &event_id.as_bytes()[..], "/fte/intake", "fte.task.requested", body];
    before.execute("INSERT INTO event (seq, task, id, source, type, stored, body) VALUES (?1, ?2, ?3, ?4, ?5, 0, ?6)", event).unwrap();
    let text = serde_json::to_string(&record).unwrap();
    before
        .execute("INSERT INTO task (id, status, agent, created, record) VALUES (?1, 0, 'writer', 1, ?2)", rusqlite::params![id, text])
        .unwrap();
    before.execute("INSERT INTO letter (id, state, stored, topic, record) VALUES ('l', 0, 0, 'fte.deadletter.runner', x'00')", []).unwrap();
    drop(before);

    for _ in 0..2 {
        let store = open(StoreOptions::at(&path));
        let own = || Scope::One(TENANT.into());
        assert_eq!(events(&store, task).await[0], history.ids()[0]);
        let listed = store.tasks(ListQuery { scope: own(), limit: 2, ..ListQuery::default() }).await.unwrap();
        assert_eq!(listed.rows.iter().map(|row| (row.id, &*row.tenant)).collect::<Vec<_>>(), [(task, TENANT)]);
        assert!(store.letter("l".into(), own()).await.unwrap().is_some());
        // What comes now adds to what was there.
        store.record(incoming(History::whole(task).events)).await.unwrap();
        assert_eq!(store.task(task, own()).await.unwrap().unwrap().record.status(), Status::Completed);
        store.record(incoming(History::whole(TaskId::now()).of_tenant("acme").events)).await.unwrap();
        assert!(seen(&store).await.len() >= 2);
    }
}

#[tokio::test]
async fn a_database_from_before_artifacts_were_named_names_those_of_its_events() {
    let dir = Dir::new();
    let path = dir.join("status.sqlite");
    let (history, digest) = made();
    open(StoreOptions::at(&path)).record(incoming(history.events.clone())).await.unwrap();
    let before = "DROP TABLE artifact; DROP TABLE unnamed; PRAGMA user_version = 2";
    rusqlite::Connection::open(&path).unwrap().execute_batch(before).unwrap();
    for _ in 0..2 {
        let store = open(StoreOptions::at(&path));
        let named = store.artifacts_of(history.task, TENANT.into()).await.unwrap();
        assert_eq!(named.iter().map(|named| (named.name.as_str(), named.digest)).collect::<Vec<_>>(), [("a.txt", digest)]);
    }
}
