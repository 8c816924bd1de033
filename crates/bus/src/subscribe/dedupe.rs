//! De-duplication by (`source`, `id`), for handlers whose own effect is not idempotent.
//!
//! An event is marked in the state store once it is `Done`; one that is marked is acknowledged unhandled. This narrows doubles to a crash
//! between effect and mark, and to deliveries at the same time; only a handler that is idempotent by itself closes those. A replay for this consumer
//! ignores its mark.

use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use crate::error::Error;
use crate::event::RawEvent;
use crate::state::{Guard, Save, StateStore};

/// Where marks are kept, and for how long.
#[derive(Clone, Debug)]
pub struct Dedupe {
    /// The state store.
    pub store: StateStore,
    /// Marks are kept this long: longer than an event can be redelivered.
    pub ttl: Duration,
}

impl Dedupe {
    /// For each event whether it was done before.
    pub(super) async fn seen<'a>(&self, consumer: &str, events: impl Iterator<Item = &'a RawEvent>) -> Result<Vec<bool>, Error> {
        let events: Vec<&RawEvent> = events.collect();
        let keys: Vec<String> = events.iter().map(|event| key(consumer, event)).collect();
        let marks = self.store.get_many(&keys).await?;
        Ok(events.iter().zip(marks).map(|(event, mark)| mark.is_some() && event.replayed_for() != Some(consumer)).collect())
    }

    /// Marks an event as done. A mark that is there already is as good.
    pub(super) async fn mark(&self, consumer: &str, event: &RawEvent) -> Result<(), Error> {
        let save = Save { key: key(consumer, event), value: Bytes::from_static(b"true"), guard: Guard::Absent, ttl: Some(self.ttl) };
        self.store.save(save).await.map(drop)
    }
}

/// Sources and ids may hold anything, keys may not.
fn key(consumer: &str, event: &RawEvent) -> String {
    let name = format!("{}\0{}", event.source, event.id);
    format!("seen/{consumer}/{}", Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes()))
}
