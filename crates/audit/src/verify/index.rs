//! The index of an installation against the log that it is derived from. It is no evidence, and what it hides nobody finds by asking.

use std::io;
use std::path::{Path, PathBuf};

use fte_tlog::Bundle;

use super::report::{Finding, IndexReport, Report};
use super::tiles::Stop;
use crate::engine::{CompareError, Compared, Comparison, unsigned_leaves};
use crate::entry::Position;
use crate::leaf;

/// The index's name in findings.
pub(super) const NAME: &str = "index.sqlite";

/// A comparison under way; what is wrong is told at the end, and says nothing about the log.
pub(super) struct IndexCheck {
    comparison: Result<Comparison, CompareError>,
    /// The directory that has it, and the shards.
    root: PathBuf,
}

impl IndexCheck {
    pub(super) fn open(path: &Path) -> Self {
        Self { comparison: Comparison::open(path), root: path.parent().map(Path::to_owned).unwrap_or_default() }
    }

    /// Takes the entries of a bundle in, which has been verified.
    pub(super) fn take(&mut self, year: u16, number: u64, bytes: &[u8], width: u16) -> Result<(), Stop> {
        let Ok(comparison) = &mut self.comparison else { return Ok(()) };
        let unreadable = || Stop::Io("a bundle".to_owned(), io::Error::other("it was read, and cannot be any more"));
        let bundle = Bundle::parse(bytes, width).map_err(|_| unreadable())?;
        for (index, leaf) in (number * 256..).zip(bundle.leaves()) {
            let (header, _) = leaf::decode(leaf).map_err(|_| unreadable())?;
            if let Err(error) = comparison.take(Position { shard: year, index }, leaf, &header) {
                self.comparison = Err(error);
                break;
            }
        }
        Ok(())
    }

    /// Adds what was found to the reports of the shards that it is about, and to the last one's how far it goes.
    pub(super) fn finish(self, reports: &mut [Report]) {
        let root = self.root;
        let compared = self.comparison.and_then(|mut comparison| {
            take_unsigned(&mut comparison, &root)?;
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
