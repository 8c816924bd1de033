//! Queues: who waits for a sandbox waits in a fair order, knows where they stand, and is told to come back where no more may wait.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use fte_testkit::{Dir, cloud_event, eventually, request};
use serde_json::{Map, Value, json};

use crate::trail::settled;
use crate::world::{Dice, Fte, echo, held_until, result, shown};

/// An agent that works one task at a time, and none before its gate is open.
struct Gated {
    fte: Fte,
    gate: PathBuf,
    dir: Dir,
}

impl Gated {
    async fn start(keys: &str, env: &[(&str, &str)]) -> Self {
        let dir = Dir::new();
        let gate = dir.join("gate");
        let agents = format!(
            "default = \"gated\"\n[agents.gated]\nkind = \"command\"\nsandbox = \"none\"\nmax = 1\n{keys}\n\
             command = {}\n[agents.echo]\nkind = \"builtin\"\n",
            held_until(&gate)
        );
        Self { fte: Fte::with_agents(&agents, env).await, gate, dir }
    }

    fn open(&self) {
        std::fs::write(&self.gate, "").unwrap();
    }

    /// Gives it a task on behalf of somebody, and waits until it has a sandbox or stands in the queue.
    async fn ask(&self, who: &str, priority: &str) -> String {
        let before = self.admitted().await;
        let mut request = request("work");
        let requester = json!({ "type": "user", "id": who });
        request.requester = Some(serde_json::from_value(requester).unwrap());
        request.priority = serde_json::from_value(json!(priority)).unwrap();
        self.fte.publish("fte.triggers.inbound", &serde_json::to_value(cloud_event(&request)).unwrap()).await;
        eventually(|| async {
            let admitted = self.admitted().await;
            if admitted > before { Ok(()) } else { Err(admitted) }
        })
        .await;
        request.task_id.to_string()
    }

    async fn agent(&self) -> Value {
        let agents: Value = self.fte.api().get("/v1/agents").await.unwrap().expect_status(200).json();
        agents["items"].as_array().unwrap().iter().find(|agent| agent["name"] == "gated").unwrap().clone()
    }

    async fn admitted(&self) -> u64 {
        let agent = self.agent().await;
        agent["in_use"].as_u64().unwrap() + agent["queued"].as_u64().unwrap()
    }

