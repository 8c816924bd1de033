//! Subscribing: handlers in, an axum router out, which the sidecar calls.
//!
//! Always true: no event or job route answers 404, and no answer but `Done` or a published dead letter acknowledges an event. One topic,
//! one route, no CEL rules. A handler sees an event at least once, possibly twice at the same time.

mod answer;
mod dead_letter;
mod dedupe;
mod delivery;
mod faults;
mod routes;
mod work;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;

pub use self::dead_letter::{DeadLetters, Rejected};
pub use self::dedupe::Dedupe;
pub use self::delivery::{Delivery, Record};
pub use self::work::Outcome;
use crate::event::{CloudEvent, Event};
use crate::publish::Publisher;

/// What a handler gives back to the subscription.
pub type Handling<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// How a topic is subscribed to.
#[derive(Clone, Debug)]
pub struct SubscribeOptions {
    /// Ask the sidecar for batches of this many events at most.
    pub bulk: Option<Bulk>,
    /// Have the sidecar hand over the bytes of each record without looking into them (Dapr's `rawPayload`). Otherwise it keeps what is not JSON to itself,
    /// and Dapr before 1.18.3 ends on an event whose `traceid` is no text, again and again. With it everything reaches the application, which dead-letters
    /// with a reason. [`Subscriptions::records`] always does.
    pub raw: bool,
    /// Dapr's own dead-letter topic, for what never reaches the application.
    pub dead_letter_topic: Option<String>,
    /// A handler that runs longer is stopped and counted as failed; 60 s by default.
    pub handler_timeout: Duration,
    /// Acknowledge unhandled what was done before; off by default. Does not apply to [`Subscriptions::records`].
    pub dedupe: Option<Dedupe>,
}

/// Batches from the sidecar.
#[derive(Clone, Copy, Debug)]
pub struct Bulk {
    /// Most events in a batch.
    pub max_count: u32,
    /// Longest wait of an event for others to join it, in milliseconds.
    pub max_await_ms: u32,
}

impl Default for Bulk {
    fn default() -> Self {
        Self { max_count: 256, max_await_ms: 20 }
    }
}

impl Default for SubscribeOptions {
    fn default() -> Self {
        Self { bulk: None, raw: false, dead_letter_topic: None, handler_timeout: Duration::from_secs(60), dedupe: None }
    }
}

impl SubscribeOptions {
    /// The default, in batches.
    pub fn bulk() -> Self {
        Self { bulk: Some(Bulk::default()), ..Self::default() }
    }
}

/// The subscriptions and job handlers of one application.
pub struct Subscriptions {
    pubsub: String,
    consumer: Arc<str>,
    app_token: Option<String>,
    dead_letters: Option<DeadLetters>,
    last_words: Option<LastWords>,
    topics: Vec<Subscription>,
    job: Option<JobHandler>,
    methods: Router,
}

struct Subscription {
    topic: Arc<str>,
    options: SubscribeOptions,
    work: Work,
}

impl Subscription {
    /// Whether the sidecar hands over the records as they are.
    fn is_raw(&self) -> bool {
        self.options.raw || matches!(self.work, Work::Records(_))
    }
}

#[derive(Clone)]
enum Work {
    /// Parsed events of a batch, one outcome each, in the same order.
    Events(Arc<dyn Fn(Vec<Delivery>) -> Handling<Vec<Outcome>> + Send + Sync>),
    /// Records as they are on the topic, parsable or not; `true` acknowledges.
    Records(Arc<dyn Fn(Vec<Record>) -> Handling<Vec<bool>> + Send + Sync>),
}

/// What is done about poison before it is put aside.
type LastWords = Arc<dyn Fn(Delivery, String) -> Handling<Outcome> + Send + Sync>;

type JobHandler = Arc<dyn Fn(String) -> Handling<Outcome> + Send + Sync>;

impl Subscriptions {
    /// Subscriptions of the application `consumer` (its app id) on the component `pubsub`.
    pub fn new(pubsub: &str, consumer: &str) -> Self {
        Self {
            pubsub: pubsub.to_owned(),
            consumer: consumer.into(),
            app_token: None,
            dead_letters: None,
            last_words: None,
            topics: Vec::new(),
            job: None,
            methods: Router::new(),
        }
    }

    /// Refuses calls that do not carry this token (Dapr's `APP_API_TOKEN`).
    pub fn app_token(mut self, token: Option<String>) -> Self {
        self.app_token = token;
        self
    }

