//! `fte audit task`: everything that is on record of one task.

use clap::Args;
use fte_events::TaskId;
use serde::Deserialize;

use super::entry::{self, Entry};
use crate::client::{Client, query};
use crate::error::Error;
use crate::input;
use crate::output::{Output, printable};

#[derive(Debug, Args)]
pub(crate) struct History {
    /// The task's id
    #[arg(value_parser = input::task_id)]
    id: TaskId,
    /// Where an earlier part ended (its `next_cursor`)
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
    /// How many entries at most [default: all, up to 10000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    limit: Option<u16>,
}

#[derive(Debug, Deserialize)]
struct Answer {
    complete: bool,
    #[serde(default)]
    missing: Vec<String>,
    entries: Vec<Entry>,
    #[serde(default)]
    next_cursor: Option<String>,
}

impl History {
    /// Succeeds only when the history is complete.
    pub(crate) async fn run(self, client: Client, output: Output) -> Result<(), Error> {
        let limit = self.limit.map(|limit| limit.to_string());
        let part = query(&[("after", self.after.as_deref()), ("limit", limit.as_deref())]);
        let answer = client.get(&format!("/v1/audit/tasks/{}{part}", self.id)).await?;
        let Answer { complete, missing, entries, next_cursor } = answer.json()?;
        let count = entries.len();
        if output.json {
            output.answer(&answer.body)?;
        } else {
            let ended = entry::ended(&entries);
            output.table(entry::HEADER_OF_ONE, entries.into_iter().map(|entry| entry::row_of_one(entry, ended.as_ref())))?;
        }
        if let Some(cursor) = next_cursor.filter(|_| !output.json) {
            output.note(format!("more with --after {}", printable(&cursor)));
        }
        if !complete {
            return Err(Error::Incomplete {
                what: format!("the history of task {} is not complete: {}", self.id, printable(&missing.join("; "))),
                advice: format!(
                    "what is missing comes with the task's end; {} follows it there",
                    client.hints().command(format_args!("watch {}", self.id))
                ),
            });
        }
        if output.json { Ok(()) } else { output.line(format!("complete: {count} {}", if count == 1 { "entry" } else { "entries" })) }
    }
}
