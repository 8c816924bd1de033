use fte_testkit::{Call, FakeSidecar, Fault, eventually};

use super::*;
use crate::bus::Bus;
use crate::env::MapEnv;
use crate::settings::{Ports, Settings};

fn trail(sidecar: &FakeSidecar) -> AuditTrail {
    let env = MapEnv::of([("FTE_SIDECAR_URL", &sidecar.url())]);
    let settings = Settings::from_env(&env, Ports { app: 0, api: 0 }).unwrap();
    AuditTrail::new(Bus::connect(&settings, "status").unwrap().publisher, "status")
}

fn action(name: &str) -> ActionRecorded {
    let actor = Actor::new(ActorType::Service, "status");
    let task = fte_events::sample::task_id();
    ActionRecorded { task_id: Some(task), ..ActionRecorded::new(name, actor, ActionOutcome::Success, Timestamp::now()) }
}

#[tokio::test]
async fn a_recorded_action_is_on_its_topic_with_its_number() {
    let sidecar = FakeSidecar::start().await;
    let trail = trail(&sidecar);
    trail.record("acme", action("deadletter.replayed"), Some("cause-1")).await.unwrap();
    trail.record(TENANT, action("deadletter.discarded"), None).await.unwrap();
    let published = sidecar.published();
    let events: Vec<_> = published.iter().map(|event| event.json()).collect();
    assert_eq!(published[0].topic, "fte.audit.actions");
    assert_eq!(published[0].key.as_deref(), Some(&*fte_events::sample::task_id().to_string()));
    assert_eq!((&events[0]["source"], &events[0]["type"]), (&"/fte/status".into(), &"fte.action.recorded".into()));
    assert_eq!((&events[0]["ftecause"], &events[1]["ftecause"]), (&"cause-1".into(), &Value::Null));
    assert_eq!((&events[0]["sequence"], &events[1]["sequence"]), (&"00000000000000000001".into(), &"00000000000000000002".into()));
    assert_eq!(events[0]["fteepoch"], events[1]["fteepoch"]);
    assert_eq!((&events[0]["ftetenant"], &events[1]["ftetenant"]), (&"acme".into(), &"default".into()));
    assert_ne!(self::trail(&sidecar).inner.epoch, events[0]["fteepoch"]);
}

#[tokio::test]
async fn the_numbers_have_no_hole_though_publishing_fails_and_callers_leave() {
    let sidecar = FakeSidecar::start().await;
    let trail = trail(&sidecar);
    let held = sidecar.hold(Call::Publish);
    // Polled once, then left.
    tokio::time::timeout(Duration::ZERO, trail.record(TENANT, action("a"), None)).await.unwrap_err();
    trail.note(action("b"));
    sidecar.next(Call::Publish, std::iter::repeat_n(Some(Fault::Break), 4));
    drop(held);
    trail.record(TENANT, action("c"), None).await.unwrap();
    let numbers = eventually(|| async {
        let mut numbers: Vec<_> = sidecar.published().iter().map(|event| event.json()["sequence"].as_str().unwrap().to_owned()).collect();
        numbers.sort();
        numbers.dedup();
        if numbers.len() == 3 { Ok(numbers) } else { Err(numbers) }
    })
    .await;
    assert_eq!(numbers.last().unwrap(), "00000000000000000003");
}

#[tokio::test]
async fn what_waits_is_bounded_and_the_flush_empties_it() {
    let sidecar = FakeSidecar::start().await;
    let trail = trail(&sidecar);
    let held = sidecar.hold(Call::Publish);
    for _ in 0..WAITING_MAX + 100 {
        trail.note(action("flood"));
    }
    assert_eq!(trail.inner.places.available_permits(), 0);
    assert_eq!(trail.inner.sequence.load(Ordering::Relaxed), u64::from(WAITING_MAX));
    drop(held);
    trail.flush(Duration::from_secs(30)).await;
    assert_eq!(sidecar.published().len(), WAITING_MAX as usize);
}
