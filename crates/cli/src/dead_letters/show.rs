//! `fte dead-letters show`: one letter, whole.

use clap::Args;
use serde_json::Value;

use super::path;
use crate::client::Client;
use crate::error::Error;
use crate::output::{Output, printable};

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// The letter's id
    id: String,
}

impl Show {
    pub(crate) async fn run(self, client: Client, output: Output) -> Result<(), Error> {
        let answer = client.get(&path(&self.id, "")).await?;
        if output.json {
            return output.answer(&answer.body);
        }
        let letter: Value = answer.json()?;
        output.line(printable(&serde_json::to_string_pretty(&letter).unwrap_or_default()))
    }
}
