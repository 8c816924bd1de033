//! API keys: who calls may do what their key says, and sees what is their tenant's.

use std::process::Command;

use fte_testkit::{Client, Dir, FteProcess, built_binary};
use serde_json::{Value, json};

use crate::world::{echo, in_status, post, result};

/// An instance with keys.
pub(crate) struct Guarded {
    pub(crate) process: FteProcess,
    dir: Dir,
}

impl Guarded {
    pub(crate) async fn start() -> Self {
        let dir = Dir::new();
        let file = dir.join("keys.toml");
        // A service without any key would not start.
        make_key(&file, &["root", "--role", "admin", "--tenant", "*"]);
        let env = [("FTE_API_KEYS_FILE", file.to_str().unwrap())];
        Self { process: FteProcess::start_with(built_binary(), dir.join("data"), &[] as &[&str], env).await, dir }
    }

    /// Somebody with a new key, once it is in force.
    pub(crate) async fn somebody(&self, args: &[&str]) -> Client {
        self.somebody_with(&self.key(args)).await
    }

    /// A new key.
    pub(crate) fn key(&self, args: &[&str]) -> String {
        make_key(&self.dir.join("keys.toml"), args)
    }

    /// Its owner, once it is in force.
    pub(crate) async fn somebody_with(&self, key: &str) -> Client {
        let client = self.process.api().with_header("authorization", &format!("Bearer {key}"));
        fte_testkit::eventually(|| async {
            let answer = client.get("/nowhere").await.map_err(|error| error.to_string())?;
            if answer.status == 404 { Ok(()) } else { Err(answer.text()) }
        })
        .await;
        client
    }
}

/// Puts a new key into a file of keys.
pub(crate) fn make_key(file: &std::path::Path, args: &[&str]) -> String {
    let made = Command::new(built_binary()).args(["keys", "new"]).args(args).arg("--file").arg(file).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    String::from_utf8(made.stdout).unwrap().trim().to_owned()
}

const ALL: [&str; 8] = ["--role", "submit", "--role", "read", "--role", "approve", "--role", "audit"];

