//! `fte send`: says something to a task that is under way.

use clap::Args;
use fte_events::TaskId;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::client::Client;
use crate::error::Error;
use crate::input;
use crate::output::{Output, printable};

#[derive(Debug, Args)]
pub(crate) struct Send {
    /// The task's id
    #[arg(value_parser = input::task_id)]
    id: TaskId,
    /// What to say
    text: String,
    /// Data that goes along: JSON, or the name of a file with JSON
    #[arg(long, value_name = "JSON|FILE", value_parser = input::json)]
    data: Option<Value>,
    /// Cut short what the agent does now, as far as it can
    #[arg(long, conflicts_with = "unless_busy")]
    interrupt: bool,
    /// Say nothing while the agent works
    #[arg(long)]
    unless_busy: bool,
    /// The message's id: the same message again is told once [default: a new one]
    #[arg(long, value_name = "ID")]
    message_id: Option<String>,
    /// Who says it [default: who is logged in]; an instance with API keys takes the key's owner instead
    #[arg(long, visible_alias = "as", value_name = "NAME")]
    by: Option<String>,
}

#[derive(Serialize)]
struct Message<'a> {
    text: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a Value>,
    policy: &'static str,
    message_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<&'a str>,
}

#[derive(Deserialize)]
struct Accepted {
    #[serde(default)]
    message_id: String,
}

impl Send {
    pub(crate) async fn run(self, client: Client, output: Output) -> Result<(), Error> {
        let policy = match (self.interrupt, self.unless_busy) {
            (true, _) => "interrupt",
            (_, true) => "reject",
            _ => "enqueue",
        };
        // With an id a request whose answer was lost can be made again.
        let message_id = self.message_id.unwrap_or_else(|| Uuid::new_v4().to_string());
        let by = self.by.or_else(input::user);
        let message = Message { text: &self.text, data: self.data.as_ref(), policy, message_id: &message_id, by: by.as_deref() };
        let answer = client.post(&format!("/v1/tasks/{}/messages", self.id), Some(&message), &[]).await?;
        if output.json {
            return output.answer(&answer.body);
        }
        let accepted: Accepted = answer.json()?;
        output.line(format!("{}  message accepted  {}", self.id, printable(&accepted.message_id)))
    }
}
