//! What a dead letter says, and what replaying it means. Pure.
//!
//! A letter is either the event that a service's SDK publishes with its reason, or a record that the sidecar itself gave up on, which arrives as it
//! was. A replay is the original event on its original topic, marked for the consumer that gave up on it. A request to run a task is the exception: its
//! task has ended as `failed` with the letter, so its replay is a new task, whose id is made from the letter's, so that repeating the replay asks for
//! the same task again. (Not so where this service gave up: the task itself ran, and only the read model has to be told again.)
//!
//! What else the runner gave up on of a task has no replay: the task's end is out, and who waited for it was told. The same event would find the task ended and do nothing; or,
//! once the runner has forgotten the task, days before its letter goes, do it and end it a second time.

use std::collections::BTreeMap;
use std::sync::Arc;

use fte_bus::{Message, REPLAY_ATTRIBUTE, RawEvent, Record};
use fte_events::decode::{is_request, task_of};
use fte_events::{EventName, Failure, TOPICS, TaskId, Trigger, audit, dead_letters, event_id, handoffs, parse_trigger, triggers};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use crate::reading::Incoming;
use crate::store::NewLetter;
use crate::subscriptions::APP_ID;
use crate::tenant::{Tenant, tenant, tenant_of};

/// What a letter says.
#[derive(Debug)]
pub(crate) struct Letter {
    pub(crate) consumer: String,
    pub(crate) original_topic: Option<String>,
    pub(crate) original: Original,
    pub(crate) error: Failure,
    pub(crate) attempts: Option<u32>,
    pub(crate) failed_at: Option<Timestamp>,
    pub(crate) task: Option<TaskId>,
    /// Whose the event was; of one that cannot be read, what the letter says.
    pub(crate) tenant: Tenant,
}

/// The event that was given up on.
#[derive(Debug)]
pub(crate) enum Original {
    /// A CloudEvent, whole.
    Event(Box<RawValue>),
    /// Something whole that is none, as JSON: text where it was no JSON.
    Other(Box<RawValue>),
    /// The beginning of something too large for a letter.
    Prefix { text: String, size: Option<u64>, sha256: Option<String> },
}

/// Why a letter cannot be replayed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotReplayable {
    #[error("the event was too large for its letter, which has only its beginning; publish it again from its source")]
    Large,
    #[error("what was given up on is no CloudEvent")]
    NoEvent,
    #[error("the letter does not say which topic the event was on")]
    NoTopic,
    #[error("the letter names a topic that events are not replayed on")]
    ForeignTopic,
    #[error("what was handed off has ended as failed, and the task that waited for it has been told so; start that task anew")]
    HandedOff,
    #[error("its task has ended as failed, and nothing is left to go on with; start the task anew")]
    Ended,
    #[error("the request cannot be read, and its task has ended as failed; publish it anew, mended")]
    Unreadable,
}

/// What to publish for a replay.
#[derive(Debug)]
pub(crate) struct Replay {
    pub(crate) message: Message,
    pub(crate) event_id: String,
    /// The task it is about: a new one where the letter was a request.
    pub(crate) task: Option<TaskId>,
    /// The new task that there is once it was published, if anybody does anything on it.
    pub(crate) starts: Option<TaskId>,
}

/// The data of `fte.event.dead-lettered`, with the original kept as its text.
#[derive(Deserialize)]
struct Data {
    original_topic: String,
    #[serde(default)]
    original_event: Option<Box<RawValue>>,
    #[serde(default)]
    original_prefix: Option<String>,
    #[serde(default)]
    original_size: Option<u64>,
    #[serde(default)]
    original_sha256: Option<String>,
    error: Failure,
    attempts: u32,
    failed_at: Timestamp,
    consumer: String,
}

