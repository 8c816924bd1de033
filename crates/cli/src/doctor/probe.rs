//! A task through every service and back: to its result, and until the audit log has all of it. What a service was not given shows by what it does not know.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use fte_events::{TOPICS, Topic, results, sandbox, status, triggers};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Finding, brief};
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
            return vec![Finding::bad(CHECK, error.exit(), brief(&error), advice)];
        }
    };
    let (finding, end) = result(client, &id, started).await;
    let mut findings = vec![finding];
    // Of a task that waits nothing more is to be expected.
    if end != End::Waits {
        trail(client, &id, &mut findings).await;
    }
    if end != End::Ended
        && let Err(error) = client.post(&format!("/v1/tasks/{}/cancel", escaped(&id)), None::<&()>, &[]).await
        // It has ended meanwhile.
        && !matches!(&error, Error::Refused(problem) if problem.status == StatusCode::CONFLICT.as_u16())
    {
        let advice = format!("it may still be open: {}", client.hints().command(format_args!("cancel {id}")));
        findings.push(Finding::warning(CHECK, format!("cancelling {id}: {}", brief(&error)), advice));
    }
    findings
}

/// How the probe's task ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// It has a result.
    Ended,
    /// It has none, since it waits for somebody.
    Waits,
    /// It has none, and should.
    Missing,
}

async fn result(client: &Client, id: &str, started: Instant) -> (Finding, End) {
    let watch = client.hints().command(format_args!("watch {id}"));
    let answer = match client.get(&format!("/v1/tasks/{}/result?wait=30s", escaped(id))).await {
        Ok(answer) => answer,
        Err(error) => {
            let advice = "the findings above may say why; the instance's log does";
            return (Finding::bad(CHECK, error.exit(), brief(&error), advice), End::Missing);
        }
    };
    if answer.status != StatusCode::OK {
        let task = async { client.get(&format!("/v1/tasks/{}", escaped(id))).await?.json::<Value>() };
        let task = task.await.unwrap_or_default();
        let status = task["status"].as_str().unwrap_or_default();
        if matches!(status, "awaiting_handoff" | "awaiting_approval") {
            let found = format!("after 30 s task {id} is {status}, and was cancelled");
            let advice = "its agent waits for a person: name one that does not, with --probe-agent";
            return (Finding::bad(CHECK, Exit::Failed, found, advice), End::Waits);
        }
        let found = format!("task {id} has no result after 30 s, and was cancelled");
        return (Finding::bad(CHECK, Exit::Failed, found, format!("{watch} shows where it stood")), End::Missing);
    }
    let data = answer.json::<Value>().unwrap_or_default();
    let finding = match data["status"].as_str() {
        Some("completed") => Finding::ok(CHECK, format!("completed in {} ms", started.elapsed().as_millis())),
        status => {
            let found = format!("task {id} ended as {}", status.unwrap_or("?"));
            Finding::bad(CHECK, Exit::Failed, found, format!("{watch} says why"))
        }
    };
    (finding, End::Ended)
}

/// What the audit log says of the probe's task: what it has, or why nobody knows.
async fn recorded(client: &Client, id: &str) -> Result<Trail, Finding> {
    match client.get(&format!("/v1/audit/tasks/{}", escaped(id))).await {
        Ok(answer) => Ok(answer.json::<Trail>().unwrap_or_default()),
        Err(Error::Refused(problem)) if problem.status == StatusCode::NOT_FOUND.as_u16() => {
            Ok(Trail { missing: vec!["everything".to_owned()], ..Trail::default() })
        }
        Err(Error::Refused(problem)) if matches!(problem.status, 401 | 403) => {
            let advice = "to see whether the audit log has the whole task takes a key with the role audit: FTE_API_KEY";
            Err(Finding::warning(TRAIL, problem.detail, advice))
        }
        Err(error) => Err(Finding::bad(TRAIL, error.exit(), brief(&error), "look at the log of audit")),
    }
}

