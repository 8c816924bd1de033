//! The verbs on the audit log: some ask an instance, and some work on the files of one that is stopped.

mod archive;
mod data;
mod entry;
mod erase;
mod export;
mod hold;
mod list;
mod prove;
mod reindex;
mod retire;
mod rewrap;
mod rotate_key;
mod task;
mod verify;
mod witness;

use clap::{Args, Subcommand};

use crate::cli::On;
use crate::error::Error;
use crate::hints::Hints;
use crate::output::Output;

#[derive(Debug, Args)]
pub(crate) struct Audit {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List entries in the order of the log
    List(On<list::List>),
    /// Show a task's whole history, and whether it is complete
    Task(On<task::History>),
    /// Make what is on record of somebody unreadable, and have all services forget them
    Erase(On<erase::Erase>),
    /// Legal holds: what must not be erased
    Hold(On<hold::Holds>),
    /// Wrap the keys of personal data with a new master key, while the service is stopped
    Rewrap(rewrap::Rewrap),
    /// Change the key that signs the log, while the service is stopped
    RotateKey(rotate_key::RotateKey),
    /// Check a log against its signatures: that nothing was changed or removed
    Verify(Box<On<verify::Verify>>),
    /// Write the proof that an entry is in the log, for anyone to check
    Prove(On<prove::Prove>),
    /// Have evidence made, which the log records: entries with their proofs, for people and for programs
    Export(On<export::Export>),
    /// Make the index of a stopped log again from its entries
    Reindex(reindex::Reindex),
    /// Copy years that have ended to where nobody can change or remove them before their time
    Archive(archive::Archive),
    /// Remove years of a stopped log that have had their time, and keep what proves what they were
    Retire(retire::Retire),
    /// Countersign the checkpoints of logs, so that none of them can show two histories
    Witness(witness::Witness),
}

impl Audit {
    pub(crate) async fn run(self, hints: &Hints, output: Output) -> Result<(), Error> {
        match self.verb {
            Verb::List(On { verb, instance }) => verb.run(instance.client(hints)?, output).await,
            Verb::Task(On { verb, instance }) => verb.run(instance.client(hints)?, output).await,
            Verb::Erase(On { verb, instance }) => verb.run(instance.client(hints)?, output).await,
            Verb::Hold(On { verb, instance }) => verb.run(instance.client(hints)?, output).await,
            Verb::Rewrap(verb) => verb.run(output),
            Verb::RotateKey(verb) => verb.run(output),
            Verb::Verify(on) => on.verb.run(on.instance.client(hints)?, output).await,
            Verb::Prove(On { verb, instance }) => verb.run(instance.client(hints)?, output).await,
            Verb::Export(On { verb, instance }) => verb.run(instance.client(hints)?, output).await,
            Verb::Reindex(verb) => verb.run(output).await,
            Verb::Archive(verb) => verb.run(output).await,
            Verb::Retire(verb) => verb.run(output).await,
            Verb::Witness(verb) => verb.run(output).await,
        }
    }
}
