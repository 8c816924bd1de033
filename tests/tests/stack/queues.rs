//! What the runner knows of its queues reaches the other services by service invocation, from sidecar to sidecar.

use std::sync::Mutex;

use fte_testkit::{Dir, eventually_within};
use fte_tests::tasks::shown;
use fte_tests::trail::settled;
use serde_json::{Value, json};

use crate::world::{START_PATIENCE, Store, World};

/// Agents by the names that the components and topics know: one works a single task at a time, and none before its gate is open; two more may wait.
fn agents(gate: &str) -> String {
    let command = json!(["sh", "-c", format!("while [ ! -e {gate} ]; do sleep 0.01; done; cat")]);
    format!(
        "default = \"demo\"\n[agents.demo]\nkind = \"command\"\nsandbox = \"none\"\nmax = 1\nqueue = 2\ncommand = {command}\n\
         [agents.echo]\nkind = \"builtin\"\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_is_known_to_intake_and_who_waits_in_it_learns_their_place() {
    let dir = Dir::new();
    let gate = dir.join("gate");
    let file = dir.write("agents.toml", agents(gate.to_str().unwrap()));
    let world = World::start_with(Store::Redis, &[("FTE_AGENTS", file.to_str().unwrap())]).await;
    let doors = world.doors();
    let accepted = Mutex::new(Vec::new());
    let refused = eventually_within(START_PATIENCE, || async {
        let answer = doors.intake.post("/v1/tasks", &json!({ "task": "more" })).await.map_err(|error| error.to_string())?;
        // What else it may be refused for passes.
        if answer.status == 503 && answer.json::<Value>()["code"] == "pool_full" {
            return Ok(answer);
        }
        if answer.status == 202 {
            accepted.lock().unwrap().push(answer.json::<Value>()["task_id"].as_str().unwrap().to_owned());
        }
        Err(answer.text())
    })
    .await;
    let retry_after_s: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=300).contains(&retry_after_s), "{retry_after_s}");

    let accepted = accepted.into_inner().unwrap();
    assert!(accepted.len() >= 3, "{accepted:?}");
    // Which of them came first is Kafka's choice: someone is next, and someone behind them.
    for position in [1, 2] {
        let waits = |task: &Value| task["queue"]["position"] == position && task["queue"]["waiting"].as_u64() >= Some(2);
        let found = eventually_within(START_PATIENCE, || async {
            for task in &accepted {
                let shown: Value = doors.status.get(&format!("/v1/tasks/{task}")).await.map_err(|error| error.to_string())?.json();
                if waits(&shown) {
                    return Ok(task.clone());
                }
            }
            Err(format!("nobody is at place {position}"))
        });
        found.await;
    }
    std::fs::write(&gate, "").unwrap();
    for task in &accepted {
        shown(&doors.status, task, |task| task["status"] == "completed" && task["queue"].is_null()).await;
    }
    settled(&doors, &accepted).await;
}
