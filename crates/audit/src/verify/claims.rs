//! What the log's own entries say, as far as it can be checked against other entries. Read here by definitions of its own, not by those of the writer.

use fte_tlog::VerifierKey;
use serde::Deserialize;

use crate::leaf::{Header, Kind};

/// A statement of the log about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// The shard begins, and follows one whose last checkpoint this is.
    Opened { previous: Option<String> },
    /// From here on the log signs with this key.
    Rotated { key: VerifierKey },
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
            let KeyRotated { key } = parse(payload)?;
            let key = key.parse().map_err(|error| format!("the new key cannot be read: {error}"))?;
            Ok(Some(Claim::Rotated { key }))
        }
        _ => Ok(None),
    }
}
