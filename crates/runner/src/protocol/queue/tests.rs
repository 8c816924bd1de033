use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const AGEING: Duration = Duration::from_secs(60);

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn who(name: &str) -> Arc<str> {
    name.into()
}

/// The queue's parts agree with each other.
fn check<T>(queue: &Queue<T>) {
    for (number, class) in queue.classes.iter().enumerate() {
        let mut tickets: Vec<u64> = class.shares.values().flat_map(|share| share.tickets.iter().copied()).collect();
        tickets.sort_unstable();
        let waiting: Vec<u64> = queue.waiting.iter().filter(|(_, entry)| entry.class == number).map(|(ticket, _)| *ticket).collect();
        assert_eq!(tickets, waiting);
        assert_eq!(class.due.len(), waiting.len());
        assert!(class.due.iter().all(|(due, ticket)| queue.waiting[ticket].due == *due));
        assert_eq!(class.turns.len(), class.shares.len(), "nobody is remembered who does not wait");
        assert!(class.shares.iter().all(|(name, share)| class.turns[&share.turn] == *name && !share.tickets.is_empty()));
    }
}

fn all(queue: &mut Queue<&'static str>, now: Duration) -> Vec<&'static str> {
    std::iter::from_fn(|| queue.pop(now, |_| true)).collect()
}

#[test]
fn the_urgent_go_first_and_then_requesters_in_turn() {
    let mut queue = Queue::new(AGEING);
    let (ada, bob) = (who("ada"), who("bob"));
    for (priority, requester, item) in [
        (Priority::P3, &ada, "last"),
        (Priority::P2, &ada, "a1"),
        (Priority::P2, &ada, "a2"),
        (Priority::P2, &ada, "a3"),
        (Priority::P2, &bob, "b1"),
        (Priority::P1, &ada, "first"),
        (Priority::P2, &bob, "b2"),
    ] {
        queue.push(s(0), s(0), priority, requester, item);
    }
    assert_eq!(all(&mut queue, s(1)), ["first", "a1", "b1", "a2", "b2", "a3", "last"]);
    check(&queue);
}

#[test]
fn who_has_waited_two_steps_is_served_before_a_new_p1() {
    let mut queue = Queue::new(AGEING);
    queue.push(s(0), s(0), Priority::P3, &who("slow"), "old");
    let mut served = Vec::new();
    for second in 0..200 {
        queue.push(s(second), s(second), Priority::P1, &who(&format!("busy-{second}")), "new");
        served.push(queue.pop(s(second), |_| true).unwrap());
    }
    // Nor does it matter when somebody looks.
    let mut queue = Queue::new(AGEING);
    queue.push(s(200), s(200), Priority::P3, &who("slow"), "old");
    queue.push(s(330), s(330), Priority::P1, &who("busy"), "new");
    assert_eq!(queue.pop(s(340), |_| true), Some("old"));
    assert_eq!(served.iter().position(|item| *item == "old"), Some(120), "as P1 after two steps, and before whoever comes then");
}

#[test]
fn what_may_not_go_keeps_its_turn() {
    let mut queue = Queue::new(AGEING);
    let (ada, bob) = (who("ada"), who("bob"));
    queue.push(s(0), s(0), Priority::P2, &ada, "a1");
    queue.push(s(0), s(0), Priority::P2, &ada, "a2");
    queue.push(s(0), s(0), Priority::P2, &bob, "b1");
    assert_eq!(queue.pop(s(0), |item| item.starts_with('b')), Some("b1"));
    assert_eq!(queue.pop(s(0), |_| false), None);
    assert_eq!(queue.pop(s(0), |item| *item == "a2"), Some("a2"));
    assert_eq!(all(&mut queue, s(0)), ["a1"]);
}

#[derive(Clone, Debug)]
enum Move {
    Push(u8, u8),
    Pop,
    Remove(u8),
    Wait(u8),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        4 => (0..3_u8, 0..5_u8).prop_map(|(priority, requester)| Move::Push(priority, requester)),
        3 => Just(Move::Pop),
        1 => any::<u8>().prop_map(Move::Remove),
        1 => (0..90_u8).prop_map(Move::Wait),
    ];
    vec(one, 0..200)
}

fn priority(number: u8) -> Priority {
    [Priority::P1, Priority::P2, Priority::P3][usize::from(number % 3)]
}

