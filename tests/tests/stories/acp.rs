//! An agent that speaks the Agent Client Protocol, through the whole program: behind walls as any other, its commands too, and a person decides.

use std::path::Path;
use std::process::Command;

use fte_testkit::{Dir, FteProcess, built_binary, eventually};
use serde_json::{Value, json};

use crate::trail::settled;
use crate::world::{Fte, in_status, post, result, told};

const AGENTS: &str = r#"
    [agents.coder]
    kind = "acp"
    command = ["python3", "agent.py", ""]
"#;

/// What it does: asks, runs a command, reads what that wrote.
const TASK: &str = r#"#
answer = agent.wish("execute", "look around")
made = agent.ask("terminal/create", command="uname -n; cat ../../../../secret.txt; echo written > note; exit 3")
exit = agent.ask("terminal/wait_for_exit", terminalId=made["terminalId"])
output = agent.ask("terminal/output", terminalId=made["terminalId"])["output"]
note = agent.ask("fs/read_text_file", path=agent.cwd + "/note")["content"]
agent.say(json.dumps([answer, exit["exitCode"], "sandbox" in output.splitlines(), "No such file" in output, note]))
agent.end()"#;

#[tokio::test]
async fn a_coding_agent_works_behind_walls_and_is_parked_while_a_person_decides() {
    let dir = Dir::new();
    let agents = dir.write("agents.toml", AGENTS);
    dir.write("agent.py", include_str!("../../../crates/runner/tests/agents/acp/agent.py"));
    dir.write("secret.txt", "outside");
    let args = ["--agents", agents.to_str().unwrap()];
    let env = [("FTE_RUNNER_APPROVAL_STAY_MS", "100")];
    let process = FteProcess::start_with(built_binary(), dir.join("data"), args, env).await;
    let api = process.api();
    let task = post(&api, json!({ "task": TASK, "agent": "coder" })).await;
    let waiting = in_status(&api, &task, "awaiting_approval").await;
    assert_eq!(waiting["approval"]["data"], json!({"kind": "execute", "title": "look around"}), "{waiting}");
    // Its sandbox is free again; the agent that is started later asks the same and has its answer at once.
    eventually(|| async {
        let agents = api.get("/v1/agents").await.map_err(|error| error.to_string())?.json::<Value>();
        if agents["items"][0]["in_use"] == 0 { Ok(()) } else { Err(agents.to_string()) }
    })
    .await;
    let decision = json!({ "approved": true, "approver": "ada" });
    api.post(&format!("/v1/tasks/{task}/approval"), &decision).await.unwrap().expect_status(200);
    let end = result(&api, &task).await;
    assert_eq!(end["status"], "completed", "{end}");
    let found: Value = serde_json::from_str(end["result"].as_str().unwrap()).unwrap();
    assert_eq!(found, json!(["id-allow_once", 3, true, true, "written\n"]));
}

/// Asks, makes a file, and says how its session began.
const RESUMED: &str = r#"#
answer = agent.wish("execute", "go on?")
agent.ask("fs/write_text_file", path="deep/note.md", content=agent.opened)
agent.say(json.dumps([answer, agent.opened, agent.session, agent.prompt[0][:28]]))
agent.end()"#;

#[tokio::test]
async fn a_parked_session_goes_on_by_its_id_after_a_crash_and_a_new_one_begins_where_it_cannot() {
    let dir = Dir::new();
    let agent = |name: &str| format!("[agents.{name}]\nkind = \"acp\"\ncommand = [\"python3\", \"agent.py\", \"{name}\"]\n");
    let agents =
        dir.write("agents.toml", ["default = \"load\"\n".to_owned(), agent("load"), agent("load-fails"), agent("load-dies")].concat());
    dir.write("agent.py", include_str!("../../../crates/runner/tests/agents/acp/agent.py"));
    let args = ["--agents", agents.to_str().unwrap()];
    let mut process = FteProcess::start_with(built_binary(), dir.join("data"), args, [("FTE_RUNNER_APPROVAL_STAY_MS", "100")]).await;
    let api = process.api();
    let mut tasks = Vec::new();
    for agent in ["load", "load-fails", "load-dies"] {
        tasks.push(post(&api, json!({ "task": RESUMED, "agent": agent })).await);
    }
    for task in &tasks {
        in_status(&api, task, "awaiting_approval").await;
    }
    // Parked, all of them: each has given its sandbox back.
    for task in &tasks {
        told(&api, task, |event| event["type"] == "fte.sandbox.released" && event["data"]["reason"] == "parked").await;
    }
    process.kill().await;
    process.restart().await;
    let api = process.api();
    for task in &tasks {
        api.post(&format!("/v1/tasks/{task}/approval"), &json!({ "approved": true, "approver": "ada" })).await.unwrap().expect_status(200);
    }
    let goes_on = "This session was interrupted";
    for (task, attempt, opened, prompt) in [
        (&tasks[0], 1, "session/load", goes_on),
        (&tasks[1], 1, "session/load", &RESUMED[..28]),
        (&tasks[2], 2, "session/new", &RESUMED[..28]),
    ] {
        let end = result(&api, task).await;
        assert_eq!((&end["status"], &end["attempt"]), (&json!("completed"), &json!(attempt)), "{end}");
        let found: Value = serde_json::from_str(end["result"].as_str().unwrap()).unwrap();
        assert_eq!(found, json!(["id-allow_once", opened, "s1", prompt]), "{end}");
        // What it wrote is an artifact.
        assert_eq!((&end["artifacts"][0]["name"], &end["artifacts"][1]), (&json!("note.md"), &Value::Null), "{end}");
        let kept = api.get(&format!("/v1/tasks/{task}/artifacts/note.md")).await.unwrap().expect_status(200);
        assert_eq!(kept.text(), opened);
    }
    // The one that had forgotten it says so to people.
    let forgot =
        |event: &Value| event["data"]["details"]["log"].to_string().contains("cannot be taken up again, a new one begins: no such session");
    told(&api, &tasks[1], forgot).await;
}

