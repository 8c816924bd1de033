//! What agents make is fetched: over HTTP, by the command, by nobody else; from one directory, from a shared one, from S3.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use fte_testkit::{Client, Dir, S3Server, built_binary, eventually};
use serde_json::{Value, json};

use crate::parts::Parts;
use crate::tenants::Guarded;
use crate::world::{Fte, post, result};

/// Makes a file of so many bytes, its task's number.
const MAKER: &str = r#"
    default = "maker"
    [agents.maker]
    kind = "process"
    command = ["sh", "-c", '''
        IFS= read -r start
        size=$(printf '%s' "$start" | sed 's/.*"task":"\([0-9]*\)".*/\1/')
        head -c "$size" /dev/zero > made.bin
        echo '{"type":"artifact","path":"made.bin"}'
        echo '{"type":"result","result":"made"}'
    ''']
"#;

/// The command as this client would run it, in this directory.
fn fte(api: &Client, key: Option<&str>, at: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(built_binary());
    command.args(args).current_dir(at).env("FTE_URL", api.base()).stdin(Stdio::null());
    if let Some(key) = key {
        command.env("FTE_API_KEY", key);
    }
    command.output().unwrap()
}

#[track_caller]
fn text(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap().trim_end().to_owned()
}

/// The artifacts, once the task has made one.
async fn listed(status: &Client, task: &str) -> Value {
    eventually(|| async {
        let answer = status.get(&format!("/v1/tasks/{task}/artifacts")).await.map_err(|error| error.to_string())?;
        let page: Value = answer.json();
        if page["items"].as_array().is_some_and(|items| !items.is_empty()) { Ok(page["items"].clone()) } else { Err(page.to_string()) }
    })
    .await
}

#[tokio::test]
async fn a_report_is_fetched_by_who_may_see_the_task_and_by_nobody_else() {
    let fte_with_keys = Guarded::start().await;
    let roles = ["--role", "submit", "--role", "read", "--role", "approve"];
    let key = fte_with_keys.key(&[["ada", "--tenant", "acme"].as_slice(), &roles].concat());
    let ada = fte_with_keys.somebody_with(&key).await;
    let bob = fte_with_keys.somebody(&[["bob", "--tenant", "globex"].as_slice(), &roles].concat()).await;
    let poster = fte_with_keys.somebody(&["poster", "--tenant", "acme", "--role", "submit"]).await;
    let task = post(&ada, json!({ "task": "rain", "agent": "demo", "context": { "demo": { "step_ms": 1 } } })).await;
    eventually(|| async {
        let answer =
            ada.post(&format!("/v1/tasks/{task}/approval"), &json!({ "approved": true })).await.map_err(|error| error.to_string())?;
        if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
    })
    .await;
    assert_eq!(result(&ada, &task).await["status"], "completed");

    let path = format!("/v1/tasks/{task}/artifacts");
    let shown: Value = ada.get(&format!("/v1/tasks/{task}")).await.unwrap().expect_status(200).json();
    let href = shown["artifacts"][0]["href"].as_str().unwrap();
    let fetched = ada.get(href).await.unwrap().expect_status(200);
    assert!(fetched.text().starts_with("# Report") && fetched.text().contains("rain"), "{}", fetched.text());
    assert_eq!(fetched.headers["content-type"], "text/markdown; charset=utf-8");
    assert_eq!(fetched.headers["x-content-type-options"], "nosniff");
    for url in [path.as_str(), href, &format!("{path}/report.md")] {
        assert_eq!(bob.get(url).await.unwrap().expect_status(404).problem_code(), "task_not_found");
        assert_eq!(poster.get(url).await.unwrap().expect_status(403).problem_code(), "role_missing");
    }

    let here = Dir::new();
    let at = here.join("");
    let run = |args: &[&str]| fte(&ada, Some(&key), &at, &[&["artifacts", &task], args].concat());
    assert!(text(&run(&[]), 0).contains("report.md"));
    assert_eq!(text(&run(&["report.md"]), 0), "report.md");
    assert_eq!(std::fs::read_to_string(at.join("report.md")).unwrap(), fetched.text());
    assert!(String::from_utf8(run(&["report.md"]).stderr).unwrap().contains("--force"));
    assert_eq!(run(&["report.md"]).status.code(), Some(2));
    let saved: Value = serde_json::from_str(&text(&run(&["report.md", "--force", "--json"]), 0)).unwrap();
    assert_eq!(saved["sha256"], shown["artifacts"][0]["sha256"]);
    assert_eq!(text(&run(&["report.md", "-o", "-"]), 0), fetched.text().trim_end());
    assert_eq!(run(&["nothing.md"]).status.code(), Some(3));
    assert_eq!(std::fs::read_dir(&at).unwrap().count(), 1, "nothing half-written");
}

