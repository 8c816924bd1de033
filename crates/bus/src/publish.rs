//! Publishing: one call per event for the user, as few calls as possible to the sidecar.
//!
//! Always true: `Ok` means the broker acknowledged the event. Events of one topic and one key leave in the order in which they were queued: they share a
//! lane, with one call in flight. A failed call is repeated a bounded number of times with jitter, only for what failed; a repeat may double an event
//! (at-least-once), which its id reveals.

mod bulk;
mod obstacles;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use serde::Serialize;
use uuid::Uuid;

use self::obstacles::Obstacles;
use crate::error::Error;
use crate::event::{CloudEvent, Event};
use crate::lane::{Batch, Lane, Pending, Queued};
use crate::metrics;
use crate::sidecar::{Sidecar, encode};

/// An event ready to send: CloudEvents JSON bytes, its topic and its partition key.
#[derive(Clone, Debug)]
pub struct Message {
    /// Where it goes.
    pub topic: Arc<str>,
    /// Events of one key stay in order.
    pub key: Option<Arc<str>>,
    /// The CloudEvent in structured JSON.
    pub body: Bytes,
}

/// Limits of a [`Publisher`].
#[derive(Clone, Debug)]
pub struct PublishOptions {
    /// The pub/sub component, `pubsub` by default.
    pub pubsub: String,
    /// Largest event in bytes, 1 MiB by default.
    pub event_bytes_max: usize,
    /// Most events in a bulk call, 512 by default.
    pub batch_max: usize,
    /// Most bytes in a bulk call, 2 MiB by default (a sidecar refuses 4 MiB).
    pub batch_bytes_max: usize,
    /// Events that may wait per lane before callers are made to wait, 4 096 by default.
    pub queue_max: usize,
    /// Bulk calls of a topic that may be under way at the same time; events of one key travel in one of them, in order. 1 by default, which makes the largest
    /// batches; more for who publishes as fast as a sidecar can take it, which parses one while the broker writes another.
    pub lanes: usize,
    /// Topics one publisher may use, 1 024 by default.
    pub topics_max: usize,
    /// Tries per event, 3 by default.
    pub tries_max: u32,
    /// Wait before the second try, doubled for each further one and jittered; 50 ms by default.
    pub retry_wait: Duration,
}

impl Default for PublishOptions {
    fn default() -> Self {
        Self {
            pubsub: "pubsub".to_owned(),
            event_bytes_max: 1024 * 1024,
            batch_max: 512,
            batch_bytes_max: 2 * 1024 * 1024,
            queue_max: 4096,
            lanes: 1,
            topics_max: 1024,
            tries_max: 3,
            retry_wait: Duration::from_millis(50),
        }
    }
}

/// Publishes events through the sidecar; cheap to clone.
#[derive(Clone, Debug)]
pub struct Publisher {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    sidecar: Sidecar,
    source: String,
    options: Arc<PublishOptions>,
    obstacles: Obstacles,
    lanes: Mutex<HashMap<Arc<str>, Lanes>>,
}

impl Publisher {
    /// A publisher whose events name `source` as their producer.
    pub fn new(sidecar: Sidecar, source: impl Into<String>, options: PublishOptions) -> Self {
        let inner =
            Inner { sidecar, source: source.into(), options: Arc::new(options), obstacles: Obstacles::default(), lanes: Mutex::default() };
        Self { inner: Arc::new(inner) }
    }

    /// Publishes a payload on its type's topic under a new id, and returns that id.
    ///
    /// # Errors
    /// [`Error::is_transient`] tells whether a repeat may help; the event may have been published even so.
    pub async fn publish<E: Event>(&self, payload: &E) -> Result<String, Error> {
        let mut event = CloudEvent::new(Uuid::now_v7().to_string(), &self.inner.source, E::TYPE, payload);
        event.time = Some(crate::time::now());
        self.publish_event(E::TOPIC, None, &event).await?;
        Ok(event.id)
    }

    /// Publishes a whole event of the caller's making; the same event published twice keeps its id, so that consumers can tell.
    pub async fn publish_event<D: Serialize>(&self, topic: &str, key: Option<&str>, event: &CloudEvent<D>) -> Result<(), Error> {
        let body = event.to_bytes().map_err(|error| Error::Invalid(format!("the event is not JSON: {error}")))?;
        self.send(Message { topic: topic.into(), key: key.map(Arc::from), body }).await
    }

    /// Publishes prepared bytes.
    pub async fn send(&self, message: Message) -> Result<(), Error> {
        self.queue(message).await?.outcome().await
    }

    async fn queue(&self, message: Message) -> Result<Queued<()>, Error> {
        let options = &self.inner.options;
        if message.body.len() > options.event_bytes_max {
            let (size, max) = (message.body.len(), options.event_bytes_max);
            return Err(Error::Invalid(format!("the event has {size} bytes, at most {max} are allowed; pass large data by reference")));
        }
        self.lane(&message)?.queue(message).await
    }

