//! The commands and what all of them understand. Each verb's arguments stand with the verb.

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::client::{Client, Target};
use crate::error::Error;
use crate::hints::Hints;
use crate::output::Output;
use crate::{agents, audit, bench, completions, dead_letters, doctor, keys, serve, sidecar, task, topics, up};

/// The backbone for digital full-time employees: tasks in, one result each, every step on record.
#[derive(Debug, Parser)]
#[command(name = "fte", version, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    /// Print data as JSON, on one line
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
    /// What stood behind `--url`.
    #[arg(skip)]
    url: Option<String>,
}

const AFTER_HELP: &str = "\
With --json a command prints one object on one line, as the API answers it; a list is an object with `items`, and `next_cursor` where there is
more. `fte watch --json` prints an event a line. Times are RFC 3339, in UTC, with milliseconds. What is no data goes to standard error.

Exit codes: 0 ok, 1 failed, 2 usage or configuration, 3 not found, 4 refused, 5 unavailable, 6 incomplete.";

/// A command of an instance's client.
#[derive(Debug, Args)]
pub(crate) struct On<T: Args> {
    #[command(flatten)]
    pub(crate) verb: T,
    #[command(flatten)]
    pub(crate) instance: Instance,
}

/// Which instance, and who asks.
#[derive(Debug, Args)]
#[command(next_help_heading = "Instance")]
pub(crate) struct Instance {
    /// The instance to talk to
    #[arg(long, global = true, env = "FTE_URL", hide_env_values = true, default_value = "http://127.0.0.1:8080", value_name = "URL")]
    url: String,
    /// Key sent as `Authorization: Bearer`
    #[arg(long, global = true, env = "FTE_API_KEY", hide_env_values = true, value_name = "KEY")]
    api_key: Option<String>,
}

impl Instance {
    fn target(&self, hints: &Hints) -> Result<Target, Error> {
        Ok(Target::new(&self.url, self.api_key.as_deref())?.with_hints(hints.clone()))
    }

    pub(crate) fn client(&self, hints: &Hints) -> Result<Client, Error> {
        self.target(hints).map(Client::new)
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
    /// Print a task's result
    Result(On<task::result::Show>),
    /// List or fetch what a task made
    Artifacts(On<task::artifacts::Artifacts>),
    /// List tasks, newest first
    Tasks(On<task::list::List>),
    /// Decide on a task that awaits approval
    Approve(On<task::approve::Approve>),
    /// Answer what an agent handed to people
    Reply(On<task::reply::Reply>),
    /// Show what a task handed off, and how that goes
    Tree(On<task::tree::Tree>),
    /// Say something to a task that is under way
    Send(On<task::send::Send>),
    /// Call a task off
    Cancel(On<task::cancel::Cancel>),
    /// List the agents and how they are used
    Agents(On<agents::Agents>),
    /// Events that no service could handle
    DeadLetters(On<dead_letters::DeadLetters>),
    /// The record of everything that happened
    Audit(audit::Audit),
    /// The topics, as a table or as what creates them
    Topics(topics::Topics),
    /// Check an instance and its sidecar, and say what to do
    Doctor(On<doctor::Doctor>),
    /// Put load on an instance and check that every task has one result
    Bench(Box<On<bench::Bench>>),
    /// API keys: who may call
    Keys(keys::Keys),
    /// Print the completions of a shell
    Completions(completions::Completions),
}

impl Cli {
    /// Ends the process when it asks for help, or makes no sense.
    pub(crate) fn from_command_line() -> Self {
        let matches = Self::command().get_matches();
        match Self::from_arg_matches(&matches) {
            Ok(cli) => Self { url: given_url(&matches), ..cli },
            Err(error) => error.format(&mut Self::command()).exit(),
        }
    }

    pub(crate) fn hints(&self) -> Hints {
        Hints::new(self.url.clone())
    }

    pub(crate) fn output(&self) -> Output {
        Output { json: self.json }
    }

    pub(crate) fn run(self) -> Result<(), Error> {
        let (output, hints) = (self.output(), self.hints());
        match self.command {
            Command::Up(up) => up.run(output),
            Command::Serve(serve) => serve.run(output),
            Command::Sidecar(sidecar) => sidecar.run(output),
            Command::Submit(On { verb, instance }) => alone(verb.run(instance.client(&hints)?, output)),
            Command::Watch(On { verb, instance }) => alone(verb.run(instance.client(&hints)?, output)),
            Command::Result(On { verb, instance }) => alone(verb.run(instance.client(&hints)?, output)),
            Command::Artifacts(On { verb, instance }) => alone(verb.run(instance.client(&hints)?, output)),
            Command::Tasks(On { verb, instance }) => alone(verb.run(instance.client(&hints)?, output)),
            Command::Approve(On { verb, instance }) => alone(verb.run(instance.client(&hints)?, output)),
            Command::Reply(On { verb, instance }) => alone(verb.run(instance.client(&hints)?, output)),
            Command::Tree(On { verb, instance }) => alone(verb.run(instance.client(&hints)?, output)),
            Command::Send(On { verb, instance }) => alone(verb.run(instance.client(&hints)?, output)),
            Command::Cancel(On { verb, instance }) => alone(verb.run(instance.client(&hints)?, output)),
            Command::Agents(On { verb, instance }) => alone(verb.run(instance.client(&hints)?, output)),
            Command::DeadLetters(On { verb, instance }) => alone(verb.run(instance.client(&hints)?, output)),
            Command::Audit(audit) => alone(audit.run(&hints, output)),
            Command::Topics(topics) => topics.run(output),
            Command::Doctor(On { verb, instance }) => alone(verb.run(instance.client(&hints)?, output)),
            Command::Bench(on) => on.verb.run(on.instance.target(&hints)?, output),
            Command::Keys(keys) => keys.run(output),
            Command::Completions(completions) => completions.run(output),
        }
    }
}

/// The URL, where the command line names it and not the environment or the default.
fn given_url(matches: &ArgMatches) -> Option<String> {
    // An option for all commands is found with the innermost one, wherever it stood.
    if let Some((_, under)) = matches.subcommand() {
        return given_url(under);
    }
    let is_known = matches.ids().any(|id| id == "url");
    let is_given = is_known && matches.value_source("url") == Some(ValueSource::CommandLine);
    let url = is_given.then(|| matches.get_one::<String>("url")).flatten()?;
    Some(url.trim_end_matches('/').to_owned())
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
