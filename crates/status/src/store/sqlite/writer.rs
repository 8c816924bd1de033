//! The thread that writes: takes what waits, makes one transaction of it, answers after the commit.
//!
//! A transaction that fails for want of room, or by a row that the database refuses, is done again command by command: only who brought that row gets
//! its error. Any other failure is the database's own and is everybody's.
//!
//! After such a failure the connection is opened anew before the next transaction, since what an operating system says once about a lost write it may
//! not say again.

use std::sync::Arc;
use std::time::Instant;

use rusqlite::Connection;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::apply::Applier;
use super::checkpoint::Checkpointer;
use super::{Command, Health, StoreOptions, pages_max, schema};
use crate::feed::Feed;
use crate::metrics;
use crate::reading::Incoming;
use crate::store::groups::{Grouped, Groups};
use crate::store::{Applied, StoreError};
use crate::wake::Waiters;

struct Writer {
    options: StoreOptions,
    connection: Option<Connection>,
    pages_max: Option<u32>,
    /// The last row given to an event.
    last_row: i64,
    health: Arc<Health>,
    waiters: Arc<Waiters>,
    feed: Arc<Feed>,
    checkpointer: Checkpointer,
}

/// Opens the database and starts the thread; it ends when all senders of `queue` are gone.
pub(super) fn start(
    options: StoreOptions,
    queue: mpsc::Receiver<Command>,
    health: Arc<Health>,
    waiters: Arc<Waiters>,
    feed: Arc<Feed>,
) -> Result<(), StoreError> {
    let no_thread = |source| StoreError::Thread(Arc::new(source));
    let checkpointer = Checkpointer::start(options.path.clone()).map_err(no_thread)?;
    let mut writer = Writer { options, connection: None, pages_max: None, last_row: 0, health, waiters, feed, checkpointer };
    writer.open()?;
    writer.feed.start_at(writer.last_row);
    let runtime = Handle::current();
    let mut groups = Groups::new(queue, Arc::clone(&writer.waiters), writer.options.group_open);
    let work = move || {
        while let Some(commands) = runtime.block_on(groups.next()) {
            writer.write(commands);
        }
    };
    std::thread::Builder::new().name("status-store".to_owned()).spawn(work).map_err(no_thread)?;
    Ok(())
}

impl Grouped for Command {
    fn events(&self) -> Option<&Arc<Vec<Incoming>>> {
        match self {
            Self::Events(events, _) => Some(events),
            Self::Run(_) => None,
        }
    }
}

impl Command {
    fn answer(self, outcome: Result<(), StoreError>) {
        match self {
            // A caller that went away will be delivered the events again.
            Self::Events(_, reply) => drop(reply.send(outcome)),
            Self::Run(run) => run.answer(outcome),
        }
    }
}

impl Writer {
    fn open(&mut self) -> Result<(), StoreError> {
        let connection = schema::open_to_write(&self.options.path)?;
        let last_row = connection.query_row("SELECT coalesce(max(seq), 0) FROM event", [], |row| row.get(0))?;
        // The last rows may have been removed, and the feed is past them.
        self.last_row = self.last_row.max(last_row);
        self.pages_max = None;
        self.connection = Some(connection);
        Ok(())
    }

    fn write(&mut self, mut commands: Vec<Command>) {
        let started = Instant::now();
        let batches: Vec<_> = commands.iter().filter_map(|command| command.events().map(Arc::clone)).collect();
        match self.transact(batches.iter().flat_map(|batch| batch.iter()), &mut commands) {
            Ok(applied) => {
                metrics::committed(started.elapsed(), applied.stored.len(), applied.doubled);
                self.health.set(None);
                self.last_row = applied.last_row;
                self.waiters.wake(&applied.stored);
                // Before the answer: who begins to listen after it is told of nothing that came before.
                self.feed.publish(self.last_row, &applied.stored);
                commands.into_iter().for_each(|command| command.answer(Ok(())));
                self.checkpointer.committed(applied.stored.iter().map(|(_, event)| event.body.len()).sum());
            }
            Err(error) if commands.len() > 1 && (error.is_refusal() || error.is_full()) => {
                commands.into_iter().for_each(|command| self.write(vec![command]));
            }
            Err(error) => {
                metrics::commit_failed();
                if error.is_refusal() {
                    tracing::error!(error = %fte_service::chain(&error), "the status database refuses a row");
                } else {
                    tracing::error!(error = %fte_service::chain(&error), "the status database cannot be written; events will be delivered again");
                    self.connection = None;
                    if let StoreError::Database(cause) = &error {
                        self.health.set(Some(Arc::clone(cause)));
                    }
                }
                commands.into_iter().for_each(|command| command.answer(Err(error.clone())));
            }
        }
    }

    fn transact<'a>(&mut self, events: impl Iterator<Item = &'a Incoming>, commands: &mut [Command]) -> Result<Applied<'a>, StoreError> {
        if self.connection.is_none() {
            self.open()?;
        }
        let limit = pages_max(&self.options);
        let Some(connection) = &mut self.connection else { return Err(StoreError::Closed) };
        if limit != self.pages_max {
            connection.pragma_update(None, "max_page_count", limit.unwrap_or(u32::MAX - 1))?;
            self.pages_max = limit;
        }
        let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let applied = Applier::new(&transaction, self.last_row)?.apply(events)?;
        for command in commands {
            if let Command::Run(run) = command {
                run.run(&transaction)?;
            }
        }
        transaction.commit()?;
        Ok(applied)
    }
}
