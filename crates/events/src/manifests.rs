//! Topics as what creates them: shell lines for `kafka-topics.sh`, and Strimzi's `KafkaTopic` resources.
//!
//! Topics are created explicitly, since auto-creation would give them the broker's retention. Replication is left to the cluster's
//! default.

use std::fmt::Write as _;

use crate::catalogue::Topic;

/// A shell script that creates the topics, and is safe to run again. The cluster is `$BOOTSTRAP`, by default `localhost:9092`.
pub fn kafka_topics(topics: &[Topic]) -> String {
    let mut script = String::from("#!/bin/sh\nset -eu\n: \"${BOOTSTRAP:=localhost:9092}\"\n");
    for Topic { name, partitions, retention_ms, segment_ms, .. } in topics {
        // Writing to a String cannot fail.
        let _ = writeln!(
            script,
            "kafka-topics.sh --bootstrap-server \"$BOOTSTRAP\" --create --if-not-exists --topic '{name}' \
             --partitions {partitions} --config retention.ms={retention_ms} --config segment.ms={segment_ms} --config cleanup.policy=delete"
        );
    }
    script
}

/// Strimzi resources for the topics, for the Kafka cluster named `cluster`.
pub fn strimzi(topics: &[Topic], cluster: &str) -> String {
    let mut yaml = String::new();
    for Topic { name, partitions, retention_ms, segment_ms, .. } in topics {
        // Writing to a String cannot fail. The API is `v1`, of Strimzi 0.49 and later: 1.0 has no other.
        let _ = write!(
            yaml,
            "---\n\
             apiVersion: kafka.strimzi.io/v1\n\
             kind: KafkaTopic\n\
             metadata:\n  name: {name}\n  labels:\n    strimzi.io/cluster: {cluster}\n\
             spec:\n  partitions: {partitions}\n  config:\n    retention.ms: {retention_ms}\n    segment.ms: {segment_ms}\n    \
             cleanup.policy: delete\n"
        );
    }
    yaml
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::topics;

    #[test]
    fn every_topic_has_its_line_with_partitions_and_retention() {
        let topics = topics(&["writer".parse().unwrap()]);
        let script = kafka_topics(&topics);
        assert_eq!(script.lines().count(), 3 + topics.len());
        assert!(
            script.contains("--topic 'fte.handoffs.writer' --partitions 3 --config retention.ms=604800000 --config segment.ms=43200000 "),
            "{script}"
        );
    }

    #[test]
    fn every_topic_is_one_strimzi_resource() {
        let topics = topics(&[]);
        let yaml = strimzi(&topics, "kafka");
        assert_eq!(yaml.matches("kind: KafkaTopic").count(), topics.len());
        assert!(yaml.contains(
            "  name: fte.audit.actions\n  labels:\n    strimzi.io/cluster: kafka\nspec:\n  partitions: 12\n  config:\n    \
             retention.ms: 220924800000\n    segment.ms: 604800000\n"
        ));
    }
}
