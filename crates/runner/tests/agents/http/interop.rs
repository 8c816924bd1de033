//! With the official A2A SDK: `examples/agents/remote.py`, which streams, is asked, asks and can be cancelled. `tests/agents/a2a` installs what it needs.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use fte_runner::ports::{Said, Session, Start, Tell};
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::{Far, artifacts};
use crate::support::{all, expect_error, next, start, yes};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// The example, as long as this is there, and where it is.
struct Remote {
    _child: Child,
    url: String,
}

async fn remote(arguments: &[&str]) -> Remote {
    let installed = Command::new(root().join("tests/agents/a2a")).output().await.expect("tests/agents/a2a can be run");
    let why = String::from_utf8_lossy(&installed.stderr);
    assert!(installed.status.success(), "the A2A SDK cannot be installed: {why}");
    let python = String::from_utf8(installed.stdout).unwrap();
    let mut command = Command::new(python.trim());
    command.arg(root().join("examples/agents/remote.py")).arg("0").args(arguments).kill_on_drop(true).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let url = lines.next_line().await.unwrap().expect("the example says where it is");
    Remote { _child: child, url }
}

async fn until_asked(session: &mut Session) -> Vec<Said> {
    let mut said = Vec::new();
    while !matches!(said.last(), Some(Said::Approval { .. })) {
        said.push(next(session).await.expect("a question"));
    }
    said
}

fn place(said: &[Said]) -> Said {
    said.iter().find(|said| matches!(said, Said::Checkpoint(_))).cloned().expect("a checkpoint")
}

#[tokio::test]
async fn the_sdk_streams_asks_and_hears_the_answer() {
    let remote = remote(&[]).await;
    let far = Far::new(&remote.url, "a2a");
    let asked = start("rain");
    let mut session = far.start(asked.clone()).await;
    let said = until_asked(&mut session).await;
    assert_eq!(said[1..3], [Said::Stage("submitted".to_owned()), Said::Stage("draft".to_owned())]);
    assert_eq!(said[3], Said::Progress { pct: Some(40), message: Some("reading".to_owned()) });
    assert_eq!(far.kept(artifacts(&said)[0]), b"# Note on: rain\nIt is written.\n");
    let question = said.last().unwrap().clone();
    assert!(matches!(&question, Said::Approval { reason: Some(reason), .. } if reason == "May this note be published?"), "{question:?}");
    // Parked, and started again: the task is there, and asks the same.
    drop(session);
    let Said::Checkpoint(checkpoint) = place(&said) else { panic!("{said:?}") };
    let mut session = far.start(Start { checkpoint: Some(checkpoint), ..asked }).await;
    assert_eq!(until_asked(&mut session).await.last(), Some(&question));
    session.tell.send(yes()).await.unwrap();
    assert_eq!(all(&mut session).await.pop(), Some(Said::Result(json!("# Note on: rain\nIt is written.\n"))));
}

#[tokio::test]
async fn the_sdk_is_asked_where_it_does_not_stream() {
    let remote = remote(&["--poll"]).await;
    let far = Far::new(&remote.url, "a2a");
    let mut session = far.start(start("snow")).await;
    let said = until_asked(&mut session).await;
    assert_eq!(far.kept(artifacts(&said)[0]), b"# Note on: snow\nIt is written.\n");
    session.tell.send(yes()).await.unwrap();
    assert_eq!(all(&mut session).await.pop(), Some(Said::Result(json!("# Note on: snow\nIt is written.\n"))));
}

#[tokio::test]
async fn the_sdk_is_cancelled() {
    let remote = remote(&[]).await;
    let far = Far::new(&remote.url, "a2a");
    let asked = start("wait");
    let mut session = far.start(asked.clone()).await;
    let mut said = vec![next(&mut session).await.unwrap()];
    while !matches!(said.last(), Some(Said::Progress { .. })) {
        said.push(next(&mut session).await.expect("progress"));
    }
    session.tell.send(Tell::Cancel).await.unwrap();
    expect_error(&all(&mut session).await.pop().unwrap(), "cancelled", false);
    // It is over there as well.
    let Said::Checkpoint(checkpoint) = place(&said) else { panic!("{said:?}") };
    let last = far.all(Start { checkpoint: Some(checkpoint), ..asked }).await.pop().unwrap();
    expect_error(&last, "remote_cancelled", false);
}
