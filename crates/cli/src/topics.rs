//! `fte topics`: the catalogue's topics, for people and for what creates them. It needs no instance.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use fte_events::handoffs::built_in_agents;
use fte_events::{AgentName, Topic, manifests, topics};
use fte_service::agents::Agents;

use crate::error::Error;
use crate::output::Output;
use crate::server::config_error;

#[derive(Debug, Args)]
pub(crate) struct Topics {
    /// How to print them
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// An agent that needs its hand-off topic; may repeat [default: the built-in agents]
    #[arg(long = "agent", value_name = "NAME")]
    agents: Vec<AgentName>,
    /// The agents.toml whose agents need theirs
    #[arg(long = "agents", value_name = "FILE", conflicts_with = "agents")]
    file: Option<PathBuf>,
    /// The Strimzi cluster that the topics belong to
    #[arg(long, default_value = "kafka", value_name = "NAME")]
    cluster: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    /// An array with an object for each
    Json,
    /// A shell script of `kafka-topics.sh` calls, safe to run again
    KafkaTopics,
    /// Strimzi `KafkaTopic` resources
    Strimzi,
}

impl Topics {
    pub(crate) fn run(self, output: Output) -> Result<(), Error> {
        let topics = topics(&self.agents()?);
        if output.json {
            return output.json_items(&topics);
        }
        match self.format {
            Format::Table => output.table(["TOPIC", "PARTITIONS", "RETENTION", "PUBLISHERS", "SUBSCRIBERS"], topics.iter().map(row)),
            Format::Json => output.json_line(&topics),
            Format::KafkaTopics => output.line(manifests::kafka_topics(&topics).trim_end()),
            Format::Strimzi => output.line(manifests::strimzi(&topics, &self.cluster).trim_end()),
        }
    }

    fn agents(&self) -> Result<Vec<AgentName>, Error> {
        match &self.file {
            Some(file) => Ok(Agents::read("--agents", file).map_err(config_error)?.agents.into_keys().collect()),
            None if self.agents.is_empty() => Ok(built_in_agents()),
            None => Ok(self.agents.clone()),
        }
    }
}

fn row(topic: &Topic) -> [String; 5] {
    let list = |names: &[&str]| names.join(", ");
    [topic.name.to_string(), topic.partitions.to_string(), topic.retention_text(), list(topic.publishers), list(topic.subscribers)]
}
