//! Each claimed sandbox is given back exactly once, whatever is killed: agents in the middle of their work, and FTE itself.
//!
//! Seeded: `FTE_CLAIM_SEED` repeats the choices of a run (not the machine's own timing), `FTE_CLAIM_TASKS` says how many tasks are accepted before it ends.

use std::fs;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::load::{Doors, Load};
use crate::trail::settled;
use crate::world::{Dice, Fte, setting};

/// Tasks posted at the same time.
const POSTERS: u64 = 8;
/// FTE itself is hit by one kill in so many.
const ONE_IN: u64 = 24;

/// Agents that wait, started ahead, for their task, and take a moment for it.
const AGENTS: &str = r#"
    default = "fragile"
    [agents.demo]
    kind = "builtin"
    [agents.fragile]
    kind = "process"
    command = ["sh", "-c", "read -r start; echo '{\"type\":\"stage\",\"name\":\"at work\"}'; sleep 0.02; echo '{\"type\":\"result\",\"result\":1}'"]
    max = 6
    min_warm = 2
    sandbox = "none"
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_killed_each_claim_is_given_back_once() {
    let tasks = setting("FTE_CLAIM_TASKS", 150);
    let seed = setting("FTE_CLAIM_SEED", 0x5eed);
    let mut dice = Dice::new(seed);
    println!("seed: FTE_CLAIM_SEED={seed}");
    let mut fte = Fte::with_agents(AGENTS, &[("FTE_RUNNER_APPROVAL_STAY_MS", "100")]).await;
    let mut load = Load::start(POSTERS, Doors::all(&fte.api()));
    let (mut agents, mut whole) = (0, 0);
    while (load.accepted() as u64) < tasks || agents == 0 || whole == 0 {
        tokio::time::sleep(Duration::from_millis(dice.below(100))).await;
        if dice.below(ONE_IN) == 0 {
            fte.process.kill().await;
            load.close();
            fte.process.restart().await;
            load.open(Doors::all(&fte.api()));
            whole += 1;
        } else {
            agents += u64::from(kill_one_agent(fte.process.ready().pid, &mut dice));
        }
    }
    let accepted = load.end().await;
    let told = settled(&Doors::all(&fte.api()), &accepted).await;
    load.go_home().await;
    let claims: usize = told.values().map(|history| history.claimed.len()).sum();
    println!(
        "agents killed: {agents}, FTE killed: {whole}, accepted: {}, tasks in the trail: {}, claims: {claims}, leaked: 0",
        accepted.len(),
        told.len()
    );
}

/// Kills one of the agents that run, if any does.
fn kill_one_agent(fte: u32, dice: &mut Dice) -> bool {
    let running: Vec<i32> = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| is_agent_of(fte, *pid))
        .collect();
    let Some(chosen) = (running.len() as u64).checked_sub(1).map(|last| running[dice.below(last + 1) as usize]) else { return false };
    // Held before the second look, so that its number cannot be a stranger's by then.
    let Some(held) = Pid::from_raw(chosen).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else { return false };
    is_agent_of(fte, chosen) && pidfd_send_signal(&held, Signal::KILL).is_ok()
}

/// Whether a process is a shell that FTE has started.
fn is_agent_of(fte: u32, pid: i32) -> bool {
    // `pid (name) state parent …`, and the name here has neither spaces nor brackets.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let mut words = stat.split(' ').skip(1);
    words.next() == Some("(sh)") && words.nth(1).is_some_and(|parent| parent == fte.to_string())
}
