//! `fte audit archive`: copies of years that have ended, where nobody can change or remove them before their time.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use fte_audit::archive::{ArchiveError, BucketShelf, DirectoryShelf, Record, Shelf, Step, Year, archive};
use fte_audit::verify::{Options, Report, Source, verify};
use fte_s3::{Bucket, Lock, Mode, Place, Variables};
use fte_service::{ProcessEnv, chain};
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use serde_json::json;
use tokio::runtime::Handle;

use super::data::Data;
use super::verify::{keys, local, progress_bar, show, unverifiable};
use crate::error::Error;
use crate::output::{Output, printable};

/// The place, where no option names it.
const ENV_PLACE: &str = "FTE_AUDIT_ARCHIVE";
const ENV_PATH_STYLE: &str = "FTE_AUDIT_ARCHIVE_PATH_STYLE";
const ENV_ALLOW_HTTP: &str = "FTE_AUDIT_ARCHIVE_ALLOW_HTTP";

const AFTER_HELP: &str = "\
The log is verified first, and each copy as it stands in its place; nothing in a copy is written over, and a copy that was cut off is carried on by the next
command. The service may run meanwhile. A copy has no key and nothing personal but ciphertext: erasures hold for it too.
In a bucket each object is locked (S3 Object Lock) until seven years after the year's last entry; the bucket must have been made for that. AWS_ENDPOINT_URL,
AWS_REGION, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY count; FTE_AUDIT_ARCHIVE_ALLOW_HTTP=true allows an endpoint without TLS. In a directory files are made
read-only, with that time as the time of their last access, which file systems that keep files for good take as the order to.
Check a copy with `fte audit verify s3://bucket/prefix` or `fte audit verify DIR`.";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Archive {
    /// Where the copies go: `s3://bucket/prefix`, or a directory
    #[arg(long, value_name = "PLACE", env = ENV_PLACE, hide_env_values = true)]
    to: String,
    #[command(flatten)]
    data: Data,
    /// This year alone. By default all that have ended
    #[arg(long, value_name = "YEAR")]
    shard: Option<u16>,
    /// Who may lift the lock of an object before its time: nobody (compliance), who has a right of its own (governance); or lock as the bucket says (none)
    #[arg(long, value_enum, default_value_t = Locked::Compliance)]
    lock: Locked,
    /// Verify the log, say what would be copied and until when, and write nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    keys: keys::Named,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Locked {
    Compliance,
    Governance,
    None,
}

impl Locked {
    fn until(self, until: Timestamp) -> Option<Lock> {
        let mode = match self {
            Self::Compliance => Mode::Compliance,
            Self::Governance => Mode::Governance,
            Self::None => return None,
        };
        Some(Lock { mode, until })
    }
}

/// Where copies go, once it is known until when they are kept.
enum Target {
    Directory(PathBuf),
    Bucket(Box<Bucket>, String, Locked),
}

impl Target {
    /// A directory must be there, lest a copy goes where something is not mounted; and apart from the log, which it is a copy of.
    fn of(text: &str, lock: Locked, data: &Path) -> Result<Self, Error> {
        if let Some((bucket, prefix)) = bucket(text, "--to")? {
            return Ok(Self::Bucket(Box::new(bucket), prefix, lock));
        }
        let advice = "make it, or mount what is to be there; a bucket is named as s3://bucket/prefix";
        let top = std::fs::canonicalize(text).map_err(|error| Error::usage(format!("the directory {text}: {error}"), advice))?;
        let log =
            std::fs::canonicalize(data).map_err(|error| Error::usage(format!("{}: {error}", data.display()), "name it with --data"))?;
        if !top.is_dir() {
            return Err(Error::usage(format!("{text} is no directory"), advice));
        }
        if top.starts_with(&log) || log.starts_with(&top) {
            return Err(Error::usage(format!("{text} is no place apart from the log in {}", data.display()), "name a directory elsewhere"));
        }
        Ok(Self::Directory(top))
    }

    fn shelf(&self, until: Timestamp) -> Result<Box<dyn Shelf>, Error> {
        Ok(match self {
            Self::Directory(top) => Box::new(DirectoryShelf::new(top, until)),
            Self::Bucket(bucket, prefix, lock) => {
                let shelf = BucketShelf::new(bucket, prefix, lock.until(until), Handle::current());
                Box::new(shelf.map_err(|error| Error::Failed(chain(&error).to_string()))?)
            }
        })
    }
}

