//! `fte.audit.actions`: what somebody did that no other topic already says. No personal data here: digests instead.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::ids::TaskId;
use crate::open::open_words;
use crate::payload::Extra;

/// The topic.
pub const TOPIC: &str = "fte.audit.actions";

open_words! {
    /// What kind of actor.
    pub enum ActorType {
        /// A person.
        User = "user",
        /// An agent.
        Agent = "agent",
        /// One of our services.
        Service = "service",
    }
}

open_words! {
    /// How an action ended.
    pub enum ActionOutcome {
        /// It was done.
        Success = "success",
        /// It was tried.
        Failure = "failure",
        /// It was not allowed.
        Denied = "denied",
    }
}

/// Who acted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, ToSchema)]
pub struct Actor {
    /// What kind of actor.
    #[serde(rename = "type")]
    pub actor_type: ActorType,
    /// Their id.
    pub id: String,
    /// Fields this version does not know.
    #[serde(flatten)]
    #[schema(ignore)]
    pub extra: Extra,
}

impl Actor {
    /// An actor by kind and id.
    pub fn new(actor_type: ActorType, id: impl Into<String>) -> Self {
        Self { actor_type, id: id.into(), extra: Extra::new() }
    }
}

/// Somebody did something.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, ToSchema)]
pub struct ActionRecorded {
    /// What, as `<noun>.<past tense>`: `approval.granted`, `tool.called`, `event.rejected`, `deadletter.replayed`, …
    pub action: String,
    /// Who.
    pub actor: Actor,
    /// For which task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_id: Option<TaskId>,
    /// On what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// How it ended.
    pub outcome: ActionOutcome,
    /// SHA-256 of what went in, in lower-case hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_sha256: Option<String>,
    /// SHA-256 of what came out, in lower-case hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_sha256: Option<String>,
    /// In a sentence, without personal data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    /// Why, as the actor says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rationale: Option<String>,
    /// How sure the actor was, from 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f64>,
    /// Whatever else, without personal data.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schema(value_type = Object)]
    pub data: Map<String, Value>,
    /// When.
    #[serde(serialize_with = "fte_bus::time::serialize")]
    pub occurred_at: Timestamp,
    /// Fields this version does not know.
    #[serde(flatten)]
    #[schema(ignore)]
    pub extra: Extra,
}

impl ActionRecorded {
    /// An action with nothing to tell but who did what, when, and how it ended.
    pub fn new(action: impl Into<String>, actor: Actor, outcome: ActionOutcome, occurred_at: Timestamp) -> Self {
        Self {
            action: action.into(),
            actor,
            task_id: None,
            resource: None,
            outcome,
            input_sha256: None,
            output_sha256: None,
            summary: None,
            rationale: None,
            confidence: None,
            data: Map::new(),
            occurred_at,
            extra: Map::new(),
        }
    }
}

event!(ActionRecorded, TOPIC, "fte.action.recorded", v 1, task: |it| it.task_id);
