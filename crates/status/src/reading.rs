//! From a delivery to what is stored of it: its identity, its task, its bytes as they came, and what it changes.
//!
//! This is the hottest path of the service, so payloads are read by views that borrow and take only the fields the read model keeps. It is as
//! lenient as it can be: an event is refused only when its type promises something that cannot be found in it. A request that the runner
//! will refuse is a task all the same, whose `failed` result somebody waits for.

use std::borrow::Cow;
use std::str::FromStr;

use bytes::Bytes;
use fte_bus::{Delivery, RawEvent};
use fte_events::decode::{BARE_TYPE, is_occasion, task_of};
use fte_events::{ClaimId, ResultKind, SandboxKind, Status, TaskId, Trigger, parse_trigger, results, sandbox, status, triggers};
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::model::{Change, Half, Step};
use crate::naming::{Named, named};
use crate::tenant::{Tenant, tenant_of};

/// An event as the store takes it.
#[derive(Debug, Clone)]
pub(crate) struct Incoming {
    /// Its id.
    pub id: EventId,
    /// Its producer.
    pub source: Box<str>,
    /// Its type.
    pub event_type: Box<str>,
    /// Its task.
    pub task: Option<TaskId>,
    /// Whose it is.
    pub tenant: Tenant,
    /// When it happened, in microseconds since 1970.
    pub at_us: Option<i64>,
    /// Its bytes as they came.
    pub body: Bytes,
    /// What it says about its task.
    pub change: Change,
    /// The artifacts that it names.
    pub artifacts: Vec<Named>,
}

/// The id of an event, which producers choose: nearly always a UUID, which is stored as its 16 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum EventId {
    /// A UUID in its usual spelling.
    Uuid(Uuid),
    /// Any other text.
    Text(Box<str>),
}

/// An event that the read model cannot use, now or ever.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    /// A known type with data that does not fit.
    #[error("the data of {event_type} does not fit its schema")]
    Data {
        /// The event's type.
        event_type: String,
        /// Which field, and how.
        source: serde_json::Error,
    },
    /// A type that is about a task, without one.
    #[error("{event_type} must name its task as its subject")]
    NoTask {
        /// The event's type.
        event_type: String,
    },
    /// The type and the data tell different ends.
    #[error("the type says {by_type} and the data {by_data}")]
    Contradiction {
        /// By the event's type.
        by_type: Status,
        /// By its data.
        by_data: Status,
    },
}

/// Reads a delivery of any topic but the dead-letter ones. `now` stands in for the time of a bare event that has none.
pub(crate) fn read(delivery: Delivery, now: Timestamp) -> Result<Incoming, Unreadable> {
    let Delivery { event, record } = delivery;
    let (task, change) = match &*record.topic {
        status::TOPIC => step(&event)?,
        sandbox::TOPIC => claim(&event)?,
        results::TOPIC => end(&event)?,
        triggers::TOPIC => request(&event, now),
        _ => handoff(&event)?,
    };
    let tenant = tenant_of(&event);
    let artifacts = if change == Change::Nothing { Vec::new() } else { named(&event) };
    Ok(Incoming {
        id: EventId::from(event.id),
        source: event.source.into(),
        event_type: event.event_type.into(),
        task,
        tenant,
        at_us: event.time.map(Timestamp::as_microsecond),
        body: record.body,
        change,
        artifacts,
    })
}

impl Incoming {
    /// An event that changes no task's record.
    pub(crate) fn unfolded(event: &RawEvent, tenant: Tenant, body: Bytes) -> Self {
        Self {
            id: EventId::from(event.id.clone()),
            source: event.source.as_str().into(),
            event_type: event.event_type.as_str().into(),
            task: subject(event),
            tenant,
            at_us: event.time.map(Timestamp::as_microsecond),
            body,
            change: Change::Nothing,
            artifacts: Vec::new(),
        }
    }

    /// A number made of the event's identity alone, the same on every machine: FNV-1a.
    pub(crate) fn mark(&self) -> i64 {
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
        let mut take = |bytes: &[u8]| {
            for byte in bytes {
                hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
            }
        };
        match &self.id {
            EventId::Uuid(id) => take(id.as_bytes()),
            EventId::Text(id) => take(id.as_bytes()),
        }
        take(self.source.as_bytes());
        hash.cast_signed()
    }
}

type Read = Result<(Option<TaskId>, Change), Unreadable>;

/// A type this version does not know: an event of its subject.
fn unknown(event: &RawEvent) -> (Option<TaskId>, Change) {
    (subject(event), Change::Nothing)
}

fn subject(event: &RawEvent) -> Option<TaskId> {
    event.subject.as_deref().and_then(|subject| subject.parse().ok())
}

fn data<'a, T: Deserialize<'a>>(event: &'a RawEvent) -> Result<T, Unreadable> {
    let text = event.data.as_ref().map_or("null", |data| data.get());
    serde_json::from_str(text).map_err(|source| Unreadable::Data { event_type: event.event_type.clone(), source })
}

fn owned(text: Option<Cow<'_, str>>) -> Option<Box<str>> {
    text.map(|text| text.into())
}

