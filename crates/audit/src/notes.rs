//! What the log writes by itself: an entry of its own kind that says what was done, and an action that says who did it.
//!
//! The first names nobody and stays readable for as long as the log is kept. The second is an action as any other: it is found by who did it, and sealed with that
//! person's key. Both go into the log in one write.

use std::sync::Arc;

use bytes::Bytes;
use fte_bus::Record;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::engine::{SOURCE, Sealing};
use crate::entry::canonical::canonical;
use crate::entry::leaf::Kind;
use crate::entry::{Key, NewEntry};
use crate::log::{Log, LogError};

/// An entry that the log is to write by itself.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Note {
    pub kind: Kind,
    /// Its identity: the same note is one entry.
    pub id: String,
    pub tenant: Option<String>,
    pub payload: Value,
}

impl Note {
    /// The entry that it is.
    pub(crate) fn entry(self) -> NewEntry {
        let Self { kind, id, tenant, payload } = self;
        let event = json!({
            "specversion": "1.0",
            "id": id,
            "source": SOURCE,
            "type": kind.as_str(),
            "ftetenant": tenant.unwrap_or_else(|| fte_events::TENANT.to_owned()),
            "data": payload,
        });
        let body = Bytes::from(canonical(&event));
        let record = Record { topic: "".into(), body, partition: None, offset: None, key: None };
        let mut entry = NewEntry { kind, ..NewEntry::read(record) };
        // Its identity is among the log's own: an event that somebody gave the same id is something else.
        if let Some(own) = Key::of_header(&entry.header(0)) {
            entry.key = own;
        }
        entry
    }

    /// The entry that it is, and that of who did it: the action of this name, on this resource.
    pub(crate) fn entries(self, action: &str, by: &str, resource: &str, at: Timestamp) -> [NewEntry; 2] {
        let data =
            json!({"action": action, "actor": {"type": "user", "id": by}, "outcome": "success", "resource": resource, "occurred_at": at});
        let by = self::action(&format!("{}/by", self.id), self.tenant.as_deref(), at, &data);
        [self.entry(), by]
    }
}

/// An action that the log is to write by itself, under this id.
pub(crate) fn action(id: &str, tenant: Option<&str>, at: Timestamp, data: &Value) -> NewEntry {
    let event = json!({
        "specversion": "1.0",
        "id": id,
        "source": SOURCE,
        "type": "fte.action.recorded",
        "time": at,
        "ftetenant": tenant.unwrap_or(fte_events::TENANT),
        "data": data,
    });
    let body = event.to_string().into();
    NewEntry::read(Record { topic: fte_events::audit::TOPIC.into(), body, partition: None, offset: None, key: None })
}

/// A query's words as a note may keep them: an actor that was asked for is in them as the keyed values that the log finds by.
///
/// # Errors
/// The keys cannot be read.
pub(crate) fn nameless(mut query: Value, actor: Option<&str>, sealing: &dyn Sealing) -> Result<Value, LogError> {
    if let Some(actor) = actor {
        let mut keyed = sealing.actor_values(actor)?;
        // The name itself is among them, for agents and services.
        keyed.retain(|value| value != actor);
        query["actor"] = keyed.into();
    }
    Ok(query)
}

/// Takes notes: durable and numbered on return, each identity once.
pub(crate) trait Notes: Send + Sync + 'static {
    fn note(&self, note: Note) -> BoxFuture<'_, Result<(), LogError>>;
}

/// Notes in the log: an entry of its own kind, in the form of an event of this service.
pub(crate) struct LogNotes(pub(crate) Arc<dyn Log>);

impl Notes for LogNotes {
    fn note(&self, note: Note) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(async move { self.0.append(vec![note.entry()]).await.map(drop) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::tests::test_key;
    use crate::engine::{Engine, EngineOptions};
    use crate::log::Query;

    #[tokio::test]
    async fn a_note_is_one_entry_of_the_log_whatever_is_repeated_and_whatever_others_call_theirs() {
        let directory = tempfile::tempdir().unwrap();
        let open = || -> Arc<dyn Log> { Arc::new(Engine::open(EngineOptions::at(directory.path(), test_key())).unwrap()) };
        let note = Note { kind: Kind::KeyDestroyed, id: "key-destroyed/1".to_owned(), tenant: None, payload: json!({"keys": 1}) };
        // Anybody may give an event such a name.
        let forged = json!({"id": note.id, "source": SOURCE, "type": "made.up", "data": {}}).to_string();
        let forged = Record { topic: "fte.audit.actions".into(), body: forged.into(), partition: None, offset: None, key: None };
        let log = open();
        log.append(vec![NewEntry::read(forged)]).await.unwrap();
        let notes = LogNotes(log);
        notes.note(note.clone()).await.unwrap();
        notes.note(note.clone()).await.unwrap();
        drop(notes);
        let log = open();
        LogNotes(Arc::clone(&log)).note(note).await.unwrap();
        let entries = log.entries(Query { limit: 100, ..Query::default() }).await.unwrap().entries;
        let count = |kind| entries.iter().filter(|entry| entry.header.kind == kind).count();
        assert_eq!((count(Kind::Event), count(Kind::KeyDestroyed), count(Kind::Conflict)), (1, 1, 0));
    }
}
