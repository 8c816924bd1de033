//! `fte up`: one task through the real thing, and starts that cannot succeed.

use std::net::TcpListener;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use fte_testkit::{Dir, FteProcess, eventually};
use rustix::process::{Pid, Signal};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

use crate::run::{Ran, command, fte};

const BINARY: &str = env!("CARGO_BIN_EXE_fte");

/// A start that ends by itself.
async fn fails(data: &Path, args: &[&str]) -> Ran {
    let mut all = vec!["up", "--data", data.to_str().unwrap()];
    for option in ["--port", "--sidecar-port"] {
        if !args.contains(&option) {
            all.extend([option, "0"]);
        }
    }
    all.extend(args);
    fte("", &all).await
}

/// The lines of a log, but for what a machine adds that is so busy that a service takes its time to start.
fn said(log: &str) -> Vec<&str> {
    log.lines().filter(|line| !line.contains("app is away")).collect()
}

#[tokio::test]
async fn a_task_goes_through_and_the_end_is_clean() {
    let dir = Dir::new();
    let mut process = FteProcess::start_with(BINARY, dir.join("data"), ["--quiet"], [] as [(&str, &str); 0]).await;
    let url = process.ready().api.clone();

    let ran = fte(&url, &["submit", "say hello", "--wait", "--json"]).await;
    assert_eq!((ran.code, ran.json()["status"].as_str()), (0, Some("completed")), "{ran:?}");
    let id = ran.json()["task_id"].as_str().unwrap().to_owned();

    // Topics come in no order among each other, and who watches does not wait for this one.
    eventually(|| async {
        let events = fte_testkit::Client::new(&url).get(&format!("/v1/tasks/{id}/events")).await.map_err(|error| error.to_string())?.text();
        if events.contains("fte.task.requested") { Ok(()) } else { Err(events) }
    })
    .await;
    let lines = fte(&url, &["watch", &id, "--json"]).await.out;
    let types: Vec<String> =
        lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["type"].as_str().unwrap().to_owned()).collect();
    for expected in ["fte.task.requested", "fte.sandbox.claimed", "fte.sandbox.released", "fte.result.completed"] {
        assert_eq!(types.iter().filter(|seen| *seen == expected).count(), 1, "{expected} in {types:?}");
    }
    assert_eq!(fte(&url, &["tasks", "--json"]).await.json()["items"][0]["task_id"], id.as_str());
    assert_eq!(fte(&url, &["cancel", &id]).await.code, 4);
    assert_eq!(fte(&url, &["watch", "01980000-0000-7000-8000-000000000001"]).await.code, 3);
    let ran = fte(&url, &["doctor", "--probe", "--sidecar-url", &process.ready().sidecar.clone()]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let ran = fte(&url, &["bench", "--tasks", "50", "--concurrency", "4", "--check", "all", "--json"]).await;
    let report = ran.json();
    assert_eq!((ran.code, report["completed"].as_u64(), report["checked"].as_u64()), (0, Some(50), Some(50)), "{ran:?}");

    assert!(process.stop().await.success());
    assert_eq!(said(&process.log()), ["finishing what is under way; once more stops at once"]);
}

#[tokio::test]
async fn what_waits_for_a_person_is_said_with_what_to_do_unless_it_shall_be_quiet() {
    let dir = Dir::new();
    for args in [&[][..], &["--quiet"]] {
        let process = FteProcess::start_with(BINARY, dir.join("data"), args, [] as [(&str, &str); 0]).await;
        let url = process.ready().api.clone();
        let ran = fte(&url, &["submit", "say hello", "--require-approval"]).await;
        let id = ran.out.trim().to_owned();
        if args.is_empty() {
            let said = eventually(|| async {
                let log = process.log();
                if log.contains(&format!("task {id} waits for a person")) { Ok(log) } else { Err(log) }
            })
            .await;
            assert!(said.contains(&format!("→ {url}/v1/approvals/{id}")), "{said}");
            assert!(said.contains(&format!("or fte approve {id} --question 1 --url {url}   (or with --reject)")), "{said}");
            // Once, however often it looks.
            fte(&url, &["approve", &id]).await;
            let other = fte(&url, &["submit", "another", "--require-approval"]).await.out.trim().to_owned();
            let said = eventually(|| async {
                let log = process.log();
                if log.contains(&other) { Ok(log) } else { Err(log) }
            })
            .await;
            assert_eq!(said.matches(&format!("task {id} waits")).count(), 1, "{said}");
        } else {
            let waits = async || fte(&url, &["tasks", "--status", "awaiting_approval", "--json"]).await;
            eventually(|| async {
                let ran = waits().await;
                if ran.out.contains(&id) { Ok(()) } else { Err(ran.out) }
            })
            .await;
            assert!(!process.log().contains("waits for a person"), "{}", process.log());
        }
    }
}

