//! Time passes while a task waits, runs, is parked, or while everything is down.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::trail::settled;
use crate::world::{Fte, in_status, post, result};

const AGENTS: &str = r#"
    default = "echo"
    [agents.echo]
    kind = "builtin"
    [agents.demo]
    kind = "builtin"
    [agents.one]
    kind = "command"
    command = ["sleep", "600"]
    max = 1
    [agents.late]
    kind = "command"
    command = ["sleep", "600"]
    timeout = "500ms"
    [agents.mute]
    kind = "process"
    command = ["sleep", "600"]
    timeout = "500ms"
    attempts = 1
"#;

/// Long enough to get a few tasks where they shall be, on a busy machine too.
const SOON: SignedDuration = SignedDuration::from_secs(4);

/// Waits until the clock shows more than this.
async fn passed(moment: Timestamp) {
    while Timestamp::now() <= moment {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn micros(time: &Value) -> i64 {
    time.as_str().unwrap().parse::<Timestamp>().unwrap().as_microsecond()
}

#[tokio::test]
async fn a_deadline_ends_a_task_that_is_queued_running_or_parked() {
    let fte = Fte::with_agents(AGENTS, &[("FTE_RUNNER_APPROVAL_STAY_MS", "50")]).await;
    let api = fte.api();
    let deadline = Timestamp::now() + SOON;
    let running = post(&api, json!({ "task": "run", "agent": "one", "deadline": deadline })).await;
    in_status(&api, &running, "running").await;
    let queued = post(&api, json!({ "task": "wait", "agent": "one", "deadline": deadline })).await;
    in_status(&api, &queued, "queued").await;
    let parked = post(&api, json!({ "task": "ask first", "require_approval": true, "deadline": deadline })).await;
    let quick = json!({ "demo": { "step_ms": 1 } });
    let asking = post(&api, json!({ "task": "show", "agent": "demo", "context": quick, "deadline": deadline })).await;
    for task in [&parked, &asking] {
        in_status(&api, task, "awaiting_approval").await;
    }
    let tasks = [running, queued, parked, asking];
    for task in &tasks {
        let ended = result(&api, task).await;
        assert_eq!((&ended["status"], &ended["error"]["code"]), (&json!("timed_out"), &json!("deadline_passed")), "{ended}");
    }
    settled(&fte.doors(), &tasks).await;
}

#[tokio::test]
async fn a_deadline_that_passes_while_everything_is_down_counts_at_the_next_start() {
    let mut fte = Fte::with_agents(AGENTS, &[]).await;
    let api = fte.api();
    let deadline = Timestamp::now() + SOON;
    let running = post(&api, json!({ "task": "run", "agent": "one", "deadline": deadline })).await;
    in_status(&api, &running, "running").await;
    let queued = post(&api, json!({ "task": "wait", "agent": "one", "deadline": deadline })).await;
    let parked = post(&api, json!({ "task": "ask first", "require_approval": true, "deadline": deadline })).await;
    in_status(&api, &parked, "awaiting_approval").await;
    fte.process.kill().await;
    passed(deadline).await;
    fte.process.restart().await;
    let tasks = [running, queued, parked];
    for task in &tasks {
        let ended = result(&fte.api(), task).await;
        assert_eq!((&ended["status"], &ended["error"]["code"]), (&json!("timed_out"), &json!("deadline_passed")), "{ended}");
    }
    settled(&fte.doors(), &tasks).await;
}

#[tokio::test]
async fn a_delayed_task_starts_after_its_time_and_a_crash_does_not_change_that() {
    let mut fte = Fte::with_agents(AGENTS, &[]).await;
    // Due while it runs again, and due while it is down.
    let later = post(&fte.api(), json!({ "task": "later", "delay": "8s" })).await;
    let soon = post(&fte.api(), json!({ "task": "soon", "delay": "3s" })).await;
    let due = Timestamp::now() + SignedDuration::from_secs(3);
    for task in [&later, &soon] {
        in_status(&fte.api(), task, "queued").await;
    }
    fte.process.kill().await;
    passed(due).await;
    fte.process.restart().await;
    for (task, delay_us) in [(&soon, 3_000_000), (&later, 8_000_000)] {
        let ended = result(&fte.api(), task).await;
        assert_eq!(ended["status"], "completed");
        let started = micros(&ended["started_at"]);
        let shown: Value = fte.api().get(&format!("/v1/tasks/{task}")).await.unwrap().expect_status(200).json();
        let submitted = micros(&shown["created_at"]);
        assert!(started >= submitted + delay_us, "submitted {shown}, started {ended}");
    }
    settled(&fte.doors(), &[later, soon]).await;
}

#[tokio::test]
async fn an_agent_that_takes_too_long_is_ended() {
    let fte = Fte::with_agents(AGENTS, &[]).await;
    let late = fte.post(json!({ "task": "never done", "agent": "late" })).await;
    let mute = fte.post(json!({ "task": "never a word", "agent": "mute" })).await;
    let ended = fte.result(&late).await;
    assert_eq!((&ended["status"], &ended["error"]["code"]), (&json!("timed_out"), &json!("agent_timeout")), "{ended}");
    assert_ne!(fte.result(&mute).await["status"], "completed");
    settled(&fte.doors(), &[late, mute]).await;
}
