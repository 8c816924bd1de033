//! Makes sandboxes: one command each, ready to be spawned.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, getuid};

use crate::cgroup::{Cell, Cgroups};
use crate::holds::{Holds, Missing};
use crate::limits::Limits;
use crate::spec::Spec;
use crate::view::{Network, STAGE, View};
use crate::{landlock, stage, way_out};

/// The oldest bubblewrap that keeps a sandbox from making namespaces.
const OLDEST: (u32, u32) = (0, 8);

/// The program that is the stage: one that calls [`stage::run_if_asked`] before anything else.
#[derive(Clone, Debug)]
pub struct Stage(pub PathBuf);

impl Stage {
    /// This very program.
    pub fn this_program() -> io::Result<Self> {
        std::env::current_exe().map(Self)
    }
}

/// What shall run, and what it may see and use.
#[derive(Debug)]
pub struct Plan<'a> {
    /// The only directory it may write to, besides `/tmp`. It has the same name inside.
    pub workspace: &'a Path,
    /// The program, by its whole path.
    pub program: &'a Path,
    /// Its arguments.
    pub arguments: &'a [String],
    /// Its environment, all of it.
    pub env: &'a [(String, String)],
    /// Files and directories that it is shown besides the system's; they have the same names inside.
    pub readable: &'a [PathBuf],
    /// What it may use.
    pub limits: &'a Limits,
    /// What it may reach.
    pub network: Network<'a>,
}

/// A sandbox that is ready to be spawned. Spawn the command as the leader of a process group, let its process [`Cell::enter`], then write the spec to its
/// standard input: nothing of the program runs before that.
#[derive(Debug)]
pub struct Prepared {
    /// The command.
    pub command: Command,
    /// What has to be written to its standard input before all else.
    pub spec: Vec<u8>,
    /// Its control groups, where there are any. To be kept as long as it runs.
    pub cell: Option<Cell>,
}

/// What makes sandboxes on this machine.
#[derive(Debug)]
pub struct Sandboxes {
    bubblewrap: PathBuf,
    view: View,
    cgroups: Option<Cgroups>,
    landlock: bool,
    holds: Holds,
}