/// The bucket that a text names, with its prefix. `named` is how it was said.
pub(super) fn bucket(text: &str, named: &'static str) -> Result<Option<(Bucket, String)>, Error> {
    if !text.contains("://") {
        return Ok(None);
    }
    let variables = Variables { place: named, path_style: ENV_PATH_STYLE, allow_http: ENV_ALLOW_HTTP };
    let place =
        Place::read(&ProcessEnv, text, variables).map_err(|error| Error::usage(error.to_string(), "see `fte audit archive --help`"))?;
    let bucket = Bucket::new(&place).map_err(|error| Error::Failed(chain(&error).to_string()))?;
    Ok(Some((bucket, place.prefix)))
}

/// What became of a year.
enum Outcome {
    Copied(Record),
    There(Record),
    WouldBeCopied {
        shard: u16,
        entries: u64,
        until: Timestamp,
    },
    /// It has had its seven years, and nothing would keep a copy.
    HadItsTime {
        shard: u16,
    },
}

impl Archive {
    pub(crate) async fn run(self, output: Output) -> Result<(), Error> {
        let data = self.data.log()?;
        let target = Target::of(&self.to, self.lock, &data)?;
        let found = local::shards(&data.to_string_lossy())?;
        let keys = keys::find(&self.keys, &found)?;
        let from_log = keys.from_log;
        let options = Options { keys_from_log: from_log, is_whole: found.is_whole, ..Options::new(keys.policy) };
        let (shard, dry_run, is_json) = (self.shard, self.dry_run, output.json);
        // Reading and hashing block, and what they wait for is driven by the runtime.
        let working = tokio::task::spawn_blocking(move || {
            let sources: Vec<&dyn Source> = found.shards.iter().map(|source| &**source as &dyn Source).collect();
            archive_ended(&sources, &options, &target, shard, dry_run, is_json)
        });
        let outcomes = working.await.map_err(|error| Error::Failed(format!("the work on the log ended: {error}")))??;
        self.tell(&outcomes, from_log, output)
    }

    fn tell(&self, outcomes: &[Outcome], from_log: bool, output: Output) -> Result<(), Error> {
        if output.json {
            let year = |outcome: &Outcome| match outcome {
                Outcome::Copied(record) => json!({"shard": record.shard, "outcome": "copied", "copy": record}),
                Outcome::There(record) => json!({"shard": record.shard, "outcome": "there", "copy": record}),
                Outcome::WouldBeCopied { shard, entries, until } => {
                    json!({"shard": shard, "outcome": "would_be_copied", "entries": entries, "kept_until": fte_bus::time::text(*until)})
                }
                Outcome::HadItsTime { shard } => json!({"shard": shard, "outcome": "had_its_time"}),
            };
            return output.json_line(&json!({"to": self.to, "years": outcomes.iter().map(year).collect::<Vec<_>>()}));
        }
        let mut is_new = false;
        for outcome in outcomes {
            let told = |record: &Record, word: &str| {
                let Record { shard, size, files, bytes, kept_until, .. } = record;
                let bytes = indicatif::HumanBytes(*bytes);
                format!("{shard} {word}: {size} entries, {files} files of {bytes}, to be kept until {kept_until:.3}")
            };
            match outcome {
                Outcome::Copied(record) => {
                    is_new = true;
                    output.line(told(record, "is copied and verified"))?;
                }
                Outcome::There(record) => output.line(told(record, "is there already"))?,
                Outcome::WouldBeCopied { shard, entries, until } => {
                    output.line(format!("{shard} would be copied: {entries} entries, to be kept until {until:.3}"))?;
                }
                Outcome::HadItsTime { shard } => {
                    output.note(format!(
                        "{shard} has had its seven years, and nothing would keep a copy of it: see `fte audit retire --dry-run`"
                    ));
                }
            }
        }
        if outcomes.is_empty() {
            output.line("no year has ended yet: there is nothing to copy")?;
        }
        if from_log && is_new {
            output.note("the key was taken from the log's own directory: keep it where the copy is checked, apart from the log");
        }
        if !self.to.contains("://") {
            output.note("a directory keeps what its file system keeps: on an ordinary one, who owns it can remove it");
        } else if self.lock == Locked::None {
            output.note("nothing was locked: how long the copy is kept is what the bucket says");
        }
        Ok(())
    }
}

