//! A program that stays up, as a process: started, killed without warning, asked to stop, started again; what it says goes to a log.

use std::ffi::OsString;
use std::fs;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::dir::Dir;

/// How long a start or a stop may take on a machine that is busy with other tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const LOG_TAIL_BYTES: usize = 16 * 1024;

/// A program that stays up. Dropping it kills it; if its test failed, the end of its log is printed.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    command: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    scratch: Dir,
    child: Option<Child>,
}

impl Daemon {
    /// A program and its arguments, not started yet. The test's own environment is not handed on, but for `PATH` and `HOME`.
    pub fn new(name: impl Into<String>, command: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        let command = command.into_iter().map(Into::into).collect();
        Self { name: name.into(), command, env: Vec::new(), scratch: Dir::new(), child: None }
    }

    /// With one more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.command.push(arg.into());
        self
    }

    /// With an environment variable. It counts from the next start on.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// From the next start on this environment variable has another value.
    pub fn set_env(&mut self, name: impl Into<OsString>, value: impl Into<OsString>) {
        self.env.push((name.into(), value.into()));
    }

    /// A place for its files, gone with it.
    pub fn scratch(&self) -> &Dir {
        &self.scratch
    }

    /// Starts it; where it runs already, that one is killed first.
    ///
    /// # Errors
    /// For people: why it could not be started.
    pub async fn try_start(&mut self) -> Result<(), String> {
        self.kill().await;
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log_file()).expect("the scratch directory is writable");
        let mut words = self.command.iter();
        let program = words.next().expect("a command has a program");
        let child = Command::new(program)
            .args(words)
            .env_clear()
            .envs(inherited())
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file can be shared"))
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("{} could not be started: {error}", program.display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// [`Daemon::try_start`] that must work.
    pub async fn start(&mut self) {
        self.try_start().await.unwrap_or_else(|error| panic!("{error}"));
    }

    /// Its process id, while it runs or has not been waited for.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// How it ended, if it has.
    pub fn exit(&mut self) -> Option<ExitStatus> {
        self.child.as_mut().and_then(|child| child.try_wait().expect("the process is ours"))
    }

    /// Asks it to stop (SIGTERM).
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Stops its time (SIGSTOP): it is there, and does nothing.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on (SIGCONT).
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) {
            kill_process(pid, signal).expect("the process is ours");
        }
    }

    /// Kills it as `kill -9` does, and returns when it is gone.
    pub async fn kill(&mut self) {
        if let Some(child) = &mut self.child {
            child.start_kill().expect("the process is ours");
            timeout(PATIENCE, child.wait()).await.expect("a killed process ends").expect("the process is ours");
        }
    }

    /// Asks it to stop (SIGTERM), and returns how it ended.
    pub async fn stop(&mut self) -> ExitStatus {
        self.terminate();
        self.ended().await
    }

    /// Waits until it has ended by itself, and returns how.
    pub async fn ended(&mut self) -> ExitStatus {
        let child = self.child.as_mut().expect("it was started");
        match timeout(PATIENCE, child.wait()).await {
            Ok(status) => status.expect("the process is ours"),
            Err(_) => panic!("{} did not stop within {PATIENCE:?}; its log:\n{}", self.name, self.log_tail()),
        }
    }

    /// Everything it has said, of all its starts.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log_file()).unwrap_or_default()).into_owned()
    }

    /// The end of what it has said.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let start = log.len().saturating_sub(LOG_TAIL_BYTES);
        log[log.ceil_char_boundary(start)..].to_owned()
    }

    fn log_file(&self) -> std::path::PathBuf {
        self.scratch.join("log")
    }
}

impl Drop for Daemon {
    #[expect(clippy::print_stderr, reason = "a failed test shows what the process said")]
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.start_kill();
            gone(child);
        }
        if std::thread::panicking() {
            eprintln!("the log of {} ends with:\n{}", self.name, self.log_tail());
        }
    }
}

/// Returns when a killed process has ended, and what it held, such as the lock of its directory, is free.
fn gone(child: &Child) {
    let pid = child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    let Some(Ok(process)) = pid.map(|pid| pidfd_open(pid, PidfdFlags::empty())) else { return };
    let patience = Timespec::try_from(PATIENCE).expect("a minute can be waited for");
    // Where it does not end, what needs it to have ended says so.
    let _ended = poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&patience));
}

#[expect(clippy::disallowed_methods, reason = "handed on to a child, not read as configuration")]
fn inherited() -> impl Iterator<Item = (&'static str, OsString)> {
    ["PATH", "HOME"].into_iter().filter_map(|name| Some((name, std::env::var_os(name)?)))
}
