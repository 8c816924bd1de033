//! The commands and what all of them understand. Each verb's arguments stand with the verb.

use clap::{Args, Parser, Subcommand};

use crate::client::{Client, Target};
use crate::error::Error;
use crate::output::Output;
use crate::{audit, bench, dead_letters, doctor, serve, sidecar, task, topics, up};

/// The backbone for digital full-time employees: tasks in, one result each, every step on record.
#[derive(Debug, Parser)]
#[command(name = "fte", version, propagate_version = true, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Exit codes: 0 ok, 1 failed, 2 usage or configuration, 3 not found, 4 refused, 5 unavailable, 6 incomplete.";

/// What every command understands.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// Print data as JSON
    #[arg(long, global = true)]
    json: bool,
    /// The instance to talk to
    #[arg(long, global = true, env = "FTE_URL", hide_env_values = true, default_value = "http://127.0.0.1:8080", value_name = "URL")]
    url: String,
    /// Key sent as `Authorization: Bearer`
    #[arg(long, global = true, env = "FTE_API_KEY", hide_env_values = true, value_name = "KEY")]
    api_key: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything in this process: all services on an embedded sidecar
    Up(up::Up),
    /// Run one service beside a Dapr sidecar
    Serve(serve::Serve),
    /// Give an agent a task
    Submit(task::submit::Submit),
    /// Follow a task live until it ends
    Watch(task::watch::Watch),
    /// List tasks, newest first
    Tasks(task::list::List),
    /// Decide on a task that awaits approval
    Approve(task::approve::Approve),
    /// Call a task off
    Cancel(task::cancel::Cancel),
    /// Events that no service could handle
    #[command(subcommand)]
    DeadLetters(dead_letters::DeadLetters),
    /// The record of everything that happened
    #[command(subcommand)]
    Audit(audit::Audit),
    /// The topics, as a table or as what creates them
    Topics(topics::Topics),
    /// Check an instance and its sidecar, and say what to do
    Doctor(doctor::Doctor),
    /// Put load on an instance and check that every task has one result
    Bench(Box<bench::Bench>),
    /// Run the embedded sidecar alone, beside any apps
    Sidecar(sidecar::Sidecar),
}

impl Cli {
    pub(crate) fn output(&self) -> Output {
        Output { json: self.global.json }
    }

    pub(crate) fn run(self) -> Result<(), Error> {
        let output = self.output();
        let target = || Target::new(&self.global.url, self.global.api_key.as_deref());
        match self.command {
            Command::Topics(topics) => topics.run(output),
            Command::Up(up) => up.run(output),
            Command::Serve(serve) => serve.run(output),
            Command::Sidecar(sidecar) => sidecar.run(output),
            Command::Bench(bench) => bench.run(target()?, output),
            Command::Doctor(doctor) => alone(doctor.run(Client::new(target()?), output)),
            Command::Submit(submit) => alone(submit.run(Client::new(target()?), output)),
            Command::Watch(watch) => alone(watch.run(Client::new(target()?), output)),
            Command::Tasks(list) => alone(list.run(Client::new(target()?), output)),
            Command::Approve(approve) => alone(approve.run(Client::new(target()?), output)),
            Command::Cancel(cancel) => alone(cancel.run(Client::new(target()?), output)),
            Command::DeadLetters(verb) => alone(verb.run(Client::new(target()?), output)),
            Command::Audit(verb) => alone(verb.run(Client::new(target()?), output)),
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