    /// Topics that events do not reach until somebody mends something, and what: each as `topic: what to do`. Empty where all is well, or heals by itself.
    pub fn obstacles(&self) -> Vec<String> {
        self.inner.obstacles.list()
    }

    /// Publishes several prepared events, topics side by side and each in its order, and waits for all; the first error wins.
    pub async fn send_all(&self, messages: Vec<Message>) -> Result<(), Error> {
        // One after the other into their lanes: futures that are joined are not always polled in their order.
        let mut queued = Vec::with_capacity(messages.len());
        for message in messages {
            queued.push(self.queue(message).await);
        }
        let mut sent = Ok(());
        for queued in queued {
            let outcome = match queued {
                Ok(queued) => queued.outcome().await,
                Err(error) => Err(error),
            };
            sent = sent.and(outcome);
        }
        sent
    }

    /// The lane of an event: events of one key are in one, and so in order.
    fn lane(&self, message: &Message) -> Result<Lane<Message, ()>, Error> {
        let (inner, topic) = (&self.inner, &message.topic);
        let mut lanes = inner.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lanes) = lanes.get(topic) {
            return Ok(lanes.of(message));
        }
        if lanes.len() >= inner.options.topics_max {
            return Err(Error::Invalid(format!("more than {} topics in one publisher", inner.options.topics_max)));
        }
        let sender = Sender {
            sidecar: inner.sidecar.clone(),
            options: Arc::clone(&inner.options),
            topic: Arc::clone(topic),
            obstacles: inner.obstacles.clone(),
        };
        metrics::publishes(topic);
        let new = Lanes((0..inner.options.lanes.max(1)).map(|_| sender.clone().lane()).collect());
        let lane = new.of(message);
        lanes.insert(Arc::clone(topic), new);
        Ok(lane)
    }
}

/// The lanes of one topic.
#[derive(Debug)]
struct Lanes(Vec<Lane<Message, ()>>);

impl Lanes {
    fn of(&self, message: &Message) -> Lane<Message, ()> {
        let mut hash = DefaultHasher::new();
        message.key.hash(&mut hash);
        let at = usize::try_from(hash.finish()).unwrap_or(usize::MAX) % self.0.len();
        self.0[at].clone()
    }
}

/// Sends the batches of one topic.
#[derive(Clone)]
struct Sender {
    sidecar: Sidecar,
    options: Arc<PublishOptions>,
    topic: Arc<str>,
    obstacles: Obstacles,
}

impl Sender {
    fn lane(self) -> Lane<Message, ()> {
        let limits = Arc::clone(&self.options);
        let fits = move |batch: &Batch<Message, ()>, next: &Message| {
            let bytes: usize = batch.iter().map(|pending| pending.request.body.len()).sum();
            batch.len() < limits.batch_max && bytes + next.body.len() <= limits.batch_bytes_max
        };
        Lane::start(self.options.queue_max, fits, move |batch| Box::pin(self.clone().deliver(batch)))
    }

    async fn deliver(self, mut batch: Batch<Message, ()>) {
        let mut wait = self.options.retry_wait;
        for try_number in 1.. {
            let started = Instant::now();
            let failures = self.call(&batch).await;
            metrics::publish_latency(&self.topic, started.elapsed());
            let last = try_number >= self.options.tries_max;
            self.obstacles.note(&self.topic, failures.iter().flatten().next());
            let mut again = Vec::new();
            metrics::produced(&self.topic, failures.iter().filter(|failure| failure.is_none()).count());
            for (pending, failure) in batch.into_iter().zip(failures) {
                match failure {
                    None => pending.answer(Ok(())),
                    Some(error) if last || !error.is_transient() => pending.answer(Err(error)),
                    Some(_) => again.push(pending),
                }
            }
            if again.is_empty() {
                return;
            }
            metrics::publish_retries(&self.topic, again.len());
            tokio::time::sleep(wait.mul_f64(0.5 + fastrand::f64())).await;
            wait *= 2;
            batch = again;
        }
    }

    /// One call for the batch: for each event the error, or none when it was published.
    async fn call(&self, batch: &[Pending<Message, ()>]) -> Vec<Option<Error>> {
        match batch {
            [one] => vec![self.publish_one(&one.request).await.err()],
            many => bulk::publish(&self.sidecar, &self.options.pubsub, &self.topic, many.iter().map(|p| &p.request)).await,
        }
    }

    async fn publish_one(&self, message: &Message) -> Result<(), Error> {
        let mut path = format!("/v1.0/publish/{}/{}", encode(&self.options.pubsub), encode(&self.topic));
        if let Some(key) = &message.key {
            path.push_str("?metadata.partitionKey=");
            path.push_str(&encode(key));
        }
        let body = Some((message.body.clone(), CLOUD_EVENTS_JSON));
        self.sidecar.call("a publish", Method::POST, &path, body).await?.success().map(drop)
    }
}

pub(crate) const CLOUD_EVENTS_JSON: &str = "application/cloudevents+json";