/// A record of a dead-letter topic as it is stored: the letter, and its event where a service published it.
pub(crate) fn arrived(record: Record) -> (NewLetter, Option<Incoming>) {
    let Record { topic, body, .. } = record;
    if let Some((event, _)) = published(&body) {
        let Letter { tenant, task, .. } = Letter::read(&topic, &body);
        let letter = NewLetter { id: event.id.clone(), tenant: tenant.clone(), task, topic, record: body.clone() };
        return (letter, Some(Incoming::unfolded(&event, tenant, body)));
    }
    let id = dead_letters::letter_id(&consumer_of(&topic), &body).to_string();
    let Letter { tenant, task, .. } = Letter::read(&topic, &body);
    (NewLetter { id, tenant, task, topic, record: body }, None)
}

fn published(record: &[u8]) -> Option<(RawEvent, Data)> {
    let event = RawEvent::parse(record).ok().filter(|event| event.event_type == "fte.event.dead-lettered")?;
    let data = event.decode().ok()?;
    Some((event, data))
}

fn consumer_of(topic: &str) -> String {
    format!("fte-{}", topic.strip_prefix(dead_letters::TOPIC_PREFIX).unwrap_or(topic))
}

impl Letter {
    /// Reads a letter from its topic and its record.
    pub(crate) fn read(topic: &str, record: &[u8]) -> Self {
        let Some((event, data)) = published(record) else {
            return Self::of_the_sidecar(topic, record);
        };
        let original = match (data.original_event, data.original_prefix) {
            (Some(original), _) => Original::from(original),
            (None, prefix) => Original::Prefix { text: prefix.unwrap_or_default(), size: data.original_size, sha256: data.original_sha256 },
        };
        let read = original.event();
        let task = read.as_ref().map(task_of).or_else(|| event.subject.as_deref()?.parse().ok());
        let tenant = tenant_of(read.as_ref().unwrap_or(&event));
        Self {
            consumer: data.consumer,
            original_topic: Some(data.original_topic),
            original,
            error: data.error,
            attempts: Some(data.attempts),
            failed_at: Some(data.failed_at),
            task,
            tenant,
        }
    }

    /// The sidecar passes on the record itself, without a reason; of its origin only what the sidecar once wrote into the event is known.
    fn of_the_sidecar(topic: &str, record: &[u8]) -> Self {
        let text = || to_raw_value(&String::from_utf8_lossy(record)).unwrap_or_default();
        let original = Original::from(serde_json::from_slice::<Box<RawValue>>(record).unwrap_or_else(|_| text()));
        let event = original.event();
        let message = "the sidecar could not deliver it, and gave no reason";
        Self {
            consumer: consumer_of(topic),
            original_topic: event.as_ref().and_then(|event| event.extension("topic")).map(str::to_owned),
            error: Failure::new("undeliverable", message),
            attempts: None,
            failed_at: None,
            task: event.as_ref().map(task_of),
            tenant: event.as_ref().map_or_else(|| tenant(None), tenant_of),
            original,
        }
    }

    /// What to publish to have the event handled again.
    pub(crate) fn replay(&self, letter_id: &str, now: Timestamp) -> Result<Replay, NotReplayable> {
        if matches!(self.original, Original::Prefix { .. }) {
            return Err(NotReplayable::Large);
        }
        let event = self.original.event().ok_or(NotReplayable::NoEvent)?;
        let topic = self.original_topic.as_deref().ok_or(NotReplayable::NoTopic)?;
        if !is_replayed_on(topic) {
            return Err(NotReplayable::ForeignTopic);
        }
        if topic == triggers::TOPIC && self.consumer != APP_ID {
            match parse_trigger(&event, now) {
                Ok(Trigger::Run(_)) => return new_task(event, letter_id, now).ok_or(NotReplayable::NoEvent),
                Ok(Trigger::Occasion { .. }) => return new_occasion(event, letter_id, now).ok_or(NotReplayable::NoEvent),
                _ => {}
            }
        }
        if let Some(told) = self.told(&event, topic, now) {
            return Err(told);
        }
        self.again(event, topic, letter_id).ok_or(NotReplayable::NoEvent)
    }

