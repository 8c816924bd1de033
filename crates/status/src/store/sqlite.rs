//! The read model in one SQLite file: one thread that writes it, a few connections that read it.
//!
//! While a transaction is under way whatever arrives waits in a bounded queue and forms the next one. One writer thread, because SQLite has one writer
//! anyway, and a queue is a fairer lock than a busy loop.

mod apply;
mod artifacts;
mod checkpoint;
mod erasing;
mod letters;
mod reader;
mod reads;
mod schema;
mod sweep;
mod writer;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::{OPEN, StoreError};
use crate::feed::Feed;
use crate::reading::Incoming;
use crate::wake::Waiters;

/// How the store is opened.
#[derive(Debug, Clone)]
pub(crate) struct StoreOptions {
    /// The database file; its directory is made when it is missing.
    pub path: PathBuf,
    /// Connections that read.
    pub readers_max: usize,
    /// Batches that may wait for the writer before their senders are made to wait.
    pub queue_max: usize,
    /// How long a transaction stays open for more events.
    pub group_open: Duration,
    /// Most pages (4 KiB) of the database, 0 for no limit of ours. Read before each transaction, so that it can be raised while the service runs.
    pub pages_max: Arc<AtomicU32>,
}

impl StoreOptions {
    /// The usual limits, at `path`.
    pub(crate) fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), readers_max: 4, queue_max: 64, group_open: OPEN, pages_max: Arc::default() }
    }
}

/// The store in a file; cheap to clone. The writer ends when the last clone is gone.
#[derive(Clone)]
pub(crate) struct Sqlite {
    commands: mpsc::Sender<Command>,
    readers: Arc<reader::Readers>,
    health: Arc<Health>,
    path: PathBuf,
}

/// What the writer is asked for, with the way to answer.
enum Command {
    Events(Arc<Vec<Incoming>>, oneshot::Sender<Result<(), StoreError>>),
    Run(Box<dyn Run>),
}

/// Work on the database inside the writer's transaction. It may be run again, in another transaction, after one that failed.
trait Run: Send {
    fn run(&mut self, connection: &rusqlite::Connection) -> rusqlite::Result<()>;
    /// Answers the caller, after the commit or the failure.
    fn answer(self: Box<Self>, outcome: Result<(), StoreError>);
}

struct Work<F, T> {
    work: F,
    /// What the last run gave.
    value: Option<T>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<F, T> Run for Work<F, T>
where
    T: Send,
    F: FnMut(&rusqlite::Connection) -> rusqlite::Result<T> + Send,
{
    fn run(&mut self, connection: &rusqlite::Connection) -> rusqlite::Result<()> {
        self.value = Some((self.work)(connection)?);
        Ok(())
    }

    fn answer(self: Box<Self>, outcome: Result<(), StoreError>) {
        let Self { value, reply, .. } = *self;
        // A caller that went away does not need the answer.
        drop(reply.send(outcome.and_then(|()| value.ok_or(StoreError::Closed))));
    }
}

impl Sqlite {
    /// Opens the database, and makes it when it is not there.
    pub(crate) fn open(options: StoreOptions, waiters: Arc<Waiters>, feed: Arc<Feed>) -> Result<Self, StoreError> {
        let health = Arc::new(Health::default());
        let (commands, queue) = mpsc::channel(options.queue_max);
        let readers = Arc::new(reader::Readers::new(options.path.clone(), options.readers_max));
        let path = options.path.clone();
        writer::start(options, queue, Arc::clone(&health), waiters, feed)?;
        Ok(Self { commands, readers, health, path })
    }

    /// Stores events and folds them into their tasks, all or none; `Ok` once that is durable.
    pub(crate) async fn record_together(&self, events: Arc<Vec<Incoming>>) -> Result<(), StoreError> {
        let (reply, outcome) = oneshot::channel();
        self.commands.send(Command::Events(events, reply)).await.map_err(|_| StoreError::Closed)?;
        outcome.await.map_err(|_| StoreError::Closed)?
    }

    /// Runs `work` in the writer's next transaction; `Ok` once that is durable. It is run again when that transaction fails for another's sake.
    async fn write<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&rusqlite::Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (reply, outcome) = oneshot::channel();
        let run = Box::new(Work { work, value: None, reply });
        self.commands.send(Command::Run(run)).await.map_err(|_| StoreError::Closed)?;
        outcome.await.map_err(|_| StoreError::Closed)?
    }

    /// Runs `work` on a reading connection, away from the async threads.
    async fn read<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&rusqlite::Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.readers.read(work).await
    }

    /// Why the last write failed, if it did. Then a write is tried, so that a healed disk is noticed without traffic.
    pub(crate) async fn check(&self) -> Result<(), StoreError> {
        if self.commands.is_closed() {
            return Err(StoreError::Closed);
        }
        if self.health.error().is_none() {
            return Ok(());
        }
        self.write(schema::probe).await
    }

    /// Resolves when the writer has ended, which it does only by a fault of this program: the process should not go on without it.
    pub(crate) fn ended(&self) -> impl Future<Output = ()> + Send + 'static {
        let commands = self.commands.clone();
        async move { commands.closed().await }
    }
}

/// Whether the last write went well.
#[derive(Debug, Default)]
struct Health {
    error: Mutex<Option<Arc<rusqlite::Error>>>,
}

impl Health {
    fn set(&self, error: Option<Arc<rusqlite::Error>>) {
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }

    fn error(&self) -> Option<Arc<rusqlite::Error>> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The limit as SQLite wants it.
fn pages_max(options: &StoreOptions) -> Option<u32> {
    Some(options.pages_max.load(Ordering::Relaxed)).filter(|pages| *pages > 0)
}

#[cfg(test)]
mod tests;
