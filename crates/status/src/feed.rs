//! The last commits as ready-made frames, shared by all streams of all tasks.
//!
//! An event is encoded once, however many listen, and only when somebody listens for it. What is kept is bounded in bytes, not by the slowest listener:
//! who falls behind what is kept, or came after it was made, reads on from the store. So a slow client costs no memory and loses nothing. (A broadcast channel was rejected: its
//! bound is a number of messages, and a lagging receiver cannot tell which ones it missed.)

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use fte_events::TaskId;
use tokio::sync::watch;

use crate::metrics::OpenStream;
use crate::reading::Incoming;
use crate::sse::{Filter, write_frame};
use crate::tenant::Tenant;
use crate::wake::TooMany;

/// The live end of the store.
#[derive(Debug)]
pub(crate) struct Feed {
    recent: Mutex<Recent>,
    /// The last committed row.
    head: watch::Sender<i64>,
    bytes_max: usize,
    listeners_max: usize,
}

#[derive(Debug, Default)]
struct Recent {
    chunks: VecDeque<Arc<Chunk>>,
    bytes: usize,
    /// What each listener wants, by its number.
    wants: BTreeMap<u64, Filter>,
    /// The number of the newest listener.
    newest: u64,
}

/// One commit's events.
#[derive(Debug)]
pub(crate) struct Chunk {
    /// Of the rows `after < row <= upto` it has those that somebody wanted when it was made.
    after: i64,
    upto: i64,
    /// The newest listener of then.
    newest: u64,
    frames: Bytes,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    row: i64,
    task: Option<TaskId>,
    tenant: Tenant,
    event_type: Box<str>,
    /// Where its frame ends; it begins where the one before ends.
    end: usize,
}

/// A listener's place in the feed.
#[derive(Debug)]
pub(crate) struct Listener {
    feed: Arc<Feed>,
    number: u64,
    head: watch::Receiver<i64>,
    _open: OpenStream,
}

impl Feed {
    /// A feed that keeps at most `bytes_max` for at most `listeners_max` listeners.
    pub(crate) fn new(bytes_max: usize, listeners_max: usize) -> Arc<Self> {
        Arc::new(Self { recent: Mutex::default(), head: watch::Sender::new(0), bytes_max, listeners_max })
    }

    pub(crate) fn start_at(&self, row: i64) {
        self.head.send_replace(row);
    }

    /// The last committed row.
    #[cfg(feature = "postgres")]
    pub(crate) fn head(&self) -> i64 {
        *self.head.borrow()
    }

    /// Whether anybody listens.
    #[cfg(feature = "postgres")]
    pub(crate) fn is_listened_to(&self) -> bool {
        !self.recent().wants.is_empty()
    }

    /// Goes on to a row without the events before it, unless somebody listens for them.
    #[cfg(feature = "postgres")]
    pub(crate) fn pass_over(&self, upto: i64) {
        let mut recent = self.recent();
        if recent.wants.is_empty() {
            recent.clear();
            self.head.send_replace(upto);
        }
    }

    /// Tells the listeners of a commit whose last row is `upto`.
    pub(crate) fn publish(&self, upto: i64, stored: &[(i64, &Incoming)]) {
        let after = *self.head.borrow();
        if upto == after {
            return;
        }
        let (wants, newest) = {
            let mut recent = self.recent();
            if recent.wants.is_empty() {
                recent.clear();
            }
            (recent.wants.values().cloned().collect::<Vec<_>>(), recent.newest)
        };
        if !wants.is_empty() {
            // Made without the lock, which listeners need.
            let chunk = Arc::new(Chunk::new(after, upto, newest, &wants, stored));
            self.recent().push(chunk, self.bytes_max);
        }
        self.head.send_replace(upto);
    }

    /// Takes a place in the feed, for the events that pass the filter.
    pub(crate) fn listen(self: &Arc<Self>, filter: Filter) -> Result<Listener, TooMany> {
        let mut recent = self.recent();
        if recent.wants.len() >= self.listeners_max {
            return Err(TooMany(self.listeners_max));
        }
        recent.newest += 1;
        let number = recent.newest;
        recent.wants.insert(number, filter);
        Ok(Listener { feed: Arc::clone(self), number, head: self.head.subscribe(), _open: OpenStream::start("all") })
    }

