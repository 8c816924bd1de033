//! However a session ends, nothing of it stays: no process, no workspace.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use fte_runner::agents::Limits;
use fte_runner::ports::{Agents as _, Said};
use fte_service::agents::{AgentKind, Agents, Occasions};
use fte_service::{Env as _, ProcessEnv};
use futures_util::FutureExt as _;
use serde_json::json;

use crate::support::{Desk, alive, all, dead, eventually, host, next, pids, script, start};

/// A child and a grandchild beside the leader; all ignore the wish that they end. Says their process ids.
const FAMILY: &str = r#"trap '' TERM HUP INT
    sh -c 'trap "" TERM; sleep 600 & echo $! > grandchild; while :; do sleep 600; done' &
    child=$!
    while [ ! -s grandchild ]; do sleep 0.01; done
    echo '{"type":"log","message":"'$$ $child $(cat grandchild)'"}'"#;

#[tokio::test]
async fn a_dropped_session_takes_all_its_processes_and_its_workspace_along() {
    let desk = Desk::process(&format!("{FAMILY}\nwhile :; do sleep 600; done"));
    let mut session = desk.start("t").await;
    let pids = pids(&mut session).await;
    assert_eq!(pids.len(), 3);
    drop(session);
    dead(&pids).await;
    desk.cleared().await;
}

#[tokio::test]
async fn a_dropped_guard_is_enough() {
    let desk = Desk::process(&format!("{FAMILY}\nwhile :; do sleep 600; done"));
    let mut session = desk.start("t").await;
    let pids = pids(&mut session).await;
    drop(session.guard);
    dead(&pids).await;
    // The channel closes as well, without a word.
    assert_eq!(session.said.recv().await, None);
}

#[tokio::test]
async fn what_an_agent_leaves_behind_ends_with_it() {
    let desk = Desk::process(&format!("{FAMILY}\necho '{{\"type\":\"result\",\"result\":1}}'; exit 0"));
    let mut session = desk.start("t").await;
    let Some(Said::Log(line)) = next(&mut session).await else { panic!("expected the process ids") };
    let pids: Vec<u32> = line.split(' ').map(|pid| pid.parse().unwrap()).collect();
    assert_eq!(all(&mut session).await, [Said::Result(json!(1))]);
    // The session is still held.
    dead(&pids).await;
    desk.cleared().await;
}

#[tokio::test]
async fn a_process_that_left_the_group_cannot_hold_the_session_open() {
    let desk = Desk::process(
        r#"setsid sleep 600 & escaped=$!
        echo '{"type":"log","message":"'$escaped'"}'
        echo '{"type":"result","result":1}'"#,
    );
    let mut session = desk.start("t").await;
    let Some(Said::Log(escaped)) = next(&mut session).await else { panic!("expected a process id") };
    // It holds standard output, whose end is therefore never seen.
    assert_eq!(all(&mut session).await, [Said::Result(json!(1))]);
    desk.cleared().await;
    drop(Command::new("kill").args(["-9", &escaped]).status());
}

