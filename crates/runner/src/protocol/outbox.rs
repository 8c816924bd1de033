//! Publishes what documents have in their outboxes: in order, one send in flight per task, for as long as it takes.
//!
//! A resumption goes out only after everything that was said before it is out. So its delivery proves that, whoever sent it: who takes
//! the task up then forgets all of it, and a task's events stay in order when it goes from one process to another.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fte_events::TaskId;

use crate::document::{OutEvent, TaskDoc};
use crate::ports::{Message, Pending, PortError, Ports};

const RETRY: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// The outbox of one task on its way out.
pub(super) struct Pump {
    ports: Ports,
    key: Arc<str>,
    queue: VecDeque<OutEvent>,
    /// The last event queued, and the last one acknowledged.
    queued: u64,
    sent: u64,
    sending: Option<(u64, Pending<Result<(), PortError>>)>,
    wait: Duration,
}

/// The number of the last event that may go out together with the first one: none goes together with a resumption behind it.
fn together<'a>(mut events: impl Iterator<Item = &'a OutEvent>) -> Option<u64> {
    let first = events.next()?.n;
    Some(events.take_while(|event| !event.is_trigger()).last().map_or(first, |last| last.n))
}

/// Publishes a document's outbox once, in order.
pub(super) async fn send(ports: &Ports, doc: &TaskDoc) -> Result<(), PortError> {
    let key = doc.task_id.to_string().into();
    let mut sent = 0;
    while let Some(last) = together(doc.outbox.iter().filter(|event| event.n > sent)) {
        let now = doc.outbox.iter().filter(|event| event.n > sent && event.n <= last);
        ports.outlet.send(messages(&key, now)).await?;
        sent = last;
    }
    Ok(())
}

/// The events as messages keyed by the task that they are about.
fn messages<'a>(key: &Arc<str>, events: impl Iterator<Item = &'a OutEvent>) -> Vec<Message> {
    let message = |event: &OutEvent| Message {
        topic: event.topic.as_str().into(),
        key: Some(event.key.map_or_else(|| Arc::clone(key), |other| other.to_string().into())),
        body: Bytes::copy_from_slice(event.body.get().as_bytes()),
    };
    events.map(message).collect()
}

impl Pump {
    pub(super) fn new(ports: Ports, task: TaskId) -> Self {
        Self { ports, key: task.to_string().into(), queue: VecDeque::new(), queued: 0, sent: 0, sending: None, wait: RETRY }
    }

    /// Queues what the (durable!) document has and this pump has not seen.
    pub(super) fn offer(&mut self, doc: &TaskDoc) {
        for event in &doc.outbox {
            if event.n > self.queued {
                self.queued = event.n;
                self.queue.push_back(event.clone());
            }
        }
    }

    /// Drops from a document that is about to be written what has been acknowledged.
    pub(super) fn forget_sent(&self, doc: &mut TaskDoc) {
        doc.outbox.retain(|event| event.n > self.sent);
    }

    /// How many events are still to go out.
    pub(super) fn unsent(&self) -> usize {
        self.queue.len()
    }

    /// How many bytes are still to go out.
    pub(super) fn unsent_bytes(&self) -> usize {
        self.queue.iter().map(|event| event.body.get().len()).sum()
    }

    /// Whether everything offered is out.
    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// Sends what is queued, once; pending for ever when there is nothing. May be dropped and called again at any time.
    pub(super) async fn step(&mut self) {
        if self.sending.is_none() {
            let Some(last) = together(self.queue.iter()) else { return std::future::pending().await };
            let messages = messages(&self.key, self.queue.iter().filter(|event| event.n <= last));
            self.sending = Some((last, self.ports.outlet.send(messages)));
        }
        let Some((last, sending)) = &mut self.sending else { return };
        let outcome = sending.await;
        let last = *last;
        match outcome {
            Ok(()) => {
                self.sending = None;
                self.sent = last;
                self.wait = RETRY;
                self.queue.retain(|event| event.n > last);
            }
            Err(error) => {
                tracing::warn!(task = &*self.key, %error, "events could not be published; trying again");
                let (world, wait) = (Arc::clone(&self.ports.world), self.wait);
                self.wait = (wait * 2).min(RETRY_MAX);
                let send = self.ports.outlet.clone();
                let messages = messages(&self.key, self.queue.iter().filter(|event| event.n <= last));
                self.sending = Some((
                    last,
                    Box::pin(async move {
                        world.sleep(wait).await;
                        send.send(messages).await
                    }),
                ));
            }
        }
    }

    /// Sends until everything offered is out.
    pub(super) async fn drain(&mut self) {
        while !self.is_idle() {
            self.step().await;
        }
    }
}
