//! The log: a Merkle tree of everything that was received, by the formats of C2SP, on the files of one directory.
//!
//! ```text
//! <directory>/
//!   keys/            the log's key
//!   2026/            a year of the log's clock is a shard, and a tree of its own: origin <host>/2026
//!     wal/           where an entry is durable first; a segment goes once its bundles are synced and checked
//!     log/           checkpoint, tile/…: static files for anyone to check
//!     blobs/         payloads that do not fit into a leaf, by digest
//!   state/           the lock, the fencing epoch, the last checkpoint that was signed
//!   index.sqlite     which entry is where; derived from the log, and made again where it is missing
//! ```
//!
//! One thread writes. It takes what waits for it as one group, which is one sync; nobody waits for the audit, so where deliveries are quick a group is open
//! for a few milliseconds, and one task's events go together. The queue is bounded; a full one makes the caller wait.
//!
//! After any fault nothing of the group is acknowledged, and nothing in memory is believed: the next call, or a second without one, opens the log again
//! from the disk, with all the checks of a start. So a disk that was full heals by itself, and a failed sync is never repeated.
//!
//! Idle, it does nothing: no timer runs without something to do.

mod core;
mod disk;
mod fault;
mod find;
mod index;
mod own;
mod readers;
mod recover;
mod reindex;
mod retiring;
mod sealing;
mod settle;
mod signers;
#[cfg(test)]
pub(crate) mod sim;
mod standing;
mod state;
mod tree;
mod view;
mod wal;

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fte_tlog::{Hash, ProofFile, SignerKey, TilePath, VerifierKey};
use futures_util::future::BoxFuture;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot, watch};

use self::core::{Core, Means, Tally};
pub use self::disk::{Disk, DiskFile, RealDisk};
use self::fault::Fault;
pub(crate) use self::index::compare::{CompareError, Compared, Comparison};
pub(crate) use self::own::POLICY;
pub use self::own::SOURCE;
use self::readers::Readers;
pub use self::reindex::reindex;
pub(crate) use self::retiring::{Ended, Retirer, Standing, Wanted, record_id};
pub use self::retiring::{FILE as RETIRED, Retired};
pub use self::sealing::{Plain, Sealed, Sealing};
use self::settle::Settled;
use self::signers::Keys;
pub use self::state::{Published, Stopped};
use self::view::{Files, Shared};
use crate::entry::leaf::Kind;
use crate::entry::{Entry, NewEntry, Position};
use crate::log::{Appended, Gaps, Log, LogError, Page, Query};
use crate::metrics;

/// A clock in milliseconds since 1970.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// The clock on the wall.
pub fn wall_clock() -> Clock {
    Arc::new(|| jiff::Timestamp::now().as_millisecond())
}

/// How long a group usually is open where deliveries are quick.
pub(crate) const OPEN: Duration = Duration::from_millis(10);
/// With so many calls waiting nothing is gained by waiting for more.
const BUSY: usize = 16;

/// How often a log that has failed is tried again where nobody calls.
const REOPEN_EVERY: Duration = Duration::from_secs(1);

/// An index that is damaged again so soon after it was made again is not at fault itself: the disk is, or the memory, and the log had better not go on there.
const REMAKE_EVERY: Duration = Duration::from_secs(3600);

/// Where the log is and how much it may use.
#[derive(Clone)]
pub struct EngineOptions {
    pub directory: PathBuf,
    pub disk: Arc<dyn Disk>,
    /// What checkpoints are signed with; its name is the origin's first part.
    pub key: Arc<SignerKey>,
    /// The key that is to follow: the log announces it, and then both sign.
    pub next_key: Option<Arc<SignerKey>>,
    /// What signed before, under the log's own name.
    pub former: Vec<VerifierKey>,
    pub sealing: Arc<dyn Sealing>,
    /// Most calls that wait for the writer.
    pub queue_max: usize,
    /// How long a group is open: nobody waits for the audit, and one task's events make one sync instead of several, which leaves the disk to those
    /// that somebody waits for.
    pub group_open: Duration,
    /// A group is closed once it has this many entries.
    pub group_entries_max: usize,
    /// A group is closed once its events have this many bytes.
    pub group_bytes_max: usize,
    /// How long an entry may wait for a checkpoint.
    pub seal_every: Duration,
    /// Memory of the writer for pages of the index, in KiB.
    pub cache_kib: u32,
    /// Most connections that read at the same time.
    pub readers_max: usize,
    /// A segment of the write-ahead log takes no further group once it has this many bytes.
    pub segment_bytes: u64,
    /// How long a task that has ended must be quiet before it is closed.
    pub close_after: Duration,
    /// How long a publisher's number may be late before that is recorded.
    pub gap_grace: Duration,
    /// When an entry is logged.
    pub clock: Clock,
    /// The shards that may be removed now if the log says that they are retired: the command's, which has looked whether they have had their time and nobody
    /// holds them. The service removes nothing.
    pub removable: Vec<u16>,
}

