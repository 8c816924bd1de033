//! Checkpoints that are known from elsewhere: what the log was once must be the beginning of what it is now.

use std::convert::Infallible;
use std::io;

use fte_tlog::{Checkpoint, Policy, SignedNote, TileError, TileHashes, check_consistency, prove_consistency};

use super::Options;
use super::report::{Finding, Report};
use super::signers::{self, Judged};
use super::source::Source;
use super::tiles::Stop;

/// Whether the log `now` continues the one of an `earlier` checkpoint. What is wrong, if it does not.
pub(super) fn compare(source: &dyn Source, name: &str, earlier: &Checkpoint, now: &Checkpoint) -> Result<(), Stop> {
    let found = |what: String, entry: Option<u64>| Err(Stop::Found(Finding::tampered("checkpoint", what).at(entry, None)));
    if earlier.size > now.size {
        let (before, size) = (earlier.size, now.size);
        return found(format!("{name} is one of {before} entries, and there are {size} now: the newest were cut off"), Some(size));
    }
    let read = |path: fte_tlog::TilePath| super::tiles::read(source, path).map(|(_, bytes)| bytes);
    let proof = match prove_consistency(&mut TileHashes::new(now.size, read), earlier.size, now.size) {
        Ok(proof) => proof,
        Err(TileError::Read { source, .. }) => return Err(source),
        Err(error) => return found(error.to_string(), None),
    };
    match check_consistency(&proof, earlier.size, &earlier.root, now.size, &now.root) {
        Ok(()) => Ok(()),
        Err(_) => found(format!("the log does not continue that of {name}: the first {} entries are not those it had", earlier.size), None),
    }
}

/// A checkpoint that the caller has kept is of a shard that was looked at, and so is one that was remembered where all shards were: else nobody has compared the
/// log with it. What is remembered of other logs is none of this one's business.
pub(super) fn check_all_met(reports: &mut [Report], options: &Options) {
    let origin_of = |note: &Vec<u8>| Some(SignedNote::parse(note).ok()?.text().lines().next()?.to_owned());
    let is_here = |origin: &String, reports: &[Report]| reports.iter().any(|report| report.origin == *origin);
    let base = |origin: &str| origin.rsplit_once('/').map_or(origin, |(base, _)| base).to_owned();
    let mut unmet: Vec<(&str, String)> = options.given.iter().filter_map(origin_of).map(|origin| ("given", origin)).collect();
    if options.is_whole {
        let remembered = options.remembered.iter().filter_map(origin_of);
        let ours =
            remembered.filter(|origin| reports.iter().any(|report| !report.origin.is_empty() && base(&report.origin) == base(origin)));
        unmet.extend(ours.map(|origin| ("remembered", origin)));
    }
    unmet.retain(|(_, origin)| !is_here(origin, reports));
    let Some(report) = reports.last_mut() else { return };
    for (how, origin) in unmet {
        let what = format!(
            "the {how} checkpoint is of {origin}, and nothing of that is here: what was verified may be another log, or a part of it"
        );
        report.find(Finding::incomplete("checkpoint", what));
    }
}

/// An earlier checkpoint, if the signatures of keys that are known are right.
pub(super) fn read(policy: &Policy, name: &str, note: &[u8]) -> Result<Judged, Finding> {
    signers::judge(policy, note).map_err(|error| Finding::tampered(name, fte_service::chain(&error).to_string()))
}

/// Reading from memory does not fail.
impl From<Infallible> for Stop {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Io("a temporary file".to_owned(), error)
    }
}
