//! What each service finds around it: its sidecar with its components and subscriptions, its tokens, its clock.

use std::time::{Duration, Instant};

use fte_events::{AgentName, subscribed_by};
use fte_service::diagnosis::{Component, Diagnosis, SidecarSeen};
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};

use super::{EMBEDDED, Finding, brief, is_older_than_1_14, version};
use crate::client::Client;
use crate::error::{Error, Exit};

pub(super) const SERVICES: [&str; 4] = ["intake", "runner", "status", "audit"];
/// Services that keep documents in the state store.
const WITH_STATE: [&str; 2] = ["intake", "runner"];
/// Clocks further apart than this make deadlines and leases surprising.
const APART_MAX: Duration = Duration::from_secs(2);

/// What the services behind this address say, where these agents are. None of them may be there: then nothing is found.
pub(super) async fn findings(client: &Client, agents: &[AgentName]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for service in SERVICES {
        let asked = Instant::now();
        match client.get(&format!("/v1/services/{service}")).await {
            Ok(answer) => match answer.json::<Diagnosis>() {
                Ok(diagnosis) => judge(&diagnosis, agents, asked.elapsed(), &mut findings),
                Err(error) => findings.push(Finding::bad(service, Exit::Failed, brief(&error), "is it of another version?")),
            },
            // It is at another address.
            Err(Error::Refused(problem)) if problem.status == StatusCode::NOT_FOUND.as_u16() => {}
            Err(Error::Refused(problem)) if matches!(problem.status, 401 | 403) => {
                let advice = "its diagnosis takes a key with the role admin: FTE_API_KEY";
                findings.push(Finding::warning("services", problem.detail.clone(), advice));
                break;
            }
            Err(error) => findings.push(Finding::bad(service, Exit::Unavailable, brief(&error), "look at its log")),
        }
    }
    findings
}

fn judge(diagnosis: &Diagnosis, agents: &[AgentName], answer_took: Duration, findings: &mut Vec<Finding>) {
    let Diagnosis { service, sidecar_url, .. } = diagnosis;
    let Some(sidecar) = &diagnosis.sidecar else {
        let error = diagnosis.sidecar_error.as_deref().unwrap_or("it does not answer");
        findings.push(Finding::bad(
            service,
            Exit::Unavailable,
            format!("its sidecar at {sidecar_url}: {error}"),
            "start it, or name it in FTE_SIDECAR_URL",
        ));
        return;
    };
    let version = version(&sidecar.version, is_embedded(sidecar));
    findings.push(Finding::ok(service, format!("its sidecar ({version}) at {sidecar_url} serves {}", sidecar.app_id)));
    if sidecar.app_id != format!("fte-{service}") {
        let advice = "its app id is its consumer group, and scopes name it: use the catalogue's";
        findings.push(Finding::bad(service, Exit::Failed, format!("its app id is {}, not fte-{service}", sidecar.app_id), advice));
    }
    if is_older_than_1_14(&sidecar.version) {
        findings.push(Finding::warning(service, format!("its sidecar is {}", sidecar.version), "use Dapr 1.14 or later"));
    }
    let clock = apart(diagnosis.now, Timestamp::now(), answer_took);
    if clock > APART_MAX {
        findings.push(Finding::warning(service, format!("its clock is {clock:.0?} off this machine's"), "synchronise the clocks (NTP)"));
    }
    components(diagnosis, sidecar, findings);
    subscriptions(service, agents, sidecar, findings);
    lacks(diagnosis, findings);
    tokens(diagnosis, sidecar, findings);
    findings.extend(diagnosis.notes.iter().map(|note| {
        let found = format!("{}: {}", note.about, note.found);
        match &note.advice {
            Some(advice) => Finding::warning(service, found, advice.as_str()),
            None => Finding::ok(service, found),
        }
    }));
}

fn is_embedded(sidecar: &SidecarSeen) -> bool {
    sidecar.components.iter().any(|component| component.kind == EMBEDDED)
}

/// How far two clocks are apart at least, when the answer took this long.
fn apart(theirs: Timestamp, ours: Timestamp, answer_took: Duration) -> Duration {
    let difference: SignedDuration = theirs.duration_since(ours).abs();
    Duration::try_from(difference).unwrap_or_default().saturating_sub(answer_took)
}

fn components(diagnosis: &Diagnosis, sidecar: &SidecarSeen, findings: &mut Vec<Finding>) {
    let Diagnosis { service, pubsub, statestore, .. } = diagnosis;
    let named = |name: &str, prefix: &str| sidecar.components.iter().find(|it| it.name == name && it.kind.starts_with(prefix));
    if named(pubsub, "pubsub.").is_none() {
        let advice = "give it one (dapr/kafka or dapr/kafka-secured) whose scopes name the app, or name another in FTE_PUBSUB";
        findings.push(Finding::bad(service, Exit::Failed, format!("its sidecar has no pub/sub component {pubsub}"), advice));
    }
    if !WITH_STATE.contains(&service.as_str()) {
        return;
    }
    match named(statestore, "state.") {
        None => {
            let advice = "give it one (dapr/redis or dapr/postgresql) whose scopes name the app, or name another in FTE_STATESTORE";
            findings.push(Finding::bad(service, Exit::Failed, format!("its sidecar has no state store {statestore}"), advice));
        }
        Some(Component { kind, capabilities, .. }) => {
            let lacks: Vec<&str> = ["ETAG", "TTL"].into_iter().filter(|needed| !capabilities.iter().any(|it| it == needed)).collect();
            if !lacks.is_empty() {
                let advice = "without ETags two runners could both own a task: use Redis or PostgreSQL";
                findings.push(Finding::bad(service, Exit::Failed, format!("its state store {kind} lacks {}", lacks.join(", ")), advice));
            }
        }
    }
}

