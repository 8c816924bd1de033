use bytes::Bytes;
use fte_bus::{Error, Message, PublishOptions, Publisher};
use fte_testkit::{Answer, Call, FakeApp, FakeSidecar, Fault, eventually};
use futures_util::future::join_all;

use super::sidecar;

fn message(topic: &str, number: usize) -> Message {
    Message { topic: topic.into(), key: Some(format!("key-{}", number % 3).into()), body: Bytes::from(format!(r#"{{"id":"{number}"}}"#)) }
}

fn publisher(fake: &FakeSidecar) -> Publisher {
    Publisher::new(sidecar(fake), "/test", PublishOptions { retry_wait: std::time::Duration::from_millis(1), ..Default::default() })
}

#[tokio::test]
async fn what_arrives_during_a_call_leaves_together_and_in_order() {
    let fake = FakeSidecar::start().await;
    let publisher = publisher(&fake);
    let held = fake.hold(Call::Publish);
    let all = tokio::spawn({
        let publisher = publisher.clone();
        async move { join_all((0..100).map(|number| publisher.send(message("t", number)))).await }
    });
    eventually(|| async { if fake.calls(Call::Publish) == 1 { Ok(()) } else { Err(fake.calls(Call::Publish)) } }).await;
    drop(held);
    assert!(all.await.unwrap().into_iter().all(|sent| sent.is_ok()));
    let ids: Vec<String> = fake.published().iter().map(|event| event.id()).collect();
    assert_eq!(ids, (0..100).map(|number| number.to_string()).collect::<Vec<_>>());
    assert!(fake.calls(Call::Publish) <= 3, "{} calls for 100 events", fake.calls(Call::Publish));
    assert_eq!(fake.published()[1].key.as_deref(), Some("key-1"));
}

/// More than are polled in one go.
const MANY: usize = 1000;

#[tokio::test]
async fn many_at_once_leave_in_order() {
    let fake = FakeSidecar::start().await;
    publisher(&fake).send_all((0..MANY).map(|number| message("t", number)).collect()).await.unwrap();
    let ids: Vec<String> = fake.published().iter().map(|event| event.id()).collect();
    assert_eq!(ids, (0..MANY).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn with_several_lanes_calls_go_side_by_side_and_each_key_stays_in_order() {
    let fake = FakeSidecar::start().await;
    let options = PublishOptions { lanes: 4, batch_max: 8, retry_wait: std::time::Duration::from_millis(1), ..Default::default() };
    let publisher = Publisher::new(sidecar(&fake), "/test", options);
    let held = fake.hold(Call::Publish);
    let all = tokio::spawn(async move { publisher.send_all((0..MANY).map(|number| message("t", number)).collect()).await });
    eventually(|| async { if fake.calls(Call::Publish) > 1 { Ok(()) } else { Err(fake.calls(Call::Publish)) } }).await;
    drop(held);
    all.await.unwrap().unwrap();
    let mut last = std::collections::BTreeMap::new();
    for event in fake.published() {
        let number: usize = event.id().parse().unwrap();
        let before = last.insert(event.key.clone(), number);
        assert!(before.is_none_or(|before| before < number), "{number} after {before:?}");
    }
    assert_eq!(last.len(), 3);
}

#[tokio::test]
async fn a_passing_failure_is_repeated_and_a_lasting_one_is_told() {
    let fake = FakeSidecar::start().await;
    let publisher = publisher(&fake);
    fake.next(Call::Publish, [Some(Fault::Refuse(500)), Some(Fault::Break), None]);
    publisher.send(message("t", 1)).await.unwrap();
    assert_eq!(fake.calls(Call::Publish), 3);
    fake.always(Call::Publish, Some(Fault::Refuse(500)));
    assert!(matches!(publisher.send(message("t", 2)).await, Err(Error::Answered { status: 500, .. })));
    assert_eq!(fake.calls(Call::Publish), 6, "three tries, no more");
    fake.always(Call::Publish, Some(Fault::Refuse(403)));
    assert!(matches!(publisher.send(message("t", 3)).await, Err(Error::Answered { status: 403, .. })));
    assert_eq!(fake.calls(Call::Publish), 7, "a refusal is not repeated");
}

#[tokio::test]
async fn a_sidecar_that_is_away_is_an_error_and_never_an_ok() {
    let mut fake = FakeSidecar::start().await;
    let publisher = publisher(&fake);
    fake.stop().await;
    assert!(publisher.send(message("t", 1)).await.is_err_and(|error| error.is_transient()));
    fake.restart().await;
    publisher.send(message("t", 2)).await.unwrap();
    assert_eq!(fake.published().len(), 1);
}

#[tokio::test]
async fn a_sidecar_without_the_stable_bulk_route_is_asked_once_and_remembered() {
    // What Dapr 1.14 does: the stable route reads `bulk` as the name of a component.
    let old = FakeApp::start(serde_json::json!([]), |received| async move {
        let path = received.path;
        if path.starts_with("/v1.0/publish/bulk/") {
            let body = serde_json::json!({ "errorCode": "ERR_PUBSUB_NOT_FOUND", "message": "pubsub bulk is not found" });
            Answer { status: http::StatusCode::NOT_FOUND, ..Answer::json(&body) }
        } else {
            Answer::status(204)
        }
    })
    .await;
    let sidecar = fte_bus::Sidecar::new(fte_bus::SidecarConfig::at_port(old.port())).unwrap();
    let publisher = Publisher::new(sidecar, "/test", PublishOptions::default());
    for _ in 0..3 {
        publisher.send_all((0..10).map(|number| message("t", number)).collect()).await.unwrap();
    }
    let stable = old.received().iter().filter(|received| received.path.starts_with("/v1.0/publish/bulk/")).count();
    let alpha = old.received().iter().filter(|received| received.path.starts_with("/v1.0-alpha1/publish/bulk/")).count();
    assert_eq!(stable, 1);
    assert!(alpha >= 1);
}

#[tokio::test]
async fn an_event_past_the_limit_is_refused_before_it_is_sent() {
    let fake = FakeSidecar::start().await;
    let publisher = Publisher::new(sidecar(&fake), "/test", PublishOptions { event_bytes_max: 8, ..Default::default() });
    assert!(matches!(publisher.send(message("t", 1_000)).await, Err(Error::Invalid(_))));
    assert_eq!(fake.calls(Call::Publish), 0);
}
