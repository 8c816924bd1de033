//! The topics: who says what on them, who listens, and for how long it is kept. Everything else about topics is made from here.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;

use crate::ids::AgentName;
use crate::{audit, dead_letters, handoffs, results, sandbox, status, triggers};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// Seven years with their leap days.
const SEVEN_YEARS_MS: u64 = 2_557 * DAY_MS;

/// A fourteenth of what is kept, and a week at most.
const fn segment_ms(retention_ms: u64) -> u64 {
    let part = retention_ms / 14;
    if part < 7 * DAY_MS { part } else { 7 * DAY_MS }
}

/// A topic. It serialises as `fte topics --format json` shows it.
#[derive(Debug, Clone, Serialize)]
pub struct Topic {
    /// Its name; of a topic per agent in [`TOPICS`], the pattern `fte.handoffs.{agent}`.
    pub name: Cow<'static, str>,
    /// How many partitions it is created with.
    pub partitions: u32,
    /// How long events are kept, in milliseconds.
    pub retention_ms: u64,
    /// How long one file of a partition is written to, in milliseconds. A broker deletes whole files, so an event may be there for so much longer; by default
    /// that is a week, and a request would outlive what is remembered of the task that it began.
    pub segment_ms: u64,
    /// The services that publish on it.
    pub publishers: &'static [&'static str],
    /// The services that subscribe to it.
    pub subscribers: &'static [&'static str],
    /// The event types on it.
    #[serde(skip)]
    pub types: &'static [EventType],
    /// Planned: not yet published or subscribed to.
    #[serde(skip)]
    pub later: bool,
}

impl Topic {
    /// Whether the name is a pattern: one topic for each agent.
    pub fn is_per_agent(&self) -> bool {
        self.name.ends_with("{agent}")
    }

    /// Whether what is on it asks to run tasks.
    pub fn begins_tasks(&self) -> bool {
        self.name == triggers::TOPIC || self.name.starts_with(handoffs::TOPIC_PREFIX)
    }

    /// How long events are kept, for people.
    pub fn retention_text(&self) -> String {
        format!("{} d", self.retention_ms / DAY_MS)
    }
}

/// An event type, and the schema of its `data`.
#[derive(Debug, Clone, Copy)]
pub struct EventType {
    /// The CloudEvents `type`.
    pub name: &'static str,
    /// The version of `data` (`fteversion`).
    pub version: u32,
    schema: fn() -> Schema,
}

impl EventType {
    const fn of<T: JsonSchema>(name: &'static str) -> Self {
        Self { name, version: 1, schema: || SchemaGenerator::default().into_root_schema_for::<T>() }
    }

    /// The JSON Schema (2020-12) of `data`.
    pub fn schema(&self) -> Schema {
        let mut schema = (self.schema)();
        schema.insert("title".to_owned(), self.name.into());
        schema.insert("$id".to_owned(), format!("urn:fte:event:{}:v{}", self.name, self.version).into());
        schema
    }
}

