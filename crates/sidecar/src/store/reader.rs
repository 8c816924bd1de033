//! The threads that read: one for state and jobs, one for the event log.
//!
//! A read begins its transaction after the request came in, so it sees everything that was acknowledged before.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::StoreError;
use super::jobs::{self, JobRow};
use super::log;
use super::schema::open_reader;
use super::state::{self, Found};
use super::steady::SteadyClock;
use crate::record::{Batch, Records, Want};

/// Requests that may wait for a reader.
const QUEUE: usize = 1024;
/// Requests answered in one read transaction.
const TOGETHER: usize = 64;
/// Batches read from disk and kept for the next reader of the same place, in bytes.
const SHARED_BYTES_MAX: usize = 8 << 20;
/// Bytes looked through in one request.
const SCAN_BYTES_MAX: usize = 8 << 20;

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// A read of state or jobs.
#[derive(Debug)]
pub(crate) enum StateRead {
    State {
        keys: Vec<String>,
        reply: Reply<Vec<Option<Found>>>,
    },
    Job {
        app: String,
        name: String,
        reply: Reply<Option<JobRow>>,
    },
    /// Jobs whose time has come, oldest first, and when the next one is due.
    Due {
        apps: Vec<String>,
        now_ms: i64,
        rows_max: usize,
        reply: Reply<(Vec<JobRow>, Option<i64>)>,
    },
}

/// A read of the event log.
#[derive(Debug)]
pub(crate) struct LogRead {
    pub(crate) topic: u32,
    /// Batches up to this one hold nothing that is wanted.
    pub(crate) hint: u64,
    pub(crate) want: Want,
    /// The records, and the new hint when there were none.
    pub(crate) reply: Reply<(Records, u64)>,
}

/// Starts the reader of state and jobs. It ends when nobody can ask any more.
pub(crate) fn state(path: &Path, clock: SteadyClock) -> Result<mpsc::Sender<StateRead>, StoreError> {
    let db = open_reader(path, 4096)?;
    let (ask, mut asked) = mpsc::channel(QUEUE);
    spawn("sidecar-read-state", move || {
        let mut requests = Vec::with_capacity(TOGETHER);
        while asked.blocking_recv_many(&mut requests, TOGETHER) > 0 {
            // Without the transaction each statement takes and leaves the read lock.
            let began = db.execute_batch("BEGIN").is_ok();
            for request in requests.drain(..) {
                answer(&db, &clock, request);
            }
            if began {
                let _ = db.execute_batch("COMMIT");
            }
        }
    })?;
    Ok(ask)
}

fn answer(db: &Connection, clock: &SteadyClock, request: StateRead) {
    match request {
        StateRead::State { keys, reply } => {
            let _ = reply.send(state::read(db, &keys, clock.now_ms()).map_err(StoreError::from));
        }
        StateRead::Job { app, name, reply } => {
            let _ = reply.send(jobs::get(db, &app, &name).map_err(StoreError::from));
        }
        StateRead::Due { apps, now_ms, rows_max, reply } => {
            let _ = reply.send(jobs::due(db, &apps, now_ms, rows_max).map_err(StoreError::from));
        }
    }
}

/// Starts the reader of the event log. It ends when nobody can ask any more.
pub(crate) fn log(path: &Path) -> Result<mpsc::Sender<LogRead>, StoreError> {
    let db = open_reader(path, 1024)?;
    let (ask, mut asked) = mpsc::channel::<LogRead>(QUEUE);
    spawn("sidecar-read-log", move || {
        let mut shared = Shared::default();
        while let Some(read) = asked.blocking_recv() {
            let answer = shared.read(&db, read.topic, read.hint, &read.want);
            let _ = read.reply.send(answer.map_err(StoreError::from));
        }
    })?;
    Ok(ask)
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), StoreError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map(drop)
        .map_err(|source| StoreError::from(rusqlite::Error::ToSqlConversionFailure(Box::new(source))))
}

/// Batches read a moment ago. The partitions of a group that catches up ask for the same batches one after the other.
#[derive(Debug, Default)]
struct Shared {
    batches: HashMap<(u32, u64), Arc<Batch>>,
    order: VecDeque<(u32, u64)>,
    bytes: usize,
}

impl Shared {
    fn keep(&mut self, topic: u32, batch: &Arc<Batch>) {
        let key = (topic, batch.seq);
        if self.batches.insert(key, batch.clone()).is_none() {
            self.order.push_back(key);
            self.bytes += batch.memory();
        }
        while self.bytes > SHARED_BYTES_MAX {
            let Some(old) = self.order.pop_front() else {
                break;
            };
            if let Some(batch) = self.batches.remove(&old) {
                self.bytes -= batch.memory();
            }
        }
    }

    fn read(&mut self, db: &Connection, topic: u32, hint: u64, want: &Want) -> rusqlite::Result<(Records, u64)> {
        let mut records = Records::default();
        let mut seq = hint;
        let mut scanned = 0;
        let mut more = true;
        // Numbers have no gaps, so the next batch is either here or on disk.
        while let Some(batch) = self.batches.get(&(topic, seq + 1)) {
            seq = batch.seq;
            scanned += batch.data.len();
            more = records.take(batch, want);
            if !more || scanned > SCAN_BYTES_MAX {
                return Ok((records, seq));
            }
        }
        if more {
            log::read_batches(db, topic, seq, |batch| {
                seq = batch.seq;
                scanned += batch.data.len();
                self.keep(topic, &batch);
                !records.take(&batch, want) || scanned > SCAN_BYTES_MAX
            })?;
        }
        Ok((records, seq))
    }
}
