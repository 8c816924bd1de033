//! Actions that no other topic already tells, published on `fte.audit.actions` with a gapless `sequence` in an epoch of this process.
//!
//! Always true: once an action has its number, it is published under that number or the process dies trying, whoever stops waiting for it; so a
//! hole in an epoch shows a lost event and nothing else. What does not get a number (too many waiting) is counted, never silent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fte_bus::{Message, Publisher};
use fte_events::{ActionOutcome, ActionRecorded, Actor, ActorType, Outgoing, TENANT};
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

use crate::chain;
use crate::configured::Configured;
use crate::metrics::{ACTIONS, ACTIONS_DROPPED};

/// Most actions that wait to be published.
const WAITING_MAX: u32 = 1024;
/// Longest pause between two tries to publish an action.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(5);
/// Longest wait of a caller for its action to be durable.
const RECORD_TIMEOUT: Duration = Duration::from_secs(10);

/// Publishes one service's actions; cheap to clone, one per service and process.
#[derive(Clone, Debug)]
pub struct AuditTrail {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    publisher: Publisher,
    service: &'static str,
    epoch: String,
    sequence: AtomicU64,
    places: Arc<Semaphore>,
}

/// The action is not known to be recorded.
#[derive(Debug, thiserror::Error)]
#[error("the action was not recorded within {} s; it will be as soon as the sidecar can be reached", RECORD_TIMEOUT.as_secs())]
pub struct NotRecorded;

impl AuditTrail {
    /// The actions of `service` in a new epoch.
    pub fn new(publisher: Publisher, service: &'static str) -> Self {
        let places = Arc::new(Semaphore::new(WAITING_MAX as usize));
        // An alert has something to look at before anything was dropped.
        for counter in [ACTIONS, ACTIONS_DROPPED] {
            metrics::counter!(counter, "service" => service).increment(0);
        }
        let epoch = Uuid::now_v7().to_string();
        Self { inner: Arc::new(Inner { publisher, service, epoch, sequence: AtomicU64::new(0), places }) }
    }

    /// Publishes an action of a tenant and waits until it is durable.
    ///
    /// # Errors
    /// [`NotRecorded`] when that takes too long; the action may still be published later.
    pub async fn record(&self, tenant: &str, action: ActionRecorded, cause: Option<&str>) -> Result<(), NotRecorded> {
        let recorded = async {
            let place = Arc::clone(&self.inner.places).acquire_owned().await.map_err(|_| NotRecorded)?;
            self.publish(tenant, action, cause, place).await.map_err(|_| NotRecorded)
        };
        tokio::time::timeout(RECORD_TIMEOUT, recorded).await.unwrap_or(Err(NotRecorded))
    }

    /// Publishes an action in the background, one of no tenant in particular; drops and counts it when too many are waiting.
    pub fn note(&self, action: ActionRecorded) {
        self.note_of(TENANT, action);
    }

    /// The same, of a tenant.
    pub fn note_of(&self, tenant: &str, action: ActionRecorded) {
        match Arc::clone(&self.inner.places).try_acquire_owned() {
            Ok(place) => drop(self.publish(tenant, action, None, place)),
            Err(_) => metrics::counter!(ACTIONS_DROPPED, "service" => self.inner.service).increment(1),
        }
    }

    /// The service has started: which version of it, and how it is configured.
    pub(crate) fn started(&self, configured: &Configured) {
        let actor = Actor::new(ActorType::Service, self.inner.service);
        let mut action = ActionRecorded::new("service.started", actor, ActionOutcome::Success, Timestamp::now());
        action.resource = Some(format!("service/{}", self.inner.service));
        action.data.insert("version".to_owned(), Value::from(env!("CARGO_PKG_VERSION")));
        action.data.insert("configuration".to_owned(), configured.to_json());
        self.note(action);
    }

    /// An API key is in use: by its name, as one of its tenant's, and never more often than [`crate::keys`] says.
    pub(crate) fn key_used(&self, name: &str, tenant: &str) {
        let mut action = ActionRecorded::new("key.used", Actor::new(ActorType::User, name), ActionOutcome::Success, Timestamp::now());
        action.resource = Some(format!("api-key/{name}"));
        self.note_of(tenant, action);
    }

    /// Whose actions they are.
    pub(crate) fn service(&self) -> &'static str {
        self.inner.service
    }

    /// Waits for what is waiting to be published, for a bounded time.
    pub async fn flush(&self, wait_max: Duration) {
        if tokio::time::timeout(wait_max, self.inner.places.acquire_many(WAITING_MAX)).await.is_err() {
            tracing::warn!(service = self.inner.service, "some actions could not be recorded before the end");
        }
    }

    /// Numbers the action and publishes it in a task of its own, which nobody's leaving can stop.
    fn publish(
        &self,
        tenant: &str,
        action: ActionRecorded,
        cause: Option<&str>,
        place: OwnedSemaphorePermit,
    ) -> tokio::task::JoinHandle<()> {
        let inner = Arc::clone(&self.inner);
        let number = inner.sequence.fetch_add(1, Ordering::Relaxed) + 1;
        let mut outgoing = Outgoing::new(inner.service, Uuid::now_v7(), action.occurred_at, &action).tenant(tenant);
        if let Some(cause) = cause {
            outgoing = outgoing.cause(cause);
        }
        let mut event = outgoing.to_event();
        event.extensions.insert("fteepoch".to_owned(), Value::from(inner.epoch.as_str()));
        // Padded, because the CloudEvents extension orders sequences as text.
        event.extensions.insert("sequence".to_owned(), Value::from(format!("{number:020}")));
        let message = Message {
            topic: outgoing.topic().into(),
            key: outgoing.partition_key().map(Into::into),
            body: event.to_bytes().unwrap_or_default(),
        };
        tokio::spawn(async move {
            let mut wait = Duration::from_millis(100);
            while let Err(error) = inner.publisher.send(message.clone()).await {
                tracing::warn!(error = %chain(&error), service = inner.service, "an action is not recorded yet");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(RETRY_WAIT_MAX);
            }
            metrics::counter!(ACTIONS, "service" => inner.service).increment(1);
            drop(place);
        })
    }
}

#[cfg(test)]
mod tests;
