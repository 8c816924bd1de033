//! `fte.triggers.inbound`: what starts work, or takes it up again.
//!
//! Names that outside systems choose (`agent`) are plain text here: a wrong one must reach the runner, which answers it with a
//! `failed` result, instead of failing to be read.

use jiff::Timestamp;
use jiff::civil::Date;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::ids::TaskId;
use crate::open::open_words;
use crate::payload::Extra;

/// The topic.
pub const TOPIC: &str = "fte.triggers.inbound";

/// How urgent a task is: among admitted tasks, lower goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema, ToSchema)]
pub enum Priority {
    /// Before all others.
    P1,
    /// The usual.
    #[default]
    P2,
    /// When nothing else waits.
    P3,
}

impl Priority {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::P1 => "P1",
            Self::P2 => "P2",
            Self::P3 => "P3",
        }
    }
}

open_words! {
    /// Where a request came from.
    pub enum Origin {
        /// `POST /v1/tasks`.
        Http = "http",
        /// A support channel.
        Channel = "channel",
        /// A schedule.
        Schedule = "schedule",
        /// Another agent.
        Handoff = "handoff",
        /// An event that an outside system published.
        Event = "event",
    }
}

open_words! {
    /// Why a task goes on.
    pub enum ResumeReason {
        /// Its approval was decided.
        Approved = "approved",
        /// The agent it waited for has answered.
        HandoffReplied = "handoff_replied",
        /// Its runner died; another one takes over.
        Takeover = "takeover",
        /// Its time has come.
        Timer = "timer",
        /// The last try failed.
        Retry = "retry",
    }
}

open_words! {
    /// A support channel.
    pub enum Channel {
        /// E-mail.
        Email = "email",
        /// WhatsApp.
        Whatsapp = "whatsapp",
        /// A form on a web page.
        Webform = "webform",
    }
}

/// Who asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, ToSchema)]
pub struct Requester {
    /// What kind of requester: `user`, `agent`, `service`, …
    #[serde(rename = "type")]
    pub requester_type: String,
    /// Their id.
    pub id: String,
    /// Fields this version does not know.
    #[serde(flatten)]
    #[schema(ignore)]
    pub extra: Extra,
}

/// Please do this task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TaskRequested {
    /// The task.
    pub task_id: TaskId,
    /// What to do, in words.
    pub task: String,
    /// Who shall do it; the configured default otherwise. Plain text: see the module.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// What the agent should know, for its eyes only.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub context: Map<String, Value>,
    /// Ask a person before the start.
    #[serde(default)]
    pub require_approval: bool,
    /// How urgent.
    #[serde(default)]
    pub priority: Priority,
    /// What it may cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget_usd: Option<f64>,
    /// How many tokens it may take, in and out together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget_tokens: Option<u64>,
    /// `timed_out` after this.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "fte_bus::time::serialize")]
    pub deadline: Option<Timestamp>,
    /// Not before this.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "fte_bus::time::serialize")]
    pub not_before: Option<Timestamp>,
    /// Who asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requester: Option<Requester>,
    /// Where it came from. Who does not say so is an outside system.
    #[serde(default = "origin_event")]
    pub origin: Origin,
    /// The requester's own notes, passed through.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub metadata: Map<String, Value>,
    /// When it was submitted.
    #[serde(serialize_with = "fte_bus::time::serialize")]
    pub submitted_at: Timestamp,
    /// Fields this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

fn origin_event() -> Origin {
    Origin::Event
}

impl TaskRequested {
    /// A request with nothing but a text; the rest are defaults.
    pub fn new(task_id: TaskId, task: impl Into<String>, origin: Origin, submitted_at: Timestamp) -> Self {
        Self {
            task_id,
            task: task.into(),
            agent: None,
            context: Map::new(),
            require_approval: false,
            priority: Priority::default(),
            budget_usd: None,
            budget_tokens: None,
            deadline: None,
            not_before: None,
            requester: None,
            origin,
            metadata: Map::new(),
            submitted_at,
            extra: Map::new(),
        }
    }
}

event!(TaskRequested, TOPIC, "fte.task.requested", v 1, task: |it| Some(it.task_id));

/// Somebody who writes to support. Personal data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Customer {
    /// Their id.
    pub id: String,
    /// Their e-mail address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// Their telephone number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phone: Option<String>,
    /// Their name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Fields this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A support message, whatever channel it came by, with the task it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MessageReceived {
    /// The channel.
    pub channel: Channel,
    /// The message's id in the channel.
    pub channel_message_id: String,
    /// Who wrote.
    pub customer: Customer,
    /// The ticket it belongs to.
    pub ticket_id: String,
    /// The conversation in the channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread_id: Option<String>,
    /// Its subject line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// What it says.
    pub content: String,
    /// What it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// When it arrived.
    #[serde(serialize_with = "fte_bus::time::serialize")]
    pub received_at: Timestamp,
    /// The request to act on it: its fields stand beside the message's own, and it holds the unknown ones.
    #[serde(flatten)]
    pub request: TaskRequested,
}

event!(MessageReceived, TOPIC, "fte.message.received", v 1, task: |it| Some(it.request.task_id));

/// A café's ordering deadline has passed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DeadlinePassed {
    /// The café.
    pub cafe_id: i64,
    /// The day it was for.
    pub date: Date,
    /// When it passed.
    #[serde(serialize_with = "fte_bus::time::serialize")]
    pub timestamp: Timestamp,
    /// Fields this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

event!(DeadlinePassed, TOPIC, "fte.deadline.passed", v 1, task: |_it| None);

/// A daily task is due.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DailyTaskDue {
    /// Which one, as `generate_recommendations`.
    pub task_type: String,
    /// When it fell due.
    #[serde(serialize_with = "fte_bus::time::serialize")]
    pub timestamp: Timestamp,
    /// Fields this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

event!(DailyTaskDue, TOPIC, "fte.daily-task.due", v 1, task: |_it| None);

/// A schedule fired: the general form of the two above.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ScheduleFired {
    /// Its name.
    pub schedule: String,
    /// When it was due.
    #[serde(serialize_with = "fte_bus::time::serialize")]
    pub due_at: Timestamp,
    /// What it carries.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub data: Map<String, Value>,
    /// Fields this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

event!(ScheduleFired, TOPIC, "fte.schedule.fired", v 1, task: |_it| None);

/// A parked or orphaned task goes on. Ignored where there is no document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TaskResumed {
    /// The task.
    pub task_id: TaskId,
    /// Which turn this starts, from 1.
    #[schemars(range(min = 1))]
    pub turn: u32,
    /// Why.
    pub reason: ResumeReason,
    /// Fields this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

event!(TaskResumed, TOPIC, "fte.task.resumed", v 1, task: |it| Some(it.task_id));

/// Everything held of a person, or of a task, is to be deleted. Only the audit service publishes it, when it has destroyed the keys.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ErasureRequested {
    /// Whom it is about: a person as kind and id (`user:ada`), a task (`task:` and its id), or a key of the audit log.
    pub subject: String,
    /// The tasks that go with it, some of them where there are many: the others are in further events.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<TaskId>,
    /// Fields this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

event!(ErasureRequested, TOPIC, "fte.erasure.requested", v 1, task: |_it| None);