/// Every topic, with one entry for the hand-off topics of all agents.
pub static TOPICS: &[Topic] = &[
    Topic {
        name: Cow::Borrowed(triggers::TOPIC),
        partitions: 12,
        retention_ms: 7 * DAY_MS,
        segment_ms: segment_ms(7 * DAY_MS),
        // `status` replays dead letters; `audit` asks all to forget somebody.
        publishers: &["intake", "runner", "status", "audit"],
        subscribers: &["runner", "status", "audit"],
        types: &[
            EventType::of::<triggers::TaskRequested>("fte.task.requested"),
            EventType::of::<triggers::MessageReceived>("fte.message.received"),
            EventType::of::<triggers::DeadlinePassed>("fte.deadline.passed"),
            EventType::of::<triggers::DailyTaskDue>("fte.daily-task.due"),
            EventType::of::<triggers::ScheduleFired>("fte.schedule.fired"),
            EventType::of::<triggers::TaskResumed>("fte.task.resumed"),
            EventType::of::<triggers::ErasureRequested>("fte.erasure.requested"),
        ],
        later: false,
    },
    Topic {
        name: Cow::Borrowed(sandbox::TOPIC),
        partitions: 12,
        retention_ms: 30 * DAY_MS,
        segment_ms: segment_ms(30 * DAY_MS),
        publishers: &["runner"],
        subscribers: &["status", "audit"],
        types: &[
            EventType::of::<sandbox::SandboxClaim>("fte.sandbox.claimed"),
            EventType::of::<sandbox::SandboxClaim>("fte.sandbox.released"),
            EventType::of::<sandbox::SandboxClaim>("fte.sandbox.expired"),
            EventType::of::<sandbox::SandboxClaim>("fte.sandbox.claim-failed"),
        ],
        later: false,
    },
    Topic {
        name: Cow::Borrowed(status::TOPIC),
        partitions: 12,
        retention_ms: 30 * DAY_MS,
        segment_ms: segment_ms(30 * DAY_MS),
        publishers: &["runner"],
        subscribers: &["status", "audit"],
        types: &[EventType::of::<status::StatusChanged>("fte.status.changed")],
        later: false,
    },
    Topic {
        name: Cow::Borrowed(results::TOPIC),
        partitions: 12,
        retention_ms: 90 * DAY_MS,
        segment_ms: segment_ms(90 * DAY_MS),
        publishers: &["runner"],
        // The runner for the replies to hand-offs.
        subscribers: &["status", "audit", "runner"],
        types: &[
            EventType::of::<results::TaskResult>("fte.result.completed"),
            EventType::of::<results::TaskResult>("fte.result.failed"),
            EventType::of::<results::TaskResult>("fte.result.rejected"),
            EventType::of::<results::TaskResult>("fte.result.cancelled"),
            EventType::of::<results::TaskResult>("fte.result.timed-out"),
            EventType::of::<results::TaskResult>("fte.result.budget-exceeded"),
        ],
        later: false,
    },
    Topic {
        name: Cow::Borrowed(audit::TOPIC),
        partitions: 12,
        retention_ms: SEVEN_YEARS_MS,
        segment_ms: segment_ms(SEVEN_YEARS_MS),
        publishers: &["intake", "runner", "status", "audit"],
        subscribers: &["audit"],
        types: &[EventType::of::<audit::ActionRecorded>("fte.action.recorded")],
        later: false,
    },
    Topic {
        name: Cow::Borrowed("fte.handoffs.{agent}"),
        partitions: 3,
        retention_ms: 7 * DAY_MS,
        segment_ms: segment_ms(7 * DAY_MS),
        // `status` replays dead letters.
        publishers: &["runner", "status"],
        subscribers: &["runner", "status", "audit"],
        types: &[
            EventType::of::<handoffs::HandoffRequested>("fte.handoff.requested"),
            EventType::of::<handoffs::HandoffWithdrawn>("fte.handoff.withdrawn"),
        ],
        later: false,
    },
    dead_letters_of("fte.deadletter.runner", &["runner"], false),
    dead_letters_of("fte.deadletter.status", &["status"], false),
    dead_letters_of("fte.deadletter.channels", &["channels"], true),
];

