//! `fte.handoffs.{agent}`: one agent asks another; the topic's suffix is the receiver. `fte.handoffs.human` carries escalations.

use std::borrow::Cow;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::ids::{AgentName, TaskId};
use crate::open::open_words;
use crate::payload::{Extra, Payload};
use crate::results::Artifact;
use crate::triggers::{Priority, Requester};

/// What the topics' names begin with.
pub const TOPIC_PREFIX: &str = "fte.handoffs.";
/// The receiver of escalations.
pub const HUMAN: &str = "human";
/// How deep tasks may hand off to one another.
pub const DEPTH_MAX: u8 = 5;

/// The agents where no `agents.toml` names others.
pub fn built_in_agents() -> Vec<AgentName> {
    ["demo", "echo"].iter().filter_map(|name| name.parse().ok()).collect()
}

/// The topic that `agent` receives hand-offs on.
pub fn topic(agent: &AgentName) -> String {
    format!("{TOPIC_PREFIX}{agent}")
}

open_words! {
    /// How high an escalation goes.
    pub enum EscalationLevel {
        /// First level.
        L1 = "L1",
        /// Second level.
        L2 = "L2",
        /// Third level.
        L3 = "L3",
        /// The management.
        L4 = "L4",
    }
}

/// Please do this for me, and tell me.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HandoffRequested {
    /// The hand-off.
    pub handoff_id: Uuid,
    /// The task that waits.
    pub parent_task_id: TaskId,
    /// The task to do: the child's.
    pub task_id: TaskId,
    /// Who asks.
    pub from_agent: AgentName,
    /// Who is asked.
    pub to_agent: AgentName,
    /// What to do, in words.
    pub task: String,
    /// What the receiver should know.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub context: Map<String, Value>,
    /// What the sender has made so far.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<Artifact>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How deep the chain is with this one, from 1 to 5.
    #[schemars(range(min = 1, max = 5))]
    pub depth: u8,
    /// The agents that wait for this, from the first one that was asked to the sender's own sender.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ancestors: Vec<AgentName>,
    /// Too late after this.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "fte_bus::time::serialize")]
    pub deadline: Option<Timestamp>,
    /// Who asked for the first task of the chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requester: Option<Requester>,
    /// How urgent: as the sender's task.
    #[serde(default)]
    pub priority: Priority,
    /// What is left of the sender's budget.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget_usd: Option<f64>,
    /// Likewise, in tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget_tokens: Option<u64>,
    /// Of an escalation: the ticket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket_id: Option<String>,
    /// Of an escalation: how high.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<EscalationLevel>,
    /// Of an escalation: the customer's mood, from -1 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sentiment: Option<f64>,
    /// Of an escalation: what was said so far.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Value>,
    /// Of an escalation: what the agent would do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suggested_action: Option<String>,
    /// Fields this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

impl fte_bus::Event for HandoffRequested {
    /// The prefix: the topic itself depends on the receiver ([`topic`]).
    const TOPIC: &'static str = TOPIC_PREFIX;
    const TYPE: &'static str = "fte.handoff.requested";
    const VERSION: u32 = 1;
}

impl Payload for HandoffRequested {
    fn topic(&self) -> Cow<'static, str> {
        Cow::Owned(topic(&self.to_agent))
    }
    fn event_type(&self) -> &'static str {
        <Self as fte_bus::Event>::TYPE
    }
    fn version(&self) -> u32 {
        <Self as fte_bus::Event>::VERSION
    }
    fn task_id(&self) -> Option<TaskId> {
        Some(self.task_id)
    }
}

/// The sender does not wait for this any more: it has ended, or the time for an answer is over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HandoffWithdrawn {
    /// The hand-off.
    pub handoff_id: Uuid,
    /// The task that waited.
    pub parent_task_id: TaskId,
    /// The task that nobody needs any more: the child's.
    pub task_id: TaskId,
    /// Who had asked.
    pub from_agent: AgentName,
    /// Who had been asked.
    pub to_agent: AgentName,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Fields this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

impl fte_bus::Event for HandoffWithdrawn {
    /// The prefix: the topic itself depends on the receiver ([`topic`]).
    const TOPIC: &'static str = TOPIC_PREFIX;
    const TYPE: &'static str = "fte.handoff.withdrawn";
    const VERSION: u32 = 1;
}

impl Payload for HandoffWithdrawn {
    fn topic(&self) -> Cow<'static, str> {
        Cow::Owned(topic(&self.to_agent))
    }
    fn event_type(&self) -> &'static str {
        <Self as fte_bus::Event>::TYPE
    }
    fn version(&self) -> u32 {
        <Self as fte_bus::Event>::VERSION
    }
    fn task_id(&self) -> Option<TaskId> {
        Some(self.task_id)
    }
}