fn step(event: &RawEvent) -> Read {
    #[derive(Deserialize)]
    struct View<'a> {
        task_id: TaskId,
        status: Status,
        sequence: u64,
        attempt: u32,
        #[serde(borrow, default)]
        stage: Option<Cow<'a, str>>,
        #[serde(default)]
        progress_pct: Option<u8>,
        #[serde(borrow, default)]
        agent: Option<Cow<'a, str>>,
        #[serde(borrow, default)]
        details: Option<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct Details {
        #[serde(default)]
        request: Option<IgnoredAny>,
    }
    if event.event_type != "fte.status.changed" {
        return Ok(unknown(event));
    }
    let view: View<'_> = data(event)?;
    // Details may be anything; a request is only in the first step's.
    let details = view.details.filter(|_| view.sequence == 1).and_then(|details| serde_json::from_str::<Details>(details.get()).ok());
    let step = Step {
        status: view.status,
        sequence: view.sequence,
        attempt: view.attempt,
        stage: owned(view.stage),
        progress_pct: view.progress_pct,
        agent: owned(view.agent),
        has_request: details.is_some_and(|details| details.request.is_some()),
    };
    Ok((Some(view.task_id), Change::Moved(step)))
}

fn claim(event: &RawEvent) -> Read {
    #[derive(Deserialize)]
    struct View {
        claim_id: ClaimId,
    }
    let half = match SandboxKind::from_event_type(&event.event_type) {
        Some(SandboxKind::Claimed) => Half::Claimed,
        Some(SandboxKind::Released | SandboxKind::Expired) => Half::Ended,
        Some(SandboxKind::ClaimFailed) | None => return Ok(unknown(event)),
    };
    let view: View = data(event)?;
    let task = subject(event).ok_or_else(|| Unreadable::NoTask { event_type: event.event_type.clone() })?;
    Ok((Some(task), Change::Claim { claim: view.claim_id, half }))
}

fn end(event: &RawEvent) -> Read {
    #[derive(Deserialize)]
    struct View<'a> {
        task_id: TaskId,
        status: ResultKind,
        attempt: u32,
        #[serde(borrow)]
        agent: Cow<'a, str>,
    }
    let Some(kind) = ResultKind::from_event_type(&event.event_type) else {
        return Ok(unknown(event));
    };
    let view: View<'_> = data(event)?;
    if view.status != kind {
        return Err(Unreadable::Contradiction { by_type: kind.status(), by_data: view.status.status() });
    }
    let ended = Change::Ended { status: kind.status(), attempt: view.attempt, agent: view.agent.into() };
    Ok((Some(view.task_id), ended))
}

fn handoff(event: &RawEvent) -> Read {
    #[derive(Deserialize)]
    struct View<'a> {
        task_id: TaskId,
        #[serde(borrow)]
        to_agent: Cow<'a, str>,
    }
    if event.event_type != "fte.handoff.requested" {
        return Ok(unknown(event));
    }
    let view: View<'_> = data(event)?;
    Ok((Some(view.task_id), Change::Requested { agent: Some(view.to_agent.into()) }))
}

fn request(event: &RawEvent, now: Timestamp) -> (Option<TaskId>, Change) {
    #[derive(Deserialize)]
    struct View<'a> {
        task_id: TaskId,
        #[serde(borrow, default)]
        agent: Option<Cow<'a, str>>,
    }
    match event.event_type.as_str() {
        "fte.task.requested" | "fte.message.received" => match data::<View<'_>>(event) {
            Ok(view) => (Some(view.task_id), Change::Requested { agent: owned(view.agent) }),
            Err(_) => (Some(task_of(event)), Change::Requested { agent: None }),
        },
        "fte.task.resumed" | "fte.erasure.requested" => unknown(event),
        "" | BARE_TYPE => match parse_trigger(event, now) {
            Ok(Trigger::Run(request)) => (Some(request.task_id), Change::Requested { agent: request.agent.map(Into::into) }),
            _ => (Some(task_of(event)), Change::Requested { agent: None }),
        },
        // An occasion may start a task, if the configuration knows it; then the runner's events make the task.
        occasion if is_occasion(occasion) => (Some(task_of(event)), Change::Nothing),
        _ => unknown(event),
    }
}

impl From<String> for EventId {
    fn from(text: String) -> Self {
        match uuid_in_its_usual_spelling(&text) {
            Some(id) => Self::Uuid(id),
            None => Self::Text(text.into()),
        }
    }
}

impl FromStr for EventId {
    type Err = std::convert::Infallible;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(uuid_in_its_usual_spelling(text).map_or_else(|| Self::Text(text.into()), Self::Uuid))
    }
}

/// The spelling must be the one that is written back: ids are compared as text by everyone else.
fn uuid_in_its_usual_spelling(text: &str) -> Option<Uuid> {
    let id = Uuid::try_parse(text).ok().filter(|_| text.len() == 36)?;
    (*id.hyphenated().encode_lower(&mut Uuid::encode_buffer()) == *text).then_some(id)
}

impl std::fmt::Display for EventId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Uuid(id) => std::fmt::Display::fmt(id, f),
            Self::Text(id) => f.write_str(id),
        }
    }
}

#[cfg(test)]
mod tests;