const fn dead_letters_of(name: &'static str, publishers: &'static [&'static str], later: bool) -> Topic {
    Topic {
        name: Cow::Borrowed(name),
        partitions: 12,
        retention_ms: 90 * DAY_MS,
        segment_ms: segment_ms(90 * DAY_MS),
        publishers,
        subscribers: &["status", "audit"],
        types: const { &[EventType::of::<dead_letters::DeadLettered>("fte.event.dead-lettered")] },
        later,
    }
}

/// The topics to create: those of [`TOPICS`], with one hand-off topic for each of `agents` and one for people.
pub fn topics(agents: &[AgentName]) -> Vec<Topic> {
    let mut topics = Vec::with_capacity(TOPICS.len() + agents.len());
    for topic in TOPICS {
        if !topic.is_per_agent() {
            topics.push(topic.clone());
            continue;
        }
        let receivers = agents.iter().map(AgentName::as_str).filter(|agent| *agent != handoffs::HUMAN);
        for receiver in receivers.chain([handoffs::HUMAN]) {
            let name = format!("{}{receiver}", handoffs::TOPIC_PREFIX).into();
            topics.push(Topic { name, ..topic.clone() });
        }
    }
    topics
}

/// The topics that `service` subscribes to: those of [`topics`] that are in use. One that is only planned is not on every broker, and a topic that is missing
/// there would stop all others of the same consumer group.
pub fn subscribed_by(service: &str, agents: &[AgentName]) -> Vec<Topic> {
    topics(agents).into_iter().filter(|topic| !topic.later && topic.subscribers.contains(&service)).collect()
}

/// Every event type once, with the first topic it is on.
pub fn event_types() -> impl Iterator<Item = (&'static Topic, &'static EventType)> {
    let is_first = |index: usize, name: &str| !TOPICS[..index].iter().any(|t| t.types.iter().any(|e| e.name == name));
    TOPICS.iter().enumerate().flat_map(move |(index, topic)| {
        topic.types.iter().filter(move |event| is_first(index, event.name)).map(move |event| (topic, event))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_in_use_has_a_publisher_a_subscriber_a_type_and_a_retention() {
        for topic in TOPICS.iter().filter(|topic| !topic.later) {
            assert!(!topic.publishers.is_empty(), "{} has no publisher", topic.name);
            assert!(!topic.subscribers.is_empty(), "{} has no subscriber", topic.name);
            assert!(!topic.types.is_empty(), "{} has no event type", topic.name);
            assert!(topic.retention_ms >= DAY_MS, "{} has no retention", topic.name);
            assert!(topic.partitions > 0, "{} has no partition", topic.name);
        }
    }

    #[test]
    fn audit_listens_to_every_topic_and_status_to_all_but_its_own_actions() {
        for topic in TOPICS {
            assert!(topic.subscribers.contains(&"audit"), "{}", topic.name);
            assert_eq!(topic.subscribers.contains(&"status"), topic.name != audit::TOPIC, "{}", topic.name);
        }
    }

    #[test]
    fn nobody_subscribes_to_what_is_only_planned() {
        let topics = subscribed_by("audit", &["writer".parse().unwrap()]);
        let names: Vec<_> = topics.iter().map(|topic| &*topic.name).collect();
        assert!(names.contains(&"fte.deadletter.status") && names.contains(&audit::TOPIC), "{names:?}");
        assert!(names.contains(&"fte.handoffs.writer") && names.contains(&"fte.handoffs.human"), "{names:?}");
        assert!(!names.contains(&"fte.deadletter.channels"), "{names:?}");
        assert!(subscribed_by("intake", &[]).is_empty());
    }

    #[test]
    fn retentions_are_those_of_the_catalogue_text() {
        let retention = |name: &str| TOPICS.iter().find(|topic| topic.name == name).unwrap().retention_ms;
        assert_eq!(retention(triggers::TOPIC), 604_800_000);
        assert_eq!(retention(sandbox::TOPIC), 2_592_000_000);
        assert_eq!(retention(results::TOPIC), 7_776_000_000);
        assert_eq!(retention(audit::TOPIC), 220_924_800_000);
    }

    #[test]
    fn each_agent_and_people_have_a_hand_off_topic() {
        let agents = ["writer".parse().unwrap(), "human".parse().unwrap()];
        let names: Vec<_> = topics(&agents).into_iter().map(|topic| topic.name).collect();
        let handoffs: Vec<_> = names.iter().filter(|name| name.starts_with("fte.handoffs.")).collect();
        assert_eq!(handoffs, ["fte.handoffs.writer", "fte.handoffs.human"]);
        assert_eq!(names.len(), TOPICS.len() + 1);
    }

    #[test]
    fn each_service_with_dead_letters_has_its_topic() {
        for service in dead_letters::SERVICES {
            let name = dead_letters::topic(service);
            assert!(TOPICS.iter().any(|topic| topic.name == name), "{name}");
        }
    }

    #[test]
    fn topics_in_json_have_the_promised_shape() {
        let json = serde_json::to_value(&TOPICS[1]).unwrap();
        let expected = serde_json::json!({"name": "fte.sandbox.lifecycle", "partitions": 12, "retention_ms": 2_592_000_000_u64,
            "segment_ms": 185_142_857, "publishers": ["runner"], "subscribers": ["status", "audit"]});
        assert_eq!(json, expected);
    }
}