    /// Where rejected events go. Without it a `Reject` is a `Retry`: nothing is dropped in silence.
    pub fn dead_letters(mut self, publisher: Publisher, letter: impl Fn(&Rejected<'_>) -> crate::Message + Send + Sync + 'static) -> Self {
        self.dead_letters = Some(DeadLetters::new(publisher, letter));
        self
    }

    /// Called for an event whose handler panicked or hung five times, with what happened, before its dead letter is published: who waits for that
    /// event can be told here that nothing will come of it. After a `Retry` the event comes again, and this is called again. If it fails itself, five
    /// times, the event is put aside without it.
    pub fn before_poison<H, F>(mut self, handler: H) -> Self
    where
        H: Fn(Delivery, String) -> F + Send + Sync + 'static,
        F: Future<Output = Outcome> + Send + 'static,
    {
        self.last_words = Some(Arc::new(move |delivery, reason| Box::pin(handler(delivery, reason))));
        self
    }

    /// Handles the events of type `E` on its topic one by one, in order within a partition; other types are acknowledged.
    pub fn on<E, H, F>(self, handler: H) -> Self
    where
        E: Event,
        H: Fn(CloudEvent<E>) -> F + Send + Sync + 'static,
        F: Future<Output = Outcome> + Send + 'static,
    {
        let handler = Arc::new(handler);
        self.each(E::TOPIC, SubscribeOptions::default(), move |delivery: Delivery| {
            let handler = Arc::clone(&handler);
            async move {
                if delivery.event.event_type != E::TYPE {
                    return Outcome::Done;
                }
                match delivery.event.decode::<E>() {
                    Ok(payload) => handler(delivery.event.with_data(Some(payload))).await,
                    Err(error) => Outcome::reject(error),
                }
            }
        })
    }

    /// Handles the events of a topic one by one, whatever their type.
    pub fn each<H, F>(self, topic: &str, options: SubscribeOptions, handler: H) -> Self
    where
        H: Fn(Delivery) -> F + Send + Sync + 'static,
        F: Future<Output = Outcome> + Send + 'static,
    {
        let handler = Arc::new(handler);
        self.batches(topic, options, move |deliveries: Vec<Delivery>| {
            let handler = Arc::clone(&handler);
            async move {
                let mut outcomes = Vec::with_capacity(deliveries.len());
                for delivery in deliveries {
                    outcomes.push(handler(delivery).await);
                }
                outcomes
            }
        })
    }

    /// Handles the events of a topic in batches: one outcome per delivery, in order. A missing one counts as `Retry`.
    pub fn batches<H, F>(mut self, topic: &str, options: SubscribeOptions, handler: H) -> Self
    where
        H: Fn(Vec<Delivery>) -> F + Send + Sync + 'static,
        F: Future<Output = Vec<Outcome>> + Send + 'static,
    {
        let work = Work::Events(Arc::new(move |deliveries| Box::pin(handler(deliveries))));
        self.topics.push(Subscription { topic: topic.into(), options, work });
        self
    }

    /// Handles the records of a topic as the exact bytes that are on it (Dapr's `rawPayload`), parsable or not. Nothing is rejected or
    /// dead-lettered: `true` acknowledges, `false` asks for the record again.
    pub fn records<H, F>(mut self, topic: &str, options: SubscribeOptions, handler: H) -> Self
    where
        H: Fn(Vec<Record>) -> F + Send + Sync + 'static,
        F: Future<Output = Vec<bool>> + Send + 'static,
    {
        let work = Work::Records(Arc::new(move |records| Box::pin(handler(records))));
        self.topics.push(Subscription { topic: topic.into(), options, work });
        self
    }

    /// Handles jobs by name. `Reject` ends a job like `Done`, with a log line.
    pub fn on_job<H, F>(mut self, handler: H) -> Self
    where
        H: Fn(String) -> F + Send + Sync + 'static,
        F: Future<Output = Outcome> + Send + 'static,
    {
        self.job = Some(Arc::new(move |name| Box::pin(handler(name))));
        self
    }

    /// What other applications may ask this one for: routes beside those of events and jobs, behind the same token. See [`crate::Invoker`].
    pub fn methods(mut self, routes: Router) -> Self {
        self.methods = self.methods.merge(routes);
        self
    }

    /// The routes the sidecar calls: `GET /dapr/subscribe`, `POST /events/…`, `POST /job/…`.
    pub fn router(self) -> Router {
        routes::router(self)
    }
}