impl EngineOptions {
    /// A log in a directory with the usual limits.
    pub fn at(directory: impl Into<PathBuf>, key: Arc<SignerKey>) -> Self {
        Self {
            directory: directory.into(),
            disk: Arc::new(RealDisk),
            key,
            next_key: None,
            former: Vec::new(),
            sealing: Arc::new(Plain),
            queue_max: 256,
            group_open: OPEN,
            group_entries_max: 4096,
            group_bytes_max: 8 * 1024 * 1024,
            seal_every: Duration::from_millis(500),
            cache_kib: 16 * 1024,
            readers_max: 2,
            segment_bytes: wal::SEGMENT_BYTES,
            close_after: Duration::from_secs(10),
            gap_grace: Duration::from_secs(60),
            clock: wall_clock(),
            removable: Vec::new(),
        }
    }

    fn means(&self, shared: &Arc<Shared>) -> Means {
        let ms = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Means {
            disk: Arc::clone(&self.disk),
            root: self.directory.clone(),
            keys: Keys::new(&self.key, self.next_key.as_ref(), &self.former),
            sealing: Arc::clone(&self.sealing),
            shared: Arc::clone(shared),
            cache_kib: self.cache_kib,
            segment_bytes: self.segment_bytes,
            close_after_ms: ms(self.close_after),
            gap_grace_ms: ms(self.gap_grace),
            removable: self.removable.clone(),
        }
    }
}

/// The log in a directory. The writer ends, with a last checkpoint, when the last handle is dropped.
pub struct Engine {
    /// There until the end.
    calls: Option<mpsc::Sender<Call>>,
    writer: Option<JoinHandle<()>>,
    /// Closed once the writer has ended.
    ended: watch::Receiver<()>,
    readers: Readers,
    shared: Arc<Shared>,
    sealing: Arc<dyn Sealing>,
}

struct Call {
    entries: Vec<NewEntry>,
    reply: oneshot::Sender<Result<Vec<Appended>, LogError>>,
}

impl Engine {
    /// Opens the log, or makes it. Fails when it cannot be written now, and when what is there must not be written on.
    pub fn open(options: EngineOptions) -> Result<Self, LogError> {
        let shared = Arc::new(Shared::default());
        let (calls, queue) = mpsc::channel(options.queue_max);
        let means = options.means(&shared);
        let files = means.files();
        let explain = |fault: Fault| fault.explained(&options.directory);
        disk::make_dir(&*options.disk, &options.directory).map_err(|error| explain(Fault::io(&options.directory)(error)))?;
        let core = match Core::open(means.clone()) {
            // It showed only when the index was worked with, and would show again: the index is derived, so it is made again.
            Err(fault) if fault.is_damaged_index() => {
                tracing::warn!(error = %fte_service::chain(&fault), "the index of the audit log is damaged");
                shared.damage_index();
                Core::open(means)
            }
            opened => opened,
        };
        let core = core.map_err(explain)?;
        let readers = Readers::new(files, options.readers_max);
        let sealing = Arc::clone(&options.sealing);
        let started = |error: std::io::Error| LogError::Storage {
            what: "the thread that writes the audit log could not be started".to_owned(),
            source: Arc::new(error),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(started)?;
        let shared_too = Arc::clone(&shared);
        let writer =
            Writer { core: Some(core), stopped: None, shared: shared_too, remade: None, unsealed_since: None, settling: None, options };
        let (running, ended) = watch::channel(());
        let run = move || {
            writer.run(&runtime, queue);
            drop(running);
        };
        let writer = thread::Builder::new().name("audit-writer".to_owned()).spawn(run).map_err(started)?;
        Ok(Self { calls: Some(calls), writer: Some(writer), ended, readers, shared, sealing })
    }

    async fn read_index<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection, &Files) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, LogError> {
        let result = self.readers.read(read).await;
        if self.shared.is_index_damaged()
            && let Some(calls) = &self.calls
        {
            // The writer may be idle; a busy one sees it anyway.
            let (reply, _) = oneshot::channel();
            drop(calls.try_send(Call { entries: Vec::new(), reply }));
        }
        result
    }

