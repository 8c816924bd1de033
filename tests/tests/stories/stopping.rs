//! Asked to stop under load: it ends in time and well, and what it had accepted goes on at the next start.

use std::time::{Duration, Instant};

use fte_testkit::{Dir, eventually};
use serde_json::json;

use crate::load::Load;
use crate::trail::settled;
use crate::world::{Fte, held_until};

const AGENTS: &str = r#"
    default = "echo"
    [agents.echo]
    kind = "builtin"
    [agents.demo]
    kind = "builtin"
    [agents.long]
    kind = "command"
    command = ["sh", "-c", "sleep 1.5; cat"]
"#;
const DRAIN: Duration = Duration::from_secs(4);
/// What a busy machine may add.
const LEEWAY: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asked_to_stop_under_load_it_ends_well_in_time_and_goes_on_at_the_next_start() {
    let mut fte = Fte::with_agents(AGENTS, &[("FTE_DRAIN_MS_MAX", "4000"), ("FTE_RUNNER_APPROVAL_STAY_MS", "100")]).await;
    let mut accepted = Vec::new();
    let mut load = Load::start(4, fte.doors());
    for round in 0..3 {
        for number in 0..6 {
            accepted.push(fte.post(json!({ "task": format!("{round}/{number}"), "agent": "long" })).await);
        }
        let api = fte.api();
        // People who wait and watch must not hold it up.
        let watching = api.events("/v1/events", None).await.unwrap();
        let waited = accepted[accepted.len() - 1].clone();
        let waiting = tokio::spawn(async move { api.get(&format!("/v1/tasks/{waited}/result?wait=60s")).await });
        let before = load.accepted();
        eventually(|| async { if load.accepted() >= before + 20 { Ok(()) } else { Err(load.accepted()) } }).await;
        let asked = Instant::now();
        let status = fte.process.stop().await;
        load.close();
        assert!(status.success(), "{status}; its log:\n{}", fte.process.log());
        assert!(asked.elapsed() < DRAIN + LEEWAY, "it took {:?}", asked.elapsed());
        assert!(!fte.process.log().contains("ERROR"), "{}", fte.process.log());
        watching.rest().await;
        drop(waiting.await);
        fte.process.restart().await;
        load.open(fte.doors());
    }
    accepted.extend(load.end().await);
    settled(&fte.doors(), &accepted).await;
    load.go_home().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_under_load_ends_it_at_once_and_loses_nothing() {
    let dir = Dir::new();
    let gate = dir.join("gate");
    let held = format!("[agents.held]\nkind = \"command\"\nsandbox = \"none\"\ncommand = {}\n", held_until(&gate));
    let mut fte = Fte::with_agents(&format!("{AGENTS}{held}"), &[("FTE_DRAIN_MS_MAX", "60000")]).await;
    let mut accepted = Vec::new();
    for number in 0..8 {
        accepted.push(fte.post(json!({ "task": number.to_string(), "agent": "held" })).await);
    }
    // Under way, and not over before the next start.
    fte.in_status(&accepted[0], "running").await;
    let mut load = Load::start(4, fte.doors());
    eventually(|| async { if load.accepted() >= 20 { Ok(()) } else { Err(load.accepted()) } }).await;
    fte.process.daemon().terminate();
    eventually(|| async { if fte.process.log().contains("once more stops at once") { Ok(()) } else { Err(fte.process.log()) } }).await;
    assert!(fte.process.daemon().exit().is_none(), "it finishes what is under way first");
    let status = fte.process.stop().await;
    load.close();
    assert_eq!(status.code(), Some(130));
    std::fs::write(&gate, "").unwrap();
    fte.process.restart().await;
    load.open(fte.doors());
    accepted.extend(load.end().await);
    settled(&fte.doors(), &accepted).await;
    load.go_home().await;
}
