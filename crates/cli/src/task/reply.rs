//! `fte reply`: a person's answer to what an agent handed to people.

use clap::Args;
use fte_events::TaskId;
use serde::Serialize;
use serde_json::Value;

use super::Task;
use crate::client::Client;
use crate::error::Error;
use crate::input;
use crate::output::{Output, printable};

#[derive(Debug, Args)]
pub(crate) struct Reply {
    /// The id of the task that was handed to people, as `fte tasks --agent human` lists them
    #[arg(value_parser = input::task_id)]
    id: TaskId,
    /// What came of it: JSON, or else a text
    #[arg(required_unless_present = "error", conflicts_with = "error")]
    result: Option<String>,
    /// Why it is not done; the agent is told so
    #[arg(long, value_name = "TEXT")]
    error: Option<String>,
    /// Who answers [default: who is logged in]; an instance with API keys takes the key's owner instead
    #[arg(long, visible_alias = "as", alias = "approver", value_name = "NAME")]
    by: Option<String>,
}

#[derive(Serialize)]
struct Answer<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<&'a str>,
}

impl Reply {
    pub(crate) async fn run(self, client: Client, output: Output) -> Result<(), Error> {
        let by = self.by.or_else(input::user);
        let result = self.result.map(|text| serde_json::from_str(&text).unwrap_or(Value::String(text)));
        let said = Answer { result, error: self.error.as_deref(), by: by.as_deref() };
        let answer = client.post(&format!("/v1/tasks/{}/reply", self.id), Some(&said), &[]).await?;
        if output.json {
            return output.answer(&answer.body);
        }
        let task: Task = answer.json()?;
        let word = if self.error.is_some() { "declined" } else { "answered" };
        output.line(format!("{}  {word}", printable(&task.task_id)))
    }
}
