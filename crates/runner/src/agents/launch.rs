//! How a program is started: behind the walls that its agent asks for.
//!
//! In a sandbox ([`fte_sandbox`]) it sees the system's programs, the files that its command names, what `read` lists, and its workspace. With `sandbox = "none"` it
//! gets its own workspace and a short environment and nothing more: it can read what the runner's user can read.

use std::io;
use std::path::{Path, PathBuf};

use fte_events::Runtime;
use fte_sandbox::view::Network as Reach;
use fte_sandbox::{Cell, Holds, Plan, Sandboxes};
use fte_service::agents::Agent;
use fte_service::agents::sandbox::{Network, Walls};
use tokio::process::Command;

use super::proxy::{self, Awaited};

/// What shall run.
#[derive(Debug)]
pub(super) struct Launch<'a> {
    /// Whose program it is, with its limits.
    pub(super) agent: &'a Agent,
    /// The program and its arguments.
    pub(super) command: &'a [String],
    /// Its environment, all of it but what belongs to the workspace.
    pub(super) env: &'a [(String, String)],
    /// What it is shown besides what all see.
    pub(super) shown: &'a [PathBuf],
    /// Its own directory.
    pub(super) workspace: &'a Path,
}

/// A command that is ready to be spawned. Pipes and the process group are the caller's matter.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) command: Command,
    /// What has to be written to its standard input before all else.
    pub(super) first: Vec<u8>,
    /// Its control groups, which it enters once it is spawned, and is held by as long as it runs.
    pub(super) cell: Option<Cell>,
    /// Whether the program runs inside of what is spawned.
    pub(super) inside: bool,
    /// Its way to the hosts that it may reach.
    pub(super) way_out: Option<Awaited>,
}

/// Prepares programs for being spawned.
#[derive(Debug, Default)]
pub struct Launcher {
    sandboxes: Option<Sandboxes>,
    /// Where sandboxes hand over their ways out.
    ways_out: PathBuf,
}

impl Launcher {
    /// Starts programs behind walls where their agents ask for it; without sandboxes, that is an error for those.
    /// `directory` is for what is needed meanwhile.
    pub fn new(sandboxes: Option<Sandboxes>, directory: &Path) -> Self {
        Self { sandboxes, ways_out: directory.join("ways-out") }
    }

