//! `fte.deadletter.{service}`: what a service gave up on, with the reason.
//!
//! A record that Dapr itself dead-letters, one that it could not parse, arrives as it is and is no event of this type.

use std::borrow::Cow;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::ids::TaskId;
use crate::payload::{Extra, Payload};

/// What the topics' names begin with.
pub const TOPIC_PREFIX: &str = "fte.deadletter.";
/// The services that have a dead-letter topic.
pub const SERVICES: [&str; 3] = ["runner", "status", "channels"];
/// Up to this size the original event is in the letter; past it, its prefix, size and digest are.
pub const ORIGINAL_BYTES_MAX: usize = 48 * 1024;

/// The dead-letter topic of a service.
pub fn topic(service: &str) -> String {
    format!("{TOPIC_PREFIX}{service}")
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
    pub failed_at: Timestamp,
    /// Who gave up.
    pub consumer: String,
    /// Fields this version does not know.
    #[serde(flatten)]
    #[schema(ignore)]
    pub extra: Extra,
}

impl DeadLettered {
    /// Whether the event can be published again: it is here whole, and it is a CloudEvent.
    pub fn is_replayable(&self) -> bool {
        self.original_event.as_ref().is_some_and(Value::is_object)
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
