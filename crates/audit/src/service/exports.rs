//! Exports: evidence that the service makes, records and then hands out.
//!
//! ```text
//! <data>/audit/exports/
//!   <id>.part   an archive that is being made
//!   <id>.json   what is in the archive of this id, and who may have it
//!   <id>.tar    an archive that may be handed out
//! ```
//!
//! Always true:
//! * An archive is handed out only once the log has the entry that tells of it: the entry is durable before the archive gets its name. A crash in between
//!   leaves an entry of an export that nobody got, and never the reverse.
//! * One is made at a time. It is made to its end whether its caller waits or not.
//! * What is opened for an export lies here in the clear. So an erasure removes all of them before it is answered, with the one that is being made; where the
//!   disk does not let it, none is handed out until it does. And so does a start, since it cannot know whether an erasure was cut short.
//! * The disk that they take is bounded: so many, of so many bytes, for so long.
//!
//! What the entry says names nobody: an actor that was asked for is in it as the keyed values that the log finds by. Who made the export is in an action
//! that goes with it, in the same write, and is sealed with that person's key as all that people do.

mod keeping;
mod making;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fte_service::{ServiceError, chain};
use fte_tlog::{SignerKey, VerifierKey};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

use self::keeping::Keeping;
pub(crate) use self::keeping::Kept;
use crate::engine::Sealing;
use crate::export::{ENTRIES_MAX, ExportError};
use crate::log::{Log, LogError, Query};

/// How long an archive is kept.
const KEPT_FOR: Duration = Duration::from_secs(24 * 3600);
/// How often it is looked for archives that have had their time.
const LOOK_EVERY: Duration = Duration::from_secs(600);
/// How long a caller waits before it is told to come again.
const PATIENCE: Duration = Duration::from_secs(20);

/// Who exports what.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) id: Uuid,
    pub(crate) by: String,
    pub(crate) query: Query,
    /// The query in the caller's words.
    pub(crate) words: Value,
}

/// What was exported of one year.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct ExportedShard {
    /// The year.
    pub shard: u16,
    /// How many entries.
    pub entries: usize,
    /// The log's size at the checkpoint that proves them.
    pub size: u64,
    /// The SHA-256 of the manifest, in hex.
    pub manifest_sha256: String,
}

