//! A runner that stands still for longer than its lease and then goes on: its peer has done its tasks by then, and what it still has in its hands counts no more.

use std::path::Path;

use fte_testkit::{Dir, eventually, eventually_within};
use serde_json::json;

use crate::parts::{Part, Parts, Way};
use crate::trail::settled;
use crate::world::{LOAD_PATIENCE, look, post, result};

/// Behind walls, with a directory that it sees; by a file in there it knows which life it is in. Once it may, it says so. `stay` does in its second life only.
const AGENT: &str = r#"
import json, os, sys, time

def say(type, **fields):
    print(json.dumps({"type": type, **fields}), flush=True)

task = json.loads(sys.stdin.readline())["task"]
sign = lambda name: os.path.exists(os.path.join(sys.argv[1], name))
life = "second" if sign("taken") else "first"
say("stage", name=life)
while not sign("go") or [task, life] == ["stay", "first"]: time.sleep(0.02)
say("result", result=life)
"#;

/// The agents that are alive: their command line names this path. One that has ended has no command line, even where nobody has noticed yet.
fn agents_alive(named: &Path) -> Vec<u32> {
    let named = named.to_str().unwrap();
    let pids = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let is_one = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        // Not what holds it.
        line.contains(named) && line.split('\0').next().is_some_and(|program| program.contains("python3"))
    };
    pids.filter(is_one).collect()
}

/// Kills it, and nobody listens in its place.
async fn kill(runner: &mut Part) {
    runner.daemon.kill().await;
    runner.between.as_mut().unwrap().cut().await;
}

#[tokio::test]
async fn a_runner_frozen_past_its_lease_ends_its_agents_when_it_goes_on_and_what_it_held_does_not_count() {
    let dir = Dir::new();
    let signs = dir.join("signs");
    std::fs::create_dir(&signs).unwrap();
    let sign = |name: &str| std::fs::write(signs.join(name), "").unwrap();
    let command = json!(["python3", dir.write("agent.py", AGENT), signs]);
    let agents = format!("[agents.worker]\nkind = \"process\"\ncommand = {command}\nread = [{}]\n", json!(signs));
    let mut parts = Parts::with_between(&agents, &[&[], &[]], Way::Deliveries).await;
    let doors = parts.doors();

    // The first one has both tasks, for it is alone; then its peer comes.
    kill(&mut parts.runners[1]).await;
    let mut tasks = Vec::new();
    for task in ["answer", "stay"] {
        tasks.push(post(&doors.intake, json!({ "task": task })).await);
    }
    let in_life = async |tasks: &[String], life: &str| {
        for task in tasks {
            eventually_within(LOAD_PATIENCE, || async {
                let shown = look(&doors.status, &format!("/v1/tasks/{task}")).await?;
                if shown["stage"] == life { Ok(()) } else { Err(shown.to_string()) }
            })
            .await;
        }
    };
    in_life(&tasks, "first").await;
    let first = eventually(|| async {
        let alive = agents_alive(&signs);
        if alive.len() == 2 { Ok(alive) } else { Err(alive) }
    })
    .await;
    parts.runners[1].kill_and_restart().await;
    parts.runners[1].between.as_mut().unwrap().mend().await;

    // It stands still, and its sidecar finds it dead.
    parts.runners[0].daemon.freeze();
    parts.runners[0].between.as_mut().unwrap().cut().await;
    sign("taken");
    in_life(&tasks, "second").await;
    sign("go");
    for task in &tasks {
        let end = result(&doors.status, task).await;
        assert_eq!((&end["status"], &end["result"]), (&json!("completed"), &json!("second")), "{end}");
    }
    // In the first life one has answered, too, which nobody has read; the other one is still at work.
    let alive = || agents_alive(&signs).into_iter().filter(|pid| first.contains(pid)).count();
    eventually(|| async { if alive() == 1 { Ok(()) } else { Err(alive()) } }).await;

    parts.runners[0].daemon.thaw();
    parts.runners[0].between.as_mut().unwrap().mend().await;
    eventually(|| async { if alive() == 0 { Ok(()) } else { Err("its agent lives") } }).await;
    // It goes on under a new name, and does the next task alone.
    eventually(|| async {
        let log = parts.runners[0].daemon.log();
        if log.contains("going on under a new instance") { Ok(()) } else { Err(log) }
    })
    .await;
    parts.runners[0].ready().await;
    kill(&mut parts.runners[1]).await;
    let next = post(&doors.intake, json!({ "task": "answer" })).await;
    assert_eq!(result(&doors.status, &next).await["result"], "second");

    tasks.push(next);
    let told = settled(&doors, &tasks).await;
    assert_eq!(told.len(), 3);
    for task in &tasks[..2] {
        let history = &told[task];
        let count = |kind: &str| history.types.iter().filter(|found| *found == kind).count();
        assert_eq!((count("fte.sandbox.claimed"), count("fte.sandbox.expired"), count("fte.sandbox.released")), (2, 1, 1), "{history:?}");
        assert_eq!(history.results, ["completed"]);
    }
}
