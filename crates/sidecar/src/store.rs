//! What is durable: one SQLite database, one writer.
//!
//! * The [`writer`] thread owns the only connection that writes. It takes whatever waits in its bounded queue into one
//!   transaction, and answers after the commit: an answer without an error means fsynced.
//! * The [`reader`] threads own read connections: state and jobs on one, the event log on the other, so that a group that
//!   catches up does not delay a `GET`.
//! * The [`checkpoint`] thread moves the write-ahead log into the database off the writer's path.
//!
//! The directory is locked by this process for as long as the writer lives.

pub(crate) mod checkpoint;
pub(crate) mod command;
pub(crate) mod jobs;
pub(crate) mod log;
pub(crate) mod reader;
pub(crate) mod schema;
pub(crate) mod state;
pub(crate) mod steady;
#[cfg(test)]
mod tests;
pub(crate) mod writer;

use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::options::{Options, StartError};
use crate::record::{RecordBuf, Records, Want};
use crate::topics::Topic;
use command::Command;
use jobs::{After, JobRow};
use log::CursorCell;
use state::{Conflict, Found, StateWrite};
use steady::SteadyClock;
use writer::Writer;

/// Commands that may wait for the writer.
const QUEUE: usize = 1024;

/// Why the store did not do what it was asked. Nothing of it is stored then.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    #[error("disk full (or the database's size limit reached): nothing was stored; free space, it goes on by itself")]
    Full,
    #[error(
        "event log is at its cap of {bytes_max} bytes and a consumer has not read its oldest records: let it catch up or raise the cap"
    )]
    Cap { bytes_max: u64 },
    #[error("{topics_max} topics exist, the most that may; use fewer or raise the limit")]
    Topics { topics_max: usize },
    #[error("{jobs_max} jobs exist, the most that may; delete some or raise the limit")]
    Jobs { jobs_max: u32 },
    #[error("data cannot be read or written: nothing was stored; check the disk, it goes on by itself when that is well")]
    Sqlite {
        #[source]
        source: Arc<rusqlite::Error>,
    },
    #[error("sidecar is stopping: nothing was stored; try again when it is back")]
    Closed,
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull) {
            return Self::Full;
        }
        Self::Sqlite { source: Arc::new(error) }
    }
}

/// The way to the store for everything asynchronous. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    commands: mpsc::Sender<Command>,
    state_reads: mpsc::Sender<reader::StateRead>,
    log_reads: mpsc::Sender<reader::LogRead>,
    topics: Arc<RwLock<HashMap<Arc<str>, Arc<Topic>>>>,
    cursors_moved: Arc<Notify>,
    /// What has had its time is gone by this clock.
    pub(crate) clock: SteadyClock,
    defaults: (u16, Duration),
}

/// The threads of the store and what ends them.
#[derive(Debug)]
pub(crate) struct StoreThreads {
    commands: mpsc::Sender<Command>,
    writer: Mutex<Option<JoinHandle<()>>>,
    closing: Arc<AtomicBool>,
    /// True once the writer has ended for whatever reason.
    pub(crate) ended: watch::Receiver<bool>,
}

/// Opens the database of `options` and starts its threads. Blocks.
pub(crate) fn open(options: &Options) -> Result<(Store, StoreThreads), StartError> {
    open_by(options, SteadyClock::of_the_machine())
}

fn open_by(options: &Options, clock: SteadyClock) -> Result<(Store, StoreThreads), StartError> {
    let dir = &options.data_dir;
    std::fs::create_dir_all(dir).map_err(|source| match source.kind() {
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => StartError::ReadOnly { path: dir.clone(), source },
        _ => StartError::DataDir { path: dir.clone(), source },
    })?;
    let lock = lock(dir)?;
    let path = dir.join("sidecar.sqlite");
    let broken = |source: StoreError| StartError::Database { path: path.clone(), source };
    let db = schema::open(&path, options)?;
    let topics = Arc::new(RwLock::new(HashMap::new()));
    let (commands, queue) = mpsc::channel(QUEUE);
    let closing = Arc::new(AtomicBool::new(false));
    let (ended_tx, ended) = watch::channel(false);
    let checkpoints = checkpoint::start(&path, commands.downgrade()).map_err(broken)?;
    let mut writer =
        Writer::new(db, options, clock.clone(), topics.clone(), checkpoints, commands.downgrade(), closing.clone()).map_err(broken)?;
    for spec in &options.topics {
        writer.ensure_topic(&spec.name, spec.partitions, spec.retention.unwrap_or(options.default_retention)).map_err(broken)?;
    }
    let state_reads = reader::state(&path, clock.clone()).map_err(broken)?;
    let log_reads = reader::log(&path).map_err(broken)?;
    let thread = std::thread::Builder::new()
        .name("sidecar-writer".to_owned())
        .spawn(move || {
            // Said also when the thread panics.
            let _ended = Ended(ended_tx);
            writer.run(queue);
            drop(lock);
        })
        .map_err(|source| StartError::DataDir { path: dir.clone(), source })?;
    let store = Store {
        commands: commands.clone(),
        state_reads,
        log_reads,
        topics,
        cursors_moved: Arc::new(Notify::new()),
        clock,
        defaults: (options.default_partitions, options.default_retention),
    };
    let threads = StoreThreads { commands, writer: Mutex::new(Some(thread)), closing, ended };
    Ok((store, threads))
}

struct Ended(watch::Sender<bool>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.send_replace(true);
    }
}

/// The lock of the data directory; free again when this is dropped, and after a crash.
struct DataLock(File);

