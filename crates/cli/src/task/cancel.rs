//! `fte cancel`: calls a task off, also before anybody has met it.

use clap::Args;
use fte_events::TaskId;
use serde::Serialize;

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
    /// Who calls it off [default: who is logged in]; an instance with API keys takes the key's owner instead
    #[arg(long, visible_alias = "as", value_name = "NAME")]
    by: Option<String>,
}

#[derive(Serialize)]
struct Wish {
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<String>,
}

impl Cancel {
    pub(crate) async fn run(self, client: Client, output: Output) -> Result<(), Error> {
        let wish = Wish { by: self.by.or_else(input::user) };
        let answer = client.post(&format!("/v1/tasks/{}/cancel", self.id), Some(&wish), &[]).await?;
        if output.json {
            return output.answer(&answer.body);
        }
        let task: Task = answer.json()?;
        output.line(format!("{}  cancel requested  {}", self.id, printable(task.message.as_deref().unwrap_or_default())).trim_end())?;
        // A cancel may come before its task. One with a mistake in its id looks the same, and says so by this alone.
        match client.get(&format!("/v1/tasks/{}", self.id)).await {
            Err(Error::Refused(problem)) if problem.code == "task_not_found" => {
                let tasks = client.hints().command("tasks");
                output.note(format!("nobody has met this task: it is cancelled if it ever arrives; {tasks} lists what there is"));
                Ok(())
            }
            // That it is cancelled does not depend on what else is known of it.
            _ => Ok(()),
        }
    }
}
