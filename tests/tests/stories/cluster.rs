//! An agent whose sandboxes are pods of a cluster, through the whole program: claimed for each attempt, given back however that ends. The cluster is a fake API
//! server that grants each claim at once; `crates/kubernetes` has the one that delays, loses and refuses.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use fte_testkit::{Answer, Dir, FakeApp, FteProcess, Received, built_binary, eventually};
use jiff::{Timestamp, ToSpan as _};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::load::Doors;
use crate::trail::settled;
use crate::world::{post, result, told};

const CLAIMS: &str = "/apis/extensions.agents.x-k8s.io/v1beta1/namespaces/agents/sandboxclaims";

/// The claims of the cluster, by name.
#[derive(Default)]
struct Cluster {
    claims: BTreeMap<String, Value>,
    /// All that were ever made.
    made: Vec<Value>,
    is_full: bool,
}

fn status(code: u16, reason: &str, message: &str) -> Answer {
    let body = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": message, "code": code });
    Answer { body: body.to_string().into(), ..Answer::status(code) }
}

impl Cluster {
    fn answer(&mut self, asked: &Received) -> Answer {
        let path = asked.path.split('?').next().unwrap_or_default();
        let name = path.strip_prefix(CLAIMS).map(|rest| rest.trim_start_matches('/').to_owned());
        match (asked.method.as_str(), name) {
            ("POST", Some(_)) if self.is_full => status(403, "Forbidden", "exceeded quota: pods"),
            ("POST", Some(_)) => self.grant(asked.json()),
            ("GET", Some(name)) if name.is_empty() => {
                let items: Vec<&Value> = self.claims.values().collect();
                let kind = "SandboxClaimList";
                Answer::json(
                    &json!({ "kind": kind, "apiVersion": "extensions.agents.x-k8s.io/v1beta1", "metadata": { "resourceVersion": "1" }, "items": items }),
                )
            }
            ("GET" | "PATCH", Some(name)) => self.claims.get(&name).map_or_else(|| status(404, "NotFound", "no such claim"), Answer::json),
            ("DELETE", Some(name)) => match self.claims.get(&name) {
                Some(claim) if asked.json()["preconditions"]["uid"] == claim["metadata"]["uid"] => {
                    Answer::json(&self.claims.remove(&name).unwrap())
                }
                Some(_) => status(409, "Conflict", "another uid"),
                None => status(404, "NotFound", "no such claim"),
            },
            _ => status(404, "NotFound", "nothing here"),
        }
    }

    fn grant(&mut self, mut claim: Value) -> Answer {
        let name = claim["metadata"]["name"].as_str().unwrap().to_owned();
        claim["metadata"]["uid"] = Uuid::new_v4().to_string().into();
        claim["metadata"]["creationTimestamp"] = Timestamp::now().to_string().into();
        claim["status"] = json!({
            "conditions": [{ "type": "Ready", "status": "True", "reason": "DependenciesReady", "message": "" }],
            "sandbox": { "name": format!("box-{name}"), "podIPs": ["127.0.0.1"] },
        });
        self.made.push(claim.clone());
        self.claims.insert(name, claim.clone());
        Answer { body: claim.to_string().into(), ..Answer::status(201) }
    }
}

fn label<'c>(claim: &'c Value, name: &str) -> &'c str {
    claim["metadata"]["labels"][name].as_str().unwrap_or_default()
}

