//! People say something to a task while its agent works, and the runner is killed in between.

use serde_json::{Value, json};

use crate::trail::settled;
use crate::world::{Fte, shown};

/// Hears until it is told to finish; keeps what it heard when it is told to, and what it kept it takes up again.
const LISTENER: &str = r#"
import json, sys

def say(**message):
    print(json.dumps(message), flush=True)

start = json.loads(sys.stdin.readline())
heard = start["checkpoint"] or []
say(type="stage", name=f"listening after {len(heard)}")
for line in sys.stdin:
    message = json.loads(line)
    if message["type"] != "message":
        continue
    heard.append({key: message[key] for key in ("id", "text", "data")})
    if message["text"] == "keep":
        say(type="checkpoint", data=heard, messages=[each["id"] for each in heard])
        say(type="stage", name="kept")
    if message["text"] == "finish":
        say(type="result", result=heard)
        break
"#;

fn agents(script: &str) -> String {
    format!(
        "default = \"listener\"\n[agents.listener]\nkind = \"process\"\nmessages = true\nsandbox = \"none\"\ncommand = [\"python3\", \"-c\", {}]\n[agents.echo]\nkind = \"builtin\"\n",
        json!(script)
    )
}

async fn send(fte: &Fte, task: &str, id: &str, text: &str) -> fte_testkit::Response {
    fte.api().post(&format!("/v1/tasks/{task}/messages"), &json!({ "text": text, "message_id": id, "data": { "n": id } })).await.unwrap()
}

fn ids(result: &Value) -> Vec<&str> {
    result["result"].as_array().unwrap().iter().map(|heard| heard["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_message_that_was_accepted_survives_kills_and_is_heard_once_by_who_finishes() {
    let mut fte = Fte::with_agents(&agents(LISTENER), &[]).await;
    let task = fte.post(json!({ "task": "listen" })).await;
    shown(&fte.api(), &task, |task| task["stage"] == "listening after 0").await;
    send(&fte, &task, "m1", "one").await.expect_status(202);
    // Between the message and its delivery, or just after.
    fte.process.kill().await;
    fte.process.restart().await;
    send(&fte, &task, "m1", "one").await.expect_status(202);
    assert_eq!(send(&fte, &task, "m1", "another").await.expect_status(409).problem_code(), "message_id_reused");

    // What a checkpoint includes is not told again; what none includes is.
    send(&fte, &task, "m2", "keep").await.expect_status(202);
    shown(&fte.api(), &task, |task| task["stage"] == "kept").await;
    send(&fte, &task, "m3", "three").await.expect_status(202);
    fte.process.kill().await;
    fte.process.restart().await;
    shown(&fte.api(), &task, |task| task["stage"] == "listening after 2").await;
    send(&fte, &task, "m4", "finish").await.expect_status(202);
    let result = fte.result(&task).await;
    assert_eq!(ids(&result), ["m1", "m2", "m3", "m4"], "{result}");
    assert_eq!(result["result"][0]["data"], json!({ "n": "m1" }));

    // On record, as digests.
    settled(&fte.doors(), std::slice::from_ref(&task)).await;
    let entries: Value =
        fte.api().get(&format!("/v1/audit/entries?task_id={task}&action=message.accepted")).await.unwrap().expect_status(200).json();
    let entries = entries["items"].as_array().unwrap();
    assert_eq!(entries.len(), 4, "{entries:?}");
    assert!(
        entries.iter().all(|entry| entry["event"]["data"]["input_sha256"].is_string() && !entry.to_string().contains("three")),
        "{entries:?}"
    );
    assert_eq!(send(&fte, &task, "m5", "late").await.expect_status(409).problem_code(), "task_ended");
    send(&fte, &task, "m1", "one").await.expect_status(202);
}

#[tokio::test]
async fn a_message_waits_for_a_task_that_waits_and_is_refused_by_who_hears_nothing() {
    let fte = Fte::with_agents(&agents(LISTENER), &[]).await;
    let task = fte.post(json!({ "task": "listen", "require_approval": true })).await;
    fte.in_status(&task, "awaiting_approval").await;
    send(&fte, &task, "early", "early").await.expect_status(202);
    fte.api().post(&format!("/v1/tasks/{task}/approval"), &json!({ "approved": true })).await.unwrap().expect_status(200);
    // Busy: one that shall not wait is refused.
    shown(&fte.api(), &task, |task| task["status"] == "running" && task["stage"].is_string()).await;
    let busy = json!({ "text": "now", "policy": "reject" });
    let busy = fte.api().post(&format!("/v1/tasks/{task}/messages"), &busy).await.unwrap();
    assert_eq!(busy.expect_status(409).problem_code(), "agent_busy");
    send(&fte, &task, "last", "finish").await.expect_status(202);
    assert_eq!(ids(&fte.result(&task).await), ["early", "last"]);

    let deaf = fte.post(json!({ "task": "x", "agent": "echo", "delay": "1h" })).await;
    assert_eq!(send(&fte, &deaf, "m", "hello").await.expect_status(409).problem_code(), "messages_unsupported");
    let nobody = fte_events::TaskId::now().to_string();
    assert_eq!(send(&fte, &nobody, "m", "hello").await.expect_status(404).problem_code(), "task_not_found");
    assert_eq!(send(&fte, &task, "m", " ").await.expect_status(422).problem_code(), "invalid_message");
}
