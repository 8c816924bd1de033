//! `fte audit rewrap`: another master key, with the audit service stopped.

use std::path::PathBuf;

use clap::Args;
use fte_audit::subjects::{SubjectsOptions, rewrap};
use serde_json::json;

use super::data::{Data, failed};
use crate::error::Error;
use crate::output::Output;

#[derive(Debug, Args)]
pub(crate) struct Rewrap {
    #[command(flatten)]
    data: Data,
    /// The file of the master key, where it is not in the data directory
    #[arg(long, value_name = "FILE", env = "FTE_AUDIT_MASTER_KEY_FILE", hide_env_values = true)]
    master_key: Option<PathBuf>,
}

impl Rewrap {
    pub(crate) fn run(self, output: Output) -> Result<(), Error> {
        let directory = self.data.log()?.join("keys");
        if !directory.join("subjects.sqlite").exists() {
            return Err(Error::usage(format!("there are no keys in {}", directory.display()), "name the data directory with --data"));
        }
        let mut options = SubjectsOptions::at(directory);
        if let Some(path) = self.master_key {
            options.master_key = path;
        }
        let count = rewrap(options).map_err(|error| failed(&error))?;
        if output.json {
            output.json_line(&json!({"keys": count}))
        } else {
            output.line(format!("{count} keys wrapped with a new master key"))
        }
    }
}
