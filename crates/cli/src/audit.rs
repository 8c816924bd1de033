//! The verbs on the audit log.

mod list;

use clap::Subcommand;

use crate::client::Client;
use crate::error::Error;
use crate::output::Output;

#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// List entries in the order of the log
    List(list::List),
}

impl Audit {
    pub(crate) async fn run(self, client: Client, output: Output) -> Result<(), Error> {
        match self {
            Self::List(verb) => verb.run(client, output).await,
        }
    }
}
