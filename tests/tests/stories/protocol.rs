//! The JSON-lines protocol as it is spoken: all that agents and the runner say to each other fits the published schema, and who lies, crashes or talks too
//! much fails by a name, with one result like everybody else.

use std::collections::BTreeSet;
use std::path::Path;

use fte_testkit::{Dir, FteProcess, built_binary};
use jsonschema::Validator;
use serde_json::{Value, json};

use crate::load::Doors;
use crate::trail::settled;
use crate::world::{Fte, in_status, post, result, shown, told};

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// The schema of one direction.
fn schema(direction: &str) -> Validator {
    let text = std::fs::read_to_string(root().join("docs/process-protocol.schema.json")).unwrap();
    let mut schema: Value = serde_json::from_str(&text).unwrap();
    let fields = schema.as_object_mut().unwrap();
    fields.remove("anyOf");
    fields.insert("$ref".to_owned(), json!(format!("#/$defs/{direction}")));
    jsonschema::validator_for(&schema).unwrap()
}

/// Says what it is told, in a log line, and finishes when that is a message.
const LISTENER: &str = r#"
import json, sys
for line in sys.stdin:
    print(json.dumps({"type": "log", "message": line}), flush=True)
    if json.loads(line)["type"] == "message":
        print(json.dumps({"type": "result", "result": "heard", "protocol": 1}), flush=True)
"#;

/// An agent whose lines are written down on their way, in both directions, beside the file that names it.
fn recorded(dir: &Dir, name: &str, program: &str, script: &Path) -> String {
    let line = format!("tee -a {0}/{name}.told | {program} {1} | tee -a {0}/{name}.said", dir.display(), script.display());
    format!("[agents.{name}]\nkind = \"process\"\nmessages = true\nsandbox = \"none\"\ncommand = [\"sh\", \"-c\", {}]\n", json!(line))
}

/// What was written down by all agents, as `told` or `said`: every line fits the schema of its direction. Gives the types.
fn spoken(dir: &Dir, ending: &str, direction: &str) -> BTreeSet<String> {
    let schema = schema(direction);
    let mut types = BTreeSet::new();
    let files = std::fs::read_dir(&**dir).unwrap().map(|entry| entry.unwrap().path());
    for file in files.filter(|file| file.extension().is_some_and(|extension| extension == ending)) {
        for line in std::fs::read_to_string(&file).unwrap().lines() {
            let message: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{}: {error}: {line}", file.display()));
            schema.validate(&message).unwrap_or_else(|error| panic!("{}: {error}: {line}", file.display()));
            types.insert(message["type"].as_str().unwrap().to_owned());
        }
    }
    types
}

