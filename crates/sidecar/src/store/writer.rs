//! The one writer: everything that waits becomes one transaction and one fsync.
//!
//! * The next transaction begins as soon as the last one is answered. Load makes batches; nothing waits for a timer.
//! * What other threads see of a topic (its heads, its recent records) is changed after the commit, never before.
//! * A transaction that fails as a whole is rolled back and its commands are done again one by one, so that a delete still
//!   gets through when the disk is too full for the publication beside it. Nothing failed is ever acknowledged.

mod away;
mod retention;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rusqlite::Connection;
use tokio::sync::mpsc::{Receiver, WeakSender};

use super::StoreError;
use super::checkpoint::{self, Checkpoints};
use super::command::{Command, Outcome};
use super::jobs::{self, After};
use super::log::{self, Cursor, CursorCell, Ends};
use super::state;
use super::steady::SteadyClock;
use crate::metrics;
use crate::options::Options;
use crate::record::{Batch, RecordBuf};
use crate::topics::Topic;

/// Commands in one transaction.
const TOGETHER: usize = 512;
/// Bytes in one transaction, so that those behind do not wait too long.
const TOGETHER_BYTES: usize = 4 << 20;
/// Written bytes, or commits, after which the write-ahead log is moved into the database, and then written from its beginning. What overwrites it is
/// durable sooner than what makes it longer, and each commit writes whole pages however little it has to say: so commits count, too.
const CHECKPOINT_BYTES: usize = 24 << 20;
const CHECKPOINT_COMMITS: usize = 1024;
/// Failing writes are logged this often.
const WARN_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct TopicLog {
    topic: Arc<Topic>,
    ends: Ends,
    retention_ms: i64,
}

#[derive(Debug)]
struct Group {
    cell: Arc<CursorCell>,
    /// What the database says.
    durable: Vec<Cursor>,
    seen_ms: i64,
}

/// A batch in the transaction, visible once that is committed.
#[derive(Debug)]
struct Staged {
    batch: Arc<Batch>,
    topic: u32,
    at_ms: i64,
    total: u64,
}

pub(crate) struct Writer {
    db: Connection,
    /// What has had its time goes by this one; what is written says the time by the wall clock.
    clock: SteadyClock,
    registry: Arc<RwLock<HashMap<Arc<str>, Arc<Topic>>>>,
    topics: HashMap<u32, TopicLog>,
    groups: Vec<Group>,
    /// Topics in the order their batches came into memory.
    tail: VecDeque<Arc<Topic>>,
    tail_bytes: usize,
    /// Bytes of the event log, in the database.
    log_bytes: u64,
    jobs: u64,
    /// Bytes and commits since the last checkpoint was asked for.
    unchecked: (usize, usize),
    checkpoints: Checkpoints,
    queue: WeakSender<Command>,
    closing: Arc<AtomicBool>,
    warned: Option<Instant>,
    limits: Caps,
}

#[derive(Debug)]
struct Caps {
    log_bytes_max: u64,
    tail_bytes_max: usize,
    topics_max: usize,
    jobs_max: u32,
    group_expiry_ms: i64,
}

