//! What the sidecar delivers: every topic but the audit actions. Acknowledged is what is durable.

use std::time::Duration;

use fte_bus::{Delivery, Outcome, RawEvent, Record, SubscribeOptions, Subscriptions};
use fte_events::{AgentName, ErasureRequested, dead_letters, results, subscribed_by, triggers};
use fte_service::{Bus, Secret, Settings, chain};
use jiff::Timestamp;

use crate::dead_letters::arrived;
use crate::metrics;
use crate::reading::{Incoming, read};
use crate::store::{Forgotten, Store, StoreError};
use crate::tenant::tenant_of;

/// The service's name.
pub(crate) const SERVICE: &str = "status";
/// This application's id, which is also its consumer group's.
pub(crate) const APP_ID: &str = "fte-status";

/// How long batches of what nobody waits for gather.
const GATHER_MS: u32 = 200;
/// How long batches of results gather, which programs wait for. Event by event would be sooner, but of a single record Dapr makes the Kafka headers those of
/// the HTTP request, and one that HTTP cannot carry would hold up its partition for ever.
const RESULTS_GATHER_MS: u32 = 5;
/// Longest wait for the store. It is shorter than the handler's own limit, which would count as a fault of the event.
const STORE_WAIT_MAX: Duration = Duration::from_secs(30);

/// Why a delivery was not taken.
#[derive(Debug, Clone, thiserror::Error)]
enum NotNow {
    #[error("the store did not take the events in time")]
    TimedOut,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The subscriptions of the read model.
pub(crate) fn subscriptions(store: &Store, settings: &Settings, bus: &Bus) -> Subscriptions {
    let mut subscriptions = Subscriptions::new(&settings.pubsub, APP_ID)
        .app_token(settings.app_token.as_ref().map(Secret::expose).map(str::to_owned))
        .dead_letters(bus.publisher.clone(), |rejected| dead_letters::letter(SERVICE, rejected));
    let agents: Vec<AgentName> = settings.agents.agents.keys().cloned().collect();
    for topic in &subscribed_by(SERVICE, &agents) {
        let store = store.clone();
        let gather_ms = if topic.name == results::TOPIC { RESULTS_GATHER_MS } else { GATHER_MS };
        let bulk = settings.batches(512, gather_ms);
        subscriptions = if topic.name.starts_with(dead_letters::TOPIC_PREFIX) {
            let options = SubscribeOptions { bulk, ..SubscribeOptions::default() };
            subscriptions.records(&topic.name, options, move |records| take_letters(store.clone(), records))
        } else {
            let options = SubscribeOptions { bulk, raw: true, ..SubscribeOptions::default() };
            subscriptions.batches(&topic.name, options, move |deliveries| take(store.clone(), deliveries))
        };
    }
    subscriptions
}

/// Only the audit service asks for erasures: it has destroyed the keys then, and knows the tasks.
const ERASURES_FROM: &str = "/fte/audit";

/// Those that ask to forget somebody come last, so that what came with them is forgotten too.
async fn take(store: Store, deliveries: Vec<Delivery>) -> Vec<Outcome> {
    let erasures: Vec<Option<RawEvent>> = deliveries.iter().map(|delivery| is_erasure(delivery).then(|| delivery.event.clone())).collect();
    if erasures.iter().all(Option::is_none) {
        return take_events(store, deliveries).await;
    }
    let others = deliveries.into_iter().filter(|delivery| !is_erasure(delivery)).collect();
    let mut taken = take_events(store.clone(), others).await.into_iter();
    let mut outcomes = Vec::with_capacity(erasures.len());
    for erasure in erasures {
        outcomes.push(match erasure {
            Some(event) => erase(&store, &event).await,
            None => taken.next().unwrap_or_else(|| Outcome::retry(NotNow::TimedOut)),
        });
    }
    outcomes
}

/// What such an event says is not kept: it names who is to be forgotten.
fn is_erasure(delivery: &Delivery) -> bool {
    *delivery.record.topic == *triggers::TOPIC && delivery.event.event_type == <ErasureRequested as fte_bus::Event>::TYPE
}

async fn erase(store: &Store, event: &RawEvent) -> Outcome {
    if event.source != ERASURES_FROM {
        tracing::warn!(source = event.source, id = event.id, "an erasure that the audit service did not ask for is ignored");
        return Outcome::Done;
    }
    let erasure: ErasureRequested = match event.decode() {
        Ok(erasure) => erasure,
        Err(error) => return Outcome::reject(error),
    };
    let forgotten = Forgotten { tenant: tenant_of(event), tasks: erasure.tasks };
    in_time(store.forget(forgotten)).await.map_or_else(Outcome::retry, |()| Outcome::Done)
}

async fn take_events(store: Store, deliveries: Vec<Delivery>) -> Vec<Outcome> {
    let now = Timestamp::now();
    let mut events = Vec::with_capacity(deliveries.len());
    let mut refused = Vec::with_capacity(deliveries.len());
    for delivery in deliveries {
        refused.push(match read(delivery, now) {
            Ok(event) => {
                events.push(event);
                None
            }
            Err(error) => Some(error),
        });
    }
    let mut stored = stored(&store, events).await.into_iter();
    let outcome = |refused| match refused {
        Some(error) => Outcome::reject(error),
        None => match stored.next().unwrap_or(Err(NotNow::TimedOut)) {
            Ok(()) => Outcome::Done,
            Err(NotNow::Store(error)) if error.is_refusal() => Outcome::reject(error),
            Err(error) => Outcome::retry(error),
        },
    };
    refused.into_iter().map(outcome).collect()
}

/// Letters are never refused: what cannot be read is kept as a letter of its own.
async fn take_letters(store: Store, records: Vec<Record>) -> Vec<bool> {
    let count = records.len();
    let (letters, events): (Vec<_>, Vec<_>) = records.into_iter().map(arrived).unzip();
    let taken = async {
        for outcome in store.record_each(events.into_iter().flatten().collect()).await {
            match outcome {
                // The letter itself says what there is to say.
                Err(error) if error.is_refusal() => {}
                other => other?,
            }
        }
        store.record_letters(letters).await
    };
    match in_time(taken).await {
        Ok(new) => {
            metrics::letters("received", new);
            vec![true; count]
        }
        Err(error) => {
            tracing::warn!(error = %chain(&error), "dead letters were not stored; they will be delivered again");
            vec![false; count]
        }
    }
}

async fn stored(store: &Store, events: Vec<Incoming>) -> Vec<Result<(), NotNow>> {
    let count = events.len();
    match in_time(async { Ok(store.record_each(events).await) }).await {
        Ok(outcomes) => outcomes.into_iter().map(|outcome| outcome.map_err(NotNow::Store)).collect(),
        Err(error) => vec![Err(error); count],
    }
}

async fn in_time<T>(storing: impl Future<Output = Result<T, StoreError>>) -> Result<T, NotNow> {
    tokio::time::timeout(STORE_WAIT_MAX, storing).await.map_err(|_| NotNow::TimedOut)?.map_err(NotNow::Store)
}