#[tokio::test]
async fn a_tenant_neither_sees_nor_touches_the_tasks_of_another() {
    let fte = Guarded::start().await;
    let ada = fte.somebody(&[["ada", "--tenant", "acme"].as_slice(), &ALL].concat()).await;
    let bob = fte.somebody(&[["bob", "--tenant", "globex"].as_slice(), &ALL].concat()).await;
    let asking = post(&ada, json!({ "task": "spend money", "require_approval": true })).await;
    let cancelled = post(&ada, json!({ "task": "later", "delay": "1h" })).await;
    in_status(&ada, &asking, "awaiting_approval").await;
    in_status(&ada, &cancelled, "queued").await;

    // Bob knows the ids, and nothing comes of it.
    for path in ["", "/events", "/result"] {
        assert_eq!(bob.get(&format!("/v1/tasks/{asking}{path}")).await.unwrap().expect_status(404).problem_code(), "task_not_found");
    }
    let yes = json!({ "approved": true, "approver": "ada" });
    assert_eq!(bob.post(&format!("/v1/tasks/{asking}/approval"), &yes).await.unwrap().expect_status(404).problem_code(), "task_not_found");
    bob.post(&format!("/v1/tasks/{cancelled}/cancel"), &json!({})).await.unwrap().expect_status(202);
    assert_eq!(bob.get(&format!("/v1/audit/tasks/{asking}")).await.unwrap().expect_status(404).problem_code(), "task_not_found");
    let page: Value = bob.get("/v1/tasks").await.unwrap().expect_status(200).json();
    assert_eq!(page["items"], json!([]));
    // What is on record of bob is that his key is in use, and nothing is of anybody else.
    let page: Value = bob.get("/v1/audit/entries").await.unwrap().expect_status(200).json();
    for entry in page["items"].as_array().unwrap() {
        let (tenant, actor) = (&entry["event"]["ftetenant"], &entry["event"]["data"]["actor"]["id"]);
        assert_eq!((tenant, actor, &entry["task_id"]), (&json!("globex"), &json!("bob"), &Value::Null), "{entry}");
    }

    // Ada decides, in her key's name whatever she says.
    let decided = json!({ "approved": true, "approver": "somebody else" });
    ada.post(&format!("/v1/tasks/{asking}/approval"), &decided).await.unwrap().expect_status(200);
    assert_eq!(result(&ada, &asking).await["status"], "completed");
    let shown: Value = ada.get(&format!("/v1/tasks/{cancelled}")).await.unwrap().expect_status(200).json();
    assert_eq!(shown["status"], "queued", "what bob called off goes on");
    let granted = fte_testkit::eventually(|| async {
        let page: Value = ada.get("/v1/audit/entries?action=approval.granted").await.map_err(|error| error.to_string())?.json();
        page["items"].get(0).map(|entry| entry["event"].clone()).ok_or_else(|| page.to_string())
    })
    .await;
    assert_eq!((&granted["data"]["actor"]["id"], &granted["ftetenant"]), (&json!("ada"), &json!("acme")), "{granted}");

    // An operator sees both.
    let root = fte.somebody(&["operator", "--role", "admin", "--tenant", "*"]).await;
    let page: Value = root.get("/v1/tasks").await.unwrap().expect_status(200).json();
    assert_eq!(page["items"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn what_a_person_does_is_one_action_in_their_name_however_often_they_say_it() {
    let fte = Guarded::start().await;
    let root = fte.somebody(&["root-2", "--role", "admin", "--tenant", "*"]).await;
    let ada = fte.somebody(&[["ada"].as_slice(), &ALL].concat()).await;
    let asking = json!({ "task": "spend money", "require_approval": true });
    let (yes, no, off) =
        (post(&ada, asking.clone()).await, post(&ada, asking).await, post(&ada, json!({ "task": "x", "delay": "1h" })).await);
    for task in [&yes, &no] {
        in_status(&ada, task, "awaiting_approval").await;
    }
    in_status(&ada, &off, "queued").await;
    // Called off before anybody has met it.
    let request = fte_testkit::request("never");
    let early = request.task_id.to_string();
    let twice = async |client: &Client, path: String, body: Value| {
        for _ in 0..2 {
            let answer = client.post(&path, &body).await.unwrap();
            // Who ended a task may hear so the second time.
            assert!(answer.status.is_success() || answer.problem_code() == "task_ended", "{path}: {}", answer.text());
        }
    };
    twice(&ada, format!("/v1/tasks/{yes}/approval"), json!({ "approved": true })).await;
    twice(&ada, format!("/v1/tasks/{no}/approval"), json!({ "approved": false })).await;
    twice(&ada, format!("/v1/tasks/{off}/cancel"), json!({ "by": "somebody else" })).await;
    twice(&ada, format!("/v1/tasks/{early}/cancel"), json!({})).await;
    let sidecar = fte.process.sidecar();
    let publish = async |event: &Value| {
        let path = "/v1.0/publish/pubsub/fte.triggers.inbound";
        sidecar.post_as(path, "application/cloudevents+json", event).await.unwrap().expect_status(204);
    };
    publish(&serde_json::to_value(fte_testkit::cloud_event(&request)).unwrap()).await;
    for (task, status) in [(&yes, "completed"), (&no, "rejected"), (&off, "cancelled"), (&early, "cancelled")] {
        assert_eq!(result(&ada, task).await["status"], status);
    }
    for number in 0..2 {
        let poison = json!({ "specversion": "1.0", "id": format!("poison-{number}"), "source": "/outside", "type": "fte.task.resumed",
            "subject": fte_events::TaskId::now(), "data": { "turn": "x" } });
        publish(&poison).await;
    }
    let letters = fte_testkit::eventually(|| async {
        let page: Value = root.get("/v1/dead-letters").await.map_err(|error| error.to_string())?.json();
        let of_runner = page["items"].as_array().into_iter().flatten().filter(|letter| letter["consumer"] == "fte-runner");
        let ids: Vec<String> = of_runner.map(|letter| letter["id"].as_str().unwrap().to_owned()).collect();
        if ids.len() == 2 { Ok(ids) } else { Err(page.to_string()) }
    })
    .await;
    twice(&root, format!("/v1/dead-letters/{}/replay", letters[0]), json!({})).await;
    twice(&root, format!("/v1/dead-letters/{}/discard", letters[1]), json!({})).await;

    let expected = [
        (format!("task_id={yes}&action=approval.granted"), "ada"),
        (format!("task_id={no}&action=approval.denied"), "ada"),
        (format!("task_id={off}&action=task.cancel-requested"), "ada"),
        (format!("task_id={early}&action=task.cancel-requested"), "ada"),
        ("action=deadletter.replayed".to_owned(), "root-2"),
        ("action=deadletter.discarded".to_owned(), "root-2"),
    ];
    for (query, who) in expected {
        let found = fte_testkit::eventually(|| async {
            let page: Value = root.get(&format!("/v1/audit/entries?{query}")).await.map_err(|error| error.to_string())?.json();
            let actors: Vec<Value> =
                page["items"].as_array().unwrap().iter().map(|entry| entry["event"]["data"]["actor"].clone()).collect();
            if actors.is_empty() { Err(format!("{query}: nothing")) } else { Ok(actors) }
        });
        assert_eq!(found.await, [json!({ "type": "user", "id": who })], "{query}");
    }
}

#[tokio::test]
async fn who_is_past_the_rate_of_their_key_is_told_when_to_come_back_and_others_are_served() {
    let fte = Guarded::start().await;
    let hasty = fte.somebody(&[["hasty", "--tenant", "acme", "--rate", "1"].as_slice(), &ALL].concat()).await;
    let other = fte.somebody(&[["other", "--tenant", "acme"].as_slice(), &ALL].concat()).await;
    let refused = fte_testkit::eventually(|| async {
        let answer = hasty.post("/v1/tasks", &echo("again")).await.unwrap();
        if answer.status == 429 { Ok(answer) } else { Err(answer.text()) }
    })
    .await;
    assert_eq!(refused.problem_code(), "rate_limited");
    let wait: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    other.post("/v1/tasks", &echo("mine")).await.unwrap().expect_status(202);
    // Honest: after that time the next one is served.
    tokio::time::sleep(std::time::Duration::from_secs(wait)).await;
    hasty.post("/v1/tasks", &echo("later")).await.unwrap().expect_status(202);
}

#[tokio::test]
async fn the_same_idempotency_key_of_two_tenants_is_two_tasks() {
    let fte = Guarded::start().await;
    let mut tasks = Vec::new();
    for tenant in ["acme", "globex"] {
        let client = fte.somebody(&[tenant, "--tenant", tenant, "--role", "submit"]).await.with_header("idempotency-key", "monday");
        let first = post(&client, json!({ "task": tenant })).await;
        assert_eq!(post(&client, json!({ "task": tenant })).await, first);
        tasks.push(first);
    }
    assert_ne!(tasks[0], tasks[1]);
}
