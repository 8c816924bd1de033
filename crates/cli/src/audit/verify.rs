//! `fte audit verify`: whether a log is what its signatures say.
//!
//! Offline on a directory; over HTTP it reads what a running instance serves, which is the same files. Exit codes: 0 consistent, 1 tampered or corrupt,
//! 2 usage, 6 incomplete (files absent, gaps open, a quorum not met, or with `--strict` no anchor).

mod bucket;
pub(super) mod evidence;
pub(super) mod http;
pub(super) mod keys;
pub(super) mod local;
mod memory;

use std::io::ErrorKind;
use std::num::NonZero;
use std::ops::Range;
use std::path::PathBuf;

use clap::Args;
use fte_audit::verify::{Anchor, IndexReport, Options, Progress, Report, Source, VerifyError, retired, summary, verify};
use fte_service::settings::ENV_DATA;
use fte_service::{Env, ProcessEnv};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use self::memory::Memory;
use crate::client::Client;
use crate::error::Error;
use crate::output::{Output, printable};

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// A data directory, its `audit`, one shard of it, evidence that was exported (a directory or an archive), the URL of an instance or of a shard (`…/v1/audit/log/2026`), or a copy that `fte audit archive` made (a directory, or `s3://bucket/prefix`)
    #[arg(value_name = "DIR|URL")]
    target: Option<String>,
    /// The same for a data directory, as the other commands name it [default: that of `FTE_DATA`, else `fte-data`]
    #[arg(long, value_name = "DIR", conflicts_with = "target")]
    data: Option<PathBuf>,
    /// A signed checkpoint that was kept: the log must continue it. May be given several times
    #[arg(long, value_name = "FILE")]
    since: Vec<PathBuf>,
    #[command(flatten)]
    keys: keys::Named,
    /// Only these entries, as in 100..200, and what leads from them to the root; of one shard
    #[arg(long, value_name = "A..B", value_parser = range)]
    range: Option<Range<u64>>,
    /// Without an anchor, which shows that the log was not put back to an earlier state, end with 6
    #[arg(long)]
    strict: bool,
    /// Where checkpoints that were seen are remembered. By default `fte/checkpoints` in the user's state directory
    #[arg(long, value_name = "DIR", env = "FTE_AUDIT_MEMORY", hide_env_values = true)]
    memory: Option<PathBuf>,
    /// Neither use nor write what is remembered
    #[arg(long, conflicts_with = "memory")]
    no_memory: bool,
    /// Do not compare an installation's index with its log, which takes as long as the log itself
    #[arg(long)]
    no_index: bool,
    /// How many threads hash. By default one for each core
    #[arg(long, value_name = "N")]
    threads: Option<NonZero<usize>>,
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let parsed = text.split_once("..").and_then(|(start, end)| Some(start.parse().ok()?..end.parse().ok()?));
    parsed
        .filter(|range: &Range<u64>| range.start < range.end)
        .ok_or_else(|| "expected two indexes, as in 100..200, the second not included".to_owned())
}

/// What is printed with `--json`.
#[derive(Serialize)]
struct Printed<'a> {
    verdict: &'static str,
    summary: String,
    shards: &'a [Report],
}

impl Verify {
    pub(crate) async fn run(self, client: Client, output: Output) -> Result<(), Error> {
        let target = self.target();
        if let Some(evidence) = evidence::find(&target) {
            return evidence::check_and_tell(evidence, self.keys.policy()?.as_ref(), output);
        }
        let memory = if self.no_memory { None } else { Memory::new(self.memory.clone()) };
        let found = match target.split_once("://") {
            Some(("s3", _)) => bucket::shards(&target).await?,
            Some(_) => http::shards(&client, &target).await?,
            None => local::shards(&target)?,
        };
        let keys = keys::find(&self.keys, &found)?;
        let given = self.since.iter().map(|path| checkpoint(path)).collect::<Result<Vec<_>, _>>()?;
        let remembered = memory.as_ref().map(Memory::all).transpose()?.unwrap_or_default();
        let defaults = Options::new(keys.policy);
        let threads = self.threads.unwrap_or(defaults.threads);
        let options = Options { keys_from_log: keys.from_log, given, remembered, range: self.range.clone(), threads, ..defaults };
        let options = Options { index: found.index.clone().filter(|_| !self.no_index), is_whole: found.is_whole, ..options };
        if options.range.is_some() && found.shards.len() > 1 {
            let advice = format!("name one shard, as {}/2026", target.trim_end_matches('/'));
            return Err(Error::usage("--range is about the entries of one shard, and there are several", advice));
        }
        let is_json = output.json;
        let reports = tokio::task::spawn_blocking(move || {
            let bar = progress_bar(is_json);
            let sources: Vec<&dyn Source> = found.shards.iter().map(|source| &**source as &dyn Source).collect();
            let reports = verify(&sources, &options, &mut |progress| show(&bar, progress));
            bar.finish_and_clear();
            reports
        });
        let reports = reports.await.map_err(|error| Error::Failed(format!("the verifier ended: {error}")))?.map_err(unverifiable)?;
        self.tell(&reports, memory.as_ref(), output)
    }

    /// What is named, else the data directory that the environment names. The environment is read here, so that it does not contradict the argument.
    fn target(&self) -> String {
        let data = || self.data.as_ref().map(|data| data.to_string_lossy().into_owned());
        self.target.clone().or_else(data).or_else(|| ProcessEnv.get(ENV_DATA)).unwrap_or_else(|| super::data::DEFAULT.to_owned())
    }

