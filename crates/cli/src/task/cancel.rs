//! `fte cancel`: calls a task off, also before anybody has met it.

use clap::Args;
use fte_events::TaskId;

use super::Task;
use crate::client::Client;
use crate::error::Error;
use crate::input;
use crate::output::{Output, printable};

#[derive(Debug, Args)]
pub(crate) struct Cancel {
    /// The task's id
    #[arg(value_parser = input::task_id)]
    id: TaskId,
}

impl Cancel {
    pub(crate) async fn run(self, client: Client, output: Output) -> Result<(), Error> {
        let answer = client.post(&format!("/v1/tasks/{}/cancel", self.id), None::<&()>, &[]).await?;
        if output.json {
            return output.answer(&answer.body);
        }
        let task: Task = answer.json()?;
        output.line(format!("{}  cancel requested  {}", self.id, printable(task.message.as_deref().unwrap_or_default())).trim_end())
    }
}
