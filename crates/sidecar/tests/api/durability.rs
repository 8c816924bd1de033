//! What survives: restarts, crashes, a full disk; and who may not open the data.

use std::path::Path;
use std::time::Duration;

use fte_sidecar::{StartError, TopicSpec};
use futures_util::FutureExt as _;
use http::Method;
use serde_json::json;

use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_survives_a_restart_and_goes_on_where_it_was() {
    let app = App::start(json!([subscription("t")])).await;
    let daprd = Daprd::beside(&app).await;
    daprd.publish_numbers("t", "k", 0, 10).await;
    daprd.post("/v1.0/state/statestore", &json!([{"key": "k", "value": 7}])).await.expect(204);
    app.wait_data(10).await;
    let dir = daprd.stop().await;
    let daprd = Daprd::again(dir, &[("app", app.addr)], |_| {}).await;
    assert_eq!(daprd.get("/v1.0/state/statestore/k").await.expect(200).json(), 7);
    daprd.publish_numbers("t", "k", 10, 10).await;
    // A clean stop flushed the position: nothing comes twice.
    assert_eq!(app.wait_data(20).await, numbers(20));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_loses_nothing_and_order_holds() {
    let app = App::start(json!([bulk("t", 5)])).await;
    app.answer(|call| Reply::bulk(call, |_| "SUCCESS"));
    let mut daprd = Daprd::beside(&app).await;
    for round in 0..5 {
        daprd.publish_numbers("t", "k", round * 100, 100).await;
        app.wait_data(round * 100 + 30).await;
        let dir = daprd.crash();
        daprd = Daprd::again(dir, &[("app", app.addr)], |_| {}).await;
    }
    eventually("the last", async || app.data().contains(&json!(499)).then_some(())).await;
    let mut seen = Vec::new();
    for value in app.data() {
        // First deliveries come in order; what comes again was there before.
        if !seen.contains(&value) {
            seen.push(value);
        }
    }
    assert_eq!(seen, numbers(500));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unanswered_delivery_comes_again_after_a_crash() {
    let app = App::start(json!([subscription("t")])).await;
    app.answer_later(|_| Box::pin(std::future::pending()));
    let daprd = Daprd::beside(&app).await;
    daprd.publish("t", "k", json!(1)).await;
    app.wait_data(1).await;
    app.answer(|_| Reply::ok());
    let _daprd = Daprd::again(daprd.crash(), &[("app", app.addr)], |_| {}).await;
    assert_eq!(app.wait_data(2).await, [1, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_waits_for_the_delivery_in_flight() {
    let app = App::start(json!([subscription("t")])).await;
    let (answer, answered) = tokio::sync::watch::channel(false);
    app.answer_later(move |_| {
        let mut answered = answered.clone();
        Box::pin(async move {
            answered.wait_for(|answered| *answered).await.unwrap();
            Reply::ok()
        })
    });
    let daprd = Daprd::beside(&app).await;
    daprd.publish("t", "k", json!("slow")).await;
    app.wait_data(1).await;
    let mut stop = Box::pin(daprd.stop());
    // It is told to stop, and waits.
    assert!((&mut stop).now_or_never().is_none());
    answer.send_replace(true);
    let dir = stop.await;
    let daprd = Daprd::again(dir, &[("app", app.addr)], |_| {}).await;
    daprd.publish("t", "k", json!("next")).await;
    assert_eq!(app.wait_data(2).await, ["slow", "next"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_is_refused() {
    let app = App::start(json!([])).await;
    let daprd = Daprd::beside(&app).await;
    let second = fte_sidecar::start(options(daprd.dir.path(), &[])).await;
    let error = second.err().expect("refused");
    assert!(matches!(error, StartError::Locked { .. }), "{error}");
    assert!(error.to_string().contains("in use by another process"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_cannot_be_made_is_named() {
    let dir = tempfile::TempDir::new().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let error = fte_sidecar::start(options(&file.join("data"), &[])).await.err().unwrap();
    assert!(error.to_string().contains("data"), "{error}");
    // The process file system takes no files from anyone.
    let error = fte_sidecar::start(options(Path::new("/proc/self/data"), &[])).await.err().unwrap();
    assert!(error.to_string().contains("/proc/self/data"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_named_before_anything_is_written() {
    let app = App::start(json!([])).await;
    let dir = tempfile::TempDir::new().unwrap();
    let mut options = options(dir.path(), &[("app", app.addr)]);
    options.apps[0].http = app.addr;
    let error = fte_sidecar::start(options).await.err().unwrap();
    assert!(matches!(error, StartError::Listen { .. }), "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// Fills the database to its cap; returns how many state items of `size` it took.
async fn fill(daprd: &Daprd, size: usize) -> usize {
    let value = "x".repeat(size);
    for n in 0..10_000 {
        let answer = daprd.post("/v1.0/state/statestore", &json!([{"key": format!("fill-{n}"), "value": value}])).await;
        if answer.status != 204 {
            assert_eq!(answer.status, 500);
            assert_eq!(answer.code(), "ERR_STATE_SAVE");
            let text = answer.json()["message"].as_str().unwrap().to_owned();
            assert!(text.contains("full") && text.contains("free space"), "{text}");
            return n;
        }
    }
    panic!("never full");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_an_error_and_recovers_by_itself() {
    let app = App::start(json!([subscription("t")])).await;
    let daprd = Daprd::with(&app, |options| options.database_bytes_max = Some(1 << 20)).await;
    daprd.publish("t", "k", json!("before")).await;
    let filled = fill(&daprd, 50_000).await;
    assert!(filled > 3);
    let big = "y".repeat(100_000);
    let refused = daprd.post("/v1.0/publish/pubsub/t", &json!(big)).await.expect(500);
    assert_eq!(refused.code(), "ERR_PUBSUB_PUBLISH_MESSAGE");
    let bulk = json!([{"entryId": "a", "event": big, "contentType": "application/json"}]);
    let refused = daprd.post("/v1.0/publish/bulk/pubsub/t", &bulk).await.expect(500);
    assert_eq!(refused.json()["failedEntries"][0]["entryId"], "a");
    // Reading goes on, and deleting makes room.
    assert_eq!(daprd.get("/v1.0/state/statestore/fill-0").await.expect(200).json().as_str().unwrap().len(), 50_000);
    for n in 0..filled {
        daprd.delete(&format!("/v1.0/state/statestore/fill-{n}")).await.expect(204);
    }
    daprd.post("/v1.0/publish/pubsub/t", &json!(big)).await.expect(204);
    daprd.publish("t", "k", json!("after")).await;
    let data = app.wait_data(3).await;
    assert_eq!(counts(&data)["\"before\""], 1);
    // What was refused is not there after a restart either.
    let dir = daprd.stop().await;
    let app = App::start(json!([subscription("t")])).await;
    let _daprd = Daprd::again(dir, &[("other", app.addr)], |_| {}).await;
    app.wait_data(3).await;
    assert_eq!(app.data().iter().filter(|data| data.as_str().unwrap().len() == 100_000).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn publishing_past_the_cap_is_refused_until_the_group_has_read() {
    let app = App::start(json!([subscription("t")])).await;
    app.answer(|_| Reply(500, String::new()));
    let daprd = Daprd::with(&app, |options| {
        options.bytes_max = 200_000;
        options.limits.sweep_interval = Duration::from_millis(20);
        options.limits.cursor_flush = Duration::from_millis(5);
        options.topics.push(one_partition("t"));
        options.resiliency = policy("{policy: constant, duration: 5ms, maxRetries: -1}");
    })
    .await
    .ready()
    .await;
    let big = "z".repeat(20_000);
    let publish = async || daprd.post("/v1.0/publish/pubsub/t", &json!(big)).await;
    let mut accepted = 0;
    let refused = loop {
        let answer = publish().await;
        if answer.status != 204 {
            break answer;
        }
        accepted += 1;
        assert!(accepted < 100, "the cap does not hold");
    };
    assert_eq!(refused.status, 500);
    assert!(refused.json()["message"].as_str().unwrap().contains("200000"), "{refused:?}");
    app.answer(|_| Reply::ok());
    eventually("accepted again", async || (publish().await.status == 204).then_some(())).await;
    // Every accepted one arrived.
    let delivered = eventually("all", async || {
        let offsets: std::collections::HashSet<String> = app.calls().iter().map(|call| call.header("__offset").to_owned()).collect();
        (offsets.len() > accepted).then_some(offsets)
    })
    .await;
    assert!((0..=accepted).all(|n| delivered.contains(&n.to_string())));
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_deletes_what_was_read_and_nothing_else() {
    let reader = App::start(json!([subscription("t")])).await;
    let stuck = App::start(json!([subscription("kept")])).await;
    stuck.answer(|_| Reply(500, String::new()));
    let dir = Daprd::of(&[("reader", reader.addr), ("stuck", stuck.addr)], |options| {
        options.limits.sweep_interval = Duration::from_millis(20);
        options.limits.cursor_flush = Duration::from_millis(5);
        for topic in ["t", "kept"] {
            options.topics.push(TopicSpec { name: topic.to_owned(), partitions: 1, retention: Some(Duration::from_millis(1)) });
        }
    })
    .await;
    for n in 0..30 {
        dir.publish("t", "k", json!(n)).await;
        dir.publish("kept", "k", json!(n)).await;
    }
    reader.wait_data(30).await;
    let daprd = dir;
    eventually("swept", async || {
        let db = rusqlite::Connection::open(daprd.dir.path().join("sidecar.sqlite")).unwrap();
        let rows = |name: &str| -> i64 {
            db.query_row("SELECT count(*) FROM batches JOIN topics ON topics.id = batches.id >> 40 WHERE topics.name = ?1", [name], |row| {
                row.get(0)
            })
            .unwrap()
        };
        assert_eq!(rows("kept"), 30);
        (rows("t") <= 2).then_some(())
    })
    .await;
    stuck.answer(|_| Reply::ok());
    eventually("all that was kept", async || (counts(&stuck.data()).len() == 30).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_go_on_after_retention_and_restart() {
    let app = App::start(json!([subscription("t")])).await;
    let quick = |options: &mut fte_sidecar::Options| {
        options.limits.sweep_interval = Duration::from_millis(20);
        options.topics.push(TopicSpec { name: "t".to_owned(), partitions: 2, retention: Some(Duration::from_millis(1)) });
    };
    // What nobody has joined for yet is kept for nobody.
    let daprd = Daprd::with(&app, quick).await.ready().await;
    for partition in [0, 0, 1] {
        daprd.send(Method::POST, &format!("/v1.0/publish/pubsub/t?metadata.partitionNumber={partition}"), &[], "x").await.expect(204);
    }
    app.wait_calls(3).await;
    let daprd = Daprd::again(daprd.stop().await, &[("app", app.addr)], quick).await;
    for partition in [0, 1] {
        daprd.send(Method::POST, &format!("/v1.0/publish/pubsub/t?metadata.partitionNumber={partition}"), &[], "y").await.expect(204);
    }
    let calls = app.wait_calls(5).await;
    let mut offsets: Vec<_> =
        calls[3..].iter().map(|call| (call.header("__partition").to_owned(), call.header("__offset").to_owned())).collect();
    offsets.sort();
    assert_eq!(offsets, [("0".into(), "2".into()), ("1".into(), "1".into())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_write_ahead_log_stays_bounded_under_load() {
    let app = App::start(json!([bulk("t", 500)])).await;
    app.answer(|call| Reply::bulk(call, |_| "SUCCESS"));
    let daprd = Daprd::beside(&app).await;
    let big = "w".repeat(100_000);
    let entries: Vec<_> = (0..20).map(|n| json!({"entryId": n.to_string(), "event": big, "contentType": "application/json"})).collect();
    let body = json!(entries);
    for _ in 0..80 {
        daprd.post("/v1.0/publish/bulk/pubsub/t", &body).await.expect(204);
    }
    let bytes = std::fs::metadata(daprd.dir.path().join("sidecar.sqlite-wal")).unwrap().len();
    // Of 160 MB. A reader that is under way may keep it from starting again, up to 64 MiB and what is written meanwhile.
    assert!(bytes < 96 << 20, "{bytes}");
}

fn count(daprd: &Daprd, sql: &str) -> i64 {
    let db = rusqlite::Connection::open(daprd.dir.path().join("sidecar.sqlite")).unwrap();
    db.query_row(sql, [], |row| row.get(0)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_nobody_uses_is_forgotten_in_time() {
    let app = App::start(json!([subscription("t")])).await;
    app.answer(|_| Reply(500, String::new()));
    let daprd = Daprd::beside(&app).await.ready().await;
    daprd.publish("t", "k", json!(0)).await;
    app.wait_calls(1).await;
    let dir = daprd.stop().await;
    let other = App::start(json!([])).await;
    let daprd = Daprd::again(dir, &[("other", other.addr)], |options| {
        options.limits.sweep_interval = Duration::from_millis(20);
        options.limits.group_expiry = Duration::from_millis(1);
        options.topics.push(TopicSpec { name: "t".to_owned(), partitions: 12, retention: Some(Duration::from_millis(1)) });
    })
    .await;
    for n in 1..5 {
        daprd.publish("t", "k", json!(n)).await;
    }
    eventually("forgotten", async || (count(&daprd, "SELECT count(*) FROM cursors") == 0).then_some(())).await;
    eventually("deleted", async || (count(&daprd, "SELECT count(*) FROM batches") == 1).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_state_is_deleted() {
    let app = App::start(json!([])).await;
    let daprd = Daprd::with(&app, |options| options.limits.sweep_interval = Duration::from_millis(20)).await;
    let item = |key: &str, ttl: &str| json!({"key": key, "value": 1, "metadata": {"ttlInSeconds": ttl}});
    daprd.post("/v1.0/state/statestore", &json!([item("short", "1"), item("long", "100"), item("ever", "-1")])).await.expect(204);
    eventually("deleted", async || (count(&daprd, "SELECT count(*) FROM state") == 2).then_some(())).await;
}