    /// Resolves when the writer has ended, which it does only by a fault of this program: the process should not go on without it.
    pub fn ended(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let mut ended = self.ended.clone();
        async move { while ended.changed().await.is_ok() {} }
    }
}

impl Drop for Engine {
    /// Waits for the last checkpoint, so that whoever opens the log next finds it free.
    fn drop(&mut self) {
        self.calls = None;
        if let Some(writer) = self.writer.take() {
            // A panic there was told of, and ended the process's service.
            drop(writer.join());
        }
    }
}

/// The thread that writes.
struct Writer {
    options: EngineOptions,
    shared: Arc<Shared>,
    /// None after a fault.
    core: Option<Core>,
    /// Why this process must not write any more.
    stopped: Option<LogError>,
    /// When a damaged index was made again.
    remade: Option<Instant>,
    unsealed_since: Option<Instant>,
    settling: Option<JoinHandle<Result<Settled, Fault>>>,
}

impl Writer {
    /// Works the queue in groups until it is closed.
    fn run(mut self, runtime: &tokio::runtime::Runtime, mut queue: mpsc::Receiver<Call>) {
        loop {
            let received = match self.wait() {
                None => Ok(queue.blocking_recv()),
                Some(wait) => runtime.block_on(async { tokio::time::timeout(wait, queue.recv()).await }),
            };
            match received {
                Ok(Some(first)) => self.group(first, &mut queue),
                Ok(None) => break,
                Err(_) => self.tick(),
            }
            self.upkeep();
        }
        if let Some(mut core) = self.core.take().filter(Core::unsealed)
            && let Err(fault) = core.seal()
        {
            tracing::error!(error = %fte_service::chain(&fault.explained(&self.options.directory)), "the last checkpoint is missing; the next start makes it");
        }
        if let Some(settling) = self.settling.take() {
            drop(settling.join());
        }
    }

    /// How long there is nothing to do without a call; `None` for ever.
    fn wait(&self) -> Option<Duration> {
        let Some(core) = &self.core else {
            return Some(REOPEN_EVERY).filter(|_| self.stopped.is_none());
        };
        let seal = self.unsealed_since.map(|since| self.options.seal_every.saturating_sub(since.elapsed()));
        let due = core.due_ms().ok().flatten().map(|due| {
            let left = due.saturating_sub((self.options.clock)());
            // By the log's clock, which may stand still or go back: looked at again now and then.
            Duration::from_millis(u64::try_from(left).unwrap_or(0)).clamp(Duration::from_millis(20), Duration::from_secs(60))
        });
        seal.into_iter().chain(due).min()
    }

    fn group(&mut self, first: Call, queue: &mut mpsc::Receiver<Call>) {
        // Who is busy has a group already.
        if queue.len() < BUSY {
            thread::sleep(self.options.group_open);
        }
        let (mut group, mut replies) = (Vec::new(), Vec::new());
        let (mut count, mut bytes) = (0, 0);
        let mut next = Some(first);
        while let Some(call) = next {
            count += call.entries.len();
            bytes += call.entries.iter().map(|entry| entry.bytes.len()).sum::<usize>();
            group.push(call.entries);
            replies.push(call.reply);
            let has_room = count < self.options.group_entries_max && bytes < self.options.group_bytes_max;
            next = if has_room { queue.try_recv().ok() } else { None };
        }
        // A caller that went away does not need its answer.
        match self.append(&group) {
            Ok(outcomes) => replies.into_iter().zip(outcomes).for_each(|(reply, outcome)| drop(reply.send(Ok(outcome)))),
            Err(error) => replies.into_iter().for_each(|reply| drop(reply.send(Err(error.clone())))),
        }
    }

