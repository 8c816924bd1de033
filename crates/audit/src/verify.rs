//! The offline verifier: whether a log is what its signatures say, from its files alone. It needs neither the service nor its index or keys.
//!
//! A shard is read once, in memory that does not grow with it, by several threads. From the signed root down every stored hash is checked against the one
//! above it ([`tiles`]), each entry against its hash and its own header ([`bundle`]), and all entries against each other ([`order`]). So the first bad
//! entry is named, with file and byte; only when the right edge itself does not have the signed root is everything computed from below to find out why
//! ([`blame`]).
//!
//! What it cannot see in the files, an earlier checkpoint shows: without an [`Anchor`] a log that was put back to an earlier state verifies, and so does
//! one that the owner of the key wrote anew. The report says which anchor there was.

mod anchors;
mod blame;
mod bundle;
mod claims;
mod files;
mod index;
mod order;
mod report;
mod retired;
mod signers;
mod source;
mod spill;
mod strict;
mod tiles;

use std::collections::HashMap;
use std::io;
use std::num::NonZero;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;

use fte_tlog::{Checkpoint, Policy, SignedNote, TileLevel, TilePath};

use self::bundle::{Checked, Facts};
use self::claims::Claim;
use self::index::{IndexCheck, year_of};
use self::order::Order;
pub use self::report::{Anchor, Class, FINDINGS_MAX, Finding, IndexReport, Report, RetiredReport, Tally, retired, summary};
use self::retired::{Gone, Retirements};
use self::signers::{Judged, Outcome, Seen, Signers};
pub(crate) use self::source::{BLOB_BYTES_MAX, blob_name};
pub use self::source::{Directory, Source};
use self::source::{RETIRED, WITNESSED};
use self::tiles::{Stop, Tiles};
use crate::keys::trust::policy_of;

/// What is known from elsewhere.
#[derive(Clone, Debug)]
pub struct Options {
    /// The logs' keys, and the witnesses that must have signed.
    pub policy: Policy,
    /// Whether these keys came with the log.
    pub keys_from_log: bool,
    /// Signed checkpoints that the caller has kept.
    pub given: Vec<Vec<u8>>,
    /// Those that earlier verifications saw.
    pub remembered: Vec<Vec<u8>>,
    /// Only these entries of each shard; all of them if there is none.
    pub range: Option<Range<u64>>,
    /// Whether these are all shards of an installation: none may be missing then that the log does not say is retired.
    pub is_whole: bool,
    /// The index of the installation whose shards these all are, to be compared with them; only where there is no range.
    pub index: Option<PathBuf>,
    /// How many threads hash.
    pub threads: NonZero<usize>,
}

impl Options {
    /// Everything, with all that this machine has.
    pub fn new(policy: Policy) -> Self {
        let threads = thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN);
        Self { policy, keys_from_log: false, given: Vec::new(), remembered: Vec::new(), range: None, is_whole: false, index: None, threads }
    }
}

/// A verification that could not be done; this says nothing about the log.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("{file} cannot be read")]
    Read { file: String, source: io::Error },
    #[error("the range {start}..{end} is not within a log of {size} entries")]
    Range { start: u64, end: u64, size: u64 },
}

/// So far: entries done and to do in the shard with this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub shard: usize,
    pub done: u64,
    pub all: u64,
}

