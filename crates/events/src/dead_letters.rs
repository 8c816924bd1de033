//! `fte.deadletter.{service}`: what a service gave up on, with the reason.
//!
//! A record that Dapr itself dead-letters, one that it could not parse, arrives as it is and is no event of this type.

use std::borrow::Cow;

use crate::digest::sha256_hex;
use fte_bus::json::{DEPTH_MAX, from_slice};
use fte_bus::{Message, REPLAY_ATTRIBUTE, RawEvent, Rejected};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::decode::task_of;
use crate::envelope::{Outgoing, TENANT};
use crate::ids::{EventName, TaskId, event_id};
use crate::payload::{Extra, Payload};

/// What the topics' names begin with.
pub const TOPIC_PREFIX: &str = "fte.deadletter.";
/// The services that have a dead-letter topic.
pub const SERVICES: [&str; 3] = ["runner", "status", "channels"];
/// Up to this size the original event is in the letter; past it, its prefix, size and digest are.
pub const ORIGINAL_BYTES_MAX: usize = 48 * 1024;

/// How much of a larger event is in its letter.
pub const PREFIX_BYTES_MAX: usize = 1024;

/// The id of the letter about `body`: giving up on the same event again, after a crash or at the same time, is the same letter;
/// giving up on its replay is another one.
pub fn letter_id(consumer: &str, body: &[u8]) -> Uuid {
    match RawEvent::parse(body) {
        Ok(event) => {
            let replay = event.extension(REPLAY_ATTRIBUTE).and_then(|mark| mark.split_once('/')).map(|(_, letter)| letter);
            event_id(task_of(&event), EventName::Letter { consumer, original_id: &event.id, replay })
        }
        // What is no event has no id but its content.
        Err(_) => {
            let digest = sha256_hex(body);
            event_id(TaskId::from_source(consumer, &digest), EventName::Letter { consumer, original_id: &digest, replay: None })
        }
    }
}

/// The dead-letter topic of a service.
pub fn topic(service: &str) -> String {
    format!("{TOPIC_PREFIX}{service}")
}

/// The letter of `service` about an event that its SDK gives up on.
pub fn letter(service: &str, rejected: &Rejected<'_>) -> Message {
    let body = &rejected.record.body;
    let now = Timestamp::now();
    let failure = Failure::new(rejected.code, rejected.reason.clone());
    let letter = DeadLettered::new(&rejected.record.topic, body, failure, rejected.attempts, now, rejected.consumer);
    let event = RawEvent::parse(body).ok();
    let task = event.as_ref().map(task_of);
    let mut outgoing = Outgoing::new(service, letter_id(rejected.consumer, body), now, &letter);
    if let (Some(task), Some(event)) = (task, &event) {
        outgoing = outgoing.about(task).cause(&event.id).tenant(event.extension("ftetenant").unwrap_or(TENANT));
    }
    Message { topic: topic(service).into(), key: task.map(|task| task.to_string().into()), body: outgoing.to_bytes() }
}

/// Why a consumer gave up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, ToSchema)]
pub struct Failure {
    /// For programs: stable, in `snake_case`.
    pub code: String,
    /// For people.
    pub message: String,
    /// Fields this version does not know.
    #[serde(flatten)]
    #[schema(ignore)]
    pub extra: Extra,
}

impl Failure {
    /// A failure by code and message.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), extra: Extra::new() }
    }
}

/// A consumer gave up on an event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, ToSchema)]
pub struct DeadLettered {
    /// Where the event was read.
    pub original_topic: String,
    /// The event as it was received: a JSON value, or text where it was no JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub original_event: Option<Value>,
    /// How a larger event begins. Such a letter cannot be replayed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original_prefix: Option<String>,
    /// A larger event's size in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original_size: Option<u64>,
    /// A larger event's SHA-256, in lower-case hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original_sha256: Option<String>,
    /// Why.
    pub error: Failure,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was given up.
    #[serde(serialize_with = "fte_bus::time::serialize")]
    pub failed_at: Timestamp,
    /// Who gave up.
    pub consumer: String,
    /// Fields this version does not know.
    #[serde(flatten)]
    #[schema(ignore)]
    pub extra: Extra,
}

