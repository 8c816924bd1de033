//! Agents that others wrote (one more is among the stories, behind walls), on the Agent Client Protocol's official SDKs for Rust and for JavaScript: `tests/acp/tools` gets them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use fte_runner::agents::Limits;
use fte_runner::ports::{Agents as _, Said, Tell};
use fte_service::agents::{Agent, AgentKind, Agents, Builtin, Permissions};
use serde_json::json;
use tempfile::TempDir;

use crate::support::{Desk, all, eventually, expect_error, next, open, start, yes};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Where they are. Fetched once; without them these tests fail.
fn tools() -> &'static Path {
    static TOOLS: OnceLock<PathBuf> = OnceLock::new();
    TOOLS.get_or_init(|| {
        let output = Command::new(root().join("tests/acp/tools")).output().expect("tests/acp/tools runs");
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "tests/acp/tools needs cargo and npm, and a way to their registries: {words}");
        PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
    })
}

/// The example of the Rust SDK does no more than agree on the version: a session is what it has none of.
#[tokio::test]
async fn the_rust_sdk_s_agent_agrees_on_the_version() {
    let command = vec![tools().join("bin/simple_agent").to_str().unwrap().to_owned()];
    let desk = Desk::new(Agent { kind: AgentKind::Acp(command, Permissions::default()), sandbox: open(), ..Agent::builtin(Builtin::Echo) });
    let message = expect_error(&desk.last("hello").await, "agent_failed", false);
    assert!(message.contains("session/new with the error -32601"), "{message}");
    desk.cleared().await;
}

/// The example of kind `acp`, in a directory beside the SDK that it needs.
fn example(min_warm: u32) -> (Desk, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let examples = root().join("examples/agents");
    for file in ["acp.mjs", "package.json"] {
        std::fs::copy(examples.join(file), directory.path().join(file)).unwrap();
    }
    std::os::unix::fs::symlink(tools().join("node_modules"), directory.path().join("node_modules")).unwrap();
    let mut agents = Agents::read("FTE_AGENTS", &examples.join("agents.toml")).unwrap();
    agents.agents.values_mut().for_each(|agent| agent.sandbox = open());
    agents.agents.get_mut("note").unwrap().min_warm = min_warm;
    (Desk::of(&agents, Some(directory.path()), Limits::default()), directory)
}

#[tokio::test]
async fn the_javascript_sdk_s_agent_plans_writes_asks_and_counts() {
    let (desk, _directory) = example(0);
    plans_writes_asks_and_counts(&desk).await;
    desk.cleared().await;
}

#[tokio::test]
async fn the_javascript_sdk_s_agent_does_so_if_it_has_waited_for_its_task() {
    let (desk, _directory) = example(1);
    let keeping = tokio::spawn(desk.host.keep_warm());
    for _ in 0..2 {
        eventually("one waits", || desk.host.is_warm("note")).await;
        plans_writes_asks_and_counts(&desk).await;
    }
    keeping.abort();
}

async fn plans_writes_asks_and_counts(desk: &Desk) {
    let mut session = desk.host.start("note", start("to be or not to be")).await.unwrap();
    let mut said = Vec::new();
    let question = loop {
        match next(&mut session).await.expect("a question") {
            question @ Said::Approval { .. } => break question,
            word @ (Said::Action { .. } | Said::Stage(_) | Said::Progress { .. } | Said::Artifact(_)) => said.push(word),
            other => panic!("{other:?}"),
        }
    };
    let shown = json!({"kind": "execute", "title": "wc -w note.txt", "input": {"command": "wc -w note.txt"}});
    assert_eq!(
        question,
        Said::Approval {
            action: Some("execute".into()),
            reason: Some("May the agent do this (execute)? wc -w note.txt".into()),
            data: Some(shown)
        }
    );
    let made = said.iter().find_map(|said| if let Said::Artifact(made) = said { Some(made) } else { None }).expect("the note is kept");
    assert_eq!((made.name.as_str(), desk.kept(&made.uri).as_deref()), ("note.txt", Some(b"to be or not to be\n".as_slice())));
    assert!(said.contains(&Said::Stage("write the note".into())) && said.contains(&Said::Stage("count its words".into())), "{said:?}");
    session.tell.send(yes()).await.unwrap();
    let said = all(&mut session).await;
    assert_eq!(said.last(), Some(&Said::Result(json!("The note has 6 words."))), "{said:?}");
    assert!(said.contains(&Said::Progress { pct: Some(100), message: None }), "{said:?}");
}

#[tokio::test]
async fn the_javascript_sdk_s_agent_can_be_cancelled_while_a_person_decides() {
    let (desk, _directory) = example(0);
    let mut session = desk.host.start("note", start("to be")).await.unwrap();
    while !matches!(next(&mut session).await.expect("a question"), Said::Approval { .. }) {}
    session.tell.send(Tell::Cancel).await.unwrap();
    expect_error(all(&mut session).await.last().unwrap(), "cancelled", false);
}
