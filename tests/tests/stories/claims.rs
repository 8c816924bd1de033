//! Each claimed sandbox is given back exactly once, whatever is killed: agents in the middle of their work, behind walls and without, and FTE itself. At the end
//! nothing of any sandbox is left on the machine: no process (and so no namespace), no control group, no workspace, no way out.
//!
//! Seeded: `FTE_CLAIM_SEED` repeats the choices of a run (not the machine's own timing), `FTE_CLAIM_TASKS` says how many tasks are accepted before it ends.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fte_testkit::{eventually, eventually_within};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::json;

use crate::load::{Doors, Load};
use crate::trail::settled;
use crate::world::{Dice, Fte, LOAD_PATIENCE, setting};

/// Tasks posted at the same time.
const POSTERS: u64 = 8;
/// FTE itself is hit by one kill in so many.
const ONE_IN: u64 = 24;

/// Agents that take a moment for their task; two of them wait for it, started ahead.
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
    [agents.walled]
    kind = "process"
    command = ["sh", "-c", "read -r start; echo $start > kept; setsid sleep 600 >/dev/null 2>&1 & echo '{\"type\":\"stage\",\"name\":\"at work\"}'; sleep 0.02; echo '{\"type\":\"result\",\"result\":1}'"]
    max = 4
    min_warm = 2
    [agents.reaching]
    kind = "command"
    command = ["sh", "-c", "cat > kept; sleep 0.02; echo done"]
    network = ["localhost:9"]
    max = 3
