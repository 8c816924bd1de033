//! Agents give work to each other and to people, and hear what came of it; whatever ends, dies or takes too long in between.

use std::path::Path;
use std::time::Duration;

use fte_events::Requester;
use fte_testkit::{Answer, Client, Dir, FakeApp, FteProcess, built_binary};
use serde_json::{Value, json};

use crate::load::Doors;
use crate::trail::{actions, settled};
use crate::world::{Dice, in_status, look, post, result, setting, shown};

/// An agent that does what its task says, in Python.
const AGENT: &str = r#"
import json, sys, time

def say(type, **fields):
    print(json.dumps({"type": type, **fields}), flush=True)

def hear():
    line = sys.stdin.readline()
    return json.loads(line) if line else sys.exit()

def hand_off(to, task, **fields):
    say("handoff", to=to, task=task, **fields)
    return hear()

start = hear()
exec(start["task"])
"#;

fn agents_toml() -> String {
    let agent = |name: char| {
        format!("[agents.{name}]\nkind = \"process\"\ncommand = [\"python3\", \"agent.py\"]\nsandbox = \"none\"\ntimeout = \"1m\"\n")
    };
    // The last one may cost half a dollar.
    ["default = \"a\"\n".to_owned()].into_iter().chain(('a'..='g').map(agent)).chain(["budget_usd = 0.5\n".to_owned()]).collect()
}

struct Team {
    process: FteProcess,
    _dir: Dir,
}

impl Team {
    async fn start(env: &[(&str, &str)]) -> Self {
        Self::start_of(&agents_toml(), env).await
    }

    async fn start_of(agents: &str, env: &[(&str, &str)]) -> Self {
        let dir = Dir::new();
        let file = dir.write("agents.toml", agents);
        dir.write("agent.py", AGENT);
        let args = ["--agents", file.to_str().unwrap(), "--quiet"];
        let process = FteProcess::start_with(built_binary(), dir.join("data"), args, env.iter().copied()).await;
        Self { process, _dir: dir }
    }

    fn api(&self) -> Client {
        self.process.api()
    }

    /// The result of a task of agent `a`.
    async fn done(&self, task: &str) -> Value {
        let api = self.api();
        let id = post(&api, json!({ "task": task })).await;
        result(&api, &id).await
    }
}

async fn tree(api: &Client, task: &str) -> Result<Value, String> {
    look(api, &format!("/v1/tasks/{task}/tree")).await
}

/// The ids of a tree's tasks.
fn ids(tree: &Value) -> Vec<String> {
    let own = tree["task_id"].as_str().unwrap_or_default().to_owned();
    let below = tree["children"].as_array().into_iter().flatten().flat_map(ids);
    [own].into_iter().chain(below).collect()
}

/// The tree, once it has so many tasks.
async fn grown(api: &Client, task: &str, count: usize) -> Value {
    let grown = fte_testkit::eventually(|| async {
        let tree = tree(api, task).await?;
        if ids(&tree).len() == count { Ok(tree) } else { Err(tree.to_string()) }
    });
    grown.await
}

/// The tree, once these agents have worked for its task, and this has become of what each was given. The parent's result may be known before
/// its children's.
async fn worked_for(api: &Client, task: &str, expected: &[(&str, &str)]) -> Value {
    let worked = fte_testkit::eventually(|| async {
        let tree = tree(api, task).await?;
        let word = |child: &Value, key: &str| child[key].as_str().unwrap_or_default().to_owned();
        let children = tree["children"].as_array().into_iter().flatten();
        let found: Vec<_> = children.map(|child| (word(child, "agent"), word(child, "status"))).collect();
        let is_so = found.iter().map(|(agent, status)| (agent.as_str(), status.as_str())).eq(expected.iter().copied());
        if is_so { Ok(tree) } else { Err(tree.to_string()) }
    });
    worked.await
}

