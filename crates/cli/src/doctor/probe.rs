//! A task through every service and back: to its result, and until the audit log has all of it. What a service was not given shows by what it does not know.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use fte_events::{TOPICS, Topic, results, sandbox, status, triggers};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Finding, chain};
use crate::client::{Client, escaped};
use crate::error::{Error, Exit};

const CHECK: &str = "probe task";
const TRAIL: &str = "probe trail";
/// How long the audit log may take after the result, and status to know all that the audit log knows.
const TRAIL_PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Where each task leaves something.
const ON_THE_WAY: [&str; 4] = [triggers::TOPIC, sandbox::TOPIC, status::TOPIC, results::TOPIC];

#[derive(Deserialize)]
struct Accepted {
    task_id: String,
}

/// What the audit log has of a task.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Trail {
    complete: bool,
    missing: Vec<String>,
    entries: Vec<Value>,
}

/// What status has of it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Events {
    items: Vec<Value>,
}

/// Sends a task to an agent, or to the default one.
pub(super) async fn findings(client: &Client, agent: Option<&str>) -> Vec<Finding> {
    let started = Instant::now();
    let mut request = json!({"task": "fte doctor's probe"});
    if let Some(agent) = agent {
        request["agent"] = agent.into();
    }
    let posted = async { client.post("/v1/tasks", Some(&request), &[]).await?.json::<Accepted>() };
    let id = match posted.await {
        Ok(accepted) => accepted.task_id,
        Err(error) => {
            let advice = "the findings above may say why; the instance's log does";
            return vec![Finding::bad(CHECK, error.exit(), chain(&error), advice)];
        }
    };
    let mut findings = vec![result(client, &id, started).await];
    trail(client, &id, &mut findings).await;
    findings
}

async fn result(client: &Client, id: &str, started: Instant) -> Finding {
    let watch = client.hints().command(format_args!("watch {id}"));
    match client.get(&format!("/v1/tasks/{}/result?wait=30s", escaped(id))).await {
        Err(error) => Finding::bad(CHECK, error.exit(), chain(&error), "the findings above may say why; the instance's log does"),
        Ok(answer) if answer.status != StatusCode::OK => {
            let found = format!("task {id} has no result after 30 s");
            Finding::bad(CHECK, Exit::Failed, found, format!("{watch} shows where it stands"))
        }
        Ok(answer) => match answer.json::<Value>().ok().as_ref().and_then(|data| data.get("status")?.as_str()) {
            Some("completed") => Finding::ok(CHECK, format!("completed in {} ms", started.elapsed().as_millis())),
            status => {
                let found = format!("task {id} ended as {}", status.unwrap_or("?"));
                Finding::bad(CHECK, Exit::Failed, found, format!("{watch} says why"))
            }
        },
    }
}