    /// Prints what was found, remembers the checkpoints of what is sound, and says by the exit code how it is.
    fn tell(&self, reports: &[Report], memory: Option<&Memory>, output: Output) -> Result<(), Error> {
        let is_tampered = reports.iter().any(Report::is_tampered);
        let anchor = reports.last().map_or(Anchor::None, |report| report.anchor);
        let is_incomplete = reports.is_empty() || reports.iter().any(Report::is_incomplete) || (self.strict && anchor == Anchor::None);
        let verdict = match (is_tampered, is_incomplete) {
            (true, _) => "tampered",
            (false, true) => "incomplete",
            (false, false) => "consistent",
        };
        if output.json {
            output.json_line(&Printed { verdict, summary: summary(reports), shards: reports })?;
        } else if !reports.is_empty() {
            output.line(one_line(&summary(reports)))?;
        }
        for (report, finding) in
            reports.iter().flat_map(|report| report.findings.iter().chain(&report.behind_gaps).map(move |finding| (report, finding)))
        {
            let of = if reports.len() > 1 { format!("{}: ", report.origin) } else { String::new() };
            output.note(one_line(&format!("{of}{finding}")));
        }
        if !is_tampered {
            caveats(reports, anchor, output);
        }
        if is_tampered && reports.iter().all(Report::is_index_alone) {
            return Err(Error::Broken {
                what: "the index is not what the log says; the log itself is what was signed".to_owned(),
                why: "index.sqlite was changed, or is damaged: what it hides is not found by asking".to_owned(),
                advice: "keep a copy of it, stop the instance, and make it again with `fte audit reindex`".to_owned(),
            });
        }
        if is_tampered {
            return Err(Error::Broken {
                what: "the log is not what was signed".to_owned(),
                why: "see the finding above: a file was changed, or is damaged".to_owned(),
                advice: "keep these files as they are, as evidence, and compare them with a backup".to_owned(),
            });
        }
        if let Some(memory) = memory.filter(|_| self.range.is_none()) {
            for report in reports.iter().filter(|report| report.findings.is_empty()) {
                if let Err(error) = memory.remember(report) {
                    output.note(format!("the checkpoint of {} is not remembered: {error}", report.origin));
                }
            }
        }
        if is_incomplete {
            let advice = match anchor {
                Anchor::None if self.strict => {
                    "an anchor is a checkpoint kept elsewhere (--since), an earlier run on this machine, or witnesses (--policy)"
                }
                _ => "see the findings above",
            };
            return Err(Error::Incomplete {
                what: "nothing contradicts the signatures, and not all is there".to_owned(),
                advice: advice.to_owned(),
            });
        }
        Ok(())
    }
}

/// What a person must know who relies on the verdict.
fn caveats(reports: &[Report], anchor: Anchor, output: Output) {
    if reports.is_empty() {
        output.note("no shard has a checkpoint yet: there is nothing to verify");
    } else if anchor == Anchor::None {
        output.note("anchor none: that the log was put back to an earlier state, or written anew by who has its key, cannot be excluded");
    }
    if reports.iter().any(|report| report.keys_from_log) {
        output.note(
            "the key was taken from the log's own directory: give --public-key or --policy from elsewhere to prove whose log this is",
        );
    }
    if let Some(years) = retired(reports) {
        let entries: u64 = reports.iter().filter(|report| report.retired.is_some()).map(|report| report.size).sum();
        output.note(format!(
            "{years} retired, as the log says: the final checkpoint of each is the one that the log names, and their {entries} entries are not there to be verified"
        ));
    }
    if let Some(IndexReport { rows, last: Some(last) }) = reports.last().and_then(|report| report.index.as_ref()) {
        output.note(format!("index: {rows} rows are what the log says up to entry {last}"));
    }
    let unknown: usize = reports.iter().map(|report| report.unknown_signatures).sum();
    if unknown > 0 {
        output.note(format!("{unknown} signatures are of keys that are not known here, and say nothing"));
    }
}

/// What stands in a log's files is not to write on a terminal what it wants.
fn one_line(text: &str) -> String {
    printable(text).replace('\n', "\u{fffd}")
}

/// A checkpoint that was kept.
fn checkpoint(path: &std::path::Path) -> Result<Vec<u8>, Error> {
    let note = read(path)?;
    match fte_tlog::SignedNote::parse(&note) {
        Ok(_) => Ok(note),
        Err(_) => Err(Error::usage(
            format!("{} is no signed checkpoint", path.display()),
            "name a file that was kept of <data>/audit/<year>/log/checkpoint, or of /v1/audit/log/<year>/checkpoint",
        )),
    }
}

pub(super) fn read(path: &std::path::Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => Error::usage(format!("there is no file {}", path.display()), "name one that is there"),
        _ => Error::usage(format!("{} cannot be read: {error}", path.display()), "name a file that this user may read"),
    })
}

pub(super) fn unverifiable(error: VerifyError) -> Error {
    match error {
        VerifyError::Range { .. } => Error::usage(error.to_string(), "choose a range within it"),
        VerifyError::Read { file, source } => Error::usage(
            format!("{} cannot be read: {source}", printable(&file)),
            "this says nothing about the log: mend the access and run it again",
        ),
    }
}

/// On standard error, and only where that is a terminal.
pub(super) fn progress_bar(is_json: bool) -> ProgressBar {
    if is_json || !crate::output::stderr_is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg} {wide_bar} {human_pos}/{human_len} entries, {per_sec}, {eta} left");
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

pub(super) fn show(bar: &ProgressBar, progress: Progress) {
    if progress.done <= 256 {
        bar.set_message(format!("shard {}", progress.shard + 1));
        bar.set_length(progress.all);
    }
    bar.set_position(progress.done);
}