#[tokio::test]
async fn the_team_of_the_examples_researches_writes_and_has_a_person_sign() {
    let dir = Dir::new();
    let agents = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/team/agents.toml");
    let args = ["--agents", agents.to_str().unwrap()];
    let process = FteProcess::start_with(built_binary(), dir.join("data"), args, [("FTE_RUNNER_HANDOFF_STAY_MS", "200")]).await;
    let api = process.api();
    let task = post(&api, json!({ "task": "why the sky is blue", "agent": "lead" })).await;

    // What waits for people is a list of its own.
    let waiting = fte_testkit::eventually(|| async {
        let list = look(&api, "/v1/tasks?status=awaiting_handoff&agent=human").await?;
        list["items"][0]["task_id"].as_str().map(str::to_owned).ok_or_else(|| list.to_string())
    })
    .await;
    let child = in_status(&api, &waiting, "awaiting_handoff").await;
    assert_eq!((&child["parent_task_id"], &child["origin"]), (&json!(task), &json!("handoff")), "{child}");
    assert_eq!(in_status(&api, &task, "awaiting_handoff").await["agent"], "lead");

    let reply = |body: Value| {
        let api = api.clone();
        let path = format!("/v1/tasks/{waiting}/reply");
        async move { api.post(&path, &body).await.unwrap() }
    };
    assert_eq!(reply(json!({})).await.expect_status(422).problem_code(), "invalid_reply");
    // The record names a person.
    for nobody in [json!({ "result": "yes" }), json!({ "result": "yes", "by": " " })] {
        assert_eq!(reply(nobody).await.expect_status(422).problem_code(), "replier_missing");
    }
    reply(json!({ "result": "yes", "by": "ada" })).await.expect_status(200);
    reply(json!({ "result": "yes", "by": "ada" })).await.expect_status(200);
    assert_eq!(reply(json!({ "error": "no", "by": "bob" })).await.expect_status(409).problem_code(), "replied_otherwise");

    let end = result(&api, &task).await;
    assert_eq!((&end["status"], &end["result"]["signed"]), (&json!("completed"), &json!("yes")), "{end}");
    assert_eq!(end["result"]["text"]["title"], "Why the sky is blue", "{end}");
    // What the others cost is what it cost.
    assert!((end["cost_usd"].as_f64().unwrap() - 0.03).abs() < 1e-9, "{end}");
    let tree = worked_for(&api, &task, &["research", "writer", "human"].map(|agent| (agent, "completed"))).await;
    assert_eq!(ids(&tree).len(), 4, "{tree}");
    // The person was asked, and answered later.
    let person = &tree["children"][2];
    assert!(person["duration_ms"].as_u64().unwrap() > 0 && person["started_at"].as_str() >= person["created_at"].as_str(), "{person}");
    settled(&Doors::all(&api), &ids(&tree)).await;
    let replied = actions(&api, &waiting, "handoff.replied", 1).await;
    assert_eq!(replied[0]["event"]["data"]["actor"], json!({"type": "user", "id": "ada"}), "{replied:?}");
}

/// What stands in a block of shell of the README, after this heading, without its comments.
fn lines_of_the_readme(root: &Path, heading: &str) -> Vec<String> {
    let text = std::fs::read_to_string(root.join("README.md")).unwrap();
    let (_, after) = text.split_once(&format!("\n### {heading}\n")).unwrap_or_else(|| panic!("there is no {heading} in the README"));
    let block = after.split("```").nth(1).and_then(|block| block.strip_prefix("sh\n")).unwrap();
    block.lines().map(|line| without_comment(line).trim().to_owned()).collect()
}

/// As a shell reads it: what stands in quotes is no comment.
fn without_comment(line: &str) -> &str {
    let (mut quoted, mut before) = (None, ' ');
    for (at, c) in line.char_indices() {
        match quoted {
            Some(quote) if c == quote => quoted = None,
            None if c == '#' && before == ' ' => return &line[..at],
            None if ['"', '\''].contains(&c) => quoted = Some(c),
            Some(_) | None => {}
        }
        before = c;
    }
    line
}

