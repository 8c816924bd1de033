//! Giving artifacts away: so many at a time, each as fast as its reader takes it and no faster, and none for ever.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use fte_artifacts::{Artifacts, ReadError, Reading};
use fte_service::chain;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::naming::Named;

/// Downloads at a time.
const DOWNLOADS_MAX: usize = 64;
/// A reader that takes nothing for so long is gone.
const STALLED: Duration = Duration::from_secs(60);
/// Chunks that wait for the reader, besides those that the connection holds.
const CHUNKS_MAX: usize = 2;

/// The artifacts' store, as readers use it; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Downloads {
    artifacts: Artifacts,
    places: Arc<Semaphore>,
}

/// Why nothing is given.
#[derive(Debug)]
pub(crate) enum NotGiven {
    /// Others read, so many at a time.
    Busy(usize),
    /// The store has nothing to give, or cannot.
    Unread(ReadError),
}

/// A transfer is broken off: what was sent so far is not the artifact.
#[derive(Debug, thiserror::Error)]
#[error("the artifact could not be read to its end")]
struct BrokenOff;

impl Downloads {
    pub(crate) fn new(artifacts: Artifacts) -> Self {
        Self { artifacts, places: Arc::new(Semaphore::new(DOWNLOADS_MAX)) }
    }

    /// Whether it is there.
    pub(crate) async fn look(&self, named: &Named) -> Result<(), NotGiven> {
        self.artifacts.look(named.digest, named.size.unsigned_abs()).await.map_err(NotGiven::Unread)
    }

    /// These bytes of it, as a body that ends well only if all of the artifact is as it should be.
    pub(crate) async fn open(&self, named: &Named, wanted: Range<u64>) -> Result<Body, NotGiven> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| NotGiven::Busy(DOWNLOADS_MAX))?;
        let reading = self.artifacts.read(named.digest, named.size.unsigned_abs(), wanted).await.map_err(NotGiven::Unread)?;
        let (give, take) = mpsc::channel(CHUNKS_MAX);
        tokio::spawn(pass_on(reading, give, place));
        let chunks =
            futures_util::stream::unfold(take, async |mut take: mpsc::Receiver<Result<Bytes, BrokenOff>>| Some((take.recv().await?, take)));
        Ok(Body::from_stream(chunks))
    }
}

/// A task of its own, so that a reader that stalls is noticed although nobody asks for the next chunk.
async fn pass_on(mut reading: Reading, give: mpsc::Sender<Result<Bytes, BrokenOff>>, _place: OwnedSemaphorePermit) {
    loop {
        let chunk = match reading.next().await {
            Ok(Some(chunk)) => Ok(chunk),
            Ok(None) => return,
            Err(error) => {
                tracing::error!(error = %chain(&error), "the transfer of an artifact is broken off");
                Err(BrokenOff)
            }
        };
        let is_over = chunk.is_err();
        match tokio::time::timeout(STALLED, give.send(chunk)).await {
            Ok(Ok(())) if !is_over => {}
            // Without a last word the length that was promised is not reached, which breaks the transfer as well.
            _ => return,
        }
    }
}
