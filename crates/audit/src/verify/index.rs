//! The index of an installation against the log that it is derived from. It is no evidence, and what it hides nobody finds by asking.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use fte_tlog::Bundle;

use super::report::{Finding, IndexReport, Report};
use crate::engine::{CompareError, Compared, Comparison, unsigned_leaves};
use crate::entry::Position;
use crate::entry::leaf;

/// The index's name in findings.
pub(super) const NAME: &str = "index.sqlite";
/// Bundles that wait to be compared, of at most 16 MiB each.
const WAITING_MAX: usize = 2;

/// A comparison under way, on a thread of its own: making the index again takes as long as all the rest, and needs the entries in order. What is wrong is told at
/// the end, and says nothing about the log.
pub(super) struct IndexCheck {
    /// None once there are no more.
    bundles: Option<SyncSender<Verified>>,
    comparing: Option<JoinHandle<Result<Comparison, CompareError>>>,
    /// The directory that has it, and the shards.
    root: PathBuf,
}

/// A bundle that was verified.
struct Verified {
    year: u16,
    number: u64,
    bytes: Vec<u8>,
    width: u16,
}

impl IndexCheck {
    pub(super) fn open(path: &Path) -> Self {
        let root = path.parent().map(Path::to_owned).unwrap_or_default();
        // Before any checkpoint is read, so not on the thread.
        let comparison = Comparison::open(path);
        let (bundles, verified) = sync_channel(WAITING_MAX);
        let comparing = thread::spawn(move || comparison.and_then(|comparison| compare(comparison, &verified)));
        Self { bundles: Some(bundles), comparing: Some(comparing), root }
    }

    /// Takes the entries of a bundle in, which has been verified.
    pub(super) fn take(&mut self, year: u16, number: u64, bytes: Vec<u8>, width: u16) {
        // Nobody receives any more once the comparison has failed, which is told at the end.
        if let Some(bundles) = &self.bundles {
            let _ = bundles.send(Verified { year, number, bytes, width });
        }
    }

    /// Waits for the comparison of what was taken in.
    fn end(&mut self) -> Option<Result<Comparison, CompareError>> {
        self.bundles = None;
        let ended = self.comparing.take()?.join();
        Some(ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    }

    /// Adds what was found to the reports of the shards that it is about, and to the last one's how far it goes.
    pub(super) fn finish(mut self, reports: &mut [Report]) {
        let Some(comparison) = self.end() else { return };
        let root = &self.root;
        let compared = comparison.and_then(|mut comparison| {
            take_unsigned(&mut comparison, root)?;
            // The service may be running, and have put what is still lacking into bundles meanwhile.
            let has_grown = reports.last().is_some_and(|report| {
                let year = year_of(&report.origin).map_or_else(String::new, |year| year.to_string());
                std::fs::read_to_string(root.join(year).join("log/checkpoint")).is_ok_and(|now| now != report.checkpoint)
            });
            comparison.finish(has_grown)
        });
        let (compared, fault) = match compared {
            Ok(compared) => (compared, None),
            Err(error) => {
                let what = fte_service::chain(&error).to_string();
                let finding = if error.is_damage() { Finding::tampered(NAME, what) } else { Finding::incomplete(NAME, what) };
                (Compared::default(), Some(finding))
            }
        };
        let Compared { rows, last, strange } = compared;
        for strange in strange {
            let year = strange.at.map(|at| at.shard);
            let is_of = |report: &Report| year_of(&report.origin) == year;
            let place = reports.iter().position(is_of).unwrap_or_else(|| reports.len().saturating_sub(1));
            if let Some(report) = reports.get_mut(place) {
                report.find(Finding::tampered(NAME, strange.what).at(strange.at.map(|at| at.index), None));
            }
        }
        if let Some(report) = reports.last_mut() {
            fault.into_iter().for_each(|finding| report.find(finding));
            report.index = Some(IndexReport { rows, last: last.map(|at| at.to_string()) });
        }
    }
}

impl Drop for IndexCheck {
    /// Its temporary files go before the program does.
    fn drop(&mut self) {
        self.bundles = None;
        if let Some(comparing) = self.comparing.take() {
            drop(comparing.join());
        }
    }
}

/// Takes bundles in until there are no more.
fn compare(mut comparison: Comparison, bundles: &Receiver<Verified>) -> Result<Comparison, CompareError> {
    for Verified { year, number, bytes, width } in bundles {
        let bundle = Bundle::parse(&bytes, width).map_err(|error| CompareError::Again(io::Error::other(error)))?;
        for (index, leaf) in (number * 256..).zip(bundle.leaves()) {
            let (header, _) = leaf::read(leaf).map_err(|error| CompareError::Again(io::Error::other(error)))?;
            comparison.take(Position { shard: year, index }, leaf, &header)?;
        }
    }
    Ok(comparison)
}

/// The entries behind the last checkpoint, which the index may have.
fn take_unsigned(comparison: &mut Comparison, root: &Path) -> Result<(), CompareError> {
    let Some(last) = comparison.ahead() else { return Ok(()) };
    let from = comparison.read().filter(|read| read.shard == last.shard).map_or(0, |read| read.index + 1);
    for (index, leaf) in (from..).zip(unsigned_leaves(root, last.shard, from).map_err(CompareError::Unsigned)?) {
        let Ok((header, _)) = leaf::decode(&leaf) else { break };
        comparison.take(Position { shard: last.shard, index }, &leaf, &header)?;
    }
    Ok(())
}

/// The year of a shard, which its origin ends with.
pub(super) fn year_of(origin: &str) -> Option<u16> {
    origin.rsplit_once('/')?.1.parse().ok()
}
