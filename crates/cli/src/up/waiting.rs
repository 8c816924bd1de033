//! Says at the terminal which tasks wait for a person, and what to do about it.
//!
//! The read model is asked every two seconds. To listen to the stream of all events lost: under load it costs a processor what it tells in a day. Where API
//! keys are in force nobody answers without one, and nothing is said: then people have keys, and their own ways to look.

use std::collections::HashSet;
use std::convert::Infallible;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::client::Client;
use crate::output::{Output, printable, shortened};
use crate::task::lines::what_to_do;

const EVERY: Duration = Duration::from_secs(2);
/// So many that wait are looked at, the newest ones.
const LOOKED_AT: &str = "20";
/// So many questions are remembered as told.
const TOLD_MAX: usize = 10_000;
/// What waits for a person: a decision, or an answer.
const WAITING: [&str; 2] = ["status=awaiting_approval", "status=awaiting_handoff&agent=human"];
const REASON_CHARS_MAX: usize = 160;

#[derive(Deserialize)]
struct Page {
    items: Vec<Waiting>,
}

#[derive(Deserialize)]
struct Waiting {
    task_id: String,
    status: String,
    #[serde(default)]
    agent: Option<String>,
    #[serde(default)]
    task: Option<String>,
    #[serde(default)]
    approval: Option<Value>,
}

impl Waiting {
    /// What tells a question from another.
    fn key(&self) -> (String, Option<u64>) {
        (self.task_id.clone(), self.approval.as_ref().and_then(|approval| approval.get("question")?.as_u64()))
    }

    fn line(&self, client: &Client) -> Option<String> {
        let todo = what_to_do(&self.task_id, &self.status, self.agent.as_deref(), self.approval.as_ref(), client.hints())?;
        let reason = self.approval.as_ref().and_then(|approval| approval.get("reason")?.as_str()).or(self.task.as_deref());
        let reason = reason.map(|reason| format!(": {}", shortened(reason, REASON_CHARS_MAX))).unwrap_or_default();
        Some(printable(&format!("task {} waits for a person{reason}\n  → {todo}", self.task_id)).into_owned())
    }
}

/// Looks and tells. Ends never.
pub(super) async fn tell(client: Client, output: Output) -> Infallible {
    let mut told = HashSet::new();
    loop {
        for filter in WAITING {
            let page = client.get(&format!("/v1/tasks?{filter}&limit={LOOKED_AT}")).await.and_then(|answer| answer.json::<Page>());
            // An instance that is busy, or wants a key, is asked again.
            for waiting in page.map(|page| page.items).unwrap_or_default().iter().rev() {
                if told.len() >= TOLD_MAX {
                    told.clear();
                }
                if told.insert(waiting.key())
                    && let Some(line) = waiting.line(&client)
                {
                    output.note(line);
                }
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}
