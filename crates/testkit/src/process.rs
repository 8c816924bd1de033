//! The real `fte` as a process: started, killed without warning, started again on the same data.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use serde::Deserialize;
use tokio::time::{Instant, sleep};

use crate::client::Client;
use crate::daemon::{Daemon, PATIENCE};

/// What `fte up --ready-file` writes once it is ready.
#[derive(Debug, Clone, Deserialize)]
pub struct Ready {
    /// The public API, as `http://127.0.0.1:PORT`.
    pub api: String,
    /// The embedded sidecar, for outside programs.
    pub sidecar: String,
    /// Its process id.
    pub pid: u32,
    /// Its data directory.
    pub data: PathBuf,
}

/// A running `fte up` on free ports. Dropping it kills it; if its test failed, the end of its log is printed.
#[derive(Debug)]
pub struct FteProcess {
    data: PathBuf,
    daemon: Daemon,
    ready: Ready,
}

impl FteProcess {
    /// Starts `binary up` on `data` and waits until it is ready. Panics with its log when it is not.
    pub async fn start(binary: impl Into<PathBuf>, data: impl Into<PathBuf>) -> Self {
        Self::start_with(binary, data, [] as [&str; 0], [] as [(&str, &str); 0]).await
    }

    /// [`FteProcess::start`] with more arguments of `up`, and environment variables. The test's own environment is not handed on, but for
    /// `PATH` and `HOME`.
    pub async fn start_with(
        binary: impl Into<PathBuf>,
        data: impl Into<PathBuf>,
        args: impl IntoIterator<Item = impl Into<OsString>>,
        env: impl IntoIterator<Item = (impl Into<OsString>, impl Into<OsString>)>,
    ) -> Self {
        Self::start_under([] as [&str; 0], binary, data, args, env).await
    }

    /// [`FteProcess::start_with`], through a launcher such as `nsenter`: a command that becomes the one that follows it.
    pub async fn start_under(
        launcher: impl IntoIterator<Item = impl Into<OsString>>,
        binary: impl Into<PathBuf>,
        data: impl Into<PathBuf>,
        args: impl IntoIterator<Item = impl Into<OsString>>,
        env: impl IntoIterator<Item = (impl Into<OsString>, impl Into<OsString>)>,
    ) -> Self {
        let data = data.into();
        let mut daemon = daemon(launcher.into_iter().map(Into::into).collect(), binary.into(), &data, args.into_iter().map(Into::into));
        for (name, value) in env {
            daemon = daemon.env(name, value);
        }
        let ready = launch(&mut daemon).await.unwrap_or_else(|failure| panic!("{failure}"));
        Self { data, daemon, ready }
    }

    /// Where it is.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// A client of its public API. After a restart, ask for a new one: the port is another.
    pub fn api(&self) -> Client {
        Client::new(&self.ready.api)
    }

    /// A client of its sidecar.
    pub fn sidecar(&self) -> Client {
        Client::new(&self.ready.sidecar)
    }

    /// Its data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The process itself.
    pub fn daemon(&mut self) -> &mut Daemon {
        &mut self.daemon
    }

    /// Everything it has logged, of all its starts.
    pub fn log(&self) -> String {
        self.daemon.log()
    }

    /// Kills it as `kill -9` does, and returns when it is gone.
    pub async fn kill(&mut self) {
        self.daemon.kill().await;
    }

    /// Asks it to stop (SIGTERM), and returns how it ended.
    pub async fn stop(&mut self) -> ExitStatus {
        self.daemon.stop().await
    }

    /// Starts it again on the same data, after [`FteProcess::kill`] or [`FteProcess::stop`].
    pub async fn restart(&mut self) {
        self.try_restart().await.unwrap_or_else(|failure| panic!("{failure}"));
    }

