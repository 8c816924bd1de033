//! `fte watch`: a task's events as they happen.

use std::cell::Cell;
use std::time::Duration;

use clap::Args;
use fte_events::TaskId;

use super::follow::{Known, Order, follow};
use super::lines::{Story, result_text};
use super::standing;
use crate::client::Client;
use crate::error::Error;
use crate::input;
use crate::output::Output;

#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// The task's id
    #[arg(value_parser = input::task_id)]
    id: TaskId,
    /// Stop watching after this, as 30s or 15m (exit code 6); the task goes on
    #[arg(long, value_name = "DURATION", value_parser = input::duration)]
    timeout: Option<Duration>,
}

impl Watch {
    /// Succeeds only when the task completed.
    pub(crate) async fn run(self, client: Client, output: Output) -> Result<(), Error> {
        let (id, order) = (self.id.to_string(), if output.json { Order::AsSent } else { Order::ByTime });
        let is_queued = Cell::new(false);
        let mut story = Story::new(&id, client.hints());
        let following = follow(&client, &id, self.timeout, (Known::Maybe, order), |told| {
            if let Some(status) = told.iter().rev().find_map(|told| told.event.status()) {
                is_queued.set(status == "queued");
            }
            if output.json {
                return told.iter().try_for_each(|told| output.answer(&told.json));
            }
            story.lines(told.iter().map(|told| &told.event)).iter().try_for_each(|line| output.line(line))
        });
        let standing = async {
            if output.json {
                return std::future::pending().await;
            }
            standing::tell(&client, &id, || is_queued.get(), |place| output.note(format!("{:<12}  {:<17}  {place}", "", "in the queue")))
                .await
        };
        let ended = tokio::select! {
            ended = following => ended?,
            never = standing => match never {},
        };
        if !output.json {
            output.line(result_text(&ended.data))?;
        }
        ended.into_outcome(&id)
    }
}