#[tokio::test]
async fn a_flooding_agent_dies_when_nobody_listens() {
    let desk = Desk::process(r#"echo '{"type":"log","message":"'$$'"}'; while :; do echo '{"type":"log","message":"more"}'; done"#);
    let mut session = desk.start("t").await;
    let pids = pids(&mut session).await;
    eventually("the channel is full", || session.said.len() == 64).await;
    drop(session);
    dead(&pids).await;
    desk.cleared().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_sessions_started_and_dropped_at_once_leave_nothing() {
    let desk = Desk::process("sleep 600");
    let sessions = futures_util::future::join_all((0..40).map(|n| desk.host.start("agent", start(&n.to_string())))).await;
    let sessions: Vec<_> = sessions.into_iter().map(Result::unwrap).collect();
    // Forty leaders that are children of this process.
    let me = std::process::id().to_string();
    let children = || {
        let tasks = std::fs::read_dir(format!("/proc/{me}/task")).unwrap();
        let of = |task: std::io::Result<std::fs::DirEntry>| std::fs::read_to_string(task.ok()?.path().join("children")).ok();
        let all: Vec<String> = tasks.filter_map(of).collect();
        all.join(" ").split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>()
    };
    let workspace = desk.workspaces().canonicalize().unwrap();
    let ours = |pid: &u32| std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(&workspace));
    let leaders: Vec<u32> = children().into_iter().filter(ours).collect();
    assert_eq!(leaders.len(), 40);
    drop(sessions);
    dead(&leaders).await;
    desk.cleared().await;
    // Not even as a process that nobody waited for.
    eventually("all are waited for", || !leaders.iter().any(|pid| Path::new(&format!("/proc/{pid}")).exists())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_nobody_waits_for_leaves_nothing() {
    let desk = Desk::process("sleep 600");
    for _ in 0..20 {
        let mut starting = desk.host.start("agent", start("t"));
        // Polled once: the program may be on its way.
        assert!(starting.as_mut().now_or_never().is_none());
        drop(starting);
    }
    // What was on its way has arrived by the time another one has.
    drop(desk.start("t").await);
    desk.cleared().await;
}

#[tokio::test]
async fn a_sweep_removes_what_a_killed_runner_left() {
    let desk = Desk::process("");
    let old = desk.workspaces().join("01980000-0000-7000-8000-000000000001/1.0");
    std::fs::create_dir_all(&old).unwrap();
    std::fs::write(old.join("file"), "left").unwrap();
    let half = desk.data.path().join("artifacts/tmp/half");
    std::fs::create_dir_all(half.parent().unwrap()).unwrap();
    std::fs::write(&half, "left").unwrap();
    desk.host.sweep().unwrap();
    assert!(!old.exists() && !half.exists());
    desk.cleared().await;
}

/// Names the data directory to the process that plays the runner to be killed.
const VICTIM: &str = "FTE_TEST_AGENTS_VICTIM";

/// This test runs itself in a second process, which starts agents until it is killed.
#[tokio::test]
async fn agents_die_with_a_killed_runner() {
    let agent = script(AgentKind::Process, &format!("{FAMILY}\nwhile :; do sleep 600; done"));
    let agents = Agents {
        default: "agent".parse().unwrap(),
        agents: [("agent".parse().unwrap(), agent)].into(),
        accept: Vec::new(),
        occasions: Occasions::default(),
    };
    if let Some(data) = ProcessEnv.get(VICTIM) {
        let host = host(&agents, None, Path::new(&data), Limits::default());
        let mut sessions = Vec::new();
        let mut lines = Vec::new();
        for _ in 0..3 {
            let mut session = host.start("agent", start("t")).await.unwrap();
            lines.push(pids(&mut session).await.iter().map(u32::to_string).collect::<Vec<_>>().join(" "));
            sessions.push(session);
        }
        // One that ended by itself before.
        drop(sessions.pop());
        let file = Path::new(&data).join("pids");
        std::fs::write(file.with_extension("new"), lines.join("\n")).unwrap();
        std::fs::rename(file.with_extension("new"), file).unwrap();
        std::future::pending::<()>().await;
    }
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("pids");
    let mut victim = Command::new(std::env::current_exe().unwrap());
    victim.args(["--exact", "ending::agents_die_with_a_killed_runner"]).env(VICTIM, data.path());
    let mut victim = victim.stdout(Stdio::null()).process_group(0).spawn().unwrap();
    eventually("its agents run", || file.exists()).await;
    let pids: Vec<u32> = std::fs::read_to_string(&file).unwrap().split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    assert!(pids.len() == 9 && pids[..6].iter().all(|pid| alive(*pid)), "{pids:?}");
    victim.kill().unwrap();
    victim.wait().unwrap();
    dead(&pids).await;
}