proptest! {
    #[test]
    fn its_parts_agree_whatever_is_done_and_nothing_is_lost(moves in moves()) {
        let (mut queue, mut now, mut inside) = (Queue::new(AGEING), s(0), Vec::new());
        for one in moves {
            match one {
                Move::Push(urgency, requester) => {
                    let number = queue.arrivals + 1;
                    inside.push(queue.push(now, now, priority(urgency), &who(&requester.to_string()), number));
                }
                Move::Pop => {
                    let item = queue.pop(now, |_| true);
                    prop_assert_eq!(item.is_some(), !inside.is_empty());
                    inside.retain(|ticket| Some(*ticket) != item);
                }
                Move::Remove(which) if !inside.is_empty() => {
                    let ticket = inside.remove(usize::from(which) % inside.len());
                    prop_assert_eq!(queue.remove(ticket), Some(ticket));
                    prop_assert_eq!(queue.remove(ticket), None);
                }
                Move::Remove(_) => {}
                Move::Wait(seconds) => now += s(u64::from(seconds)),
            }
            prop_assert_eq!(queue.len(), inside.len());
            check(&queue);
        }
    }

    #[test]
    fn a_position_is_kept_when_nobody_comes(tasks in vec((0..3_u8, 0..6_u8, 0..200_u64), 1..60)) {
        let mut queue = Queue::new(AGEING);
        let push = |(urgency, requester, since): &(u8, u8, u64)| {
            queue.push(s(*since), s(*since), priority(*urgency), &who(&requester.to_string()), ())
        };
        let tickets: Vec<u64> = tasks.iter().map(push).collect();
        let places: BTreeMap<usize, u64> = tickets.iter().map(|ticket| (queue.position(s(200), *ticket).unwrap(), *ticket)).collect();
        prop_assert_eq!(places.keys().copied().collect::<Vec<_>>(), (1..=tickets.len()).collect::<Vec<_>>());
        for ticket in places.values() {
            prop_assert_eq!(queue.position(s(200), *ticket), Some(1));
            prop_assert!(queue.pop(s(200), |()| true).is_some());
            prop_assert_eq!(queue.position(s(200), *ticket), None);
        }
    }

    #[test]
    fn whoever_waits_gets_as_many_turns_as_the_others(counts in vec(1..30_usize, 2..8)) {
        let mut queue = Queue::new(AGEING);
        for (requester, count) in counts.iter().enumerate() {
            for _ in 0..*count {
                queue.push(s(0), s(0), Priority::P2, &who(&requester.to_string()), requester);
            }
        }
        let mut served = vec![0_usize; counts.len()];
        while let Some(requester) = queue.pop(s(0), |_| true) {
            served[requester] += 1;
            let waits = (0..counts.len()).filter(|requester| served[*requester] < counts[*requester]);
            let turns: Vec<usize> = waits.map(|requester| served[requester]).collect();
            if let (Some(least), Some(most)) = (turns.iter().min(), turns.iter().max()) {
                prop_assert!(most - least <= 1, "{turns:?}");
            }
        }
        prop_assert_eq!(served, counts);
    }

    /// However many come, who they are and how urgent: more of them than are served.
    #[test]
    fn nobody_starves(urgency in 0..3_u8, before in 0..20_u8, arrivals in vec(vec((0..3_u8, any::<u8>()), 0..3), 400)) {
        let mut queue = Queue::new(AGEING);
        for other in 0..before {
            queue.push(s(0), s(0), Priority::P1, &who(&other.to_string()), false);
        }
        let ticket = queue.push(s(0), s(0), priority(urgency), &who("patient"), true);
        let mut bound = None;
        for (second, arriving) in arrivals.into_iter().enumerate() {
            let now = s(second as u64);
            for (urgency, requester) in arriving {
                queue.push(now, now, priority(urgency), &who(&requester.to_string()), false);
            }
            queue.age(now);
            if let Some(entry) = queue.waiting.get(&ticket)
                && entry.class == 0
            {
                let turns = bound.get_or_insert(queue.classes[0].turns.len());
                prop_assert!(*turns > 0, "it counts as P1, and more were served than waited then");
                *turns -= 1;
            }
            if queue.pop(now, |_| true) == Some(true) {
                return Ok(());
            }
        }
        prop_assert!(false, "it was not served in 400 turns");
    }
}
