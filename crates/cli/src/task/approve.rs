//! `fte approve`: a person's decision on a task that awaits it.

use clap::Args;
use fte_events::TaskId;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::client::Client;
use crate::error::Error;
use crate::input;
use crate::output::{Output, printable};

#[derive(Debug, Args)]
pub(crate) struct Approve {
    /// The task's id
    #[arg(value_parser = input::task_id)]
    id: TaskId,
    /// Say no
    #[arg(long)]
    reject: bool,
    /// The question it is for, as `fte watch` shows it [default: the one that is open]
    #[arg(long, value_name = "N")]
    question: Option<u32>,
    /// Why, for the agent and for the record
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// What the agent shall work with instead of what it asked about: JSON, or the name of a file with JSON. Before the start an object with `task`, `context` or both
    #[arg(long, value_name = "JSON|FILE", value_parser = input::json, conflicts_with = "reject")]
    edit: Option<Value>,
    /// Who decides [default: who is logged in]; an instance with API keys takes the key's owner instead
    #[arg(long, visible_aliases = ["as", "by"], value_name = "NAME")]
    approver: Option<String>,
}

#[derive(Serialize)]
struct Decision<'a> {
    approved: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    question: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    approver: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    edit: Option<&'a Value>,
}

/// The decision that counts: somebody may have been first.
#[derive(Deserialize)]
struct Taken {
    #[serde(default)]
    approver: String,
    #[serde(default)]
    decided_at: String,
    #[serde(default)]
    already: bool,
}

impl Approve {
    pub(crate) async fn run(self, client: Client, output: Output) -> Result<(), Error> {
        let approver = self.approver.or_else(input::user);
        let decision = Decision {
            approved: !self.reject,
            question: self.question,
            reason: self.reason.as_deref(),
            approver: approver.as_deref(),
            edit: self.edit.as_ref(),
        };
        let answer = client.post(&format!("/v1/tasks/{}/approval", self.id), Some(&decision), &[]).await?;
        if output.json {
            return output.answer(&answer.body);
        }
        let taken: Taken = answer.json()?;
        let word = if self.reject { "rejected" } else { "approved" };
        let first = if taken.already { format!(" already  by {}  {}", taken.approver, taken.decided_at) } else { String::new() };
        output.line(format!("{}  {word}{}", self.id, printable(first.trim_end())))
    }
}