fn archive_ended(
    sources: &[&dyn Source],
    options: &Options,
    target: &Target,
    asked: Option<u16>,
    dry_run: bool,
    is_json: bool,
) -> Result<Vec<Outcome>, Error> {
    let bar = progress_bar(is_json);
    let reports = verify(sources, options, &mut |progress| show(&bar, progress)).map_err(unverifiable)?;
    bar.finish_and_clear();
    sound(&reports)?;
    let now = Timestamp::now();
    let (mut outcomes, mut new) = (Vec::new(), Vec::new());
    for (shard, at) in ended(&reports, asked)? {
        let year = Year::of(shard, sources, at, &reports[at]).map_err(failed)?;
        let until = year.kept_until();
        let shelf = target.shelf(until)?;
        if let Some(record) = year.recorded(&*shelf).map_err(failed)? {
            outcomes.push(Outcome::There(record));
        } else if until <= now {
            outcomes.push(Outcome::HadItsTime { shard });
        } else if dry_run {
            outcomes.push(Outcome::WouldBeCopied { shard, entries: reports[at].size, until });
        } else {
            new.push((year, shelf));
        }
    }
    let (files, entries) = (files_bar(is_json), progress_bar(is_json));
    let records = archive(&new, options, now, &|step| advance((&files, &entries), step)).map_err(failed)?;
    entries.finish_and_clear();
    outcomes.extend(records.into_iter().map(Outcome::Copied));
    Ok(outcomes)
}

/// Nothing is copied for years that is not what was signed.
fn sound(reports: &[Report]) -> Result<(), Error> {
    let bad = reports.iter().find_map(|report| Some((report, report.first_bad()?)));
    bad.map_or(Ok(()), |(report, finding)| {
        Err(Error::Broken {
            what: "the log is not what was signed, so nothing was copied".to_owned(),
            why: printable(&format!("{}: {finding}", report.origin)).into_owned(),
            advice: "run `fte audit verify` on it, and keep these files as they are".to_owned(),
        })
    })
}

/// The years that have ended, with their places among the reports: those that another follows, and that are there. One that is not whole is not passed over.
fn ended(reports: &[Report], asked: Option<u16>) -> Result<Vec<(u16, usize)>, Error> {
    let year = |report: &Report| report.origin.rsplit_once('/').and_then(|(_, year)| year.parse::<u16>().ok());
    let before_last = &reports[..reports.len().saturating_sub(1)];
    let mut ended = Vec::new();
    for (at, report) in before_last.iter().enumerate().filter(|(_, report)| report.retired.is_none()) {
        let Some(shard) = year(report).filter(|shard| asked.is_none_or(|asked| asked == *shard)) else { continue };
        if let Some(finding) = report.findings.first().filter(|_| report.entries.good != report.size || report.size == 0) {
            return Err(Error::Incomplete {
                what: printable(&format!("{shard} is not whole, so nothing was copied: {finding}")).into_owned(),
                advice: "put back what is missing from a backup, or name another year with --shard".to_owned(),
            });
        }
        if report.size > 0 {
            ended.push((shard, at));
        }
    }
    match asked {
        Some(asked) if ended.is_empty() => {
            let why = match reports.iter().find(|report| year(report) == Some(asked)) {
                None => "is not in the log",
                Some(report) if report.retired.is_some() => "is retired",
                Some(_) => "has not ended: it is the one that is written, or the last that was",
            };
            Err(Error::usage(format!("{asked} {why}"), "`fte audit verify DIR --json` shows which years there are"))
        }
        _ => Ok(ended),
    }
}

fn files_bar(is_json: bool) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {human_pos}/{human_len} files, {per_sec}, {eta} left");
    progress_bar(is_json).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn advance((files, entries): (&ProgressBar, &ProgressBar), step: Step) {
    match step {
        Step::Copied { shard, done, all } => {
            files.set_message(format!("{shard} is copied"));
            files.set_length(all);
            files.set_position(done);
        }
        Step::Verified(progress) => {
            files.finish_and_clear();
            show(entries, progress);
        }
    }
}

fn failed(error: ArchiveError) -> Error {
    let why = chain(&error).to_string();
    match error {
        ArchiveError::Differs { .. } | ArchiveError::Bad { .. } | ArchiveError::Record { .. } => Error::Broken {
            what: "the copy is not what the log is".to_owned(),
            why,
            advice: "nothing was changed in it: look at both with `fte audit verify`, or copy to another place".to_owned(),
        },
        ArchiveError::NotKept { .. } | ArchiveError::Replaces { .. } => Error::Broken {
            what: "the place does not keep what it is given, and the copy is not whole".to_owned(),
            why,
            advice: "use a bucket that was made with Object Lock, or --lock none to rely on what the bucket says".to_owned(),
        },
        ArchiveError::Shelf { .. } => Error::Unavailable(format!("the copy is not whole, and the next run goes on with it: {why}")),
        ArchiveError::Unverifiable(error) => unverifiable(error),
        ArchiveError::Read { .. } | ArchiveError::Absent { .. } | ArchiveError::LastEntry { .. } => Error::Failed(why),
    }
}
