//! The vocabulary of all stories: post a task, wait for its result.

use std::time::Duration;

use fte_testkit::{Client, PATIENCE, eventually, eventually_within};
use serde_json::{Value, json};

/// Posts a task that must be accepted, and gives its id.
pub async fn post(intake: &Client, body: Value) -> String {
    let answer = intake.post("/v1/tasks", &body).await.unwrap().expect_status(202);
    answer.json::<Value>()["task_id"].as_str().unwrap().to_owned()
}

/// The data of a task's result event, once it is there.
pub async fn result(status: &Client, task: &str) -> Value {
    result_within(PATIENCE, status, task).await
}

/// [`result`] with a patience of its own.
pub async fn result_within(patience: Duration, status: &Client, task: &str) -> Value {
    eventually_within(patience, || async { look(status, &format!("/v1/tasks/{task}/result?wait=10s")).await }).await
}

/// What a server shows under a path, for [`eventually`]; or what it says instead, such as that it does not know the task yet.
pub async fn look(api: &Client, path: &str) -> Result<Value, String> {
    let answer = api.get(path).await.map_err(|error| error.to_string())?;
    if answer.status == 200 { Ok(answer.json()) } else { Err(answer.text()) }
}

/// A task, once it has this status.
pub async fn in_status(read: &Client, task: &str, status: &str) -> Value {
    shown(read, task, |task| task["status"] == status).await
}

/// A task, once it looks like this.
pub async fn shown(read: &Client, task: &str, is_it: impl Fn(&Value) -> bool) -> Value {
    eventually(|| async {
        let shown = look(read, &format!("/v1/tasks/{task}")).await?;
        if is_it(&shown) { Ok(shown) } else { Err(shown.to_string()) }
    })
    .await
}

/// Waits for an event of a task that looks like this.
pub async fn told(read: &Client, task: &str, is_it: impl Fn(&Value) -> bool) -> Value {
    eventually(|| async {
        let page = look(read, &format!("/v1/tasks/{task}/events?limit=1000")).await?;
        let found = page["items"].as_array().and_then(|events| events.iter().find(|event| is_it(event)).cloned());
        found.ok_or_else(|| page.to_string())
    })
    .await
}

/// The simplest task.
pub fn echo(text: &str) -> Value {
    json!({ "task": text, "agent": "echo" })
}

/// How long a story waits for a whole load to settle.
pub const LOAD_PATIENCE: Duration = Duration::from_secs(120);

/// Chance that can be repeated: the same seed gives the same numbers.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// A number from 0 to `limit - 1`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// A knob of the tests.
pub fn setting(name: &str, default: u64) -> u64 {
    #[expect(clippy::disallowed_methods, reason = "the knobs of a test")]
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}