impl DeadLettered {
    /// The letter about `body`, which `consumer` read on `original_topic` and gave up on.
    pub fn new(original_topic: &str, body: &[u8], error: Failure, attempts: u32, failed_at: Timestamp, consumer: &str) -> Self {
        let is_whole = body.len() <= ORIGINAL_BYTES_MAX;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            original_topic: original_topic.to_owned(),
            original_event: is_whole.then(|| from_slice(body, DEPTH_MAX).unwrap_or_else(|_| text(body).into())),
            original_prefix: (!is_whole).then(|| text(&body[..PREFIX_BYTES_MAX])),
            original_size: (!is_whole).then_some(body.len() as u64),
            original_sha256: (!is_whole).then(|| sha256_hex(body)),
            error,
            attempts,
            failed_at,
            consumer: consumer.to_owned(),
            extra: Extra::new(),
        }
    }
}

impl fte_bus::Event for DeadLettered {
    /// The prefix: the topic itself depends on the consumer ([`topic`]).
    const TOPIC: &'static str = TOPIC_PREFIX;
    const TYPE: &'static str = "fte.event.dead-lettered";
    const VERSION: u32 = 1;
}

impl Payload for DeadLettered {
    fn topic(&self) -> Cow<'static, str> {
        Cow::Owned(topic(self.consumer.strip_prefix("fte-").unwrap_or(&self.consumer)))
    }
    fn event_type(&self) -> &'static str {
        <Self as fte_bus::Event>::TYPE
    }
    fn version(&self) -> u32 {
        <Self as fte_bus::Event>::VERSION
    }
    fn task_id(&self) -> Option<TaskId> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    fn letter(body: &[u8]) -> DeadLettered {
        DeadLettered::new("fte.triggers.inbound", body, Failure::new("rejected", "no"), 1, sample::time(0), "fte-runner")
    }

    #[test]
    fn a_letter_holds_its_event_whole_up_to_the_limit() {
        let event = br#"{"id":"1","source":"/x","type":"t","data":{"a":1.5}}"#;
        assert_eq!(letter(event).original_event, Some(serde_json::from_slice(event).unwrap()));
        assert_eq!(letter(b"{no json").original_event, Some("{no json".into()));

        let limit = vec![b'x'; ORIGINAL_BYTES_MAX];
        assert!(letter(&limit).original_event.is_some());
    }

    #[test]
    fn a_larger_event_is_named_by_prefix_size_and_digest() {
        let large = vec![b'x'; ORIGINAL_BYTES_MAX + 1];
        let letter = letter(&large);
        assert_eq!(letter.original_event, None);
        assert_eq!(letter.original_prefix.as_deref(), Some("x".repeat(PREFIX_BYTES_MAX).as_str()));
        assert_eq!(letter.original_size, Some(49_153));
        assert_eq!(letter.original_sha256.as_deref(), Some("c002e842faebc0a10aeeb55c5b73507877638133648f38bb352dba2a17f1eb31"));
    }

    #[test]
    fn the_same_giving_up_is_the_same_letter_and_a_replays_is_another() {
        let event = br#"{"id":"1","source":"/x","type":"t"}"#;
        let respelt = br#"{"type":"t", "source":"/x", "id":"1", "traceid":"as Dapr adds"}"#;
        let replayed = br#"{"id":"1","source":"/x","type":"t","ftereplay":"fte-runner/abc"}"#;
        assert_eq!(letter_id("fte-runner", event), letter_id("fte-runner", respelt));
        assert_ne!(letter_id("fte-runner", event), letter_id("fte-status", event));
        assert_ne!(letter_id("fte-runner", event), letter_id("fte-runner", replayed));
        assert_eq!(letter_id("fte-runner", b"{no"), letter_id("fte-runner", b"{no"));
        assert_ne!(letter_id("fte-runner", b"{no"), letter_id("fte-runner", b"{not"));
    }
}
