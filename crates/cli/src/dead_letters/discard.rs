//! `fte dead-letters discard`: out of the way; the audit log keeps what happened.

use clap::Args;

use super::path;
use crate::client::Client;
use crate::error::Error;
use crate::output::{Output, printable};

#[derive(Debug, Args)]
pub(crate) struct Discard {
    /// The letter's id
    id: String,
}

impl Discard {
    pub(crate) async fn run(self, client: Client, output: Output) -> Result<(), Error> {
        let answer = client.post(&path(&self.id, "/discard"), None::<&()>, &[]).await?;
        if output.json { output.answer(&answer.body) } else { output.line(format!("{} is discarded", printable(&self.id))) }
    }
}
