//! Somebody is to be forgotten: what status and the runner hold of their tasks goes, and none of it comes back.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use fte_testkit::{Client, built_binary, eventually};
use serde_json::{Value, json};

use crate::tenants::Guarded;
use crate::world::{Fte, echo, post, result};

/// What nobody may find afterwards.
const SECRET: &str = "call-ada-at-555-0199";

/// The request that the audit service publishes, of these tasks.
fn request(id: &str, tasks: &[&str]) -> Value {
    json!({"specversion": "1.0", "id": id, "source": "/fte/audit", "type": "fte.erasure.requested", "ftetenant": "default",
        "time": "2026-07-01T10:00:00Z", "datacontenttype": "application/json", "data": {"subject": "user:ada", "tasks": tasks}})
}

async fn gone(api: &Client, task: &str) {
    eventually(|| async {
        let answer = api.get(&format!("/v1/tasks/{task}/events")).await.map_err(|error| error.to_string())?;
        if answer.status == 404 { Ok(()) } else { Err(answer.text()) }
    })
    .await;
    assert_eq!(api.get(&format!("/v1/tasks/{task}/result")).await.unwrap().status, 404);
}

/// Whether a file of this directory whose name begins so has these bytes.
fn is_in(directory: &Path, prefix: &str, bytes: &[u8]) -> bool {
    std::fs::read_dir(directory).unwrap().flatten().any(|file| {
        let has_name = file.file_name().to_string_lossy().starts_with(prefix);
        has_name && std::fs::read(file.path()).unwrap_or_default().windows(bytes.len()).any(|window| window == bytes)
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forgotten_task_is_in_no_answer_and_no_file_of_the_read_model_and_does_not_come_back() {
    let mut fte = Fte::start().await;
    let hers = fte.post(echo(SECRET)).await;
    let asking = fte.post(json!({"task": SECRET, "agent": "demo"})).await;
    let his = fte.post(echo("somebody else's")).await;
    for task in [&hers, &his] {
        fte.result(task).await;
    }
    fte.asking(&asking, 1).await;
    assert!(is_in(fte.process.data(), "status.sqlite", SECRET.as_bytes()));
    let events: Value = fte.api().get(&format!("/v1/tasks/{hers}/events")).await.unwrap().json();

    // Somebody who is not the audit service asks in vain.
    let mut forged = request("forged", &[&his]);
    forged["source"] = "/shop".into();
    fte.publish("fte.triggers.inbound", &forged).await;
    fte.publish("fte.triggers.inbound", &request("erasure-1", &[&hers, &asking])).await;
    // Killed in the middle of it: it is delivered again.
    fte.process.kill().await;
    fte.process.restart().await;
    gone(&fte.api(), &hers).await;
    gone(&fte.api(), &asking).await;

    // The one that was asking has been called off, and its sandbox is free again.
    eventually(|| async {
        let agents: Value = fte.api().get("/v1/agents").await.map_err(|error| error.to_string())?.json();
        let demo = agents["items"].as_array().into_iter().flatten().find(|agent| agent["agent"] == "demo" || agent["name"] == "demo");
        match demo {
            Some(demo) if demo["in_use"] == 0 => Ok(()),
            _ => Err(agents.to_string()),
        }
    })
    .await;
    // Everything of hers is delivered again, and the request too.
    for event in events["items"].as_array().unwrap() {
        let topic = match event["type"].as_str().unwrap() {
            "fte.task.requested" => "fte.triggers.inbound",
            "fte.status.changed" => "fte.status.updates",
            kind if kind.starts_with("fte.result.") => "fte.results.completed",
            _ => "fte.sandbox.lifecycle",
        };
        fte.publish(topic, event).await;
    }
    fte.publish("fte.triggers.inbound", &request("erasure-1", &[&hers, &asking])).await;
    // What was published before this one has been delivered before it on every partition that matters once its task is through.
    let after = fte.post(echo("afterwards")).await;
    fte.result(&after).await;
    gone(&fte.api(), &hers).await;
    assert_eq!(fte.result(&his).await["result"]["echo"], "somebody else's");
    eventually(|| async {
        if is_in(fte.process.data(), "status.sqlite", SECRET.as_bytes()) { Err("it is still in a file".to_owned()) } else { Ok(()) }
    })
    .await;
    let listed = fte.api().get("/v1/tasks?limit=100").await.unwrap().text();
    assert!(!listed.contains(&hers) && !listed.contains(&asking), "{listed}");
}

/// Whether any file under this directory has these bytes.
fn is_under(directory: &Path, bytes: &[u8]) -> bool {
    std::fs::read_dir(directory).unwrap().flatten().any(|file| {
        if file.path().is_dir() {
            return is_under(&file.path(), bytes);
        }
        std::fs::read(file.path()).unwrap_or_default().windows(bytes.len()).any(|window| window == bytes)
    })
}

async fn history(root: &Client, task: &str) -> String {
    root.get(&format!("/v1/audit/tasks/{task}")).await.unwrap().text()
}

/// P13: the key is destroyed, the plaintext is in no file, no index and no answer, the log still verifies, and a hold blocks it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p13_erasing_a_person_leaves_the_log_whole_and_nothing_of_theirs_readable() {
    let mut fte = Guarded::start().await;
    let key = fte.key(&["root-2", "--role", "admin", "--tenant", "*"]);
    let root = fte.somebody_with(&key).await;
    let roles = ["--role", "submit", "--role", "read"];
    let ada = fte.somebody(&[["ada"].as_slice(), &roles].concat()).await;
    let bob = fte.somebody(&[["bob"].as_slice(), &roles].concat()).await;
    let hers = post(&ada, echo(SECRET)).await;
    let his = post(&bob, echo("somebody else's")).await;
    result(&ada, &hers).await;
    result(&bob, &his).await;
    eventually(|| async { if history(&root, &hers).await.contains(SECRET) { Ok(()) } else { Err(history(&root, &hers).await) } }).await;
    let audit = fte.process.data().join("audit");
    assert!(!is_under(&audit, SECRET.as_bytes()), "it was never written in the clear");
    let by_ada = root.get("/v1/audit/entries?actor=ada&limit=1000").await.unwrap().text();
    assert!(by_ada.contains(&hers));

    // An export has in the clear what its maker may read, and goes with the erasure.
    let export: Value = root.post("/v1/audit/exports", &json!({"task_id": hers})).await.unwrap().expect_status(201).json();
    let export = format!("/v1/audit/exports/{}", export["export_id"].as_str().unwrap());
    assert!(root.get(&export).await.unwrap().expect_status(200).text().contains(SECRET));
    assert!(is_under(&audit.join("exports"), SECRET.as_bytes()));

    let none = json!({"covers": "subject", "tenant": "default", "subject": format!("task:{hers}"), "reason": "case 17"});
    assert_eq!(root.post("/v1/audit/holds", &none).await.unwrap().expect_status(422).problem_code(), "invalid_hold");
    let hold = json!({"covers": "subject", "tenant": "default", "subject": "user:ada", "reason": "case 17"});
    let hold: Value = root.post("/v1/audit/holds", &hold).await.unwrap().expect_status(201).json();
    let erasure = "/v1/audit/subjects/user:ada/erasure";
    let refused = root.post(erasure, &json!({})).await.unwrap().expect_status(409);
    assert!(refused.problem_code() == "legal_hold" && refused.text().contains(hold["id"].as_str().unwrap()));
    root.delete(&format!("/v1/audit/holds/{}", hold["id"].as_str().unwrap())).await.unwrap().expect_status(204);
    assert_eq!(ada.post(erasure, &json!({})).await.unwrap().status, 403, "for administrators");

    let erased: Value = root.post(erasure, &json!({})).await.unwrap().expect_status(200).json();
    assert_eq!((&erased["keys"], &erased["tasks"]), (&2.into(), &1.into()));
    assert!(!is_under(&audit, SECRET.as_bytes()), "on the answer it is in no file");
    assert_eq!(root.get(&export).await.unwrap().expect_status(404).problem_code(), "export_unknown");
    fte.process.kill().await;
    fte.process.restart().await;
    let root = fte.somebody_with(&key).await;
    gone(&root, &hers).await;
    assert!(!history(&root, &hers).await.contains(SECRET));
    assert!(history(&root, &his).await.contains("somebody else's"));
    assert!(!is_under(&audit, SECRET.as_bytes()));
    let by_ada = root.get("/v1/audit/entries?actor=ada&limit=1000").await.unwrap().text();
    assert!(!by_ada.contains(&hers), "{by_ada}");
    let later: Value = root.post("/v1/audit/exports", &json!({"task_id": hers})).await.unwrap().expect_status(201).json();
    let later = root.get(&format!("/v1/audit/exports/{}", later["export_id"].as_str().unwrap())).await.unwrap().expect_status(200).text();
    assert!(later.contains("\"erased\":true") && !later.contains(SECRET), "a later export tells of it as erased");
    let again: Value = root.post(erasure, &json!({})).await.unwrap().expect_status(200).json();
    assert_eq!(again["erasure_id"], erased["erasure_id"]);
    eventually(|| async {
        let entries: Value = root.get("/v1/audit/entries?limit=1000").await.map_err(|error| error.to_string())?.json();
        let destroyed = entries["items"].as_array().unwrap().iter().filter(|entry| entry["kind"] == "key_destroyed").count();
        if destroyed == 1 { Ok(()) } else { Err(format!("{destroyed} entries of keys that were destroyed")) }
    })
    .await;
    fte.process.stop().await;
    let verified = Command::new(built_binary()).args(["audit", "verify"]).arg(&audit).arg("--no-memory").output().unwrap();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
}

/// What the runner has in the state store, by its key; no other app may ask for that.
fn state(fte: &Fte, key: &str) -> Value {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let store = rusqlite::Connection::open_with_flags(fte.process.data().join("sidecar.sqlite"), flags).unwrap();
    store.busy_timeout(Duration::from_secs(5)).unwrap();
    let found = store.query_row("SELECT value FROM state WHERE key = ?1", [format!("fte-runner||{key}")], |row| row.get::<_, Vec<u8>>(0));
    found.map_or(Value::Null, |value| serde_json::from_slice(&value).unwrap())
}

/// A task that ended long ago has said all it had to say: its result is not said again when it is forgotten, for nobody was to read it any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_result_of_a_forgotten_task_is_not_published_anew() {
    let fte = Fte::start().await;
    let hers = fte.post(echo(SECRET)).await;
    fte.result(&hers).await;
    // Nobody is responsible for it any more.
    eventually(|| async {
        let list = state(&fte, "runners");
        for runner in list["instances"].as_array().into_iter().flatten() {
            let lease = state(&fte, &format!("runner/{}", runner.as_str().unwrap()));
            if lease["entries"].as_array().is_none_or(|entries| entries.contains(&json!(hers))) {
                return Err(lease.to_string());
            }
        }
        if list["instances"].as_array().is_some_and(|runners| !runners.is_empty()) { Ok(()) } else { Err(list.to_string()) }
    })
    .await;
    let published = async || {
        let metrics = fte.api().get("/metrics").await.unwrap().text();
        let line = metrics.lines().find(|line| line.starts_with(r#"kf_messages_produced_total{topic="fte.results.completed"}"#));
        line.map_or_else(|| panic!("{metrics}"), |line| line.rsplit(' ').next().unwrap().to_owned())
    };
    assert_eq!(published().await, "1");
    fte.publish("fte.triggers.inbound", &request("erasure-1", &[&hers])).await;
    eventually(|| async {
        let document = state(&fte, &format!("task/{hers}"));
        if document["erased"] == true && document["outbox"].as_array().is_none_or(Vec::is_empty) {
            Ok(())
        } else {
            Err(document.to_string())
        }
    })
    .await;
    assert_eq!(published().await, "1");
}
