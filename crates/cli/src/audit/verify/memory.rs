//! The checkpoints that earlier verifications on this machine saw: what a log was once, it must go on from.
//!
//! A file for each origin, named by its digest, with the signed checkpoint as it was. It is replaced only by one that was proved to continue it.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::PathBuf;

use fte_audit::files::install;
use fte_audit::verify::Report;
use fte_service::{Env, ProcessEnv};
use sha2::{Digest, Sha256};

use crate::error::Error;

pub(super) struct Memory {
    directory: PathBuf,
}

impl Memory {
    /// In the given directory, else in the user's; none where there is none.
    pub(super) fn new(given: Option<PathBuf>) -> Option<Self> {
        let directory = given.or_else(|| {
            let variable = |name: &str| ProcessEnv.get(name).filter(|path| !path.is_empty()).map(PathBuf::from);
            let state = variable("XDG_STATE_HOME").or_else(|| Some(variable("HOME")?.join(".local/state")))?;
            Some(state.join("fte/checkpoints"))
        })?;
        Some(Self { directory })
    }

    /// Everything that is remembered.
    pub(super) fn all(&self) -> Result<Vec<Vec<u8>>, Error> {
        let unreadable = |error: io::Error| {
            let what = format!("what is remembered in {} cannot be read: {error}", self.directory.display());
            Error::usage(what, "mend that, name another directory with --memory, or use --no-memory")
        };
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(unreadable)?,
        };
        let mut notes = Vec::new();
        for entry in entries {
            let path = entry.map_err(unreadable)?.path();
            if path.extension().is_some_and(|kind| kind == "checkpoint") {
                notes.push(fs::read(&path).map_err(unreadable)?);
            }
        }
        Ok(notes)
    }

    /// Remembers a verified checkpoint in the place of the one that it continues.
    pub(super) fn remember(&self, report: &Report) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        let digest = Sha256::digest(&report.origin);
        let name = digest.iter().take(16).fold(String::new(), |mut name, byte| {
            let _ = write!(name, "{byte:02x}");
            name
        });
        install(&self.directory.join(format!("{name}.checkpoint")), report.checkpoint.as_bytes(), 0o644)
    }
}
