//! The controller of the fake cluster: makes sandboxes ready after a while, or says why not; ends what has had its time; takes finalizers away.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::server::{Server, World, is_over};

/// What it makes of a claim.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// Ready after a while. The last is what its sandbox says of its start, if anything.
    Ready(Duration, Option<&'static str>),
    /// Ready, but its address is known only to the sandbox, by name.
    Named,
    /// Never ready, for this reason.
    Waits(&'static str, &'static str),
    /// Nobody looks at it.
    Ignored,
}

/// Runs it until the runtime ends. `outcome` is asked once for each claim.
pub(crate) fn start(server: &Arc<Server>, expires: bool, mut outcome: impl FnMut(&str) -> Outcome + Send + 'static) {
    let server = Arc::clone(server);
    tokio::spawn(async move {
        let mut seen: HashMap<String, (Instant, Outcome)> = HashMap::new();
        loop {
            server.change(|world| {
                let claims: Vec<(String, Value)> = world.claims.iter().map(|(key, claim)| (key.clone(), claim.clone())).collect();
                for (key, claim) in claims {
                    let uid = claim["metadata"]["uid"].as_str().unwrap().to_owned();
                    let (since, outcome) = seen.entry(uid).or_insert_with(|| (Instant::now(), outcome(&key)));
                    reconcile(world, &key, claim, since.elapsed(), outcome, expires);
                }
            });
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}

fn reconcile(world: &mut World, key: &str, mut claim: Value, age: Duration, outcome: &Outcome, expires: bool) {
    if !claim["metadata"]["deletionTimestamp"].is_null() {
        claim["metadata"]["finalizers"] = json!([]);
        world.put(key, claim, "DELETED");
        return;
    }
    if expires && is_over(&claim) {
        world.remove(key);
        return;
    }
    if claim["status"].is_object() {
        return;
    }
    let condition = |status: &str, reason: &str, message: &str| json!([{"type": "Ready", "status": status, "reason": reason, "message": message, "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
    let (namespace, name) = key.split_once('/').unwrap();
    let sandbox = format!("box-{name}");
    claim["status"] = match outcome {
        Outcome::Ready(after, _) if age < *after => return,
        Outcome::Ignored => return,
        Outcome::Ready(_, launched) => {
            let labels = launched.map(|launched| json!({"agents.x-k8s.io/launch-type": launched}));
            world.sandboxes.insert(format!("{namespace}/{sandbox}"), json!({"metadata": {"name": sandbox, "labels": labels}, "spec": {}}));
            json!({"conditions": condition("True", "DependenciesReady", ""), "sandbox": {"name": sandbox, "podIPs": ["10.0.0.7", "fd00::7"]}})
        }
        Outcome::Named => {
            let status = json!({"serviceFQDN": format!("{sandbox}.{namespace}.svc.cluster.local")});
            world.sandboxes.insert(format!("{namespace}/{sandbox}"), json!({"metadata": {"name": sandbox}, "spec": {}, "status": status}));
            json!({"conditions": condition("True", "DependenciesReady", ""), "sandbox": {"name": sandbox}})
        }
        Outcome::Waits(reason, message) => json!({"conditions": condition("False", reason, message)}),
    };
    world.put(key, claim, "MODIFIED");
}

/// Says that the pod of a claim has ended.
pub(crate) fn finish(server: &Server, key: &str) {
    server.change(|world| {
        let mut claim = world.claims[key].clone();
        claim["status"]["conditions"] = json!([{"type": "Finished", "status": "True", "reason": "PodFailed", "message": "out of memory"}]);
        world.put(key, claim, "MODIFIED");
    });
}
