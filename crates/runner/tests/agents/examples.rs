//! The agents in `examples/agents` do what their comments say, by the `agents.toml` that stands beside them. They need `python3` and `node`, and fail
//! without: an example that nobody runs is no example.

use std::path::{Path, PathBuf};

use fte_runner::agents::Limits;
use fte_runner::ports::{Agents as _, Said, Start, Tell};
use fte_service::agents::Agents;
use serde_json::{Value, json};

use crate::support::{Desk, all, next, open, start, yes};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/agents").canonicalize().unwrap()
}

fn desk() -> Desk {
    let directory = directory();
    let mut agents = Agents::read("FTE_AGENTS", &directory.join("agents.toml")).unwrap();
    // Their words are the matter here; that they work behind walls is shown on the whole program.
    agents.agents.values_mut().for_each(|agent| agent.sandbox = open());
    Desk::of(&agents, Some(&directory), Limits::default())
}

async fn run(desk: &Desk, agent: &str, start: Start) -> Vec<Said> {
    let mut session = desk.host.start(agent, start).await.unwrap_or_else(|error| panic!("{error}; the examples need sh, python3 and node"));
    all(&mut session).await
}

fn result(said: &[Said]) -> &Value {
    match said.last() {
        Some(Said::Result(result)) => result,
        _ => panic!("expected a result at the end: {said:?}"),
    }
}

fn artifact(desk: &Desk, said: &[Said]) -> String {
    let artifact = said.iter().find_map(|said| if let Said::Artifact(artifact) = said { Some(artifact) } else { None });
    String::from_utf8(desk.kept(&artifact.expect("an artifact").uri).unwrap()).unwrap()
}

#[tokio::test]
async fn every_example_answers() {
    let desk = desk();
    let task = r#"say "hi" to \ and ü"#;
    let said = run(&desk, "measurer", start(task)).await;
    let written = artifact(&desk, &said);
    assert_eq!(serde_json::from_str::<Value>(&written).unwrap(), json!({ "task": task }));
    assert_eq!(*result(&said), json!({"measured": task, "bytes": written.len()}));

    let said = run(&desk, "counter", start("to be or not to be")).await;
    assert_eq!(*result(&said), json!({"words": 6, "different": 4}));
    assert!(said.contains(&Said::Progress { pct: Some(100), message: Some("be".into()) }) && said.contains(&Said::Cost(0.006)));
    assert_eq!(serde_json::from_str::<Value>(&artifact(&desk, &said)).unwrap()["be"], 2);

    assert_eq!(*result(&run(&desk, "shouter", start("hello")).await), json!("HELLO"));
    assert_eq!(*result(&run(&desk, "printer", start("--help")).await), json!("--help!"));
    assert_eq!(*result(&run(&desk, "echo", start("hello")).await), json!({"echo": "hello"}));
    desk.cleared().await;
}

#[tokio::test]
async fn the_python_example_survives_being_parked() {
    let desk = desk();
    let asked = start("rain");
    let mut session = desk.host.start("writer", asked.clone()).await.unwrap();
    let mut checkpoint = None;
    let question = loop {
        match next(&mut session).await.expect("a question") {
            Said::Checkpoint(data) => checkpoint = Some(data),
            question @ Said::Approval { .. } => break question,
            Said::Stage(_) | Said::Progress { .. } => {}
            other => panic!("{other:?}"),
        }
    };
    // Parked: the sandbox is given back while a person decides.
    drop(session);
    desk.cleared().await;
    let again = Start { checkpoint, ..asked };
    let mut session = desk.host.start("writer", again.clone()).await.unwrap();
    session.tell.send(yes()).await.unwrap();
    let said = all(&mut session).await;
    assert_eq!(said[0], question);
    assert_eq!(artifact(&desk, &said), "# Note on: rain\n\nfine\n");
    assert_eq!(*result(&said), json!({"note": "Note on: rain", "approved": true}));

    // What they made of it is what is published.
    let mut session = desk.host.start("writer", again).await.unwrap();
    let edited = Tell::Decision { approved: true, reason: None, data: Some(json!({"draft": "Note on: sun"})) };
    session.tell.send(edited).await.unwrap();
    assert_eq!(*result(&all(&mut session).await), json!({"note": "Note on: sun", "approved": true}));
}

#[tokio::test]
async fn the_javascript_example_can_be_cancelled() {
    let desk = desk();
    let context = json!({"step_ms": 60_000}).as_object().cloned().unwrap();
    let mut session = desk.host.start("counter", Start { context, ..start("a b c") }).await.unwrap();
    while !matches!(next(&mut session).await.expect("progress"), Said::Progress { .. }) {}
    session.tell.send(Tell::Cancel).await.unwrap();
    let said = all(&mut session).await;
    assert!(matches!(&said[..], [Said::Error { code, retryable: false, .. }] if code == "cancelled"), "{said:?}");
}
