//! What a verification found.

use std::fmt;

use serde::Serialize;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Something is there that was not logged like that.
    Tampered,
    /// Something is not there; nothing that is there contradicts the signatures.
    Incomplete,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub class: Class,
    /// The first entry that it concerns; none where it concerns no entry.
    pub entry: Option<u64>,
    /// The file, below the shard's prefix.
    pub file: String,
    /// Where in the file it begins, where that is known.
    pub byte: Option<u64>,
    pub what: String,
}

impl Finding {
    pub(super) fn tampered(file: impl fmt::Display, what: impl Into<String>) -> Self {
        Self { class: Class::Tampered, entry: None, file: file.to_string(), byte: None, what: what.into() }
    }

    pub(super) fn incomplete(file: impl fmt::Display, what: impl Into<String>) -> Self {
        Self { class: Class::Incomplete, ..Self::tampered(file, what) }
    }

    pub(super) fn at(mut self, entry: impl Into<Option<u64>>, byte: impl Into<Option<u64>>) -> Self {
        (self.entry, self.byte) = (entry.into(), byte.into());
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(entry) = self.entry {
            write!(f, "entry {entry}, ")?;
        }
        write!(f, "{}", self.file)?;
        if let Some(byte) = self.byte {
            write!(f, ", byte {byte}")?;
        }
        write!(f, ": {}", self.what)
    }
}

/// What excludes that the log was put back to an earlier state, or another was put in its place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Anchor {
    /// Nothing does.
    #[default]
    None,
    /// The checkpoint that an earlier verification on this machine saw.
    Remembered,
    /// A checkpoint that the caller has kept.
    Given,
    /// The witnesses that the policy demands have signed.
    Witnessed,
}

impl Anchor {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Remembered => "remembered",
            Self::Given => "given",
            Self::Witnessed => "witnessed",
        }
    }
}

/// So many of so many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    pub good: u64,
    pub all: u64,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.good, self.all)
    }
}

/// How the index of an installation agrees with the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct IndexReport {
    /// Rows that are what the log says.
    pub rows: u64,
    /// The last entry that it has, as `2026-17`; none if it is empty. Later ones it takes in when the service starts.
    pub last: Option<String>,
}

/// A shard of which only the final checkpoint is left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RetiredReport {
    /// The entry that says so, as `2034-17`.
    pub entry: String,
    /// When that was logged, in milliseconds since 1970.
    pub since_ms: i64,
}

/// What was verified of a shard. `Display` is the one line for people.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    pub origin: String,
    pub size: u64,
    pub root: String,
    /// The log's own, those that it was compared with, and those that its entries name.
    pub checkpoints: Tally,
    pub bundles: Tally,
    pub entries: Tally,
    /// Numbers that publishers gave and that are not in the log.
    pub gaps: u64,
    /// The entries behind such holes, and what is missing before each; at most 100.
    pub behind_gaps: Vec<Finding>,
    /// Those of the policy that have signed.
    pub witnesses: Tally,
    /// So many entries have they signed.
    pub witnessed_size: u64,
    /// Whether so many have signed as the policy demands.
    pub quorum_met: bool,
    /// Signatures on the checkpoint of keys that nobody named.
    pub unknown_signatures: usize,
    pub anchor: Anchor,
    /// Whether the keys came with the log itself: it then proves only that it agrees with itself.
    pub keys_from_log: bool,
    /// Where the log says that the shard was retired: its final checkpoint is known, and no entry of it was there to be verified.
    pub retired: Option<RetiredReport>,
    /// Of the last shard, where there was an index to compare.
    pub index: Option<IndexReport>,
    /// Everything that is wrong, the first entry first; at most [`FINDINGS_MAX`].
    pub findings: Vec<Finding>,
    /// The log's checkpoint as it was read: keep it, and verify against it later.
    pub checkpoint: String,
}

/// Most findings that are kept.
pub const FINDINGS_MAX: usize = 100;

impl Report {
    pub(super) fn find(&mut self, finding: Finding) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        }
    }

    /// The finding of the first entry, else of no entry.
    pub fn first_bad(&self) -> Option<&Finding> {
        let tampered = self.findings.iter().filter(|finding| finding.class == Class::Tampered);
        tampered.min_by_key(|finding| finding.entry.unwrap_or(u64::MAX))
    }

    pub fn is_tampered(&self) -> bool {
        self.first_bad().is_some()
    }

    /// Whether the index alone is not what it should be, and the log is.
    pub fn is_index_alone(&self) -> bool {
        self.findings.iter().all(|finding| finding.class == Class::Incomplete || finding.file == super::index::NAME)
    }

    /// Whether something is not there that should be.
    pub fn is_incomplete(&self) -> bool {
        self.gaps > 0 || self.findings.iter().any(|finding| finding.class == Class::Incomplete)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { checkpoints, bundles, entries, gaps, witnesses, anchor, .. } = self;
        write!(f, "checkpoints {checkpoints} · bundles {bundles} · entries {entries} · gaps {gaps} · witnesses {witnesses} · ")?;
        write!(f, "anchor {} · first bad entry: ", anchor.as_str())?;
        match self.first_bad() {
            None => f.write_str("none"),
            Some(Finding { entry: None, file, byte, .. }) => write!(f, "unknown ({file}{})", in_byte(*byte)),
            Some(Finding { entry: Some(entry), file, byte, .. }) => write!(f, "{entry} ({file}{})", in_byte(*byte)),
        }
    }
}

/// The one line for several shards that follow each other: sums, and the anchor of the last, which the shards before hang on.
pub fn summary(reports: &[Report]) -> String {
    let [first, .., last] = reports else { return reports.first().map_or_else(String::new, Report::to_string) };
    let sum = |of: fn(&Report) -> Tally| {
        reports.iter().map(of).fold(Tally::default(), |sum, tally| Tally { good: sum.good + tally.good, all: sum.all + tally.all })
    };
    let bad = reports.iter().find_map(|report| Some((report, report.first_bad()?)));
    let whole = Report {
        checkpoints: sum(|report| report.checkpoints),
        bundles: sum(|report| report.bundles),
        entries: sum(|report| report.entries),
        gaps: reports.iter().map(|report| report.gaps).sum(),
        witnesses: last.witnesses,
        anchor: last.anchor,
        findings: bad.map(|(_, finding)| finding.clone()).into_iter().collect(),
        ..first.clone()
    };
    let of = bad.map_or_else(String::new, |(report, _)| format!(" of {}", report.origin));
    format!("{whole}{of}{}", retired(reports).map_or_else(String::new, |years| format!(" · retired {years}")))
}

/// Which shards are retired, as `2026–2027`; they are the first.
pub fn retired(reports: &[Report]) -> Option<String> {
    let year = |report: &Report| report.origin.rsplit_once('/').map_or(report.origin.as_str(), |(_, year)| year).to_owned();
    let mut years = reports.iter().filter(|report| report.retired.is_some()).map(year);
    let first = years.next()?;
    Some(years.next_back().map_or_else(|| first.clone(), |last| format!("{first}–{last}")))
}

fn in_byte(byte: Option<u64>) -> String {
    byte.map_or_else(String::new, |byte| format!(" byte {byte}"))
}