#[tokio::test]
async fn a_large_artifact_comes_whole_and_a_damaged_one_does_not() {
    let fte_up = Fte::with_agents(MAKER, &[]).await;
    let api = fte_up.api();
    let task = post(&api, json!({ "task": "30000000" })).await;
    assert_eq!(result(&api, &task).await["status"], "completed");
    let made = listed(&api, &task).await;
    let here = Dir::new();
    let at = here.join("");
    let fetch = || fte(&api, None, &at, &["artifacts", &task, "made.bin", "--force"]);
    text(&fetch(), 0);
    assert_eq!(std::fs::metadata(at.join("made.bin")).unwrap().len(), 30_000_000);

    let sha256 = made[0]["sha256"].as_str().unwrap();
    let shelf = fte_up.process.data().join("artifacts/sha256").join(&sha256[..2]);
    let file = std::fs::read_dir(shelf).unwrap().next().unwrap().unwrap().path();
    let mut damaged = std::fs::read(&file).unwrap();
    damaged[15_000_000] = 1;
    std::fs::write(&file, damaged).unwrap();
    std::fs::remove_file(at.join("made.bin")).unwrap();
    assert_eq!(fetch().status.code(), Some(5), "it breaks off");
    assert_eq!(std::fs::read_dir(&at).unwrap().count(), 0);
}

/// A task whose artifact goes from a runner by way of a store to status.
async fn goes_through(runner: &[(&str, &str)], status: &[(&str, &str)]) -> (Parts, String) {
    let parts = Parts::start_with(MAKER, &[runner], status).await;
    let task = post(&parts.intake.api, json!({ "task": "12000000" })).await;
    assert_eq!(result(&parts.status.api, &task).await["status"], "completed");
    listed(&parts.status.api, &task).await;
    (parts, task)
}

#[tokio::test]
async fn a_directory_that_runner_and_status_share_is_enough() {
    let shared = Dir::new();
    let place = shared.join("artifacts").display().to_string();
    let env = [("FTE_ARTIFACTS", place.as_str())];
    let (parts, task) = goes_through(&env, &env).await;
    let made = parts.status.api.get(&format!("/v1/tasks/{task}/artifacts/made.bin")).await.unwrap().expect_status(200);
    assert_eq!(made.body.len(), 12_000_000);
}

#[tokio::test]
async fn a_status_that_sees_no_store_says_what_to_do() {
    let (parts, task) = goes_through(&[], &[]).await;
    let refused = parts.status.api.get(&format!("/v1/tasks/{task}/artifacts/made.bin")).await.unwrap().expect_status(503);
    assert_eq!(refused.problem_code(), "artifacts_unavailable");
    assert!(refused.text().contains("FTE_ARTIFACTS"), "{}", refused.text());
}

#[tokio::test]
async fn an_s3_store_between_runner_and_status_may_be_away_for_a_while() {
    let mut server = S3Server::new();
    let own = server.env();
    let env: Vec<(&str, &str)> = [("FTE_ARTIFACTS", "s3://bucket/fte"), ("FTE_ARTIFACTS_ALLOW_HTTP", "true")]
        .into_iter()
        .chain(own.iter().map(|(name, value)| (*name, value.as_str())))
        .collect();
    // The store is away at first: the runner starts, and the attempt is made again.
    let parts = Parts::start_with(MAKER, &[&env], &env).await;
    let task = post(&parts.intake.api, json!({ "task": "12000000" })).await;
    let shown = eventually(|| async {
        let shown: Value = parts.status.api.get(&format!("/v1/tasks/{task}")).await.map_err(|error| error.to_string())?.json();
        if shown["attempt"] == 2 { Ok(shown) } else { Err(shown.to_string()) }
    })
    .await;
    assert_eq!(shown["artifacts"], Value::Null, "{shown}");
    server.start().await;
    server.make_bucket("bucket", false);
    assert_eq!(result(&parts.status.api, &task).await["status"], "completed");
    listed(&parts.status.api, &task).await;
    let made = eventually(|| async {
        let answer = parts.status.api.get(&format!("/v1/tasks/{task}/artifacts/made.bin")).await.map_err(|error| error.to_string())?;
        if answer.status == 200 { Ok(answer) } else { Err(answer.text()) }
    })
    .await;
    assert_eq!(made.body.len(), 12_000_000);
}
