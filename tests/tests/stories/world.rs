//! The vocabulary of the stories: start FTE, post a task, wait for its result.

use std::path::Path;

use fte_testkit::{Client, Dir, FteProcess, built_binary};
pub(crate) use fte_tests::tasks::{Dice, LOAD_PATIENCE, echo, in_status, look, post, result, result_within, setting, shown, told};
use serde_json::{Value, json};

use crate::load::Doors;

/// The command of an agent, as in `agents.toml`, that is held until this file is there, and then answers with its task. It sees the file only
/// without walls.
pub(crate) fn held_until(gate: &Path) -> String {
    let script = format!("while [ ! -e {} ]; do sleep 0.01; done; cat", gate.display());
    json!(["sh", "-c", script]).to_string()
}

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
