//! The built-in agent `demo`: shows what an agent can say, slowly enough to watch: stages, progress, logs, an action, costs, a checkpoint, a question to a
//! person, an artifact, a result. `{"demo": {"step_ms": 50}}` in the context sets its pace (default 200 ms, at most a minute).
//!
//! Its checkpoint is the draft. Started with one it goes on at the question, which it asks again.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::Shared;
use super::limits::{CHANNEL, clip};
use super::session::{AbortOnDrop, Gone, say};
use crate::ports::{Said, Session, Start, Tell};

const STEP_MS: u64 = 200;
const STEP_MS_MAX: u64 = 60_000;

pub(super) fn start(start: Start, shared: Arc<Shared>) -> Session {
    let (said, hear) = mpsc::channel(CHANNEL);
    let (tell, told) = mpsc::channel(CHANNEL);
    let step_ms = start.context.get("demo").and_then(|demo| demo.get("step_ms")).and_then(Value::as_u64).unwrap_or(STEP_MS);
    let demo = Demo { said, told, shared, step: Duration::from_millis(step_ms.min(STEP_MS_MAX)) };
    let task = tokio::spawn(async move { drop(demo.run(start).await) });
    Session { said: hear, tell, guard: Box::new(AbortOnDrop(task)) }
}

struct Demo {
    said: mpsc::Sender<Said>,
    told: mpsc::Receiver<Tell>,
    shared: Arc<Shared>,
    step: Duration,
}

impl Demo {
    async fn run(mut self, start: Start) -> Result<(), Gone> {
        let kept = start.checkpoint.as_ref().and_then(|kept| kept.get("draft")).and_then(Value::as_str).map(str::to_owned);
        let draft = match kept {
            Some(draft) => {
                say(&self.said, Said::Log("going on from the checkpoint".to_owned())).await?;
                draft
            }
            None => self.write(&start.task).await?,
        };
        // After a restart the same question again: the runner knows whether it was answered, and nobody is asked twice.
        let question = Some("May this draft be published?".to_owned());
        say(
            &self.said,
            Said::Approval { action: Some("draft.publish".to_owned()), reason: question, data: Some(json!({ "draft": draft })) },
        )
        .await?;
        let told = loop {
            match self.told.recv().await {
                Some(Tell::Message { .. }) => {}
                told => break told,
            }
        };
        let last = match told {
            Some(Tell::Decision { approved: true, data, .. }) => {
                // Who approves it may have changed it.
                let approved = data.as_ref().and_then(|data| data.get("draft")).and_then(Value::as_str).map(str::to_owned);
                self.publish(approved.unwrap_or(draft)).await?
            }
            Some(Tell::Decision { approved: false, reason, .. }) => {
                error("draft_rejected", format!("the draft was rejected: {}", reason.as_deref().unwrap_or("no reason given")))
            }
            Some(Tell::Cancel | Tell::Message { .. } | Tell::Reply { .. }) | None => {
                error("cancelled", "cancelled while waiting for a decision".to_owned())
            }
        };
        say(&self.said, last).await
    }

    /// Plans and writes; ends with the checkpoint.
    async fn write(&self, task: &str) -> Result<String, Gone> {
        say(&self.said, Said::Stage("plan".to_owned())).await?;
        self.progress(5, "reading the task").await?;
        self.progress(20, "planned: a draft, a decision, a report").await?;
        let plan = json!({ "steps": ["draft", "decide", "report"] });
        say(&self.said, Said::Action { action: "plan.made".to_owned(), data: plan.as_object().cloned().unwrap_or_default() }).await?;
        say(&self.said, Said::Cost(0.002)).await?;
        say(&self.said, Said::Stage("draft".to_owned())).await?;
        self.progress(40, "writing the draft").await?;
        say(&self.said, Said::Log(format!("the task has {} words", task.split_whitespace().count()))).await?;
        self.progress(60, "the draft is written").await?;
        say(&self.said, Said::Cost(0.008)).await?;
        let draft = format!("A draft about: {}", clip(task.to_owned(), 500));
        say(&self.said, Said::Checkpoint(json!({ "draft": draft }))).await?;
        Ok(draft)
    }

    /// Turns the approved draft into an artifact.
    async fn publish(&self, draft: String) -> Result<Said, Gone> {
        say(&self.said, Said::Stage("review".to_owned())).await?;
        self.progress(80, "approved; writing the report").await?;
        let report = format!("# Report\n\n{draft}\n\nApproved by a person.\n");
        match self.shared.artifacts.keep("report.md", "text/markdown", std::io::Cursor::new(report)).await {
            Ok(artifact) => say(&self.said, Said::Artifact(Box::new(artifact))).await?,
            Err(error) => return Ok(error.said()),
        }
        self.progress(100, "done").await?;
        Ok(Said::Result(json!({ "summary": draft, "approved": true, "artifact": "report.md" })))
    }

    async fn progress(&self, pct: u8, message: &str) -> Result<(), Gone> {
        say(&self.said, Said::Progress { pct: Some(pct), message: Some(message.to_owned()) }).await?;
        tokio::time::sleep(self.step).await;
        Ok(())
    }
}

fn error(code: &str, message: String) -> Said {
    Said::Error { code: code.to_owned(), message, retryable: false }
}
