//! Looks tasks up in the read model afterwards: each has exactly one result there too. One without is lost, unless it is still under way.
//!
//! Every task about which the event stream left a doubt is looked up, and a sample of the others.

use std::str::FromStr;

use fte_events::Status;
use futures_util::StreamExt;
use serde::Deserialize;
use uuid::Uuid;

use super::connection::Id;
use super::tally::Tally;
use crate::client::Client;
use crate::error::{Error, Exit};
use crate::output::Output;

const CALLS_AT_ONCE: usize = 16;

/// How many of the tasks without a doubt are looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sample {
    All,
    AtMost(u64),
}

impl FromStr for Sample {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Self::All),
            number => number.parse().map(Self::AtMost).map_err(|_| "write a number, or all".to_owned()),
        }
    }
}

/// What the read model says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Tasks without a result that are not under way either.
    pub(super) lost: u64,
    /// Tasks without a result that have not ended.
    pub(super) unfinished: u64,
    /// Results past the first of their task, where the stream showed one.
    pub(super) doubled: u64,
    /// Tasks whose result the stream did not bring.
    pub(super) unseen: u64,
    /// How many were looked up.
    pub(super) checked: u64,
    /// How many could not be.
    pub(super) unknown: u64,
}

/// A task and how many results the stream brought for it.
type Seen = (Id, u64);

/// The tasks to look up.
pub(super) fn choose(tally: &Tally, sample: Sample) -> Vec<Seen> {
    let sample = match sample {
        Sample::All => u64::MAX,
        Sample::AtMost(most) => most,
    };
    let mut taken = 0;
    // The map's order is random, and so is the sample.
    let chosen = tally.each().filter(|(_, results)| {
        let is_doubtful = *results != 1;
        taken += u64::from(!is_doubtful);
        is_doubtful || taken <= sample
    });
    chosen.collect()
}

pub(super) async fn check(client: &Client, chosen: Vec<Seen>, output: Output) -> Found {
    let mut answers =
        futures_util::stream::iter(chosen).map(async |(id, seen)| (seen, look_up(client, id).await)).buffer_unordered(CALLS_AT_ONCE);
    let mut found = Found::default();
    let mut why = None;
    while let Some((seen, answer)) = answers.next().await {
        match answer {
            Ok(task) => {
                found.checked += 1;
                found.lost += u64::from(task == Task::Lost);
                found.unfinished += u64::from(task == Task::UnderWay);
                let results = if let Task::Ended { results } = task { results } else { 0 };
                found.unseen += u64::from(seen == 0 && results > 0);
                // Doubles that the stream showed are counted already.
                found.doubled += if seen <= 1 { results.saturating_sub(1) } else { 0 };
            }
            Err(error) => {
                found.unknown += 1;
                found.lost += u64::from(seen == 0);
                why.get_or_insert(error);
            }
        }
    }
    if let Some(error) = why {
        output.note(format!("{} tasks could not be looked up\n{}", found.unknown, error.text(client.hints())));
    }
    found
}

/// What the read model has of a task.
#[derive(Debug, PartialEq, Eq)]
enum Task {
    Ended { results: u64 },
    UnderWay,
    Lost,
}

async fn look_up(client: &Client, id: Id) -> Result<Task, Error> {
    let results = results_of(client, id).await?;
    if results > 0 {
        return Ok(Task::Ended { results });
    }
    let path = format!("/v1/tasks/{}", Uuid::from_u64_pair(id.0, id.1));
    match client.get(&path).await {
        Ok(answer) => {
            #[derive(Deserialize)]
            struct Standing {
                status: Status,
            }
            let Standing { status } = answer.json()?;
            // It may have ended since.
            let results = if status.is_terminal() { results_of(client, id).await? } else { 0 };
            Ok(match results {
                0 if status.is_terminal() => Task::Lost,
                0 => Task::UnderWay,
                results => Task::Ended { results },
            })
        }
        Err(error) if error.exit() == Exit::NotFound => Ok(Task::Lost),
        Err(error) => Err(error),
    }
}

/// How many results a task has.
async fn results_of(client: &Client, id: Id) -> Result<u64, Error> {
    #[derive(Deserialize)]
    struct Page {
        items: Vec<Item>,
    }
    #[derive(Deserialize)]
    struct Item {
        #[serde(rename = "type", default)]
        event_type: String,
    }
    let path = format!("/v1/tasks/{}/events?limit=1000", Uuid::from_u64_pair(id.0, id.1));
    match client.get(&path).await {
        Ok(answer) => {
            let page: Page = answer.json()?;
            Ok(page.items.iter().filter(|item| item.event_type.starts_with("fte.result.")).count() as u64)
        }
        Err(error) if error.exit() == Exit::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}