    /// Why there is nothing to be done again: who gave up has ended the task first. (What never reached an app ended nothing, and no letter of its own says so.)
    fn told(&self, event: &RawEvent, topic: &str, now: Timestamp) -> Option<NotReplayable> {
        if self.consumer == APP_ID || self.attempts.is_none() {
            return None;
        }
        if topic == triggers::TOPIC {
            return match parse_trigger(event, now) {
                Ok(Trigger::Resume(_)) => Some(NotReplayable::Ended),
                Err(_) if is_request(event) => Some(NotReplayable::Unreadable),
                _ => None,
            };
        }
        let is_handoff = topic.starts_with(handoffs::TOPIC_PREFIX) && event.event_type == "fte.handoff.requested";
        is_handoff.then_some(NotReplayable::HandedOff)
    }

    /// The same event, for the consumer that gave up on it.
    fn again(&self, mut event: RawEvent, topic: &str, letter_id: &str) -> Option<Replay> {
        let task = (topic == triggers::TOPIC || event.subject.is_some()).then(|| task_of(&event));
        event.extensions.insert(REPLAY_ATTRIBUTE.to_owned(), Value::from(format!("{}/{letter_id}", self.consumer)));
        let key = task.map(|task| task.to_string().into()).or_else(|| event.subject.as_deref().map(Arc::from));
        let message = Message { topic: topic.into(), key, body: event.to_bytes().ok()? };
        Some(Replay { message, event_id: event.id, task, starts: None })
    }
}

/// The request as that of a new task, an ordinary one to every consumer.
fn new_task(mut event: RawEvent, letter_id: &str, now: Timestamp) -> Option<Replay> {
    let task = anew(&mut event, letter_id, now);
    let mut data: BTreeMap<String, Box<RawValue>> = event.decode().ok()?;
    data.insert("task_id".to_owned(), to_raw_value(&task).ok()?);
    event.subject = Some(task.to_string());
    let event = event.with_data(Some(data));
    let message = Message { topic: triggers::TOPIC.into(), key: Some(task.to_string().into()), body: event.to_bytes().ok()? };
    Some(Replay { message, event_id: event.id, task: Some(task), starts: Some(task) })
}

/// The occasion once more, an ordinary one to every consumer. Its task is that of its new identity, if anybody is to do anything on it: only the runner's
/// configuration says so.
fn new_occasion(mut event: RawEvent, letter_id: &str, now: Timestamp) -> Option<Replay> {
    anew(&mut event, letter_id, now);
    let task = task_of(&event);
    let message = Message { topic: triggers::TOPIC.into(), key: Some(task.to_string().into()), body: event.to_bytes().ok()? };
    Some(Replay { message, event_id: event.id, task: None, starts: Some(task) })
}

/// Gives an event a new identity, the same for each replay of a letter; the task of a request with it.
fn anew(event: &mut RawEvent, letter_id: &str, now: Timestamp) -> TaskId {
    let task = TaskId::from_source("/fte/status/replay", letter_id);
    event.id = event_id(task, EventName::Trigger { turn: 0 }).to_string();
    "/fte/status".clone_into(&mut event.source);
    event.time = Some(now);
    event.extensions.remove(REPLAY_ATTRIBUTE);
    event.extensions.insert("ftecause".to_owned(), Value::from(letter_id));
    task
}

/// Letters come from outside: they must not make this service publish anywhere else.
fn is_replayed_on(topic: &str) -> bool {
    let named = TOPICS.iter().any(|known| known.name == topic) || topic.starts_with(handoffs::TOPIC_PREFIX);
    named && topic != audit::TOPIC && !topic.starts_with(dead_letters::TOPIC_PREFIX)
}

impl From<Box<RawValue>> for Original {
    fn from(json: Box<RawValue>) -> Self {
        if RawEvent::parse(json.get().as_bytes()).is_ok() { Self::Event(json) } else { Self::Other(json) }
    }
}

impl Original {
    fn event(&self) -> Option<RawEvent> {
        match self {
            Self::Event(json) => RawEvent::parse(json.get().as_bytes()).ok(),
            Self::Other(_) | Self::Prefix { .. } => None,
        }
    }
}
