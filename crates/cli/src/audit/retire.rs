//! `fte audit retire`: removes years of the log that have had their time, with the audit service stopped. What the log says of them stays.

use std::path::PathBuf;

use clap::Args;
use fte_audit::retention::{Due, Options, Plan, RetireError, Why, plan, retire};
use fte_service::chain;
use jiff::Timestamp;
use serde_json::json;

use super::data::{self, Data};
use crate::error::Error;
use crate::input::logged_in;
use crate::output::Output;

const AFTER_HELP: &str = "\
A year is retired whole, at the earliest seven years (2557 days) after its last entry; the oldest first; never the one that is written, and never what a legal
hold covers. The log has an entry of it before anything is removed. A command that is cut off is carried on by the next one; the service removes nothing.
Verify the log before: what a year was is not shown by anything but its final checkpoint after that.
The log's key signs what is put on record: where it is in a secret store, write it to a file and name that with --key.";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Retire {
    #[command(flatten)]
    data: Data,
    /// This year alone, which must be the oldest. By default all that have had their time
    #[arg(long, value_name = "YEAR")]
    shard: Option<u16>,
    /// Say what would be retired, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Who retires it, for the log [default: who is logged in]
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// The file of the log's key, where it is not in the data directory
    #[arg(long, value_name = "FILE", env = "FTE_AUDIT_KEY_FILE", hide_env_values = true)]
    key: Option<PathBuf>,
    /// The file of the key that is to follow it, where it is not in the data directory
    #[arg(long, value_name = "FILE", env = "FTE_AUDIT_NEXT_KEY_FILE", hide_env_values = true)]
    next_key: Option<PathBuf>,
    /// The file of the master key of personal data, where it is not in the data directory
    #[arg(long, value_name = "FILE", env = "FTE_AUDIT_MASTER_KEY_FILE", hide_env_values = true)]
    master_key: Option<PathBuf>,
}

impl Retire {
    pub(crate) async fn run(self, output: Output) -> Result<(), Error> {
        let directory = self.data.log()?;
        let Self { shard, dry_run, by, key, next_key, master_key, .. } = self;
        let by = match by.or_else(logged_in) {
            Some(by) => by,
            // It would write nothing.
            None if dry_run => String::new(),
            None => {
                let what = "the log has to say who retires it, and nobody is logged in: neither USER nor LOGNAME is set";
                return Err(Error::usage(what, "name who does it with --by"));
            }
        };
        let options = Options { key, next_key, master_key, shard, ..Options::at(directory, by) };
        // Reading and removing a year takes its time.
        let working = tokio::task::spawn_blocking(move || if dry_run { plan(&options) } else { retire(&options) });
        let done = working.await.map_err(|error| Error::Failed(format!("the work on the log ended: {error}")))?;
        tell(&done.map_err(failed)?, dry_run, output)
    }
}

fn tell(Plan { due, kept, is_unfinished, .. }: &Plan, dry_run: bool, output: Output) -> Result<(), Error> {
    let time = |ms: i64| fte_bus::time::text(Timestamp::from_millisecond(ms).unwrap_or_default());
    if output.json {
        let shards: Vec<_> = due
            .iter()
            .map(|due| json!({"shard": due.shard, "entries": due.entries, "last_logged_at": time(due.last_ms), "checkpoint": due.checkpoint}))
            .collect();
        let kept = kept.as_ref().map(|(shard, why)| json!({"shard": shard, "why": why.to_string()}));
        return output.json_line(&json!({"retired": shards, "dry_run": dry_run, "kept": kept}));
    }
    let word = if dry_run { "would be retired" } else { "is retired" };
    for Due { shard, entries, last_ms, .. } in due {
        output.line(format!("{shard} {word}: {entries} entries, the last of them of {}", time(*last_ms)))?;
    }
    if due.is_empty() {
        output.line("nothing is to be retired")?;
    }
    if *is_unfinished {
        output.note(if dry_run {
            "what was retired before is still there in part, and would be removed"
        } else {
            "what was retired before is removed"
        });
    }
    if let Some((shard, why)) = kept {
        output.note(format!("{shard} is kept: {why}"));
    }
    if !due.is_empty() && !dry_run {
        output.note("their final checkpoints stay. Backups and what was exported are copies that FTE does not know of");
    }
    Ok(())
}

fn failed(error: RetireError) -> Error {
    match &error {
        RetireError::Kept { why: Why::Held(_), .. } => Error::Broken {
            what: "nothing was retired".to_owned(),
            why: chain(&error).to_string(),
            advice: "see `fte audit hold list`".to_owned(),
        },
        RetireError::Kept { .. } | RetireError::Absent { .. } => Error::usage(error.to_string(), "see docs/audit.md, Retention"),
        _ => data::failed(&error),
    }
}