    /// The tasks in the order in which they were started.
    async fn in_order(&self, tasks: &[String]) -> Vec<String> {
        let mut started = BTreeMap::new();
        for task in tasks {
            let result = self.fte.result(task).await;
            assert_eq!(result["status"], "completed");
            started.insert(result["started_at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap(), task.clone());
        }
        assert_eq!(started.len(), tasks.len());
        started.into_values().collect()
    }
}

#[tokio::test]
async fn a_flood_of_one_requester_holds_up_no_other() {
    let gated = Gated::start("", &[]).await;
    let mut tasks = Vec::new();
    for _ in 0..12 {
        tasks.push(gated.ask("ada", "P2").await);
    }
    let bobs = gated.ask("bob", "P2").await;
    tasks.push(bobs.clone());
    gated.open();
    let order = gated.in_order(&tasks).await;
    let place = order.iter().position(|task| *task == bobs).unwrap();
    assert!(place <= 2, "one of ada's ran, one had its turn, and then bob's: {place}");
}

#[tokio::test]
async fn whoever_waits_long_is_no_longer_passed_by_the_urgent() {
    let gated = Gated::start("", &[("FTE_RUNNER_AGEING", "1s")]).await;
    let mut tasks = vec![gated.ask("ada", "P2").await];
    let patient = gated.ask("patient", "P3").await;
    for _ in 0..5 {
        tasks.push(gated.ask("ada", "P1").await);
    }
    // Behind all that is urgent at first; later at the second place at most, for ada has one turn before.
    shown(&gated.fte.api(), &patient, |task| task["queue"]["position"].as_u64().is_some_and(|position| position <= 2)).await;
    for _ in 0..3 {
        tasks.push(gated.ask("ada", "P1").await);
    }
    tasks.push(patient.clone());
    gated.open();
    let order = gated.in_order(&tasks).await;
    assert!(order.iter().position(|task| *task == patient).unwrap() <= 2, "{order:?}, {patient}");
}

#[tokio::test]
async fn a_task_knows_where_it_stands_and_gets_on() {
    let gated = Gated::start("queue = 50\nrate = \"600/m\"", &[]).await;
    let first = gated.ask("ada", "P2").await;
    let mut tasks = Vec::new();
    for _ in 0..4 {
        tasks.push(gated.ask("ada", "P2").await);
    }
    let api = gated.fte.api();
    let last = shown(&api, &tasks[3], |task| task["queue"]["position"] == 4).await;
    assert_eq!((&last["status"], &last["queue"]["waiting"]), (&json!("queued"), &json!(4)));
    let running = shown(&api, &first, |task| task["status"] == "running").await;
    assert_eq!(running.get("queue"), None);
    let agent = gated.agent().await;
    assert_eq!(
        (&agent["queue"], &agent["queued"], &agent["rate"], &agent["full"]),
        (&json!(50), &json!(4), &json!("600/m"), &json!(false))
    );

    // Who watches is told, and told again when it gets on.
    let said = gated.dir.join("watch");
    let mut watch = Command::new(fte_testkit::built_binary())
        .args(["watch", &tasks[3]])
        .env("FTE_URL", api.base())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&said).unwrap())
        .spawn()
        .unwrap();
    let watched = async |words: &str| {
        eventually(|| async {
            let said = std::fs::read_to_string(&said).unwrap();
            if said.contains(words) { Ok(()) } else { Err(said) }
        })
        .await;
    };
    watched("in the queue       4 of 4").await;
    api.post(&format!("/v1/tasks/{}/cancel", tasks[0]), &json!({})).await.unwrap().expect_status(202);
    shown(&api, &tasks[3], |task| task["queue"]["position"] == 3).await;
    watched("in the queue       3 of 3").await;
    gated.open();
    for task in [&first, &tasks[1], &tasks[2], &tasks[3]] {
        assert_eq!(result(&api, task).await["status"], "completed");
    }
    let watched = tokio::task::spawn_blocking(move || watch.wait()).await.unwrap().unwrap();
    assert!(watched.success(), "its task completed");
    let metrics = api.get("/metrics").await.unwrap().expect_status(200).text();
    assert!(metrics.contains("fte_runner_queue_length{agent=\"gated\"} 0"), "{metrics}");
    assert!(metrics.contains("fte_runner_queue_wait_seconds_count{agent=\"gated\"} 4"), "{metrics}");
}

#[tokio::test]
async fn what_is_past_the_rate_waits_while_places_are_free() {
    let gated = Gated::start("rate = \"2/h\"", &[]).await;
    let mut tasks = Vec::new();
    for _ in 0..3 {
        tasks.push(gated.ask("ada", "P2").await);
    }
    gated.open();
    for task in &tasks[..2] {
        assert_eq!(gated.fte.result(task).await["status"], "completed");
    }
    let api = gated.fte.api();
    let waiting = shown(&api, &tasks[2], |task| task["queue"]["position"] == 1).await;
    assert_eq!((&waiting["status"], &waiting["queue"]["waiting"]), (&json!("queued"), &json!(1)), "{waiting}");
    // By the last starts it is known how long that may take.
    assert!(waiting["queue"]["wait_s"].as_f64().is_some_and(|seconds| seconds >= 0.0), "{waiting}");
    let agent = gated.agent().await;
    assert_eq!((&agent["in_use"], &agent["capacity"], &agent["rate"]), (&json!(0), &json!(1), &json!("2/h")), "{agent}");
    api.post(&format!("/v1/tasks/{}/cancel", tasks[2]), &json!({})).await.unwrap().expect_status(202);
    assert_eq!(gated.fte.result(&tasks[2]).await["status"], "cancelled");
    let told = settled(&gated.fte.doors(), &tasks).await;
    assert_eq!(tasks.iter().map(|task| told[task].claimed.len()).collect::<Vec<_>>(), [1, 1, 0], "it was never started");
}

