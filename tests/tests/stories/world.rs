//! The vocabulary of the stories: start FTE, post a task, wait for its result.

use std::time::Duration;

use fte_testkit::{Client, Dir, FteProcess, built_binary, eventually};
use serde_json::{Value, json};

use crate::load::Doors;

/// A running FTE on a directory of its own.
pub(crate) struct Fte {
    pub(crate) process: FteProcess,
    _dir: Dir,
}

impl Fte {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[], &[]).await
    }

    pub(crate) async fn start_with(args: &[&str], env: &[(&str, &str)]) -> Self {
        let dir = Dir::new();
        let process = FteProcess::start_with(built_binary(), dir.join("data"), args, env.iter().copied()).await;
        Self { process, _dir: dir }
    }

    /// With this `agents.toml`.
    pub(crate) async fn with_agents(agents: &str, env: &[(&str, &str)]) -> Self {
        let dir = Dir::new();
        let file = dir.write("agents.toml", agents);
        let args = ["--agents", file.to_str().unwrap()];
        let process = FteProcess::start_with(built_binary(), dir.join("data"), args, env.iter().copied()).await;
        Self { process, _dir: dir }
    }

    pub(crate) fn api(&self) -> Client {
        self.process.api()
    }

    /// Where people find it.
    pub(crate) fn doors(&self) -> Doors {
        Doors::all(&self.api())
    }

    /// Posts a task that must be accepted, and gives its id.
    pub(crate) async fn post(&self, body: Value) -> String {
        post(&self.api(), body).await
    }

    /// The data of the task's result event, once it is there.
    pub(crate) async fn result(&self, task: &str) -> Value {
        result(&self.api(), task).await
    }

    /// The task, once it has this status.
    pub(crate) async fn in_status(&self, task: &str, status: &str) -> Value {
        in_status(&self.api(), task, status).await
    }

    /// The task, once it asks this question.
    pub(crate) async fn asking(&self, task: &str, question: u32) -> Value {
        shown(&self.api(), task, |task| task["approval"]["question"] == question).await
    }

    /// Publishes an event through the sidecar's own API, as an outside system would.
    pub(crate) async fn publish(&self, topic: &str, event: &Value) {
        let path = format!("/v1.0/publish/pubsub/{topic}");
        self.process.sidecar().post_as(&path, "application/cloudevents+json", event).await.unwrap().expect_status(204);
    }
}

/// Posts a task that must be accepted, and gives its id.
pub(crate) async fn post(intake: &Client, body: Value) -> String {
    let answer = intake.post("/v1/tasks", &body).await.unwrap().expect_status(202);
    answer.json::<Value>()["task_id"].as_str().unwrap().to_owned()
}

/// The data of a task's result event, once it is there.
pub(crate) async fn result(status: &Client, task: &str) -> Value {
    eventually(|| async {
        let answer = status.get(&format!("/v1/tasks/{task}/result?wait=10s")).await.map_err(|error| error.to_string())?;
        if answer.status == 200 { Ok(answer.json::<Value>()) } else { Err(answer.text()) }
    })
    .await
}

/// A task, once it has this status.
pub(crate) async fn in_status(read: &Client, task: &str, status: &str) -> Value {
    shown(read, task, |task| task["status"] == status).await
}

async fn shown(read: &Client, task: &str, is_it: impl Fn(&Value) -> bool) -> Value {
    eventually(|| async {
        let shown = read.get(&format!("/v1/tasks/{task}")).await.map_err(|error| error.to_string())?;
        let shown: Value = if shown.status == 200 { shown.json() } else { return Err(shown.text()) };
        if is_it(&shown) { Ok(shown) } else { Err(shown.to_string()) }
    })
    .await
}

/// The simplest task.
pub(crate) fn echo(text: &str) -> Value {
    json!({ "task": text, "agent": "echo" })
}

/// How long a story waits for a whole load to settle.
pub(crate) const LOAD_PATIENCE: Duration = Duration::from_secs(120);

/// Chance that can be repeated: the same seed gives the same numbers.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// A number from 0 to `limit - 1`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// A knob of the tests.
pub(crate) fn setting(name: &str, default: u64) -> u64 {
    #[expect(clippy::disallowed_methods, reason = "the knobs of a test")]
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}
