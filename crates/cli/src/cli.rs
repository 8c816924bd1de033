//! The commands and what all of them understand. Each verb's arguments stand with the verb.

use clap::{Args, Parser, Subcommand};

use crate::client::{Client, Target};
use crate::error::Error;
use crate::output::Output;
use crate::{audit, bench, dead_letters, doctor, serve, sidecar, task, topics, up};

/// The backbone for digital full-time employees: tasks in, one result each, every step on record.
#[derive(Debug, Parser)]
#[command(name = "fte", version, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    /// Print data as JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Exit codes: 0 ok, 1 failed, 2 usage or configuration, 3 not found, 4 refused, 5 unavailable, 6 incomplete.";

/// A command of an instance's client.
#[derive(Debug, Args)]
struct On<T: Args> {
    #[command(flatten)]
    verb: T,
    #[command(flatten)]
    instance: Instance,
}

/// Which instance, and who asks.
#[derive(Debug, Args)]
#[command(next_help_heading = "Instance")]
struct Instance {
    /// The instance to talk to
    #[arg(long, global = true, env = "FTE_URL", hide_env_values = true, default_value = "http://127.0.0.1:8080", value_name = "URL")]
    url: String,
    /// Key sent as `Authorization: Bearer`
    #[arg(long, global = true, env = "FTE_API_KEY", hide_env_values = true, value_name = "KEY")]
    api_key: Option<String>,
}

impl Instance {
    fn target(&self) -> Result<Target, Error> {
        Target::new(&self.url, self.api_key.as_deref())
    }

    fn client(&self) -> Result<Client, Error> {
        self.target().map(Client::new)
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything in this process: all services on an embedded sidecar
    Up(up::Up),
    /// Run one service beside a Dapr sidecar
    Serve(serve::Serve),
    /// Run the embedded sidecar alone, beside any apps
    Sidecar(sidecar::Sidecar),
    /// Give an agent a task
    Submit(On<task::submit::Submit>),
    /// Follow a task live until it ends
    Watch(On<task::watch::Watch>),
    /// List tasks, newest first
    Tasks(On<task::list::List>),
    /// Decide on a task that awaits approval
    Approve(On<task::approve::Approve>),
    /// Call a task off
    Cancel(On<task::cancel::Cancel>),
    /// Events that no service could handle
    DeadLetters(On<dead_letters::DeadLetters>),
    /// The record of everything that happened
    Audit(On<audit::Audit>),
    /// The topics, as a table or as what creates them
    Topics(topics::Topics),
    /// Check an instance and its sidecar, and say what to do
    Doctor(On<doctor::Doctor>),
    /// Put load on an instance and check that every task has one result
    Bench(Box<On<bench::Bench>>),
}

impl Cli {
    pub(crate) fn output(&self) -> Output {
        Output { json: self.json }
    }

    pub(crate) fn run(self) -> Result<(), Error> {
        let output = self.output();
        match self.command {
            Command::Up(up) => up.run(output),
            Command::Serve(serve) => serve.run(output),
            Command::Sidecar(sidecar) => sidecar.run(output),
            Command::Submit(On { verb, instance }) => alone(verb.run(instance.client()?, output)),
            Command::Watch(On { verb, instance }) => alone(verb.run(instance.client()?, output)),
            Command::Tasks(On { verb, instance }) => alone(verb.run(instance.client()?, output)),
            Command::Approve(On { verb, instance }) => alone(verb.run(instance.client()?, output)),
            Command::Cancel(On { verb, instance }) => alone(verb.run(instance.client()?, output)),
            Command::DeadLetters(On { verb, instance }) => alone(verb.run(instance.client()?, output)),
            Command::Audit(On { verb, instance }) => alone(verb.run(instance.client()?, output)),
            Command::Topics(topics) => topics.run(output),
            Command::Doctor(On { verb, instance }) => alone(verb.run(instance.client()?, output)),
            Command::Bench(on) => on.verb.run(on.instance.target()?, output),
        }
    }
}

/// Runs a client's command: one thread is enough for it, and starts faster.
fn alone(command: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::Failed(format!("the async runtime does not start: {error}")))?;
    runtime.block_on(command)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        super::Cli::command().debug_assert();
    }
}
