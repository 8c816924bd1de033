//! The protocol's ports on the real world: the sidecar's state, topics and jobs, and tokio's clock.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use fte_bus::{Document, Error, Job, Jobs, Message, Publisher, Save, Saved, StateStore};
use jiff::Timestamp;

use crate::agents::{SecretError, Secrets};
use crate::ports::{Outlet, Pending, PortError, Store, Timers, World};

/// A timer fires again this often until it is deleted.
const TIMER_EVERY: Duration = Duration::from_secs(30);

fn failed(what: &'static str) -> impl Fn(Error) -> PortError {
    move |error| PortError { what, reason: fte_service::chain(&error), refused: error.is_too_large() }
}

/// The state store behind the sidecar.
pub(crate) struct SidecarStore(pub(crate) StateStore);

impl Store for SidecarStore {
    fn get(&self, key: String) -> Pending<Result<Option<Document>, PortError>> {
        let store = self.0.clone();
        Box::pin(async move { store.get(&key).await.map_err(failed("reading state")) })
    }

    fn get_many(&self, keys: Vec<String>) -> Pending<Result<Vec<Option<Document>>, PortError>> {
        let store = self.0.clone();
        Box::pin(async move { store.get_many(&keys).await.map_err(failed("reading state")) })
    }

    fn save(&self, save: Save) -> Pending<Result<Saved, PortError>> {
        let store = self.0.clone();
        Box::pin(async move { store.save(save).await.map_err(failed("writing state")) })
    }
}

/// The topics behind the sidecar.
pub(crate) struct SidecarOutlet(pub(crate) Publisher);

impl Outlet for SidecarOutlet {
    fn send(&self, mut messages: Vec<Message>) -> Pending<Result<(), PortError>> {
        let publisher = self.0.clone();
        // Somebody may wait for the result: it is not to wait for what else there is to say. Each topic keeps its order, and between topics there is none.
        messages.sort_by_key(|message| &*message.topic != fte_events::results::TOPIC);
        Box::pin(async move { publisher.send_all(messages).await.map_err(failed("publishing")) })
    }
}

/// The jobs behind the sidecar.
pub(crate) struct SidecarTimers(pub(crate) Jobs);

impl Timers for SidecarTimers {
    fn schedule(&self, name: String, due: Timestamp) -> Pending<Result<(), PortError>> {
        let jobs = self.0.clone();
        Box::pin(async move {
            // For as long as it takes: whoever is to hear it may be away for weeks, and deletes it when nothing hangs on it any more.
            let job = Job { due, every: Some(TIMER_EVERY), ttl: None };
            jobs.schedule(&name, &job).await.map_err(failed("making a timer"))
        })
    }

    fn delete(&self, name: String) -> Pending<Result<(), PortError>> {
        let jobs = self.0.clone();
        Box::pin(async move { jobs.delete(&name).await.map_err(failed("deleting a timer")) })
    }
}

/// Tokio's time and tasks.
pub(crate) struct Tokio;

impl World for Tokio {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn monotonic(&self) -> Duration {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed()
    }

    fn sleep(&self, time: Duration) -> Pending<()> {
        Box::pin(tokio::time::sleep(time))
    }

    fn random(&self) -> u64 {
        fastrand::u64(..)
    }

    fn spawn(&self, future: Pending<()>) {
        drop(tokio::spawn(future));
    }
}

/// The secret store behind the sidecar.
pub(crate) struct SidecarSecrets(pub(crate) fte_bus::Secrets);

impl Secrets for SidecarSecrets {
    fn get(&self, name: String) -> Pending<Result<BTreeMap<String, String>, SecretError>> {
        let store = self.0.clone();
        Box::pin(async move {
            store.get(&name).await.map_err(|error| {
                // Denied or not configured stays so; most stores do not tell a secret that is not there from one that is out of reach just now.
                let retryable = !matches!(error, Error::Answered { status: 400..=499, .. });
                SecretError { reason: fte_service::chain(&error), retryable }
            })
        })
    }
}
