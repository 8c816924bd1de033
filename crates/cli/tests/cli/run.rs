//! Runs the binary, with nothing of the test's own environment.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// What a run left behind.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    #[track_caller]
    pub(crate) fn check(&self, code: i32, out: &str) {
        assert_eq!((self.code, self.out.trim_end()), (code, out), "standard error: {}", self.err);
    }

    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fte"));
    command.args(args).env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

pub(crate) async fn fte(url: &str, args: &[&str]) -> Ran {
    let run = command(args).env("FTE_URL", url).output();
    let output = tokio::time::timeout(Duration::from_secs(60), run).await.expect("the command ends").expect("the command starts");
    Ran {
        code: output.status.code().expect("the command exits"),
        out: String::from_utf8(output.stdout).expect("UTF-8"),
        err: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}