    /// Keeps nothing ready: something in it is to be forgotten.
    pub(crate) fn forget(&self) {
        self.recent().clear();
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recent {
    fn push(&mut self, chunk: Arc<Chunk>, bytes_max: usize) {
        self.bytes += chunk.frames.len();
        self.chunks.push_back(chunk);
        while self.bytes > bytes_max
            && let Some(oldest) = self.chunks.pop_front()
        {
            self.bytes -= oldest.frames.len();
        }
    }

    fn clear(&mut self) {
        self.chunks.clear();
        self.bytes = 0;
    }
}

impl Listener {
    /// The last committed row.
    pub(crate) fn head(&mut self) -> i64 {
        *self.head.borrow_and_update()
    }

    /// Waits for a commit after the last call of [`Listener::head`].
    pub(crate) async fn moved(&mut self) {
        // The sender lives as long as the feed, which this listener holds.
        let _ = self.head.changed().await;
    }

    /// The commit that follows `row`, if it is still kept.
    pub(crate) fn chunk_after(&self, row: i64) -> Option<Arc<Chunk>> {
        let recent = self.feed.recent();
        let place = recent.chunks.partition_point(|chunk| chunk.upto <= row);
        recent.chunks.get(place).filter(|chunk| chunk.after <= row && chunk.newest >= self.number).cloned()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut recent = self.feed.recent();
        recent.wants.remove(&self.number);
        if recent.wants.is_empty() {
            recent.clear();
        }
    }
}

impl Chunk {
    fn new(after: i64, upto: i64, newest: u64, wants: &[Filter], stored: &[(i64, &Incoming)]) -> Self {
        let (mut frames, mut entries) = (Vec::new(), Vec::new());
        for (row, event) in stored {
            // An event of no task is on no stream.
            if event.task.is_some() && wants.iter().any(|filter| filter.passes(&event.event_type, event.task, &event.tenant)) {
                write_frame(&mut frames, &event.id, &event.event_type, &event.body);
                entries.push(Entry {
                    row: *row,
                    task: event.task,
                    tenant: event.tenant.clone(),
                    event_type: event.event_type.clone(),
                    end: frames.len(),
                });
            }
        }
        frames.shrink_to_fit();
        Self { after, upto, newest, frames: frames.into(), entries }
    }

    /// The frames after `row` that pass the filter, cut at about `bytes_max`, and the last row they go to.
    ///
    /// They may wait for a client that does not read, long after the chunk was let go of here. So a part of a chunk is shared with it only where it is
    /// most of it; else a few frames would keep the whole commit in memory.
    pub(crate) fn frames_after(&self, row: i64, filter: &Filter, bytes_max: usize) -> (Bytes, i64) {
        let known = self.entries.partition_point(|entry| entry.row <= row);
        if filter.is_open() {
            let start = self.start_of(known);
            let full = |entry: &Entry| entry.end - start >= bytes_max;
            let (end, upto) = match self.entries[known..].iter().find(|entry| full(entry)) {
                Some(entry) => (entry.end, entry.row),
                None => (self.frames.len(), self.upto),
            };
            let is_most = (end - start) * 2 > self.frames.len();
            let frames = if is_most { self.frames.slice(start..end) } else { Bytes::copy_from_slice(&self.frames[start..end]) };
            return (frames, upto);
        }
        let mut out = Vec::new();
        for (place, entry) in self.entries.iter().enumerate().skip(known) {
            if filter.passes(&entry.event_type, entry.task, &entry.tenant) {
                out.extend_from_slice(&self.frames[self.start_of(place)..entry.end]);
                if out.len() >= bytes_max {
                    out.shrink_to_fit();
                    return (out.into(), entry.row);
                }
            }
        }
        out.shrink_to_fit();
        (out.into(), self.upto)
    }

    fn start_of(&self, place: usize) -> usize {
        place.checked_sub(1).map_or(0, |before| self.entries[before].end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{History, incoming};

    #[test]
    fn a_commit_is_given_in_pieces_without_a_gap_and_no_piece_keeps_a_commit_in_memory() {
        const PIECE: usize = 2000;
        let history = (0..60).fold(History::of(TaskId::now()).requested("x"), |history, _| history.step(fte_events::Status::Running));
        let events = incoming(history.events);
        let stored: Vec<(i64, &Incoming)> = (1..).zip(&events).collect();
        let last = stored.len() as i64;
        let filters = [Filter::default(), Filter { task: Some(history.task), ..Filter::default() }];
        let chunk = Chunk::new(0, last, 1, &filters, &stored);
        let longest = events.iter().map(|event| event.body.len()).max().unwrap() + 200;
        for filter in &filters {
            let (mut row, mut all) = (0, Vec::new());
            while row < last {
                let (piece, upto) = chunk.frames_after(row, filter, PIECE);
                assert!(upto > row && !piece.is_empty() && piece.len() < PIECE + longest, "{} bytes", piece.len());
                assert!(!chunk.frames.as_ptr_range().contains(&piece.as_ptr()), "it shares the memory of all {} bytes", chunk.frames.len());
                row = upto;
                all.extend_from_slice(&piece);
            }
            assert_eq!(all, chunk.frames);
        }
        // What is most of a commit is not copied for each listener.
        let (whole, upto) = chunk.frames_after(0, &filters[0], usize::MAX);
        assert_eq!((whole.as_ptr(), whole.len(), upto), (chunk.frames.as_ptr(), chunk.frames.len(), last));
    }
}
