//! An agent that speaks the Agent Client Protocol, through the whole program: behind walls as any other, its commands too, and a person decides.

use fte_testkit::{Dir, FteProcess, built_binary, eventually};
use serde_json::{Value, json};

use crate::world::{in_status, post, result};

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
agent.say(json.dumps([answer, exit["exitCode"], output.splitlines()[0], "No such file" in output, note]))
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
    assert_eq!(found, json!(["id-allow_once", 3, "sandbox", true, "written\n"]));
}
