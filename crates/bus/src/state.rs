//! Documents in the sidecar's state store, with optimistic concurrency that means the same on every store.
//!
//! Every guarded write is `first-write` with the ETag just read, or create-only. Stores differ in how they report a conflict (409, or 500 on
//! some), and a lost answer leaves open whether a write took effect. So after any failed write the document is read back: what is there decides
//! between [`Saved::Written`] and [`Saved::Conflict`]. **This needs documents that no two writers would write alike**: put the writer's
//! name or a counter into them. Concurrent reads, and concurrent writes, travel together in bulk calls. A sidecar's save answers no new ETag: read
//! again before the next write.

mod fitness;
mod wire;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::Method;
use serde_json::Value;

pub use self::fitness::{Problem, Unfit};

use crate::error::Error;
use crate::lane::{Batch, Lane};
use crate::sidecar::{Sidecar, encode};

/// Most documents in one bulk call.
const BATCH_MAX: usize = 256;
/// Most bytes of documents in one save call.
const BATCH_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Calls that may wait before callers are made to wait.
const QUEUE_MAX: usize = 4096;

const NO_ETAG: &str = "a document without an ETag: this state store cannot guard writes";

/// A document's version as the store names it; opaque.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ETag(pub String);

/// A document as it was read.
#[derive(Clone, Debug)]
pub struct Document {
    /// JSON.
    pub value: Bytes,
    /// Its version.
    pub etag: ETag,
}

/// What must hold for a write to take effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guard {
    /// There is no such document.
    Absent,
    /// It is still at this version.
    Unchanged(ETag),
}

/// A guarded write.
#[derive(Clone, Debug)]
pub struct Save {
    /// The document's key; must not contain `||`.
    pub key: String,
    /// JSON.
    pub value: Bytes,
    /// The condition.
    pub guard: Guard,
    /// The store deletes the document after this long. Without it the document stays, also where the one that it replaces was to be deleted. (Redis does
    /// that in a second step; a connection lost just between may leave the old time, until the next save.)
    pub ttl: Option<Duration>,
}

/// How a guarded write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saved {
    /// It took effect.
    Written,
    /// The guard did not hold; nothing was written.
    Conflict,
}

/// One operation of a transaction.
#[derive(Clone, Debug)]
pub enum Operation {
    /// A guarded write.
    Save(Save),
    /// A delete, guarded when an ETag is given.
    Delete {
        /// The document's key.
        key: String,
        /// Its expected version.
        etag: Option<ETag>,
    },
}

/// A state store component; cheap to clone. Must be made inside a tokio runtime.
#[derive(Clone, Debug)]
pub struct StateStore {
    connection: Connection,
    reads: Lane<String, Option<Document>>,
    writes: Lane<Save, Saved>,
}

impl StateStore {
    /// The component named `store` (usually `statestore`).
    pub fn new(sidecar: Sidecar, store: &str) -> Self {
        let connection = Connection { sidecar, store: store.into() };
        let reader = connection.clone();
        let reads = Lane::start(QUEUE_MAX, |batch, _| batch.len() < BATCH_MAX, move |batch| Box::pin(reader.clone().read_batch(batch)));
        let writer = connection.clone();
        let writes = Lane::start(QUEUE_MAX, writes_together, move |batch| Box::pin(writer.clone().write_batch(batch)));
        Self { connection, reads, writes }
    }

    /// Reads a document.
    pub async fn get(&self, key: &str) -> Result<Option<Document>, Error> {
        self.reads.call(key.to_owned()).await
    }

    /// Reads several documents, in the order of the keys.
    pub async fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Document>>, Error> {
        let parts = join_all(keys.chunks(BATCH_MAX).map(|keys| self.connection.bulk_get(keys))).await;
        let mut documents = Vec::with_capacity(keys.len());
        for part in parts {
            documents.extend(part?);
        }
        Ok(documents)
    }

    /// Writes a document if its guard holds.
    ///
    /// # Errors
    /// After an error it is unknown whether the write took effect; read the document again.
    pub async fn save(&self, save: Save) -> Result<Saved, Error> {
        self.writes.call(save).await
    }

    /// Writes several documents, each by its own guard, in as few calls as possible; outcomes in the order given.
    pub async fn save_many(&self, saves: Vec<Save>) -> Vec<Result<Saved, Error>> {
        join_all(saves.into_iter().map(|save| self.save(save))).await
    }

