//! Consumer groups: each app gets everything, its instances share it.

use std::collections::HashSet;

use serde_json::json;

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

#[tokio::test(flavor = "multi_thread")]
async fn instances_of_an_app_share_its_partitions() {
    let one = App::start(json!([subscription("t")])).await;
    let two = App::start(json!([subscription("t")])).await;
    let daprd = Daprd::of(&[("app", one.addr), ("app", two.addr)], |_| {}).await.ready().await;
    for partition in 0..12 {
        daprd.post(&format!("/v1.0/publish/pubsub/t?metadata.partitionNumber={partition}"), &json!(partition)).await.expect(204);
    }
    eventually("12 events", async || (one.data().len() + two.data().len() == 12).then_some(())).await;
    assert_eq!((one.data().len(), two.data().len()), (6, 6));
    let both: HashSet<_> = one.data().iter().chain(&two.data()).map(ToString::to_string).collect();
    assert_eq!(both.len(), 12);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_partitions_of_a_dead_instance_go_to_the_others() {
    let mut one = App::start(json!([subscription("t")])).await;
    let two = App::start(json!([subscription("t")])).await;
    let daprd = Daprd::of(&[("app", one.addr), ("app", two.addr)], |_| {}).await.ready().await;
    let publish_all = async |data: &str| {
        for partition in 0..12 {
            daprd.post(&format!("/v1.0/publish/pubsub/t?metadata.partitionNumber={partition}"), &json!(data)).await.expect(204);
        }
    };
    one.down().await;
    publish_all("alone").await;
    assert_eq!(counts(&two.wait_data(12).await)["\"alone\""], 12);
    one.up().await;
    daprd.ready_again().await;
    publish_all("again").await;
    eventually("12 more", async || {
        let again = |app: &App| app.data().iter().filter(|data| *data == "again").count();
        (again(&one) == 6 && again(&two) == 6).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_broken_by_a_dying_instance_is_made_again_elsewhere() {
    let mut one = App::start(json!([subscription("t")])).await;
    let two = App::start(json!([subscription("t")])).await;
    for app in [&one, &two] {
        app.answer_later(|_| Box::pin(std::future::pending()));
    }
    let daprd = Daprd::of(&[("app", one.addr), ("app", two.addr)], |options| {
        // A spent retry would dead-letter at once.
        options.resiliency = policy("{policy: constant, duration: 1ms, maxRetries: 0}");
    })
    .await
    .ready()
    .await;
    for partition in 0..12 {
        daprd.post(&format!("/v1.0/publish/pubsub/t?metadata.partitionNumber={partition}"), &json!(partition)).await.expect(204);
    }
    eventually("12 held", async || (one.data().len() + two.data().len() == 12).then_some(())).await;
    let held: HashSet<_> = one.data().iter().map(ToString::to_string).collect();
    assert_eq!(held.len(), 6);
    one.down().await;
    let data = two.wait_data(12).await;
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