/// Why there is no export.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("another export is being made")]
    Busy,
    #[error("no entry matches")]
    Nothing,
    #[error("more than {ENTRIES_MAX} entries match, which is the most for one export: ask for a shorter time")]
    TooMany,
    #[error("the last entries are in no checkpoint yet")]
    NotYet,
    #[error("somebody was erased while it was made, and nothing of it is kept")]
    Outdated,
    #[error("the log cannot be read or written now")]
    Log(#[from] LogError),
    #[error("the archive cannot be made")]
    Export(#[source] ExportError),
    #[error("the directory of exports {} cannot be used", path.display())]
    Disk { path: PathBuf, source: std::io::Error },
    #[error("the thread that makes exports has ended")]
    Ended,
}

impl From<ExportError> for Failure {
    fn from(error: ExportError) -> Self {
        match error {
            ExportError::NotYet { .. } => Self::NotYet,
            ExportError::Outdated => Self::Outdated,
            error => Self::Export(error),
        }
    }
}

/// What came of a request.
#[derive(Debug)]
pub(crate) enum Made {
    /// It is there.
    Ready(Kept),
    /// It is being made: come again.
    UnderWay,
}

/// The keys of the log, as exports need them.
pub(crate) struct Signers {
    /// Signs manifests.
    pub(crate) key: Arc<SignerKey>,
    /// Those that may have signed a checkpoint: years that have ended may be a former key's.
    pub(crate) known: Vec<VerifierKey>,
}

impl Signers {
    pub(crate) fn new(key: Arc<SignerKey>, former: &[VerifierKey]) -> Self {
        let known = std::iter::once(key.verifier()).chain(former.iter().cloned()).collect();
        Self { key, known }
    }
}

/// All exports; cheap to clone.
#[derive(Clone)]
pub(crate) struct Exports {
    inner: Arc<Inner>,
}

struct Inner {
    log: Arc<dyn Log>,
    sealing: Arc<dyn Sealing>,
    signers: Signers,
    keeping: Keeping,
    one: Arc<Semaphore>,
    under_way: Mutex<Option<Uuid>>,
}

impl Exports {
    /// Over a log, in a directory that it empties.
    pub(crate) fn open(
        directory: impl Into<PathBuf>,
        log: Arc<dyn Log>,
        sealing: Arc<dyn Sealing>,
        signers: Signers,
    ) -> Result<Self, Failure> {
        let keeping = Keeping::open(directory.into())?;
        let (one, under_way) = (Arc::new(Semaphore::new(1)), Mutex::default());
        Ok(Self { inner: Arc::new(Inner { log, sealing, signers, keeping, one, under_way }) })
    }

    /// Makes an export, unless it is there already.
    pub(crate) async fn make(&self, request: Request) -> Result<Made, Failure> {
        if let Some(kept) = self.kept(request.id).await? {
            return Ok(Made::Ready(kept));
        }
        if self.is_under_way(request.id) {
            return Ok(Made::UnderWay);
        }
        let turn = Arc::clone(&self.inner.one).try_acquire_owned().map_err(|_| Failure::Busy)?;
        // Whoever sent the same request may have ended meanwhile: what is there is not made anew.
        if let Some(kept) = self.kept(request.id).await? {
            return Ok(Made::Ready(kept));
        }
        let (inner, id) = (Arc::clone(&self.inner), request.id);
        let under_way = UnderWay::begin(Arc::clone(&inner), id, turn);
        // A task of its own: who asked may have gone, and asks again.
        let making = tokio::spawn(async move {
            let made = making::make(&inner, request).await;
            if let Err(error) = &made {
                tracing::warn!(export = %id, error = %chain(error), "an export was not made");
            }
            drop(under_way);
            made
        });
        match tokio::time::timeout(PATIENCE, making).await {
            Ok(Ok(made)) => Ok(Made::Ready(made?)),
            Ok(Err(_)) => Err(Failure::Ended),
            Err(_) => Ok(Made::UnderWay),
        }
    }

    /// What is kept under an id.
    pub(crate) async fn kept(&self, id: Uuid) -> Result<Option<Kept>, Failure> {
        self.on_disk(move |keeping| keeping.find(id, Timestamp::now())).await?
    }

    /// The archive of an id. It stays readable to who has it open.
    pub(crate) async fn archive(&self, id: Uuid) -> Result<Option<std::fs::File>, Failure> {
        self.on_disk(move |keeping| keeping.archive(id)).await?
    }

    pub(crate) fn is_under_way(&self, id: Uuid) -> bool {
        *self.inner.under_way.lock().unwrap_or_else(PoisonError::into_inner) == Some(id)
    }

    /// Removes all, with the one that is being made: on return nothing of them is found here any more.
    pub(crate) async fn forget(&self) -> Result<(), Failure> {
        self.on_disk(Keeping::forget).await?
    }

    /// Removes what has had its time, for as long as the service lives.
    pub(crate) async fn keep(self) -> Result<(), ServiceError> {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if let Err(error) = self.on_disk(|keeping| keeping.expire(Timestamp::now())).await.and_then(|done| done) {
                tracing::warn!(error = %chain(&error), "exports that have had their time are still there; it is tried again");
            }
        }
    }

    async fn on_disk<T: Send + 'static>(&self, work: impl FnOnce(&Keeping) -> T + Send + 'static) -> Result<T, Failure> {
        let inner = Arc::clone(&self.inner);
        tokio::task::spawn_blocking(move || work(&inner.keeping)).await.map_err(|_| Failure::Ended)
    }
}

/// An export that is being made, until this is dropped: also by a panic, or the next one would wait for ever.
struct UnderWay {
    inner: Arc<Inner>,
    _turn: OwnedSemaphorePermit,
}

impl UnderWay {
    fn begin(inner: Arc<Inner>, id: Uuid, turn: OwnedSemaphorePermit) -> Self {
        inner.set_under_way(Some(id));
        Self { inner, _turn: turn }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.inner.set_under_way(None);
    }
}

impl Inner {
    fn set_under_way(&self, id: Option<Uuid>) {
        *self.under_way.lock().unwrap_or_else(PoisonError::into_inner) = id;
    }
}

#[cfg(test)]
mod tests;
