//! From the wire to types: any event of the catalogue by its `type`, and triggers with the rule for bare events.

use std::borrow::Cow;

use fte_bus::RawEvent;
use fte_bus::json::{DATA_DEPTH_MAX, from_slice};
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::audit::ActionRecorded;
use crate::dead_letters::DeadLettered;
use crate::handoffs::{HandoffRequested, HandoffWithdrawn};
use crate::ids::TaskId;
use crate::payload::Payload;
use crate::results::{ResultKind, TaskResult};
use crate::sandbox::{SandboxChange, SandboxKind};
use crate::status::StatusChanged;
use crate::triggers::{DailyTaskDue, DeadlinePassed, ErasureRequested, MessageReceived, Origin, ScheduleFired, TaskRequested, TaskResumed};

/// What Dapr names an event that was published as bare JSON.
pub const BARE_TYPE: &str = "com.dapr.event.sent";

/// The payload of any event of the catalogue. It serialises as the payload alone.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Decoded {
    /// `fte.task.requested`.
    TaskRequested(Box<TaskRequested>),
    /// `fte.message.received`.
    MessageReceived(Box<MessageReceived>),
    /// `fte.deadline.passed`.
    DeadlinePassed(DeadlinePassed),
    /// `fte.daily-task.due`.
    DailyTaskDue(DailyTaskDue),
    /// `fte.schedule.fired`.
    ScheduleFired(ScheduleFired),
    /// `fte.task.resumed`.
    TaskResumed(TaskResumed),
    /// `fte.erasure.requested`.
    ErasureRequested(ErasureRequested),
    /// `fte.sandbox.*`.
    SandboxChange(Box<SandboxChange>),
    /// `fte.status.changed`.
    StatusChanged(Box<StatusChanged>),
    /// `fte.result.*`.
    TaskResult(Box<TaskResult>),
    /// `fte.action.recorded`.
    ActionRecorded(Box<ActionRecorded>),
    /// `fte.handoff.requested`.
    HandoffRequested(Box<HandoffRequested>),
    /// `fte.handoff.withdrawn`.
    HandoffWithdrawn(Box<HandoffWithdrawn>),
    /// `fte.event.dead-lettered`.
    DeadLettered(Box<DeadLettered>),
}

/// The same expression for whichever payload it is.
macro_rules! each {
    ($decoded:expr, $payload:ident => $expression:expr) => {
        match $decoded {
            Decoded::TaskRequested($payload) => $expression,
            Decoded::MessageReceived($payload) => $expression,
            Decoded::DeadlinePassed($payload) => $expression,
            Decoded::DailyTaskDue($payload) => $expression,
            Decoded::ScheduleFired($payload) => $expression,
            Decoded::TaskResumed($payload) => $expression,
            Decoded::ErasureRequested($payload) => $expression,
            Decoded::SandboxChange($payload) => $expression,
            Decoded::StatusChanged($payload) => $expression,
            Decoded::TaskResult($payload) => $expression,
            Decoded::ActionRecorded($payload) => $expression,
            Decoded::HandoffRequested($payload) => $expression,
            Decoded::HandoffWithdrawn($payload) => $expression,
            Decoded::DeadLettered($payload) => $expression,
        }
    };
}

impl Payload for Decoded {
    fn topic(&self) -> Cow<'static, str> {
        each!(self, payload => payload.topic())
    }
    fn event_type(&self) -> &'static str {
        each!(self, payload => payload.event_type())
    }
    fn version(&self) -> u32 {
        each!(self, payload => payload.version())
    }
    fn task_id(&self) -> Option<TaskId> {
        each!(self, payload => payload.task_id())
    }
}

/// The `data` of a known type is not what the catalogue says. Trying again cannot help.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// A field is missing or has a wrong form.
    #[error("the data of {event_type} does not fit its schema")]
    Data {
        /// The event's type.
        event_type: String,
        /// Which field, and how.
        source: serde_json::Error,
    },
    /// A result whose type and status tell different ends.
    #[error("the type says {by_type} and the data {by_data}")]
    Contradiction {
        /// The end by the event's type.
        by_type: ResultKind,
        /// The end by the data's status.
        by_data: ResultKind,
    },
}

/// Reads `data` (JSON text) as what `event_type` says. `None` for a type that this version does not know: record it and
/// acknowledge it.
pub fn decode(event_type: &str, data: &str) -> Result<Option<Decoded>, DecodeError> {
    fn read<T: DeserializeOwned>(event_type: &str, data: &str) -> Result<T, DecodeError> {
        from_slice(data.as_bytes(), DATA_DEPTH_MAX).map_err(|source| DecodeError::Data { event_type: event_type.to_owned(), source })
    }

    if let Some(kind) = SandboxKind::from_event_type(event_type) {
        let claim = read(event_type, data)?;
        return Ok(Some(Decoded::SandboxChange(Box::new(SandboxChange { kind, claim }))));
    }
    if let Some(by_type) = ResultKind::from_event_type(event_type) {
        let result: TaskResult = read(event_type, data)?;
        let by_data = result.status;
        return if by_type == by_data {
            Ok(Some(Decoded::TaskResult(Box::new(result))))
        } else {
            Err(DecodeError::Contradiction { by_type, by_data })
        };
    }
    Ok(Some(match event_type {
        "fte.task.requested" => Decoded::TaskRequested(read(event_type, data)?),
        "fte.message.received" => Decoded::MessageReceived(read(event_type, data)?),
        "fte.deadline.passed" => Decoded::DeadlinePassed(read(event_type, data)?),
        "fte.daily-task.due" => Decoded::DailyTaskDue(read(event_type, data)?),
        "fte.schedule.fired" => Decoded::ScheduleFired(read(event_type, data)?),
        "fte.task.resumed" => Decoded::TaskResumed(read(event_type, data)?),
        "fte.erasure.requested" => Decoded::ErasureRequested(read(event_type, data)?),
        "fte.status.changed" => Decoded::StatusChanged(read(event_type, data)?),
        "fte.action.recorded" => Decoded::ActionRecorded(read(event_type, data)?),
        "fte.handoff.requested" => Decoded::HandoffRequested(read(event_type, data)?),
        "fte.handoff.withdrawn" => Decoded::HandoffWithdrawn(read(event_type, data)?),
        "fte.event.dead-lettered" => Decoded::DeadLettered(read(event_type, data)?),
        _ => return Ok(None),
    }))
}

