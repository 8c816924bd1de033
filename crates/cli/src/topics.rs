//! `fte topics`: the catalogue's topics, for people and for what creates them. It needs no instance.

use clap::{Args, ValueEnum};
use fte_events::{AgentName, Topic, manifests, topics};

use crate::error::Error;
use crate::output::Output;

#[derive(Debug, Args)]
pub(crate) struct Topics {
    /// How to print them
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// An agent that needs its hand-off topic; may repeat
    #[arg(long = "agent", value_name = "NAME")]
    agents: Vec<AgentName>,
    /// The Strimzi cluster that the topics belong to
    #[arg(long, default_value = "kafka", value_name = "NAME")]
    cluster: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
    /// A shell script of `kafka-topics.sh` calls, safe to run again
    KafkaTopics,
    /// Strimzi `KafkaTopic` resources
    Strimzi,
}

impl Topics {
    pub(crate) fn run(self, output: Output) -> Result<(), Error> {
        let topics = topics(&self.agents);
        let format = if output.json { Format::Json } else { self.format };
        match format {
            Format::Table => output.table(["TOPIC", "PARTITIONS", "RETENTION", "PUBLISHERS", "SUBSCRIBERS"], topics.iter().map(row)),
            Format::Json => output.json_line(&topics),
            Format::KafkaTopics => output.line(manifests::kafka_topics(&topics).trim_end()),
            Format::Strimzi => output.line(manifests::strimzi(&topics, &self.cluster).trim_end()),
        }
    }
}

fn row(topic: &Topic) -> [String; 5] {
    let list = |names: &[&str]| names.join(", ");
    [topic.name.to_string(), topic.partitions.to_string(), topic.retention_text(), list(topic.publishers), list(topic.subscribers)]
}