/// Verifies shards that follow each other, the oldest first, and that each continues the one before.
pub fn verify(shards: &[&dyn Source], options: &Options, progress: &mut dyn FnMut(Progress)) -> Result<Vec<Report>, VerifyError> {
    let mut reports: Vec<Report> = Vec::new();
    let temporary = |error| VerifyError::Read { file: "a temporary file".to_owned(), source: error };
    let mut order: Option<Order> = None;
    let mut before: Option<Checkpoint> = None;
    // The key that the log has named last, and why a shard's checkpoint does not count until the next shard answers for it.
    let mut named: Option<[u8; 32]> = None;
    let mut unanswered: Option<(usize, Finding)> = None;
    let mut retirements = Retirements::default();
    // Before any checkpoint is read: what the index has is in the log then, or not signed yet.
    let mut index = options.index.as_deref().filter(|_| options.range.is_none()).map(IndexCheck::open);
    for (number, source) in shards.iter().enumerate() {
        let mut report = Report { keys_from_log: options.keys_from_log, ..Report::default() };
        let mut shard = Shard {
            number,
            is_last: number + 1 == shards.len(),
            options,
            report: &mut report,
            before: before.take(),
            order: &mut order,
            index: index.as_mut(),
            retirements: &mut retirements,
            is_gone: false,
            signers: Signers::after(named),
            opened_by: None,
            unanswered: None,
            answers: false,
        };
        let verified = shard.verify(*source, progress);
        named = shard.signers.last();
        let (answers, is_gone, mine) = (shard.answers, shard.is_gone, shard.unanswered.take());
        let is_read = report.entries.all > 0 && report.entries.good == report.entries.all;
        if let Some(order) = order.as_mut().filter(|_| !is_read) {
            order.skip(number);
        }
        if let Some((of, finding)) = unanswered.take().filter(|_| !answers)
            && let Some(report) = reports.get_mut(of)
        {
            report.find(finding);
        }
        match verified {
            // Whose it is the log itself says.
            Ok(Some(checkpoint)) if is_gone => {
                retirements.gone.push(Gone { report: number, checkpoint: checkpoint.clone(), refused: mine });
                before = Some(checkpoint);
                reports.push(report);
                continue;
            }
            _ => unanswered = mine.map(|finding| (number, finding)),
        }
        match verified {
            Ok(checkpoint) => before = checkpoint,
            Err(Broken::Stop(Stop::Found(finding))) => report.find(finding),
            Err(Broken::Stop(Stop::Io(file, source))) => return Err(VerifyError::Read { file, source }),
            Err(Broken::Error(error)) => return Err(error),
        }
        reports.push(report);
    }
    let is_all_there = retirements.settle(&mut reports, options.is_whole && options.range.is_none());
    anchors::check_all_met(&mut reports, options);
    if let Some(order) = order {
        let outcome = order.finish().map_err(temporary)?;
        for (place, what) in outcome.bad {
            if let Some(report) = reports.get_mut(place.shard) {
                report.find(Finding::tampered(bundle_of(report, place.index), what).at(place.index, None));
            }
        }
        for (place, what) in outcome.behind_gaps {
            if let Some(report) = reports.get_mut(place.shard) {
                report.behind_gaps.push(Finding::incomplete(bundle_of(report, place.index), what).at(place.index, None));
            }
        }
        if let Some(report) = reports.last_mut() {
            report.gaps = outcome.gaps;
        }
    }
    // Of a log that is not what it should be there is no index to expect.
    let is_whole = |report: &Report| report.entries.good == report.entries.all && !report.is_tampered();
    if let Some(index) = index.filter(|_| is_all_there && reports.iter().all(is_whole)) {
        index.finish(&mut reports);
    }
    for report in &mut reports {
        report.findings.sort_by_key(|finding| finding.entry.unwrap_or(u64::MAX));
    }
    Ok(reports)
}

/// The file that an entry is in.
fn bundle_of(report: &Report, index: u64) -> String {
    TilePath::in_tree(TileLevel::Entries, index / 256, report.size).map_or_else(String::new, |path| path.to_string())
}

enum Broken {
    Stop(Stop),
    Error(VerifyError),
}

impl From<Stop> for Broken {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

/// The verification of one shard.
struct Shard<'a> {
    number: usize,
    is_last: bool,
    options: &'a Options,
    report: &'a mut Report,
    /// The last checkpoint of the shard before, if that was verified too.
    before: Option<Checkpoint>,
    order: &'a mut Option<Order>,
    index: Option<&'a mut IndexCheck>,
    retirements: &'a mut Retirements,
    /// Nothing of it is there but its checkpoint, as of one that was retired.
    is_gone: bool,
    signers: Signers,
    /// What the shard says the one before ended with, where that is of no key that is known yet: the note, the entry, and what is wrong.
    opened_by: Option<(Vec<u8>, Finding)>,
    /// What is wrong with the checkpoint, unless the next shard says that this one ended with it.
    unanswered: Option<Finding>,
    /// Whether this shard says that the one before ended as it does.
    answers: bool,
}

