//! Shards that are no more: of each there is the final checkpoint, and an entry of a later shard that says so.
//!
//! A shard whose files are gone is looked at as one that may have been retired, whatever made it so: whether it was, the log's own entries say once all are
//! read. The checkpoint that is kept must be the one that the entry names, in a tree that is verified; so it counts whoever has signed it, also a key that
//! nobody knows any more.
//!
//! **A retirement that came too early** shows by the log's times. When the last entry of the shard was logged, its retirement says; that is within its
//! year, as of every entry of a shard, and the policy's seven years lie between it and the entry of the retirement. Who has the log's key may lie about it by
//! the rest of that year, and not by more.

use std::collections::BTreeMap;

use fte_tlog::{Checkpoint, SignedNote, TileLevel, TilePath};
use jiff::Timestamp;
use jiff::tz::Offset;

use super::claims::Retirement;
use super::index::year_of;
use super::report::{Finding, Report, RetiredReport};
use super::source::{RETIRED, Source};
use super::tiles::Stop;
use crate::entry::Position;
use crate::retention::{KEPT_DAYS, KEPT_MS};

/// Whether a note is of fewer entries than a shard has in the end: that it grew from there cannot be shown any more without its tree.
pub(super) fn is_of_less(note: &[u8], last: &Checkpoint) -> bool {
    let checkpoint = SignedNote::parse(note).ok().and_then(|note| Checkpoint::parse(note.text()).ok());
    checkpoint.is_some_and(|checkpoint| checkpoint.size < last.size)
}

/// Whether nothing of a shard is there but its checkpoint, or is to be there. Of the newest only where that is said: then it was not given its successors.
pub(super) fn is_gone(source: &dyn Source, size: u64, is_last: bool) -> Result<bool, Stop> {
    let is_there = |name: &str| source.read(name).map(|read| read.is_some()).map_err(|error| Stop::Io(name.to_owned(), error));
    if size == 0 {
        return Ok(false);
    }
    if is_there(RETIRED)? {
        return Ok(true);
    }
    if is_last {
        return Ok(false);
    }
    let tiles = [(TileLevel::Entries, 0), (TileLevel::Hashes(0), 0), (TileLevel::Hashes(0), (size - 1) / 256)];
    for tile in tiles.into_iter().filter_map(|(level, index)| TilePath::in_tree(level, index, size)) {
        if is_there(&tile.to_string())? || is_there(&tile.filled().to_string())? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A shard of which only the checkpoint is there.
pub(super) struct Gone {
    /// Its report's place.
    pub(super) report: usize,
    pub(super) checkpoint: Checkpoint,
    /// Why that does not count by its signatures.
    pub(super) refused: Option<Finding>,
}

/// Where an entry stands.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) index: u64,
    pub(super) logged_time: i64,
}

/// What the log says of shards that were retired.
#[derive(Default)]
pub(super) struct Retirements {
    pub(super) gone: Vec<Gone>,
    said: BTreeMap<u16, (Checkpoint, Position, i64)>,
    /// The first shard that was read, and the one that it says was before it.
    follows: Option<(usize, Checkpoint)>,
}

impl Retirements {
    /// Takes in what an entry of a shard says; what is wrong with it in words.
    pub(super) fn take(&mut self, shard: Option<u16>, said: &Retirement, place: &Place) -> Result<(), String> {
        let Retirement { shard: retired, last_ms, checkpoints } = said;
        let shard = shard.unwrap_or(u16::MAX);
        if checkpoints.keys().any(|of| *of >= shard) || checkpoints.keys().any(|of| of > retired) {
            return Err(format!("it says that {retired} was retired, which is not before {shard}, or that later shards were before it"));
        }
        let year = |ms: i64| Timestamp::from_millisecond(ms).ok().map(|time| i64::from(Offset::UTC.to_datetime(time).year()));
        if year(*last_ms) != Some(i64::from(*retired)) {
            return Err(format!(
                "it says that {retired} was retired and had its last entry at {}, which is not in that year",
                time(*last_ms)
            ));
        }
        if place.logged_time < last_ms.saturating_add(KEPT_MS) {
            return Err(format!(
                "it says that {retired} was retired at {}, and its last entry was logged at {}: it was to be kept for {KEPT_DAYS} days",
                time(place.logged_time),
                time(*last_ms)
            ));
        }
        let at = Position { shard, index: place.index };
        for (of, checkpoint) in checkpoints {
            match self.said.get(of) {
                Some((before, ..)) if before != checkpoint => {
                    return Err(format!("it names another final checkpoint of {of} than an earlier entry of the log does"));
                }
                Some(_) => {}
                None => drop(self.said.insert(*of, (checkpoint.clone(), at, place.logged_time))),
            }
        }
        Ok(())
    }

    /// A shard that was read first says that this one was before it.
    pub(super) fn follow(&mut self, report: usize, previous: &Checkpoint) {
        self.follows.get_or_insert_with(|| (report, previous.clone()));
    }

    /// Says of each shard that is gone whether the log says so, and names those that are missing. Gives whether that is all as it should be.
    pub(super) fn settle(self, reports: &mut [Report], is_whole: bool) -> bool {
        let mut is_all_there = true;
        let Self { gone, said, follows } = self;
        let there: Vec<Option<u16>> = reports.iter().map(|report| year_of(&report.origin)).collect();
        for Gone { report, checkpoint, refused } in gone {
            let Some(report) = reports.get_mut(report) else { continue };
            match year_of(&checkpoint.origin).and_then(|year| said.get(&year)) {
                Some((named, at, since_ms)) if *named == checkpoint => {
                    report.retired = Some(RetiredReport { entry: at.to_string(), since_ms: *since_ms });
                    report.checkpoints.good += u64::from(refused.is_some());
                }
                Some((named, at, _)) => {
                    let what = format!(
                        "the log says in its entry {at} that this shard was retired with {} entries, or with another root",
                        named.size
                    );
                    report.find(Finding::tampered("checkpoint", what));
                    is_all_there = false;
                }
                None => {
                    report.findings.extend(refused);
                    let what = "nothing of the shard is there but its checkpoint, and no entry that was read says that it was retired";
                    report.find(Finding::incomplete("tile", what).at(0, None));
                    is_all_there = false;
                }
            }
        }
        if !is_whole {
            return is_all_there;
        }
        // Of those that the log says are retired the checkpoints are to be there, of others everything.
        let missing = said.iter().filter(|(year, _)| !there.contains(&Some(**year))).map(|(_, (checkpoint, ..))| checkpoint.clone());
        let mut missing: Vec<(Checkpoint, &str)> =
            missing.map(|checkpoint| (checkpoint, "its final checkpoint, which is kept for ever, is not there")).collect();
        if let Some((_, previous)) = &follows
            && year_of(&previous.origin).is_none_or(|year| !said.contains_key(&year) && !there.contains(&Some(year)))
        {
            missing.push((previous.clone(), "nothing of it is there, and no entry says that it was retired"));
        }
        let Some(report) = reports.iter_mut().find(|report| report.retired.is_none()) else { return is_all_there };
        for (checkpoint, what) in missing {
            is_all_there = false;
            let name = checkpoint.origin.rsplit_once('/').map_or(&*checkpoint.origin, |(_, year)| year).to_owned();
            report.find(Finding::incomplete(
                name,
                format!("the log was {} with {} entries before: {what}", checkpoint.origin, checkpoint.size),
            ));
        }
        is_all_there
    }
}

fn time(ms: i64) -> String {
    Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), fte_bus::time::text)
}