"#;
/// Who gets the plain tasks, in turns.
const WHO: [&str; 8] = ["fragile", "fragile", "fragile", "walled", "fragile", "fragile", "fragile", "reaching"];
/// Programs that wait when nobody has anything to do: without walls, and behind them.
const WARM: (usize, usize) = (2, 2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_killed_each_claim_is_given_back_once_and_nothing_is_left_of_it() {
    let tasks = setting("FTE_CLAIM_TASKS", 150);
    let seed = setting("FTE_CLAIM_SEED", 0x5eed);
    let mut dice = Dice::new(seed);
    println!("seed: FTE_CLAIM_SEED={seed}");
    let mut fte = Fte::with_agents(AGENTS, &[("FTE_RUNNER_APPROVAL_STAY_MS", "100")]).await;
    let mut lives = vec![fte.process.ready().pid];
    let mut load = Load::start_for(&WHO, POSTERS, Doors::all(&fte.api()));
    let (mut agents, mut whole) = (0, 0);
    while (load.accepted() as u64) < tasks || agents == 0 || whole == 0 {
        tokio::time::sleep(Duration::from_millis(dice.below(100))).await;
        if dice.below(ONE_IN) == 0 {
            fte.process.kill().await;
            load.close();
            fte.process.restart().await;
            lives.push(fte.process.ready().pid);
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

    // At rest it holds what waits for tasks, and no more. A group that was still busy at its end goes with the next sandbox that is made.
    let at_rest = Left { outside: WARM.0 + WARM.1, groups: WARM.1, workspaces: WARM.0 + WARM.1, ways_out: 0 };
    eventually_within(LOAD_PATIENCE, || async {
        for agent in ["walled", "reaching"] {
            let task = fte.post(json!({ "task": "one more", "agent": agent })).await;
            fte.result(&task).await;
        }
        let left = Left::of(&fte, &lives);
        if left == at_rest { Ok(()) } else { Err(left) }
    })
    .await;
    let pipes = open_pipes(fte.process.ready().pid);
    assert!(pipes < OPEN_PIPES_MAX, "{pipes} pipes are open at rest");

    // Stopped, it leaves nothing; killed, its successor cleans up behind it.
    fte.process.kill().await;
    // As one leaves it that is killed while it makes a sandbox.
    fs::write(fte.process.data().join("sandbox/ways-out/left"), "").unwrap();
    fte.process.restart().await;
    lives.push(fte.process.ready().pid);
    assert!(fte.process.stop().await.success(), "{}", fte.process.log());
    eventually(|| async {
        let left = Left::of(&fte, &lives);
        if left == Left::default() { Ok(()) } else { Err(left) }
    })
    .await;
    println!(
        "agents killed: {agents}, FTE killed: {whole}, accepted: {}, tasks in the trail: {}, claims: {claims}, leaked: 0, pipes open at rest: {pipes}",
        accepted.len(),
        told.len()
    );
}

/// More than FTE at rest has with those who wait, by far, and less than if each task left one.
const OPEN_PIPES_MAX: usize = 64;

fn open_pipes(pid: u32) -> usize {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    open.filter(|file| fs::read_link(file.path()).is_ok_and(|to| to.to_string_lossy().starts_with("pipe:"))).count()
}

/// What is left of sandboxes on this machine.
#[derive(Debug, Default, PartialEq)]
struct Left {
    /// Programs, or what holds them: as FTE started them. What they started hangs on them, or is counted here too, once they are gone.
    outside: usize,
    /// Control groups of a sandbox, in whichever hierarchy there are most.
    groups: usize,
    /// Directories of an attempt.
    workspaces: usize,
    /// Sockets that lead to a proxy.
    ways_out: usize,
}

impl Left {
    /// Of these lives of FTE.
    fn of(fte: &Fte, lives: &[u32]) -> Self {
        let data = fte.process.data();
        let ours = belonging_to(data);
        let outside = ours.iter().filter(|process| !ours.iter().any(|other| other.pid == process.parent)).count();
        let entries = |directory: &Path| -> Vec<PathBuf> {
            fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
        };
        let workspaces = entries(&data.join("workspaces")).iter().map(|of_task| entries(of_task).len().max(1)).sum();
        Self { outside, groups: groups(lives), workspaces, ways_out: entries(&data.join("sandbox/ways-out")).len() }
    }
}

/// A process of an agent.
struct Process {
    pid: i32,
    parent: i32,
}

/// The processes, but FTE itself, that have this directory in their command line or their environment: their workspace is in it.
fn belonging_to(data: &Path) -> Vec<Process> {
    let word = format!("{}/workspaces", data.canonicalize().unwrap().display());
    let holds = |file: PathBuf| fs::read(file).is_ok_and(|bytes| bytes.windows(word.len()).any(|window| window == word.as_bytes()));
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    processes
        .filter(|pid| ["cmdline", "environ"].iter().any(|file| holds(Path::new("/proc").join(pid.to_string()).join(file))))
        .filter_map(|pid| Some(Process { pid, parent: parent(pid)? }))
        .collect()
}

/// `pid (name) state parent …`: the name may have spaces and brackets. None of one that has ended.
fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut words = stat.rsplit_once(')')?.1.split_whitespace();
    if ["Z", "X"].contains(&words.next()?) { None } else { words.next()?.parse().ok() }
}

/// How many groups these processes have that are a sandbox's: `fte-<process>-<n>/<sandbox>`. An empty `fte-…` of a process that is gone counts, too.
fn groups(lives: &[u32]) -> usize {
    let mut found: BTreeMap<PathBuf, usize> = BTreeMap::new();
    let mut below = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(directory) = below.pop() {
        for entry in
            fs::read_dir(&directory).into_iter().flatten().flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        {
            let name = entry.file_name().to_string_lossy().into_owned();
            let owner = name.strip_prefix("fte-").and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
            match owner.filter(|owner| lives.contains(owner)) {
                Some(owner) => {
                    let cells = fs::read_dir(entry.path()).into_iter().flatten().flatten();
                    let cells = cells.filter(|cell| cell.file_type().is_ok_and(|kind| kind.is_dir())).count();
                    let is_gone = !Path::new(&format!("/proc/{owner}")).exists();
                    *found.entry(directory.clone()).or_default() += cells + usize::from(is_gone);
                }
                None => below.push(entry.path()),
            }
        }
    }
    found.into_values().max().unwrap_or(0)
}

/// Kills one process of those that FTE has started, or that these have, if there is any: a program, or what holds it. Not who watches over them all: were FTE
/// hit next, before it has another, nobody would be left to end them.
fn kill_one_agent(fte: u32, dice: &mut Dice) -> bool {
    let running = started_by(fte);
    let Some(chosen) = (running.len() as u64).checked_sub(1).map(|last| running[dice.below(last + 1) as usize]) else { return false };
    // Held before the second look, so that its number cannot be a stranger's by then.
    let Some(held) = Pid::from_raw(chosen).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else { return false };
    started_by(fte).contains(&chosen) && pidfd_send_signal(&held, Signal::KILL).is_ok()
}

fn started_by(fte: u32) -> Vec<i32> {
    let all: BTreeMap<i32, i32> = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, parent(pid)?)))
        .collect();
    let is_ours = |pid: i32| std::iter::successors(all.get(&pid), |parent| all.get(*parent)).any(|ancestor| *ancestor == fte.cast_signed());
    let watches = |pid: i32| fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains("trap '' INT TERM HUP"));
    all.keys().copied().filter(|pid| is_ours(*pid) && !watches(*pid)).collect()
}
