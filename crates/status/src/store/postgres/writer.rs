//! The task that writes: takes what waits, makes one transaction of it, answers after the commit.
//!
//! A transaction that fails by a row that the server refuses is done again command by command: only who brought that row gets its error. Any other
//! failure is everybody's, and the connection is made anew before the next transaction: whether a commit whose answer was lost took effect is found
//! out when its events come again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::apply::apply;
use super::connection::{Connector, Session};
use super::tail::TailHandle;
use super::{Command, artifacts, erasing, letters, sweep};
use crate::metrics;
use crate::reading::Incoming;
use crate::store::groups::{Grouped, Groups};
use crate::store::letters::LetterRow;
use crate::store::sweep::Swept;
use crate::store::{Applied, StoreError};
use crate::wake::Waiters;

pub(super) struct Writer {
    connector: Arc<Connector>,
    session: Option<Session>,
    health: Arc<Mutex<Option<StoreError>>>,
    waiters: Arc<Waiters>,
    tail: TailHandle,
}

/// What a command gives besides its effect.
enum Value {
    Nothing,
    /// How many rows it was about.
    Letters(usize),
    Decided(Option<LetterRow>),
    Swept(Swept),
}

impl Writer {
    pub(super) fn new(connector: Arc<Connector>, health: Arc<Mutex<Option<StoreError>>>, waiters: Arc<Waiters>, tail: TailHandle) -> Self {
        Self { connector, session: None, health, waiters, tail }
    }

    /// Writes until all senders of `queue` are gone.
    pub(super) async fn run(mut self, queue: mpsc::Receiver<Command>, open: Duration) {
        let mut groups = Groups::new(queue, Arc::clone(&self.waiters), open);
        while let Some(commands) = groups.next().await {
            if let Some(commands) = self.write(commands).await {
                for command in commands {
                    self.write(vec![command]).await;
                }
            }
        }
    }

    /// Gives back commands that are to be written one by one.
    async fn write(&mut self, commands: Vec<Command>) -> Option<Vec<Command>> {
        let started = Instant::now();
        let batches: Vec<_> = commands.iter().filter_map(|command| command.events().map(Arc::clone)).collect();
        let outcome = self.transact(batches.iter().flat_map(|batch| batch.iter()).collect(), &commands).await;
        match outcome {
            Ok((before, applied, values)) => {
                metrics::committed(started.elapsed(), applied.stored.len(), applied.doubled);
                self.set_health(None);
                self.waiters.wake(&applied.stored);
                commands.into_iter().zip(values).for_each(|(command, value)| answer(command, value));
                self.tail.committed(before, applied.last_row, &applied.stored);
                None
            }
            Err(error) if commands.len() > 1 && error.is_refusal() => {
                self.session = None;
                Some(commands)
            }
            Err(error) => {
                metrics::commit_failed();
                self.session = None;
                if error.is_refusal() {
                    tracing::error!(error = %fte_service::chain(&error), "the status database refuses a row");
                } else {
                    tracing::error!(error = %fte_service::chain(&error), "the status database cannot be written; events will be delivered again");
                    self.set_health(Some(error.clone()));
                }
                commands.into_iter().for_each(|command| command.answer_error(error.clone()));
                None
            }
        }
    }

    async fn transact<'a>(
        &mut self,
        events: Vec<&'a Incoming>,
        commands: &[Command],
    ) -> Result<(i64, Applied<'a>, Vec<Value>), StoreError> {
        let session = match &mut self.session {
            Some(session) => session,
            none => none.insert(self.connector.session().await?),
        };
        session.batch("BEGIN").await?;
        let head: i64 = session.query_one("SELECT seq FROM fte_status.head FOR UPDATE", &[]).await?.get(0);
        let applied = apply(session, head, events).await?;
        let mut values = Vec::with_capacity(commands.len());
        for command in commands {
            values.push(match command {
                Command::Events(..) | Command::Probe(_) => Value::Nothing,
                Command::Settle { settled, now_ms, .. } => {
                    artifacts::settle(session, settled, *now_ms).await?;
                    Value::Nothing
                }
                Command::Letters(letters, _) => Value::Letters(letters::record(session, letters).await?),
                Command::Decide { id, state, at_us, .. } => Value::Decided(letters::decide(session, id, *state, *at_us).await?),
                Command::Forget { forgotten, .. } => Value::Letters(erasing::forget(session, forgotten).await?),
                Command::Sweep { step, cutoff, .. } => Value::Swept(sweep::step(session, step.clone(), *cutoff).await?),
            });
        }
        if applied.last_row > head {
            session.execute("UPDATE fte_status.head SET seq = $1", &[&applied.last_row]).await?;
            session.query("SELECT pg_notify('fte_status', '')", &[]).await?;
        }
        session.batch("COMMIT").await?;
        Ok((head, applied, values))
    }

    fn set_health(&self, error: Option<StoreError>) {
        *self.health.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }
}

impl Grouped for Command {
    fn events(&self) -> Option<&Arc<Vec<Incoming>>> {
        match self {
            Self::Events(events, _) => Some(events),
            _ => None,
        }
    }
}

/// Answers a command with the value that `transact` made of it. A caller that went away does not need it.
fn answer(command: Command, value: Value) {
    match (command, value) {
        (Command::Events(_, reply) | Command::Settle { reply, .. } | Command::Probe(reply), _) => drop(reply.send(Ok(()))),
        (Command::Letters(_, reply) | Command::Forget { reply, .. }, Value::Letters(count)) => drop(reply.send(Ok(count))),
        (Command::Decide { reply, .. }, Value::Decided(row)) => drop(reply.send(Ok(row))),
        (Command::Sweep { reply, .. }, Value::Swept(swept)) => drop(reply.send(Ok(swept))),
        (command, _) => command.answer_error(StoreError::Closed),
    }
}