#[tokio::test]
async fn what_was_done_is_there_after_a_kill_and_a_restart() {
    let dir = Dir::new();
    let mut process = FteProcess::start(BINARY, dir.join("data")).await;
    let id = fte(&process.ready().api, &["submit", "say hello"]).await.out.trim().to_owned();
    process.kill().await;
    process.restart().await;
    let ran = fte(&process.ready().api, &["watch", &id]).await;
    assert!(ran.code == 0 && ran.out.contains("say hello"), "{ran:?}");
}

/// Starts `fte up` in a directory, on free ports, with JSON logs, and waits until it is ready.
async fn up_in(dir: &Path, args: &[&str], env: &[(&str, &str)]) -> (Child, Value) {
    let ready = dir.join("ready.json");
    let ports = ["up", "--quiet", "--port", "0", "--sidecar-port", "0", "--ready-file", "ready.json"];
    // Whoever runs this test may ignore hang-ups, which a child would inherit.
    let mut command = Command::new("env");
    command.args(["--default-signal=HUP", env!("CARGO_BIN_EXE_fte")]).args(ports).args(args).current_dir(dir).env_clear();
    command.envs([("PATH", "/usr/bin:/bin"), ("FTE_LOG_FORMAT", "json")]).envs(env.iter().copied());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let child = command.spawn().unwrap();
    let read = || async { std::fs::read(&ready).map_err(|error| error.to_string()) };
    let place = serde_json::from_slice(&eventually(read).await).unwrap();
    (child, place)
}

/// Asks it to end with this signal and reads what it logged.
async fn end(mut child: Child, signal: Signal) -> (ExitStatus, Vec<Value>) {
    let mut err = child.stderr.take().unwrap();
    send(&child, signal);
    let mut log = String::new();
    err.read_to_string(&mut log).await.unwrap();
    let lines = log.lines().filter(|line| line.starts_with('{')).map(|line| serde_json::from_str(line).unwrap()).collect();
    (child.wait().await.unwrap(), lines)
}

