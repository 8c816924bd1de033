use fte_events::Runtime;
use fte_service::agents::{Approvals, Rate};
use futures_util::FutureExt;
use jiff::Timestamp;

use super::*;
use crate::ports::Pending;

/// A clock that stands still until it is set, and what runs beside.
#[derive(Default)]
struct Clock {
    now: Mutex<Duration>,
    spawned: Mutex<Vec<Pending<()>>>,
    sleeping: Arc<Mutex<Duration>>,
}

impl Clock {
    fn set(&self, now: Duration) {
        *self.now.lock().unwrap() = now;
        *self.sleeping.lock().unwrap() = now;
        let mut spawned = std::mem::take(&mut *self.spawned.lock().unwrap());
        spawned.retain_mut(|future| future.as_mut().now_or_never().is_none());
        self.spawned.lock().unwrap().extend(spawned);
    }
}

impl World for Clock {
    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    fn monotonic(&self) -> Duration {
        *self.now.lock().unwrap()
    }

    fn sleep(&self, time: Duration) -> Pending<()> {
        let (until, clock) = (self.monotonic() + time, Arc::clone(&self.sleeping));
        Box::pin(std::future::poll_fn(
            move |_| {
                if *clock.lock().unwrap() >= until { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
            },
        ))
    }

    fn random(&self) -> u64 {
        0
    }

    fn spawn(&self, mut future: Pending<()>) {
        if future.as_mut().now_or_never().is_none() {
            self.spawned.lock().unwrap().push(future);
        }
    }
}

fn pool(max: u32, queue: u32, rate: Option<Rate>) -> (Pool, Arc<Clock>) {
    let clock = Arc::<Clock>::default();
    let limits = AgentLimits {
        max,
        queue,
        rate,
        concurrency_key: None,
        runtime: Runtime::None,
        timeout: Duration::from_secs(1),
        attempts_max: 1,
        approvals: Approvals::default(),
        budget: Default::default(),
        takes_messages: true,
        takes_edits: true,
    };
    let agents = ["a", "b"].map(|name| (name.to_owned(), limits.clone())).into();
    let settings = Settings { agents, places: 5, ..Settings::default() };
    (Pool::new(&settings, &(Arc::clone(&clock) as Arc<dyn World>)), clock)
}

fn ask(priority: Priority) -> Ask {
    Ask { task: TaskId::now(), priority, requester: "somebody".into(), key: None, since: Duration::ZERO }
}

fn keyed(key: &str) -> Ask {
    Ask { key: Some(Key(key.to_owned())), ..ask(Priority::P2) }
}

macro_rules! waits {
    ($pool:expr, $ask:expr) => {{
        let mut slot = Box::pin($pool.slot("a", $ask, None));
        assert!(slot.as_mut().now_or_never().is_none());
        slot
    }};
}

#[test]
fn a_slot_goes_to_the_most_urgent_then_the_first() {
    let (pool, _) = pool(1, 9, None);
    let held = pool.try_slot("a").unwrap();
    let mut late = waits!(pool, ask(Priority::P2));
    let mut later = waits!(pool, ask(Priority::P2));
    let mut urgent = waits!(pool, ask(Priority::P1));
    drop(held);
    let first = urgent.as_mut().now_or_never().flatten().unwrap();
    assert!(late.as_mut().now_or_never().is_none());
    drop(first);
    let second = late.as_mut().now_or_never().flatten().unwrap();
    drop(second);
    assert!(later.as_mut().now_or_never().flatten().is_some());
}

#[test]
fn a_waiter_that_went_away_does_not_swallow_a_slot() {
    let (pool, _) = pool(1, 9, None);
    let held = pool.try_slot("a").unwrap();
    drop(waits!(pool, ask(Priority::P1)));
    drop(held);
    assert!(pool.try_slot("a").is_some());
}

#[test]
fn a_slot_given_to_a_waiter_that_then_goes_away_comes_back() {
    let (pool, _) = pool(1, 9, None);
    let held = pool.try_slot("a").unwrap();
    let waiting = waits!(pool, ask(Priority::P1));
    drop(held);
    drop(waiting);
    assert_eq!(pool.usage("a"), Usage { in_use: 0, waiting: 0 });
}

#[test]
fn a_full_queue_of_one_agent_leaves_places_to_the_others() {
    let (pool, _) = pool(1, 2, None);
    let places: Vec<Place> = (0..3).map(|_| pool.try_place("a").ok().unwrap()).collect();
    assert_eq!(pool.try_place("a").err(), Some(Full::Queue));
    assert!(pool.is_full("a") && !pool.is_full("b"));
    let mut held = Box::pin(pool.place("a"));
    assert!(held.as_mut().now_or_never().is_none());
    let others: Vec<Place> = (0..2).map(|_| pool.try_place("b").ok().unwrap()).collect();
    assert_eq!(pool.try_place("b").err(), Some(Full::Process));
    assert!(pool.try_place("nobody").is_err());
    drop(others);
    drop(places);
    assert!(held.as_mut().now_or_never().flatten().is_some());
    drop(held);
    assert_eq!(pool.free_places(), 5);
}

#[test]
fn tasks_of_a_key_get_one_slot_at_a_time_and_others_pass_them() {
    let (pool, _) = pool(3, 9, None);
    let mut first = Box::pin(pool.slot("a", keyed("k"), None));
    let first = first.as_mut().now_or_never().flatten().unwrap();
    let mut second = waits!(pool, keyed("k"));
    let other = Box::pin(pool.slot("a", keyed("l"), None)).now_or_never().flatten().unwrap();
    assert!(second.as_mut().now_or_never().is_none());

    // Another runner has the key: its sandbox is given back, and it still stands before the others of its key.
    let hold = first.give_back();
    assert_eq!(pool.usage("a").in_use, 1);
    assert!(second.as_mut().now_or_never().is_none());
    let again = Box::pin(pool.slot("a", keyed("k"), hold)).now_or_never().flatten().unwrap();
    drop(again);
    let second = second.as_mut().now_or_never().flatten().unwrap();
    drop((second, other));
    assert_eq!(pool.usage("a"), Usage { in_use: 0, waiting: 0 });
    assert!(pool.agents["a"].state().keys.is_empty());
}

#[test]
fn starts_beyond_the_rate_wait_for_their_time_and_no_longer() {
    let second = Duration::from_secs(1);
    let (pool, clock) = pool(9, 9, Some(Rate { starts: 2, per: second }));
    let started = [pool.try_slot("a"), pool.try_slot("a")].map(Option::unwrap);
    assert!(pool.try_slot("a").is_none());
    let mut third = waits!(pool, ask(Priority::P2));
    let mut fourth = waits!(pool, ask(Priority::P2));
    let mut fifth = waits!(pool, ask(Priority::P2));
    drop(started);
    assert_eq!(clock.spawned.lock().unwrap().len(), 1, "one looks for all");
    clock.set(second - Duration::from_millis(1));
    assert!(third.as_mut().now_or_never().is_none());
    clock.set(second);
    assert!(third.as_mut().now_or_never().flatten().is_some());
    assert!(fourth.as_mut().now_or_never().flatten().is_some());
    assert!(fifth.as_mut().now_or_never().is_none());
    clock.set(second * 2);
    // What was given back unused did not start.
    drop(fifth.as_mut().now_or_never().flatten().unwrap().give_back());
    assert_eq!([pool.try_slot("a"), pool.try_slot("a"), pool.try_slot("a")].map(|slot| slot.is_some()), [true, true, false]);
}

#[test]
fn a_standing_falls_as_others_are_served() {
    let (pool, clock) = pool(1, 9, None);
    let held = pool.try_slot("a").unwrap();
    let first = waits!(pool, ask(Priority::P2));
    let mine = ask(Priority::P2);
    let second = waits!(pool, mine.clone());
    let standing = pool.position(mine.task).unwrap();
    assert_eq!((standing.position, standing.waiting, standing.estimate), (2, 2, None), "one start says nothing about the next");
    clock.set(Duration::from_secs(6));
    drop(held);
    drop(first);
    let standing = pool.position(mine.task);
    assert_eq!(standing, None, "it has its turn");
    drop(second);
}

#[test]
fn a_queue_that_moves_on_in_a_moment_is_not_called_full() {
    let (pool, clock) = pool(1, 2, None);
    let second = Duration::from_secs(1);
    for start in 0..4 {
        clock.set(second / 10 * start);
        drop(pool.try_slot("a").unwrap());
    }
    let running = pool.try_slot("a").unwrap();
    assert!(pool.is_free_within("a", second) && !pool.is_free_within("b", second));
    let _places: Vec<Place> = (0..3).map(|_| pool.try_place("a").ok().unwrap()).collect();
    let _waiting = (waits!(pool, ask(Priority::P2)), waits!(pool, ask(Priority::P2)));
    assert!(!pool.is_full("a"), "two starts take a fraction of a second");
    // Things do not go on as they did.
    clock.set(second * 30);
    assert!(pool.is_full("a"));
    drop(running);

    // Or they do, but so many deliveries are held that one of them has been for long.
    let (pool, clock) = self::pool(1, 2, None);
    let _places: Vec<Place> = (0..3).map(|_| pool.try_place("a").ok().unwrap()).collect();
    let mut held = Box::pin(pool.place("a"));
    assert!(held.as_mut().now_or_never().is_none());
    for start in 0..60 {
        clock.set(second / 10 * start);
        drop(pool.try_slot("a").unwrap());
        assert_eq!(pool.is_full("a"), start == 0 || start >= 50, "{start}");
    }
    drop(held);
    assert!(!pool.is_full("a"));
}
