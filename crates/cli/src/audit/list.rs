//! `fte audit list`: what is on record.

use clap::Args;
use fte_events::TaskId;
use jiff::Timestamp;

use super::entry;
use crate::client::Client;
use crate::error::Error;
use crate::input;
use crate::listing::Listing;
use crate::output::Output;

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only entries about this task
    #[arg(long, value_name = "ID", value_parser = input::task_id)]
    task: Option<TaskId>,
    /// Only those of this agent
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
    /// Only this action, as `approval.granted`
    #[arg(long)]
    action: Option<String>,
    /// Only what this actor did
    #[arg(long, value_name = "ID")]
    actor: Option<String>,
    /// Only this outcome
    #[arg(long, value_parser = ["success", "failure", "denied"])]
    outcome: Option<String>,
    /// Only from here on: RFC 3339, or a duration like 1h
    #[arg(long, value_name = "TIME", value_parser = input::time_ago)]
    from: Option<Timestamp>,
    /// Only before: RFC 3339, or a duration like 1h
    #[arg(long, value_name = "TIME", value_parser = input::time_ago)]
    to: Option<Timestamp>,
    /// Where an earlier list ended (its `next_cursor`)
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
    /// How many at most
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
}

impl List {
    pub(crate) async fn run(self, client: Client, output: Output) -> Result<(), Error> {
        let task = self.task.map(|task| task.to_string());
        let (from, to) = (self.from.map(|at| at.to_string()), self.to.map(|at| at.to_string()));
        let filters = [
            ("task_id", task.as_deref()),
            ("agent", self.agent.as_deref()),
            ("action", self.action.as_deref()),
            ("actor", self.actor.as_deref()),
            ("outcome", self.outcome.as_deref()),
            ("from", from.as_deref()),
            ("to", to.as_deref()),
        ];
        let listing = Listing::read(&client, "/v1/audit/entries", &filters, ("after", self.after), self.limit).await?;
        listing.print(output, ("entries", "--after"), entry::HEADER, entry::row)
    }
}
