//! A lane coalesces concurrent requests into batches: while one batch is in flight, what arrives waits and forms the next.
//!
//! No timer: an idle lane sends as soon as nobody else is ready to run, a busy one grows its batches by itself. The queue is bounded; a full one makes the caller wait.
//! Each caller gets its own outcome. A caller that goes away does not take back its request.

use std::future::Future;
use std::pin::Pin;

use tokio::sync::{mpsc, oneshot};

use crate::error::Error;

/// A request and where its outcome goes.
pub(crate) struct Pending<Q, R> {
    pub(crate) request: Q,
    reply: oneshot::Sender<Result<R, Error>>,
}

impl<Q, R> Pending<Q, R> {
    /// Gives the caller its outcome; one that went away does not need it.
    pub(crate) fn answer(self, outcome: Result<R, Error>) {
        drop(self.reply.send(outcome));
    }
}

pub(crate) type Batch<Q, R> = Vec<Pending<Q, R>>;
pub(crate) type BatchFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The sending side of a lane; the lane ends when the last one is dropped.
#[derive(Debug)]
pub(crate) struct Lane<Q, R> {
    queue: mpsc::Sender<Pending<Q, R>>,
}

/// A request that is in its lane.
pub(crate) struct Queued<R>(oneshot::Receiver<Result<R, Error>>);

impl<R> Queued<R> {
    pub(crate) async fn outcome(self) -> Result<R, Error> {
        self.0.await.map_err(|_| Error::Closed)?
    }
}

impl<Q, R> Clone for Lane<Q, R> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone() }
    }
}

impl<Q: Send + 'static, R: Send + 'static> Lane<Q, R> {
    /// Starts a lane whose batches are worked by `work`, one at a time. Needs a tokio runtime.
    ///
    /// `fits(batch, next)` says whether `next` may join the batch; it limits size and keeps apart what must not travel together.
    pub(crate) fn start(
        queue_max: usize,
        fits: impl Fn(&Batch<Q, R>, &Q) -> bool + Send + 'static,
        work: impl Fn(Batch<Q, R>) -> BatchFuture + Send + 'static,
    ) -> Self {
        let (queue, mut arrivals) = mpsc::channel::<Pending<Q, R>>(queue_max);
        tokio::spawn(async move {
            let mut held = None;
            loop {
                let first = match held.take() {
                    Some(pending) => pending,
                    None => match arrivals.recv().await {
                        Some(pending) => pending,
                        None => return,
                    },
                };
                // Whoever can run now does so first: what they ask for travels along, and costs no call, and no commit, of its own.
                tokio::task::yield_now().await;
                let mut batch = vec![first];
                while let Ok(next) = arrivals.try_recv() {
                    if fits(&batch, &next.request) {
                        batch.push(next);
                    } else {
                        held = Some(next);
                        break;
                    }
                }
                work(batch).await;
            }
        });
        Self { queue }
    }

    /// Queues a request and waits for its outcome.
    pub(crate) async fn call(&self, request: Q) -> Result<R, Error> {
        self.queue(request).await?.outcome().await
    }

    /// Queues a request; waits only while the queue is full.
    pub(crate) async fn queue(&self, request: Q) -> Result<Queued<R>, Error> {
        let (reply, outcome) = oneshot::channel();
        self.queue.send(Pending { request, reply }).await.map_err(|_| Error::Closed)?;
        Ok(Queued(outcome))
    }
}