#[test]
fn a_line_ends_where_a_shell_ends_it() {
    for (line, expected) in
        [("fte up  # now", "fte up"), ("fte submit \"say #1\" # go", "fte submit \"say #1\""), ("a#b 'c # d'", "a#b 'c # d'")]
    {
        assert_eq!(without_comment(line).trim(), expected);
    }
}

#[tokio::test]
async fn what_the_readme_says_of_the_team_is_what_happens() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap();
    let lines = lines_of_the_readme(&root, "A team");
    let [up, submit, tree, reply] = &lines[..] else { panic!("{lines:?}") };
    let dir = Dir::new();
    let args = up.strip_prefix("fte up ").unwrap().split(' ');
    let there = ["env".into(), "-C".into(), root.into_os_string()];
    // Nobody waits in a sandbox for longer than has to be.
    let env = [("FTE_RUNNER_HANDOFF_STAY_MS", "200")];
    let process = FteProcess::start_under(there, built_binary(), dir.join("data"), args, env).await;
    let url = process.ready().api.clone();
    let run = async |line: &str| {
        let path = format!("{}:/usr/bin:/bin", built_binary().parent().unwrap().display());
        let output = tokio::process::Command::new("sh").args(["-c", line]).env("PATH", path).env("FTE_URL", &url).output().await.unwrap();
        assert!(output.status.success(), "{line}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let task = run(submit).await.trim().to_owned();
    let tree = tree.replace("TASK_ID", &task);
    let shown = fte_testkit::eventually(|| async {
        let shown = run(&tree).await;
        let human = shown.lines().find(|line| line.contains("human") && line.contains("awaiting_handoff"));
        let others = ["lead", "research", "writer"].iter().all(|agent| shown.contains(agent));
        if human.is_some() && others { Ok(shown) } else { Err(shown) }
    })
    .await;
    let human = shown.lines().find(|line| line.contains("human")).unwrap();
    let child = human.split_whitespace().find(|word| word.parse::<fte_events::TaskId>().is_ok()).unwrap_or_else(|| panic!("{shown}"));
    run(&reply.replace("CHILD_ID", child)).await;
    let end = result(&process.api(), &task).await;
    assert_eq!((&end["status"], &end["result"]["signed"]), (&json!("completed"), &json!("yes")), "{end}");
}

#[tokio::test]
async fn what_is_handed_over_lies_in_the_others_workspace() {
    let team = Team::start(&[]).await;
    let writes = r#"
open("made.md", "w").write(open(start["handoff"]["artifacts"][0]["path"]).read() + "\nand made")
say("artifact", path="made.md")
say("result", result=start["handoff"]["from"])
"#;
    let lead = format!(
        r#"
open("notes.md", "w").write("noted")
say("artifact", path="notes.md")
reply = hand_off("b", {writes:?}, artifacts=["notes.md"], id="one")
say("result", result=[reply["handoff"], reply["result"], open(reply["artifacts"][0]["path"]).read()])
"#
    );
    let end = team.done(&lead).await;
    assert_eq!(end["result"], json!(["one", "a", "noted\nand made"]), "{end}");
    let missing = team.done(r#"say("result", result=hand_off("b", "pass", artifacts=["nothing.md"])["error"]["code"])"#).await;
    assert_eq!(missing["result"], "artifact_unknown", "{missing}");
}

#[tokio::test]
async fn more_than_the_others_workspace_may_hold_is_not_handed_over_whatever_kind_it_is() {
    let small =
        |name: &str, kind: &str, command: &str| format!("[agents.{name}]\nkind = \"{kind}\"\ncommand = {command}\ndisk = \"1MiB\"\n");
    let program = small("program", "process", r#"["python3", "agent.py"]"#);
    let agents = format!("{}{program}{}", agents_toml(), small("line", "command", r#"["ls", "handed"]"#));
    let team = Team::start_of(&agents, &[]).await;
    let handing = |to: &str, names: &str| {
        format!(
            r#"
for name in ["one", "two"]:
    open(name, "w").write(name * 200_000)
    say("artifact", path=name)
reply = hand_off("{to}", "say('result', result='had it')", artifacts={names})
say("result", result=[reply["result"], reply["error"]])
"#
        )
    };
    for (to, alone) in [("program", "had it"), ("line", "one")] {
        let end = team.done(&handing(to, r#"["one"]"#)).await;
        assert_eq!(end["result"], json!([alone, null]), "{to}: {end}");
        let end = team.done(&handing(to, r#"["one", "two"]"#)).await;
        let error = &end["result"][1];
        assert_eq!((&error["code"], &error["retryable"]), (&json!("artifact_unavailable"), &json!(false)), "{to}: {end}");
        assert!(error["message"].as_str().unwrap().contains("1200000 bytes"), "{to}: {end}");
    }
}

/// Makes an artifact that nobody can read to its end, as where the store of artifacts hangs, and hands it to all of these.
const HANDS_OVER: &str = r#"
import glob, os
open("held", "w").close()
say("artifact", path="held")
kept = []
while not kept:
    kept = glob.glob(start["context"]["data"] + "/artifacts/sha256/*/*")
    time.sleep(0.01)
os.remove(kept[0])
os.mkfifo(kept[0])
asked = [("line", {}), ("b", {}), ("brief", {}), ("c", {"deadline": "2s"}), ("late", {"deadline": "2s"})]
for to, fields in asked:
    say("handoff", to=to, id=to, task="x", artifacts=["held"], **fields)
replies = [hear() for _ in asked]
say("result", result={reply["handoff"]: [reply["status"], reply["error"]["code"]] for reply in replies})
"#;

#[tokio::test]
async fn who_waits_for_what_is_handed_over_can_be_called_off_and_runs_out() {
    let line = |name: &str| format!("[agents.{name}]\nkind = \"command\"\ncommand = [\"cat\"]\nsandbox = \"none\"\n");
    let agents = format!("{}{}{}{}timeout = \"2s\"\n", agents_toml(), line("line"), line("late"), line("brief"));
    let team = Team::start_of(&agents, &[("FTE_RUNNER_HANDOFF_STAY_MS", "600000")]).await;
    let (api, data) = (team.api(), team.process.data());
    let id = post(&api, json!({ "task": HANDS_OVER, "context": { "data": data } })).await;
    let tree = grown(&api, &id, 6).await;
    let workspace = |task: &str| data.join("workspaces").join(task);
    for child in tree["children"].as_array().unwrap() {
        let (task, agent) = (child["task_id"].as_str().unwrap(), child["agent"].as_str().unwrap());
        if ["line", "b"].contains(&agent) {
            fte_testkit::eventually(|| async { if workspace(task).exists() { Ok(()) } else { Err("no workspace") } }).await;
            api.post(&format!("/v1/tasks/{task}/cancel"), &json!({ "by": "ada" })).await.unwrap().expect_status(202);
        }
    }
    let end = result(&api, &id).await;
    for (agent, status, codes) in [
        ("line", "cancelled", ["cancelled"].as_slice()),
        ("b", "cancelled", &["cancelled"]),
        ("brief", "timed_out", &["agent_timeout"]),
        // Whoever looks at the clock first: who waits for it, or its own runner.
        ("c", "timed_out", &["handoff_timed_out", "deadline_passed"]),
        ("late", "timed_out", &["handoff_timed_out", "deadline_passed"]),
    ] {
        let reply = &end["result"][agent];
        assert!(reply[0] == status && codes.contains(&reply[1].as_str().unwrap()), "{agent}: {end}");
    }
    settled(&Doors::all(&api), &ids(&tree)).await;
    for task in ids(&tree) {
        fte_testkit::eventually(|| async { if workspace(&task).exists() { Err("a workspace is left") } else { Ok(()) } }).await;
    }
}

/// Reads what it was linked to, and says so with what else it was told.
const CODER: &str = r#"#
link = agent.links[0]
text = agent.ask("fs/read_text_file", path=link["uri"].removeprefix("file://"))["content"]
told = json.loads(agent.prompt[-1].split("\n", 1)[1])
agent.say(json.dumps([link["name"], link["size"], text, told["from"], told["artifacts"][0]["path"]]))
agent.end()"#;

#[tokio::test]
async fn what_is_handed_over_reaches_agents_of_every_kind() {
    // Elsewhere: gives back what it was sent.
    let far = FakeApp::start(json!([]), |asked| async move {
        if asked.path.ends_with(".json") {
            let interface = json!({ "url": "/rpc", "protocolBinding": "JSONRPC", "protocolVersion": "1.0" });
            let card = json!({ "name": "far", "version": "1", "capabilities": { "streaming": false }, "supportedInterfaces": [interface] });
            return Answer::json(&card);
        }
        let call = asked.json();
        if call["jsonrpc"].is_null() {
            return Answer::json(&json!([call["handoff"]["from"], call["handoff"]["artifacts"][0]["name"]]));
        }
        let parts = json!([{ "data": { "sent": call["params"]["message"]["parts"] } }]);
        let message = json!({ "messageId": "m", "role": "ROLE_AGENT", "parts": parts });
        Answer::json(&json!({ "jsonrpc": "2.0", "id": call["id"], "result": { "message": message } }))
    })
    .await;
    let dir = Dir::new();
    dir.write("agent.py", AGENT);
    dir.write("coder.py", include_str!("../../../crates/runner/tests/agents/acp/agent.py"));
    let command = json!(["sh", "-c", "cat handed/notes.md; cat $FTE_HANDOFF_FILE"]);
    let agents = format!(
        r#"
        default = "lead"
        [agents.lead]
        kind = "process"
        command = ["python3", "agent.py"]
        [agents.script]
        kind = "command"
        command = {command}
        [agents.coder]
        kind = "acp"
        command = ["python3", "coder.py", ""]
        [agents.far]
        kind = "http"
        url = "http://127.0.0.1:{port}"
        [agents.posted]
        kind = "http"
        protocol = "post"
        url = "http://127.0.0.1:{port}/work"
        "#,
        port = far.port()
    );
    let agents = dir.write("agents.toml", agents);
    let args = ["--agents", agents.to_str().unwrap()];
    let process = FteProcess::start_with(built_binary(), dir.join("data"), args, [] as [(&str, &str); 0]).await;
    let api = process.api();
    let lead = format!(
        r#"
open("notes.md", "w").write("noted\n")
say("artifact", path="notes.md")
def give(to, task):
    reply = hand_off(to, task, artifacts=["notes.md"])
    return reply["result"] or reply["error"]
say("result", result=[give("script", "x"), give("coder", {CODER:?}), give("far", "x"), give("posted", "x")])
"#
    );
    let end = result(&api, &post(&api, json!({ "task": lead })).await).await;
    let read = |text: &Value| serde_json::from_str::<Value>(text.as_str().unwrap()).unwrap();
    let replies = end["result"].as_array().unwrap_or_else(|| panic!("{end}"));
    let (text, told) = replies[0].as_str().unwrap().split_once('\n').unwrap();
    let told: Value = serde_json::from_str(told).unwrap();
    assert_eq!((text, &told["from"], &told["artifacts"][0]["path"]), ("noted", &json!("lead"), &json!("handed/notes.md")), "{end}");
    assert_eq!(read(&replies[1]), json!(["notes.md", 6, "noted\n", "lead", "handed/notes.md"]), "{end}");
    let sent = &replies[2]["sent"];
    assert_eq!((&sent[0]["text"], &sent[1]["data"]["handoff"]["artifacts"][0]["name"]), (&json!("x"), &json!("notes.md")), "{end}");
    // In base 64, as JSON has no bytes.
    assert_eq!((&sent[2]["filename"], &sent[2]["raw"]), (&json!("notes.md"), &json!("bm90ZWQK")), "{end}");
    assert_eq!(replies[3], json!(["lead", "notes.md"]), "{end}");
}

#[tokio::test]
async fn a_failure_is_a_reply_and_so_is_what_cannot_be_handed_off() {
    let team = Team::start(&[]).await;
    let code = |to: &str, task: &str| {
        format!(r#"reply = hand_off({to:?}, {task:?}); say("result", result=[reply["status"], (reply["error"] or {{}}).get("code")])"#)
    };
    let fails = r#"say("error", code="no_luck", message="none")"#;
    for (to, task, expected) in [
        ("b", fails, json!(["failed", "no_luck"])),
        ("b", "sys.exit(1)", json!(["failed", "agent_crashed"])),
        ("nobody", "x", json!(["failed", "agent_unknown"])),
        ("a", "x", json!(["failed", "handoff_cycle"])),
    ] {
        let end = team.done(&code(to, task)).await;
        assert_eq!((&end["status"], &end["result"]), (&json!("completed"), &expected), "{to}: {end}");
    }
    // Whoever waits in the chain is asked no more.
    let back = code("b", &code("a", "x"));
    let end = team.done(&back.replace("(reply[\"error\"] or {}).get(\"code\")", "reply[\"result\"]")).await;
    assert!(end["result"].to_string().contains("handoff_cycle"), "{end}");
}

#[tokio::test]
async fn a_chain_is_five_hand_offs_deep() {
    let team = Team::start(&[]).await;
    // Each hands on to the next; what the last one is told comes back through all.
    let mut task = r#"say("result", result="too far")"#.to_owned();
    for to in ['g', 'f', 'e', 'd', 'c', 'b'] {
        task = format!(r#"reply = hand_off("{to}", {task:?}); say("result", result=reply["result"] or reply["error"]["code"])"#);
    }
    let api = team.api();
    let id = post(&api, json!({ "task": task })).await;
    let end = result(&api, &id).await;
    assert_eq!(end["result"], "handoff_too_deep", "{end}");
    grown(&api, &id, 6).await;
}

#[tokio::test]
async fn replies_come_in_any_order_and_those_that_do_not_come_run_out() {
    let team = Team::start(&[("FTE_RUNNER_HANDOFF_STAY_MS", "100")]).await;
    let lead = r#"
say("handoff", id="slow", to="b", task="time.sleep(1); say('result', result=1)")
say("handoff", id="never", to="human", task="do it", deadline="2s")
say("handoff", id="quick", to="c", task="say('result', result=2)")
got = {}
while len(got) < 3:
    reply = hear()
    assert reply["handoff"] not in got, reply
    got[reply["handoff"]] = [reply["status"], reply["result"]]
say("result", result=got)
"#;
    let api = team.api();
    let id = post(&api, json!({ "task": lead })).await;
    let end = result(&api, &id).await;
    let expected = json!({"slow": ["completed", 1], "never": ["timed_out", null], "quick": ["completed", 2]});
    assert_eq!(end["result"], expected, "{end}");
    let tree = grown(&api, &id, 4).await;
    for child in tree["children"].as_array().unwrap() {
        result(&api, child["task_id"].as_str().unwrap()).await;
    }
    settled(&Doors::all(&api), &ids(&tree)).await;
}

#[tokio::test]
async fn who_is_called_off_calls_off_what_was_handed_off() {
    let team = Team::start(&[("FTE_RUNNER_HANDOFF_STAY_MS", "50")]).await;
    let api = team.api();
    let id = post(&api, json!({ "task": r#"say("handoff", to="b", task="time.sleep(50)"); hand_off("human", "wait")"# })).await;
    let tree = grown(&api, &id, 3).await;
    let children = &ids(&tree)[1..];
    in_status(&api, &children[0], "running").await;
    in_status(&api, &children[1], "awaiting_handoff").await;
    api.post(&format!("/v1/tasks/{id}/cancel"), &json!({})).await.unwrap().expect_status(202);
    for task in ids(&tree) {
        assert_eq!(result(&api, &task).await["status"], "cancelled");
    }
    let late = api.post(&format!("/v1/tasks/{}/reply", children[1]), &json!({ "result": 1, "by": "ada" })).await.unwrap();
    assert_eq!(late.expect_status(409).problem_code(), "not_awaiting_reply");
    settled(&Doors::all(&api), &ids(&tree)).await;
}

/// The person did not ask for what was handed on: it is theirs all the same.
#[tokio::test]
async fn forgetting_who_asked_ends_and_forgets_what_was_handed_off() {
    let team = Team::start(&[("FTE_RUNNER_HANDOFF_STAY_MS", "50")]).await;
    let api = team.api();
    let lead = r#"say("handoff", to="b", task="hand_off('human', 'wait for her secret')"); hand_off("human", "wait")"#;
    let ask = async |name: &str| {
        let mut request = fte_testkit::request(lead);
        request.requester = Some(Requester { requester_type: "user".to_owned(), id: name.to_owned(), extra: serde_json::Map::new() });
        request.agent = Some("a".to_owned());
        let event = serde_json::to_value(fte_testkit::cloud_event(&request)).unwrap();
        let path = "/v1.0/publish/pubsub/fte.triggers.inbound";
        team.process.sidecar().post_as(path, "application/cloudevents+json", &event).await.unwrap().expect_status(204);
        let id = request.task_id.to_string();
        in_status(&api, &id, "awaiting_handoff").await;
        id
    };
    let (hers, his) = (ask("ada").await, ask("bob").await);
    let (mine, others) = (grown(&api, &hers, 4).await, grown(&api, &his, 4).await);
    for task in ids(&mine).iter().chain(&ids(&others)) {
        in_status(&api, task, "awaiting_handoff").await;
    }
    // The log has met all of them, too.
    for task in ids(&mine) {
        fte_testkit::eventually(|| async {
            let history = api.get(&format!("/v1/audit/tasks/{task}")).await.map_err(|error| error.to_string())?.text();
            if history.contains("awaiting_handoff") { Ok(()) } else { Err(history) }
        })
        .await;
    }
    let erased: Value = api.post("/v1/audit/subjects/user:ada/erasure", &json!({})).await.unwrap().expect_status(200).json();
    assert_eq!(erased["tasks"], 4, "{erased}");
    for task in ids(&mine) {
        fte_testkit::eventually(|| async {
            let status = api.get(&format!("/v1/tasks/{task}")).await.map_err(|error| error.to_string())?;
            let history = api.get(&format!("/v1/audit/tasks/{task}")).await.map_err(|error| error.to_string())?.text();
            let is_gone = status.status == 404 && !history.contains("wait for her secret") && history.contains("cancelled");
            if is_gone { Ok(()) } else { Err(format!("{} {history}", status.text())) }
        })
        .await;
    }
    for task in ids(&others) {
        in_status(&api, &task, "awaiting_handoff").await;
    }
}

#[tokio::test]
async fn what_others_cost_counts_against_the_budget_and_bounds_theirs() {
    let team = Team::start(&[]).await;
    let api = team.api();
    let spends = r#"say("cost", usd=0.7); say("result", result=1)"#;
    let lead = format!(
        r#"say("cost", usd=0.2); hand_off("b", {spends:?}); reply = hand_off("c", {spends:?}); say("result", result=reply["status"])"#
    );
    let id = post(&api, json!({ "task": lead, "budget_usd": 1.0 })).await;
    let end = result(&api, &id).await;
    assert_eq!(end["status"], "budget_exceeded", "{end}");
    worked_for(&api, &id, &[("b", "completed"), ("c", "budget_exceeded")]).await;
}

#[tokio::test]
async fn what_is_open_at_a_time_never_may_cost_more_than_there_is() {
    let team = Team::start(&[]).await;
    let api = team.api();
    let dir = Dir::new();
    let gate = dir.join("gate");
    let spends = |usd: f64| format!(r#"say("cost", usd={usd}); say("result", result=1)"#);
    // The first one is still open when the second one is asked: nothing is left for that.
    let waits = format!("import os\nwhile not os.path.exists({gate:?}): time.sleep(0.01)\n{}", spends(0.7));
    let greedy = format!(
        r#"
say("handoff", id="b", to="b", task={waits:?})
say("handoff", id="c", to="c", task={0:?})
say("handoff", id="d", to="d", task="say('result', result=1)")
replies = [hear(), hear()]
open({gate:?}, "w")
replies.append(hear())
say("result", result={{reply["handoff"]: reply["status"] for reply in replies}})"#,
        spends(0.01)
    );
    let id = post(&api, json!({ "task": greedy, "budget_usd": 1.0 })).await;
    let end = result(&api, &id).await;
    assert_eq!(end["result"], json!({ "b": "completed", "c": "budget_exceeded", "d": "completed" }), "{end}");

    // Who says how much is for each has them work side by side, and the one that is named no share gets the rest.
    let shares = format!(
        r#"
say("handoff", id="b", to="b", task={0:?}, budget_usd=0.3)
say("handoff", id="c", to="c", task={0:?}, budget_usd=0.3)
say("handoff", id="d", to="d", task={1:?})
say("result", result={{reply["handoff"]: reply["status"] for reply in [hear(), hear(), hear()]}})"#,
        spends(0.3),
        spends(0.35)
    );
    // Of a dollar a nickel is spent before.
    let task = format!("say(\"cost\", usd=0.05)\n{shares}");
    let end = result(&api, &post(&api, json!({ "task": task, "budget_usd": 1.0 })).await).await;
    assert_eq!(end["result"], json!({ "b": "completed", "c": "completed", "d": "completed" }), "{end}");

    // What the agent of the one who asks may cost at all is a budget, too.
    let asks = format!(r#"say("result", result=hand_off("b", {:?})["status"])"#, spends(0.6));
    let end = result(&api, &post(&api, json!({ "task": asks, "agent": "g" })).await).await;
    assert_eq!(end["status"], "budget_exceeded", "what the other cost is its cost: {end}");
    let asks = format!(r#"say("result", result=hand_off("b", {:?}, budget_usd=0.1)["status"])"#, spends(0.2));
    let end = result(&api, &post(&api, json!({ "task": asks, "agent": "g" })).await).await;
    assert_eq!((&end["status"], &end["result"]), (&json!("completed"), &json!("budget_exceeded")), "{end}");
}

/// `FTE_HANDOFF_KILLS` and `FTE_KILL_SEED` repeat or change a run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_of_a_hand_off_each_has_one_child_and_one_reply() {
    let (kills, seed) = (setting("FTE_HANDOFF_KILLS", 8), setting("FTE_KILL_SEED", 0x4a11));
    println!("seed: FTE_KILL_SEED={seed}");
    let mut dice = Dice::new(seed);
    let mut team = Team::start(&[("FTE_RUNNER_HANDOFF_STAY_MS", "100")]).await;
    let lead = r#"
first = hand_off("b", "time.sleep(0.1); say('result', result=1)")
say("handoff", id="x", to="c", task="say('result', result=2)")
say("handoff", id="y", to="d", task="time.sleep(0.3); say('result', result=3)")
rest = {reply["handoff"]: reply["result"] for reply in (hear(), hear())}
say("result", result=[first["result"], rest])
"#;
    let mut tasks = Vec::new();
    for _ in 0..kills {
        tasks.push(post(&team.api(), json!({ "task": lead })).await);
        tokio::time::sleep(Duration::from_millis(100 + dice.below(1_200))).await;
        team.process.kill().await;
        team.process.restart().await;
    }
    let api = team.api();
    let mut all = Vec::new();
    for task in &tasks {
        shown(&api, task, |task| task["result"].is_array() || task["error"].is_object()).await;
        let end = result(&api, task).await;
        assert_eq!(end["result"], json!([1, {"x": 2, "y": 3}]), "{end}");
        all.extend(ids(&grown(&api, task, 4).await));
    }
    let trail = settled(&Doors::all(&api), &all).await.len();
    println!("kills: {kills}, tasks: {}, of these in the trail: {trail}", all.len());
}
