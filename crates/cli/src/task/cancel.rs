//! `fte cancel`: calls a task off, also before anybody has met it.

use clap::Args;

use super::Task;
use crate::client::{Client, escaped};
use crate::error::Error;
use crate::output::{Output, printable};

#[derive(Debug, Args)]
pub(crate) struct Cancel {
    /// The task's id
    id: String,
}

impl Cancel {
    pub(crate) async fn run(self, client: Client, output: Output) -> Result<(), Error> {
        let answer = client.post(&format!("/v1/tasks/{}/cancel", escaped(&self.id)), None::<&()>, &[]).await?;
        if output.json {
            return output.answer(&answer.body);
        }
        let task: Task = answer.json()?;
        output.line(
            format!("{}  cancel requested  {}", printable(&self.id), printable(task.message.as_deref().unwrap_or_default())).trim_end(),
        )
    }
}