/// The wall clock, in Unix milliseconds.
pub(crate) fn now_ms() -> i64 {
    Timestamp::now().as_millisecond()
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl Writer {
    pub(crate) fn new(
        mut db: Connection,
        options: &Options,
        clock: SteadyClock,
        registry: Arc<RwLock<HashMap<Arc<str>, Arc<Topic>>>>,
        checkpoints: Checkpoints,
        queue: WeakSender<Command>,
        closing: Arc<AtomicBool>,
    ) -> Result<Self, StoreError> {
        away::leave_out(&mut db, now_ms())?;
        let mut writer = Self {
            clock,
            registry,
            topics: HashMap::new(),
            groups: Vec::new(),
            tail: VecDeque::new(),
            tail_bytes: 0,
            log_bytes: 0,
            jobs: jobs::count(&db)?,
            unchecked: (0, 0),
            checkpoints,
            queue,
            closing,
            warned: None,
            limits: Caps {
                log_bytes_max: options.bytes_max,
                tail_bytes_max: options.limits.tail_bytes_max,
                topics_max: options.limits.topics_max,
                jobs_max: options.limits.jobs_max,
                group_expiry_ms: millis(options.limits.group_expiry),
            },
            db,
        };
        for row in log::topics(&writer.db)? {
            writer.know_topic(&row)?;
        }
        for log::GroupRow { app, topic, seen_ms, positions: durable } in log::groups(&writer.db)? {
            writer.groups.push(Group { cell: Arc::new(CursorCell::new(app.into(), topic, durable.clone())), durable, seen_ms });
        }
        Ok(writer)
    }

    fn know_topic(&mut self, row: &log::TopicRow) -> Result<Arc<Topic>, StoreError> {
        let ends = log::ends(&self.db, row)?;
        let name: Arc<str> = row.name.as_str().into();
        let topic = Arc::new(Topic::new(row.id, name.clone(), ends.last_seq, ends.heads.clone()));
        self.log_bytes += ends.total - ends.base;
        self.topics.insert(row.id, TopicLog { topic: topic.clone(), ends, retention_ms: row.retention_ms });
        self.registry.write().unwrap_or_else(PoisonError::into_inner).insert(name, topic.clone());
        Ok(topic)
    }

    /// Works until it is stopped or told to die.
    pub(crate) fn run(mut self, mut queue: Receiver<Command>) {
        let mut taken = Vec::with_capacity(TOGETHER);
        let mut together = Vec::with_capacity(TOGETHER);
        while queue.blocking_recv_many(&mut taken, TOGETHER) > 0 {
            if self.closing.load(Ordering::Acquire) {
                return;
            }
            let mut bytes = 0;
            for command in taken.drain(..) {
                if command.shares() {
                    bytes += command.bytes();
                    together.push(command);
                    if bytes >= TOGETHER_BYTES {
                        self.commit(&mut together);
                        bytes = 0;
                    }
                    continue;
                }
                self.commit(&mut together);
                bytes = 0;
                match command {
                    Command::Stop { reply } => {
                        self.flush(true);
                        if let Err(error) = self.db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())) {
                            tracing::warn!(error = %error, "last checkpoint failed; the next start does it");
                        }
                        let _ = reply.send(Ok(()));
                        return;
                    }
                    Command::Die => return,
                    other => self.alone(other),
                }
            }
            self.commit(&mut together);
        }
    }

    fn alone(&mut self, command: Command) {
        match command {
            Command::EnsureTopic { name, partitions, retention, reply } => {
                let _ = reply.send(self.ensure_topic(&name, partitions, retention));
            }
            Command::Join { app, topic, reply } => {
                let _ = reply.send(self.join(&app, topic));
            }
            Command::Flush => self.flush(false),
            Command::Sweep => self.sweep(),
            Command::Checkpoint => self.finish_checkpoint(),
            _ => {}
        }
    }

    /// Makes a topic, or finds it.
    pub(crate) fn ensure_topic(&mut self, name: &str, partitions: u16, retention: Duration) -> Result<Arc<Topic>, StoreError> {
        let known = self.registry.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        let retention_ms = millis(retention);
        if let Some(topic) = known {
            if topic.partitions != partitions {
                tracing::warn!(
                    topic = name,
                    has = topic.partitions,
                    asked = partitions,
                    "the number of partitions of a topic stays: another would break the order of its keys"
                );
            }
            if let Some(log) = self.topics.get_mut(&topic.id)
                && log.retention_ms != retention_ms
            {
                log::put_topic(&self.db, name, topic.partitions, retention_ms)?;
                log.retention_ms = retention_ms;
            }
            return Ok(topic);
        }
        if self.topics.len() >= self.limits.topics_max {
            return Err(StoreError::Topics { topics_max: self.limits.topics_max });
        }
        let row = log::put_topic(&self.db, name, partitions.max(1), retention_ms)?;
        self.know_topic(&row)
    }

    fn join(&mut self, app: &str, topic: u32) -> Result<Arc<CursorCell>, StoreError> {
        let now_ms = now_ms();
        if let Some(group) = self.groups.iter_mut().find(|group| &*group.cell.app == app && group.cell.topic == topic) {
            // Whoever comes for less than an hour each day is here all the same.
            if (now_ms - group.seen_ms).abs() > retention::SEEN_EVERY_MS {
                log::put_cursors(&self.db, app, topic, now_ms, &group.durable)?;
            }
            group.seen_ms = now_ms;
            group.cell.mark();
            return Ok(group.cell.clone());
        }
        let Some(log) = self.topics.get(&topic) else {
            return Err(StoreError::Closed);
        };
        // What is too old may still be there, for another group or as the last batch of all; nobody new is given it, who may have been here before.
        let (lows, first_seq) = log::since(&self.db, topic, self.clock.now_ms().saturating_sub(log.retention_ms))?
            .map_or_else(|| (log.ends.heads.clone(), log.ends.last_seq + 1), |oldest| (oldest.lows, oldest.seq));
        let positions: Vec<Cursor> = lows.into_iter().map(|next| Cursor { next, hint: first_seq - 1 }).collect();
        log::put_cursors(&self.db, app, topic, now_ms, &positions)?;
        let cell = Arc::new(CursorCell::new(app.into(), topic, positions.clone()));
        self.groups.push(Group { cell: cell.clone(), durable: positions, seen_ms: now_ms });
        Ok(cell)
    }

    /// Does `commands` in one transaction and answers them.
    fn commit(&mut self, commands: &mut Vec<Command>) {
        if commands.is_empty() {
            return;
        }
        let incoming: usize = commands.iter().map(Command::bytes).sum();
        if self.log_bytes + incoming as u64 > self.limits.log_bytes_max {
            self.make_room(incoming as u64);
        }
        let began = Instant::now();
        let result = self.transact(commands);
        let wrote = Instant::now();
        match result {
            Ok((outcomes, staged)) => {
                let touched = self.publish_staged(staged);
                for (command, outcome) in commands.drain(..).zip(outcomes) {
                    command.answer(outcome);
                }
                for topic in touched {
                    topic.wake();
                }
                metrics::committed(began, wrote, incoming);
                self.unchecked = (self.unchecked.0 + incoming, self.unchecked.1 + 1);
                if self.unchecked.0 >= CHECKPOINT_BYTES || self.unchecked.1 >= CHECKPOINT_COMMITS {
                    self.unchecked = (0, 0);
                    self.checkpoints.ask();
                }
            }
            Err(error) if commands.len() == 1 => {
                self.warn_failed(&error);
                metrics::commit_failed();
                for command in commands.drain(..) {
                    command.answer(Outcome::Failed(error.clone()));
                }
            }
            Err(error) => {
                self.warn_failed(&error);
                for command in std::mem::take(commands) {
                    self.commit(&mut vec![command]);
                }
            }
        }
    }

    /// A full disk fails every write: one line a second says it.
    fn warn_failed(&mut self, error: &StoreError) {
        if self.warned.is_none_or(|at| at.elapsed() > WARN_EVERY) {
            self.warned = Some(Instant::now());
            tracing::warn!(error = %crate::chain(error), "writes fail");
            // On a full disk the write-ahead log may be what there is to reuse.
            self.checkpoints.ask();
        }
    }

    fn transact(&mut self, commands: &[Command]) -> Result<(Vec<Outcome>, Vec<Staged>), StoreError> {
        self.db.execute_batch("BEGIN IMMEDIATE")?;
        let done = self.work(commands).and_then(|done| {
            self.db.execute_batch("COMMIT")?;
            Ok(done)
        });
        if done.is_err() && !self.db.is_autocommit() {
            // Some errors roll back by themselves, others leave that to us.
            let _ = self.db.execute_batch("ROLLBACK");
        }
        let (outcomes, staged, jobs) = done?;
        self.jobs = jobs;
        Ok((outcomes, staged))
    }

    fn work(&self, commands: &[Command]) -> Result<(Vec<Outcome>, Vec<Staged>, u64), StoreError> {
        let (now_ms, steady_ms) = (now_ms(), self.clock.now_ms());
        let mut log_bytes = self.log_bytes;
        let mut jobs = self.jobs;
        let mut outcomes = Vec::with_capacity(commands.len());
        // In order of first use, so that the same commands give the same rows.
        let mut parts: Vec<(u32, Vec<&RecordBuf>)> = Vec::new();
        for command in commands {
            outcomes.push(match command {
                Command::Publish { topic, records, .. } => {
                    log_bytes += records.bytes.len() as u64;
                    if log_bytes > self.limits.log_bytes_max {
                        log_bytes -= records.bytes.len() as u64;
                        Outcome::Failed(StoreError::Cap { bytes_max: self.limits.log_bytes_max })
                    } else {
                        match parts.iter_mut().find(|(id, _)| *id == topic.id) {
                            Some((_, parts)) => parts.push(records),
                            None => parts.push((topic.id, vec![records])),
                        }
                        Outcome::Done
                    }
                }
                Command::State { writes, atomic, .. } => Outcome::State(if *atomic {
                    state::write_all(&self.db, writes, steady_ms)?
                } else {
                    state::write_each(&self.db, writes, steady_ms)?
                }),
                Command::PutJob { job, overwrite, .. } => {
                    if jobs >= u64::from(self.limits.jobs_max) && jobs::get(&self.db, &job.app, &job.name)?.is_none() {
                        Outcome::Failed(StoreError::Jobs { jobs_max: self.limits.jobs_max })
                    } else {
                        // Counts a replaced job twice until the next start: the limit is a safeguard, not a quota.
                        let changed = jobs::put(&self.db, job, *overwrite)?;
                        jobs += changed as u64;
                        Outcome::Changed(changed)
                    }
                }
                Command::DeleteJob { app, name, .. } => {
                    let changed = jobs::delete(&self.db, app, name)?;
                    jobs = jobs.saturating_sub(changed as u64);
                    Outcome::Changed(changed)
                }
                Command::FinishJob { app, name, version, after, .. } => {
                    let changed = jobs::finish(&self.db, app, name, *version, *after)?;
                    if *after == After::Over {
                        jobs = jobs.saturating_sub(changed as u64);
                    }
                    Outcome::Changed(changed)
                }
                _ => Outcome::Done,
            });
        }
        let mut staged = Vec::with_capacity(parts.len());
        for (topic, parts) in parts {
            let Some(log) = self.topics.get(&topic) else {
                return Err(StoreError::Closed);
            };
            let batch = Batch::build(log.ends.last_seq + 1, &log.ends.heads, parts.iter().copied());
            let total = log.ends.total + batch.data.len() as u64;
            log::put_batch(&self.db, topic, &batch, now_ms, total)?;
            staged.push(Staged { batch: Arc::new(batch), topic, at_ms: now_ms, total });
        }
        Ok((outcomes, staged, jobs))
    }

    /// Makes committed batches visible; returns the topics to wake once the publishers are answered.
    fn publish_staged(&mut self, staged: Vec<Staged>) -> Vec<Arc<Topic>> {
        let mut touched = Vec::with_capacity(staged.len());
        for Staged { batch, topic, at_ms, total } in staged {
            let Some(log) = self.topics.get_mut(&topic) else {
                continue;
            };
            self.log_bytes += total - log.ends.total;
            if log.ends.last_seq == 0 {
                log.ends.first_at_ms = at_ms;
            }
            log.ends.last_seq = batch.seq;
            log.ends.total = total;
            for (head, place) in log.ends.heads.iter_mut().zip(&batch.places) {
                *head = place.next;
            }
            self.tail_bytes += batch.memory();
            log.topic.append(batch);
            self.tail.push_back(log.topic.clone());
            touched.push(log.topic.clone());
        }
        while self.tail_bytes > self.limits.tail_bytes_max {
            let Some(topic) = self.tail.pop_front() else {
                break;
            };
            self.tail_bytes = self.tail_bytes.saturating_sub(topic.evict());
        }
        touched
    }

    /// Copies what came into the write-ahead log while the other thread copied the rest.
    fn finish_checkpoint(&self) {
        if let Err(error) = checkpoint::finish(&self.db) {
            tracing::warn!(error = %error, "checkpoint failed; it is tried again");
        }
    }
}
