//! `fte.results.completed`: how a task ended. Exactly one per task, for every terminal status.
//!
//! The six types share one payload, [`TaskResult`], whose `status` is the type's other name.

use std::borrow::Cow;
use std::fmt;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::ids::TaskId;
use crate::payload::{Extra, Payload};
use crate::status::{Status, TaskError};

/// The topic.
pub const TOPIC: &str = "fte.results.completed";

/// Tokens of a model, as they are counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Tokens {
    /// What it was given.
    pub input: u64,
    /// What it made of that.
    pub output: u64,
}

impl Tokens {
    /// Both together.
    pub fn total(self) -> u64 {
        self.input.saturating_add(self.output)
    }

    /// These and those.
    #[must_use]
    pub fn plus(self, more: Self) -> Self {
        Self { input: self.input.saturating_add(more.input), output: self.output.saturating_add(more.output) }
    }
}

/// The tokens that a task took, as an event tells them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(default)]
pub struct TokensUsed {
    /// What the model was given.
    pub input: u64,
    /// What it made of that.
    pub output: u64,
    /// Fields this version does not know.
    #[serde(flatten)]
    #[schema(ignore)]
    pub extra: Extra,
}

impl From<Tokens> for TokensUsed {
    fn from(tokens: Tokens) -> Self {
        Self { input: tokens.input, output: tokens.output, extra: Extra::new() }
    }
}

/// A terminal status, which is a result's `status` and names its event type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResultKind {
    /// Done.
    Completed,
    /// It could not be done.
    Failed,
    /// A person said no.
    Rejected,
    /// Somebody called it off.
    Cancelled,
    /// Its time ran out.
    TimedOut,
    /// Its money ran out.
    BudgetExceeded,
}

impl ResultKind {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Completed, Self::Failed, Self::Rejected, Self::Cancelled, Self::TimedOut, Self::BudgetExceeded];

    /// The CloudEvents `type`.
    pub const fn event_type(self) -> &'static str {
        match self {
            Self::Completed => "fte.result.completed",
            Self::Failed => "fte.result.failed",
            Self::Rejected => "fte.result.rejected",
            Self::Cancelled => "fte.result.cancelled",
            Self::TimedOut => "fte.result.timed-out",
            Self::BudgetExceeded => "fte.result.budget-exceeded",
        }
    }

    /// The kind that a CloudEvents `type` names.
    pub fn from_event_type(event_type: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.event_type() == event_type)
    }

    /// The task's status after it.
    pub const fn status(self) -> Status {
        match self {
            Self::Completed => Status::Completed,
            Self::Failed => Status::Failed,
            Self::Rejected => Status::Rejected,
            Self::Cancelled => Status::Cancelled,
            Self::TimedOut => Status::TimedOut,
            Self::BudgetExceeded => Status::BudgetExceeded,
        }
    }
}

impl fmt::Display for ResultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.status().as_str())
    }
}

impl From<ResultKind> for Status {
    fn from(kind: ResultKind) -> Self {
        kind.status()
    }
}

/// The status is not terminal: the task goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a terminal status")]
pub struct NotTerminal(pub Status);

impl TryFrom<Status> for ResultKind {
    type Error = NotTerminal;
    fn try_from(status: Status) -> Result<Self, NotTerminal> {
        Self::ALL.into_iter().find(|kind| kind.status() == status).ok_or(NotTerminal(status))
    }
}

/// Something the agent made, kept elsewhere and named here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, ToSchema)]
pub struct Artifact {
    /// Its file name.
    pub name: String,
    /// Its media type.
    pub content_type: String,
    /// Its size.
    pub size_bytes: u64,
    /// Its SHA-256, in lower-case hex.
    pub sha256: String,
    /// Where it is.
    pub uri: String,
    /// Fields this version does not know.
    #[serde(flatten)]
    #[schema(ignore)]
    pub extra: Extra,
}

/// What to answer on a support channel, and to whom. Personal data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, ToSchema)]
pub struct Reply {
    /// The channel.
    pub channel: String,
    /// The address in that channel.
    pub to: String,
    /// The subject line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The text.
    pub body: String,
    /// The conversation it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread_id: Option<String>,
    /// Fields this version does not know.
    #[serde(flatten)]
    #[schema(ignore)]
    pub extra: Extra,
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, ToSchema)]
pub struct TaskResult {
    /// The task.
    pub task_id: TaskId,
    /// How it ended.
    pub status: ResultKind,
    /// What the agent answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub result: Option<Value>,
    /// What the agent made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<Artifact>,
    /// Why it was not done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<TaskError>,
    /// Who did it, or should have: plain text, since a task for an unknown agent has a result too.
    pub agent: String,
    /// The task that handed it off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_task_id: Option<TaskId>,
    /// The hand-off it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handoff_id: Option<Uuid>,
    /// The last try, from 1.
    pub attempt: u32,
    /// When work began; a task that never began has the time of its end.
    #[serde(serialize_with = "fte_bus::time::serialize")]
    pub started_at: Timestamp,
    /// When it ended.
    #[serde(serialize_with = "fte_bus::time::serialize")]
    pub completed_at: Timestamp,
    /// From start to end, in milliseconds.
    pub duration_ms: u64,
    /// What it cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
    /// The tokens that it took, as far as its agent says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<TokensUsed>,
    /// What to answer on a support channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<Reply>,
    /// Fields this version does not know.
    #[serde(flatten)]
    #[schema(ignore)]
    pub extra: Extra,
}

impl Payload for TaskResult {
    fn topic(&self) -> Cow<'static, str> {
        Cow::Borrowed(TOPIC)
    }
    fn event_type(&self) -> &'static str {
        self.status.event_type()
    }
    fn version(&self) -> u32 {
        1
    }
    fn task_id(&self) -> Option<TaskId> {
        Some(self.task_id)
    }
}
