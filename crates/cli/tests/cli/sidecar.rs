//! `fte sidecar`: comes up, says where, refuses a second one on its data, ends cleanly.

use fte_testkit::Dir;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::run::{command, fte};

#[tokio::test]
async fn it_says_where_it_listens_and_ends_cleanly_when_asked() {
    let dir = Dir::new();
    let data = dir.join("data");
    let args = ["sidecar", "--json", "--data", data.to_str().unwrap(), "--app", "orders:1:0", "--app", "billing:1:0"];
    let mut child = command(&args).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line: serde_json::Value = serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap();
    let apps: Vec<_> = line["items"].as_array().unwrap().iter().map(|item| item["app"].as_str().unwrap()).collect();
    assert_eq!(apps, ["orders", "billing"]);
    let health = fte_testkit::Client::new(line["items"][1]["api"].as_str().unwrap()).get("/v1.0/healthz/outbound").await.unwrap();
    assert_eq!(health.status.as_u16(), 204);

    let second = fte("", &args).await;
    assert_eq!(second.code, 2);
    assert!(second.err.contains("is in use by another process") && second.err.contains("--data"), "{}", second.err);

    let pid = rustix::process::Pid::from_raw(child.id().unwrap().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn a_port_in_use_is_one_clear_line_and_exit_code_2() {
    let dir = Dir::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let app = format!("orders:1:{}", taken.local_addr().unwrap().port());
    let ran = fte("", &["sidecar", "--data", dir.join("data").to_str().unwrap(), "--app", &app]).await;
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("is in use by another process"), "{}", ran.err);
}