#[tokio::test]
async fn an_attempt_claims_a_pod_and_gives_it_back_however_it_ends() {
    let cluster: Arc<Mutex<Cluster>> = Arc::default();
    let shared = Arc::clone(&cluster);
    let server = FakeApp::start(json!([]), move |asked| {
        let shared = Arc::clone(&shared);
        async move {
            if asked.path.contains("watch=true") {
                // Nothing happens: the watch ends after a while, and begins again.
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                return Answer::status(200);
            }
            shared.lock().unwrap().answer(&asked)
        }
    })
    .await;
    // The agent in its pod: done at once, or never.
    let pod = FakeApp::start(json!([]), |asked| async move {
        match asked.json()["task"].as_str() {
            Some("quick") => Answer::json(&json!("done in a pod")),
            _ => std::future::pending().await,
        }
    })
    .await;
    let dir = Dir::new();
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{ "name": "c", "cluster": { "server": format!("http://127.0.0.1:{}", server.port()) } }],
        "users": [{ "name": "u", "user": {} }],
        "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "u", "namespace": "fte" } }],
    });
    let kubeconfig = dir.write("kubeconfig", kubeconfig.to_string());
    let sandbox = format!("{{ kind = \"kubernetes\", warm_pool = \"research\", namespace = \"agents\", port = {} }}", pod.port());
    let toml =
        format!("[agents.pod]\nkind = \"http\"\nprotocol = \"post\"\nurl = \"http://sandbox/work\"\nattempts = 1\nsandbox = {sandbox}\n");
    let agents = dir.write("agents.toml", toml);
    let args = ["--agents", agents.to_str().unwrap()];
    let mut fte = FteProcess::start_with(built_binary(), dir.join("data"), args, [("KUBECONFIG", kubeconfig.to_str().unwrap())]).await;

    let held = async |names: usize| {
        eventually(|| async {
            let cluster = cluster.lock().unwrap();
            if cluster.claims.len() == names { Ok(()) } else { Err(format!("{:?}", cluster.claims)) }
        })
        .await;
    };
    let at_work = async |task: &str| {
        eventually(|| async {
            let asked = pod.received().iter().any(|call| call.json()["task_id"] == task);
            if asked { Ok(()) } else { Err("nobody asked the pod".to_owned()) }
        })
        .await;
    };
    // Done.
    let quick = post(&fte.api(), json!({ "task": "quick" })).await;
    let end = result(&fte.api(), &quick).await;
    assert_eq!(end["result"], "done in a pod", "{end}");
    held(0).await;
    let claim = cluster.lock().unwrap().made[0].clone();
    assert_eq!((label(&claim, "fte/task"), label(&claim, "fte/agent")), (&*quick, "pod"), "{claim}");
    assert_eq!(claim["spec"]["warmPoolRef"]["name"], "research");

    // Cancelled in the midst of it.
    let cancelled = post(&fte.api(), json!({ "task": "long" })).await;
    at_work(&cancelled).await;
    held(1).await;
    fte.api().post(&format!("/v1/tasks/{cancelled}/cancel"), &json!({})).await.unwrap().expect_status(202);
    assert_eq!(result(&fte.api(), &cancelled).await["status"], "cancelled");
    held(0).await;

    // The runner dies with it: the task gets another one, and the first ends by the time that it carries.
    let taken = post(&fte.api(), json!({ "task": "long again" })).await;
    at_work(&taken).await;
    let first = cluster.lock().unwrap().claims.keys().next().cloned().unwrap();
    fte.kill().await;
    fte.restart().await;
    held(2).await;
    fte.api().post(&format!("/v1/tasks/{taken}/cancel"), &json!({})).await.unwrap().expect_status(202);
    assert_eq!(result(&fte.api(), &taken).await["status"], "cancelled");
    held(1).await;
    let left = cluster.lock().unwrap().claims.clone();
    let ends: Timestamp = left[&first]["spec"]["lifecycle"]["shutdownTime"].as_str().unwrap().parse().unwrap();
    assert!(ends < Timestamp::now() + 4.minutes(), "{left:?}");
    assert_eq!(left[&first]["spec"]["lifecycle"]["shutdownPolicy"], "Delete");

    // None can be had: that is said, by the attempt and by the claim.
    cluster.lock().unwrap().is_full = true;
    let refused = post(&fte.api(), json!({ "task": "quick" })).await;
    let end = result(&fte.api(), &refused).await;
    assert_eq!(end["error"]["code"], "agent_start_failed", "{end}");
    assert!(end["error"]["message"].as_str().unwrap().contains("exceeded quota"), "{end}");
    let failed = told(&fte.api(), &refused, |event| event["type"] == "fte.sandbox.claim-failed").await;
    assert_eq!((&failed["data"]["runtime"], &failed["data"]["reason"]), (&json!("kubernetes"), &json!("failed")), "{failed}");
    settled(&Doors::all(&fte.api()), &[quick, cancelled, taken, refused]).await;
}
