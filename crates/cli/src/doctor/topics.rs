//! The topics as the broker has them, compared with the catalogue. There is no Kafka client here: what Kafka's own tools or Kubernetes print is read.

use std::collections::BTreeMap;

use fte_events::{AgentName, Topic};
use serde_json::Value;

use super::Finding;
use crate::error::Exit;

const CHECK: &str = "topics";
/// With fewer copies the loss of one disk can lose what was acknowledged.
const REPLICATION_MIN: u64 = 3;
const IN_SYNC_MIN: u64 = 2;

/// What is known of a topic; what a text does not say is absent.
#[derive(Debug, Default, Clone, PartialEq)]
struct Seen {
    partitions: Option<u64>,
    replication: Option<u64>,
    retention_ms: Option<i64>,
    segment_ms: Option<u64>,
    in_sync: Option<u64>,
}

/// Compares such a text with the catalogue for these agents.
pub(super) fn findings(text: &str, agents: &[AgentName]) -> Vec<Finding> {
    compare(&parse(text), agents)
}

/// Reads `kafka-topics --describe`, `kafka-configs --describe --entity-type topics`, both together, or `kubectl get kafkatopics -o json`.
fn parse(text: &str) -> BTreeMap<String, Seen> {
    match serde_json::from_str::<Value>(text) {
        Ok(json) => strimzi(&json),
        Err(_) => lines(text),
    }
}

fn strimzi(json: &Value) -> BTreeMap<String, Seen> {
    let items = json["items"].as_array().cloned().unwrap_or_else(|| vec![json.clone()]);
    let number = |value: &Value| value.as_i64().or_else(|| value.as_str()?.parse().ok());
    let whole = |value: &Value| number(value).and_then(|number| u64::try_from(number).ok());
    let topic = |item: &Value| {
        let spec = &item["spec"];
        let name = spec["topicName"].as_str().or_else(|| item["metadata"]["name"].as_str())?.to_owned();
        let config = &spec["config"];
        let seen = Seen {
            partitions: whole(&spec["partitions"]),
            replication: whole(&spec["replicas"]),
            retention_ms: number(&config["retention.ms"]),
            segment_ms: whole(&config["segment.ms"]),
            in_sync: whole(&config["min.insync.replicas"]),
        };
        Some((name, seen))
    };
    items.iter().filter_map(topic).collect()
}

fn lines(text: &str) -> BTreeMap<String, Seen> {
    let mut found: BTreeMap<String, Seen> = BTreeMap::new();
    let mut current = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("Topic: ") {
            let name = rest.split_whitespace().next().unwrap_or_default().to_owned();
            let seen = found.entry(name.clone()).or_default();
            seen.partitions = field(line, "PartitionCount: ");
            seen.replication = field(line, "ReplicationFactor: ");
            configs(line, seen);
            current = Some(name);
        } else if let Some(rest) = line.split_once("onfigs for topic ").map(|(_, rest)| rest) {
            let name = rest.split_whitespace().next().unwrap_or_default().to_owned();
            found.entry(name.clone()).or_default();
            current = Some(name);
        } else if let Some(seen) = current.as_ref().filter(|_| line.starts_with(' ')).and_then(|name| found.get_mut(name)) {
            configs(line, seen);
        }
    }
    found
}

