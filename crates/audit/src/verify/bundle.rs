//! One entry bundle: each leaf against its hash, its header against its payload. Nothing here knows of the entries before; bundles are checked by several
//! threads at once.

use fte_tlog::{Hash, TileLevel, TilePath, leaf_hash};
use sha2::{Digest, Sha256};

use super::claims;
use super::report::Finding;
use super::source::{Source, blob_name};
use super::strict;
use super::tiles::{Stop, Tiles, first_leaf, read};
use crate::entry::leaf::{self, Flag, Header, Kind};

/// Sixteen bytes that stand for one or several texts.
pub(super) type Digest16 = [u8; 16];

/// What the entries' order is checked by.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) index: u64,
    /// Where its leaf begins in its bundle.
    pub(super) byte: u64,
    pub(super) logged_time: i64,
    pub(super) clock_back: bool,
    /// Of what may be in the log but once.
    pub(super) identity: Option<Digest16>,
    pub(super) task: Option<(Digest16, u64)>,
    /// A publisher's counter and its number, or that of a task's status changes.
    pub(super) counted: Option<(Digest16, u64)>,
    /// What an entry of the log itself says.
    pub(super) claim: Option<claims::Claim>,
}

/// A digest of several texts that tells apart where each ends.
pub(super) fn digest16(parts: &[&str]) -> Digest16 {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let digest: [u8; 32] = hash.finalize().into();
    let mut short = [0; 16];
    short.copy_from_slice(&digest[..16]);
    short
}

/// What was found in a bundle.
pub(super) struct Checked {
    /// Of its entries, up to the first bad one.
    pub(super) facts: Vec<Facts>,
    /// What is wrong with that one.
    pub(super) stop: Option<Stop>,
    /// The bytes of a good bundle, without those behind the log's end.
    pub(super) bytes: Vec<u8>,
}

/// Checks the bundle at this index.
pub(super) fn check(source: &dyn Source, tiles: &mut Tiles<'_>, index: u64, size: u64) -> Checked {
    let mut facts = Vec::with_capacity(256);
    match check_into(source, tiles, index, size, &mut facts) {
        Ok(bytes) => Checked { facts, stop: None, bytes },
        Err(stop) => Checked { facts, stop: Some(stop), bytes: Vec::new() },
    }
}

fn check_into(source: &dyn Source, tiles: &mut Tiles<'_>, index: u64, size: u64, facts: &mut Vec<Facts>) -> Result<Vec<u8>, Stop> {
    let Some(path) = TilePath::in_tree(TileLevel::Entries, index, size) else { return Ok(Vec::new()) };
    let hashes = tiles.tile(0, index)?;
    let (name, mut bytes) = read(source, path)?;
    let at = walk(&name, &bytes, hashes, first_leaf(path), |leaf, entry, byte| {
        facts.push(check_leaf(source, &name, leaf, entry, byte)?);
        Ok(())
    })?;
    // A full bundle that stands for the partial one goes on, and is checked up to here.
    if at != bytes.len() && name == path.to_string() {
        let what = format!("{} bytes are behind the last entry", bytes.len() - at);
        return Err(Stop::Found(Finding::tampered(name, what).at(first_leaf(path) + u64::from(path.width) - 1, at as u64)));
    }
    bytes.truncate(at);
    Ok(bytes)
}

/// Takes a bundle apart leaf by leaf, and compares each with its hash before the next is looked for: a changed length shows where it stands.
fn walk(
    name: &str,
    bytes: &[u8],
    hashes: &[Hash],
    first: u64,
    mut each: impl FnMut(&[u8], u64, u64) -> Result<(), Stop>,
) -> Result<usize, Stop> {
    let mut at = 0;
    for (entry, hash) in (first..).zip(hashes) {
        let bad = |what: &str| Stop::Found(Finding::tampered(name, what).at(entry, at as u64));
        let length = bytes.get(at..at + 2).ok_or_else(|| bad("the bundle ends before this entry"))?;
        let end = at + 2 + usize::from(u16::from_be_bytes([length[0], length[1]]));
        let leaf = bytes.get(at + 2..end).ok_or_else(|| bad("the bundle ends within this entry"))?;
        if leaf_hash(leaf) != *hash {
            return Err(bad("the entry is not the one that was logged"));
        }
        each(leaf, entry, at as u64 + 2)?;
        at = end;
    }
    Ok(at)
}

/// What the log's writer promised of each leaf by itself. A leaf that breaks it was signed like that: the writer is at fault, or had the key.
fn check_leaf(source: &dyn Source, name: &str, bytes: &[u8], index: u64, byte: u64) -> Result<Facts, Stop> {
    let bad = |what: String| Stop::Found(Finding::tampered(name, what).at(index, byte));
    strict::check_header(bytes).map_err(|at| bad(format!("the header is not in canonical form at its byte {at}")))?;
    let (header, payload) = leaf::decode(bytes).map_err(|error| bad(fte_service::chain(&error).to_string()))?;
    match header.payload_ref {
        None => leaf::check_payload(&header, payload).map_err(|error| bad(error.to_string()))?,
        Some(blob) => {
            let digest = fte_events::hex(&blob);
            let file = blob_name(&digest);
            let read = source.blob(&digest).map_err(|error| Stop::Io(file.clone(), error))?;
            let absent = || Stop::Found(Finding::incomplete(&file, "the payload of this entry is not there").at(index, None));
            let blob = read.ok_or_else(absent)?;
            leaf::check_payload(&header, &blob)
                .map_err(|error| Stop::Found(Finding::tampered(&file, error.to_string()).at(index, None)))?;
        }
    }
    let claim = claims::read(&header, payload, index).map_err(bad)?;
    Ok(facts(&header, index, byte, claim))
}

fn facts(header: &Header<'_>, index: u64, byte: u64, claim: Option<claims::Claim>) -> Facts {
    let (source, id) = (header.source.as_deref().unwrap_or_default(), header.id.as_deref().unwrap_or_default());
    let identity = match header.kind {
        Kind::Event => Some(digest16(&["event", source, id])),
        Kind::Unparsed => Some(digest16(&["unparsed", header.topic.as_deref().unwrap_or_default(), id])),
        // It has the identity of another.
        _ => None,
    };
    let counted = header.sequence.filter(|_| header.kind == Kind::Event).and_then(|number| match (&header.epoch, &header.task) {
        (Some(epoch), _) => Some((digest16(&["counter", source, epoch]), number)),
        (None, Some(task)) if header.event_type.as_deref() == Some("fte.status.changed") => Some((digest16(&["status", task]), number)),
        _ => None,
    });
    Facts {
        index,
        byte,
        logged_time: header.logged_time,
        clock_back: header.flags.contains(&Flag::ClockBack),
        identity,
        task: header.task.as_deref().zip(header.task_seq).map(|(task, seq)| (digest16(&["task", task]), seq)),
        counted,
        claim,
    }
}
