//! One event for one key, whatever happens: the connection fails at each call, answers get lost, processes freeze, callers leave and come back.

use std::collections::BTreeSet;

use super::*;

/// Calls that a keyed request makes, retries included, at most.
const CALLS_MAX: usize = 10;

fn body() -> Value {
    json!({"task": "x", "delay": "1h"})
}

/// All that was published is one event, and it is that of the task.
#[track_caller]
fn assert_one_event(sidecar: &FakeSidecar, answer: &Answer, story: &str) {
    let published = sidecar.published();
    let distinct: BTreeSet<_> = published.iter().map(|event| &event.body[..]).collect();
    assert_eq!(distinct.len(), 1, "{story}: {published:?}");
    assert_eq!(published[0].json()["subject"], answer.body["task_id"], "{story}");
}

#[tokio::test]
async fn whichever_call_fails_a_repeat_finishes_the_same_task() {
    let stories = (0..CALLS_MAX).flat_map(|good| {
        let faults = [Fault::Refuse(500), Fault::Break, Fault::LoseAnswer];
        faults.into_iter().flat_map(move |first| faults.into_iter().map(move |then| (good, first, then)))
    });
    let running: Vec<_> = stories.map(|story| (story, tokio::spawn(crash_and_repeat(story)))).collect();
    for (story, run) in running {
        run.await.unwrap_or_else(|error| panic!("{story:?}: {error}"));
    }
}

async fn crash_and_repeat((good, first, then): (usize, Fault, Fault)) {
    let story = format!("{good} good calls, then {first:?}, then {then:?}");
    let sidecar = FakeSidecar::start().await;
    sidecar.fail_after(good, first, then);
    let interrupted = Process::of(&sidecar).await.post_with_key("k", body()).await;
    assert!(matches!(interrupted.status, 202 | 503), "{story}: {interrupted:?}");
    sidecar.heal();
    let repeated = Process::of(&sidecar).await.post_with_key("k", body()).await;
    assert_eq!(repeated.status, 202, "{story}: {repeated:?}");
    if interrupted.status == 202 {
        assert_eq!(interrupted.body, repeated.body, "{story}");
    }
    assert_one_event(&sidecar, &repeated, &story);
    let published = sidecar.published().len();
    assert_eq!(Process::of(&sidecar).await.post_with_key("k", body()).await.body, repeated.body, "{story}");
    assert_eq!(sidecar.published().len(), published, "{story}: what is sent is not sent again");
}

#[tokio::test]
async fn a_caller_that_leaves_at_any_call_and_comes_back_gets_the_same_task() {
    for call in [Call::Write, Call::Publish, Call::Read] {
        let sidecar = FakeSidecar::start().await;
        let (left, other) = (Process::of(&sidecar).await, Process::of(&sidecar).await);
        let held = sidecar.hold_next(call);
        let before = sidecar.calls(call);
        let leaving = tokio::spawn(async move { left.post_with_key("k", body()).await });
        fte_testkit::eventually(|| async { if sidecar.calls(call) > before { Ok(()) } else { Err("not there yet") } }).await;
        leaving.abort();
        // The call that was held back is still on its way when the repeat has long been answered: as if its process had been frozen.
        let repeated = other.post_with_key("k", body()).await;
        assert_eq!(repeated.status, 202, "{call:?}");
        drop(held);
        let again = other.post_with_key("k", body()).await;
        assert_eq!(again.body, repeated.body, "{call:?}");
        let settled = async || if sidecar.keys().len() == 1 { Ok(()) } else { Err(sidecar.keys()) };
        fte_testkit::eventually(settled).await;
        assert_one_event(&sidecar, &repeated, &format!("{call:?}"));
    }
}

#[tokio::test]
async fn of_many_at_once_all_get_the_same_answer() {
    let sidecar = FakeSidecar::start().await;
    let processes = [Process::of(&sidecar).await, Process::of(&sidecar).await];
    let running: Vec<_> = (0..40)
        .map(|number: usize| {
            let process = processes[number % 2].clone();
            tokio::spawn(async move { process.post_with_key("k", body()).await })
        })
        .collect();
    let mut answers = Vec::new();
    for run in running {
        answers.push(run.await.unwrap());
    }
    assert!(answers.iter().all(|answer| answer.status == 202 && answer.body == answers[0].body));
    assert_one_event(&sidecar, &answers[0], "many at once");
}

#[tokio::test]
async fn of_two_bodies_at_once_one_is_accepted() {
    let sidecar = FakeSidecar::start().await;
    let (one, two) = (Process::of(&sidecar).await, Process::of(&sidecar).await);
    let (one, two) = tokio::join!(one.post_with_key("k", json!({"task": "one"})), two.post_with_key("k", json!({"task": "two"})));
    let mut statuses = [one.status, two.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [202, 409]);
    assert_one_event(&sidecar, if one.status == 202 { &one } else { &two }, "two bodies");
}

/// Many callers, several processes, a sidecar that fails at random: seeded, so that a failure can be run again.
#[tokio::test]
async fn under_random_faults_a_key_is_one_task() {
    for seed in 0..20_u64 {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut draw = move |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        let sidecar = FakeSidecar::start().await;
        for call in [Call::Publish, Call::Read, Call::Write] {
            let faults = (0..12).map(|_| match draw(6) {
                0 => Some(Fault::Refuse(500)),
                1 => Some(Fault::Break),
                2 => Some(Fault::LoseAnswer),
                _ => None,
            });
            sidecar.next(call, faults.collect::<Vec<_>>());
        }
        let callers: Vec<_> = (0..6).map(|_| Process::of(&sidecar)).collect();
        let mut running = Vec::new();
        for caller in callers {
            let process = caller.await;
            running.push(tokio::spawn(async move {
                loop {
                    let answer = process.post_with_key("k", body()).await;
                    if answer.status == 202 {
                        return answer;
                    }
                    assert_eq!(answer.status, 503, "{answer:?}");
                }
            }));
        }
        let mut answers = Vec::new();
        for run in running {
            answers.push(run.await.unwrap());
        }
        assert!(answers.iter().all(|answer| answer.body == answers[0].body), "seed {seed}");
        assert_one_event(&sidecar, &answers[0], &format!("seed {seed}"));
    }
}
