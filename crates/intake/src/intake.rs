//! Accepting a task: the event made and published once, or, with a key, remembered first and then published until it is out.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fte_bus::{Guard, Message, Publisher, Save, Saved, StateStore};
use fte_events::{EventName, Outgoing, Requester, TaskId, event_id, triggers};
use fte_service::agents::Agents;
use fte_service::keys::Caller;
use fte_service::pools::Queues;
use fte_service::{Bus, TraceParent};
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::config::Config;
use crate::error::{EVENT_BYTES_MAX, Error};
use crate::idempotency::{Key, Progress, REMEMBERED, Record};
use crate::request;

/// How often a record that keeps changing is read again. Two requests settle in two rounds; a third is a record that expires meanwhile.
const ROUNDS_MAX: usize = 5;

/// The sidecar, and who there is to work.
#[derive(Debug)]
pub(crate) struct Intake {
    publisher: Publisher,
    state: StateStore,
    agents: Arc<Agents>,
    queues: Queues,
    topic: Arc<str>,
    wait_max: Duration,
}

/// A task that is not out yet.
struct Prepared {
    task_id: TaskId,
    submitted_at: Timestamp,
    event: Bytes,
}

impl Intake {
    pub(crate) fn new(config: &Config, bus: &Bus, agents: Arc<Agents>) -> Self {
        let (publisher, state) = (bus.publisher.clone(), bus.state.clone());
        let queues = Queues::new(bus.sidecar.clone());
        Self { publisher, state, agents, queues, topic: triggers::TOPIC.into(), wait_max: config.accept_wait_max }
    }

    /// Accepts a task: when this returns its id, the broker has its event.
    pub(crate) async fn accept(
        &self,
        body: Map<String, Value>,
        key: Option<Key>,
        caller: &Caller,
        trace: &TraceParent,
    ) -> Result<TaskId, Error> {
        let accepted = async {
            match key {
                None => {
                    let prepared = self.prepare(body, caller, trace).await?;
                    self.publish(prepared.task_id, prepared.event).await?;
                    Ok(prepared.task_id)
                }
                Some(key) => self.accept_once(body, &key, caller, trace).await,
            }
        };
        tokio::time::timeout(self.wait_max, accepted).await.unwrap_or(Err(Error::TimedOut(self.wait_max)))
    }

    /// The event of a new task, if its agent's queue takes one.
    async fn prepare(&self, body: Map<String, Value>, caller: &Caller, trace: &TraceParent) -> Result<Prepared, Error> {
        let submitted_at = now();
        let task_id = TaskId::now();
        let mut request = request::read(body, task_id, &self.agents, submitted_at).map_err(Error::Invalid)?;
        let agent = request.agent.as_deref().unwrap_or_else(|| self.agents.default.as_str());
        if let Some(retry_after) = self.queues.is_full(agent).await {
            return Err(Error::PoolFull { agent: agent.to_owned(), retry_after });
        }
        request.requester =
            caller.name().map(|name| Requester { requester_type: "user".to_owned(), id: name.to_owned(), extra: Map::new() });
        let id = event_id(task_id, EventName::Trigger { turn: 0 });
        let event =
            Outgoing::new(crate::NAME, id, submitted_at, &request).tenant(caller.tenant()).traceparent(Some(trace.as_str())).to_bytes();
        if event.len() > EVENT_BYTES_MAX {
            return Err(Error::TooLarge { bytes: event.len() });
        }
        Ok(Prepared { task_id, submitted_at, event })
    }

    async fn publish(&self, task_id: TaskId, event: Bytes) -> Result<(), Error> {
        let key = Some(task_id.to_string().into());
        let message = Message { topic: Arc::clone(&self.topic), key, body: event };
        self.publisher.send(message).await.map_err(|source| Error::Sidecar { what: "publishing the task", source })
    }

    /// Accepts the task that the key stands for: a new one, or the one that an earlier request started. See [`idempotency`].
    async fn accept_once(&self, body: Map<String, Value>, key: &Key, caller: &Caller, trace: &TraceParent) -> Result<TaskId, Error> {
        let name = key.record_name(caller.tenant());
        let body_sha256 = fte_events::json_object_sha256(&body);
        let record = match self.prepare(body, caller, trace).await {
            Ok(prepared) => {
                let event = key.seal(caller.tenant(), &prepared.event).map_err(Error::Unsealable)?;
                let record = Record {
                    task_id: prepared.task_id,
                    body_sha256: key.digest(caller.tenant(), &body_sha256),
                    accepted_at: prepared.submitted_at,
                    progress: Progress::Pending { event },
                };
                self.create(&name, record).await?
            }
            // What was accepted stays accepted: meanwhile its deadline may have passed, its agent be gone, or its queue be full.
            Err(refused) => match self.find(&name).await? {
                Some((record, _)) => record,
                None => return Err(refused),
            },
        };
        if !key.is_of(caller.tenant(), &record, &body_sha256) {
            return Err(Error::KeyReused);
        }
        if let Progress::Pending { event } = &record.progress {
            let event = key.open(caller.tenant(), event).map_err(Error::Unsealable)?;
            self.publish(record.task_id, Bytes::from(event)).await?;
            self.mark_sent(&name, &record).await?;
        }
        Ok(record.task_id)
    }

    /// Creates the key's record, or finds the one that is there.
    async fn create(&self, name: &str, record: Record) -> Result<Record, Error> {
        for _ in 0..ROUNDS_MAX {
            if self.save(name, &record, Guard::Absent).await? == Saved::Written {
                return Ok(record);
            }
            // Gone between the two calls: it was a day old.
            if let Some((found, _)) = self.find(name).await? {
                return Ok(found);
            }
        }
        Err(Error::Contended)
    }

    /// Notes that the event is out; whoever notes it first.
    async fn mark_sent(&self, name: &str, record: &Record) -> Result<(), Error> {
        let sent = Record { progress: Progress::Sent, ..record.clone() };
        for _ in 0..ROUNDS_MAX {
            let guard = match self.find(name).await? {
                Some((found, _)) if found.task_id != record.task_id || found.progress == Progress::Sent => return Ok(()),
                Some((_, etag)) => Guard::Unchanged(etag),
                None => Guard::Absent,
            };
            if self.save(name, &sent, guard).await? == Saved::Written {
                return Ok(());
            }
        }
        Err(Error::Contended)
    }

    async fn save(&self, name: &str, record: &Record, guard: Guard) -> Result<Saved, Error> {
        let value = serde_json::to_vec(record).map_err(Error::Record)?.into();
        let save = Save { key: name.to_owned(), value, guard, ttl: Some(REMEMBERED) };
        self.state.save(save).await.map_err(|source| Error::Sidecar { what: "writing the key's record", source })
    }

    async fn find(&self, name: &str) -> Result<Option<(Record, fte_bus::ETag)>, Error> {
        let found = self.state.get(name).await.map_err(|source| Error::Sidecar { what: "reading the key's record", source })?;
        let Some(document) = found else {
            return Ok(None);
        };
        let record = serde_json::from_slice(&document.value).map_err(Error::Record)?;
        Ok(Some((record, document.etag)))
    }
}

/// Events tell milliseconds.
fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
}
