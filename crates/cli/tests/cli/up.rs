//! `fte up`: one task through the real thing, and starts that cannot succeed.

use std::net::TcpListener;
use std::path::Path;

use fte_testkit::{Dir, FteProcess, eventually};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

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

#[tokio::test]
async fn a_task_goes_through_and_the_end_is_clean() {
    let dir = Dir::new();
    let mut process = FteProcess::start_with(BINARY, dir.join("data"), ["--quiet"], [] as [(&str, &str); 0]).await;
    let url = process.ready().api.clone();

    let ran = fte(&url, &["submit", "say hello", "--wait", "--json"]).await;
    assert_eq!((ran.code, ran.json()["status"].as_str()), (0, Some("completed")), "{ran:?}");
    let id = ran.json()["task_id"].as_str().unwrap().to_owned();

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
    assert_eq!(process.log(), "finishing what is under way; once more stops at once\n");
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

#[tokio::test]
async fn a_second_signal_does_not_wait_for_what_is_under_way() {
    let dir = Dir::new();
    let ready = dir.join("ready.json");
    let args = ["up", "--quiet", "--port", "0", "--sidecar-port", "0", "--data", dir.join("data").to_str().unwrap(), "--ready-file"]
        .map(str::to_owned);
    let mut child = command(&[]).args(args).arg(&ready).spawn().unwrap();
    let read = || async { std::fs::read(&ready).map_err(|error| error.to_string()) };
    let place: Value = serde_json::from_slice(&eventually(read).await).unwrap();

    // A request whose body does not end.
    let mut stream = tokio::net::TcpStream::connect(place["api"].as_str().unwrap().trim_start_matches("http://")).await.unwrap();
    let head = "POST /v1/tasks HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();

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
    check(fails(&file, &[]).await, ["cannot be written", "--data"]);
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
