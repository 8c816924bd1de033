//! The log on SQLite: one writer thread that commits everything that waits for it at once, and a few reading connections.
//!
//! Where deliveries are quick, a group is open for a few milliseconds, so that one task's events go together; a busy writer's groups grow by themselves. A group is one transaction with one sync (WAL,
//! `synchronous=FULL`), so an entry is whole or not there at all. The queue is bounded; a full one makes the caller wait.
//!
//! A group that fails by an entry that the database refuses is done again call by call, so that only who brought that entry gets the error.
//!
//! After any fault the connection is dropped and nothing of the group is acknowledged. The log is not ready until an append succeeds again, which
//! needs nobody's help: what was not acknowledged is delivered again. That append opens a new connection, which first moves the whole write-ahead log into the database and syncs both: what a failed sync may have left only in memory is written again
//! before anything is acknowledged on its strength.
//!
//! How entries are found: by place (the row id), by time (places are in order of time), by task (an index), and by agent, action, actor and
//! outcome through [`blocks`], since an index of each would cost as much as the entries.

mod blocks;
mod reader;
mod schema;
mod writer;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use fte_service::chain;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

use self::reader::Readers;
use self::writer::Writer;
use crate::entry::{Entry, NewEntry, Position};
use crate::log::{Appended, Log, LogError, Page, Query};
use crate::metrics;

/// A clock in milliseconds since 1970.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// The clock on the wall.
pub fn wall_clock() -> Clock {
    Arc::new(|| jiff::Timestamp::now().as_millisecond())
}

/// How long a group usually is open where deliveries are quick.
pub(crate) const OPEN: Duration = Duration::from_millis(10);

/// Where the log is and how much it may use.
#[derive(Clone)]
pub struct SqliteOptions {
    /// The database file; `-wal` and `-shm` stand beside it.
    pub path: PathBuf,
    /// Most calls that wait for the writer.
    pub queue_max: usize,
    /// How long a group is open: nobody waits for the audit, and one task's events make one commit instead of several, which leaves the disk to those
    /// that somebody waits for.
    pub group_open: Duration,
    /// A group is closed once it has this many entries.
    pub group_entries_max: usize,
    /// A group is closed once its events have this many bytes.
    pub group_bytes_max: usize,
    /// Memory of the writer for pages, in KiB.
    pub cache_kib: u32,
    /// Most connections that read at the same time.
    pub readers_max: usize,
    /// Most pages of the database, for a limit below that of the disk; 0 for none. Looked at whenever the database is opened.
    pub pages_max: Arc<AtomicU32>,
    /// When an entry is logged.
    pub clock: Clock,
}

impl SqliteOptions {
    /// A log at `path` with the usual limits.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            queue_max: 256,
            group_open: OPEN,
            group_entries_max: 4096,
            group_bytes_max: 8 * 1024 * 1024,
            cache_kib: 4096,
            readers_max: 2,
            pages_max: Arc::default(),
            clock: wall_clock(),
        }
    }
}

/// The log in one SQLite file. The writer ends when the last handle is dropped.
pub struct SqliteLog {
    calls: mpsc::Sender<Call>,
    readers: Readers,
    shared: Arc<Shared>,
}

/// What the writer lets others see.
#[derive(Default)]
struct Shared {
    fault: Mutex<Option<LogError>>,
    actions_missing: AtomicU64,
}

impl Shared {
    /// Makes a fault known; the first of a row is logged.
    fn fail(&self, error: &LogError) {
        let before = self.fault.lock().unwrap_or_else(PoisonError::into_inner).replace(error.clone());
        if before.is_none() {
            tracing::error!(error = %chain(error), "nothing is recorded now; what is delivered will come again");
        }
    }

    fn succeed(&self) {
        if self.fault.lock().unwrap_or_else(PoisonError::into_inner).take().is_some() {
            tracing::info!("the audit log records again");
        }
    }

