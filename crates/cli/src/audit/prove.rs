//! `fte audit prove`: an entry, its proof and the log's key, for a checker that knows nothing of FTE.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use fte_audit::export::{ExportError, Prover};
use fte_audit::keys::trust::policy_of;
use fte_service::chain;
use serde_json::json;

use super::verify::{http, keys, local};
use crate::client::Client;
use crate::error::Error;
use crate::output::Output;

const AFTER_HELP: &str = "\
It writes NAME.tlog-proof (C2SP tlog-proof), NAME.leaf (the entry's bytes in the log) and NAME.key (the log's public key) as in
  python3 examples/audit/check.py 2026-17.tlog-proof 2026-17.leaf 2026-17.key";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Prove {
    /// Which entry, as 2026/17
    #[arg(value_name = "SHARD/INDEX", value_parser = place)]
    entry: (u16, u64),
    /// Read the log in this data directory, instead of asking the instance
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    #[command(flatten)]
    keys: keys::Named,
    /// Where the files go
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
}

fn place(text: &str) -> Result<(u16, u64), String> {
    let parts = text.split_once(['/', '-']).and_then(|(shard, index)| Some((shard.parse().ok()?, index.parse().ok()?)));
    parts.ok_or_else(|| match text.parse::<u64>() {
        Ok(index) => format!("an index alone does not say of which year: write it like 2026/{index}; `fte audit list` shows both"),
        Err(_) => "expected the year and the index of an entry, as in 2026/17; `fte audit list` shows both".to_owned(),
    })
}

impl Prove {
    pub(crate) async fn run(self, client: Client, output: Output) -> Result<(), Error> {
        let (shard, index) = self.entry;
        let name = |kind: &str| self.out.join(format!("{shard}-{index}.{kind}"));
        // Before anything is written.
        if let Some(there) = ["tlog-proof", "leaf", "key"].map(name).into_iter().find(|path| path.exists()) {
            return Err(Error::usage(
                format!("{} is there already, and nothing is written over", there.display()),
                "remove it, or choose another directory with --out",
            ));
        }
        let found = match &self.data {
            Some(data) => local::shard(&data.to_string_lossy(), shard)?,
            None => local::Found { shards: vec![http::shard(&client, shard)], key_files: Vec::new(), index: None, is_whole: false },
        };
        let keys = keys::find(&self.keys, &found)?;
        // Reading blocks.
        let proven = tokio::task::spawn_blocking(move || {
            let source = found.shards.first().ok_or_else(|| ExportError::Absent { file: shard.to_string() })?;
            let mut prover = Prover::new(&**source, &keys.policy)?;
            let policy = policy_of(&keys.policy, prover.note().as_bytes());
            // One that has signed: the log may have had others.
            let key = policy.judge(prover.note().as_bytes()).ok().and_then(|judged| judged.logs.first().map(|key| (*key).clone()));
            Ok((prover.prove(index)?, key))
        });
        let proven = proven.await.map_err(|error| Error::Failed(format!("the prover ended: {error}")))?;
        let (proven, key) = proven.map_err(|error| match (&error, &self.data) {
            (ExportError::NotYet { size, .. }, Some(_)) => Error::Incomplete {
                what: format!("entry {shard}/{index} is in no signed checkpoint of this log: the last one has {size} entries"),
                advice: format!(
                    "an entry before {shard}/{size}; what came later is signed within a second while the instance runs, and at its next start otherwise"
                ),
            },
            _ => unproven(&error),
        })?;
        write_new(&name("tlog-proof"), proven.proof.to_string().as_bytes())?;
        write_new(&name("leaf"), &proven.leaf)?;
        if let Some(key) = key {
            write_new(&name("key"), format!("{key}\n").as_bytes())?;
        }
        let [proof, leaf, key] = ["tlog-proof", "leaf", "key"].map(|kind| name(kind).display().to_string());
        if output.json {
            return output.json_line(&json!({"proof": proof, "leaf": leaf, "key": key}));
        }
        output.line(format!("{proof}\n{leaf}\n{key}"))
    }
}

/// Nothing is written over.
fn write_new(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let write = || {
        fs::create_dir_all(path.parent().unwrap_or_else(|| Path::new(".")))?;
        File::create_new(path)?.write_all(bytes)
    };
    write().map_err(|source| Error::Write { what: path.display().to_string(), source })
}

/// Why there is no proof.
pub(super) fn unproven(error: &ExportError) -> Error {
    match error {
        ExportError::NotYet { .. } => {
            Error::Incomplete { what: error.to_string(), advice: "again in a second, when the log has signed".to_owned() }
        }
        ExportError::TooLarge | ExportError::Exists { .. } => Error::usage(error.to_string(), "ask for less, or for another directory"),
        ExportError::Absent { .. }
        | ExportError::Read { .. }
        | ExportError::Write { .. }
        | ExportError::Name { .. }
        | ExportError::Open(_)
        | ExportError::Outdated => Error::Failed(chain(error)),
        ExportError::Bad { .. } => Error::Broken {
            what: "the log does not prove this".to_owned(),
            why: chain(error),
            advice: "run `fte audit verify` on it".to_owned(),
        },
    }
}
