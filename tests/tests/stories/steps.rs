//! The runner killed at each step of a story: at its first change, its second, and so on, until a story comes to its end before that. Whether the change has taken
//! effect by then is a matter of chance, which a seed repeats.

use fte_testkit::eventually_within;
use serde_json::{Value, json};

use crate::between::Moment;
use crate::parts::{Parts, Way};
use crate::trail::{actions, settled};
use crate::world::{Dice, LOAD_PATIENCE, look, post, result, result_within, setting};

/// The one process that holds this seat is taken over at once, and whoever waits is parked at once.
const AT_ONCE: &[(&str, &str)] =
    &[("FTE_RUNNER_SEAT", "pod-0"), ("FTE_RUNNER_APPROVAL_STAY_MS", "0"), ("FTE_RUNNER_HANDOFF_STAY_MS", "50")];
/// More steps than any story has.
const STEPS_MAX: usize = 150;

/// What the stories came to.
struct Told {
    /// The tasks, one of each telling.
    tasks: Vec<String>,
    /// The calls at which the runner was killed.
    calls: Vec<String>,
}

impl Told {
    /// How many calls a story makes depends on how much of it goes out at once. Each has writes and events; its timers are made beside those, so that one of them is
    /// at the place of some step by chance.
    fn has_every_kind(&self) {
        for kind in ["/v1.0/state/", "/publish/"] {
            assert!(self.calls.iter().any(|call| call.contains(kind)), "no step is a call of {kind}: {:#?}", self.calls);
        }
    }
}

/// Tells the story again and again, and kills the runner at each of its steps.
async fn killed_at_each_step(parts: &mut Parts, task: &Value, person: impl AsyncFn(&str)) -> Told {
    let seed = setting("FTE_KILL_SEED", 0x57e9);
    println!("seed: FTE_KILL_SEED={seed}");
    let mut dice = Dice::new(seed);
    let (mut tasks, mut calls) = (Vec::new(), Vec::new());
    let doors = parts.doors();
    loop {
        let moment = if dice.below(2) == 0 { Moment::Before } else { Moment::After };
        let step = tasks.len();
        assert!(step < STEPS_MAX, "a story without an end");
        let between = parts.runners[0].between.as_ref().unwrap();
        between.catch(step, moment);
        let told = post(&doors.intake, task.clone()).await;
        tasks.push(told.clone());
        let whole = async {
            person(&told).await;
            complete(parts, &told).await;
        };
        let caught = tokio::select! {
            caught = between.caught() => Some(caught),
            () = whole => None,
        };
        let Some(call) = caught else {
            between.let_through();
            println!("{step} steps");
            return Told { tasks, calls };
        };
        println!("step {step}: killed {moment:?} {call}");
        calls.push(call);
        parts.runners[0].daemon.kill().await;
        parts.runners[0].between.as_ref().unwrap().let_through();
        parts.runners[0].kill_and_restart().await;
        person(&told).await;
        complete(parts, &told).await;
    }
}

/// Until all that can be told of a task is on record.
async fn complete(parts: &Parts, task: &str) {
    eventually_within(LOAD_PATIENCE, || async {
        let history = look(&parts.audit.api, &format!("/v1/audit/tasks/{task}")).await?;
        if history["complete"] == true { Ok(()) } else { Err(history.to_string()) }
    })
    .await;
}

/// Asks, and says what it was told.
const ASKER: &str = r#"read -r start; echo '{"type":"approval","reason":"may I?","data":{"usd":5}}'; read -r told; case $told in *true*) echo '{"type":"result","result":"done"}';; esac"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_each_step_of_an_approval_it_is_asked_and_decided_once() {
    let command = json!(["sh", "-c", ASKER]);
    let agents = format!("[agents.asker]\nkind = \"process\"\nsandbox = \"none\"\ncommand = {command}\n");
    let mut parts = Parts::with_between(&agents, &[AT_ONCE], Way::Calls).await;
    let doors = parts.doors();
    let (runner, status) = (doors.runner.clone(), doors.status.clone());
    // Says yes until it counts: an answer may be lost, and a question asked again.
    let person = async move |task: &str| {
        eventually_within(LOAD_PATIENCE, || async {
            let shown = look(&status, &format!("/v1/tasks/{task}")).await?;
            if let Some(question) = shown["approval"]["question"].as_u64() {
                let yes = json!({ "approved": true, "question": question, "approver": "ada" });
                // Who was killed meanwhile answers nothing; the next look shows what came of it.
                drop(runner.post(&format!("/v1/tasks/{task}/approval"), &yes).await);
            }
            if shown["result"].is_string() || shown["error"].is_object() { Ok(()) } else { Err(shown.to_string()) }
        })
        .await;
    };
    let told = killed_at_each_step(&mut parts, &json!({ "task": "pay" }), person).await;
    told.has_every_kind();
    let tasks = told.tasks;
    settled(&doors, &tasks).await;
    for task in &tasks {
        assert_eq!(result(&doors.status, task).await["result"], "done");
        let granted = actions(&doors.audit, task, "approval.granted", 1).await;
        assert_eq!(granted.len(), 1, "{granted:?}");
        assert_eq!(granted[0]["event"]["data"]["actor"]["id"], "ada");
        // However often the agent was started: it asked one thing.
        assert_eq!(look(&doors.runner, &format!("/v1/approvals/{task}")).await.unwrap()["question"], 1);
    }
}

/// Hands its work on, and says what came of it.
const LEAD: &str = r#"read -r start; echo '{"type":"handoff","to":"hand","task":"do it"}'; read -r told; case $told in *completed*) echo '{"type":"result","result":"done"}';; esac"#;
const HAND: &str = r#"read -r start; echo '{"type":"result","result":1}'"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_each_step_of_a_hand_off_there_is_one_other_task_and_one_reply() {
    let agent = |name: &str, script: &str| {
        format!("[agents.{name}]\nkind = \"process\"\nsandbox = \"none\"\ncommand = {}\n", json!(["sh", "-c", script]))
    };
    let agents = format!("default = \"lead\"\n{}{}", agent("lead", LEAD), agent("hand", HAND));
    let mut parts = Parts::with_between(&agents, &[AT_ONCE], Way::Calls).await;
    let doors = parts.doors();
    let status = doors.status.clone();
    let nobody = async move |task: &str| drop(result_within(LOAD_PATIENCE, &status, task).await);
    let told = killed_at_each_step(&mut parts, &json!({ "task": "lead" }), nobody).await;
    told.has_every_kind();
    let tasks = told.tasks;
    let mut all = tasks.clone();
    for task in &tasks {
        assert_eq!(result(&doors.status, task).await["result"], "done");
        let tree = look(&doors.status, &format!("/v1/tasks/{task}/tree")).await.unwrap();
        let children = tree["children"].as_array().unwrap();
        assert_eq!(children.len(), 1, "{tree}");
        all.push(children[0]["task_id"].as_str().unwrap().to_owned());
    }
    let told = settled(&doors, &all).await;
    assert_eq!(told.len(), all.len(), "nothing else came to be");
}