    fn fault(&self) -> Option<LogError> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_missing(&self, count: i64) {
        let count = u64::try_from(count).unwrap_or(0);
        if self.actions_missing.swap(count, Ordering::Relaxed) != count {
            metrics::actions_missing(count);
        }
    }
}

struct Call {
    entries: Vec<NewEntry>,
    reply: oneshot::Sender<Result<Vec<Appended>, LogError>>,
}

impl SqliteLog {
    /// Opens the log, or makes it. Fails when it cannot be written now.
    pub fn open(options: SqliteOptions) -> Result<Self, LogError> {
        let shared = Arc::new(Shared::default());
        let (calls, queue) = mpsc::channel(options.queue_max);
        let readers = Readers::new(options.path.clone(), options.readers_max);
        let mut writer = Writer::new(options, Arc::clone(&shared));
        writer.open()?;
        thread::Builder::new().name("audit-writer".to_owned()).spawn(move || run(writer, queue)).map_err(|error| LogError::Storage {
            what: "the thread that writes the audit log could not be started".to_owned(),
            source: Arc::new(error),
        })?;
        Ok(Self { calls, readers, shared })
    }

    /// Resolves when the writer has ended, which it does only by a fault of this program: the process should not go on without it.
    pub fn ended(&self) -> impl Future<Output = ()> + Send + 'static {
        let calls = self.calls.clone();
        async move { calls.closed().await }
    }
}

/// With so many calls waiting nothing is gained by waiting for more.
const BUSY: usize = 16;

/// Works the queue in groups until it is closed.
fn run(mut writer: Writer, mut queue: mpsc::Receiver<Call>) {
    let limits = (writer.options().group_entries_max, writer.options().group_bytes_max);
    while let Some(first) = queue.blocking_recv() {
        // Who is busy has a group already.
        if queue.len() < BUSY {
            thread::sleep(writer.options().group_open);
        }
        let mut group = Vec::new();
        let mut replies = Vec::new();
        let (mut count, mut bytes) = (0, 0);
        let mut next = Some(first);
        while let Some(call) = next {
            count += call.entries.len();
            bytes += call.entries.iter().map(|entry| entry.bytes.len()).sum::<usize>();
            group.push(call.entries);
            replies.push(call.reply);
            next = if count < limits.0 && bytes < limits.1 { queue.try_recv().ok() } else { None };
        }
        // A caller that went away does not need its answer.
        match writer.append(&group) {
            Ok(outcomes) => replies.into_iter().zip(outcomes).for_each(|(reply, outcome)| drop(reply.send(Ok(outcome)))),
            Err(LogError::Refused { .. }) if group.len() > 1 => {
                for (call, reply) in group.chunks(1).zip(replies) {
                    drop(reply.send(writer.append(call).map(|mut outcomes| outcomes.pop().unwrap_or_default())));
                }
            }
            Err(error) => replies.into_iter().for_each(|reply| drop(reply.send(Err(error.clone())))),
        }
    }
}

impl Log for SqliteLog {
    fn append(&self, entries: Vec<NewEntry>) -> BoxFuture<'_, Result<Vec<Appended>, LogError>> {
        Box::pin(async move {
            let (reply, outcome) = oneshot::channel();
            self.calls.send(Call { entries, reply }).await.map_err(|_| LogError::Closed)?;
            outcome.await.map_err(|_| LogError::Closed)?
        })
    }

    fn entry(&self, at: Position) -> BoxFuture<'_, Result<Option<Entry>, LogError>> {
        Box::pin(self.readers.read(move |connection| reader::entry(connection, at)))
    }

    fn entries(&self, query: Query) -> BoxFuture<'_, Result<Page, LogError>> {
        Box::pin(async move {
            let mut page = self.readers.read(move |connection| reader::entries(connection, &query)).await?;
            page.actions_missing = self.shared.actions_missing.load(Ordering::Relaxed);
            Ok(page)
        })
    }

    fn ready(&self) -> Result<(), LogError> {
        match self.shared.fault() {
            Some(fault) => Err(fault),
            None if self.calls.is_closed() => Err(LogError::Closed),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
