//! The shards that an instance serves.

use std::collections::BTreeSet;
use std::io;

use fte_audit::verify::Source;
use http::StatusCode;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Deserialize;
use tokio::runtime::Handle;

use super::local::Found;
use crate::client::Client;
use crate::error::Error;
use crate::hints::Hints;

/// One shard over HTTP. Reading blocks: it is for threads that may.
struct Shard {
    client: Client,
    prefix: String,
    runtime: Handle,
}

impl Shard {
    fn get(&self, path: &str) -> io::Result<Option<Vec<u8>>> {
        match self.runtime.block_on(self.client.get(path)) {
            Ok(answer) => Ok(Some(answer.body.to_vec())),
            Err(Error::Refused(problem))
                if [StatusCode::NOT_FOUND, StatusCode::GONE].iter().any(|gone| problem.status == gone.as_u16()) =>
            {
                Ok(None)
            }
            Err(error) => Err(io::Error::other(error.text(&Hints::default()))),
        }
    }
}

impl Source for Shard {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        self.get(&format!("{}/{name}", self.prefix))
    }

    fn blob(&self, digest: &str) -> io::Result<Option<Vec<u8>>> {
        self.get(&format!("{}/blob/{digest}", self.prefix))
    }

    fn list(&self, _: &str, _: &mut dyn FnMut(&str) -> io::Result<()>) -> io::Result<bool> {
        Ok(false)
    }
}

#[derive(Deserialize)]
struct Entries {
    items: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    shard: i16,
}

/// One shard of an instance.
pub(in crate::audit) fn shard(client: &Client, year: u16) -> Box<dyn Source + Send> {
    Box::new(Shard { client: client.clone(), prefix: format!("/v1/audit/log/{year}"), runtime: Handle::current() })
}

/// The shard that a URL names, or all those of an instance.
pub(in crate::audit) async fn shards(client: &Client, target: &str) -> Result<Found, Error> {
    let target = target.trim_end_matches('/');
    let (base, shard) = match target.split_once("/v1/audit/log/") {
        Some((base, shard)) => (base, Some(shard)),
        None => (target, None),
    };
    let client = client.at(base)?;
    let one = |shard: &str| -> Box<dyn Source + Send> {
        Box::new(Shard { client: client.clone(), prefix: format!("/v1/audit/log/{shard}"), runtime: Handle::current() })
    };
    if let Some(shard) = shard {
        return Ok(Found { shards: vec![one(shard)], key_files: Vec::new(), index: None, is_whole: false });
    }
    let entries: Entries = client.get("/v1/audit/entries?limit=1").await?.json()?;
    let mut shards = Vec::new();
    for year in retired(&client).await? {
        // One whose checkpoint is not there the verifier misses.
        match client.get(&format!("/v1/audit/log/{year}/checkpoint")).await {
            Ok(_) => shards.push(one(&year.to_string())),
            Err(Error::Refused(problem)) if problem.status == StatusCode::NOT_FOUND.as_u16() => {}
            Err(error) => return Err(error),
        }
    }
    if let Some(first) = entries.items.first() {
        // A year without entries has no shard.
        for year in first.shard..=Timestamp::now().to_zoned(TimeZone::UTC).year() {
            match client.get(&format!("/v1/audit/log/{year}/checkpoint")).await {
                Ok(_) => shards.push(one(&year.to_string())),
                Err(Error::Refused(problem)) if problem.status == StatusCode::NOT_FOUND.as_u16() => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(Found { shards, key_files: Vec::new(), index: None, is_whole: true })
}

#[derive(Deserialize)]
struct Retirements {
    items: Vec<Retirement>,
    next_cursor: Option<String>,
}

#[derive(Deserialize)]
struct Retirement {
    kind: String,
    /// Anybody may give an event such a type: it is read where the log wrote it.
    event: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Event {
    data: Said,
}

#[derive(Deserialize)]
struct Said {
    shard: u16,
    #[serde(default)]
    earlier: Vec<Year>,
}

#[derive(Deserialize)]
struct Year {
    shard: u16,
}

/// The years that the log says are retired. What it leaves out, the verifier misses.
async fn retired(client: &Client) -> Result<BTreeSet<u16>, Error> {
    let mut years = BTreeSet::new();
    let mut after = String::new();
    loop {
        let page: Retirements = client.get(&format!("/v1/audit/entries?action=shard_retired&limit=1000{after}")).await?.json()?;
        for event in page.items.into_iter().filter(|item| item.kind == "shard_retired").filter_map(|item| item.event) {
            // What cannot be read says nothing, and the year is missed then.
            let Ok(said) = serde_json::from_value::<Event>(event) else { continue };
            years.insert(said.data.shard);
            years.extend(said.data.earlier.into_iter().map(|earlier| earlier.shard));
        }
        let Some(next) = page.next_cursor else { return Ok(years) };
        after = format!("&after={next}");
    }
}
