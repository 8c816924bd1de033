//! What `--json` prints: one rule for all commands, and no command without one.
//!
//! One object on one line; a list is an object with `items`, as the API has it. What goes on for a while is an object a line.

use std::collections::BTreeSet;
use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::audit::Instance;
use crate::fake::{Fake, json};
use crate::help::commands;
use crate::run::{Ran, command, fte};

const ID: &str = "01980000-0000-7000-8000-000000000001";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    One,
    List,
    Events,
}

/// Looks at what a command printed.
#[track_caller]
fn check(command: &str, shape: Shape, out: &str) {
    let lines: Vec<Value> =
        out.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{command}: {error}: {line}"))).collect();
    assert!(lines.iter().all(Value::is_object), "{command}: {out}");
    match shape {
        Shape::Events => assert!(lines.len() > 1, "{command}: {out}"),
        Shape::One => assert!(lines.len() == 1 && lines[0].get("items").is_none(), "{command}: {out}"),
        Shape::List => assert!(lines.len() == 1 && lines[0]["items"].is_array(), "{command}: {out}"),
    }
}

/// Runs each, and keeps in mind which commands have been looked at.
struct Looked {
    commands: BTreeSet<String>,
}

impl Looked {
    /// The command's words, and the arguments behind them.
    async fn at(&mut self, url: &str, words: &str, args: &[&str], shape: Shape) -> Ran {
        let all: Vec<&str> = words.split(' ').chain(args.iter().copied()).chain(["--json"]).collect();
        let ran = fte(url, &all).await;
        assert_eq!(ran.code, 0, "{all:?}: {ran:?}");
        check(words, shape, &ran.out);
        self.commands.insert(words.to_owned());
        ran
    }

    /// One that runs until it is stopped.
    async fn at_first(&mut self, words: &str, args: &[&str], shape: Shape) {
        let all: Vec<&str> = words.split(' ').chain(args.iter().copied()).chain(["--json"]).collect();
        let mut child = command(&all).stderr(Stdio::inherit()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.next_line().await.unwrap().unwrap_or_else(|| panic!("{words} has ended"));
        check(words, shape, &line);
        child.kill().await.unwrap();
        self.commands.insert(words.to_owned());
    }
}

#[tokio::test]
async fn every_command_prints_json_by_one_rule() {
    use Shape::{Events, List, One};
    let mut looked = Looked { commands: BTreeSet::new() };
    let mut instance = Instance::start().await;
    let (url, data, key) = (instance.url(), instance.data().to_owned(), instance.key());
    let task = instance.task().await;
    let entry = format!("{}/0", instance.year().await);

    let submitted = looked.at(&url, "submit", &["hello", "--require-approval"], One).await.json();
    looked.at(&url, "submit", &["hello", "--wait"], One).await;
    looked.at(&url, "watch", &[&task], Events).await;
    looked.at(&url, "result", &[&task], One).await;
    looked.at(&url, "artifacts", &[&task], List).await;
    looked.at(&url, "tasks", &[], List).await;
    looked.at(&url, "tree", &[&task], One).await;
    looked.at(&url, "agents", &[], List).await;
    looked.at(&url, "cancel", &[submitted["task_id"].as_str().unwrap()], One).await;
    looked.at(&url, "dead-letters list", &[], List).await;
    looked.at(&url, "doctor", &[], List).await;
    looked.at(&url, "bench", &["--tasks", "10"], One).await;
    looked.at(&url, "audit list", &[], List).await;
    looked.at(&url, "audit task", &[&task], One).await;
    let hold = looked.at(&url, "audit hold place", &["--subject", "user:ada", "--reason", "a case"], One).await.json();
    looked.at(&url, "audit hold list", &[], List).await;
    looked.at(&url, "audit hold lift", &[hold["id"].as_str().unwrap()], One).await;
    looked.at(&url, "audit prove", &[&entry, "--public-key", &key, "--out", &instance.path("proof")], One).await;
    let evidence = instance.path("evidence");
    looked.at(&url, "audit export", &["--task", &task, "--public-key", &key, "--out", &evidence], One).await;
    looked.at(&url, "audit verify", &[&evidence], One).await;
    looked.at(&url, "audit verify", &[&url, "--public-key", &key, "--no-memory"], One).await;
    looked.at(&url, "audit erase", &["--subject", "user:ada", "--yes"], One).await;

    // On the files of one that is stopped.
    assert!(instance.process.stop().await.success());
    looked.at("", "audit reindex", &["--data", &data], One).await;
    looked.at("", "audit rewrap", &["--data", &data], One).await;
    looked.at("", "audit rotate-key", &["--data", &data], One).await;
    looked.at("", "audit retire", &["--data", &data, "--by", "ada", "--dry-run"], One).await;
    let archive = instance.path("archive");
    std::fs::create_dir(&archive).unwrap();
    looked.at("", "audit archive", &["--data", &data, "--to", &archive, "--dry-run"], One).await;
    let policy = instance.write("policy", &format!("log {key}\nquorum none\n"));
    let state = instance.path("witness");
    looked.at_first("audit witness", &["--policy", &policy, "--state", &state, "--listen", "127.0.0.1:0"], One).await;
    looked.at_first("up", &["--data", &instance.path("up"), "--port", "0", "--sidecar-port", "0"], One).await;
    looked.at_first("sidecar", &["--data", &instance.path("sidecar"), "--app", "orders:1:0"], List).await;

    // What takes more to come about is answered by a fake.
    let answer = |status| vec![json(status, "{\n  \"task_id\": \"x\",\n  \"status\": \"queued\"\n}")];
    let routes = ["approval", "reply", "messages"].map(|verb| format!("POST /v1/tasks/{ID}/{verb}"));
    let letters = ["POST /v1/dead-letters/L/replay", "POST /v1/dead-letters/L/discard", "GET /v1/dead-letters/L"];
    let routes = routes.iter().map(String::as_str).chain(letters).map(|route| (route, answer(200)));
    let fake = Fake::start(routes).await;
    looked.at(&fake.url, "approve", &[ID], One).await;
    looked.at(&fake.url, "reply", &[ID, "yes"], One).await;
    looked.at(&fake.url, "send", &[ID, "hello"], One).await;
    for verb in ["show", "replay", "discard"] {
        looked.at(&fake.url, &format!("dead-letters {verb}"), &["L"], One).await;
    }

    looked.at("", "topics", &[], List).await;
    looked.at("", "keys new", &["ada", "--role", "read"], One).await;
    // The one has no data, and the other's are a script for a shell.
    let without = ["serve", "completions"].map(str::to_owned);
    let all: BTreeSet<String> = commands().await.into_iter().filter(|name| !without.contains(name)).collect();
    assert_eq!(looked.commands, all);
}