impl Sandboxes {
    /// Finds out what this machine can hold, by making a sandbox. `directory` is for files of its own, `path` says where programs are looked for.
    ///
    /// That something is missing is no error: it stands in [`Sandboxes::holds`]. An error is that `directory` cannot be written.
    pub fn new(directory: &Path, stage: &Stage, path: &str) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let directory = &directory.canonicalize()?;
        let view = View::new(directory, &stage.0)?;
        let mut holds = Holds::default();
        let bubblewrap = find(path).unwrap_or_else(|reason| {
            holds.missing.push(Missing::Sandbox { reason });
            PathBuf::new()
        });
        let mut sandboxes = Self { bubblewrap, view, cgroups: None, landlock: landlock::is_there(), holds };
        if !sandboxes.landlock {
            sandboxes.holds.missing.push(Missing::Landlock);
        }
        if sandboxes.holds.missing.iter().any(|missing| matches!(missing, Missing::Sandbox { .. })) {
            return Ok(sandboxes);
        }
        let found = Cgroups::find().and_then(|cgroups| {
            sandboxes.cgroups = Some(cgroups);
            sandboxes.try_out(directory)
        });
        if let Err(error) = found {
            sandboxes.cgroups = None;
            match sandboxes.try_out(directory) {
                Ok(()) => {
                    sandboxes.holds.missing.push(Missing::Together { reason: error.to_string() });
                    if getuid().is_root() {
                        sandboxes.holds.missing.push(Missing::Processes);
                    }
                }
                Err(error) => sandboxes.holds.missing.push(Missing::Sandbox { reason: error.to_string() }),
            }
        }
        if !sandboxes.cgroups.as_ref().is_some_and(Cgroups::holds_cpu) {
            sandboxes.holds.missing.push(Missing::Cpu);
        }
        sandboxes.tell();
        Ok(sandboxes)
    }

    /// What stands and what is missing.
    pub fn holds(&self) -> &Holds {
        &self.holds
    }

    /// Whether every sandbox sees this path, without its being named in a plan.
    pub fn shows(&self, path: &Path) -> bool {
        self.view.shows(path)
    }

    /// A sandbox for this program.
    pub fn prepare(&self, plan: &Plan<'_>) -> io::Result<Prepared> {
        let mut readable = self.view.readable().to_vec();
        readable.extend(plan.readable.iter().cloned());
        let spec = Spec {
            program: plan.program.to_owned(),
            arguments: plan.arguments.to_vec(),
            readable,
            writable: vec![plan.workspace.to_owned(), PathBuf::from("/tmp")],
            limits: plan.limits.clone(),
            landlock: self.landlock,
            way_out: matches!(plan.network, Network::WayOut(_)).then(|| PathBuf::from(way_out::INSIDE)),
        };
        let spec = serde_json::to_vec(&spec)?;
        let mut command = Command::new(&self.bubblewrap);
        command.args(self.view.arguments(plan.workspace, plan.readable, plan.network));
        command.arg("--").args([OsString::from(STAGE), stage::ARGUMENT.into(), spec.len().to_string().into()]);
        command.env_clear().envs(plan.env.iter().map(|(name, value)| (name, value))).current_dir("/");
        let cell = self.cgroups.as_ref().map(|cgroups| cgroups.cell(plan.limits)).transpose()?;
        Ok(Prepared { command, spec, cell })
    }

    /// Makes a sandbox, runs nothing to speak of in it, and waits for its end.
    fn try_out(&self, directory: &Path) -> io::Result<()> {
        let workspace = directory.join("try");
        fs::create_dir_all(&workspace)?;
        let workspace = workspace.canonicalize()?;
        let limits = Limits::default();
        let arguments = ["-c".to_owned(), "exit 0".to_owned()];
        let plan = Plan {
            workspace: &workspace,
            program: Path::new("/bin/sh"),
            arguments: &arguments,
            env: &[],
            readable: &[],
            limits: &limits,
            network: Network::None,
        };
        let Prepared { mut command, spec, cell } = self.prepare(&plan)?;
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let entered = match &cell {
            Some(cell) => cell.enter(Pid::from_child(&child)),
            None => Ok(()),
        };
        let told = match child.stdin.take() {
            Some(mut stdin) if entered.is_ok() => stdin.write_all(&spec),
            _ => Ok(()),
        };
        let output = child.wait_with_output()?;
        entered?;
        if output.status.success() {
            return told;
        }
        Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }

    fn tell(&mut self) {
        if self.holds.missing.iter().any(|missing| matches!(missing, Missing::Sandbox { .. })) {
            return;
        }
        let standing = &mut self.holds.standing;
        standing.push("namespaces: own files, no other processes, no network, no capabilities".to_owned());
        standing.push("seccomp".to_owned());
        if self.landlock {
            standing.push("landlock".to_owned());
        }
        standing.push(self.cgroups.as_ref().map_or_else(|| "limits of each process".to_owned(), Cgroups::describe));
    }
}

/// The program, new enough.
fn find(path: &str) -> Result<PathBuf, String> {
    let mut candidates = std::env::split_paths(path).chain([PathBuf::from("/usr/bin")]).map(|directory| directory.join("bwrap"));
    let program = candidates.find(|candidate| candidate.is_file()).ok_or("bubblewrap (bwrap) is not installed")?;
    let output = Command::new(&program).arg("--version").env_clear().output().map_err(|error| format!("{}: {error}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let mut numbers = text.rsplit(' ').next().unwrap_or_default().split('.').map_while(|number| number.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < OLDEST { Err(format!("{} is too old: {text}", program.display())) } else { Ok(program) }
}