/// Waits until the audit log has all of the task and status knows as much; then says what each of them was not given.
async fn trail(client: &Client, id: &str, findings: &mut Vec<Finding>) {
    let until = Instant::now() + TRAIL_PATIENCE;
    let (trail, lacking) = loop {
        let trail = match client.get(&format!("/v1/audit/tasks/{}", escaped(id))).await {
            Ok(answer) => answer.json::<Trail>().unwrap_or_default(),
            Err(Error::Refused(problem)) if problem.status == StatusCode::NOT_FOUND.as_u16() => {
                Trail { missing: vec!["everything".to_owned()], ..Trail::default() }
            }
            Err(Error::Refused(problem)) if matches!(problem.status, 401 | 403) => {
                let advice = "to see whether the audit log has the whole task takes a key with the role audit: FTE_API_KEY";
                return findings.push(Finding::warning(TRAIL, problem.detail.clone(), advice));
            }
            Err(error) => return findings.push(Finding::bad(TRAIL, error.exit(), chain(&error), "look at the log of audit")),
        };
        // With other errors it knows nothing, which is what is said then.
        let known = client.get(&format!("/v1/tasks/{}/events?limit=1000", escaped(id))).await.and_then(|answer| answer.json::<Events>());
        let lacking = lacking(&heard(&trail.entries), &heard(&known.unwrap_or_default().items));
        if trail.complete && lacking.is_empty() || Instant::now() > until {
            break (trail, lacking);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    };
    if trail.complete {
        findings.push(Finding::ok(TRAIL, format!("the audit log has all of it, in {} entries", trail.entries.len())));
    } else {
        let found = format!("the audit log lacks {} of task {id}", trail.missing.join(", "));
        findings.push(Finding::bad(
            TRAIL,
            Exit::Failed,
            found,
            "where a service is named below, look there first; else at the log of audit",
        ));
    }
    findings.extend(lacking.into_iter().map(|(service, topics)| ungiven(service, &topics)));
}

/// The topics that events came on, by their types.
fn heard(events: &[Value]) -> BTreeSet<&'static str> {
    let types: Vec<&str> = events.iter().filter_map(|event| event.get("type")?.as_str()).collect();
    let is_heard = |topic: &&Topic| topic.types.iter().any(|kind| types.contains(&kind.name));
    TOPICS.iter().filter(is_heard).map(|topic| &*topic.name).filter(|name| ON_THE_WAY.contains(name)).collect()
}

/// Which services have nothing from topics that something is on, and from which: the request, which was accepted, and what another has heard of.
fn lacking(audit: &BTreeSet<&'static str>, status: &BTreeSet<&'static str>) -> Vec<(&'static str, Vec<&'static str>)> {
    let known: BTreeSet<&str> = audit.union(status).copied().collect();
    let all: BTreeSet<&str> = known.iter().copied().chain([triggers::TOPIC]).collect();
    let mut lacking = Vec::new();
    for (service, heard) in [("status", status), ("audit", audit)] {
        let topics: Vec<&str> = all.difference(heard).copied().collect();
        if !topics.is_empty() {
            lacking.push((service, topics));
        }
    }
    // Of a request that was not even claimed the runner knows nothing.
    if known.iter().eq([triggers::TOPIC].iter()) {
        lacking.push(("runner", vec![triggers::TOPIC]));
    }
    lacking
}

fn ungiven(service: &str, topics: &[&str]) -> Finding {
    let found = format!("it was given nothing of the probe from {}", topics.join(", "));
    let advice = format!(
        "the log of its sidecar says why: a topic that it subscribes to is missing, or the user fte-{service} lacks Read on one or on the group fte-{service}, which \
         stops all of them; or subscriptionScopes do not name these"
    );
    Finding::bad(service, Exit::Failed, found, advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_not_given_something_is_who_lacks_what_another_has() {
        let events = |types: &[&str]| -> Vec<Value> { types.iter().map(|name| json!({"type": name})).collect() };
        let whole =
            events(&["fte.task.requested", "fte.sandbox.claimed", "fte.status.changed", "fte.result.completed", "fte.action.recorded"]);
        let whole = heard(&whole);
        assert_eq!(whole, ON_THE_WAY.into());
        assert_eq!(lacking(&whole, &whole), []);
        let some = heard(&events(&["fte.task.requested", "fte.status.changed"]));
        assert_eq!(lacking(&whole, &some), [("status", vec!["fte.results.completed", "fte.sandbox.lifecycle"])]);
        let request = heard(&events(&["fte.task.requested"]));
        assert_eq!(lacking(&request, &request), [("runner", vec!["fte.triggers.inbound"])]);
        assert_eq!(
            lacking(&BTreeSet::new(), &request),
            [("audit", vec!["fte.triggers.inbound"]), ("runner", vec!["fte.triggers.inbound"])]
        );
        let nobody = [("status", vec!["fte.triggers.inbound"]), ("audit", vec!["fte.triggers.inbound"])];
        assert_eq!(lacking(&BTreeSet::new(), &BTreeSet::new()), nobody, "whether the runner has heard of it nobody says");
    }
}
