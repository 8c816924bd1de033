//! The agents inside the runner.

use fte_events::Runtime;
use fte_runner::agents::Limits;
use fte_runner::ports::{Agents as _, Said, Start, Tell};
use fte_service::agents::Agents;
use futures_util::FutureExt as _;
use serde_json::{Value, json};

use crate::support::{Desk, all, next, start, yes};

fn desk() -> Desk {
    Desk::of(&Agents::built_in(), None, Limits::default())
}

fn quick(checkpoint: Option<Value>) -> Start {
    let context = json!({"demo": {"step_ms": 1}}).as_object().cloned().unwrap();
    Start { context, checkpoint, ..start("write about rain") }
}

/// No runtime runs here: a task, a timer or a process would panic.
#[test]
fn echo_answers_at_once_and_starts_nothing() {
    let desk = desk();
    let mut session = desk.host.start("echo", start("hello")).now_or_never().expect("no wait").unwrap();
    assert_eq!(session.said.try_recv(), Ok(Said::Result(json!({"echo": "hello"}))));
    assert!(session.said.try_recv().is_err());
    assert!(session.tell.try_send(Tell::Cancel).is_err(), "nobody listens");
    assert_eq!(desk.host.runtime("echo"), Some(Runtime::None));
    assert_eq!(std::fs::read_dir(desk.data.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn demo_shows_everything_an_agent_can_say() {
    let desk = desk();
    let mut session = desk.host.start("demo", quick(None)).await.unwrap();
    let (mut stages, mut checkpoint, mut question) = (Vec::new(), None, None);
    let (mut progress, mut cost, mut logs, mut actions) = (Vec::new(), 0.0, 0, 0);
    let mut artifact = None;
    let result = loop {
        match next(&mut session).await.expect("a result at the end") {
            Said::Stage(stage) => stages.push(stage),
            Said::Progress { pct, message } => progress.push((pct.unwrap(), message.unwrap())),
            Said::Log(_) => logs += 1,
            Said::Action { .. } => actions += 1,
            Said::Cost(usd) => cost += usd,
            Said::Checkpoint(data) => checkpoint = Some(data),
            Said::Heard(_) | Said::Tokens(_) | Said::ByPolicy { .. } => {}
            Said::Approval { data, .. } => {
                question = data;
                session.tell.send(yes()).await.unwrap();
            }
            Said::Artifact(kept) => artifact = Some(kept),
            Said::Result(result) => break result,
            wrong @ (Said::Error { .. } | Said::Handoff(_)) => panic!("{wrong:?}"),
        }
    };
    assert_eq!(stages, ["plan", "draft", "review"]);
    assert!(progress.is_sorted() && progress.last().unwrap().0 == 100, "{progress:?}");
    assert!(cost > 0.0 && logs > 0 && actions > 0);
    assert_eq!(
        (checkpoint, question.unwrap()["draft"].as_str().unwrap()),
        (Some(json!({"draft": result["summary"]})), "A draft about: write about rain")
    );
    let artifact = artifact.unwrap();
    assert_eq!((artifact.name.as_str(), artifact.content_type.as_str()), ("report.md", "text/markdown"));
    assert_eq!(desk.kept(&artifact.uri).unwrap().len() as u64, artifact.size_bytes);
    assert_eq!(next(&mut session).await, None);
}

#[tokio::test]
async fn demo_goes_on_from_its_checkpoint_at_its_question() {
    let desk = desk();
    let mut session = desk.host.start("demo", quick(Some(json!({"draft": "kept"})))).await.unwrap();
    session.tell.send(yes()).await.unwrap();
    let said = all(&mut session).await;
    let stages: Vec<_> = said.iter().filter(|said| matches!(said, Said::Stage(_) | Said::Approval { .. } | Said::Checkpoint(_))).collect();
    let reason = Some("May this draft be published?".to_owned());
    let question = Said::Approval { action: Some("draft.publish".into()), reason, data: Some(json!({"draft": "kept"})) };
    assert_eq!(stages, [&question, &Said::Stage("review".into())]);
    assert_eq!(said.last(), Some(&Said::Result(json!({"summary": "kept", "approved": true, "artifact": "report.md"}))));
}

#[tokio::test]
async fn demo_does_not_publish_what_was_rejected() {
    let desk = desk();
    let mut session = desk.host.start("demo", quick(Some(json!({"draft": "kept"})))).await.unwrap();
    loop {
        match next(&mut session).await.unwrap() {
            Said::Approval { data, .. } => break assert_eq!(data, Some(json!({"draft": "kept"}))),
            Said::Log(_) => {}
            other => panic!("{other:?}"),
        }
    }
    session.tell.send(Tell::Decision { approved: false, reason: Some("too short".into()), data: None }).await.unwrap();
    let said = all(&mut session).await;
    assert!(
        matches!(&said[..], [Said::Error { code, message, retryable: false }] if code == "draft_rejected" && message.contains("too short"))
    );
}

#[tokio::test]
async fn demo_ends_with_its_session() {
    let desk = desk();
    let mut session = desk.host.start("demo", start("t")).await.unwrap();
    next(&mut session).await;
    drop(std::mem::replace(&mut session.guard, Box::new(())));
    // Its end of the channel closes: the task is gone, not just quiet.
    assert!(!all(&mut session).await.iter().any(|said| matches!(said, Said::Approval { .. })));
}
