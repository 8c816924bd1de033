//! An agent of which nothing is heard: it is tried again, unless it waits for somebody else.

use fte_testkit::{Dir, FteProcess, built_binary, in_time};
use fte_tests::tasks::result_within;
use serde_json::{Value, json};
use tokio::time::Duration;

use crate::trail::settled;
use crate::world::{LOAD_PATIENCE, in_status, post, told};

/// Does what its task says, in Python.
const PROGRAM: &str = r#"
import json, sys, time

def say(type, **fields):
    print(json.dumps({"type": type, **fields}), flush=True)

def hear():
    line = sys.stdin.readline()
    return json.loads(line) if line else sys.exit()

start = hear()
silent = start["context"]["silent"]
exec(start["task"])
say("result", result="done")
"#;

fn agents(silent: Duration) -> String {
    format!(
        r#"
    default = "program"
    [agents.program]
    kind = "process"
    command = ["python3", "program.py"]
    silent = "{0}s"
    [agents.patient]
    kind = "process"
    command = ["python3", "program.py"]
    [agents.coder]
    kind = "acp"
    command = ["python3", "coder.py", "load"]
    silent = "{0}s"
"#,
        silent.as_secs()
    )
}

const HANGS: &str = "say('stage', name='on it')\nif start['attempt'] == 1: time.sleep(600)";
const TALKS: &str = "for n in range(8): time.sleep(silent / 4); say('progress', pct=n)";
/// What is said to standard error is heard, too.
const WARNS: &str = "for n in range(8): time.sleep(silent / 4); print('still at it', file=sys.stderr, flush=True)";
const ASKS: &str = "say('approval', reason='may I?'); hear()";
const HANDS_OFF: &str = "say('handoff', to='patient', task='time.sleep(silent * 1.5)', context=start['context']); hear()";
const CODER_HANGS: &str = "#\nagent.say('on it')\nif agent.opened == 'session/new': time.sleep(600)\nagent.end()";
/// A long build, say.
const CODER_RUNS: &str = r#"#
seconds = json.loads(agent.prompt[1].partition("\n")[2])["silent"] * 1.5
made = agent.ask("terminal/create", command="sleep", args=[str(seconds)])
agent.ask("terminal/wait_for_exit", terminalId=made["terminalId"])
agent.end()"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_falls_silent_is_tried_again_and_who_waits_for_somebody_is_not() {
    in_time(Duration::from_secs(3), async |silent| {
        let dir = Dir::new();
        let file = dir.write("agents.toml", agents(silent));
        dir.write("program.py", PROGRAM);
        dir.write("coder.py", include_str!("../../../crates/runner/tests/agents/acp/agent.py"));
        // Neither a question nor a hand-off is parked meanwhile.
        let stay = [("FTE_RUNNER_APPROVAL_STAY_MS", "600000"), ("FTE_RUNNER_HANDOFF_STAY_MS", "600000")];
        let fte = FteProcess::start_with(built_binary(), dir.join("data"), ["--agents", file.to_str().unwrap()], stay).await;
        let api = fte.api();
        let task = async |agent: &str, task: &str| {
            post(&api, json!({ "task": task, "agent": agent, "context": { "silent": silent.as_secs() } })).await
        };
        let asks = task("program", ASKS).await;
        in_status(&api, &asks, "awaiting_approval").await;
        let hung = [task("program", HANGS).await, task("coder", CODER_HANGS).await];
        let waits = [
            task("program", TALKS).await,
            task("program", WARNS).await,
            task("program", HANDS_OFF).await,
            task("coder", CODER_RUNS).await,
            asks.clone(),
        ];
        let mut ends = Vec::new();
        for each in &waits {
            if *each == asks {
                // All the others took longer than one may be silent.
                let yes = json!({ "approved": true, "approver": "ada" });
                api.post(&format!("/v1/tasks/{asks}/approval"), &yes).await.unwrap().expect_status(200);
            }
            ends.push(result_within(LOAD_PATIENCE + silent * 8, &api, each).await);
        }
        for each in &hung {
            ends.push(result_within(LOAD_PATIENCE + silent * 8, &api, each).await);
            told(&api, each, |event| event["data"]["error"]["code"] == "agent_silent").await;
        }
        let attempts: Vec<&Value> = ends.iter().map(|end| &end["attempt"]).collect();
        if attempts != [1, 1, 1, 1, 1, 2, 2] || ends.iter().any(|end| end["status"] != "completed") {
            return Err(ends);
        }
        settled(&crate::load::Doors::all(&api), &[&hung[..], &waits[..]].concat()).await;
        Ok(())
    })
    .await;
}