    fn append(&mut self, group: &[Vec<NewEntry>]) -> Result<Vec<Vec<Appended>>, LogError> {
        let started = Instant::now();
        if self.core.is_some() && self.shared.is_index_damaged() {
            self.failed(Fault::DamagedIndex);
        }
        if self.core.is_none() {
            self.open()?;
        }
        let now_ms = (self.options.clock)();
        let Some(core) = &mut self.core else { return Err(LogError::Closed) };
        match core.append(group, now_ms) {
            Ok((outcomes, tally)) => {
                self.shared.set_missing(core.index.missing);
                self.shared.succeed();
                self.tell(started, &tally);
                Ok(outcomes)
            }
            Err(fault) => Err(self.failed(fault)),
        }
    }

    /// Opens the log again, with the checks of a start.
    fn open(&mut self) -> Result<(), LogError> {
        if let Some(stopped) = &self.stopped {
            return Err(stopped.clone());
        }
        // Of the files that a failed settling touched nothing is known: they are written again, and must not be touched meanwhile.
        if let Some(settling) = self.settling.take() {
            drop(settling.join());
        }
        match Core::open(self.options.means(&self.shared)) {
            Ok(core) => {
                self.core = Some(core);
                Ok(())
            }
            Err(fault) => Err(self.failed(fault)),
        }
    }

    fn failed(&mut self, fault: Fault) -> LogError {
        self.core = None;
        self.unsealed_since = None;
        let mut fault = fault;
        if fault.is_damaged_index() {
            // Opening it again would meet the damage again, for ever: it is derived, so it is made again.
            self.shared.damage_index();
            match self.remade.replace(Instant::now()) {
                Some(before) if before.elapsed() < REMAKE_EVERY => fault = Fault::DamagedAgain(Box::new(fault)),
                _ => {}
            }
        }
        let is_last = matches!(fault, Fault::Fenced { .. } | Fault::DamagedAgain(_));
        let error = fault.explained(&self.options.directory);
        if is_last {
            self.stopped = Some(error.clone());
        }
        self.shared.fail(&error);
        error
    }

    fn tell(&self, started: Instant, tally: &Tally) {
        metrics::committed(started.elapsed(), &tally.new, tally.known);
        for (position, entry) in &tally.conflicts {
            tracing::error!(
                entry = %position, source = entry.source.as_deref().unwrap_or_default(), id = %entry.id, topic = %entry.topic,
                "an event contradicts an earlier one of the same source and id; both are kept"
            );
        }
    }

    /// What the log itself has to say by now.
    fn tick(&mut self) {
        let now_ms = (self.options.clock)();
        let Some(core) = &mut self.core else {
            // Nothing may be waiting to be delivered again.
            if self.open().is_ok() {
                self.shared.succeed();
            }
            return;
        };
        core.observe(now_ms);
        let is_due = core.due_ms().ok().flatten().is_some_and(|due| due <= now_ms);
        if !is_due {
            return;
        }
        let started = Instant::now();
        match core.tick(now_ms) {
            Ok(tally) => self.tell(started, &tally),
            Err(fault) => drop(self.failed(fault)),
        }
    }

    /// Checkpoints, and segments that may go.
    fn upkeep(&mut self) {
        let Some(core) = &mut self.core else { return };
        if !core.unsealed() {
            self.unsealed_since = None;
        } else {
            let since = *self.unsealed_since.get_or_insert_with(Instant::now);
            let is_large = self.shared.view().tail.len() >= self.options.group_entries_max * 4;
            if since.elapsed() >= self.options.seal_every || is_large {
                let started = Instant::now();
                if let Err(fault) = core.seal() {
                    drop(self.failed(fault));
                    return;
                }
                let size = core.shard.as_ref().map_or(0, |shard| shard.size);
                metrics::sealed(started.elapsed(), size);
                self.unsealed_since = None;
            }
        }
        if let Err(fault) = self.settle() {
            drop(self.failed(fault));
        }
    }

