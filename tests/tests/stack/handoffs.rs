//! Agents hand work to each other and to a person over Kafka, while who runs them dies.

use fte_testkit::{Client, Dir, eventually_within};
use fte_tests::tasks::{in_status, post};
use fte_tests::trail::settled;
use serde_json::{Value, json};

use crate::world::{START_PATIENCE, Store, World, result};

/// It has the boats counted, and then a person sign. The names are those that the components and topics know.
const AGENTS: &str = r#"
default = "demo"

[agents.demo]
kind = "process"
command = ["python3", "lead.py"]
sandbox = "none"

[agents.echo]
kind = "process"
command = ["python3", "counter.py"]
sandbox = "none"
"#;

const LEAD: &str = r#"
import json, sys

def say(type, **fields):
    print(json.dumps({"type": type, **fields}), flush=True)

def hand_off(to, task):
    say("handoff", id=to, to=to, task=task)
    return json.loads(sys.stdin.readline() or sys.exit())

sys.stdin.readline()
counted = hand_off("echo", "count the boats")
signed = hand_off("human", "sign for %s boats" % counted["result"])
say("result", result=[counted["result"], signed["result"]])
"#;

const COUNTER: &str = r#"
import json, sys
sys.stdin.readline()
print(json.dumps({"type": "result", "result": 17}), flush=True)
"#;

/// The ids of a tree's tasks.
fn ids(tree: &Value) -> Vec<String> {
    let own = tree["task_id"].as_str().unwrap_or_default().to_owned();
    [own].into_iter().chain(tree["children"].as_array().into_iter().flatten().flat_map(ids)).collect()
}

/// The tree, once it has so many tasks.
async fn grown(status: &Client, task: &str, count: usize) -> Value {
    eventually_within(START_PATIENCE, || async {
        let tree = status.get(&format!("/v1/tasks/{task}/tree")).await.map_err(|error| error.to_string())?;
        let tree: Value = if tree.status == 200 { tree.json() } else { return Err(tree.text()) };
        if ids(&tree).len() == count { Ok(tree) } else { Err(tree.to_string()) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_that_is_handed_on_comes_back_once_though_the_runner_is_killed_meanwhile() {
    let dir = Dir::new();
    let agents = dir.write("agents.toml", AGENTS);
    dir.write("lead.py", LEAD);
    dir.write("counter.py", COUNTER);
    let mut world =
        World::start_with(Store::Redis, &[("FTE_AGENTS", agents.to_str().unwrap()), ("FTE_RUNNER_HANDOFF_STAY_MS", "100")]).await;
    let doors = world.doors();
    let task = post(&doors.intake, json!({ "task": "boats" })).await;
    let tree = grown(&doors.status, &task, 3).await;
    let asked = ids(&tree).into_iter().find(|id| is_for_a_person(&tree, id)).unwrap();
    in_status(&doors.status, &asked, "awaiting_handoff").await;
    in_status(&doors.status, &task, "awaiting_handoff").await;

    world.pair("runner").kill_service_and_restart().await;
    world.ready().await;
    eventually_within(START_PATIENCE, || async {
        let answer = doors.runner.post(&format!("/v1/tasks/{asked}/reply"), &json!({ "result": "signed", "by": "ada" })).await;
        let answer = answer.map_err(|error| error.to_string())?;
        if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
    })
    .await;
    let end = result(&doors.status, &task).await;
    assert_eq!((&end["status"], &end["result"]), (&json!("completed"), &json!([17, "signed"])), "{end}");
    let tree = grown(&doors.status, &task, 3).await;
    let told = settled(&doors, &ids(&tree)).await;
    assert_eq!(told.len(), 3);
}

/// Whether a task of the tree was handed to a person.
fn is_for_a_person(tree: &Value, id: &str) -> bool {
    let is_it = tree["task_id"] == *id && tree["agent"] == "human";
    is_it || tree["children"].as_array().into_iter().flatten().any(|child| is_for_a_person(child, id))
}
