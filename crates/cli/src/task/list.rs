//! `fte tasks`: the newest tasks.

use std::collections::HashMap;

use clap::Args;
use fte_events::Status;
use jiff::Timestamp;

use super::{Task, standing};
use crate::client::Client;
use crate::error::Error;
use crate::input;
use crate::listing::Listing;
use crate::output::{Output, shortened};

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only those with this status
    #[arg(long)]
    status: Option<Status>,
    /// Only those of this agent
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
    /// Only those since: RFC 3339, or a duration like 1h
    #[arg(long, value_name = "TIME", value_parser = input::time_ago)]
    since: Option<Timestamp>,
    /// How many at most
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// Where an earlier list ended (its `next_cursor`)
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
}

impl List {
    pub(crate) async fn run(self, client: Client, output: Output) -> Result<(), Error> {
        let since = self.since.map(|since| since.to_string());
        let filters = [("status", self.status.map(Status::as_str)), ("agent", self.agent.as_deref()), ("since", since.as_deref())];
        let listing = Listing::read(&client, "/v1/tasks", &filters, ("cursor", self.cursor), self.limit).await?;
        let standings = if output.json { HashMap::new() } else { standing::of_all(&client, &listing.parsed()?).await };
        let row = |task: Task| row(task, &standings);
        listing.print(output, ("tasks", "--cursor"), ["ID", "STATUS", "AGENT", "TASK", "STAGE", "UPDATED"], row)
    }
}

/// Of a queued one, its place in the queue is where it stands.
fn row(task: Task, standings: &HashMap<String, String>) -> [String; 6] {
    let stage = match (task.stage, task.progress_pct) {
        _ if standings.contains_key(&task.task_id) => standings[&task.task_id].clone(),
        (None, None) => String::new(),
        (Some(stage), None) => stage,
        (None, Some(pct)) => format!("{pct} %"),
        (Some(stage), Some(pct)) => format!("{stage} {pct} %"),
    };
    let (agent, updated_at) = (task.agent.unwrap_or_default(), task.updated_at.unwrap_or_default());
    let what = shortened(task.task.as_str().unwrap_or_default(), 40);
    // What a narrow terminal has no room for stands last.
    [task.task_id, task.status, agent, what, shortened(&stage, 40), updated_at]
}
