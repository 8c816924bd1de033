//! Who decides what an agent may do, and by when: policy, a person who edits, nobody in time. The record shows that what ran is what was approved.

use fte_events::json_sha256;
use serde_json::{Value, json};

use crate::trail::settled;
use crate::world::Fte;

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

/// What the audit has on record about the decisions on a task.
async fn decisions(fte: &Fte, task: &str) -> Vec<Value> {
    settled(&fte.doors(), &[task.to_owned()]).await;
    let mut found = Vec::new();
    for action in ["approval.granted", "approval.denied"] {
        let path = format!("/v1/audit/entries?task_id={task}&action={action}");
        let entries: Value = fte.api().get(&path).await.unwrap().expect_status(200).json();
        found.extend(entries["items"].as_array().unwrap().iter().map(|entry| entry["event"]["data"].clone()));
    }
    found
}

#[tokio::test]
async fn the_policy_answers_what_it_speaks_about_and_is_on_record() {
    let fte = with_policy("rules = { \"mail.*\" = \"allow\", \"mail.delete\" = \"deny\" }", &[]).await;
    let allowed = fte.post(json!({ "task": "mail.read" })).await;
    let result = fte.result(&allowed).await;
    assert_eq!(result["result"], json!({ "type": "decision", "approved": true, "reason": null, "data": { "usd": 5 } }));
    let record = decisions(&fte, &allowed).await.remove(0);
    assert_eq!(record["actor"], json!({ "type": "service", "id": "policy" }));
    assert_eq!((&record["resource"], &record["input_sha256"]), (&json!("mail.read"), &json!(json_sha256(&json!({ "usd": 5 })))));

    let denied = fte.post(json!({ "task": "mail.delete" })).await;
    let result = fte.result(&denied).await;
    assert_eq!((&result["status"], &result["result"]["approved"]), (&json!("completed"), &json!(false)), "it goes on without: {result}");
    let record = decisions(&fte, &denied).await.remove(0);
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

    let record = decisions(&fte, &task).await.remove(0);
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
        let answer = fte.api().post(&path, &json!({ "approved": true, "edit": bad })).await.unwrap();
        assert_eq!(answer.expect_status(422).problem_code(), "invalid_decision");
    }
    fte.api()
        .post(&path, &json!({ "approved": true, "approver": "ada", "edit": { "task": "pay 3 USD" } }))
        .await
        .unwrap()
        .expect_status(200);
    let result = fte.result(&task).await;
    assert_eq!(result["result"], json!({ "echo": "pay 3 USD" }));
    let record = decisions(&fte, &task).await.remove(0);
    assert_eq!(record["input_sha256"], json!(json_sha256(&json!({ "task": "pay 3 USD", "context": { "to": "bob" } }))), "{record}");
}

#[tokio::test]
async fn what_nobody_decides_in_time_is_as_the_policy_says() {
    let fte = with_policy("expires = \"1s\"\non_expiry = \"approve\"", &[("FTE_RUNNER_APPROVAL_STAY_MS", "0")]).await;
    let task = fte.post(json!({ "task": "pay" })).await;
    let result = fte.result(&task).await;
    assert_eq!((&result["status"], &result["result"]["approved"]), (&json!("completed"), &json!(true)), "{result}");
    let record = decisions(&fte, &task).await.remove(0);
    assert_eq!((&record["actor"]["id"], &record["action"]), (&json!("policy"), &json!("approval.granted")), "{record}");
}
