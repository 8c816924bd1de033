//! `fte audit export`: evidence about a task or a span of time, in a directory.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use fte_audit::export::{ENTRIES_MAX, Query, write};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use super::prove::unproven;
use super::verify::{http, keys, local};
use crate::client::{Client, escaped, query};
use crate::error::Error;
use crate::input;
use crate::output::Output;

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// The entries of this task
    #[arg(long, value_name = "ID", required_unless_present = "from", conflicts_with_all = ["from", "to"])]
    task: Option<String>,
    /// Those logged from here on: RFC 3339, or a duration like 1h
    #[arg(long, value_name = "TIME", value_parser = input::time_ago)]
    from: Option<Timestamp>,
    /// Those logged before: RFC 3339, or a duration like 1h
    #[arg(long, value_name = "TIME", value_parser = input::time_ago)]
    to: Option<Timestamp>,
    #[command(flatten)]
    keys: keys::Named,
    /// The directory to make; one for each year where the entries are of several
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

#[derive(Deserialize)]
struct Page {
    /// A task's history calls them its entries.
    #[serde(alias = "entries")]
    items: Vec<Place>,
    next_cursor: Option<String>,
    complete: Option<bool>,
}

#[derive(Deserialize)]
struct Place {
    shard: u16,
    index: u64,
}

/// Entries that are asked for at once.
const PAGE: &str = "1000";

impl Export {
    pub(crate) async fn run(self, client: Client, output: Output) -> Result<(), Error> {
        let (places, complete) = self.places(&client).await?;
        if places.is_empty() {
            return Err(Error::Incomplete {
                what: "no entry matches".to_owned(),
                advice: "`fte audit list` shows what there is".to_owned(),
            });
        }
        let is_one = places.len() == 1;
        for (shard, indexes) in places {
            let found = local::Found { shards: vec![http::shard(&client, shard)], key_files: Vec::new(), index: None };
            let keys = keys::find(&self.keys, &found)?;
            let directory = if is_one { self.out.clone() } else { self.out.join(shard.to_string()) };
            let query = Query { query: self.words(), indexes, complete, made_at: Timestamp::now() };
            let shown = directory.display().to_string();
            let written = tokio::task::spawn_blocking(move || match found.shards.first() {
                Some(source) => write(&directory, &**source, &keys.policy, &query),
                None => Err(fte_audit::export::ExportError::Absent { file: shard.to_string() }),
            });
            let written = written.await.map_err(|error| Error::Failed(format!("the export ended: {error}")))?;
            let manifest = written.map_err(|error| unproven(&error))?;
            if output.json {
                output.json_line(
                    &json!({"directory": shown, "entries": manifest.entries, "origin": manifest.origin, "complete": complete}),
                )?;
            } else {
                output.line(format!("{shown}: {} entries of {}", manifest.entries, manifest.origin))?;
            }
        }
        Ok(())
    }

    fn words(&self) -> serde_json::Value {
        let time = |time: Option<Timestamp>| time.map(|time| time.to_string());
        json!({"task_id": self.task, "from": time(self.from), "to": time(self.to)})
    }

    /// The entries by shard, and whether the service says that these are all.
    async fn places(&self, client: &Client) -> Result<(BTreeMap<u16, Vec<u64>>, Option<bool>), Error> {
        let (from, to) = (self.from.map(|at| at.to_string()), self.to.map(|at| at.to_string()));
        let mut places: BTreeMap<u16, Vec<u64>> = BTreeMap::new();
        let (mut complete, mut after, mut count) = (None, None::<String>, 0);
        loop {
            let limits = [("limit", Some(PAGE)), ("after", after.as_deref())];
            let path = match &self.task {
                Some(task) => format!("/v1/audit/tasks/{}{}", escaped(task), query(&limits)),
                None => format!("/v1/audit/entries{}", query(&[&limits[..], &[("from", from.as_deref()), ("to", to.as_deref())]].concat())),
            };
            let page: Page = client.get(&path).await?.json()?;
            count += page.items.len();
            if count > ENTRIES_MAX {
                let what = format!("more than {ENTRIES_MAX} entries match, which is the most for one export");
                return Err(Error::usage(what, "ask for a shorter time"));
            }
            for Place { shard, index } in page.items {
                places.entry(shard).or_default().push(index);
            }
            complete = page.complete.or(complete);
            match page.next_cursor {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        Ok((places, complete))
    }
}
