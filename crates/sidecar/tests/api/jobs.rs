//! Jobs: when they are called, how often, and what survives.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fte_testkit::in_time;
use serde_json::{Value, json};

use crate::support::*;

const JOBS: &str = "/v1.0/jobs";

async fn daprd() -> (App, Daprd) {
    let app = App::start(json!([])).await;
    let daprd = Daprd::beside(&app).await.ready().await;
    (app, daprd)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_called_when_it_is_due_with_its_data() {
    let (app, daprd) = daprd().await;
    for (route, name) in [("/v1.0/jobs", "a"), ("/v1.0-alpha1/jobs", "b")] {
        daprd.post(&format!("{route}/{name}"), &json!({"dueTime": "50ms", "data": {"x": [1]}})).await.expect(204);
    }
    let calls = app.wait_calls(2).await;
    let mut paths: Vec<_> = calls.iter().map(|call| call.path.clone()).collect();
    paths.sort();
    assert_eq!(paths, ["/job/a", "/job/b"]);
    assert_eq!(calls[0].json(), json!({"x": [1]}));
    assert_eq!(calls[0].header("content-type"), "application/json");
    // Done is gone.
    eventually("gone", async || (daprd.get(&format!("{JOBS}/a")).await.status == 500).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_repeats_as_often_as_it_says() {
    let (app, daprd) = daprd().await;
    let job = json!({"schedule": "@every 20ms", "repeats": 3});
    daprd.post(&format!("{JOBS}/r"), &job).await.expect(204);
    app.wait_calls(3).await;
    eventually("gone", async || (daprd.get(&format!("{JOBS}/r")).await.status == 500).then_some(())).await;
    assert_eq!(app.calls().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_read_replaced_and_deleted() {
    let (_app, daprd) = daprd().await;
    let path = format!("{JOBS}/j");
    let job = json!({"schedule": "@daily", "repeats": 2, "data": "d"});
    daprd.post(&path, &job).await.expect(204);
    let read = daprd.get(&path).await.expect(200).json();
    assert_eq!(read, json!({"name": "j", "schedule": "@daily", "repeats": 2, "data": "d"}));
    daprd.post(&path, &json!({"dueTime": "1h"})).await.expect(409);
    daprd.post(&path, &json!({"dueTime": "1h", "overwrite": true})).await.expect(204);
    assert_eq!(daprd.get(&path).await.expect(200).json()["dueTime"], "1h");
    daprd.delete(&path).await.expect(204);
    daprd.delete(&path).await.expect(204);
    daprd.get(&path).await.expect(500);
    for bad in [json!({}), json!({"dueTime": "soon"}), json!({"schedule": "* * * * *"})] {
        daprd.post(&path, &bad).await.expect(400);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_job_is_tried_again_and_404_ends_it() {
    let (app, daprd) = daprd().await;
    let tries = Arc::new(AtomicUsize::new(0));
    app.answer({
        let tries = tries.clone();
        move |call| match call.path.as_str() {
            "/job/fails" => Reply(if tries.fetch_add(1, Ordering::SeqCst) < 2 { 500 } else { 200 }, String::new()),
            _ => Reply(404, String::new()),
        }
    });
    let failing = json!({"dueTime": "0s", "failurePolicy": {"constant": {"interval": "10ms", "maxRetries": 5}}});
    daprd.post(&format!("{JOBS}/fails"), &failing).await.expect(204);
    daprd.post(&format!("{JOBS}/unknown"), &json!({"dueTime": "0s"})).await.expect(204);
    for name in ["fails", "unknown"] {
        eventually("gone", async || (daprd.get(&format!("{JOBS}/{name}")).await.status == 500).then_some(())).await;
    }
    let paths: Vec<Value> = app.calls().iter().map(|call| json!(call.path)).collect();
    assert_eq!(counts(&paths)["\"/job/fails\""], 3);
    assert_eq!(counts(&paths)["\"/job/unknown\""], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_survives_a_crash_and_waits_for_its_app_without_spending_a_retry() {
    let (mut app, daprd) = daprd().await;
    app.down().await;
    let job = json!({"dueTime": "10ms", "failurePolicy": {"drop": {}}, "data": 1});
    daprd.post(&format!("{JOBS}/j"), &job).await.expect(204);
    eventually("away", async || (daprd.get("/v1.0/healthz").await.status == 500).then_some(())).await;
    let _daprd = Daprd::again(daprd.crash(), &[("app", app.addr)], |_| {}).await;
    app.up().await;
    assert_eq!(app.wait_calls(1).await[0].path, "/job/j");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_with_special_characters_come_back_as_they_were() {
    let (app, daprd) = daprd().await;
    daprd.post(&format!("{JOBS}/task%2F1%20x:approval"), &json!({"dueTime": "0s"})).await.expect(204);
    assert_eq!(app.wait_calls(1).await[0].path, "/job/task%2F1%20x:approval");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_job_is_not_called_and_many_jobs_each_are() {
    let (app, daprd) = daprd().await;
    for n in 0..300 {
        daprd.post(&format!("{JOBS}/n{n}"), &json!({"dueTime": "300ms"})).await.expect(204);
    }
    let (deleted, due) = in_time(Duration::from_millis(300), async |due| {
        let (name, began) = (format!("deleted-{}", due.as_millis()), Instant::now());
        daprd.post(&format!("{JOBS}/{name}"), &json!({"dueTime": format!("{}ms", due.as_millis())})).await.expect(204);
        daprd.delete(&format!("{JOBS}/{name}")).await.expect(204);
        // Before it was due; one for which that was too slow may have been called.
        let took = began.elapsed();
        if took < due { Ok((format!("/job/{name}"), due)) } else { Err(took) }
    })
    .await;
    // Due after the deleted one was.
    daprd.post(&format!("{JOBS}/last"), &json!({"dueTime": format!("{}ms", due.as_millis())})).await.expect(204);
    eventually("all", async || {
        let called = |name: &str| app.calls().iter().any(|call| call.path == format!("/job/{name}"));
        (called("last") && (0..300).all(|n| called(&format!("n{n}")))).then_some(())
    })
    .await;
    let paths: Vec<Value> = app.calls().iter().map(|call| json!(call.path)).collect();
    let counts = counts(&paths);
    assert!((0..300).all(|n| counts[&format!("\"/job/n{n}\"")] == 1), "{counts:?}");
    assert!(paths.iter().all(|path| *path != *deleted), "{paths:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_earlier_job_does_not_wait_for_a_later_one() {
    let (app, daprd) = daprd().await;
    daprd.post(&format!("{JOBS}/later"), &json!({"dueTime": "1h"})).await.expect(204);
    daprd.post(&format!("{JOBS}/soon"), &json!({"dueTime": "30ms"})).await.expect(204);
    assert_eq!(app.wait_calls(1).await[0].path, "/job/soon");
}