impl Shard<'_> {
    fn verify(&mut self, source: &dyn Source, progress: &mut dyn FnMut(Progress)) -> Result<Option<Checkpoint>, Broken> {
        // Before the checkpoint, which must be later.
        let witnessed = source.read(WITNESSED).map_err(|error| Stop::Io(WITNESSED.to_owned(), error))?;
        let (source, note) = Snapshot::take(source)?;
        self.report.checkpoints.all += 1;
        let checkpoint = self.judge(&source, &note)?;
        let size = checkpoint.size;
        let is_newest = self.is_last && self.options.is_whole;
        if is_newest && source.read(RETIRED).map_err(|error| Stop::Io(RETIRED.to_owned(), error))?.is_some() {
            let what = "it says that the newest shard of all was retired, which none ever is: the shard was verified all the same";
            self.report.find(Finding::tampered(RETIRED, what));
        } else if retired::is_gone(&source, size, self.is_last)? {
            self.is_gone = true;
            self.check_witnessed(&source, &checkpoint, witnessed.as_deref().filter(|note| !retired::is_of_less(note, &checkpoint)))?;
            self.check_anchors(&source, &checkpoint)?;
            return Ok(Some(checkpoint));
        }
        let range = match self.options.range.clone() {
            None => 0..size,
            Some(range) if range.start < range.end && range.end <= size => range,
            Some(Range { start, end }) => return Err(Broken::Error(VerifyError::Range { start, end, size })),
        };
        self.report.entries.all = range.end - range.start;
        self.report.bundles.all = range.end.div_ceil(256) - range.start / 256;
        let root = tiles::edge_root(&source, size).or_else(|stop| {
            // Where files are beyond the size as well, the checkpoint is an old one, and what is absent was replaced since.
            files::check(&source, size).or_else(|beyond| source.unless_it_grew(beyond))?;
            Err(stop)
        })?;
        if root != checkpoint.root {
            return Err(blame::blame(&source, size, checkpoint.root)?.into());
        }
        self.check_witnessed(&source, &checkpoint, witnessed.as_deref())?;
        self.check_anchors(&source, &checkpoint)?;
        self.walk(&source, &checkpoint, range.clone(), progress)?;
        self.check_signers(&checkpoint, &range)?;
        if self.options.range.is_none() && !self.report.is_tampered() {
            files::check(&source, size).or_else(|stop| source.unless_it_grew(stop))?;
        }
        Ok(Some(checkpoint))
    }

    /// Reads the checkpoint and checks who signed it.
    fn judge(&mut self, source: &dyn Source, note: &[u8]) -> Result<Checkpoint, Stop> {
        let policy = policy_of(&self.options.policy, note);
        let judged = anchors::read(&policy, "checkpoint", note).map_err(Stop::Found)?;
        let refused = judged.refused.as_deref().map(|what| Finding::tampered("checkpoint", what));
        // Nobody comes after the last to answer for it.
        if let Some(finding) = refused.clone().filter(|_| self.is_last) {
            return Err(Stop::Found(finding));
        }
        self.unanswered = refused;
        self.see("checkpoint", &judged, note, None);
        let report = &mut *self.report;
        (report.origin, report.size) = (judged.checkpoint.origin.clone(), judged.checkpoint.size);
        if let Some(year) = source.year().filter(|year| year_of(&report.origin) != Some(*year)) {
            let what = format!("it is the checkpoint of {}, and stands in the directory of {year}", report.origin);
            return Err(Stop::Found(Finding::tampered("checkpoint", what)));
        }
        report.root = judged.checkpoint.root.to_string();
        report.checkpoint = String::from_utf8_lossy(note).into_owned();
        report.witnesses = Tally { good: judged.witnesses, all: policy.witnesses.len() as u64 };
        (report.quorum_met, report.unknown_signatures) = (judged.quorum_met, judged.unknown_signatures);
        report.witnessed_size = if judged.witnesses == 0 { 0 } else { report.size };
        Ok(judged.checkpoint)
    }

    /// Keeps a checkpoint until it is known which key signed when. One without a signature of a known key does not count before.
    fn see(&mut self, name: &str, judged: &Judged, note: &[u8], anchor: Option<Anchor>) {
        let seen =
            Seen { name: name.to_owned(), size: judged.checkpoint.size, note: note.to_vec(), anchor, refused: judged.refused.clone() };
        if seen.refused.is_none() {
            self.accept(&seen);
        }
        self.signers.see(seen);
    }

    fn accept(&mut self, seen: &Seen) {
        self.report.checkpoints.good += 1;
        // An empty log is the beginning of any.
        if let Some(anchor) = seen.anchor.filter(|_| seen.size > 0 && self.report.anchor != Anchor::Witnessed) {
            self.report.anchor = anchor;
        }
    }

    /// Checks who has signed the checkpoints, now that it is known which key signed when.
    fn check_signers(&mut self, checkpoint: &Checkpoint, read: &Range<u64>) -> Result<(), Stop> {
        let vouched = self.unanswered.is_some();
        let known = policy_of(&self.options.policy, self.report.checkpoint.as_bytes());
        let signers = std::mem::take(&mut self.signers);
        for Outcome { seen, bad, key } in signers.check(&checkpoint.origin, vouched, read) {
            if let Some(what) = bad {
                return Err(Stop::Found(Finding::tampered(&*seen.name, what)));
            }
            if seen.refused.is_some() {
                self.accept(seen);
            }
            let is_learned = key.is_some_and(|key| known.logs.iter().all(|log| log.key != key));
            if seen.name == "checkpoint" && is_learned {
                self.report.unknown_signatures = self.report.unknown_signatures.saturating_sub(1);
            }
        }
        self.signers = signers;
        match self.opened_by.take() {
            Some((note, finding)) if !self.signers.is_of_former(&note) => Err(Stop::Found(finding)),
            Some(_) => {
                self.report.checkpoints.good += 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Compares with the last checkpoint that the log's owner had witnessed, and says whether the quorum is there, on that or on the newest.
    fn check_witnessed(&mut self, source: &dyn Source, now: &Checkpoint, note: Option<&[u8]>) -> Result<(), Stop> {
        if let Some(note) = note {
            self.report.checkpoints.all += 1;
            let policy = policy_of(&self.options.policy, note);
            let judged = anchors::read(&policy, WITNESSED, note).map_err(Stop::Found)?;
            if judged.checkpoint.origin != now.origin {
                return Err(Stop::Found(Finding::tampered(WITNESSED, "it is a checkpoint of another log")));
            }
            anchors::compare(source, "the witnessed checkpoint", &judged.checkpoint, now)?;
            self.see(WITNESSED, &judged, note, None);
            // The quorum comes first, and then how many have signed: others than those that the policy demands make up for none of them.
            if (judged.quorum_met, judged.witnesses) > (self.report.quorum_met, self.report.witnesses.good) {
                self.report.witnesses.good = judged.witnesses;
                (self.report.quorum_met, self.report.witnessed_size) = (judged.quorum_met, judged.checkpoint.size);
            }
        }
        if self.is_gone {
            // A later shard has its checkpoint, and whoever witnessed that one has witnessed both.
        } else if !self.report.quorum_met {
            let what = format!("{} witnesses have signed, which is not the quorum of the policy", self.report.witnesses);
            self.report.find(Finding::incomplete("checkpoint", what));
        } else if self.options.policy.quorum.is_some() {
            self.report.anchor = Anchor::Witnessed;
        }
        Ok(())
    }

    /// Compares with every earlier checkpoint of this log that is known.
    fn check_anchors(&mut self, source: &dyn Source, now: &Checkpoint) -> Result<(), Stop> {
        let Options { policy, given, remembered, .. } = self.options;
        let known = remembered.iter().map(|note| (Anchor::Remembered, "the remembered checkpoint", note));
        for (anchor, name, note) in known.chain(given.iter().map(|note| (Anchor::Given, "the given checkpoint", note))) {
            // One of another shard is that shard's business; one that cannot be read is never passed over.
            if SignedNote::parse(note).is_ok_and(|note| note.text().lines().next() != Some(&now.origin)) {
                continue;
            }
            if self.is_gone && retired::is_of_less(note, now) {
                continue;
            }
            self.report.checkpoints.all += 1;
            let earlier = anchors::read(&policy_of(policy, note), name, note).map_err(Stop::Found)?;
            anchors::compare(source, name, &earlier.checkpoint, now)?;
            self.see(name, &earlier, note, Some(anchor));
        }
        Ok(())
    }

    /// Reads every bundle of the range, by several threads, and takes the entries in in order.
    fn walk(
        &mut self,
        source: &dyn Source,
        checkpoint: &Checkpoint,
        range: Range<u64>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), Stop> {
        let (size, threads) = (checkpoint.size, self.options.threads.get() as u64);
        let bundles = range.start / 256..range.end.div_ceil(256);
        let year = year_of(&checkpoint.origin);
        let stop = thread::scope(|scope| -> Result<Option<Stop>, Stop> {
            let workers: Vec<_> = (0..threads)
                .map(|worker| {
                    let (send, receive) = mpsc::sync_channel(2);
                    let bundles = bundles.clone();
                    scope.spawn(move || {
                        let mut tiles = Tiles::new(source, size);
                        let mut mine = (bundles.start + worker..bundles.end).step_by(usize::try_from(threads).unwrap_or(1));
                        // Nobody receives any more once something was found.
                        while mine.next().is_some_and(|index| send.send(bundle::check(source, &mut tiles, index, size)).is_ok()) {}
                    });
                    receive
                })
                .collect();
            for index in bundles.clone() {
                let worker = usize::try_from((index - bundles.start) % threads).unwrap_or(0);
                let Checked { facts, stop, bytes } =
                    workers[worker].recv().map_err(|_| Stop::Io("a bundle".to_owned(), io::Error::other("its reader failed")))?;
                for facts in facts.iter().filter(|facts| range.contains(&facts.index)) {
                    if let Some(stop) = self.observe(checkpoint, facts)? {
                        return Ok(Some(stop));
                    }
                    self.report.entries.good += 1;
                }
                if stop.is_some() {
                    return Ok(stop);
                }
                if let (Some(check), Some(year)) = (&mut self.index, year) {
                    check.take(year, index, bytes, u16::try_from(facts.len()).unwrap_or(u16::MAX));
                }
                self.report.bundles.good += 1;
                progress(Progress { shard: self.number, done: self.report.entries.good, all: self.report.entries.all });
            }
            Ok(None)
        })?;
        stop.map_or(Ok(()), Err)
    }

    /// Takes an entry in.
    fn observe(&mut self, checkpoint: &Checkpoint, facts: &Facts) -> Result<Option<Stop>, Stop> {
        let name =
            || TilePath::in_tree(TileLevel::Entries, facts.index / 256, checkpoint.size).map_or_else(String::new, |path| path.to_string());
        let found = |what: String| Ok(Some(Stop::Found(Finding::tampered(name(), what).at(facts.index, facts.byte))));
        match &facts.claim {
            Some(Claim::Opened { previous }) => {
                match self.check_previous(previous.as_deref()) {
                    Ok(None) => {}
                    // It may be of a key that this shard says it had before.
                    Ok(Some(what)) => {
                        let finding = Finding::tampered(name(), what).at(facts.index, facts.byte);
                        self.opened_by = Some((previous.as_deref().unwrap_or_default().as_bytes().to_vec(), finding));
                    }
                    Err(what) => return found(what),
                }
                if self.order.is_none() {
                    *self.order = Some(Order::new(previous.is_some())?);
                }
            }
            Some(Claim::Rotated { key, previous }) => {
                if let Some(what) = self.signers.rotate(&checkpoint.origin, facts.index, key, previous.as_deref()) {
                    return found(what);
                }
            }
            Some(Claim::Retired(retirement)) => {
                let place = retired::Place { index: facts.index, logged_time: facts.logged_time };
                if let Err(what) = self.retirements.take(year_of(&checkpoint.origin), retirement, &place) {
                    return found(what);
                }
            }
            None => {}
        }
        let order = match self.order {
            Some(order) => order,
            // A range that begins later.
            None => self.order.insert(Order::new(true)?),
        };
        match order.observe(self.number, facts)? {
            Some(what) => found(what),
            None => Ok(None),
        }
    }

    /// Whether the shard before ended as this one says. Gives why that does not count yet, where it is of no known key and there is nothing to compare it with.
    fn check_previous(&mut self, note: Option<&str>) -> Result<Option<String>, String> {
        let Some(note) = note else {
            return if self.before.is_some() { Err("it follows no shard, and there is one before it".to_owned()) } else { Ok(None) };
        };
        self.report.checkpoints.all += 1;
        let policy = policy_of(&self.options.policy, note.as_bytes());
        let unaccepted = |what: &str| format!("the checkpoint that it says the shard before ended with is not accepted: {what}");
        let judged = signers::judge(&policy, note.as_bytes()).map_err(|error| unaccepted(&fte_service::chain(&error).to_string()))?;
        let previous = judged.checkpoint;
        if self.before.is_none() {
            self.retirements.follow(self.number, &previous);
        }
        match &self.before {
            Some(before) if *before != previous => Err(format!(
                "it follows a shard {} of {} entries; the one before it is {} of {}, or has another root",
                previous.origin, previous.size, before.origin, before.size
            )),
            Some(_) => {
                // This shard's tree has it, whoever signed it.
                self.answers = true;
                self.report.checkpoints.good += 1;
                Ok(None)
            }
            None if judged.refused.is_none() => {
                self.report.checkpoints.good += 1;
                Ok(None)
            }
            None => Ok(judged.refused.map(|what| unaccepted(&what))),
        }
    }
}

impl From<Finding> for Broken {
    fn from(finding: Finding) -> Self {
        Self::Stop(Stop::Found(finding))
    }
}

/// A source at one moment: the checkpoint and the files at the right edge, which a log that grows replaces.
struct Snapshot<'s> {
    source: &'s dyn Source,
    held: HashMap<String, Vec<u8>>,
}

/// How often the right edge is read anew because the log grew meanwhile.
const TRIES_MAX: usize = 10;

impl<'s> Snapshot<'s> {
    fn take(source: &'s dyn Source) -> Result<(Self, Vec<u8>), Stop> {
        let mut note = read_checkpoint(source)?;
        for _ in 0..TRIES_MAX {
            let mut held = HashMap::new();
            for path in edge_of(&note) {
                let name = path.to_string();
                if let Some(bytes) = source.read(&name).map_err(|error| Stop::Io(name.clone(), error))? {
                    held.insert(name, bytes);
                }
            }
            let again = read_checkpoint(source)?;
            let has_grown = again != note;
            let is_whole = held.len() == edge_of(&note).len();
            if is_whole || !has_grown {
                held.insert("checkpoint".to_owned(), note.clone());
                return Ok((Self { source, held }, note));
            }
            note = again;
        }
        Err(Stop::Found(Finding::incomplete("checkpoint", "the log grows faster than it can be read: verify a copy")))
    }

    /// Files beyond the size are no finding where the log has grown meanwhile.
    fn unless_it_grew(&self, stop: Stop) -> Result<(), Stop> {
        let has_grown = read_checkpoint(self.source)? != self.held.get("checkpoint").map_or(&[][..], Vec::as_slice);
        if has_grown { Ok(()) } else { Err(stop) }
    }
}

fn read_checkpoint(source: &dyn Source) -> Result<Vec<u8>, Stop> {
    let read = source.read("checkpoint").map_err(|error| Stop::Io("checkpoint".to_owned(), error))?;
    read.ok_or_else(|| Stop::Found(Finding::incomplete("checkpoint", "the file is not there")))
}

/// The partial tiles of the size that a note claims, which nobody has verified yet.
fn edge_of(note: &[u8]) -> Vec<TilePath> {
    let note = SignedNote::parse(note).ok();
    let Some(size) = note.and_then(|note| Checkpoint::parse(note.text()).ok()).map(|checkpoint| checkpoint.size) else { return Vec::new() };
    let hashes = (0..8).filter_map(|level| {
        let hashes = size >> (8 * u32::from(level));
        TilePath::in_tree(TileLevel::Hashes(level), hashes / 256, size)
    });
    let entries = TilePath::in_tree(TileLevel::Entries, size / 256, size);
    hashes.chain(entries).collect()
}

impl Source for Snapshot<'_> {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match self.held.get(name) {
            Some(bytes) => Ok(Some(bytes.clone())),
            None => self.source.read(name),
        }
    }

    fn blob(&self, digest: &str) -> io::Result<Option<Vec<u8>>> {
        self.source.blob(digest)
    }

    fn list(&self, folder: &str, seen: &mut dyn FnMut(&str) -> io::Result<()>) -> io::Result<bool> {
        self.source.list(folder, seen)
    }

    fn year(&self) -> Option<u16> {
        self.source.year()
    }
}

#[cfg(test)]
mod tests;
