//! Who decides what an agent may do, and by when: policy, a person who edits, nobody in time. The record shows that what ran is what was approved.

use std::time::Duration;

use fte_events::json_sha256;
use fte_testkit::Client;
use serde_json::{Value, json};

use crate::trail::{actions, settled};
use crate::world::{Dice, Fte, setting};

/// Asks about what its task names, and answers with what it was told.
const ASKER: &str = r#"
import json, sys
start = json.loads(sys.stdin.readline())
print(json.dumps({"type": "approval", "action": start["task"], "reason": "may I?", "data": {"usd": 5}}), flush=True)
told = json.loads(sys.stdin.readline())
print(json.dumps({"type": "result", "result": told}), flush=True)
"#;

async fn with_policy(policy: &str, env: &[(&str, &str)]) -> Fte {
    let agents = format!(
        "default = \"asker\"\n[agents.asker]\nkind = \"process\"\nsandbox = \"none\"\ncommand = [\"python3\", \"-c\", {}]\n[agents.echo]\nkind = \"builtin\"\n[agents.asker.approvals]\n{policy}\n",
        json!(ASKER)
    );
    Fte::with_agents(&agents, env).await
}

/// What the audit has on record about the decisions on a task, once there are so many.
async fn decisions(fte: &Fte, task: &str, count: usize) -> Vec<Value> {
    settled(&fte.doors(), &[task.to_owned()]).await;
    fte_testkit::eventually(|| async {
        let mut found = Vec::new();
        for action in ["approval.granted", "approval.denied"] {
            found.extend(actions(&fte.api(), task, action, 0).await.into_iter().map(|entry| entry["event"]["data"].clone()));
        }
        if found.len() >= count { Ok(found) } else { Err(found) }
    })
    .await
}

/// The decision on a task that was asked about once.
async fn decision(fte: &Fte, task: &str) -> Value {
    decisions(fte, task, 1).await.remove(0)
}

#[tokio::test]
async fn the_policy_answers_what_it_speaks_about_and_is_on_record() {
    let fte = with_policy("rules = { \"mail.*\" = \"allow\", \"mail.delete\" = \"deny\" }", &[]).await;
    let allowed = fte.post(json!({ "task": "mail.read" })).await;
    let result = fte.result(&allowed).await;
    assert_eq!(result["result"], json!({ "type": "decision", "approved": true, "reason": null, "data": { "usd": 5 } }));
    let record = decision(&fte, &allowed).await;
    assert_eq!(record["actor"], json!({ "type": "service", "id": "policy" }));
    assert_eq!((&record["resource"], &record["input_sha256"]), (&json!("mail.read"), &json!(json_sha256(&json!({ "usd": 5 })))));

    let denied = fte.post(json!({ "task": "mail.delete" })).await;
    let result = fte.result(&denied).await;
    assert_eq!((&result["status"], &result["result"]["approved"]), (&json!("completed"), &json!(false)), "it goes on without: {result}");
    let record = decision(&fte, &denied).await;
    assert_eq!((&record["action"], &record["actor"]["id"]), (&json!("approval.denied"), &json!("policy")));

    let asked = fte.post(json!({ "task": "pay" })).await;
    fte.in_status(&asked, "awaiting_approval").await;
}

#[tokio::test]
async fn an_edit_is_what_the_agent_gets_and_the_record_has_its_digest_also_after_a_kill() {
    // Parked at once: the edit waits in the document until the agent is started again.
    let mut fte = with_policy("approvers = [\"ada\"]", &[("FTE_RUNNER_APPROVAL_STAY_MS", "0")]).await;
    let task = fte.post(json!({ "task": "pay" })).await;
    let waiting = fte.asking(&task, 1).await;
    assert!(waiting["approval"]["link"].as_str().unwrap().ends_with(&format!("/v1/approvals/{task}")), "{waiting}");
    let decide = |by: &str, edit: Value| {
        let (api, path, by) = (fte.api(), format!("/v1/tasks/{task}/approval"), by.to_owned());
        async move { api.post(&path, &json!({ "approved": true, "approver": by, "edit": edit })).await.unwrap() }
    };
    assert_eq!(decide("eve", json!({ "usd": 9 })).await.expect_status(403).problem_code(), "not_an_approver");
    decide("ada", json!({ "usd": 3 })).await.expect_status(200);
    decide("ada", json!({ "usd": 3 })).await.expect_status(200);
    assert_eq!(decide("ada", json!({ "usd": 4 })).await.expect_status(409).problem_code(), "decided_otherwise");
    fte.process.kill().await;
    fte.process.restart().await;
    let result = fte.result(&task).await;
    assert_eq!(result["result"]["data"], json!({ "usd": 3 }), "{result}");

    let record = decision(&fte, &task).await;
    assert_eq!(record["actor"], json!({ "type": "user", "id": "ada" }));
    assert_eq!(record["input_sha256"], json!(json_sha256(&result["result"]["data"])), "what ran is what was approved");
    assert_eq!(record["data"]["asked_sha256"], json!(json_sha256(&json!({ "usd": 5 }))), "{record}");
    let seen: Value = fte.api().get(&format!("/v1/approvals/{task}")).await.unwrap().expect_status(200).json();
    assert_eq!(
        (&seen["open"], &seen["decision"]["edited"], &seen["decision"]["approver"]),
        (&json!(false), &json!(true), &json!("ada")),
        "{seen}"
    );
}

