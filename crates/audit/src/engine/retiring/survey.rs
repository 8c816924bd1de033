//! What a shard that has ended is, read from its entries and held against its signed root where somebody's right depends on it.

use fte_tlog::{check_inclusion, leaf_hash};

use super::super::fault::Fault;
use super::super::state::Published;
use super::super::view::Files;
use crate::entry::Position;
use crate::entry::leaf::{self, Header};

/// A shard that has ended.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    pub(crate) published: Published,
    /// When its first and its last entry were logged.
    pub(crate) first_ms: i64,
    pub(crate) last_ms: i64,
}

impl Ended {
    pub(super) fn read(files: &Files, shard: u16) -> Result<Self, Fault> {
        let absent = |what: String| Fault::Refused(format!("{what} is not there: restore shard {shard} from a copy"));
        let published = files.checkpoint(Some(shard))?.ok_or_else(|| absent(format!("the final checkpoint of shard {shard}")))?;
        let size = published.checkpoint.size;
        let last = Position { shard, index: size.saturating_sub(1) };
        let mut leaves = files.leaves();
        let mut leaf = |at: Position| leaves.leaf(at)?.ok_or_else(|| absent(format!("the entry {at}")));
        let (first, end) = (leaf(Position { shard, index: 0 })?, leaf(last)?);
        // It says how long the shard is kept: whoever changed it would have it removed sooner.
        let proof = files.proof(last)?.ok_or_else(|| absent(format!("the proof of {last}")))?;
        check_inclusion(&proof.proof, last.index, &leaf_hash(&end), size, &published.checkpoint.root).map_err(|error| {
            Fault::Refused(format!(
                "the last entry {last} is not the one that was signed ({error}): verify the log, and restore the shard from a copy"
            ))
        })?;
        Ok(Self { published, first_ms: leaf::decode(&first)?.0.logged_time, last_ms: leaf::decode(&end)?.0.logged_time })
    }
}

/// Takes the header of an entry, and the payload where that is in the entry.
type Each<'a> = dyn FnMut(&Header<'_>, &[u8]) -> Result<(), Fault> + 'a;

/// Reads every entry of a shard.
pub(super) fn headers(files: &Files, shard: u16, each: &mut Each<'_>) -> Result<(), Fault> {
    let size = files.shared.view().shards.get(&shard).copied().unwrap_or(0);
    let mut leaves = files.leaves();
    for at in (0..size).map(|index| Position { shard, index }) {
        let leaf = leaves.leaf(at)?.ok_or_else(|| Fault::Refused(format!("the entry {at} is not there: restore the shard from a copy")))?;
        let (header, payload) = leaf::decode(&leaf)?;
        each(&header, payload)?;
    }
    Ok(())
}