impl Drop for DataLock {
    /// Closing the file is not enough: a program that another thread starts just now shares it until it is executed, and would keep the lock.
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

fn lock(dir: &Path) -> Result<DataLock, StartError> {
    let read_only = |source| StartError::ReadOnly { path: dir.to_owned(), source };
    let file = File::options().create(true).truncate(false).write(true).open(dir.join("sidecar.lock")).map_err(read_only)?;
    match file.try_lock() {
        Ok(()) => Ok(DataLock(file)),
        Err(TryLockError::WouldBlock) => Err(StartError::Locked { path: dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(read_only(source)),
    }
}

impl StoreThreads {
    /// Ends the writer after everything queued, with a flush and a checkpoint.
    pub(crate) async fn stop(&self) {
        let (reply, done) = oneshot::channel();
        if self.commands.send(Command::Stop { reply }).await.is_ok() {
            let _ = done.await;
        }
        let mut ended = self.ended.clone();
        let _ = ended.wait_for(|ended| *ended).await;
        self.join();
    }

    fn join(&self) {
        let thread = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

impl Drop for StoreThreads {
    /// As a crash: what is committed stays, what is queued gets no answer, nothing is flushed. The lock is free after it.
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Release);
        // When the queue is full the writer is awake and sees the flag.
        let _ = self.commands.try_send(Command::Die);
        self.join();
    }
}

impl Store {
    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Command) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| StoreError::Closed)?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Appends records to a topic; durable on return.
    pub(crate) async fn publish(&self, topic: Arc<Topic>, records: RecordBuf) -> Result<(), StoreError> {
        if records.spans.is_empty() {
            return Ok(());
        }
        self.ask(|reply| Command::Publish { topic, records, reply }).await
    }

    /// Writes state. `atomic`: all or nothing. The answer has an entry per write.
    pub(crate) async fn write_state(&self, writes: Vec<StateWrite>, atomic: bool) -> Result<Vec<Result<(), Conflict>>, StoreError> {
        self.ask(|reply| Command::State { writes, atomic, reply }).await
    }

    async fn read<T>(&self, read: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> reader::StateRead) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.state_reads.send(read(reply)).await.map_err(|_| StoreError::Closed)?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Reads state; the answer has an entry per key.
    pub(crate) async fn read_state(&self, keys: Vec<String>) -> Result<Vec<Option<Found>>, StoreError> {
        self.read(|reply| reader::StateRead::State { keys, reply }).await
    }

    /// Writes a job; false when it exists and is not to be replaced.
    pub(crate) async fn put_job(&self, job: JobRow, overwrite: bool) -> Result<bool, StoreError> {
        self.ask(|reply| Command::PutJob { job, overwrite, reply }).await
    }

    pub(crate) async fn delete_job(&self, app: &str, name: &str) -> Result<bool, StoreError> {
        self.ask(|reply| Command::DeleteJob { app: app.to_owned(), name: name.to_owned(), reply }).await
    }

    /// Records the end of a call, unless the job was replaced meanwhile.
    pub(crate) async fn finish_job(&self, job: &JobRow, after: After) -> Result<bool, StoreError> {
        self.ask(|reply| Command::FinishJob { app: job.app.clone(), name: job.name.clone(), version: job.version, after, reply }).await
    }

    pub(crate) async fn job(&self, app: &str, name: &str) -> Result<Option<JobRow>, StoreError> {
        self.read(|reply| reader::StateRead::Job { app: app.to_owned(), name: name.to_owned(), reply }).await
    }

    /// Jobs of `apps` whose time has come, oldest first, and when the next one is due.
    pub(crate) async fn due_jobs(&self, apps: Vec<String>, now_ms: i64, rows_max: usize) -> Result<(Vec<JobRow>, Option<i64>), StoreError> {
        self.read(|reply| reader::StateRead::Due { apps, now_ms, rows_max, reply }).await
    }

    /// The topic of that name, if it exists.
    pub(crate) fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        self.topics.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// The topic of that name, made if need be.
    pub(crate) async fn ensure_topic(&self, name: &str) -> Result<Arc<Topic>, StoreError> {
        if let Some(topic) = self.topic(name) {
            return Ok(topic);
        }
        let (partitions, retention) = self.defaults;
        self.ask(|reply| Command::EnsureTopic { name: name.to_owned(), partitions, retention, reply }).await
    }

    /// The positions of a group in a topic; a new group starts at the oldest record.
    pub(crate) async fn join(&self, app: &str, topic: &Arc<Topic>) -> Result<Arc<CursorCell>, StoreError> {
        self.ask(|reply| Command::Join { app: app.to_owned(), topic: topic.id, reply }).await
    }

    /// Reads records that are no longer in memory. `hint`: batches up to this one hold nothing that is wanted.
    pub(crate) async fn read_log(&self, topic: &Arc<Topic>, hint: u64, want: Want) -> Result<(Records, u64), StoreError> {
        let (reply, answer) = oneshot::channel();
        self.log_reads.send(reader::LogRead { topic: topic.id, hint, want, reply }).await.map_err(|_| StoreError::Closed)?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Says that a group advanced: its position becomes durable before long.
    pub(crate) fn cursors_moved(&self) {
        self.cursors_moved.notify_one();
    }

    /// Makes positions durable, at most `wait` after they moved. Runs for ever.
    pub(crate) async fn flush_cursors(self, wait: Duration) {
        loop {
            self.cursors_moved.notified().await;
            tokio::time::sleep(wait).await;
            if self.commands.send(Command::Flush).await.is_err() {
                return;
            }
        }
    }

    /// Looks after retention, caps and expiry. Runs for ever.
    pub(crate) async fn sweep(self, every: Duration) {
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if self.commands.send(Command::Sweep).await.is_err() {
                return;
            }
        }
    }
}
