//! People say something to a task while its agent works, and the runner is killed in between.

use fte_testkit::{Answer, Dir, FakeApp, FteProcess, built_binary};
use serde_json::{Value, json};

use crate::trail::{actions, settled};
use crate::world::{Fte, post, result, shown, told};

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
    let entries = actions(&fte.api(), &task, "message.accepted", 4).await;
    assert_eq!(entries.len(), 4, "{entries:?}");
    assert!(
        entries.iter().all(|entry| entry["event"]["data"]["input_sha256"].is_string() && !entry.to_string().contains("three")),
        "{entries:?}"
    );
    assert_eq!(send(&fte, &task, "m5", "late").await.expect_status(409).problem_code(), "task_ended");
    send(&fte, &task, "m1", "one").await.expect_status(202);
}

#[tokio::test]
async fn a_message_is_from_whom_it_names() {
    let fte = Fte::with_agents(&agents(LISTENER), &[]).await;
    let task = fte.post(json!({ "task": "listen" })).await;
    let path = format!("/v1/tasks/{task}/messages");
    let send =
        async |id: &str, text: &str, by: Value| fte.api().post(&path, &json!({ "text": text, "message_id": id, "by": by })).await.unwrap();
    shown(&fte.api(), &task, |task| task["stage"] == "listening after 0").await;
    assert_eq!(send("m0", "long", json!("x".repeat(201))).await.expect_status(422).problem_code(), "invalid_message");
    send("m1", "one", json!("ada")).await.expect_status(202);
    send("m2", "two", json!(null)).await.expect_status(202);
    send("m3", "finish", json!("bob")).await.expect_status(202);
    assert_eq!(fte.result(&task).await["status"], "completed");
    for (id, by) in [("m1", "ada"), ("m2", "unknown"), ("m3", "bob")] {
        told(&fte.api(), &task, |event| {
            let message = &event["data"]["details"]["message"];
            message["id"] == id && message["from"] == by
        })
        .await;
    }
    settled(&fte.doors(), std::slice::from_ref(&task)).await;
    let said = actions(&fte.api(), &task, "message.accepted", 3).await;
    let by: Vec<&Value> = said.iter().map(|entry| &entry["event"]["data"]["actor"]["id"]).collect();
    assert_eq!(by, ["ada", "unknown", "bob"], "{said:?}");
}

#[tokio::test]
async fn a_message_waits_for_a_task_that_waits_and_is_refused_by_who_hears_nothing() {
    let fte = Fte::with_agents(&agents(LISTENER), &[]).await;
    let task = fte.post(json!({ "task": "listen", "require_approval": true })).await;
    fte.in_status(&task, "awaiting_approval").await;
    send(&fte, &task, "early", "early").await.expect_status(202);
    fte.api()
        .post(&format!("/v1/tasks/{task}/approval"), &json!({ "approved": true, "approver": "ada" }))
        .await
        .unwrap()
        .expect_status(200);
    // Busy: one that shall not wait is refused.
    shown(&fte.api(), &task, |task| task["status"] == "running" && task["stage"].is_string()).await;
    let busy = json!({ "text": "now", "policy": "reject" });
    let busy = fte.api().post(&format!("/v1/tasks/{task}/messages"), &busy).await.unwrap();
    assert_eq!(busy.expect_status(409).problem_code(), "agent_busy");
    send(&fte, &task, "last", "finish").await.expect_status(202);
    assert_eq!(ids(&fte.result(&task).await), ["early", "last"]);

    let deaf = fte.post(json!({ "task": "x", "agent": "echo", "delay": "1h" })).await;
    fte.in_status(&deaf, "queued").await;
    assert_eq!(send(&fte, &deaf, "m", "hello").await.expect_status(409).problem_code(), "messages_unsupported");
    let nobody = fte_events::TaskId::now().to_string();
    assert_eq!(send(&fte, &nobody, "m", "hello").await.expect_status(404).problem_code(), "task_not_found");
    assert_eq!(send(&fte, &task, "m", " ").await.expect_status(422).problem_code(), "invalid_message");
}

/// Waits for messages while it works on something long; leaves that for a message that shall not wait.
const WORKER: &str = r#"
import json, sys

def say(**message):
    print(json.dumps(message), flush=True)

start = json.loads(sys.stdin.readline())
say(type="stage", name="working")
noted = []
for line in sys.stdin:
    message = json.loads(line)
    noted.append(message["text"])
    if message["interrupt"]:
        say(type="result", result={"noted": noted[:-1], "left for": noted[-1]})
        break
    say(type="stage", name=message["text"])
"#;

#[tokio::test]
async fn an_agent_knows_a_message_that_shall_not_wait_from_one_that_may() {
    let fte = Fte::with_agents(&agents(WORKER), &[]).await;
    let task = fte.post(json!({ "task": "work" })).await;
    shown(&fte.api(), &task, |task| task["stage"] == "working").await;
    send(&fte, &task, "m1", "when you can").await.expect_status(202);
    shown(&fte.api(), &task, |task| task["stage"] == "when you can").await;
    let now = json!({ "text": "now", "policy": "interrupt" });
    fte.api().post(&format!("/v1/tasks/{task}/messages"), &now).await.unwrap().expect_status(202);
    let end = fte.result(&task).await;
    assert_eq!(end["result"], json!({ "noted": ["when you can"], "left for": "now" }), "{end}");
}

