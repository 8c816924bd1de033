//! The verbs on dead letters: events that a service gave up on, each with its reason.

mod discard;
mod list;
mod replay;
mod show;

use clap::{Args, Subcommand};

use crate::client::{Client, escaped};
use crate::error::Error;
use crate::output::Output;

#[derive(Debug, Args)]
pub(crate) struct DeadLetters {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List them, newest first
    List(list::List),
    /// Show one with its event
    Show(show::Show),
    /// Publish its event again, for the service that gave up
    Replay(replay::Replay),
    /// Put it away; the record of it stays
    Discard(discard::Discard),
}

impl DeadLetters {
    pub(crate) async fn run(self, client: Client, output: Output) -> Result<(), Error> {
        match self.verb {
            Verb::List(verb) => verb.run(client, output).await,
            Verb::Show(verb) => verb.run(client, output).await,
            Verb::Replay(verb) => verb.run(client, output).await,
            Verb::Discard(verb) => verb.run(client, output).await,
        }
    }
}

fn path(id: &str, verb: &str) -> String {
    format!("/v1/dead-letters/{}{verb}", escaped(id))
}
