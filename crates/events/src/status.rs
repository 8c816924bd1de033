//! `fte.status.updates`: how a task goes, step by step. The sequence of a task is gapless from 1, and ends with a terminal status.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::ids::TaskId;
use crate::open::open_words;
use crate::payload::Extra;
use crate::results::TokensUsed;

/// The topic.
pub const TOPIC: &str = "fte.status.updates";

/// Where a task stands. A closed set: what to do next depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The request is durable. The trigger itself says it; no status event does.
    Accepted,
    /// It waits for a sandbox, or for its next try.
    Queued,
    /// An agent works on it.
    Running,
    /// A person has to decide.
    AwaitingApproval,
    /// Another agent has to answer.
    AwaitingHandoff,
    /// Done. Final, as all that follow.
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

impl Status {
    /// All of them, in the order of a task's life.
    pub const ALL: [Self; 11] = [
        Self::Accepted,
        Self::Queued,
        Self::Running,
        Self::AwaitingApproval,
        Self::AwaitingHandoff,
        Self::Completed,
        Self::Failed,
        Self::Rejected,
        Self::Cancelled,
        Self::TimedOut,
        Self::BudgetExceeded,
    ];

    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::AwaitingApproval => "awaiting_approval",
            Self::AwaitingHandoff => "awaiting_handoff",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed_out",
            Self::BudgetExceeded => "budget_exceeded",
        }
    }

    /// Whether nothing follows it.
    pub const fn is_terminal(self) -> bool {
        match self {
            Self::Accepted | Self::Queued | Self::Running | Self::AwaitingApproval | Self::AwaitingHandoff => false,
            Self::Completed | Self::Failed | Self::Rejected | Self::Cancelled | Self::TimedOut | Self::BudgetExceeded => true,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that is no status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{word:?} is not a status: there are {known}", word = .0, known = Status::ALL.map(Status::as_str).join(", "))]
pub struct UnknownStatus(pub String);

impl FromStr for Status {
    type Err = UnknownStatus;
    fn from_str(text: &str) -> Result<Self, UnknownStatus> {
        Self::ALL.into_iter().find(|status| status.as_str() == text).ok_or_else(|| UnknownStatus(text.chars().take(64).collect()))
    }
}

open_words! {
    /// What becomes of a question that nobody answers.
    pub enum ExpiryDefault {
        /// The task ends, `timed_out`.
        Reject = "reject",
        /// It counts as approved.
        Approve = "approve",
    }
}

/// What a person has to decide.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, ToSchema)]
pub struct ApprovalRequest {
    /// Which of the task's questions this is, from 1: a decision that names it cannot count for the next one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub question: Option<u32>,
    /// What it is about, as the agent names it and a policy speaks of it: `mail.send`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// Why it is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What to look at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub data: Option<Value>,
    /// Nobody can answer after this.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "fte_bus::time::serialize")]
    pub expires_at: Option<Timestamp>,
    /// What counts if nobody has answered until then; `reject` where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<ExpiryDefault>,
    /// A page on which a person can answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// Fields this version does not know.
    #[serde(flatten)]
    #[schema(ignore)]
    pub extra: Extra,
}

/// What went wrong with a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, ToSchema)]
pub struct TaskError {
    /// For programs: stable, in `snake_case`.
    pub code: String,
    /// For people: what happened, why, and what to do.
    pub message: String,
    /// Whether the same task may succeed when tried again.
    #[serde(default)]
    pub retryable: bool,
    /// Fields this version does not know.
    #[serde(flatten)]
    #[schema(ignore)]
    pub extra: Extra,
}

impl TaskError {
    /// An error that trying again does not heal.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), retryable: false, extra: Extra::new() }
    }
}

/// A task moved on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, ToSchema)]
pub struct StatusChanged {
    /// The task.
    pub task_id: TaskId,
    /// Where it stands now.
    pub status: Status,
    /// Which of its changes this is: from 1, without a gap.
    #[schemars(range(min = 1))]
    pub sequence: u64,
    /// Which try, from 1.
    pub attempt: u32,
    /// What the agent is at, in its words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// How far, from 0 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100))]
    pub progress_pct: Option<u8>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Who works on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// What the task has cost so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
    /// The tokens that it has taken so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<TokensUsed>,
    /// What is asked, with `awaiting_approval`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<ApprovalRequest>,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<TaskError>,
    /// Whatever else the agent reports.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schema(value_type = Object)]
    pub details: Map<String, Value>,
    /// Fields this version does not know.
    #[serde(flatten)]
    #[schema(ignore)]
    pub extra: Extra,
}

impl StatusChanged {
    /// A change with nothing to tell but the status.
    pub fn new(task_id: TaskId, status: Status, sequence: u64, attempt: u32) -> Self {
        Self {
            task_id,
            status,
            sequence,
            attempt,
            stage: None,
            progress_pct: None,
            message: None,
            agent: None,
            cost_usd: None,
            tokens: None,
            approval: None,
            error: None,
            details: Map::new(),
            extra: Map::new(),
        }
    }
}

event!(StatusChanged, TOPIC, "fte.status.changed", v 1, task: |it| Some(it.task_id));