    /// Deletes a document, if it is still at `etag` when one is given. Deleting what is not there succeeds.
    pub async fn delete(&self, key: &str, etag: Option<&ETag>) -> Result<Saved, Error> {
        self.connection.delete(key, etag).await
    }

    /// Applies several operations together.
    ///
    /// # Errors
    /// A save with [`Guard::Absent`] is refused: make documents by [`StateStore::save`]. A conflict and a failure look alike here, and Redis keeps what
    /// it had applied of a failed transaction: read back, and let no invariant rest on more than one key.
    pub async fn transaction(&self, operations: &[Operation]) -> Result<(), Error> {
        self.connection.transaction(operations).await
    }
}

/// One key must not be twice in a call: the order inside a call is not defined.
fn writes_together(batch: &Batch<Save, Saved>, next: &Save) -> bool {
    let bytes: usize = batch.iter().map(|pending| pending.request.value.len()).sum();
    batch.len() < BATCH_MAX && bytes + next.value.len() <= BATCH_BYTES_MAX && batch.iter().all(|pending| pending.request.key != next.key)
}

#[derive(Clone, Debug)]
struct Connection {
    sidecar: Sidecar,
    store: Arc<str>,
}

impl Connection {
    async fn read_batch(self, batch: Batch<String, Option<Document>>) {
        let mut keys: Vec<String> = batch.iter().map(|pending| pending.request.clone()).collect();
        let mut seen = HashSet::new();
        keys.retain(|key| seen.insert(key.clone()));
        match self.bulk_get(&keys).await {
            Ok(documents) => {
                let found: std::collections::HashMap<String, Option<Document>> = keys.into_iter().zip(documents).collect();
                for pending in batch {
                    let document = found.get(&pending.request).cloned().flatten();
                    pending.answer(Ok(document));
                }
            }
            Err(error) => batch.into_iter().for_each(|pending| pending.answer(Err(error.clone()))),
        }
    }

    async fn write_batch(self, batch: Batch<Save, Saved>) {
        match self.save(batch.iter().map(|pending| &pending.request)).await {
            Ok(()) => batch.into_iter().for_each(|pending| pending.answer(Ok(Saved::Written))),
            Err(error) if matches!(error, Error::Invalid(_)) => batch.into_iter().for_each(|pending| pending.answer(Err(error.clone()))),
            Err(error) => {
                let outcomes = self.settle(batch.iter().map(|pending| &pending.request), &error).await;
                for (pending, outcome) in batch.into_iter().zip(outcomes) {
                    pending.answer(outcome);
                }
            }
        }
    }