    fn settle(&mut self) -> Result<(), Fault> {
        let Some(core) = &mut self.core else { return Ok(()) };
        if let Some(settling) = self.settling.take_if(|settling| settling.is_finished()) {
            let settled = settling.join().map_err(|_| Fault::Refused("the thread that syncs bundles has ended".to_owned()))??;
            core.settled(settled)?;
        }
        if self.settling.is_none()
            && let Some(settling) = core.settling(false)
        {
            let spawned = thread::Builder::new().name("audit-settler".to_owned()).spawn(move || settling.run());
            self.settling = Some(spawned.map_err(Fault::io(&self.options.directory))?);
        }
        Ok(())
    }
}

impl Log for Engine {
    fn append(&self, entries: Vec<NewEntry>) -> BoxFuture<'_, Result<Vec<Appended>, LogError>> {
        Box::pin(async move {
            let (reply, outcome) = oneshot::channel();
            let calls = self.calls.as_ref().ok_or(LogError::Closed)?;
            calls.send(Call { entries, reply }).await.map_err(|_| LogError::Closed)?;
            outcome.await.map_err(|_| LogError::Closed)?
        })
    }

    fn entry(&self, at: Position) -> BoxFuture<'_, Result<Option<Entry>, LogError>> {
        let sealing = Arc::clone(&self.sealing);
        Box::pin(self.readers.read_files(move |files| find::entry(files, &*sealing, at)))
    }

    fn entries(&self, query: Query) -> BoxFuture<'_, Result<Page, LogError>> {
        Box::pin(async move {
            let sealing = Arc::clone(&self.sealing);
            let mut page = self.read_index(move |index, files| find::entries(index, files, &*sealing, &query)).await?;
            page.actions_missing = self.shared.missing();
            Ok(page)
        })
    }

    fn gaps(&self) -> BoxFuture<'_, Result<Gaps, LogError>> {
        Box::pin(async move {
            let (open, filled) = self.read_index(|index, _| find::gaps(index)).await?;
            Ok(Gaps { open, filled, missing: self.shared.missing() })
        })
    }

    fn checkpoint(&self, shard: Option<u16>) -> BoxFuture<'_, Result<Option<Published>, LogError>> {
        Box::pin(self.readers.read_files(move |files| files.checkpoint(shard)))
    }

    fn tile(&self, shard: u16, tile: TilePath) -> BoxFuture<'_, Result<Option<Bytes>, LogError>> {
        Box::pin(self.readers.read_files(move |files| files.tile(shard, tile)))
    }

    fn blob(&self, shard: u16, digest: [u8; 32]) -> BoxFuture<'_, Result<Option<Bytes>, LogError>> {
        Box::pin(self.readers.read_files(move |files| files.blob(shard, &digest)))
    }

    fn proof(&self, at: Position) -> BoxFuture<'_, Result<Option<ProofFile>, LogError>> {
        Box::pin(self.readers.read_files(move |files| files.proof(at)))
    }

    fn consistency(&self, shard: u16, from: u64, to: u64) -> BoxFuture<'_, Result<Option<Vec<Hash>>, LogError>> {
        Box::pin(self.readers.read_files(move |files| files.consistency(shard, from, to)))
    }

    fn retired(&self) -> Vec<Retired> {
        self.shared.view().retired.values().cloned().collect()
    }

    fn ready(&self) -> Result<(), LogError> {
        match self.shared.fault() {
            Some(fault) => Err(fault),
            None if self.calls.as_ref().is_none_or(mpsc::Sender::is_closed) => Err(LogError::Closed),
            None => Ok(()),
        }
    }
}

/// The leaves of a shard that its write-ahead log has from an index on, for who only reads. They are acknowledged, and may not be signed for yet.
pub(crate) fn unsigned_leaves(root: &std::path::Path, shard: u16, from: u64) -> std::io::Result<Vec<Bytes>> {
    wal::leaves_from(&RealDisk, &view::Layout { root: root.to_owned() }.wal(shard), from)
}

/// How many entries of each kind.
pub(crate) type Counts = [u64; Kind::ALL.len()];

#[cfg(test)]
pub(crate) mod tests;
