//! What becomes of an event that fails for good: the policy's end, the dead-letter topic, and the life without one.

use std::time::Duration;

use crate::app::{Delivery, Reply};
use crate::feature::Feature;
use crate::runner::{Case, cases};
use crate::topics::{DEAD, DEAD_LETTERS, ROUNDS, route};
use crate::world::World;

pub(crate) const CASES: &[Case] = cases![
    a_spent_policy_goes_to_the_dead_letter_topic_and_the_next_flows,
    a_drop_goes_to_the_dead_letter_topic_without_a_retry,
    what_heals_in_time_is_no_dead_letter,
    a_dead_letter_is_the_event_with_the_place_it_came_from,
    without_a_dead_letter_topic_a_spent_policy_begins_again,
];

/// Tries of the resiliency file: one and three more.
const TRIES: usize = 4;

/// Publishes to the topic with dead letters; returns the deliveries of the event there and in the dead-letter topic, once
/// both are settled.
async fn dead(world: &World, replies: Vec<Reply>, letters: usize) -> (Vec<Delivery>, Vec<Delivery>) {
    let (key, mark) = (world.mark(), world.mark());
    let tries = replies.len().max(1);
    world.reply(&mark, replies);
    world.publish_as(DEAD, &key, &mark).await;
    world.settled(DEAD, &key).await;
    world.delivered(&mark, tries + letters).await;
    world.settled(DEAD_LETTERS, &key).await;
    world.seen(&mark).into_iter().partition(|delivery| delivery.path == route(DEAD))
}

async fn a_spent_policy_goes_to_the_dead_letter_topic_and_the_next_flows(world: &World) {
    for reply in [Reply::status(500), Reply::verdict("RETRY"), Reply::status(400), Reply::Broken] {
        let (tries, letters) = dead(world, vec![reply.clone(); TRIES], 1).await;
        assert_eq!((tries.len(), letters.len()), (TRIES, 1), "{reply:?}");
    }
}

async fn a_drop_goes_to_the_dead_letter_topic_without_a_retry(world: &World) {
    let not_found = usize::from(world.has(Feature::NotFoundIsDeadLettered));
    for (reply, expected) in [(Reply::verdict("DROP"), 1), (Reply::status(404), not_found)] {
        let (tries, letters) = dead(world, vec![reply.clone()], expected).await;
        assert_eq!((tries.len(), letters.len()), (1, expected), "{reply:?}");
    }
}

async fn what_heals_in_time_is_no_dead_letter(world: &World) {
    let (tries, letters) = dead(world, vec![Reply::status(500), Reply::verdict("RETRY"), Reply::status(503), Reply::status(200)], 0).await;
    assert_eq!((tries.len(), letters.len()), (TRIES, 0));
}

async fn a_dead_letter_is_the_event_with_the_place_it_came_from(world: &World) {
    let (tries, letters) = dead(world, vec![Reply::verdict("DROP")], 1).await;
    let (event, letter) = (&tries[0], &letters[0]);
    assert_eq!(event.event, letter.event, "nothing is added, not even a reason");
    for name in ["__key", "__topic", "__partition", "__offset", "__timestamp", "pubsubname", "partitionkey", "content-type"] {
        assert_eq!(event.header(name), letter.header(name), "{name}");
    }
}

async fn without_a_dead_letter_topic_a_spent_policy_begins_again(world: &World) {
    let mut pause = Duration::ZERO;
    // A consumer group that changes hands begins a round at once. That is rare, so that one of three rounds is seen to its end.
    for _ in 0..3 {
        let (key, mark) = (world.mark(), world.mark());
        world.reply(&mark, vec![Reply::status(500); TRIES + 1]);
        world.publish_as(ROUNDS, &key, &mark).await;
        world.settled(ROUNDS, &key).await;
        // What changes hands may even be passed by what came after it, but is not lost.
        let tries = world.delivered(&mark, TRIES + 2).await;
        assert_eq!(tries.len(), TRIES + 2, "nothing is lost");
        pause = tries[TRIES].at - tries[TRIES - 1].at;
        if pause > Duration::from_secs(4) || world.has(Feature::Embedded) {
            break;
        }
    }
    assert!(pause > Duration::from_secs(4), "5 s between the rounds, not {pause:?}");
}