/// What the sidecar has asked the app for. Whether it gets it from the broker nobody says but its log: a probe shows that.
fn subscriptions(service: &str, agents: &[AgentName], sidecar: &SidecarSeen, findings: &mut Vec<Finding>) {
    let missing: Vec<String> = subscribed_by(service, agents)
        .into_iter()
        .map(|topic| topic.name.into_owned())
        .filter(|name| !sidecar.topics.iter().any(|it| it == name))
        .collect();
    if !missing.is_empty() {
        let advice = "its sidecar asks once at its start: was the service there, and has the service the same agents.toml (FTE_AGENTS)?";
        findings.push(Finding::bad(service, Exit::Failed, format!("its sidecar does not subscribe to {}", missing.join(", ")), advice));
    }
}

fn lacks(diagnosis: &Diagnosis, findings: &mut Vec<Finding>) {
    for lack in &diagnosis.lacks {
        let advice = "its /ready says the same; what is named has to be mended or to come back, and then it recovers by itself";
        findings.push(Finding::bad(&diagnosis.service, Exit::Unavailable, lack.as_str(), advice));
    }
}

fn tokens(diagnosis: &Diagnosis, sidecar: &SidecarSeen, findings: &mut Vec<Finding>) {
    // The embedded sidecar of one process is nobody else's.
    let alone = is_embedded(sidecar);
    let missing: Vec<&str> = [(diagnosis.sends_api_token, "DAPR_API_TOKEN"), (diagnosis.asks_for_app_token, "APP_API_TOKEN")]
        .into_iter()
        .filter_map(|(is_set, name)| (!is_set).then_some(name))
        .collect();
    if !missing.is_empty() && !alone {
        let advice = "without them whoever reaches the ports can publish, and can forge deliveries: set both for service and sidecar";
        findings.push(Finding::warning(&diagnosis.service, format!("{} not set", missing.join(" and ")), advice));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Health;

    fn healthy() -> Diagnosis {
        let component = |name: &str, kind: &str, capabilities: &[&str]| Component {
            name: name.into(),
            kind: kind.into(),
            capabilities: capabilities.iter().map(|it| (*it).to_owned()).collect(),
        };
        Diagnosis {
            lacks: Vec::new(),
            notes: Vec::new(),
            service: "runner".into(),
            version: "1".into(),
            now: Timestamp::now(),
            asks_for_keys: true,
            sends_api_token: true,
            asks_for_app_token: true,
            pubsub: "pubsub".into(),
            statestore: "statestore".into(),
            sidecar_url: "http://127.0.0.1:3500".into(),
            sidecar: Some(SidecarSeen {
                app_id: "fte-runner".into(),
                version: "1.14.0".into(),
                components: vec![component("pubsub", "pubsub.kafka", &[]), component("statestore", "state.redis", &["ETAG", "TTL"])],
                topics: ["triggers.inbound", "results.completed", "handoffs.writer", "handoffs.human"]
                    .map(|topic| format!("fte.{topic}"))
                    .into(),
            }),
            sidecar_error: None,
        }
    }

    fn judged(change: impl FnOnce(&mut Diagnosis)) -> Vec<(Health, String)> {
        let mut diagnosis = healthy();
        change(&mut diagnosis);
        let mut findings = Vec::new();
        judge(&diagnosis, &["writer".parse().unwrap()], Duration::ZERO, &mut findings);
        findings.into_iter().filter(|finding| finding.health != Health::Ok).map(|finding| (finding.health, finding.found)).collect()
    }

    #[test]
    fn a_healthy_service_has_nothing_to_complain_of() {
        assert_eq!(judged(|_| {}), []);
    }

    #[test]
    fn each_thing_that_is_wrong_is_found() {
        let one = |change: fn(&mut Diagnosis), health: Health, words: &str| {
            let found = judged(change);
            assert!(found.len() == 1 && found[0].0 == health && found[0].1.contains(words), "{words}: {found:?}");
        };
        fn sidecar(it: &mut Diagnosis) -> &mut SidecarSeen {
            it.sidecar.as_mut().unwrap()
        }
        one(|it| it.sidecar = None, Health::Bad, "does not answer");
        one(|it| sidecar(it).app_id = "other".into(), Health::Bad, "app id is other");
        one(|it| sidecar(it).version = "1.13.2".into(), Health::Warning, "1.13.2");
        one(|it| it.now += SignedDuration::from_secs(3600), Health::Warning, "clock");
        one(|it| drop(sidecar(it).components.remove(0)), Health::Bad, "no pub/sub component");
        one(|it| drop(sidecar(it).components.remove(1)), Health::Bad, "no state store");
        one(|it| sidecar(it).components[1].capabilities.clear(), Health::Bad, "lacks ETAG, TTL");
        one(|it| sidecar(it).topics.clear(), Health::Bad, "fte.triggers.inbound");
        one(|it| drop(sidecar(it).topics.remove(2)), Health::Bad, "fte.handoffs.writer");
        one(|it| it.lacks.push("runner/topics: fte.status.updates is refused".into()), Health::Bad, "fte.status.updates");
        one(|it| it.sends_api_token = false, Health::Warning, "DAPR_API_TOKEN");
    }
}
