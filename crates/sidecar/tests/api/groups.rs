//! Consumer groups: each app gets everything, its instances share it.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn every_app_gets_every_event() {
    let one = App::start(json!([subscription("t")])).await;
    let two = App::start(json!([bulk("t", 10)])).await;
    two.answer(|call| Reply::bulk(call, |_| "SUCCESS"));
    let daprd = Daprd::of(&[("one", one.addr), ("two", two.addr)], |_| {}).await;
    daprd.publish_numbers("t", "k", 0, 30).await;
    assert_eq!(one.wait_data(30).await, numbers(30));
    assert_eq!(two.wait_data(30).await, numbers(30));
}

/// Publishes this to each partition of `t`.
async fn publish_all(daprd: &Daprd, data: &str) {
    for partition in 0..12 {
        daprd
            .post(&format!("/v1.0/publish/pubsub/t?metadata.partitionNumber={partition}"), &json!(format!("{data} {partition}")))
            .await
            .expect(204);
    }
}

/// What was delivered to an app of what was published so.
fn got(app: &App, data: &str) -> Vec<Value> {
    app.data().into_iter().filter(|got| got.as_str().is_some_and(|got| got.starts_with(data))).collect()
}

/// Waits until both have partitions: a little after they are listed.
async fn shared(daprd: &Daprd, one: &App, two: &App) {
    let before = [got(one, "probe").len(), got(two, "probe").len()];
    let mut sent = before[0] + before[1];
    eventually("both get something", async || {
        publish_all(daprd, "probe").await;
        sent += 12;
        eventually("all probes", async || (got(one, "probe").len() + got(two, "probe").len() >= sent).then_some(())).await;
        (got(one, "probe").len() > before[0] && got(two, "probe").len() > before[1]).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_of_an_app_share_its_partitions() {
    let one = App::start(json!([subscription("t")])).await;
    let two = App::start(json!([subscription("t")])).await;
    let daprd = Daprd::of(&[("app", one.addr), ("app", two.addr)], |_| {}).await.ready().await;
    shared(&daprd, &one, &two).await;
    publish_all(&daprd, "event").await;
    eventually("12 events", async || (got(&one, "event").len() + got(&two, "event").len() == 12).then_some(())).await;
    assert_eq!((got(&one, "event").len(), got(&two, "event").len()), (6, 6));
    let both: HashSet<_> = got(&one, "event").iter().chain(&got(&two, "event")).map(ToString::to_string).collect();
    assert_eq!(both.len(), 12);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_partitions_of_a_dead_instance_go_to_the_others() {
    let mut one = App::start(json!([subscription("t")])).await;
    let two = App::start(json!([subscription("t")])).await;
    let daprd = Daprd::of(&[("app", one.addr), ("app", two.addr)], |_| {}).await.ready().await;
    one.down().await;
    publish_all(&daprd, "alone").await;
    let alone = eventually("all alone", async || Some(got(&two, "alone")).filter(|alone| alone.len() >= 12)).await;
    assert_eq!(alone.len(), 12);
    one.up().await;
    daprd.ready_again().await;
    shared(&daprd, &one, &two).await;
    publish_all(&daprd, "again").await;
    eventually("12 more", async || (got(&one, "again").len() == 6 && got(&two, "again").len() == 6).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_broken_by_a_dying_instance_is_made_again_elsewhere() {
    let mut one = App::start(json!([subscription("t")])).await;
    let two = App::start(json!([subscription("t")])).await;
    for app in [&one, &two] {
        app.answer_later(|call| {
            let is_probe = call.events().iter().all(|event| event["data"].as_str().is_some_and(|data| data.starts_with("probe")));
            Box::pin(async move { if is_probe { Reply::ok() } else { std::future::pending().await } })
        });
    }
    let daprd = Daprd::of(&[("app", one.addr), ("app", two.addr)], |options| {
        // A spent retry would dead-letter at once.
        options.resiliency = policy("{policy: constant, duration: 1ms, maxRetries: 0}");
    })
    .await
    .ready()
    .await;
    shared(&daprd, &one, &two).await;
    publish_all(&daprd, "held").await;
    eventually("12 held", async || (got(&one, "held").len() + got(&two, "held").len() == 12).then_some(())).await;
    let held: HashSet<_> = got(&one, "held").iter().map(ToString::to_string).collect();
    assert_eq!(held.len(), 6);
    one.down().await;
    let data = eventually("all held", async || Some(got(&two, "held")).filter(|data| data.len() >= 12)).await;
    let moved: HashSet<_> = data[6..].iter().map(ToString::to_string).collect();
    assert_eq!(moved, held);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_group_starts_at_the_oldest_record() {
    let quiet = App::start(json!([])).await;
    let daprd = Daprd::beside(&quiet).await;
    daprd.publish_numbers("t", "k", 0, 5).await;
    let dir = daprd.stop().await;
    let late = App::start(json!([subscription("t")])).await;
    let _daprd = Daprd::again(dir, &[("late", late.addr)], |_| {}).await;
    assert_eq!(late.wait_data(5).await, numbers(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_are_asked_once_and_again_only_after_the_app_was_away() {
    let mut app = App::start(json!([subscription("a")])).await;
    let daprd = Daprd::beside(&app).await.ready().await;
    for n in 0..20 {
        daprd.publish("a", "k", json!(n)).await;
    }
    app.wait_data(20).await;
    assert_eq!(app.lists(), 1);
    app.down().await;
    eventually("away", async || (daprd.get("/v1.0/healthz").await.status == 500).then_some(())).await;
    app.subscribe(&json!([subscription("b")]));
    daprd.publish("a", "k", json!("for a")).await;
    daprd.publish("b", "k", json!("for b")).await;
    app.up().await;
    app.wait_data(21).await;
    assert_eq!(app.lists(), 2);
    assert_eq!(app.data()[20], "for b");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_404_means_no_subscriptions() {
    let app = App::start(json!([subscription("t")])).await;
    app.subscribe_answers(404);
    let daprd = Daprd::beside(&app).await.ready().await;
    assert_eq!(daprd.get("/v1.0/metadata").await.json()["subscriptions"], json!([]));
}