#[tokio::test]
async fn a_full_queue_says_when_to_come_back_and_takes_tasks_again() {
    let gated = Gated::start("queue = 2", &[]).await;
    let api = gated.fte.api();
    let taken = Mutex::new(Vec::new());
    let keyed = api.clone().with_header("idempotency-key", "before");
    let before: Value = keyed.post("/v1/tasks", &json!({ "task": "before" })).await.unwrap().expect_status(202).json();
    let refused = eventually(|| async {
        let answer = api.post("/v1/tasks", &json!({ "task": "more" })).await.unwrap();
        if answer.status == 503 {
            return Ok(answer);
        }
        let answer = answer.expect_status(202);
        taken.lock().unwrap().push(answer.json::<Value>()["task_id"].as_str().unwrap().to_owned());
        Err(answer.text())
    })
    .await;
    assert_eq!(refused.problem_code(), "pool_full");
    let retry_after: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=300).contains(&retry_after), "{retry_after}");
    assert_eq!(gated.agent().await["full"], true);
    // Another agent's tasks are accepted, and what was accepted before is so still.
    let repeated: Value = keyed.post("/v1/tasks", &json!({ "task": "before" })).await.unwrap().expect_status(202).json();
    assert_eq!(repeated["task_id"], before["task_id"]);
    let mut accepted = taken.into_inner().unwrap();
    accepted.push(before["task_id"].as_str().unwrap().to_owned());
    accepted.push(gated.fte.post(echo("another agent")).await);
    gated.open();
    let again = eventually(|| async {
        let answer = api.post("/v1/tasks", &json!({ "task": "again" })).await.unwrap();
        if answer.status == 202 { Ok(answer.json::<Value>()) } else { Err(answer.text()) }
    });
    accepted.push(again.await["task_id"].as_str().unwrap().to_owned());
    accepted.sort();
    accepted.dedup();
    assert!(accepted.len() >= 5, "{accepted:?}");
    assert_eq!(settled(&gated.fte.doors(), &accepted).await.len(), accepted.len());
    let letters: Value = api.get("/v1/dead-letters").await.unwrap().expect_status(200).json();
    assert_eq!(letters["items"], json!([]));
}

/// An agent that fails when another one works for the same customer: it takes a lock that goes with its process, however that ends.
fn jealous(locks: &Path) -> String {
    let script = "c=$(cat); exec 9>$0/$c; flock -n 9 || { echo two work for customer $c >&2; exit 1; }; sleep 0.03; echo done";
    format!(
        "default = \"writer\"\n[agents.writer]\nkind = \"command\"\nsandbox = \"none\"\nmax = 4\nconcurrency_key = \"context.customer\"\n\
         command = [\"sh\", \"-c\", '{script}', \"{}\"]\n",
        locks.display()
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_of_one_customer_run_one_at_a_time_across_crashes() {
    let locks = Dir::new();
    std::fs::create_dir_all(locks.join("held")).unwrap();
    let mut fte = Fte::with_agents(&jealous(&locks.join("held")), &[]).await;
    let mut dice = Dice::new(17);
    let mut tasks = Vec::new();
    for _ in 0..4 {
        for _ in 0..12 {
            let customer = dice.below(3).to_string();
            let mut context = Map::new();
            context.insert("customer".to_owned(), json!(customer));
            tasks.push(fte.post(json!({ "task": customer, "context": context })).await);
        }
        tokio::time::sleep(Duration::from_millis(20 + dice.below(150))).await;
        fte.process.kill().await;
        fte.process.restart().await;
    }
    for task in &tasks {
        let result = fte.result(task).await;
        assert_eq!(result["status"], "completed", "{result}");
    }
    assert_eq!(settled(&fte.doors(), &tasks).await.len(), tasks.len());
}