/// The number behind a word.
fn field(line: &str, word: &str) -> Option<u64> {
    line.split_once(word)?.1.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn configs(line: &str, seen: &mut Seen) {
    for part in line.split(|c: char| c.is_whitespace() || c == ',') {
        if let Some(value) = part.strip_prefix("retention.ms=") {
            seen.retention_ms = value.parse().ok().or(seen.retention_ms);
        } else if let Some(value) = part.strip_prefix("segment.ms=") {
            seen.segment_ms = value.parse().ok().or(seen.segment_ms);
        } else if let Some(value) = part.strip_prefix("min.insync.replicas=") {
            seen.in_sync = value.parse().ok().or(seen.in_sync);
        }
    }
}

fn compare(seen: &BTreeMap<String, Seen>, agents: &[AgentName]) -> Vec<Finding> {
    let due: Vec<Topic> = fte_events::topics(agents).into_iter().filter(|topic| !topic.later).collect();
    let mut findings = Vec::new();
    let missing: Vec<&str> = due.iter().map(|topic| &*topic.name).filter(|name| !seen.contains_key(*name)).collect();
    if !missing.is_empty() {
        let advice = "create them: `fte topics --agents agents.toml --format kafka-topics | BOOTSTRAP=… sh`, or --format strimzi";
        findings.push(Finding::bad(CHECK, Exit::Failed, format!("not on the broker: {}", missing.join(", ")), advice));
    }
    for topic in &due {
        if let Some(seen) = seen.get(&*topic.name) {
            judge(topic, seen, &mut findings);
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok(CHECK, format!("all {} are as the catalogue has them", due.len())));
    }
    findings
}

fn judge(topic: &Topic, seen: &Seen, findings: &mut Vec<Finding>) {
    let name = &topic.name;
    if seen.partitions.is_some_and(|count| count < u64::from(topic.partitions)) {
        let found = format!("{name} has {} partitions, not {}", seen.partitions.unwrap_or(0), topic.partitions);
        findings.push(Finding::warning(CHECK, found, "so many replicas of a service can share it: `kafka-topics --alter --partitions`"));
    }
    // -1 keeps everything.
    let wanted = i64::try_from(topic.retention_ms).unwrap_or(i64::MAX);
    if seen.retention_ms.is_some_and(|kept| kept >= 0 && kept < wanted) {
        let found = format!("{name} keeps events for {} ms, not {wanted}", seen.retention_ms.unwrap_or(0));
        let advice = format!("events could go before they are read: `kafka-configs --alter --add-config retention.ms={wanted}`");
        findings.push(Finding::bad(CHECK, Exit::Failed, found, advice));
    }
    // A text that says how long events are kept says this, too, if it is not the broker's default: a week.
    let longer = seen.segment_ms.map_or_else(|| seen.retention_ms.is_some(), |segment| segment > topic.segment_ms);
    if longer && topic.begins_tasks() {
        let found = format!(
            "{name} is kept in files of more than {} ms each, so that a request may come again when its task is forgotten",
            topic.segment_ms
        );
        let advice = format!(
            "after a long absence done tasks could be done again: `kafka-configs --alter --add-config segment.ms={}`",
            topic.segment_ms
        );
        findings.push(Finding::warning(CHECK, found, advice));
    }
    if seen.replication.is_some_and(|copies| copies < REPLICATION_MIN) || seen.in_sync.is_some_and(|copies| copies < IN_SYNC_MIN) {
        let count = |count: Option<u64>| count.map_or_else(|| "?".to_owned(), |count| count.to_string());
        let found = format!("{name} has replication {}, min.insync.replicas {}", count(seen.replication), count(seen.in_sync));
        findings.push(Finding::warning(CHECK, found, "a lost disk can lose what was acknowledged: replication 3, min.insync.replicas 2"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Health;

    fn described(retention: &str) -> String {
        let due = fte_events::topics(&agents()).into_iter().filter(|topic| !topic.later);
        due.map(|topic| {
            format!(
                "Topic: {0}\tTopicId: abc\tPartitionCount: {1}\tReplicationFactor: 3\tConfigs: min.insync.replicas=2,retention.ms={2},segment.ms={3}\n\tTopic: {0}\tPartition: 0\tLeader: 1\n",
                topic.name,
                topic.partitions,
                if retention.is_empty() { topic.retention_ms.to_string() } else { retention.to_owned() },
                topic.segment_ms,
            )
        })
        .collect()
    }

    fn agents() -> [AgentName; 1] {
        ["writer".parse().unwrap()]
    }

    fn bad(text: &str) -> Vec<String> {
        compare(&parse(text), &agents()).into_iter().filter(|finding| finding.health != Health::Ok).map(|finding| finding.found).collect()
    }

    #[test]
    fn a_broker_as_the_catalogue_has_it_is_fine() {
        assert_eq!(bad(&described("")), Vec::<String>::new());
        assert_eq!(bad(&described("-1")), Vec::<String>::new());
    }

    #[test]
    fn what_differs_is_named() {
        let text = described("").replacen("PartitionCount: 12", "PartitionCount: 1", 1).replacen(
            "ReplicationFactor: 3",
            "ReplicationFactor: 1",
            1,
        );
        let found = bad(&text);
        assert!(found.len() == 2 && found[0].contains("1 partitions") && found[1].contains("replication 1"), "{found:?}");
        assert!(bad(&described("1000")).iter().all(|found| found.contains("keeps events for 1000 ms")));
        // The broker's default, which is a week: only what begins tasks may not be there for so long.
        let found = bad(&described("").lines().map(|line| line.split(",segment.ms").next().unwrap().to_owned() + "\n").collect::<String>());
        assert!(found.len() == 3 && found.iter().all(|found| found.contains("files of more than 43200000 ms each")), "{found:?}");
        let lacks: String =
            described("").lines().filter(|line| !line.contains("fte.handoffs.writer")).map(|line| format!("{line}\n")).collect();
        assert_eq!(bad(&lacks), ["not on the broker: fte.handoffs.writer"]);
        let found = bad("");
        assert!(found.len() == 1 && found[0].contains("fte.triggers.inbound"), "{found:?}");
    }

    #[test]
    fn kafka_configs_and_strimzi_are_read_too() {
        let configs = "Dynamic configs for topic fte.triggers.inbound are:\n  retention.ms=5 sensitive=false synonyms={DYNAMIC_TOPIC_CONFIG:retention.ms=5}\n";
        assert_eq!(parse(configs)["fte.triggers.inbound"].retention_ms, Some(5));
        let strimzi = r#"{"items":[{"metadata":{"name":"fte-triggers-inbound"},"spec":{"topicName":"fte.triggers.inbound","partitions":12,"replicas":3,"config":{"retention.ms":604800000,"segment.ms":43200000,"min.insync.replicas":"2"}}}]}"#;
        let expected = Seen {
            partitions: Some(12),
            replication: Some(3),
            retention_ms: Some(604_800_000),
            segment_ms: Some(43_200_000),
            in_sync: Some(2),
        };
        assert_eq!(parse(strimzi)["fte.triggers.inbound"], expected);
    }
}
