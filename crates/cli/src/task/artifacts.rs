//! `fte artifacts`: what a task made, listed or fetched.
//!
//! What is fetched gets its name only once all of it has come and has the digest that the list says: a file that is there is whole.

use std::io::{IsTerminal as _, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use fte_artifacts::Digest;
use fte_events::TaskId;
use http_body_util::BodyExt as _;
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::client::{Client, escaped};
use crate::error::Error;
use crate::input;
use crate::output::{Output, printable, stderr_is_terminal};

/// What takes a while is shown as it comes.
const LARGE_BYTES: u64 = 4 << 20;
/// Standard output.
const STDOUT: &str = "-";

#[derive(Debug, Args)]
pub(crate) struct Artifacts {
    /// The task's id
    #[arg(value_parser = input::task_id)]
    id: TaskId,
    /// Fetch the artifact of this name or SHA-256
    #[arg(value_name = "NAME")]
    wanted: Option<String>,
    /// Where to: a file, or - for standard output; default: the artifact's name, here
    #[arg(short, long, value_name = "FILE", requires = "wanted")]
    output: Option<PathBuf>,
    /// Overwrite a file that is there, or write to a terminal
    #[arg(long, requires = "wanted")]
    force: bool,
}

#[derive(Debug, Deserialize)]
struct List {
    items: Vec<Artifact>,
}

#[derive(Debug, Deserialize)]
struct Artifact {
    name: String,
    content_type: String,
    size_bytes: u64,
    sha256: String,
}

/// What was saved, for `--json`.
#[derive(Debug, Serialize)]
struct Saved<'a> {
    file: String,
    name: &'a str,
    content_type: &'a str,
    size_bytes: u64,
    sha256: &'a str,
}

impl Artifacts {
    pub(crate) async fn run(self, client: Client, output: Output) -> Result<(), Error> {
        let path = format!("/v1/tasks/{}/artifacts", self.id);
        let answer = client.get(&path).await?;
        let Some(wanted) = &self.wanted else {
            if output.json {
                return output.answer(&answer.body);
            }
            let list: List = answer.json()?;
            if list.items.is_empty() {
                output.note("no artifacts");
                return Ok(());
            }
            let row = |artifact: Artifact| [artifact.name, artifact.size_bytes.to_string(), artifact.content_type, artifact.sha256];
            return output.table(["NAME", "BYTES", "TYPE", "SHA256"], list.items.into_iter().map(row));
        };
        let list: List = answer.json()?;
        // As the route finds it: by digest, else the last one of that name.
        let found = list.items.iter().find(|artifact| artifact.sha256 == *wanted);
        let Some(artifact) = found.or_else(|| list.items.iter().find(|artifact| artifact.name == *wanted)) else {
            // It says what there is not, or has just got it.
            client.get(&format!("{path}/{}", escaped(wanted))).await?;
            return Err(Error::Incomplete { what: format!("{} was made just now", printable(wanted)), advice: "try again".to_owned() });
        };
        if self.output.as_deref() == Some(Path::new(STDOUT)) {
            if std::io::stdout().is_terminal() && !self.force {
                return Err(Error::usage(
                    "a terminal is no place for an artifact",
                    "send it to a file or a program, or name a file with -o; --force writes it all the same",
                ));
            }
            return fetch(&client, &path, artifact, &mut std::io::stdout().lock(), "standard output").await;
        }
        let target = self.target(artifact)?;
        save(&client, &path, artifact, &target, self.force).await?;
        let Artifact { name, content_type, size_bytes, sha256 } = artifact;
        let file = target.display().to_string();
        if output.json {
            output.json_line(&Saved { file, name, content_type, size_bytes: *size_bytes, sha256 })
        } else {
            output.line(printable(&file))
        }
    }

    /// The file to write: an artifact's own name leads nowhere but here.
    fn target(&self, artifact: &Artifact) -> Result<PathBuf, Error> {
        if let Some(output) = &self.output {
            return Ok(output.clone());
        }
        let is_plain = !artifact.name.contains(['/', '\\'])
            && !artifact.name.chars().any(char::is_control)
            && ![".", ".."].contains(&artifact.name.as_str());
        let name = Some(PathBuf::from(&artifact.name)).filter(|_| is_plain);
        name.ok_or_else(|| Error::usage(format!("{:?} cannot be the name of a file", artifact.name), "name one with -o"))
    }
}

/// Saves it under a name that nobody has, and then under its own.
async fn save(client: &Client, path: &str, artifact: &Artifact, target: &Path, force: bool) -> Result<(), Error> {
    let free = || match target.symlink_metadata() {
        Ok(_) if !force => {
            Err(Error::usage(format!("{} is there already", target.display()), "overwrite it with --force, or name another with -o"))
        }
        _ => Ok(()),
    };
    free()?;
    let failed = |source| Error::Write { what: target.display().to_string(), source };
    let unfinished = Unfinished(target.with_file_name(format!(".fte-{}", Uuid::new_v4().simple())));
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(&unfinished.0).map_err(failed)?;
    fetch(client, path, artifact, &mut file, &target.display().to_string()).await?;
    file.sync_all().map_err(failed)?;
    free()?;
    std::fs::rename(&unfinished.0, target).map_err(failed)
}

/// Removed unless it got its name.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        // After a rename there is nothing to remove.
        drop(std::fs::remove_file(&self.0));
    }
}

/// Writes the bytes as they come; succeeds only when they are those of the artifact.
async fn fetch(client: &Client, path: &str, artifact: &Artifact, to: &mut impl Write, what: &str) -> Result<(), Error> {
    let failed = |source: std::io::Error| Error::Write { what: what.to_owned(), source };
    let mut body = client.open(&format!("{path}/{}", artifact.sha256)).await?;
    let bar = bar(artifact);
    let (mut digest, mut size) = (Sha256::new(), 0);
    while let Some(frame) = tokio::time::timeout(crate::client::CALL_TIMEOUT, body.frame()).await.map_err(|_| broken_off(artifact, size))? {
        let Ok(bytes) = frame.map_err(|_| broken_off(artifact, size))?.into_data() else { continue };
        digest.update(&bytes);
        size += bytes.len() as u64;
        to.write_all(&bytes).map_err(failed)?;
        bar.inc(bytes.len() as u64);
    }
    to.flush().map_err(failed)?;
    bar.finish_and_clear();
    let found = Digest::new(digest.finalize().into()).to_string();
    if (size, found.as_str()) == (artifact.size_bytes, artifact.sha256.as_str()) {
        return Ok(());
    }
    Err(Error::Broken {
        what: format!("{} did not come as it was made", printable(&artifact.name)),
        why: format!("{size} bytes with the SHA-256 {found}, instead of {} with {}", artifact.size_bytes, artifact.sha256),
        advice: "what was written is not the artifact; try again, and look at the instance's log".to_owned(),
    })
}

fn broken_off(artifact: &Artifact, size: u64) -> Error {
    Error::Unavailable(format!("{} broke off after {size} of {} bytes", printable(&artifact.name), artifact.size_bytes))
}

fn bar(artifact: &Artifact) -> ProgressBar {
    if artifact.size_bytes < LARGE_BYTES || !stderr_is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    let bar = ProgressBar::new(artifact.size_bytes);
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar
}
