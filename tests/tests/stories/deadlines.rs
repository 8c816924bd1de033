//! Time passes while a task waits, runs, is parked, or while everything is down.

use std::time::Duration;

use fte_testkit::{Client, eventually, in_time};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::trail::settled;
use crate::world::{Fte, in_status, look, result};

const AGENTS: &str = r#"
    default = "echo"
    [agents.echo]
    kind = "builtin"
    [agents.demo]
    kind = "builtin"
    [agents.one]
    kind = "command"
    command = ["sleep", "600"]
    max = 1
    [agents.late]
    kind = "command"
    command = ["sleep", "600"]
    timeout = "500ms"
    [agents.mute]
    kind = "process"
    command = ["sleep", "600"]
    timeout = "500ms"
    attempts = 1
"#;

/// Long enough to get a few tasks where they shall be; on a busy machine there is a round with more.
const SOON: Duration = Duration::from_secs(4);

/// Waits until the clock shows more than this.
async fn passed(moment: Timestamp) {
    while Timestamp::now() <= moment {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn micros(time: &Value) -> i64 {
    time.as_str().unwrap().parse::<Timestamp>().unwrap().as_microsecond()
}

/// Tasks that shall be somewhere before a moment comes.
struct Round {
    api: Client,
    moment: Timestamp,
    tasks: Vec<String>,
    /// What was not where it should be when the moment came.
    late: Vec<Value>,
}

impl Round {
    fn new(fte: &Fte, soon: Duration) -> Self {
        Self { api: fte.api(), moment: Timestamp::now() + soon, tasks: Vec::new(), late: Vec::new() }
    }

    /// Posts a task and waits until it has this status, or the moment has come.
    async fn bring(&mut self, task: Value, status: &str) {
        if Timestamp::now() >= self.moment {
            self.late.push(task);
            return;
        }
        let answer = self.api.post("/v1/tasks", &task).await.unwrap();
        // A deadline that has passed on the way is refused.
        if answer.status != 202 && Timestamp::now() >= self.moment {
            self.late.push(task);
            return;
        }
        let id = answer.expect_status(202).json::<Value>()["task_id"].as_str().unwrap().to_owned();
        let (api, moment) = (&self.api, self.moment);
        let late = eventually(|| async {
            let shown = look(api, &format!("/v1/tasks/{id}")).await?;
            match shown["status"] == status {
                true => Ok(None),
                false if Timestamp::now() >= moment => Ok(Some(shown)),
                false => Err(shown.to_string()),
            }
        })
        .await;
        self.late.extend(late);
        self.tasks.push(id);
    }

    /// The deadline has ended every one of them, wherever it was. Gives them back if each was where it should be, and says which were not.
    async fn timed_out(self, fte: &Fte) -> Result<Vec<String>, Vec<Value>> {
        for task in &self.tasks {
            let ended = result(&fte.api(), task).await;
            assert_eq!((&ended["status"], &ended["error"]["code"]), (&json!("timed_out"), &json!("deadline_passed")), "{ended}");
        }
        self.in_time()
    }

    fn in_time(self) -> Result<Vec<String>, Vec<Value>> {
        if self.late.is_empty() { Ok(self.tasks) } else { Err(self.late) }
    }
}

#[tokio::test]
async fn a_deadline_ends_a_task_that_is_queued_running_or_parked() {
    let fte = Fte::with_agents(AGENTS, &[("FTE_RUNNER_APPROVAL_STAY_MS", "50")]).await;
    let tasks = in_time(SOON, async |soon| {
        let mut round = Round::new(&fte, soon);
        let deadline = round.moment;
        round.bring(json!({ "task": "run", "agent": "one", "deadline": deadline }), "running").await;
        round.bring(json!({ "task": "wait", "agent": "one", "deadline": deadline }), "queued").await;
        round.bring(json!({ "task": "ask first", "require_approval": true, "deadline": deadline }), "awaiting_approval").await;
        let quick = json!({ "demo": { "step_ms": 1 } });
        let asking = json!({ "task": "show", "agent": "demo", "context": quick, "deadline": deadline });
        round.bring(asking, "awaiting_approval").await;
        passed(deadline).await;
        round.timed_out(&fte).await
    })
    .await;
    settled(&fte.doors(), &tasks).await;
}

#[tokio::test]
async fn a_deadline_that_passes_while_everything_is_down_counts_at_the_next_start() {
    let fte = Mutex::new(Fte::with_agents(AGENTS, &[]).await);
    let tasks = in_time(SOON, async |soon| {
        let mut fte = fte.lock().await;
        let mut round = Round::new(&fte, soon);
        let deadline = round.moment;
        round.bring(json!({ "task": "run", "agent": "one", "deadline": deadline }), "running").await;
        round.bring(json!({ "task": "wait", "agent": "one", "deadline": deadline }), "queued").await;
        round.bring(json!({ "task": "ask first", "require_approval": true, "deadline": deadline }), "awaiting_approval").await;
        fte.process.kill().await;
        if Timestamp::now() >= deadline {
            round.late.push(json!("the kill"));
        }
        passed(deadline).await;
        fte.process.restart().await;
        round.timed_out(&fte).await
    })
    .await;
    settled(&fte.lock().await.doors(), &tasks).await;
}

#[tokio::test]
async fn a_delayed_task_starts_after_its_time_and_a_crash_does_not_change_that() {
    let fte = Mutex::new(Fte::with_agents(AGENTS, &[]).await);
    let tasks = in_time(Duration::from_secs(3), async |soon| {
        let mut fte = fte.lock().await;
        // Due while it runs again, and due while it is down.
        let delays = [3 * soon, soon];
        let posted = Timestamp::now();
        let mut round = Round::new(&fte, soon);
        for delay in delays {
            round.bring(json!({ "task": "later", "delay": format!("{}s", delay.as_secs()) }), "queued").await;
        }
        fte.process.kill().await;
        if Timestamp::now() >= round.moment {
            round.late.push(json!("the kill"));
        }
        // The last one was posted before this.
        passed(Timestamp::now() + soon).await;
        fte.process.restart().await;
        if Timestamp::now() >= posted + delays[0] {
            round.late.push(json!("the restart"));
        }
        passed(posted + delays[0]).await;
        for (task, delay) in round.tasks.iter().zip(delays) {
            let ended = result(&fte.api(), task).await;
            assert_eq!(ended["status"], "completed");
            let started = micros(&ended["started_at"]);
            let shown = in_status(&fte.api(), task, "completed").await;
            let submitted = micros(&shown["created_at"]);
            assert!(started >= submitted + i64::try_from(delay.as_micros()).unwrap(), "submitted {shown}, started {ended}");
        }
        round.in_time()
    })
    .await;
    settled(&fte.lock().await.doors(), &tasks).await;
}

#[tokio::test]
async fn an_agent_that_takes_too_long_is_ended() {
    let fte = Fte::with_agents(AGENTS, &[]).await;
    let late = fte.post(json!({ "task": "never done", "agent": "late" })).await;
    let mute = fte.post(json!({ "task": "never a word", "agent": "mute" })).await;
    let ended = fte.result(&late).await;
    assert_eq!((&ended["status"], &ended["error"]["code"]), (&json!("timed_out"), &json!("agent_timeout")), "{ended}");
    assert_ne!(fte.result(&mute).await["status"], "completed");
    settled(&fte.doors(), &[late, mute]).await;
}
