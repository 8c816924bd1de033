//! The heart: `kill -9` at random moments under load, many times, and nothing is lost or doubled.
//!
//! Seeded: `FTE_KILL_SEED` repeats the moments of a run (not the machine's own timing), `FTE_KILLS` changes how many there are.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use fte_testkit::{Client, eventually_within};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::trail::{entries, histories};
use crate::world::{Fte, LOAD_PATIENCE};

/// Tasks posted at the same time.
const POSTERS: u64 = 8;

fn setting(name: &str, default: u64) -> u64 {
    #[expect(clippy::disallowed_methods, reason = "the knobs of a test")]
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Posts tasks one after the other until told to stop; remembers what was accepted.
async fn post(poster: u64, mut base: watch::Receiver<Option<String>>, accepted: Arc<Mutex<Vec<String>>>) {
    for number in 0.. {
        let Ok(current) = base.wait_for(Option::is_some).await.map(|base| base.clone()) else { return };
        let Some(current) = current else { return };
        let body = match number % 10 {
            0 => json!({ "task": "show", "agent": "demo", "context": { "demo": { "step_ms": 20 } } }),
            1 => json!({ "task": "ask first", "require_approval": true }),
            2 => json!({ "task": "a little later", "delay": "1s" }),
            _ => json!({ "task": format!("{poster}/{number}"), "priority": "P3" }),
        };
        // A lost answer leaves open whether there is a task; if there is, it is held to the same invariants.
        match Client::new(current).post("/v1/tasks", &body).await {
            Ok(answer) if answer.status == 202 => {
                accepted.lock().unwrap().push(answer.json::<Value>()["task_id"].as_str().unwrap().to_owned());
            }
            Ok(answer) if answer.status == 503 => {}
            Ok(answer) => panic!("{}: {}", answer.status, answer.text()),
            Err(_) => tokio::task::yield_now().await,
        }
        if base.has_changed().is_err() {
            return;
        }
    }
}

/// Approves whatever waits for a person.
async fn approve(mut base: watch::Receiver<Option<String>>) {
    loop {
        let Ok(current) = base.wait_for(Option::is_some).await.map(|base| base.clone()) else { return };
        let Some(current) = current else { return };
        let api = Client::new(current);
        if let Ok(waiting) = api.get("/v1/tasks?status=awaiting_approval&limit=100").await
            && waiting.status == 200
        {
            for task in waiting.json::<Value>()["items"].as_array().unwrap() {
                let id = task["task_id"].as_str().unwrap();
                // It may be answered, refused as too late, or cut by a kill; the next round sees what is left.
                drop(api.post(&format!("/v1/tasks/{id}/approval"), &json!({ "approved": true })).await);
            }
        }
        if base.has_changed().is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_again_and_again_it_loses_nothing_and_doubles_nothing() {
    let kills = setting("FTE_KILLS", 30);
    let seed = setting("FTE_KILL_SEED", 0x5eed);
    let mut random = seed | 1;
    let mut next = move |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    println!("seed: FTE_KILL_SEED={seed}");
    let mut fte = Fte::start_with(&["--quiet"], &[("FTE_RUNNER_APPROVAL_STAY_MS", "100")]).await;
    let accepted = Arc::new(Mutex::new(Vec::new()));
    let (base, listen) = watch::channel(Some(fte.process.ready().api.clone()));
    let posters: Vec<_> = (0..POSTERS).map(|poster| tokio::spawn(post(poster, listen.clone(), Arc::clone(&accepted)))).collect();
    let (approver_base, approver_listen) = watch::channel(Some(fte.process.ready().api.clone()));
    let approver = tokio::spawn(approve(approver_listen));
    drop(listen);

    for _ in 0..kills {
        tokio::time::sleep(Duration::from_millis(30 + next(400))).await;
        fte.process.kill().await;
        base.send_replace(None);
        approver_base.send_replace(None);
        fte.process.restart().await;
        base.send_replace(Some(fte.process.ready().api.clone()));
        approver_base.send_replace(Some(fte.process.ready().api.clone()));
    }
    drop(base);
    for poster in posters {
        poster.await.unwrap();
    }

    let accepted = accepted.lock().unwrap().clone();
    assert!(accepted.len() > kills as usize, "only {} tasks were accepted: no load", accepted.len());
    let api = fte.api();
    let trail = eventually_within(LOAD_PATIENCE, || async {
        let trail = histories(&entries(&api).await);
        let missing = accepted.iter().filter(|task| !trail.contains_key(*task)).count();
        let faults: Vec<_> = trail.iter().map(|(task, history)| (task, history.faults())).filter(|(_, faults)| !faults.is_empty()).collect();
        if missing == 0 && faults.is_empty() {
            return Ok(trail.len());
        }
        let shown: Vec<_> = faults.iter().take(5).collect();
        Err(format!("{missing} accepted tasks are unknown, {} tasks are not whole: {shown:?}", faults.len()))
    })
    .await;
    drop(approver_base);
    approver.await.unwrap();
    for task in &accepted {
        let result = api.get(&format!("/v1/tasks/{task}/result")).await.unwrap();
        assert_eq!(result.status, 200, "the read model has no result of {task}: {}", result.text());
    }
    let letters: Value = api.get("/v1/dead-letters").await.unwrap().expect_status(200).json();
    assert_eq!(letters["items"], json!([]), "good work was dead-lettered");
    println!("kills: {kills}, accepted: {}, tasks in the trail: {trail}, lost: 0, doubled: 0", accepted.len());
}
