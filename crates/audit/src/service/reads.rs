//! Who read what of the log, on record where that is asked for.
//!
//! An answer of the routes that open what is sealed (queries, entries, histories) is given once the log has an entry that tells of it: who asked for what, and how
//! many entries there were. What everybody may copy, the tree and its proofs, holds personal data as ciphertext alone, and reading that is not recorded.
//!
//! It is off unless `FTE_AUDIT_RECORD_READS` says otherwise: whoever polls for news makes an entry each time, and waits for a sync. The other way, to gather reads
//! and record them later, would have answers that nobody knows of after a crash.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use fte_service::Problem;
use fte_service::keys::Caller;
use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::engine::Sealing;
use crate::entry::leaf::Kind;
use crate::log::{Log, LogError};
use crate::notes::{Note, nameless};

/// Records reads, or does not; cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Reads(Option<Recorder>);

#[derive(Clone)]
struct Recorder {
    log: Arc<dyn Log>,
    sealing: Arc<dyn Sealing>,
}

impl Reads {
    pub(crate) fn on_record(log: Arc<dyn Log>, sealing: Arc<dyn Sealing>) -> Self {
        Self(Some(Recorder { log, sealing }))
    }

    /// Records that this caller reads so many entries, found by these words and by this actor. It is on record on return.
    ///
    /// # Errors
    /// The log takes no entry now: then the answer is not to be given.
    pub(crate) async fn record(&self, caller: &Caller, words: Value, actor: Option<String>, entries: usize) -> Result<(), Problem> {
        let Some(recorder) = &self.0 else { return Ok(()) };
        recorder.record(caller, words, actor, entries).await.map_err(|error| {
            let text = "What is read here is put on record, and the audit log takes no entry now; try again.";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "audit_unavailable", text).retry_after(Duration::from_secs(1)).caused_by(&error)
        })
    }
}

impl Recorder {
    async fn record(&self, caller: &Caller, words: Value, actor: Option<String>, entries: usize) -> Result<(), LogError> {
        let sealing = Arc::clone(&self.sealing);
        // It looks for the person's keys on the disk.
        let query = match actor {
            None => words,
            Some(actor) => {
                let looking = tokio::task::spawn_blocking(move || nameless(words, Some(&actor), &*sealing));
                looking.await.map_err(|_| LogError::Closed)??
            }
        };
        let (id, at) = (Uuid::now_v7(), Timestamp::now());
        let (tenant, by) = (caller.only_tenant().map(str::to_owned), caller.name().unwrap_or("unknown"));
        let payload = json!({"query": query, "entries": entries, "read_at": at});
        let note = Note { kind: Kind::Read, id: format!("read/{id}"), tenant, payload };
        self.log.append(note.entries("audit.read", by, &format!("read/{id}"), at).into()).await.map(drop)
    }
}