    /// [`FteProcess::restart`], where it may fail.
    ///
    /// # Errors
    /// For people, with the end of its log: it ended, or was not ready in time.
    pub async fn try_restart(&mut self) -> Result<(), String> {
        self.ready = launch(&mut self.daemon).await?;
        Ok(())
    }
}

/// The `fte` binary beside the running test: in the target directory, built before with `cargo build -p fte` (or `tests/all`).
pub fn built_binary() -> PathBuf {
    let test = std::env::current_exe().expect("a running test has a path");
    let profile = test.ancestors().find(|dir| dir.join("deps").is_dir()).expect("a test runs from the target directory");
    let binary = profile.join(format!("fte{}", std::env::consts::EXE_SUFFIX));
    assert!(binary.is_file(), "{} is not built: run cargo build -p fte", binary.display());
    binary
}

const READY_FILE: &str = "ready.json";

fn daemon(mut command: Vec<OsString>, binary: PathBuf, data: &Path, args: impl Iterator<Item = OsString>) -> Daemon {
    command.push(binary.into());
    command.extend(["up".into(), "--data".into(), data.into()]);
    command.extend(["--port", "0", "--sidecar-port", "0"].map(OsString::from));
    command.extend(args);
    let daemon = Daemon::new("fte", command);
    let ready_file = daemon.scratch().join(READY_FILE);
    daemon.arg("--ready-file").arg(ready_file)
}

/// Starts it and waits for its ready file. The error is for people, with the end of the log.
async fn launch(daemon: &mut Daemon) -> Result<Ready, String> {
    let ready_file = daemon.scratch().join(READY_FILE);
    // One that is left over from the last start would tell its ports.
    let _ = fs::remove_file(&ready_file);
    daemon.try_start().await?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        // It is renamed into place, so it is there whole or not at all.
        if let Ok(text) = fs::read(&ready_file) {
            return serde_json::from_slice(&text).map_err(|error| format!("the ready file is wrong: {error}"));
        }
        if let Some(status) = daemon.exit() {
            return Err(format!("fte ended at its start, {status}; its log:\n{}", daemon.log_tail()));
        }
        if Instant::now() > deadline {
            return Err(format!("fte was not ready within {PATIENCE:?}; its log:\n{}", daemon.log_tail()));
        }
        sleep(Duration::from_millis(5)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dir::Dir;

    /// Committed and not written by the test: a file that another thread's child still has open for writing cannot be executed.
    fn stand_in() -> PathBuf {
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/fte-stand-in"))
    }

    fn is_running(pid: u32) -> bool {
        // A zombie is still in /proc, in state Z.
        fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z"))
    }

    #[tokio::test]
    async fn a_process_is_killed_started_again_and_stopped() {
        let dir = Dir::new();
        let mut fte = FteProcess::start_with(stand_in(), dir.join("data"), ["--quiet"], [("LANG", "C")]).await;
        let first = fte.ready().pid;
        assert!(is_running(first));

        fte.kill().await;
        assert!(!is_running(first));
        fte.restart().await;
        assert_ne!(fte.ready().pid, first);
        assert_eq!(fte.log().matches("started with up --data").count(), 2, "{}", fte.log());
        assert!(fte.log().contains("--quiet"));
        assert!(fte.stop().await.success());
    }

    #[tokio::test]
    async fn dropping_it_kills_it() {
        let dir = Dir::new();
        let fte = FteProcess::start(stand_in(), dir.join("data")).await;
        let pid = fte.ready().pid;
        drop(fte);
        crate::eventually(|| async { if is_running(pid) { Err("it runs") } else { Ok(()) } }).await;
    }

    #[tokio::test]
    async fn a_start_that_fails_shows_the_log() {
        let mut daemon = daemon(Vec::new(), stand_in(), Path::new("data"), std::iter::empty()).env("FAIL", "no such agent");
        let failure = launch(&mut daemon).await.unwrap_err();
        assert!(failure.contains("exit status: 2") && failure.contains("no such agent"), "{failure}");
    }
}
