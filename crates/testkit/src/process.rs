//! The real `fte` as a process: started, killed without warning, started again on the same data.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde::Deserialize;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::client::Client;
use crate::dir::Dir;

/// How long a start or a stop may take on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(60);
const LOG_TAIL_BYTES: usize = 16 * 1024;

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
    binary: PathBuf,
    data: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    scratch: Dir,
    child: Child,
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
        let (binary, data, scratch) = (binary.into(), data.into(), Dir::new());
        let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
        let env: Vec<_> = env.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        let (child, ready) = launch(&binary, &data, &args, &env, &scratch).await.unwrap_or_else(|failure| panic!("{failure}"));
        Self { binary, data, args, env, scratch, child, ready }
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

    /// Everything it has logged, of all its starts.
    pub fn log(&self) -> String {
        read_log(&self.scratch)
    }

    /// Kills it as `kill -9` does, and returns when it is gone.
    pub async fn kill(&mut self) {
        self.child.start_kill().expect("the process is ours");
        timeout(PATIENCE, self.child.wait()).await.expect("a killed process ends").expect("the process is ours");
    }

    /// Asks it to stop (SIGTERM), and returns how it ended.
    pub async fn stop(&mut self) -> ExitStatus {
        if let Some(pid) = self.child.id().and_then(|pid| rustix::process::Pid::from_raw(i32::try_from(pid).ok()?)) {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("the process is ours");
        }
        match timeout(PATIENCE, self.child.wait()).await {
            Ok(status) => status.expect("the process is ours"),
            Err(_) => panic!("fte did not stop within {PATIENCE:?}; its log:\n{}", tail(&self.log())),
        }
    }

    /// Starts it again on the same data, after [`FteProcess::kill`] or [`FteProcess::stop`].
    pub async fn restart(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.kill().await;
        }
        let started = launch(&self.binary, &self.data, &self.args, &self.env, &self.scratch).await;
        (self.child, self.ready) = started.unwrap_or_else(|failure| panic!("{failure}"));
    }
}

impl Drop for FteProcess {
    #[expect(clippy::print_stderr, reason = "a failed test shows what the process said")]
    fn drop(&mut self) {
        // The child is killed by its own drop.
        if std::thread::panicking() {
            eprintln!("the log of fte ends with:\n{}", tail(&self.log()));
        }
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

/// Starts it and waits for its ready file. The error is for people, with the end of the log.
async fn launch(
    binary: &Path,
    data: &Path,
    args: &[OsString],
    env: &[(OsString, OsString)],
    scratch: &Dir,
) -> Result<(Child, Ready), String> {
    let ready_file = scratch.join("ready.json");
    // One that is left over from the last start would tell its ports.
    let _ = fs::remove_file(&ready_file);
    let log = fs::OpenOptions::new().create(true).append(true).open(scratch.join("log")).expect("the scratch directory is writable");

    let mut child = Command::new(binary)
        .arg("up")
        .arg("--data")
        .arg(data)
        .args(["--port", "0", "--sidecar-port", "0", "--ready-file"])
        .arg(&ready_file)
        .args(args)
        .env_clear()
        .envs(inherited())
        .envs(env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a file can be shared"))
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("{} could not be started: {error}", binary.display()))?;

    let deadline = Instant::now() + PATIENCE;
    loop {
        // It is renamed into place, so it is there whole or not at all.
        if let Ok(text) = fs::read(&ready_file) {
            let ready = serde_json::from_slice(&text).map_err(|error| format!("the ready file is wrong: {error}"))?;
            return Ok((child, ready));
        }
        if let Some(status) = child.try_wait().expect("the process is ours") {
            return Err(format!("fte ended at its start, {status}; its log:\n{}", tail(&read_log(scratch))));
        }
        if Instant::now() > deadline {
            return Err(format!("fte was not ready within {PATIENCE:?}; its log:\n{}", tail(&read_log(scratch))));
        }
        sleep(Duration::from_millis(5)).await;
    }
}

#[expect(clippy::disallowed_methods, reason = "handed on to a child, not read as configuration")]
fn inherited() -> impl Iterator<Item = (&'static str, OsString)> {
    ["PATH", "HOME"].into_iter().filter_map(|name| Some((name, std::env::var_os(name)?)))
}

fn read_log(scratch: &Dir) -> String {
    String::from_utf8_lossy(&fs::read(scratch.join("log")).unwrap_or_default()).into_owned()
}

fn tail(log: &str) -> &str {
    let start = log.len().saturating_sub(LOG_TAIL_BYTES);
    &log[log.ceil_char_boundary(start)..]
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let scratch = Dir::new();
        let env = [("FAIL".into(), "no such agent".into())];
        let failure = launch(&stand_in(), Path::new("data"), &[], &env, &scratch).await.unwrap_err();
        assert!(failure.contains("exit status: 2") && failure.contains("no such agent"), "{failure}");
    }
}
