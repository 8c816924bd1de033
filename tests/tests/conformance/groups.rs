//! Consumer groups: each app gets everything, the instances of one share it.

use std::collections::HashSet;

use crate::app::{Reply, Who};
use crate::feature::Feature;
use crate::runner::{Case, cases};
use crate::topics::{GROUPS, GROUPS_FAIL, INSTANCES};
use crate::world::World;

pub(crate) const CASES: &[Case] = cases![
    every_app_gets_every_event needs [SecondApp],
    a_failure_of_one_app_is_none_of_another needs [SecondApp],
    instances_of_an_app_share_its_events needs [SecondInstance],
    the_subscriptions_are_asked_for_once,
];

async fn every_app_gets_every_event(world: &World) {
    let mut marks = Vec::new();
    for _ in 0..30 {
        let mark = world.mark();
        world.publish_as(GROUPS, &mark, &mark).await;
        marks.push(mark);
    }
    for mark in &marks {
        let first = world.apps.wait(Who::First, mark, 1).await;
        let second = world.apps.wait(Who::Second, mark, 1).await;
        assert_eq!((first.len(), second.len()), (1, 1));
        assert!(first[0].bulk.is_none() && second[0].bulk.is_some(), "each in its own mode");
        assert_eq!(first[0].event, second[0].event);
    }
}

async fn a_failure_of_one_app_is_none_of_another(world: &World) {
    // The first app to get it fails, be it which it may.
    let (key, mark) = (world.mark(), world.mark());
    world.reply(&mark, [Reply::status(500)]);
    world.publish_as(GROUPS_FAIL, &key, &mark).await;
    let fence = world.publish_marked(GROUPS_FAIL, &key).await;
    for who in [Who::First, Who::Second] {
        world.apps.wait(who, &fence, 1).await;
    }
    let times = || [Who::First, Who::Second].map(|who| world.apps.seen(who, &mark).len());
    // The call that failed may have been one of many events, with the fence in it.
    let again = || async { if times().iter().sum::<usize>() >= 3 { Ok(()) } else { Err(times()) } };
    fte_testkit::eventually(again).await;
    let fence = world.publish_marked(GROUPS_FAIL, &key).await;
    for who in [Who::First, Who::Second] {
        world.apps.wait(who, &fence, 1).await;
    }
    let times = times();
    assert_eq!(times.iter().sum::<usize>(), 3, "{times:?}");
    assert!(times.contains(&1) && times.contains(&2), "{times:?}");
}

/// Longer than a group takes to take up a member.
const JOINED: std::time::Duration = std::time::Duration::from_secs(60);

async fn instances_of_an_app_share_its_events(world: &World) {
    let mut instances = HashSet::new();
    // On a slow machine a group needs a while until both have partitions.
    let began = std::time::Instant::now();
    let mut published = 0;
    while published < 60 || (instances.len() < 2 && began.elapsed() < JOINED) {
        published += 1;
        let mark = world.mark();
        world.publish_as(INSTANCES, &mark, &mark).await;
        let deliveries = world.delivered(&mark, 1).await;
        assert_eq!(deliveries.len(), 1, "one instance gets it, not both");
        instances.insert(deliveries[0].instance);
    }
    assert_eq!(instances.len(), 2, "both instances work");
}

async fn the_subscriptions_are_asked_for_once(world: &World) {
    // A sidecar that ran before the suite may not ask at all.
    let lists = world.apps.lists(0).await;
    assert!(lists <= 1, "{lists}");
    assert!(!world.has(Feature::Embedded) || lists == 1);
}
