//! `fte audit export`: evidence that the instance makes and records, in a directory.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use fte_audit::export::{Checked, ExportError, unpack};
use fte_events::TaskId;
use fte_tlog::Policy;
use http::StatusCode;
use http::header::{HeaderName, HeaderValue};
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::prove::unproven;
use super::verify::evidence;
use super::verify::keys;
use crate::client::{CALL_TIMEOUT, Client};
use crate::error::Error;
use crate::input;
use crate::output::Output;

/// How long an export may take to be made.
const MAKING_MAX: Duration = Duration::from_secs(3600);
const COME_AGAIN: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub(crate) struct Export {
    #[command(flatten)]
    filters: Filters,
    #[command(flatten)]
    keys: keys::Named,
    /// The directory to make; with one in it for each year where the entries are of several
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

#[derive(Debug, Args, Serialize)]
#[group(required = true, multiple = true)]
struct Filters {
    /// The entries of this task
    #[arg(long = "task", value_name = "ID", value_parser = input::task_id)]
    #[serde(skip_serializing_if = "Option::is_none")]
    task_id: Option<TaskId>,
    /// Of this agent
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<String>,
    /// Of this action or type of event
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<String>,
    /// By this actor or requester
    #[arg(long, value_name = "ID")]
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<String>,
    /// `success`, `failure` or `denied`
    #[arg(long, value_name = "OUTCOME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<String>,
    /// Those logged from here on: RFC 3339, or a duration like 1h
    #[arg(long, value_name = "TIME", value_parser = input::time_ago)]
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<Timestamp>,
    /// Those logged before: RFC 3339, or a duration like 1h
    #[arg(long, value_name = "TIME", value_parser = input::time_ago)]
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<Timestamp>,
}

#[derive(Deserialize)]
struct Made {
    export_id: Uuid,
}

/// A year of it, for `--json`.
#[derive(Serialize)]
struct Placed<'a> {
    directory: String,
    origin: &'a str,
    entries: usize,
}

impl Export {
    pub(crate) async fn run(self, client: Client, output: Output) -> Result<(), Error> {
        let policy = self.keys.policy()?;
        if self.out.symlink_metadata().is_ok() {
            return Err(unproven(&ExportError::Exists { path: self.out }));
        }
        let id = self.make(&client).await?;
        // All beside its place, under a name that nobody has: what is not whole never stands there.
        let beside = Unfinished::beside(&self.out)?;
        let archive = beside.0.join("export.tar");
        fetch(&client, id, &archive).await?;
        let out = self.out.clone();
        let placed = tokio::task::spawn_blocking(move || place(&beside, &archive, &out, policy.as_ref()));
        let checked = placed.await.map_err(|error| Error::Failed(format!("the export ended: {error}")))??;
        let entries: usize = checked.iter().map(|(_, checked)| checked.manifest.entries).sum();
        let complete = checked.first().and_then(|(_, checked)| checked.manifest.complete);
        let shards = checked.iter().map(|(directory, Checked { manifest, .. })| Placed {
            directory: directory.display().to_string(),
            origin: &manifest.origin,
            entries: manifest.entries,
        });
        let shards: Vec<_> = shards.collect();
        if output.json {
            output.json_line(&json!({"export_id": id, "entries": entries, "complete": complete, "shards": shards}))?;
        } else {
            shards.iter().try_for_each(|it| output.line(format!("{}: {} entries of {}", it.directory, it.entries, it.origin)))?;
        }
        output.note(format!("the log has an entry of this export, {id}"));
        Ok(())
    }

    /// Asks for the export until it is made. A repeated request is the same export.
    async fn make(&self, client: &Client) -> Result<Uuid, Error> {
        let key = HeaderValue::from_str(&Uuid::new_v4().to_string()).map_err(|error| Error::Failed(error.to_string()))?;
        let headers = [(HeaderName::from_static("idempotency-key"), key)];
        let begun = Instant::now();
        loop {
            let answer = client.post("/v1/audit/exports", Some(&self.filters), &headers).await?;
            let Made { export_id } = answer.json()?;
            if answer.status != StatusCode::ACCEPTED {
                return Ok(export_id);
            }
            if begun.elapsed() > MAKING_MAX {
                return Err(Error::Unavailable(format!("the export {export_id} is not made after {} s", MAKING_MAX.as_secs())));
            }
            tokio::time::sleep(COME_AGAIN).await;
        }
    }
}

async fn fetch(client: &Client, id: Uuid, to: &Path) -> Result<(), Error> {
    let failed = |source| Error::Write { what: to.display().to_string(), source };
    let broken_off = || Error::Unavailable(format!("the export {id} broke off"));
    let mut body = client.open(&format!("/v1/audit/exports/{id}")).await?;
    let mut file = std::fs::File::create_new(to).map_err(failed)?;
    while let Some(frame) = tokio::time::timeout(CALL_TIMEOUT, body.frame()).await.map_err(|_| broken_off())? {
        let Ok(bytes) = frame.map_err(|_| broken_off())?.into_data() else { continue };
        file.write_all(&bytes).map_err(failed)?;
    }
    Ok(())
}

/// Unpacks it, checks it, and gives it its place.
fn place(beside: &Unfinished, archive: &Path, out: &Path, policy: Option<&Policy>) -> Result<Vec<(PathBuf, Checked)>, Error> {
    let failed = |source| Error::Write { what: out.display().to_string(), source };
    let unpacked = beside.0.join("unpacked");
    let file = std::fs::File::open(archive).map_err(failed)?;
    unpack(file, &unpacked).map_err(|error| unproven(&error))?;
    let found = evidence::folders(&unpacked).map_err(failed)?;
    let checked = evidence::check_all(&found, policy)?;
    // The folder that the archive has, or that of the only year.
    let whole = match &*found {
        [] => return Err(Error::Failed("the export has nothing in it".to_owned())),
        [one] => one.clone(),
        [first, ..] => first.parent().unwrap_or(first).to_owned(),
    };
    std::fs::rename(&whole, out).map_err(failed)?;
    let is_one = found.len() == 1;
    let year = |folder: &Path| folder.file_name().map_or_else(|| out.to_owned(), |year| out.join(year));
    Ok(found.iter().zip(checked).map(|(folder, checked)| (if is_one { out.to_owned() } else { year(folder) }, checked)).collect())
}

/// A directory for what is under way; it goes with what is left in it.
struct Unfinished(PathBuf);

impl Unfinished {
    fn beside(out: &Path) -> Result<Self, Error> {
        let this = Self(out.with_file_name(format!(".fte-{}", Uuid::new_v4().simple())));
        std::fs::create_dir_all(&this.0).map_err(|source| Error::Write { what: out.display().to_string(), source })?;
        Ok(this)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}