fn send(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(child.id().unwrap().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// A request that has begun and whose body of so many bytes is still to come: it holds an end up.
async fn under_way(place: &Value, length: usize) -> tokio::net::TcpStream {
    let mut stream = tokio::net::TcpStream::connect(place["api"].as_str().unwrap().trim_start_matches("http://")).await.unwrap();
    let head = format!(
        "POST /v1/tasks HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nexpect: 100-continue\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut begun = [0; 25];
    stream.read_exact(&mut begun).await.unwrap();
    assert_eq!(begun, *b"HTTP/1.1 100 Continue\r\n\r\n");
    stream
}

#[tokio::test]
async fn agents_are_found_beside_a_file_that_is_named_without_a_directory() {
    let dir = Dir::new();
    dir.write("shout.sh", "echo was here >&2; tr a-z A-Z");
    dir.write("agents.toml", "[agents.shouter]\nkind = \"command\"\ncommand = [\"sh\", \"shout.sh\"]\n");
    let (child, place) = up_in(&dir, &["--agents", "agents.toml"], &[("FTE_LOG", "warn,fte_runner=debug")]).await;
    let ran = fte(place["api"].as_str().unwrap(), &["submit", "hello", "--wait", "--json"]).await;
    assert_eq!((ran.code, &ran.json()["result"]), (0, &"HELLO".into()), "{ran:?}");

    let (status, log) = end(child, Signal::TERM).await;
    assert!(status.success(), "{log:?}");
    let said = log.iter().find(|line| line["text"] == "was here").unwrap_or_else(|| panic!("{log:?}"));
    assert_eq!((&said["agent"], &said["task_id"]), (&"shouter".into(), &ran.json()["task_id"]), "{said}");
    assert!(log.iter().all(|line| line["level"] != "WARN"), "{log:?}");
}

#[tokio::test]
async fn what_an_agent_lacks_is_said_at_the_start_and_hinders_nobody_else() {
    let dir = Dir::new();
    dir.write("plain.sh", "cat");
    let agents = [
        ("good", r#"["cat"]"#, ""),
        ("inline", r#"["sh", "-c", "cat"]"#, ""),
        ("absent", r#"["no-such-program"]"#, "no-such-program is in none of the directories of PATH"),
        ("astray", r#"["./nowhere/agent"]"#, "./nowhere/agent"),
        ("unmarked", r#"["./plain.sh"]"#, "plain.sh is not executable"),
        ("scriptless", r#"["python3", "agent.py"]"#, "agent.py"),
    ];
    let text = agents.map(|(name, command, _)| format!("[agents.{name}]\nkind = \"command\"\ncommand = {command}\n")).concat();
    dir.write("agents.toml", format!("default = \"good\"\n{text}"));
    let (child, place) = up_in(&dir, &["--agents", "agents.toml"], &[]).await;
    fte(place["api"].as_str().unwrap(), &["submit", "hello", "--wait"]).await.check(0, "hello");
    let (status, log) = end(child, Signal::TERM).await;
    assert!(status.success(), "{log:?}");
    for (name, _, problem) in agents {
        let warned: Vec<_> = log.iter().filter(|line| line["level"] == "WARN" && line["agent"] == name).collect();
        assert_eq!(warned.len(), usize::from(!problem.is_empty()), "{name}: {log:?}");
        if let Some(line) = warned.first() {
            assert!(line["problem"].as_str().unwrap().contains(problem) && line["key"] == format!("agents.{name}.command"), "{line}");
            assert!(line["advice"].as_str().is_some_and(|advice| !advice.is_empty()), "{line}");
        }
    }
}

#[tokio::test]
async fn a_terminal_that_hangs_up_asks_for_the_same_clean_end() {
    let dir = Dir::new();
    let (child, place) = up_in(&dir, &[], &[]).await;
    // Until its body ends.
    let mut stream = under_way(&place, "{\"task\":\"a\"}".len()).await;
    // A shell and its terminal may both say it: the second is not a person in a hurry.
    send(&child, Signal::HUP);
    send(&child, Signal::HUP);
    stream.write_all(b"{\"task\":\"a\"}").await.unwrap();
    let (status, log) = end(child, Signal::HUP).await;
    assert!(status.success(), "{status}: {log:?}");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
}

#[tokio::test]
async fn one_that_shall_outlive_its_terminal_does() {
    let dir = Dir::new();
    let ready = dir.join("ready.json");
    let args = ["up", "--quiet", "--port", "0", "--sidecar-port", "0", "--data"].map(str::to_owned);
    let mut child = Command::new("nohup")
        .arg(env!("CARGO_BIN_EXE_fte"))
        .args(args)
        .arg(dir.join("data"))
        .arg("--ready-file")
        .arg(&ready)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let read = || async { std::fs::read(&ready).map_err(|error| error.to_string()) };
    let place: Value = serde_json::from_slice(&eventually(read).await).unwrap();
    send(&child, Signal::HUP);
    fte(place["api"].as_str().unwrap(), &["submit", "hello", "--wait"]).await;
    assert!(child.try_wait().unwrap().is_none());
    send(&child, Signal::TERM);
    assert!(child.wait().await.unwrap().success());
}

#[tokio::test]
async fn a_second_signal_does_not_wait_for_what_is_under_way() {
    let dir = Dir::new();
    let ready = dir.join("ready.json");
    let args = ["up", "--quiet", "--port", "0", "--sidecar-port", "0", "--data", dir.join("data").to_str().unwrap(), "--ready-file"]
        .map(str::to_owned);
    let mut child = command(&[]).args(args).arg(&ready).spawn().unwrap();
    let read = || async { std::fs::read(&ready).map_err(|error| error.to_string()) };
    let place: Value = serde_json::from_slice(&eventually(read).await).unwrap();

    // Its body does not end.
    let _stream = under_way(&place, 100).await;

    let pid = rustix::process::Pid::from_raw(child.id().unwrap().try_into().unwrap()).unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(lines.next_line().await.unwrap().unwrap().contains("once more stops at once"));
    assert!(child.try_wait().unwrap().is_none());
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().await.unwrap().code(), Some(130));
}

#[tokio::test]
async fn a_start_that_cannot_succeed_is_one_clear_line_and_exit_code_2() {
    let dir = Dir::new();
    let check = |ran: Ran, words: [&str; 2]| {
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{}", ran.err);
        assert!(words.iter().all(|word| ran.err.contains(word)), "{}", ran.err);
    };

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    check(fails(&dir.join("data"), &["--port", &port]).await, ["in use by another process", "--port"]);
    check(fails(&dir.join("data"), &["--sidecar-port", &port]).await, ["in use by another process", "--sidecar-port"]);

    let agents = dir.write("agents.toml", "[agents.a]\nkind = \"robot\"\n");
    check(fails(&dir.join("data"), &["--agents", agents.to_str().unwrap()]).await, ["agents.toml line ", "kind"]);
    assert!(!dir.join("data").exists(), "nothing is made before the start is known to be possible");

    let process = FteProcess::start(BINARY, dir.join("data")).await;
    check(fails(process.data(), &[]).await, ["in use by another process", "--data"]);

    let file = dir.write("file", "");
    check(fails(&file, &[]).await, ["is a file", "--data"]);
    let missing = dir.join("missing");
    let missing = missing.to_str().unwrap();
    check(fails(&dir.join("other"), &["--agents", missing]).await, [missing, "try: name a file that is there with --agents"]);
    check(fails(&dir.join("other"), &["--secrets", missing]).await, [missing, "try: name a file that is there with --secrets"]);
}

#[tokio::test]
async fn a_bad_variable_is_named_before_a_port_is_bound_and_a_file_is_made() {
    let dir = Dir::new();
    let bad = dir.write("bad", "no key and no policy");
    let (bad, missing) = (bad.to_str().unwrap(), dir.join("missing"));
    // Whoever came as far as the port would name that.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (name, value) in [
        ("FTE_AGENTS", bad),
        ("FTE_API_KEYS_FILE", bad),
        ("FTE_ALLOW_ANONYMOUS", "maybe"),
        ("FTE_ARTIFACTS_ALLOW_HTTP", "maybe"),
        ("FTE_SECRETS_FILE", bad),
        ("FTE_RUNNER_PLACES", "none"),
        ("FTE_RUNNER_APPROVAL_TTL", "0s"),
        ("FTE_AUDIT_READERS_MAX", "0"),
        ("FTE_AUDIT_KEY_FILE", bad),
        ("FTE_AUDIT_NEXT_KEY_FILE", bad),
        ("FTE_AUDIT_MASTER_KEY_FILE", bad),
        ("FTE_AUDIT_WITNESS_POLICY", bad),
        ("FTE_AUDIT_WITNESS_POLICY", missing.to_str().unwrap()),
    ] {
        let args = ["up", "--data", dir.join("data").to_str().unwrap(), "--port", &port, "--sidecar-port", "0"].map(str::to_owned);
        let ran = command(&[]).args(args).env(name, value).output().await.unwrap();
        let said = String::from_utf8(ran.stderr).unwrap();
        assert_eq!(ran.status.code(), Some(2), "{name}={value}: {said}");
        // Of these two the line of the file is named.
        let named = if ["FTE_AGENTS", "FTE_API_KEYS_FILE"].contains(&name) { bad } else { name };
        assert!(said.contains(named), "{name}={value}: {said}");
        assert!(!said.contains("in use"), "{name}={value}: {said}");
    }
    assert!(!dir.join("data").exists());
}

#[tokio::test]
async fn what_the_instance_offers_is_in_its_open_api_document() {
    let dir = Dir::new();
    let process = FteProcess::start(BINARY, dir.join("data")).await;
    let document: Value = process.api().get("/openapi.json").await.unwrap().expect_status(200).json();
    let paths = document["paths"].as_object().unwrap();
    for path in [
        "/tasks",
        "/v1/tasks",
        "/v1/agents",
        "/v1/approvals/{id}",
        "/v1/audit/entries",
        "/v1/services/{name}",
        "/health",
        "/ready",
        "/metrics",
    ] {
        assert!(paths.contains_key(path), "{path} is not in {:?}", paths.keys());
    }
    let operations = paths.values().flat_map(|item| item.as_object().unwrap().values());
    let mut ids: Vec<&str> = operations.map(|operation| operation["operationId"].as_str().unwrap()).collect();
    ids.sort_unstable();
    let all = ids.len();
    ids.dedup();
    assert_eq!(ids.len(), all, "clients are made of these names: each is one operation's: {ids:?}");
}

#[tokio::test]
async fn what_looks_wrong_at_the_start_is_said_and_nothing_else() {
    let dir = Dir::new();
    let env = [("FTE_AGENT", "agents.toml"), ("FTE_SECRET_KEY", "x")];
    let process = FteProcess::start_with(BINARY, dir.join("data"), ["--quiet"], env).await;
    let log = process.log();
    assert!(log.contains("nothing reads the variable FTE_AGENT: FTE_AGENTS is the nearest that FTE knows"), "{log}");
    assert_eq!(said(&log).len(), 1, "{log}");
    drop(process);

    // An empty log in the place of a full one must not go unnoticed.
    std::fs::remove_dir_all(dir.join("data/audit")).unwrap();
    for expected in [1, 0] {
        let process = FteProcess::start_with(BINARY, dir.join("data"), ["--quiet"], [] as [(&str, &str); 0]).await;
        let log = process.log();
        assert_eq!(log.matches("there is no audit log in").count(), expected, "{log}");
    }
}

#[tokio::test]
async fn where_callers_need_a_key_the_first_lines_say_so() {
    let dir = Dir::new();
    let file = dir.join("keys.toml");
    let file = file.to_str().unwrap();
    let made = fte("", &["keys", "new", "--role", "admin", "--file", file, "ada"]).await;
    assert_eq!(made.code, 0, "{made:?}");
    let process = FteProcess::start_with(BINARY, dir.join("data"), [] as [&str; 0], [("FTE_API_KEYS_FILE", file)]).await;
    let said = eventually(|| async {
        let log = process.log();
        if log.contains("stop              Ctrl-C") { Ok(log) } else { Err(log) }
    })
    .await;
    assert!(said.contains("export FTE_API_KEY=…") && said.contains("-H \"authorization: Bearer $FTE_API_KEY\""), "{said}");
}

#[tokio::test]
async fn one_service_runs_beside_any_sidecar() {
    let dir = Dir::new();
    let bad = command(&["serve", "status"]).env("APP_PORT", "many").output().await.unwrap();
    let err = String::from_utf8(bad.stderr).unwrap();
    assert!(bad.status.code() == Some(2) && err.contains("APP_PORT=many: expected"), "{err}");

    // Any free port: the service says in its log which.
    let mut child = command(&["serve", "status"])
        .envs([("APP_PORT", "0"), ("FTE_API_ADDR", "127.0.0.1:0"), ("DAPR_HTTP_PORT", "1"), ("FTE_LOG_FORMAT", "json")])
        .env("FTE_DATA", dir.join("data"))
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let api = loop {
        let line: Value = serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap();
        if line["message"] == "serving" {
            break line["api"].as_str().unwrap().to_owned();
        }
    };
    let client = fte_testkit::Client::new(format!("http://{api}"));
    assert_eq!(client.get("/health").await.unwrap().status.as_u16(), 200);
    assert_eq!(client.get("/ready").await.unwrap().problem_code(), "not_ready");
    child.kill().await.unwrap();
}