/// What an event on `fte.triggers.inbound` asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Trigger {
    /// Run this task: `fte.task.requested`, `fte.message.received` (its request), or a bare `{"task":"…"}`.
    Run(Box<TaskRequested>),
    /// A parked or orphaned task goes on.
    Resume(TaskResumed),
    /// Delete what is held of a person.
    Erase(ErasureRequested),
    /// A deadline, a daily task or a schedule, from which the configuration makes this task.
    Occasion {
        /// The task it starts, if the configuration knows the occasion: the same for the same event, whatever else that names.
        /// Who publishes occasions may name the same customer in each.
        task_id: TaskId,
        /// `fte.deadline.passed`, `fte.daily-task.due` or `fte.schedule.fired`.
        occasion: Box<Decoded>,
    },
    /// Nothing that this version knows: acknowledge it.
    Unknown,
}

/// An event on `fte.triggers.inbound` that cannot be handled, now or ever.
#[derive(Debug, thiserror::Error)]
pub enum TriggerError {
    /// A known type with data that does not fit.
    #[error("the trigger could not be read")]
    Decode(#[from] DecodeError),
    /// A bare event that says no task.
    #[error(r#"an event without a type must carry {{"task": "<text>"}} as its data"#)]
    NoTask,
}

/// Reads an event of `fte.triggers.inbound`.
///
/// A bare event (type [`BARE_TYPE`] or none) is a request to run its `task`. Its task id is [`TaskId::from_source`], never
/// minted, so that a redelivery does not start a second task; a `task_id` of its own counts. Its other fields are those of a
/// request. `now` stands in for `time` where the event has none.
pub fn parse_trigger(event: &RawEvent, now: Timestamp) -> Result<Trigger, TriggerError> {
    let data = event.data.as_ref().map_or("null", |data| data.get());
    if event.event_type.is_empty() || event.event_type == BARE_TYPE {
        return bare(event, data, now).map(|request| Trigger::Run(Box::new(request)));
    }
    Ok(match decode(&event.event_type, data)? {
        Some(Decoded::TaskRequested(request)) => Trigger::Run(request),
        Some(Decoded::MessageReceived(message)) => Trigger::Run(Box::new(message.request)),
        Some(Decoded::TaskResumed(resumed)) => Trigger::Resume(resumed),
        Some(Decoded::ErasureRequested(erasure)) => Trigger::Erase(erasure),
        Some(occasion @ (Decoded::DeadlinePassed(_) | Decoded::DailyTaskDue(_) | Decoded::ScheduleFired(_))) => {
            Trigger::Occasion { task_id: TaskId::from_source(&event.source, &event.id), occasion: Box::new(occasion) }
        }
        // Types of other topics are unknown on this one.
        Some(_) | None => Trigger::Unknown,
    })
}

fn bare(event: &RawEvent, data: &str, now: Timestamp) -> Result<TaskRequested, TriggerError> {
    let mut fields: Map<String, Value> = from_slice(data.as_bytes(), DATA_DEPTH_MAX).map_err(|_| TriggerError::NoTask)?;
    if !fields.get("task").is_some_and(Value::is_string) {
        return Err(TriggerError::NoTask);
    }
    fields.entry("task_id").or_insert_with(|| TaskId::from_source(&event.source, &event.id).to_string().into());
    fields.entry("submitted_at").or_insert_with(|| event.time.unwrap_or(now).to_string().into());
    fields.insert("origin".to_owned(), Origin::Event.as_str().into());
    serde_json::from_value(Value::Object(fields)).map_err(|source| DecodeError::Data { event_type: BARE_TYPE.to_owned(), source }.into())
}

/// Whether the event asks to run a task, readable or not.
pub fn is_request(event: &RawEvent) -> bool {
    matches!(event.event_type.as_str(), "" | BARE_TYPE | "fte.task.requested" | "fte.message.received")
}

/// Whether events of this type say that a time has come.
pub fn is_occasion(event_type: &str) -> bool {
    matches!(event_type, "fte.deadline.passed" | "fte.daily-task.due" | "fte.schedule.fired")
}

/// The task that an event of any topic is about, read as leniently as it can be: for the `failed` result of a request that could
/// not be read, which must still reach whoever waits for it.
///
/// The `subject`, else `task_id` in the data, else, for a trigger that was to start one, [`TaskId::from_source`]; of an occasion always the last.
pub fn task_of(event: &RawEvent) -> TaskId {
    #[derive(serde::Deserialize)]
    struct Named {
        task_id: TaskId,
    }
    if is_occasion(&event.event_type) {
        return TaskId::from_source(&event.source, &event.id);
    }
    let subject = event.subject.as_deref().and_then(|subject| subject.parse().ok());
    subject
        .or_else(|| event.decode::<Named>().ok().map(|named| named.task_id))
        .unwrap_or_else(|| TaskId::from_source(&event.source, &event.id))
}

#[cfg(test)]
mod tests;
