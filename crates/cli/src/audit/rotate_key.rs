//! `fte audit rotate-key`: another key for the log, with the audit service stopped. What is possible now is said, and what comes next.

use std::path::PathBuf;

use clap::Args;
use fte_audit::keys::rotation::{Begun, Finished, Places, RotationError, begin, finish};
use serde_json::json;

use super::data::{self, Data};
use crate::error::Error;
use crate::output::Output;

const AFTER_HELP: &str = "\
1. fte audit rotate-key             makes the next key; give its public half to witnesses and whoever verifies
2. start the service                the log announces the key, and both sign; stop it again
3. fte audit rotate-key --finish    the next key takes the place of the present one
A key in a secret store, or in a file that this command may not write, is changed by configuration instead: see docs/audit.md";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct RotateKey {
    #[command(flatten)]
    data: Data,
    /// Put the next key in the place of the present one, once both have signed
    #[arg(long)]
    finish: bool,
    /// The file of the present key, where it is not in the data directory
    #[arg(long, value_name = "FILE", env = "FTE_AUDIT_KEY_FILE", hide_env_values = true)]
    key: Option<PathBuf>,
    /// The file of the next key, where it is not to be in the data directory
    #[arg(long, value_name = "FILE", env = "FTE_AUDIT_NEXT_KEY_FILE", hide_env_values = true)]
    next_key: Option<PathBuf>,
}

impl RotateKey {
    pub(crate) fn run(self, output: Output) -> Result<(), Error> {
        let directory = self.data.log()?;
        let usual = Places::at(directory);
        let places = Places { key: self.key.unwrap_or(usual.key), next: self.next_key.unwrap_or(usual.next), directory: usual.directory };
        if self.finish {
            finish(&places).map_err(failed).and_then(|finished| tell_finished(&finished, output))
        } else {
            begin(&places).map_err(failed).and_then(|begun| tell_begun(&places, &begun, output))
        }
    }
}

fn tell_begun(places: &Places, Begun { next, is_old }: &Begun, output: Output) -> Result<(), Error> {
    if output.json {
        return output.json_line(&json!({"next_key": next.to_string(), "file": places.next, "made": !is_old}));
    }
    output.line(next.to_string())?;
    output.note(format!("{} has the next key{}", places.next.display(), if *is_old { ", which was made before" } else { "" }));
    output.note("keep a copy of it elsewhere; give this public key to witnesses and to whoever verifies the log, beside the present one");
    output.note("then start the service: the log announces the key, and both sign. Stop it, and end with `fte audit rotate-key --finish`");
    Ok(())
}

fn tell_finished(Finished { present, former }: &Finished, output: Output) -> Result<(), Error> {
    if output.json {
        return output.json_line(&json!({"key": present.to_string(), "former_key": former.as_ref().map(ToString::to_string)}));
    }
    output.line(present.to_string())?;
    match former {
        Some(former) => output.note(format!("the log is signed with this key from the next start on; {former} has signed until now")),
        None => output.note("the key was changed already: nothing is left to do"),
    }
    output.note("keep a copy of the key elsewhere, and destroy copies of the former one: keys/former.pub is what checks its signatures");
    Ok(())
}

fn failed(error: RotationError) -> Error {
    match error {
        RotationError::NotYet { .. } | RotationError::NothingBegun { .. } | RotationError::NothingSigned { .. } => {
            Error::usage(error.to_string(), "see docs/audit.md, Changing the log's key")
        }
        error => data::failed(&error),
    }
}