#[tokio::test]
async fn what_the_examples_and_the_runner_say_fits_the_schema() {
    let dir = Dir::new();
    let listener = dir.write("listener.py", LISTENER);
    let examples = root().join("examples").canonicalize().unwrap();
    let example = |name: &str, program: &str, file: &str| recorded(&dir, name, program, &examples.join(file));
    let agents = [
        "default = \"lead\"\n".to_owned(),
        example("note", "python3 -B", "agents/agent.py"),
        example("counter", "node", "agents/agent.mjs"),
        example("measurer", "sh", "agents/agent.sh"),
        example("lead", "python3 -B", "team/lead.py"),
        example("research", "python3 -B", "team/research.py"),
        example("writer", "python3 -B", "team/writer.py"),
        recorded(&dir, "listener", "python3", &listener),
    ];
    let agents = dir.write("agents.toml", agents.concat());
    let args = ["--agents", agents.to_str().unwrap()];
    // Short stays: the one that waits for a person is started twice, with its checkpoint.
    let env = [("FTE_RUNNER_APPROVAL_STAY_MS", "100"), ("FTE_RUNNER_HANDOFF_STAY_MS", "200")];
    let fte = FteProcess::start_with(built_binary(), dir.join("data"), args, env).await;
    let api = fte.api();
    let ask = async |agent: &str, task: &str, context: Value| post(&api, json!({ "task": task, "agent": agent, "context": context })).await;

    let measured = ask("measurer", "hello", json!({})).await;
    let counted = ask("counter", "to be", json!({})).await;
    let cancelled = ask("counter", "to be", json!({ "step_ms": 600_000 })).await;
    let noted = ask("note", "rain", json!({})).await;
    let heard = ask("listener", "listen", json!({})).await;
    let led = ask("lead", "why the sky is blue", json!({})).await;

    shown(&api, &cancelled, |task| task["progress_pct"] == 50).await;
    api.post(&format!("/v1/tasks/{cancelled}/cancel"), &json!({})).await.unwrap().expect_status(202);
    in_status(&api, &noted, "awaiting_approval").await;
    told(&api, &noted, |event| event["type"] == "fte.sandbox.released" && event["data"]["reason"] == "parked").await;
    api.post(&format!("/v1/tasks/{noted}/approval"), &json!({ "approved": true, "approver": "ada", "reason": "fine" }))
        .await
        .unwrap()
        .expect_status(200);
    shown(&api, &heard, |task| task["status"] == "running").await;
    let word = json!({ "text": "enough", "data": { "n": 1 }, "policy": "interrupt" });
    api.post(&format!("/v1/tasks/{heard}/messages"), &word).await.unwrap().expect_status(202);
    let person = fte_testkit::eventually(|| async {
        let list: Value = api.get("/v1/tasks?agent=human").await.unwrap().expect_status(200).json();
        list["items"][0]["task_id"].as_str().map(str::to_owned).ok_or_else(|| list.to_string())
    });
    let person = person.await;
    in_status(&api, &person, "awaiting_handoff").await;
    api.post(&format!("/v1/tasks/{person}/reply"), &json!({ "result": "yes", "by": "ada" })).await.unwrap().expect_status(200);

    for task in [&measured, &counted, &noted, &heard, &led] {
        let end = result(&api, task).await;
        assert_eq!(end["status"], "completed", "{end}");
    }
    assert_eq!(result(&api, &cancelled).await["status"], "cancelled");
    let heard = spoken(&dir, "told", "FromRunner");
    // The one that was cancelled may be gone before it is told.
    assert!(heard.is_superset(&["decision", "message", "reply", "start"].map(str::to_owned).into()), "{heard:?}");
    let said = spoken(&dir, "said", "FromAgent");
    let all = ["action", "approval", "artifact", "checkpoint", "cost", "handoff", "log", "progress", "result", "stage"].map(str::to_owned);
    assert!(said.is_superset(&all.into()), "{said:?}");
    // A direction refuses the other's words.
    let start = std::fs::read_to_string(dir.join("note.told")).unwrap();
    let start: Value = serde_json::from_str(start.lines().next().unwrap()).unwrap();
    assert!(!schema("FromAgent").is_valid(&start));
    // Started again, and told so.
    let starts = std::fs::read_to_string(dir.join("note.told")).unwrap();
    assert!(starts.contains(r#""checkpoint":{"draft":"Note on: rain"}"#), "{starts}");
}

/// Does what its task says, in Python.
const LIAR: &str = r#"
import json, os, signal, sys, time

def raw(text):
    sys.stdout.write(text)
    sys.stdout.flush()

def line(type, **fields):
    return json.dumps({"type": type, **fields}) + "\n"

def say(type, **fields):
    raw(line(type, **fields))

start = json.loads(sys.stdin.readline())
exec(start["task"])
"#;

#[tokio::test]
async fn who_lies_crashes_or_floods_fails_by_a_name_and_who_only_leaves_badly_does_not() {
    let dir = Dir::new();
    dir.write("liar.py", LIAR);
    let toml = "[agents.liar]\nkind = \"process\"\ncommand = [\"python3\", \"liar.py\"]\nattempts = 1\nmax = 4\ntimeout = \"5m\"\n";
    let file = dir.write("agents.toml", toml);
    let args = ["--agents", file.to_str().unwrap()];
    let fte = FteProcess::start_with(built_binary(), dir.join("data"), args, [] as [(&str, &str); 0]).await;
    let api = fte.api();
    let schema = schema("FromAgent");

    // What is said wrongly, by its code; what is JSON the schema refuses, too.
    let lies = [
        ("debugging!", "bad_message", "belongs on standard error: debugging!"),
        ("[1]", "bad_message", "not an object"),
        (r#"{"type":"invented"}"#, "bad_message", "unknown variant `invented`"),
        (r#"{"type":"stage"}"#, "bad_message", "missing field `name`"),
        (r#"{"type":"progress","pct":101}"#, "bad_message", "0 to 100"),
        (r#"{"type":"cost","usd":-1}"#, "bad_message", "not negative"),
        (r#"{"type":"stage","name":"x","protocol":2}"#, "protocol_unsupported", "this runner speaks 1"),
    ];
    let mut expected = Vec::new();
    for (line, code, words) in lies {
        if let Ok(message) = serde_json::from_str::<Value>(line) {
            assert!(!schema.is_valid(&message), "{line}");
        }
        // It would go on for ever.
        expected.push((format!("raw({line:?} + '\\n'); signal.pause()"), "failed", code, words));
    }
    let result_first = |after: &str| format!("say('result', result=1); {after}");
    // In one go: what comes late is not heard.
    let with_result = |second: &str| format!("raw(line('result', result=1) + line({second})); signal.pause()");
    let deeds = [
        ("sys.exit('no luck')".to_owned(), "failed", "agent_crashed", "exited with status 1 without a result: no luck"),
        ("os.kill(os.getpid(), signal.SIGSEGV)".to_owned(), "failed", "agent_crashed", "without a result"),
        ("raw('{\"type\":\"result\",\"resu')".to_owned(), "failed", "agent_crashed", "without a result"),
        ("raw('x' * 2_000_000)".to_owned(), "failed", "line_too_long", "line 1"),
        ("say('result', result='x' * 300_000)".to_owned(), "failed", "result_too_large", ""),
        ("say('checkpoint', data='x' * 300_000); signal.pause()".to_owned(), "failed", "message_too_large", "checkpoint"),
        ("while True: say('log', level='debug', message='x' * 4000)".to_owned(), "failed", "output_too_large", ""),
        (with_result("'result', result=1"), "failed", "result_twice", ""),
        (with_result("'error', code='c', message='m'"), "failed", "result_twice", ""),
        (with_result("'approval', reason='now?'"), "failed", "result_twice", ""),
        // The last word is said: how it leaves does not matter.
        (result_first("sys.exit(7)"), "completed", "", ""),
        (result_first("os.kill(os.getpid(), signal.SIGKILL)"), "completed", "", ""),
        (result_first("raw('garbage\\n'); signal.pause()"), "completed", "", ""),
        (result_first("signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"), "completed", "", ""),
        ("raw('{\"type\":\"result\",\"result\":1}')".to_owned(), "completed", "", ""),
    ];
    expected.extend(deeds);
    let mut tasks = Vec::new();
    for (script, ..) in &expected {
        tasks.push(post(&api, json!({ "task": script })).await);
    }
    for (task, (script, status, code, words)) in tasks.iter().zip(&expected) {
        let end = result(&api, task).await;
        let error = &end["error"];
        assert_eq!((&end["status"], error["code"].as_str().unwrap_or_default()), (&json!(status), *code), "{script}: {end}");
        assert!(error["message"].as_str().unwrap_or_default().contains(words), "{script}: {end}");
        assert_eq!(end["result"], if *status == "completed" { json!(1) } else { Value::Null }, "{script}: {end}");
    }
    // Whatever they did: one result each, and each sandbox is given back.
    settled(&Doors::all(&api), &tasks).await;
}

/// A crash of the runner right after an agent's last word: the word counts once, or the agent is asked again, and there is one result.
#[tokio::test]
async fn a_runner_killed_around_a_result_writes_it_once() {
    let mut fte = Fte::with_agents(
        "[agents.quick]\nkind = \"process\"\nmax = 8\nsandbox = \"none\"\ncommand = [\"sh\", \"-c\", \"read -r start; echo '{\\\"type\\\":\\\"result\\\",\\\"result\\\":1}'; kill -9 $$\"]\n",
        &[],
    )
    .await;
    let mut tasks = Vec::new();
    for _ in 0..5 {
        for _ in 0..8 {
            tasks.push(fte.post(json!({ "task": "t" })).await);
        }
        // Somewhere in the midst of them: one is done, the others are not all.
        fte.result(&tasks[tasks.len() - 8]).await;
        fte.process.kill().await;
        fte.process.restart().await;
    }
    for task in &tasks {
        assert_eq!(fte.result(task).await["result"], json!(1));
    }
    settled(&fte.doors(), &tasks).await;
}
