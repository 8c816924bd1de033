//! The verbs on the audit log.

mod entry;
mod erase;
mod export;
mod hold;
mod list;
mod prove;
mod reindex;
mod rewrap;
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
    /// Make what is on record of somebody unreadable, and have all services forget them
    Erase(erase::Erase),
    /// Legal holds: what must not be erased
    Hold(hold::Holds),
    /// Wrap the keys of personal data with a new master key, while the service is stopped
    Rewrap(rewrap::Rewrap),
    /// Check a log against its signatures: that nothing was changed or removed
    Verify(Box<verify::Verify>),
    /// Write the proof that an entry is in the log, for anyone to check
    Prove(prove::Prove),
    /// Write evidence: entries with their proofs, for people and for programs
    Export(export::Export),
    /// Make the index of a stopped log again from its entries
    Reindex(reindex::Reindex),
    /// Countersign the checkpoints of logs, so that none of them can show two histories
    Witness(witness::Witness),
}

impl Audit {
    pub(crate) async fn run(self, client: Client, output: Output) -> Result<(), Error> {
        match self.verb {
            Verb::List(verb) => verb.run(client, output).await,
            Verb::Task(verb) => verb.run(client, output).await,
            Verb::Erase(verb) => verb.run(client, output).await,
            Verb::Hold(verb) => verb.run(client, output).await,
            Verb::Rewrap(verb) => verb.run(output),
            Verb::Verify(verb) => verb.run(client, output).await,
            Verb::Prove(verb) => verb.run(client, output).await,
            Verb::Export(verb) => verb.run(client, output).await,
            Verb::Reindex(verb) => verb.run(output).await,
            Verb::Witness(verb) => verb.run(output).await,
        }
    }
}
