//! A sidecar, or an app of it, that was off for longer than anything is kept: what nobody had read is still there, and what was done is known to be done.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fte_sidecar::{Options, TopicSpec};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::*;

const DAY: i64 = 86_400_000;

/// Makes everything in a data directory so much older, as it is after as long without a sidecar.
fn age(dir: &Path, by_ms: i64) {
    let db = rusqlite::Connection::open(dir.join("sidecar.sqlite")).unwrap();
    db.execute("UPDATE cursors SET seen_ms = seen_ms - ?1", [by_ms]).unwrap();
    db.execute("UPDATE batches SET at_ms = at_ms - ?1", [by_ms]).unwrap();
    db.execute("UPDATE state SET expires_ms = expires_ms - ?1", [by_ms]).unwrap();
}

fn count(dir: &Path, sql: &str) -> i64 {
    rusqlite::Connection::open(dir.join("sidecar.sqlite")).unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
}

/// What is too old is deleted at once; topic `soon` keeps nothing.
fn sweeping(options: &mut Options) {
    options.limits.sweep_interval = Duration::from_millis(10);
    let topic = |name: &str, retention| TopicSpec { name: name.to_owned(), partitions: 1, retention: Some(retention) };
    options.topics = vec![topic("t", Duration::from_secs(7 * 86_400)), topic("soon", Duration::from_millis(1))];
}

/// Waits until a whole sweep was made from now on.
async fn swept(daprd: &Daprd) {
    for _ in 0..2 {
        daprd.publish("soon", "k", json!(1)).await;
        daprd.publish("soon", "k", json!(2)).await;
        let soon = "SELECT count(*) FROM batches WHERE id >> 40 = (SELECT id FROM topics WHERE name = 'soon')";
        eventually("a sweep", async || (count(daprd.dir.path(), soon) == 1).then_some(())).await;
    }
}

/// A sidecar beside another app, for long enough to delete what it would.
async fn without_the_app(dir: Arc<TempDir>, change: impl FnOnce(&mut Options)) -> Arc<TempDir> {
    let other = App::start(json!([])).await;
    let daprd = Daprd::again(dir, &[("other", other.addr)], |options| {
        sweeping(options);
        change(options);
    })
    .await;
    swept(&daprd).await;
    daprd.stop().await
}

async fn save(daprd: &Daprd, key: &str, days: i64) {
    let metadata = json!({"ttlInSeconds": (days * 86_400).to_string()});
    daprd.post("/v1.0/state/statestore", &json!([{"key": key, "value": 1, "metadata": metadata}])).await.expect(204);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_had_read_arrives_however_long_nobody_was_there() {
    let app = App::start(json!([subscription("t")])).await;
    app.answer(|_| Reply(500, String::new()));
    let daprd = Daprd::with(&app, sweeping).await;
    for n in 0..20 {
        daprd.publish("t", "k", json!(n)).await;
    }
    app.wait_calls(1).await;
    let dir = daprd.crash();
    age(dir.path(), 9 * DAY);
    let dir = without_the_app(dir, |_| {}).await;
    let again = App::start(json!([subscription("t")])).await;
    let _daprd = Daprd::again(dir, &[("app", again.addr)], sweeping).await;
    assert_eq!(again.wait_data(20).await, numbers(20));
}

/// An app that remembers for eight days what it has done, of a topic that is kept for seven, would do again what comes again.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_remembered_when_all_went_off_is_remembered_when_things_come_again() {
    let app = App::start(json!([subscription("t")])).await;
    let daprd = Daprd::with(&app, sweeping).await;
    daprd.publish("t", "k", json!(1)).await;
    app.wait_data(1).await;
    save(&daprd, "done", 8).await;
    let dir = daprd.crash();
    let db = rusqlite::Connection::open(dir.path().join("sidecar.sqlite")).unwrap();
    db.execute("INSERT INTO state(key, etag, expires_ms, value) VALUES ('app||over', 1, 1, x'31')", []).unwrap();
    drop(db);
    age(dir.path(), 9 * DAY);
    let daprd = Daprd::again(dir, &[("app", app.addr)], sweeping).await;
    swept(&daprd).await;
    assert_eq!(daprd.get("/v1.0/state/statestore/done").await.expect(200).json(), 1);
    // What was over before is not brought back.
    daprd.get("/v1.0/state/statestore/over").await.expect(204);
    // And it is not remembered for ever.
    let days = "SELECT (expires_ms - unixepoch() * 1000) / 3600000 FROM state WHERE key = 'app||done'";
    assert!((20..=24).contains(&count(daprd.dir.path(), days)));
}

/// The sidecar was there, and only the app was not.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_has_its_time_while_others_publish_however_often_the_sidecar_starts() {
    let app = App::start(json!([subscription("t")])).await;
    let daprd = Daprd::with(&app, sweeping).await;
    daprd.publish("t", "k", json!(0)).await;
    app.wait_data(1).await;
    let dir = daprd.stop().await;
    let cursors = "SELECT count(*) FROM cursors WHERE app = 'app'";
    let db = rusqlite::Connection::open(dir.path().join("sidecar.sqlite")).unwrap();
    db.execute("UPDATE cursors SET seen_ms = seen_ms - ?1", [6 * DAY]).unwrap();
    let dir = without_the_app(dir, |_| {}).await;
    assert_eq!(count(dir.path(), cursors), 1);
    db.execute("UPDATE cursors SET seen_ms = seen_ms - ?1", [2 * DAY]).unwrap();
    let dir = without_the_app(dir, |_| {}).await;
    assert_eq!(count(dir.path(), cursors), 0);
}

/// It reads nothing, and is there for a moment each day.
#[tokio::test(flavor = "multi_thread")]
async fn a_short_visit_counts_though_nothing_is_read() {
    let app = App::start(json!([subscription("t")])).await;
    app.answer(|_| Reply(500, String::new()));
    let daprd = Daprd::with(&app, sweeping).await;
    daprd.publish_numbers("t", "k", 0, 1).await;
    app.wait_calls(1).await;
    let mut dir = daprd.crash();
    for _ in 0..3 {
        let db = rusqlite::Connection::open(dir.path().join("sidecar.sqlite")).unwrap();
        db.execute("UPDATE cursors SET seen_ms = seen_ms - ?1", [3 * DAY]).unwrap();
        let before = app.calls().len();
        let daprd = Daprd::again(dir, &[("app", app.addr)], sweeping).await;
        app.wait_calls(before + 1).await;
        dir = daprd.crash();
    }
    let dir = without_the_app(dir, |_| {}).await;
    assert_eq!(count(dir.path(), "SELECT count(*) FROM cursors WHERE app = 'app'"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_was_forgotten_is_given_nothing_that_is_too_old() {
    let app = App::start(json!([subscription("t")])).await;
    let daprd = Daprd::with(&app, sweeping).await;
    daprd.publish_numbers("t", "k", 0, 3).await;
    app.wait_data(3).await;
    let dir = daprd.stop().await;
    // The sidecar runs on for nine days without the app.
    let dir = without_the_app(dir, |options| options.limits.group_expiry = Duration::from_millis(1)).await;
    assert_eq!(count(dir.path(), "SELECT count(*) FROM cursors WHERE app = 'app'"), 0);
    age(dir.path(), 9 * DAY);
    let again = App::start(json!([subscription("t")])).await;
    let daprd = Daprd::again(dir, &[("app", again.addr)], sweeping).await.ready().await;
    daprd.publish("t", "k", json!("new")).await;
    assert_eq!(again.wait_data(1).await, [Value::from("new")]);
}
