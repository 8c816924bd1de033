//! Streams of server-sent events: one task's to its end, and all tasks' without end.
//!
//! A stream holds its place in the store and at most two pieces of text: one that waits for the client's reading, and one before it that is nearly
//! sent (a connection asks for the next piece while it holds less than 64 KiB). So that is what a slow client costs. Always true: the events after that place are sent in order of arrival, each once.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use fte_events::TaskId;
use futures_util::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use tokio::sync::watch;

use crate::feed::Listener;
use crate::metrics::OpenStream;
use crate::sse::{Filter, KEEP_ALIVE, OPENING, write_frame};
use crate::store::{Store, StoreError};
use crate::tenant::Tenant;
use crate::wake::Waiter;

/// A comment is sent into a silence of this length, so that both ends notice when the other is gone.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// Most events in a piece of a task's stream, and about the most bytes of a piece of any: the last event may be beyond. Larger pieces would be sent no
/// faster: one already is a system call of its own.
const EVENTS_MAX: usize = 256;
const PIECE_BYTES: usize = 64 * 1024;

/// Whether the service is to end; streams end then, and clients come back to its successor.
#[derive(Debug, Clone)]
pub(crate) struct Stopping(watch::Receiver<bool>);

impl Stopping {
    /// The signal, and the way to give it.
    pub(crate) fn new() -> (watch::Sender<bool>, Self) {
        let (stop, stopping) = watch::channel(false);
        (stop, Self(stopping))
    }

    /// Resolves when the service is to end.
    pub(crate) async fn stopped(&mut self) {
        // A dropped sender ends the service just the same.
        let _ = self.0.wait_for(|stop| *stop).await;
    }
}

/// What ends a silence.
enum Wake {
    News,
    KeepAlive,
    Stop,
}

/// One task's events after a place in the store, until the last one is sent.
pub(crate) struct TaskStream {
    pub(crate) store: Store,
    pub(crate) task: TaskId,
    pub(crate) tenant: Tenant,
    pub(crate) after: i64,
    pub(crate) waiter: Waiter,
    pub(crate) stopping: Stopping,
    state: State,
    _open: OpenStream,
}

/// The events of all tasks after a place in the store.
pub(crate) struct FeedStream {
    pub(crate) store: Store,
    pub(crate) listener: Listener,
    pub(crate) after: i64,
    pub(crate) filter: Filter,
    pub(crate) stopping: Stopping,
    state: State,
}

#[derive(PartialEq)]
enum State {
    Opening,
    Open,
    Ended,
}

impl TaskStream {
    pub(crate) fn new(store: Store, task: TaskId, tenant: Tenant, after: i64, waiter: Waiter, stopping: Stopping) -> Self {
        Self { store, task, tenant, after, waiter, stopping, state: State::Opening, _open: OpenStream::start("task") }
    }

    pub(crate) fn into_response(self) -> Response {
        respond(stream::unfold(self, |mut stream| async move { stream.next().await.map(|piece| (Ok(piece), stream)) }))
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            match self.state {
                State::Opening => {
                    self.state = State::Open;
                    return Some(Bytes::from_static(OPENING));
                }
                State::Ended => return None,
                State::Open => {}
            }
            let read = self.store.events_of(self.task, self.tenant.clone(), self.after, EVENTS_MAX, PIECE_BYTES).await;
            let read = read.inspect_err(broken).ok()?;
            if read.all && read.complete {
                self.state = State::Ended;
            }
            if let Some(last) = read.events.last() {
                self.after = last.row;
                let mut frames = Vec::new();
                for event in &read.events {
                    write_frame(&mut frames, &event.id, &event.event_type, &event.body);
                }
                return Some(piece(frames));
            }
            if read.all && self.state == State::Open {
                let wake = tokio::select! {
                    news = self.waiter.news() => if news.forgotten { Wake::Stop } else { Wake::News },
                    () = self.stopping.stopped() => Wake::Stop,
                    () = tokio::time::sleep(SILENCE_MAX) => Wake::KeepAlive,
                };
                match wake {
                    Wake::News => {}
                    Wake::KeepAlive => return Some(Bytes::from_static(KEEP_ALIVE)),
                    Wake::Stop => return None,
                }
            }
        }
    }
}

impl FeedStream {
    pub(crate) fn new(store: Store, listener: Listener, after: i64, filter: Filter, stopping: Stopping) -> Self {
        Self { store, listener, after, filter, stopping, state: State::Opening }
    }

    pub(crate) fn into_response(self) -> Response {
        respond(stream::unfold(self, |mut stream| async move { stream.next().await.map(|piece| (Ok(piece), stream)) }))
    }

    async fn next(&mut self) -> Option<Bytes> {
        if self.state == State::Opening {
            self.state = State::Open;
            return Some(Bytes::from_static(OPENING));
        }
        let silence = tokio::time::sleep(SILENCE_MAX);
        tokio::pin!(silence);
        loop {
            let head = self.listener.head();
            if self.after >= head {
                let wake = tokio::select! {
                    () = self.listener.moved() => Wake::News,
                    () = self.stopping.stopped() => Wake::Stop,
                    () = &mut silence => Wake::KeepAlive,
                };
                match wake {
                    Wake::News => {}
                    Wake::KeepAlive => return Some(Bytes::from_static(KEEP_ALIVE)),
                    Wake::Stop => return None,
                }
                continue;
            }
            let frames = match self.listener.chunk_after(self.after) {
                Some(chunk) => {
                    let (frames, last) = chunk.frames_after(self.after, &self.filter, PIECE_BYTES);
                    self.after = last;
                    frames
                }
                // Too far behind, or from before anybody listened.
                None => {
                    let read = self.store.frames_after(self.after, head, self.filter.clone(), PIECE_BYTES).await;
                    let (frames, last) = read.inspect_err(broken).ok()?;
                    self.after = last;
                    piece(frames)
                }
            };
            if !frames.is_empty() {
                return Some(frames);
            }
        }
    }
}

/// Frames as they wait to be sent, perhaps for long: without the room that they grew into.
fn piece(mut frames: Vec<u8>) -> Bytes {
    frames.shrink_to_fit();
    frames.into()
}

/// The client comes back with the id of the last event it saw.
fn broken(error: &StoreError) {
    tracing::warn!(error = %fte_service::chain(error), "a stream ends because its events cannot be read");
}

fn respond(pieces: impl stream::Stream<Item = Result<Bytes, Infallible>> + Send + 'static) -> Response {
    let headers = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")];
    // Proxies that buffer would hold events back.
    (headers, [("x-accel-buffering", "no")], Body::from_stream(pieces)).into_response()
}
