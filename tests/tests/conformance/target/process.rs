//! `fte sidecar` as a process: started on a directory of its own, killed without warning, started again at the same ports.

use std::fs;
use std::process::Stdio;

use fte_testkit::{Dir, built_binary};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::START_MAX;
use crate::app::Who;

const LOG_TAIL_BYTES: usize = 8 * 1024;

/// A running `fte sidecar`. Dropped, it is killed and its directory deleted.
pub(crate) struct Process {
    child: Child,
    /// App id, app port, API port.
    apps: Vec<(&'static str, u16, u16)>,
    urls: Vec<String>,
    tokens: (String, String),
    // Last, so that the process is killed first.
    dir: Dir,
}

impl Process {
    pub(crate) async fn start(apps: &[(Who, u16)], tokens: (String, String)) -> Self {
        let dir = Dir::new();
        let resources = dir.join("resources");
        fs::create_dir(&resources).expect("the test's directory is writable");
        fs::write(resources.join("resiliency.yaml"), include_str!("../resources/resiliency.yaml"))
            .expect("the test's directory is writable");
        let id = |who: Who| if who == Who::First { "conf-one" } else { "conf-two" };
        let mut apps: Vec<_> = apps.iter().map(|(who, port)| (id(*who), *port, 0)).collect();
        let (child, urls) = launch(&dir, &apps, &tokens).await;
        for (app, url) in apps.iter_mut().zip(&urls) {
            app.2 = url.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("the address of an API ends with its port");
        }
        Self { child, apps, urls, tokens, dir }
    }

    /// The APIs, in the order of the apps.
    pub(crate) fn urls(&self) -> &[String] {
        &self.urls
    }

    pub(crate) async fn restart(&mut self) {
        self.child.kill().await.expect("the process is ours");
        (self.child, _) = launch(&self.dir, &self.apps, &self.tokens).await;
    }

    pub(crate) async fn stop_and_start(&mut self, meanwhile: impl Future<Output = ()>) {
        let pid = self.child.id().expect("the process runs").to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().await.expect("kill is there").success());
        let (ended, ()) = tokio::join!(tokio::time::timeout(START_MAX, self.child.wait()), meanwhile);
        let status = ended.expect("a sidecar that is asked to stop does").expect("the process is ours");
        assert!(status.success(), "it ended with {status}");
        (self.child, _) = launch(&self.dir, &self.apps, &self.tokens).await;
    }

    pub(crate) fn log_tail(&self) -> String {
        let log = String::from_utf8_lossy(&fs::read(self.dir.join("log")).unwrap_or_default()).into_owned();
        log[log.ceil_char_boundary(log.len().saturating_sub(LOG_TAIL_BYTES))..].to_owned()
    }
}

async fn launch(dir: &Dir, apps: &[(&str, u16, u16)], (api_token, app_token): &(String, String)) -> (Child, Vec<String>) {
    let log = fs::OpenOptions::new().create(true).append(true).open(dir.join("log")).expect("the test's directory is writable");
    let mut command = Command::new(built_binary());
    command.args(["sidecar", "--json", "--data"]).arg(dir.join("data")).arg("--resources-path").arg(dir.join("resources"));
    for (id, app_port, http_port) in apps {
        command.args(["--app", &format!("{id}:{app_port}:{http_port}")]);
    }
    let mut child = command
        .env_clear()
        .env("RUST_BACKTRACE", "1")
        .env("DAPR_API_TOKEN", api_token)
        .env("APP_API_TOKEN", app_token)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .expect("fte starts");
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let line =
        tokio::time::timeout(START_MAX, lines.next_line()).await.expect("fte sidecar says where it listens").expect("its output is text");
    let line: Value = serde_json::from_str(&line.expect("fte sidecar has ended; run it by hand to see why")).expect("a line of JSON");
    let items = line["items"].as_array().expect("it names each app");
    let urls = items.iter().map(|item| item["api"].as_str().expect("it names the API").to_owned()).collect();
    (child, urls)
}