/// What status says of it, likewise.
async fn known(client: &Client, id: &str) -> Result<Vec<Value>, Finding> {
    match client.get(&format!("/v1/tasks/{}/events?limit=1000", escaped(id))).await {
        Ok(answer) => Ok(answer.json::<Events>().unwrap_or_default().items),
        Err(Error::Refused(problem)) if problem.status == StatusCode::NOT_FOUND.as_u16() => Ok(Vec::new()),
        Err(Error::Refused(problem)) if matches!(problem.status, 401 | 403) => {
            Err(Finding::warning(TRAIL, problem.detail, "to see what status was given takes a key with the role read: FTE_API_KEY"))
        }
        Err(error) => Err(Finding::bad(TRAIL, error.exit(), brief(&error), "look at the log of status")),
    }
}

/// Waits until the audit log has all of the task and status knows as much; then says what each of them was not given. Of one that does not say what it has nothing
/// is told.
async fn trail(client: &Client, id: &str, findings: &mut Vec<Finding>) {
    let until = Instant::now() + TRAIL_PATIENCE;
    let (recorded, known, lacking) = loop {
        let (recorded, known) = (recorded(client, id).await, known(client, id).await);
        let audit = recorded.as_ref().ok().map(|trail| heard(&trail.entries));
        let status = known.as_ref().ok().map(|events| heard(events));
        let lacking = lacking(audit.as_ref(), status.as_ref());
        let is_whole = recorded.as_ref().map_or(true, |trail| trail.complete);
        if is_whole && lacking.is_empty() || Instant::now() > until {
            break (recorded, known, lacking);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    };
    findings.push(match recorded {
        Ok(trail) if trail.complete => Finding::ok(TRAIL, format!("the audit log has all of it, in {} entries", trail.entries.len())),
        Ok(trail) => {
            let found = format!("the audit log lacks {} of task {id}", trail.missing.join(", "));
            let advice = "where a service is named below, look there first; else at the log of audit";
            Finding::bad(TRAIL, Exit::Failed, found, advice)
        }
        Err(finding) => finding,
    });
    findings.extend(known.err());
    findings.extend(lacking.into_iter().map(|(service, topics)| ungiven(service, &topics)));
}

/// The topics that events came on, by their types.
fn heard(events: &[Value]) -> BTreeSet<&'static str> {
    let types: Vec<&str> = events.iter().filter_map(|event| event.get("type")?.as_str()).collect();
    let is_heard = |topic: &&Topic| topic.types.iter().any(|kind| types.contains(&kind.name));
    TOPICS.iter().filter(is_heard).map(|topic| &*topic.name).filter(|name| ON_THE_WAY.contains(name)).collect()
}

/// What a service has heard on; none where it does not say.
type Heard<'a> = Option<&'a BTreeSet<&'static str>>;

/// Which services have nothing from topics that something is on, and from which: the request, which was accepted, and what another has heard of.
fn lacking(audit: Heard<'_>, status: Heard<'_>) -> Vec<(&'static str, Vec<&'static str>)> {
    let known: BTreeSet<&str> = [audit, status].into_iter().flatten().flatten().copied().collect();
    let all: BTreeSet<&str> = known.iter().copied().chain([triggers::TOPIC]).collect();
    let mut lacking = Vec::new();
    for (service, heard) in [("status", status), ("audit", audit)] {
        let Some(heard) = heard else { continue };
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
        "the log of its sidecar says why: a topic that it subscribes to is missing, or the Kafka user of fte-{service} lacks Read on one or on the group fte-{service}, which \
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
        fn lacking(audit: &BTreeSet<&'static str>, status: &BTreeSet<&'static str>) -> Vec<(&'static str, Vec<&'static str>)> {
            super::lacking(Some(audit), Some(status))
        }
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

    #[test]
    fn of_who_does_not_say_what_it_has_nothing_is_told() {
        let request = BTreeSet::from([triggers::TOPIC]);
        assert_eq!(lacking(None, None), []);
        assert_eq!(lacking(None, Some(&request)), [("runner", vec![triggers::TOPIC])]);
        assert_eq!(lacking(Some(&ON_THE_WAY.into()), None), []);
        assert_eq!(lacking(None, Some(&BTreeSet::new())), [("status", vec![triggers::TOPIC])]);
    }
}
