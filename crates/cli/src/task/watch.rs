//! `fte watch`: a task's events as they happen.

use std::time::Duration;

use clap::Args;

use super::follow::follow;
use super::lines::result_text;
use crate::client::Client;
use crate::error::Error;
use crate::input;
use crate::output::Output;

#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// The task's id
    id: String,
    /// Stop watching after this (exit code 6); the task goes on
    #[arg(long, value_name = "DURATION", value_parser = input::duration)]
    timeout: Option<Duration>,
}

impl Watch {
    /// Succeeds when the task has ended, whichever way.
    pub(crate) async fn run(self, client: Client, output: Output) -> Result<(), Error> {
        let ended =
            follow(
                &client,
                &self.id,
                self.timeout,
                |event, json| {
                    if output.json { output.answer(json) } else { output.line(event.line(&self.id)) }
                },
            )
            .await?;
        if !output.json {
            output.line(result_text(&ended.data))?;
        }
        Ok(())
    }
}
