//! How a program is started: the seam for isolation. A [`Launcher`] turns what shall run into a command that is ready to be spawned.
//!
//! [`PlainProcess`] gives it its own workspace and a short environment and nothing more: it can read what the runner's user can read. What holds an agent
//! that must not be trusted (namespaces, limits) is another launcher.

use std::io;
use std::path::{Path, PathBuf};

use fte_events::Runtime;
use fte_service::agents::Agent;
use tokio::process::Command;

/// What shall run.
#[derive(Debug)]
pub struct Launch<'a> {
    /// Whose program it is, with its limits.
    pub agent: &'a Agent,
    /// The program and its arguments.
    pub command: &'a [String],
    /// Its environment, all of it but what belongs to the workspace.
    pub env: &'a [(String, String)],
    /// Its own directory.
    pub workspace: &'a Path,
}

/// Prepares programs for being spawned. Pipes and the process group are the caller's matter.
pub trait Launcher: Send + Sync {
    /// What a sandbox of this launcher is made of.
    fn runtime(&self) -> Runtime;
    /// The command that runs it.
    fn command(&self, launch: &Launch<'_>) -> io::Result<Command>;
}

/// A process like any other, in its own directory.
#[derive(Clone, Copy, Debug, Default)]
pub struct PlainProcess;

impl Launcher for PlainProcess {
    fn runtime(&self) -> Runtime {
        Runtime::Process
    }

    fn command(&self, launch: &Launch<'_>) -> io::Result<Command> {
        let (program, arguments) = launch.command.split_first().ok_or_else(|| io::Error::other("no program is named"))?;
        let mut command = Command::new(find(program, path(launch.env))?);
        command.args(arguments).current_dir(launch.workspace).env_clear().envs(launch.env.iter().map(|(name, value)| (name, value)));
        command.env("HOME", launch.workspace).env("TMPDIR", launch.workspace);
        Ok(command)
    }
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
