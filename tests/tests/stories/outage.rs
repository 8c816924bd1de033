//! Parts go away and come back: 503 and never a false 202 meanwhile, and afterwards everything recovers by itself.

use std::path::Path;
use std::time::Duration;

use fte_testkit::{Dir, eventually, eventually_within};
use serde_json::{Value, json};

use crate::load::Load;
use crate::parts::Parts;
use crate::trail::settled;
use crate::world::{Dice, held_until, in_status, look, post};

/// The one process that holds this seat is taken over at once.
const SEATED: &[(&str, &str)] = &[("FTE_RUNNER_SEAT", "pod-0"), ("FTE_RUNNER_APPROVAL_STAY_MS", "100")];
const AGENTS: &str = r#"
    default = "echo"
    [agents.echo]
    kind = "builtin"
    [agents.demo]
    kind = "builtin"
    [agents.slow]
    kind = "command"
    command = ["sh", "-c", "sleep 0.3; cat"]
    max = 8
"#;

/// Longer than a lease.
const TAKEOVER: Duration = Duration::from_secs(60);

fn slow(text: &str) -> Value {
    json!({ "task": text, "agent": "slow" })
}

#[tokio::test]
async fn without_its_sidecar_nothing_is_accepted_and_afterwards_everything_recovers_by_itself() {
    let mut parts = Parts::start(AGENTS, &[SEATED]).await;
    let doors = parts.doors();
    let mut accepted = Vec::new();
    for number in 0..20 {
        accepted.push(post(&doors.intake, slow(&number.to_string())).await);
    }
    parts.sidecar.kill().await;

    for keyed in [false, true] {
        let client = if keyed { doors.intake.clone().with_header("idempotency-key", "while-away") } else { doors.intake.clone() };
        let refused = client.post("/v1/tasks", &json!({ "task": "while it is away" })).await.unwrap().expect_status(503);
        assert_eq!(refused.problem_code(), "task_not_accepted");
        assert!(refused.headers.contains_key("retry-after"));
    }
    for part in parts.services() {
        for port in [&part.app, &part.api] {
            assert_eq!(port.get("/ready").await.unwrap().expect_status(503).problem_code(), "not_ready");
            port.get("/health").await.unwrap().expect_status(200);
        }
    }
    // What was recorded can still be read.
    doors.status.get("/v1/tasks").await.unwrap().expect_status(200);
    doors.audit.get("/v1/audit/entries").await.unwrap().expect_status(200);

    parts.sidecar.start().await;
    parts.ready().await;
    let again = doors.intake.clone().with_header("idempotency-key", "while-away");
    let kept = again.post("/v1/tasks", &json!({ "task": "while it is away" })).await.unwrap().expect_status(202);
    accepted.push(kept.json::<Value>()["task_id"].as_str().unwrap().to_owned());
    accepted.push(post(&doors.intake, slow("afterwards")).await);
    let told = settled(&doors, &accepted).await;
    assert_eq!(told.len(), accepted.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_part_killed_in_turn_while_tasks_flow_loses_nothing_and_doubles_nothing() {
    let mut parts = Parts::start(AGENTS, &[SEATED]).await;
    let mut dice = Dice::new(7);
    let mut load = Load::start(4, parts.doors());
    for _ in 0..2 {
        for number in 0..5 {
            let before = load.accepted();
            let flows = || async { if load.accepted() >= before + 10 { Ok(()) } else { Err(load.accepted()) } };
            eventually(flows).await;
            tokio::time::sleep(Duration::from_millis(dice.below(100))).await;
            match number {
                0 => parts.intake.kill_and_restart().await,
                1 => parts.runners[0].kill_and_restart().await,
                2 => parts.status.kill_and_restart().await,
                3 => parts.audit.kill_and_restart().await,
                _ => {
                    parts.sidecar.start().await;
                    parts.ready().await;
                }
            }
        }
    }
    let accepted = load.end().await;
    settled(&parts.doors(), &accepted).await;
    load.go_home().await;
}

/// All of these, and one that is held until a file is there: its tasks are under way for as long as a story needs them so.
fn with_held(gate: &Path) -> String {
    format!("{AGENTS}[agents.held]\nkind = \"command\"\nsandbox = \"none\"\nmax = 8\ncommand = {}\n", held_until(gate))
}

fn held(text: &str) -> Value {
    json!({ "task": text, "agent": "held" })
}

#[tokio::test]
async fn a_dead_runner_that_nobody_vouches_for_is_taken_over_when_its_lease_has_run_out() {
    let dir = Dir::new();
    let gate = dir.join("gate");
    let mut parts = Parts::start(&with_held(&gate), &[&[]]).await;
    let doors = parts.doors();
    let mut accepted = Vec::new();
    for number in 0..12 {
        accepted.push(post(&doors.intake, held(&number.to_string())).await);
    }
    in_status(&doors.status, &accepted[0], "running").await;
    parts.runners[0].kill_and_restart().await;
    std::fs::write(&gate, "").unwrap();
    // The new one takes new tasks at once.
    let new = post(&doors.intake, json!({ "task": "new" })).await;
    in_status(&doors.status, &new, "completed").await;
    eventually_within(TAKEOVER, || async {
        let left = look(&doors.status, "/v1/tasks?status=running").await?;
        if left["items"] == json!([]) { Ok(()) } else { Err(left.to_string()) }
    })
    .await;
    accepted.push(new);
    let told = settled(&doors, &accepted).await;
    let expired = told.values().flat_map(|history| &history.types).filter(|kind| *kind == "fte.sandbox.expired").count();
    assert!(expired >= 1, "what the dead one held has expired: {told:?}");
}

#[tokio::test]
async fn of_two_runners_one_dies_and_the_other_finishes_its_tasks_once_each() {
    let dir = Dir::new();
    let gate = dir.join("gate");
    let mut parts = Parts::start(&with_held(&gate), &[&[], &[]]).await;
    let doors = parts.doors();
    let mut accepted = Vec::new();
    for number in 0..40 {
        accepted.push(post(&doors.intake, held(&number.to_string())).await);
    }
    // Both work.
    for runner in &parts.runners {
        eventually(|| async {
            let agents = look(&runner.api, "/v1/agents").await?;
            let in_use: u64 = agents["items"].as_array().unwrap().iter().map(|agent| agent["in_use"].as_u64().unwrap()).sum();
            if in_use > 0 { Ok(()) } else { Err(agents.to_string()) }
        })
        .await;
    }
    parts.runners[1].daemon.kill().await;
    std::fs::write(&gate, "").unwrap();
    for number in 0..10 {
        accepted.push(post(&doors.intake, slow(&format!("after {number}"))).await);
    }
    let told = settled(&doors, &accepted).await;
    assert_eq!(told.len(), accepted.len());
}

#[tokio::test]
async fn a_runner_cut_off_for_longer_than_its_lease_ends_its_agents_and_starts_them_again_afterwards() {
    let dir = Dir::new();
    let started = dir.join("started");
    // Stuck at its first start, and quick at its second.
    let script = dir.write("agent.sh", format!("if [ -e {0} ]; then cat; else echo $$ > {0}; sleep 600; fi", started.display()));
    // Without walls, since it tells of itself in a file outside.
    let agents = format!("[agents.stuck]\nkind = \"command\"\ncommand = [\"sh\", \"{}\"]\nsandbox = \"none\"\n", script.display());
    let mut parts = Parts::start(&agents, &[&[]]).await;
    let doors = parts.doors();
    let task = post(&doors.intake, json!({ "task": "go on" })).await;
    let read = || async { std::fs::read_to_string(&started).ok().and_then(|pid| pid.trim().parse::<u32>().ok()).ok_or("no agent yet") };
    let agent = eventually(read).await;

    parts.sidecar.kill().await;
    eventually_within(TAKEOVER, || async {
        let missing: Value = parts.runners[0].app.get("/ready").await.unwrap().expect_status(503).json();
        let lease = missing["checks"].as_array().unwrap().iter().any(|check| check["name"] == "runner/lease" && check["ready"] == false);
        if lease { Ok(()) } else { Err(missing) }
    })
    .await;
    eventually(|| async { if std::path::Path::new(&format!("/proc/{agent}")).exists() { Err("its agent lives") } else { Ok(()) } }).await;

    parts.sidecar.start().await;
    parts.ready().await;
    let told = settled(&doors, std::slice::from_ref(&task)).await;
    assert_eq!(told[&task].results, ["completed"]);
    assert_eq!(told[&task].claimed.len(), 2, "{told:?}");
}
