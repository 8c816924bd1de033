//! An idempotency key stands for one task, whatever is killed between its first request and the last.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::trail::settled;
use crate::world::{Dice, Fte};

const ROUNDS: usize = 12;
const KEYS: usize = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_repeated_across_crashes_is_one_task_with_one_answer() {
    let mut fte = Fte::start_with(&["--quiet"], &[]).await;
    let mut dice = Dice::new(23);
    let mut tasks = Vec::new();
    for round in 0..ROUNDS {
        let first = |number: usize| {
            let client = fte.api().with_header("idempotency-key", &format!("key-{round}-{number}"));
            let body = json!({ "task": format!("once {round}/{number}"), "context": { "round": round } });
            tokio::spawn(async move {
                match client.post("/v1/tasks", &body).await {
                    Ok(answer) if answer.status == 202 => answer.json::<Value>()["task_id"].as_str().map(str::to_owned),
                    _ => None,
                }
            })
        };
        // Some at the same moment, one of them twice.
        let posts: Vec<_> = (0..KEYS).chain([0]).map(first).collect();
        tokio::time::sleep(Duration::from_micros(dice.below(20_000))).await;
        fte.process.kill().await;
        fte.process.restart().await;
        let before: Vec<Option<String>> = join_all(posts).await.into_iter().map(|post| post.unwrap()).collect();

        for (number, known) in before[..KEYS].iter().enumerate() {
            let client = fte.api().with_header("idempotency-key", &format!("key-{round}-{number}"));
            let body = json!({ "context": { "round": round }, "task": format!("once {round}/{number}") });
            let answers =
                join_all((0..2).map(|_| async { client.post("/v1/tasks", &body).await.unwrap().expect_status(202).json::<Value>() }));
            let ids: BTreeSet<String> = answers.await.iter().map(|answer| answer["task_id"].as_str().unwrap().to_owned()).collect();
            let twin = before[KEYS].as_ref().filter(|_| number == 0);
            assert_eq!(ids.len(), 1, "one key, one task");
            for known in known.iter().chain(twin) {
                assert!(ids.contains(known), "the answer before the crash was {known}, after it {ids:?}");
            }
            let other = client.post("/v1/tasks", &json!({ "task": "another" })).await.unwrap().expect_status(409);
            assert_eq!(other.problem_code(), "idempotency_key_reused");
            tasks.extend(ids);
        }
    }
    let told = settled(&fte.doors(), &tasks).await;
    assert_eq!(told.len(), ROUNDS * KEYS, "no key left a second task behind");
}
