//! `fte result`: how a task ended.

use std::time::{Duration, Instant};

use clap::Args;
use fte_events::TaskId;
use http::StatusCode;

use super::Task;
use super::follow::Ended;
use super::lines::result_text;
use crate::client::{Client, query};
use crate::error::Error;
use crate::input;
use crate::output::{Output, printable};

/// The API waits for up to a minute at a time; a call here has to end before that.
const WAIT_STEP_MAX: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// The task's id
    #[arg(value_parser = input::task_id)]
    id: TaskId,
    /// Wait so long for it, as 30s or 15m (exit code 6 when there is none by then)
    #[arg(long, value_name = "DURATION", value_parser = input::duration)]
    wait: Option<Duration>,
}

impl Show {
    /// Succeeds only when the task completed.
    pub(crate) async fn run(self, client: Client, output: Output) -> Result<(), Error> {
        let until = Instant::now() + self.wait.unwrap_or_default();
        let mut step = self.wait.map(|wait| wait.min(WAIT_STEP_MAX));
        let answer = loop {
            let wait = step.map(input::duration_text);
            let answer = client.get(&format!("/v1/tasks/{}/result{}", self.id, query(&[("wait", wait.as_deref())]))).await?;
            let left = until.saturating_duration_since(Instant::now());
            if answer.status == StatusCode::OK {
                break answer;
            }
            if left.is_zero() || step.is_none() {
                let task: Task = answer.json()?;
                return Err(Error::Incomplete {
                    what: format!("task {} has no result yet: it is {}", self.id, printable(&task.status)),
                    advice: format!("{} follows it to its end", client.hints().command(format_args!("watch {}", self.id))),
                });
            }
            // An instance that is about to stop answers early.
            tokio::time::sleep(Duration::from_millis(50).min(left)).await;
            step = Some(left.min(WAIT_STEP_MAX));
        };
        let data: serde_json::Value = answer.json()?;
        if output.json {
            output.answer(&answer.body)?;
        } else {
            output.line(result_text(&data))?;
        }
        let status = data.get("status").and_then(serde_json::Value::as_str).unwrap_or("?").to_owned();
        Ended { status, data }.into_outcome(&self.id.to_string())
    }
}