/// Works in its first turn until that is cancelled; then each message is a turn of its own.
const TURNS: &str = r#"#
agent.update("plan", entries=[{"content": "work", "priority": "high", "status": "in_progress"}])
while "session/cancel" not in agent.seen: agent.read()
agent.end("cancelled")
heard = []
for turn in range(2):
    prompt = agent.wait_for("session/prompt")
    agent.prompt_id = prompt["id"]
    heard.append([block["text"] for block in prompt["params"]["prompt"]])
    agent.say(json.dumps([heard, len(agent.seen)]))
    agent.end()"#;

#[tokio::test]
async fn an_acp_agent_is_told_between_its_turns_and_an_interrupt_ends_the_turn() {
    let dir = Dir::new();
    let toml = "[agents.coder]\nkind = \"acp\"\ncommand = [\"python3\", \"agent.py\", \"load\"]\n";
    let agents = dir.write("agents.toml", toml);
    dir.write("agent.py", include_str!("../../../crates/runner/tests/agents/acp/agent.py"));
    let args = ["--agents", agents.to_str().unwrap()];
    let fte = FteProcess::start_with(built_binary(), dir.join("data"), args, [] as [(&str, &str); 0]).await;
    let api = fte.api();
    let task = post(&api, json!({ "task": TURNS })).await;
    shown(&api, &task, |task| task["stage"] == "work").await;
    let path = format!("/v1/tasks/{task}/messages");
    let keyed = api.clone().with_header("idempotency-key", "not one");
    assert_eq!(keyed.post(&path, &json!({ "text": "nought" })).await.unwrap().expect_status(400).problem_code(), "invalid_idempotency_key");
    api.post(&path, &json!({ "text": "one", "data": { "n": 1 }, "message_id": "m1" })).await.unwrap().expect_status(202);
    // Told, and the turn goes on: nothing ends it but the second one.
    told(&api, &task, |event| event["data"]["details"]["message"]["id"] == "m1").await;
    api.post(&path, &json!({ "text": "two", "policy": "interrupt", "message_id": "m2" })).await.unwrap().expect_status(202);
    let end = result(&api, &task).await;
    assert_eq!(end["status"], "completed", "{end}");
    let found: Value = serde_json::from_str(end["result"].as_str().unwrap()).unwrap();
    assert_eq!(found, json!([[["one", "With this, as JSON:\n{\n  \"n\": 1\n}"], ["two"]], 1]), "{end}");
}

/// An agent elsewhere: works until somebody says something to its task, which is its result. Each message is taken once, by its id.
async fn far() -> FakeApp {
    let heard: std::sync::Arc<std::sync::Mutex<Vec<Value>>> = std::sync::Arc::default();
    FakeApp::start(json!([]), move |asked| {
        let heard = std::sync::Arc::clone(&heard);
        async move {
            if asked.path.ends_with(".json") {
                let interface = json!({ "url": "/rpc", "protocolBinding": "JSONRPC", "protocolVersion": "1.0" });
                return Answer::json(&json!({
                    "name": "far", "version": "1", "capabilities": { "streaming": false }, "supportedInterfaces": [interface]
                }));
            }
            let call = asked.json();
            let message = &call["params"]["message"];
            let mut heard = heard.lock().unwrap();
            if message["taskId"] == "t-1" && !heard.iter().any(|known| known["messageId"] == message["messageId"]) {
                heard.push(message.clone());
            }
            let mut task = json!({ "id": "t-1", "contextId": "c-1", "status": { "state": "TASK_STATE_WORKING" } });
            if !heard.is_empty() {
                let parts: Vec<Value> = heard.iter().flat_map(|heard| heard["parts"].as_array().unwrap().clone()).collect();
                let message = json!({ "messageId": "end", "role": "ROLE_AGENT", "parts": parts });
                task["status"] = json!({ "state": "TASK_STATE_COMPLETED", "message": message });
            }
            let result = if call["method"] == "SendMessage" { json!({ "task": task }) } else { task };
            Answer::json(&json!({ "jsonrpc": "2.0", "id": call["id"], "result": result }))
        }
    })
    .await
}

#[tokio::test]
async fn an_a2a_agent_is_sent_what_people_say_to_its_task() {
    let far = far().await;
    let toml = format!("[agents.far]\nkind = \"http\"\nurl = \"http://127.0.0.1:{}\"\n", far.port());
    let fte = Fte::with_agents(&toml, &[]).await;
    let task = fte.post(json!({ "task": "wait" })).await;
    // Its task elsewhere is known, and asked for.
    fte_testkit::eventually(|| async {
        let asked = far.received();
        let polled = asked.iter().any(|call| call.method == "POST" && call.json()["method"] == "GetTask");
        if polled { Ok(()) } else { Err(format!("{asked:?}")) }
    })
    .await;
    let word = json!({ "text": "enough", "data": { "n": 1 }, "policy": "interrupt", "message_id": "m1" });
    fte.api().post(&format!("/v1/tasks/{task}/messages"), &word).await.unwrap().expect_status(202);
    let end = fte.result(&task).await;
    assert_eq!((&end["status"], &end["result"]), (&json!("completed"), &json!(["enough", { "n": 1 }])), "{end}");
    let sent: Vec<Value> = far
        .received()
        .iter()
        .filter(|call| call.method == "POST")
        .map(fte_testkit::Received::json)
        .filter(|call| call["method"] == "SendMessage")
        .collect();
    assert_eq!(sent.len(), 2, "the task, and what was said to it: {sent:?}");
    assert_eq!(sent[1]["params"]["message"]["taskId"], "t-1");
    settled(&fte.doors(), &[task]).await;
}