    /// Removes what a killed predecessor left.
    pub(super) fn sweep(&self) -> io::Result<()> {
        match std::fs::remove_dir_all(&self.ways_out) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            swept => swept,
        }
    }

    /// What holds on this machine, where somebody asked for it.
    pub fn holds(&self) -> Option<&Holds> {
        self.sandboxes.as_ref().map(Sandboxes::holds)
    }

    /// What the sandboxes of programs are made of.
    pub(super) fn runtime(&self) -> Runtime {
        Runtime::Process
    }

    /// The files that an agent's program is shown: those that its command names, and what it may read besides. What is not there is passed over: it may be
    /// installed later. Taken from the configuration alone; the words of a task name no files.
    pub(super) fn shown(&self, agent: &Agent, command: &[String], beside: Option<&Path>) -> Vec<PathBuf> {
        let mut shown = Vec::new();
        let Some(sandboxes) = &self.sandboxes else { return shown };
        let named = command.iter().skip(1).map(PathBuf::from).filter(|path| path.is_absolute() && path.is_file());
        let read = agent.sandbox.read.iter().map(|path| beside.map_or_else(|| path.clone(), |beside| beside.join(path)));
        for path in named.chain(read) {
            // A name that leads nowhere is not shown.
            drop(show(&mut shown, sandboxes, &path));
        }
        shown
    }

    /// The command that runs it.
    pub(super) fn prepare(&self, launch: &Launch<'_>) -> io::Result<Prepared> {
        let (program, arguments) = launch.command.split_first().ok_or_else(|| io::Error::other("no program is named"))?;
        let workspace = launch.workspace.to_string_lossy().into_owned();
        let own = ["HOME", "TMPDIR"].map(|name| (name.to_owned(), workspace.clone()));
        let mut env: Vec<(String, String)> = launch.env.iter().cloned().chain(own).collect();
        let sandbox = &launch.agent.sandbox;
        if sandbox.walls == Walls::None {
            let mut command = Command::new(find(program, path(launch.env))?);
            command.args(arguments).current_dir(launch.workspace).env_clear().envs(env);
            return Ok(Prepared { command, first: Vec::new(), cell: None, inside: false, way_out: None });
        }
        let sandboxes =
            self.sandboxes.as_ref().ok_or_else(|| io::Error::new(io::ErrorKind::Unsupported, "this runner makes no sandboxes"))?;
        let mut readable = launch.shown.to_vec();
        // Of two programs of one name the one counts that can be seen inside: the other is often but a way to it, through files that cannot.
        let seen = seen(path(launch.env), sandboxes, &readable);
        let program = find(program, &seen).or_else(|_| find(program, path(launch.env)))?;
        env.iter_mut().filter(|(name, _)| name == "PATH").for_each(|(_, path)| path.clone_from(&seen));
        show(&mut readable, sandboxes, &program)?;
        let limits = fte_sandbox::Limits {
            memory_bytes: sandbox.memory_bytes,
            processes: sandbox.processes.into(),
            file_bytes: sandbox.file_bytes.min(sandbox.disk_bytes),
            open_files: sandbox.open_files.into(),
            cpu_milli: sandbox.cpu_milli,
            cpu_seconds: cpu_seconds(launch.agent),
        };
        let way_out = match &sandbox.network {
            Network::Allowed(hosts) => {
                env.extend(proxy::variables(hosts));
                Some(Awaited::new(&self.ways_out)?)
            }
            Network::None | Network::Host => None,
        };
        let network = match (&sandbox.network, &way_out) {
            (Network::Host, _) => Reach::Host,
            (_, Some(awaited)) => Reach::WayOut(awaited.socket()),
            (_, None) => Reach::None,
        };
        let plan =
            Plan { workspace: launch.workspace, program: &program, arguments, env: &env, readable: &readable, limits: &limits, network };
        let fte_sandbox::Prepared { command, spec, cell } = sandboxes.prepare(&plan)?;
        Ok(Prepared { command: command.into(), first: spec, cell, inside: true, way_out })
    }
}

/// Shows a file under its own name, and under the one it has behind its links: programs look for what belongs to them beside either.
fn show(readable: &mut Vec<PathBuf>, sandboxes: &Sandboxes, path: &Path) -> io::Result<()> {
    let absolute = std::path::absolute(path)?;
    for path in [absolute.canonicalize()?, absolute] {
        if !sandboxes.shows(&path) && !readable.contains(&path) {
            readable.push(path);
        }
    }
    Ok(())
}

/// The directories of a search path that can be seen inside.
fn seen(path: &str, sandboxes: &Sandboxes, readable: &[PathBuf]) -> String {
    let is_seen = |directory: &PathBuf| sandboxes.shows(directory) || readable.iter().any(|shown| directory.starts_with(shown));
    let seen = std::env::join_paths(std::env::split_paths(path).filter(is_seen)).unwrap_or_default();
    seen.to_string_lossy().into_owned()
}

/// No process can use more than all processors for as long as an attempt takes.
fn cpu_seconds(agent: &Agent) -> u64 {
    let processors = std::thread::available_parallelism().map_or(1, |processors| processors.get() as u64);
    agent.timeout.as_secs().saturating_add(1).saturating_mul(processors)
}

/// Where programs are looked for in this environment.
pub(super) fn path(env: &[(String, String)]) -> &str {
    env.iter().find(|(name, _)| name == "PATH").map_or("", |(_, path)| path.as_str())
}

/// The program by its path: named with its path, starting one does not have to copy the runner's memory map first, and what is missing is said by name.
pub(super) fn find(program: &str, path: &str) -> io::Result<PathBuf> {
    if program.contains('/') {
        return Ok(PathBuf::from(program));
    }
    let found = std::env::split_paths(path).map(|directory| directory.join(program)).find(|candidate| candidate.is_file());
    found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("{program} is in none of the directories of PATH={path}")))
}
