//! Kafka, Redis, `PostgreSQL`, placement and scheduler of one story: `tests/stack/stack`, called as people call it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fte_testkit::{Dir, built_binary};
use serde_json::Value;
use tokio::sync::{Mutex, MutexGuard};

/// One story at a time.
static TURN: Mutex<()> = Mutex::const_new(());

/// What runs beside the services. It is gone with its story, and also when the test is killed; if the story failed, its logs are printed.
pub struct Infrastructure {
    dir: Dir,
    status: Value,
    _turn: MutexGuard<'static, ()>,
}

impl Infrastructure {
    /// Everything, without topics.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// These parts alone; all where none is named.
    pub async fn start_only(parts: &[&str]) -> Self {
        Self::start_with(parts).await
    }

    /// With more options or parts of `stack up`.
    pub async fn start_with(parts: &[&str]) -> Self {
        let turn = TURN.lock().await;
        let mut started = Self { dir: Dir::new(), status: Value::Null, _turn: turn };
        started.ask(&[&["up", "--while", &std::process::id().to_string()], parts].concat());
        started.status = serde_json::from_str(&started.ask(&["status", "--json"])).unwrap();
        started
    }

    /// Where a part listens, as `localhost:9092`.
    pub fn address(&self, part: &str) -> String {
        format!("localhost:{}", self.status["ports"][part])
    }

    /// One of Dapr's programs.
    pub fn program(&self, name: &str) -> String {
        self.status["programs"][name].as_str().unwrap().to_owned()
    }

    /// The secrets that the components name, as environment variables.
    pub fn secrets(&self) -> impl Iterator<Item = (&str, &str)> {
        self.status["env"].as_object().unwrap().iter().map(|(name, value)| (name.as_str(), value.as_str().unwrap()))
    }

    /// The secrets of one app alone.
    pub fn secrets_of(&self, app: &str) -> impl Iterator<Item = (&str, &str)> {
        let own = self.status["app_env"].get(app).and_then(Value::as_object).into_iter().flatten();
        own.map(|(name, value)| (name.as_str(), value.as_str().unwrap()))
    }

    /// Where the stack keeps a part's data.
    pub fn data(&self, part: &str) -> PathBuf {
        self.dir.join("stack").join(part)
    }

    /// `kill -9`.
    pub fn kill(&self, part: &str) {
        self.ask(&["kill", part]);
    }

    /// Stops a part's time (SIGSTOP): it is there, and does nothing.
    pub fn pause(&self, part: &str) {
        self.ask(&["pause", part]);
    }

    /// Lets it go on.
    pub fn resume(&self, part: &str) {
        self.ask(&["resume", part]);
    }

    /// Starts a part again, and waits until it answers.
    pub fn start_again(&self, part: &str) {
        self.ask(&["start", part]);
    }

    /// Any command of `stack`, which must succeed; what it printed.
    pub fn ask(&self, arguments: &[&str]) -> String {
        let done = self.command(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "stack {arguments:?}: {said}");
        String::from_utf8(done.stdout).unwrap()
    }

    /// A command of `stack` that reads `input`; all that it said, on whichever stream.
    pub fn feed(&self, arguments: &[&str], input: &str) -> String {
        let mut command = self.command(arguments);
        let mut running = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        running.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let done = running.wait_with_output().unwrap();
        format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(root().join("tests/stack/stack"));
        command.arg("--dir").arg(self.dir.join("stack")).args(arguments).env("FTE_STACK_FTE", built_binary());
        command
    }
}

impl Drop for Infrastructure {
    fn drop(&mut self) {
        if std::thread::panicking() {
            drop(self.command(&["status"]).stdout(std::io::stderr()).status());
            drop(self.command(&["logs"]).stdout(std::io::stderr()).status());
        }
        drop(self.command(&["wipe"]).output());
    }
}

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}
