//! The verbs on the audit log.

mod entry;
mod export;
mod list;
mod prove;
mod task;
mod verify;
mod witness;

use clap::{Args, Subcommand};

use crate::client::Client;
use crate::error::Error;
use crate::output::Output;

#[derive(Debug, Args)]
pub(crate) struct Audit {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List entries in the order of the log
    List(list::List),
    /// Show a task's whole history, and whether it is complete
    Task(task::History),
    /// Check a log against its signatures: that nothing was changed or removed
    Verify(Box<verify::Verify>),
    /// Write the proof that an entry is in the log, for anyone to check
    Prove(prove::Prove),
    /// Write evidence: entries with their proofs, for people and for programs
    Export(export::Export),
    /// Countersign the checkpoints of logs, so that none of them can show two histories
    Witness(witness::Witness),
}

impl Audit {
    pub(crate) async fn run(self, client: Client, output: Output) -> Result<(), Error> {
        match self.verb {
            Verb::List(verb) => verb.run(client, output).await,
            Verb::Task(verb) => verb.run(client, output).await,
            Verb::Verify(verb) => verb.run(client, output).await,
            Verb::Prove(verb) => verb.run(client, output).await,
            Verb::Export(verb) => verb.run(client, output).await,
            Verb::Witness(verb) => verb.run(output).await,
        }
    }
}