#[tokio::test]
async fn an_edit_before_the_start_changes_what_is_done() {
    let fte = Fte::start().await;
    let task = fte.post(json!({ "task": "pay 5 USD", "context": { "to": "bob" }, "require_approval": true })).await;
    fte.asking(&task, 1).await;
    let asked: Value = fte.api().get(&format!("/v1/approvals/{task}")).await.unwrap().expect_status(200).json();
    assert_eq!(
        (&asked["data"], &asked["default"]),
        (&json!({ "task": "pay 5 USD", "context": { "to": "bob" } }), &json!("reject")),
        "{asked}"
    );
    let path = format!("/v1/tasks/{task}/approval");
    for bad in [json!({ "agent": "demo" }), json!({ "task": "" }), json!("x")] {
        let answer = fte.api().post(&path, &json!({ "approved": true, "approver": "ada", "edit": bad })).await.unwrap();
        assert_eq!(answer.expect_status(422).problem_code(), "invalid_decision");
    }
    fte.api()
        .post(&path, &json!({ "approved": true, "approver": "ada", "edit": { "task": "pay 3 USD" } }))
        .await
        .unwrap()
        .expect_status(200);
    let result = fte.result(&task).await;
    assert_eq!(result["result"], json!({ "echo": "pay 3 USD" }));
    let record = decision(&fte, &task).await;
    assert_eq!(record["input_sha256"], json!(json_sha256(&json!({ "task": "pay 3 USD", "context": { "to": "bob" } }))), "{record}");
}

#[tokio::test]
async fn what_nobody_decides_in_time_is_as_the_policy_says() {
    let fte = with_policy("expires = \"1s\"\non_expiry = \"approve\"", &[("FTE_RUNNER_APPROVAL_STAY_MS", "0")]).await;
    let task = fte.post(json!({ "task": "pay" })).await;
    let result = fte.result(&task).await;
    assert_eq!((&result["status"], &result["result"]["approved"]), (&json!("completed"), &json!(true)), "{result}");
    let record = decision(&fte, &task).await;
    assert_eq!((&record["actor"]["id"], &record["action"]), (&json!("policy"), &json!("approval.granted")), "{record}");
}

/// Asks twice, and keeps what it was told first before it asks again.
const TWICE: &str = r#"
import json, sys
def ask(**fields):
    print(json.dumps({"type": "approval", **fields}), flush=True)
    line = sys.stdin.readline()
    return json.loads(line)["data"] if line else sys.exit()
start = json.loads(sys.stdin.readline())
first = start["checkpoint"]
if first is None:
    first = ask(reason="first?", data={"n": 1})
    print(json.dumps({"type": "checkpoint", "data": first}), flush=True)
print(json.dumps({"type": "result", "result": [first, ask(reason="second?", data={"n": 2})]}), flush=True)
"#;

/// Says yes to every question that is open, once. Who is away is asked again.
async fn say_yes(api: &Client, tasks: &[String]) {
    for task in tasks {
        let Ok(shown) = api.get(&format!("/v1/tasks/{task}")).await else { return };
        let question = if shown.status == 200 { shown.json::<Value>()["approval"]["question"].clone() } else { Value::Null };
        if !question.is_null() {
            let yes = json!({ "approved": true, "question": question, "approver": "ada" });
            // An answer that was lost, or came too late: the next look shows which.
            drop(api.post(&format!("/v1/tasks/{task}/approval"), &yes).await);
        }
    }
}

/// `FTE_APPROVAL_KILLS` and `FTE_KILL_SEED` repeat or change a run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_of_an_approval_each_question_is_decided_once_and_each_task_done() {
    let (kills, seed) = (setting("FTE_APPROVAL_KILLS", 10), setting("FTE_KILL_SEED", 0xa11));
    println!("seed: FTE_KILL_SEED={seed}");
    let mut dice = Dice::new(seed);
    let agents = format!("[agents.asker]\nkind = \"process\"\nsandbox = \"none\"\ncommand = [\"python3\", \"-c\", {}]\n", json!(TWICE));
    // Parked after a moment, or told in its sandbox: both come up.
    let mut fte = Fte::with_agents(&agents, &[("FTE_RUNNER_APPROVAL_STAY_MS", "150")]).await;
    let mut tasks = Vec::new();
    for round in 0..kills {
        tasks.push(fte.post(json!({ "task": "ask", "require_approval": round % 2 == 0 })).await);
        let api = fte.api();
        let deciding = async {
            loop {
                say_yes(&api, &tasks).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let moment = Duration::from_millis(50 + dice.below(900));
        tokio::time::timeout(moment, deciding).await.expect_err("it decides until the kill");
        fte.process.kill().await;
        fte.process.restart().await;
    }
    for task in &tasks {
        fte_testkit::eventually(|| async {
            say_yes(&fte.api(), std::slice::from_ref(task)).await;
            let ended = fte.api().get(&format!("/v1/tasks/{task}/result")).await.map_err(|error| error.to_string())?;
            if ended.status == 200 { Ok(()) } else { Err(ended.text()) }
        })
        .await;
        let end = fte.result(task).await;
        assert_eq!(end["result"], json!([{ "n": 1 }, { "n": 2 }]), "{end}");
    }
    settled(&fte.doors(), &tasks).await;
    for (round, task) in tasks.iter().enumerate() {
        let expected = if round % 2 == 0 { 3 } else { 2 };
        let granted = decisions(&fte, task, expected).await;
        assert_eq!(granted.len(), expected, "asked and answered once each: {granted:?}");
        assert!(granted.iter().all(|record| record["actor"]["id"] == "ada"), "{granted:?}");
    }
}
