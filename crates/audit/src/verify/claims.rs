//! What the log's own entries say, as far as it can be checked against other entries. Read here by definitions of its own, not by those of the writer.

use std::collections::BTreeMap;

use fte_tlog::{Checkpoint, SignedNote, VerifierKey};
use serde::Deserialize;

use crate::entry::leaf::{Header, Kind};

/// A statement of the log about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// The shard begins, and follows one whose last checkpoint this is.
    Opened { previous: Option<String> },
    /// From here on the log signs with this key, too; until here with the previous one.
    Rotated { key: Box<VerifierKey>, previous: Option<Box<VerifierKey>> },
    /// Shards before this one are no more.
    Retired(Box<Retirement>),
}

/// What the log says of shards that were retired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Retirement {
    /// The one that was retired with this entry, and when its last entry was logged.
    pub(super) shard: u16,
    pub(super) last_ms: i64,
    /// The final checkpoint of it and of each that was retired before.
    pub(super) checkpoints: BTreeMap<u16, Checkpoint>,
}

#[derive(Deserialize)]
struct Event<T> {
    data: T,
}

#[derive(Deserialize)]
struct ShardRetired {
    shard: u16,
    last_logged_ms: i64,
    checkpoint: String,
    #[serde(default)]
    earlier: Vec<Earlier>,
}

#[derive(Deserialize)]
struct Earlier {
    shard: u16,
    checkpoint: String,
}

#[derive(Deserialize)]
struct ShardOpen {
    previous: Option<Previous>,
}

#[derive(Deserialize)]
struct Previous {
    checkpoint: String,
}

#[derive(Deserialize)]
struct TaskClosed {
    entries: u64,
}

#[derive(Deserialize)]
struct KeyRotated {
    key: String,
    previous: Option<String>,
}

/// Reads the claim of an entry of the log itself; what is wrong with it in words.
pub(super) fn read(header: &Header<'_>, payload: &[u8], index: u64) -> Result<Option<Claim>, String> {
    let is_first = index == 0;
    if is_first != (header.kind == Kind::ShardOpen) {
        let what = if is_first { "the first entry of a shard does not open it" } else { "a shard is opened within a shard" };
        return Err(what.to_owned());
    }
    if header.enc.is_some() {
        return Ok(None);
    }
    fn parse<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Result<T, String> {
        serde_json::from_slice(payload).map_err(|error| format!("what the log says here cannot be read: {error}"))
    }
    match header.kind {
        Kind::ShardOpen => {
            let ShardOpen { previous } = parse(payload)?;
            Ok(Some(Claim::Opened { previous: previous.map(|previous| previous.checkpoint) }))
        }
        Kind::TaskClosed => {
            let TaskClosed { entries } = parse(payload)?;
            // It is numbered behind those that it counts, and that numbers have no hole is checked for all of a task.
            match header.task_seq {
                Some(seq) if seq == entries => Ok(None),
                seq => Err(format!("it says that its task has {entries} entries, and is number {seq:?} itself")),
            }
        }
        Kind::KeyRotated => {
            let KeyRotated { key, previous } = parse(payload)?;
            let key = key.parse().map(Box::new).map_err(|error| format!("the new key cannot be read: {error}"))?;
            let previous = previous.map(|previous| previous.parse().map(Box::new)).transpose();
            Ok(Some(Claim::Rotated { key, previous: previous.map_err(|error| format!("the key before cannot be read: {error}"))? }))
        }
        Kind::ShardRetired => {
            let Event { data } = parse::<Event<ShardRetired>>(payload)?;
            let mut checkpoints = BTreeMap::new();
            let own = Earlier { shard: data.shard, checkpoint: data.checkpoint };
            for Earlier { shard, checkpoint } in data.earlier.into_iter().chain([own]) {
                let read = SignedNote::parse(checkpoint.as_bytes()).ok().and_then(|note| Checkpoint::parse(note.text()).ok());
                let is_of = |read: &Checkpoint| read.origin.rsplit_once('/').is_some_and(|(_, year)| year.parse() == Ok(shard));
                let read = read.filter(is_of).ok_or_else(|| format!("the final checkpoint of {shard} that it names cannot be read"))?;
                checkpoints.insert(shard, read);
            }
            Ok(Some(Claim::Retired(Box::new(Retirement { shard: data.shard, last_ms: data.last_logged_ms, checkpoints }))))
        }
        _ => Ok(None),
    }
}
