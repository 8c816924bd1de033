//! Who may not: each service's refusals are in the audit trail, by whose key it was and by which rule.

use std::collections::BTreeSet;

use fte_testkit::{Client, Dir, eventually};
use serde_json::{Value, json};

use crate::parts::Parts;
use crate::tenants::make_key;
use crate::world::{post, shown};

const AGENTS: &str = r#"
    default = "echo"
    [agents.echo]
    kind = "builtin"
    [agents.echo.approvals]
    approvers = ["ada"]
"#;

/// What is on record of who was refused: the source, whose key it was, the route and the rule.
async fn refusals(audit: &Client) -> Vec<[String; 4]> {
    let page: Value = audit.get("/v1/audit/entries?outcome=denied&limit=1000").await.unwrap().expect_status(200).json();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let of = |entry: &Value| {
        let data = &entry["event"]["data"];
        [text(&entry["source"]), text(&data["actor"]["id"]), text(&data["resource"]), text(&data["data"]["code"])]
    };
    page["items"].as_array().unwrap().iter().filter(|entry| entry["event"]["data"]["action"] == "api.denied").map(of).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whom_any_of_the_services_refuses_is_on_record_once_with_the_rule() {
    let dir = Dir::new();
    let file = dir.join("keys.toml");
    let key = |args: &[&str]| make_key(&file, args);
    let root = key(&["root", "--role", "admin", "--tenant", "*"]);
    let boss = key(&["boss", "--role", "admin", "--tenant", "acme"]);
    let ada = key(&["ada", "--role", "submit", "--role", "read", "--tenant", "acme"]);
    let eve = key(&["eve", "--role", "approve", "--tenant", "acme"]);
    let parts = Parts::guarded(AGENTS, file.to_str().unwrap()).await;
    let doors = parts.doors();
    let with = |door: &Client, key: &str| door.clone().with_header("authorization", &format!("Bearer {key}"));
    let root = with(&doors.audit, &root);

    let asking = post(&with(&doors.intake, &ada), json!({"task": "pay", "require_approval": true})).await;
    shown(&with(&doors.status, &ada), &asking, |task| task["status"] == "awaiting_approval").await;
    let hold = json!({"covers": "subject", "tenant": "acme", "subject": "user:ada", "reason": "case 17"});
    root.post("/v1/audit/holds", &hold).await.unwrap().expect_status(201);
    let none = json!({});
    let approval = format!("/v1/tasks/{asking}/approval");
    let (erasure, log) = ("/v1/audit/subjects/user:ada/erasure", "/v1/audit/log/2026/tile/entries/000");
    let refused = [
        (doors.intake.post("/v1/tasks", &none).await, 401, "key_missing"),
        (with(&doors.intake, &eve).post("/v1/tasks", &none).await, 403, "role_missing"),
        (with(&doors.runner, &ada).post(&approval, &json!({"approved": true})).await, 403, "role_missing"),
        (with(&doors.runner, &eve).post(&approval, &json!({"approved": true})).await, 403, "not_an_approver"),
        (with(&doors.status, &eve).get("/v1/tasks").await, 403, "role_missing"),
        (with(&doors.status, &ada).get("/v1/dead-letters").await, 403, "role_missing"),
        (with(&doors.audit, &ada).get("/v1/audit/entries").await, 403, "role_missing"),
        (with(&doors.audit, &boss).post(&format!("{erasure}?tenant=globex"), &none).await, 403, "tenant_foreign"),
        (with(&doors.audit, &boss).get(log).await, 403, "all_tenants_only"),
        (with(&doors.audit, &boss).post(erasure, &none).await, 409, "legal_hold"),
    ];
    for (answer, status, code) in refused {
        assert_eq!(answer.unwrap().expect_status(status).problem_code(), code);
    }
    let expected = [
        ["/fte/intake", "intake", "POST /v1/tasks", "key_missing"],
        ["/fte/intake", "eve", "POST /v1/tasks", "role_missing"],
        ["/fte/runner", "ada", "POST /v1/tasks/{id}/approval", "role_missing"],
        ["/fte/runner", "eve", "POST /v1/tasks/{id}/approval", "not_an_approver"],
        ["/fte/status", "eve", "GET /v1/tasks", "role_missing"],
        ["/fte/status", "ada", "GET /v1/dead-letters", "role_missing"],
        ["/fte/audit", "ada", "GET /v1/audit/entries", "role_missing"],
        ["/fte/audit", "boss", "POST /v1/audit/subjects/{ref}/erasure", "tenant_foreign"],
        ["/fte/audit", "boss", "GET /v1/audit/log/{shard}/{*path}", "all_tenants_only"],
        ["/fte/audit", "boss", "POST /v1/audit/subjects/{ref}/erasure", "legal_hold"],
    ];
    let expected: BTreeSet<_> = expected.map(|row| row.map(str::to_owned)).into();
    let found = eventually(|| async {
        let found = refusals(&root).await;
        if expected.iter().all(|row| found.contains(row)) { Ok(found) } else { Err(format!("{found:?}")) }
    })
    .await;
    assert_eq!(found.len(), expected.len(), "once each, and nothing else: {found:?}");
}