    /// Finds out what became of each write of a failed call, and repeats alone those that were held back by another's conflict.
    async fn settle<'a>(&self, saves: impl Iterator<Item = &'a Save>, error: &Error) -> Vec<Result<Saved, Error>> {
        let saves: Vec<&Save> = saves.collect();
        let alone = saves.len() == 1;
        let keys: Vec<String> = saves.iter().map(|save| save.key.clone()).collect();
        let found = match self.bulk_get(&keys).await {
            Ok(found) => found,
            Err(unreadable) => return vec![Err(unreadable); saves.len()],
        };
        let settled = saves.into_iter().zip(found).map(|(save, found)| async move {
            match Verdict::of(save, found.as_ref()) {
                Verdict::Written => Ok(Saved::Written),
                Verdict::Conflict => Ok(Saved::Conflict),
                Verdict::Untouched if alone => Err(error.clone()),
                Verdict::Untouched => self.save_alone(save).await,
            }
        });
        join_all(settled).await
    }

    async fn save_alone(&self, save: &Save) -> Result<Saved, Error> {
        let Err(error) = self.save(std::iter::once(save)).await else {
            return Ok(Saved::Written);
        };
        let found = self.bulk_get(std::slice::from_ref(&save.key)).await?.pop().flatten();
        match Verdict::of(save, found.as_ref()) {
            Verdict::Written => Ok(Saved::Written),
            Verdict::Conflict => Ok(Saved::Conflict),
            Verdict::Untouched => Err(error),
        }
    }

    async fn save(&self, saves: impl Iterator<Item = &Save>) -> Result<(), Error> {
        let body = wire::encode_saves(saves)?;
        let path = format!("/v1.0/state/{}", encode(&self.store));
        self.sidecar.call("a state save", Method::POST, &path, Some((body, "application/json"))).await?.success().map(drop)
    }

    async fn bulk_get(&self, keys: &[String]) -> Result<Vec<Option<Document>>, Error> {
        if let [key] = keys {
            return Ok(vec![self.get_one(key).await?]);
        }
        let path = format!("/v1.0/state/{}/bulk", encode(&self.store));
        let body = wire::encode_keys(keys);
        let answer = self.sidecar.call("a state read", Method::POST, &path, Some((body, "application/json"))).await?.success()?;
        wire::decode_documents(keys, &answer)
    }

    async fn get_one(&self, key: &str) -> Result<Option<Document>, Error> {
        let path = format!("/v1.0/state/{}/{}?consistency=strong", encode(&self.store), encode(key));
        let answer = self.sidecar.call("a state read", Method::GET, &path, None).await?.success()?;
        if answer.status == http::StatusCode::NO_CONTENT {
            return Ok(None);
        }
        let etag = answer
            .headers
            .get(http::header::ETAG)
            .and_then(|etag| etag.to_str().ok())
            .ok_or_else(|| Error::Malformed { what: "a state read", reason: NO_ETAG.to_owned() })?;
        Ok(Some(Document { value: answer.body.clone(), etag: ETag(etag.trim_matches('"').to_owned()) }))
    }

    async fn delete(&self, key: &str, etag: Option<&ETag>) -> Result<Saved, Error> {
        let path = format!("/v1.0/state/{}/{}?concurrency=first-write", encode(&self.store), encode(key));
        let if_match = etag.map(|etag| etag.0.as_str());
        let answer = self.sidecar.call_with("a state delete", Method::DELETE, &path, None, if_match).await?;
        if answer.status.is_success() {
            return Ok(Saved::Written);
        }
        match (self.get_one(key).await?, etag) {
            (None, _) => Ok(Saved::Written),
            (Some(found), Some(etag)) if found.etag != *etag => Ok(Saved::Conflict),
            _ => Err(answer.error()),
        }
    }

    async fn transaction(&self, operations: &[Operation]) -> Result<(), Error> {
        let body = wire::encode_transaction(operations)?;
        let path = format!("/v1.0/state/{}/transaction", encode(&self.store));
        self.sidecar.call("a state transaction", Method::POST, &path, Some((body, "application/json"))).await?.success().map(drop)
    }
}

/// What the document read back says of a write that was not confirmed.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Written,
    Conflict,
    Untouched,
}

impl Verdict {
    fn of(save: &Save, found: Option<&Document>) -> Self {
        if found.is_some_and(|found| same_json(&found.value, &save.value)) {
            return Self::Written;
        }
        match (&save.guard, found) {
            (Guard::Absent, None) => Self::Untouched,
            (Guard::Unchanged(etag), Some(found)) if found.etag == *etag => Self::Untouched,
            (Guard::Absent, Some(_)) | (Guard::Unchanged(_), _) => Self::Conflict,
        }
    }
}

/// Some stores keep JSON parsed and give it back in another order or spacing.
fn same_json(one: &[u8], other: &[u8]) -> bool {
    one == other
        || matches!((serde_json::from_slice::<Value>(one), serde_json::from_slice::<Value>(other)), (Ok(one), Ok(other)) if one == other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn save(guard: Guard) -> Save {
        Save { key: "k".to_owned(), value: Bytes::from_static(br#"{"by":"me","n":1}"#), guard, ttl: None }
    }

    fn document(value: &'static str, etag: &str) -> Document {
        Document { value: Bytes::from_static(value.as_bytes()), etag: ETag(etag.to_owned()) }
    }

    #[test]
    fn what_is_read_back_decides_an_unconfirmed_write() {
        let mine = document(r#"{"n":1, "by":"me"}"#, "2");
        let old = document(r#"{"by":"me","n":0}"#, "1");
        let other = document(r#"{"by":"you","n":1}"#, "2");
        let update = save(Guard::Unchanged(ETag("1".to_owned())));
        assert_eq!(Verdict::of(&update, Some(&mine)), Verdict::Written);
        assert_eq!(Verdict::of(&update, Some(&old)), Verdict::Untouched);
        assert_eq!(Verdict::of(&update, Some(&other)), Verdict::Conflict);
        assert_eq!(Verdict::of(&update, None), Verdict::Conflict);
        let create = save(Guard::Absent);
        assert_eq!(Verdict::of(&create, None), Verdict::Untouched);
        assert_eq!(Verdict::of(&create, Some(&mine)), Verdict::Written);
        assert_eq!(Verdict::of(&create, Some(&other)), Verdict::Conflict);
    }
}