/// Until so many programs wait for a task.
async fn waits(process: &FteProcess, count: usize) {
    let ahead = process.data().join("workspaces/ahead");
    eventually(|| async {
        let waiting = std::fs::read_dir(&ahead).map_or(0, Iterator::count);
        if waiting == count { Ok(()) } else { Err(waiting) }
    })
    .await;
}

#[tokio::test]
async fn who_waits_behind_its_walls_for_a_task_was_initialised_serves_one_and_is_replaced() {
    let dir = Dir::new();
    let ready = r#"
    [agents.ready]
    kind = "acp"
    command = ["python3", "agent.py", "before:open('greeted', 'w').close()"]
    min_warm = 2
    max = 3
"#;
    let agents = dir.write("agents.toml", ready);
    dir.write("agent.py", include_str!("../../../crates/runner/tests/agents/acp/agent.py"));
    dir.write("secret.txt", "outside");
    let args = ["--agents", agents.to_str().unwrap()];
    let process = FteProcess::start_with(built_binary(), dir.join("data"), args, [] as [(&str, &str); 0]).await;
    let api = process.api();
    let script = r#"#
agent.say(json.dumps([os.uname().nodename, os.path.exists("../../../../secret.txt"), os.listdir("."), agent.cwd == os.getcwd(), agent.cwd]))
agent.end()"#;
    let mut tasks = Vec::new();
    for _ in 0..4 {
        waits(&process, 2).await;
        let ahead = process.data().join("workspaces/ahead");
        let greeted = || std::fs::read_dir(&ahead).unwrap().flatten().filter(|entry| entry.path().join("greeted").exists()).count();
        eventually(|| async { if greeted() == 2 { Ok(()) } else { Err("not asked to initialise yet") } }).await;
        let task = post(&api, json!({ "task": script })).await;
        let claimed = told(&api, &task, |event| event["type"] == "fte.sandbox.claimed").await;
        assert_eq!(claimed["data"]["warm"], true, "{claimed}");
        tasks.push(task);
    }
    let mut places = Vec::new();
    for task in &tasks {
        let end = result(&api, task).await;
        assert_eq!(end["status"], "completed", "{end}");
        let mut found: Vec<Value> = serde_json::from_str(end["result"].as_str().unwrap()).unwrap();
        places.push(found.pop().unwrap().to_string());
        assert_eq!(json!(found), json!(["sandbox", false, ["greeted"], true]), "{end}");
    }
    places.sort();
    places.dedup();
    assert_eq!(places.len(), 4, "each serves one task: {places:?}");
    settled(&crate::load::Doors::all(&api), &tasks).await;
}

/// Written by others, on another implementation of the protocol than ours: it answers as ELIZA did in 1966.
#[tokio::test]
async fn an_agent_that_others_wrote_works_behind_the_same_walls() {
    let fetch = || Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("acp/tools")).output().unwrap();
    let fetched = tokio::task::spawn_blocking(fetch).await.unwrap();
    let words = String::from_utf8_lossy(&fetched.stderr);
    assert!(fetched.status.success(), "tests/acp/tools needs cargo and npm, and a way to their registries: {words}");
    let eliza = Path::new(std::str::from_utf8(&fetched.stdout).unwrap().trim()).join("bin/elizacp");
    let command = json!([eliza, "--deterministic", "acp"]);
    let agent = |name: &str| format!("[agents.{name}]\nkind = \"acp\"\ncommand = {command}\n");
    let agents = format!("default = \"eliza\"\n{}{}min_warm = 1\n", agent("eliza"), agent("ready"));
    let fte = Fte::with_agents(&agents, &[]).await;
    let mut tasks = Vec::new();
    for task in ["I am unhappy about my mother", "I dreamed of a full queue"] {
        tasks.push(fte.post(json!({ "task": task })).await);
    }
    // As well if it has waited, initialised, for its task.
    waits(&fte.process, 1).await;
    tasks.push(fte.post(json!({ "task": "I want to be warm", "agent": "ready" })).await);
    let claimed = told(&fte.api(), &tasks[2], |event| event["type"] == "fte.sandbox.claimed").await;
    assert_eq!(claimed["data"]["warm"], true, "{claimed}");
    for (task, word) in tasks.iter().zip(["mother", "dream", "warm"]) {
        let end = fte.result(task).await;
        assert_eq!(end["status"], "completed", "{end}");
        let said = end["result"].as_str().unwrap().to_lowercase();
        assert!(said.contains(word), "it takes up what it is told: {said}");
    }
    settled(&fte.doors(), &tasks).await;
}
