//! The read model in a PostgreSQL that several processes share.
//!
//! Every write begins by locking the one row of `fte_status.head`, which holds the last number given to an event, and keeps it to its commit. So writers
//! take turns, as SQLite's do, and rows become visible in the order of their numbers: a reader that has seen a row has been able to see all before it. (A
//! sequence gives numbers before the commit, and a number that commits late would be passed over by a stream that goes by numbers. An horizon of
//! transaction ids would hold streams back behind any long transaction of the server. And a task is read, folded and written by whoever has news of
//! it, so two writers would have to take turns anyway, or meet in deadlocks.) What keeps this fast is group commit: a turn takes all that has come.
//!
//! Who waits and who listens at another process is told by `NOTIFY`, and looks by itself every second (see `tail`).
//!
//! Sessions hold locks and prepared statements: a pooler in front must pool by session.

mod apply;
mod artifacts;
mod connection;
mod erasing;
mod letters;
mod reads;
mod schema;
mod sweep;
mod tail;
mod writer;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fte_service::Secret;
use tokio::sync::{mpsc, oneshot};

pub(crate) use self::connection::Lock;
use self::connection::{Connector, Pool};
use super::artifacts::Settled;
use super::erasing::Forgotten;
use super::letters::{LetterRow, LetterState, NewLetter};
use super::sweep::{Cutoff, Sweep, Swept};
use super::{OPEN, StoreError};
use crate::feed::Feed;
use crate::reading::Incoming;
use crate::wake::Waiters;

/// How the server is used.
#[derive(Debug, Clone)]
pub(crate) struct PostgresOptions {
    /// `postgres://user:password@host/database`.
    pub url: Secret,
    /// Connections that read. Three more write, listen and hold locks.
    pub readers_max: usize,
    /// Batches that may wait for the writer before their senders are made to wait.
    pub queue_max: usize,
    /// How long a transaction stays open for more events.
    pub group_open: Duration,
    /// How often it is looked for what others committed, should their notices not come.
    pub look_every: Duration,
}

impl PostgresOptions {
    /// The usual limits.
    pub(crate) fn at(url: Secret) -> Self {
        Self { url, readers_max: 4, queue_max: 64, group_open: OPEN, look_every: Duration::from_secs(1) }
    }
}

/// The store on a server; cheap to clone. Its tasks end when the last clone is gone.
#[derive(Clone)]
pub(crate) struct Postgres {
    commands: mpsc::Sender<Command>,
    pool: Arc<Pool>,
    connector: Arc<Connector>,
    health: Arc<Mutex<Option<StoreError>>>,
    _tail: Arc<tail::Tail>,
}

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// What the writer is asked for, with the way to answer.
enum Command {
    Events(Arc<Vec<Incoming>>, Reply<()>),
    Letters(Arc<Vec<NewLetter>>, Reply<usize>),
    Decide { id: String, state: LetterState, at_us: i64, reply: Reply<Option<LetterRow>> },
    Sweep { step: Sweep, cutoff: Cutoff, reply: Reply<Swept> },
    Settle { settled: Settled, now_ms: i64, reply: Reply<()> },
    Forget { forgotten: Forgotten, reply: Reply<usize> },
    Probe(Reply<()>),
}

impl Postgres {
    /// Connects, makes what tables are missing, and starts to write and to listen.
    pub(crate) async fn connect(options: PostgresOptions, waiters: Arc<Waiters>, feed: Arc<Feed>) -> Result<Self, StoreError> {
        let connector = Arc::new(Connector::new(&options.url)?);
        let head = schema::prepare(&connector).await?;
        feed.start_at(head);
        let health = Arc::default();
        let (commands, queue) = mpsc::channel(options.queue_max);
        let tail = Arc::new(tail::Tail::start(Arc::clone(&connector), Arc::clone(&waiters), feed, options.look_every));
        let writer = writer::Writer::new(Arc::clone(&connector), Arc::clone(&health), waiters, tail.handle());
        tokio::spawn(writer.run(queue, options.group_open));
        let pool = Arc::new(Pool::new(Arc::clone(&connector), options.readers_max));
        Ok(Self { commands, pool, connector, health, _tail: tail })
    }

    /// Stores events and folds them into their tasks, all or none; `Ok` once that is durable.
    pub(crate) async fn record_together(&self, events: Arc<Vec<Incoming>>) -> Result<(), StoreError> {
        self.ask(|reply| Command::Events(events, reply)).await
    }

    pub(crate) async fn record_letters(&self, letters: Arc<Vec<NewLetter>>) -> Result<usize, StoreError> {
        self.ask(|reply| Command::Letters(letters, reply)).await
    }

    pub(crate) async fn decide(&self, id: String, state: LetterState, at_us: i64) -> Result<Option<LetterRow>, StoreError> {
        self.ask(|reply| Command::Decide { id, state, at_us, reply }).await
    }

    pub(crate) async fn sweep(&self, step: Sweep, cutoff: Cutoff) -> Result<Swept, StoreError> {
        self.ask(|reply| Command::Sweep { step, cutoff, reply }).await
    }

    pub(crate) async fn forget(&self, forgotten: Forgotten) -> Result<usize, StoreError> {
        self.ask(|reply| Command::Forget { forgotten, reply }).await
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, StoreError> {
        let (reply, outcome) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| StoreError::Closed)?;
        outcome.await.map_err(|_| StoreError::Closed)?
    }

    pub(crate) async fn check(&self) -> Result<(), StoreError> {
        if self.commands.is_closed() {
            return Err(StoreError::Closed);
        }
        let failed = self.health.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        if failed {
            return self.ask(Command::Probe).await;
        }
        self.pool.reader().await?.query("SELECT 1", &[]).await.map(drop)
    }

    pub(crate) fn ended(&self) -> impl Future<Output = ()> + Send + 'static {
        let commands = self.commands.clone();
        async move { commands.closed().await }
    }

    pub(super) async fn lock_to_decide(&self) -> Result<Lock, StoreError> {
        self.connector.lock(connection::DECIDING).await
    }

    pub(super) async fn lock_to_sweep(&self) -> Result<Option<Lock>, StoreError> {
        self.connector.try_lock(connection::SWEEPING).await
    }
}

impl Command {
    fn answer_error(self, error: StoreError) {
        // A caller that went away does not need the answer.
        match self {
            Self::Events(_, reply) | Self::Settle { reply, .. } | Self::Probe(reply) => drop(reply.send(Err(error))),
            Self::Letters(_, reply) | Self::Forget { reply, .. } => drop(reply.send(Err(error))),
            Self::Decide { reply, .. } => drop(reply.send(Err(error))),
            Self::Sweep { reply, .. } => drop(reply.send(Err(error))),
        }
    }
}
