//! Where the read model lives: in a SQLite file of one process, or in a PostgreSQL that several share. What an event means is decided by neither
//! (see `reading` and `model`); both keep the same promises and pass the same tests.
//!
//! Always true:
//! * What was answered `Ok` is durable: answered after the commit.
//! * An event, by (`source`, `id`), is stored and folded once, in one transaction with the task it changes.
//! * Rows are visible in the order of their numbers: who has seen a row has been able to see all before it.
//! * Whoever waits for a task hears of a commit after it can be read.
//! * A failed write answers its callers with the error and changes nothing; the next one tries anew. Nothing needs a restart.
//! * A row that the database does not take fails its own caller and nobody who happened to wait with it.
//!
//! Writing is group commit: see `groups`.

mod artifacts;
mod erasing;
mod groups;
mod letters;
#[cfg(feature = "postgres")]
mod postgres;
mod reads;
mod sqlite;
mod sweep;

use std::path::PathBuf;
use std::sync::Arc;

use fte_events::{Status, TaskId};
use fte_service::keys::Scope;
use rusqlite::ErrorCode;

pub(crate) use self::artifacts::{Settled, Unnamed};
pub(crate) use self::erasing::Forgotten;
pub(crate) use self::groups::OPEN;
pub(crate) use self::letters::{LetterRow, LetterState, NewLetter};
#[cfg(feature = "postgres")]
pub(crate) use self::postgres::{Postgres, PostgresOptions};
pub(crate) use self::reads::{BYTES_MAX, EventRow, ListQuery, Rows, TaskEvents, TaskPlace, TaskRow};
pub(crate) use self::sqlite::{Sqlite, StoreOptions};
pub(crate) use self::sweep::{Cutoff, Sweep, Swept};
use crate::feed::Feed;
use crate::naming::Named;
use crate::reading::{EventId, Incoming};
use crate::sse::Filter;
use crate::tenant::Tenant;
use crate::wake::Waiters;

/// A failed read or write.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The database refused: no space, no permission, a broken disk.
    #[error("the status database failed")]
    Database(#[source] Arc<rusqlite::Error>),
    /// The directory of the database cannot be made.
    #[error("the directory {} of the status database cannot be made", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// The file may only be read.
    #[error("the status database {} is read-only: give this user the right to write it and its directory", path.display())]
    ReadOnly {
        /// The file.
        path: PathBuf,
    },
    /// The writing thread cannot be started.
    #[error("the thread that writes the status database cannot be started")]
    Thread(#[source] Arc<std::io::Error>),
    /// The file was written by a newer version.
    #[error("the status database {} has schema {found}, this version reads {known}: use the newer version, or remove the file and rebuild", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// The server refused, or was not there.
    #[cfg(feature = "postgres")]
    #[error("the status database failed")]
    Server(#[source] Arc<tokio_postgres::Error>),
    /// The URL of the server cannot be used. It is not shown: it holds a password.
    #[error("FTE_STATUS_DATABASE_URL cannot be used: expected postgres://user:password@host/database")]
    Url,
    /// The server's tables were made by another version.
    #[error(
        "the tables of the status database have version {found}, this version reads {known}: use the other version, or drop the schema fte_status and rebuild"
    )]
    NewerServer {
        /// Their version.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// A row holds what no version of this program wrote.
    #[error("a row of the status database cannot be read")]
    Unreadable,
    /// Every reading connection was busy for too long.
    #[error("the status database is busy: try again")]
    Busy,
    /// The writer has ended.
    #[error("the status database is closed")]
    Closed,
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(Arc::new(error))
    }
}

#[cfg(feature = "postgres")]
impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Server(Arc::new(error))
    }
}

impl StoreError {
    /// Whether it is a row that the database does not take, rather than a database that takes none: the same row fails again, others do not.
    pub(crate) fn is_refusal(&self) -> bool {
        #[cfg(feature = "postgres")]
        if let Self::Server(error) = self {
            // Data of a wrong form (a NUL in a text), a violated constraint, a row too large for its index; and a value that has no column's form.
            return match error.code() {
                Some(state) => ["22", "23", "54"].iter().any(|class| state.code().starts_with(class)),
                None => false,
            };
        }
        let Self::Database(error) = self else { return false };
        match error.sqlite_error_code() {
            Some(code) => {
                matches!(
                    code,
                    ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig | ErrorCode::ParameterOutOfRange
                )
            }
            // Ours: a value that has no column's form, or a column that has no value's.
            None => matches!(
                **error,
                rusqlite::Error::ToSqlConversionFailure(_)
                    | rusqlite::Error::FromSqlConversionFailure(..)
                    | rusqlite::Error::IntegralValueOutOfRange(..)
                    | rusqlite::Error::InvalidColumnType(..)
            ),
        }
    }

    /// Whether there was no room: something smaller, or a delete, may still find some.
    pub(super) fn is_full(&self) -> bool {
        matches!(self, Self::Database(error) if error.sqlite_error_code() == Some(ErrorCode::DiskFull))
    }
}

/// The read model; cheap to clone.
#[derive(Clone)]
pub(crate) struct Store {
    home: Home,
    waiters: Arc<Waiters>,
    feed: Arc<Feed>,
    deciding: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Clone)]
enum Home {
    File(Sqlite),
    #[cfg(feature = "postgres")]
    Server(Postgres),
}

/// The same call, wherever the store is.
macro_rules! at_home {
    ($store:expr, $home:ident => $call:expr) => {
        match &$store.home {
            Home::File($home) => $call,
            #[cfg(feature = "postgres")]
            Home::Server($home) => $call,
        }
    };
}

/// Held while something is done that is done once at a time, by whichever process.
pub(crate) struct Alone {
    _here: tokio::sync::OwnedMutexGuard<()>,
    #[cfg(feature = "postgres")]
    _everywhere: Option<postgres::Lock>,
}

/// What a transaction did.
pub(crate) struct Applied<'a> {
    /// The events it stored, in order, with their rows.
    pub(crate) stored: Vec<(i64, &'a Incoming)>,
    /// How many events were there already.
    pub(crate) doubled: usize,
    /// The last row given.
    pub(crate) last_row: i64,
}

impl Store {
    /// Opens the file, and makes it when it is not there.
    pub(crate) fn open(options: StoreOptions, waiters: Arc<Waiters>, feed: Arc<Feed>) -> Result<Self, StoreError> {
        let home = Home::File(Sqlite::open(options, Arc::clone(&waiters), Arc::clone(&feed))?);
        Ok(Self { home, waiters, feed, deciding: Arc::default() })
    }

    /// Connects to the server, and makes the tables when they are not there.
    #[cfg(feature = "postgres")]
    pub(crate) async fn connect(options: PostgresOptions, waiters: Arc<Waiters>, feed: Arc<Feed>) -> Result<Self, StoreError> {
        let home = Home::Server(Postgres::connect(options, Arc::clone(&waiters), Arc::clone(&feed)).await?);
        Ok(Self { home, waiters, feed, deciding: Arc::default() })
    }

    /// Stores events and folds them into their tasks; `Ok` once that is durable.
    #[cfg(test)]
    pub(crate) async fn record(&self, events: Vec<Incoming>) -> Result<(), StoreError> {
        self.together(Arc::new(events)).await
    }

    /// Stores events and folds them into their tasks: `Ok` for each once it is durable. They are written together, unless the database refuses one of
    /// them: then only that one fails.
    pub(crate) async fn record_each(&self, events: Vec<Incoming>) -> Vec<Result<(), StoreError>> {
        let events = Arc::new(events);
        match self.together(Arc::clone(&events)).await {
            Err(error) if error.is_refusal() && events.len() > 1 => {
                let alone = events.iter().map(|event| self.together(Arc::new(vec![event.clone()])));
                futures_util::future::join_all(alone).await
            }
            outcome => vec![outcome; events.len()],
        }
    }

    async fn together(&self, events: Arc<Vec<Incoming>>) -> Result<(), StoreError> {
        at_home!(self, home => home.record_together(events).await)
    }

    /// A task with everything that is known of it, if its tenant is in scope. Of several with the same id, the one that was asked for first.
    pub(crate) async fn task(&self, task: TaskId, scope: Scope) -> Result<Option<TaskRow>, StoreError> {
        at_home!(self, home => home.task(task, scope).await)
    }

    /// Tasks, newest first, without their results: at most as many as asked for, and about 1 MiB.
    pub(crate) async fn tasks(&self, query: ListQuery) -> Result<Rows<TaskRow, TaskPlace>, StoreError> {
        at_home!(self, home => home.tasks(query).await)
    }

    /// Events of a task after a row, at most `limit` and about `bytes_max`, and whether the task was complete before they were read.
    pub(crate) async fn events_of(
        &self,
        task: TaskId,
        tenant: Tenant,
        after: i64,
        limit: usize,
        bytes_max: usize,
    ) -> Result<TaskEvents, StoreError> {
        at_home!(self, home => home.events_of(task, tenant, after, limit, bytes_max).await)
    }

    /// The row of an event of a task, or of any, by its id, if its tenant is in scope. Where two producers chose the same id for one task, the first.
    pub(crate) async fn row_of(&self, task: Option<TaskId>, scope: Scope, event: EventId) -> Result<Option<i64>, StoreError> {
        at_home!(self, home => home.row_of(task, scope, event).await)
    }

    /// Events of all tasks after a row that pass the filter, as about `bytes_max` of frames, and the last row looked at: `head` when there are no more.
    pub(crate) async fn frames_after(&self, after: i64, head: i64, filter: Filter, bytes_max: usize) -> Result<(Vec<u8>, i64), StoreError> {
        at_home!(self, home => home.frames_after(after, head, filter, bytes_max).await)
    }

    /// The artifacts that a task names itself, the last named first.
    pub(crate) async fn artifacts_of(&self, task: TaskId, tenant: Tenant) -> Result<Vec<Named>, StoreError> {
        at_home!(self, home => home.artifacts_of(task, tenant).await)
    }

    /// Contents that a removed task named, to be looked at by this time (milliseconds since 1970).
    pub(crate) async fn unnamed(&self, due_ms: i64, limit: usize) -> Result<Vec<Unnamed>, StoreError> {
        at_home!(self, home => home.unnamed(due_ms, limit).await)
    }

    /// Writes down what was found.
    pub(crate) async fn settle(&self, settled: Settled, now_ms: i64) -> Result<(), StoreError> {
        at_home!(self, home => home.settle(settled, now_ms).await)
    }

    /// Stores letters, each once; `Ok` once that is durable. Gives back how many were new.
    pub(crate) async fn record_letters(&self, letters: Vec<NewLetter>) -> Result<usize, StoreError> {
        at_home!(self, home => home.record_letters(Arc::new(letters)).await)
    }

    /// A letter, if its tenant is in scope.
    pub(crate) async fn letter(&self, id: String, scope: Scope) -> Result<Option<LetterRow>, StoreError> {
        at_home!(self, home => home.letter(id, scope).await)
    }

    /// Letters, newest first: those before a row of an earlier page, in one state or in any; at most `limit`, and about 1 MiB.
    pub(crate) async fn letters(
        &self,
        scope: Scope,
        state: Option<LetterState>,
        before: Option<i64>,
        limit: usize,
    ) -> Result<Rows<LetterRow, i64>, StoreError> {
        at_home!(self, home => home.letters(scope, state, before, limit).await)
    }

    /// Decides an open letter, and gives it back as it is then; one that was decided before stays as it was.
    pub(crate) async fn decide(&self, id: String, state: LetterState, at_us: i64) -> Result<Option<LetterRow>, StoreError> {
        at_home!(self, home => home.decide(id, state, at_us).await)
    }

    /// Removes all that is kept of tasks, and keeps nothing of them that arrives within the next 100 days. `Ok` once that is durable.
    pub(crate) async fn forget(&self, forgotten: Forgotten) -> Result<(), StoreError> {
        for tasks in forgotten.tasks.chunks(erasing::TOGETHER) {
            let some = Forgotten { tenant: forgotten.tenant.clone(), tasks: tasks.to_vec() };
            let removed = at_home!(self, home => home.forget(some).await)?;
            crate::metrics::swept("erased", removed);
        }
        // Whoever follows them sees them end, and whoever follows all tasks reads on from the store.
        self.feed.forget();
        self.waiters.forget(&forgotten.tasks);
        Ok(())
    }

    /// Takes one step of a sweep of what ended before then.
    pub(crate) async fn sweep(&self, step: Sweep, cutoff: Cutoff) -> Result<Swept, StoreError> {
        at_home!(self, home => home.sweep(step, cutoff).await)
    }

    /// Waits until nobody else decides about letters.
    pub(crate) async fn deciding_alone(&self) -> Result<Alone, StoreError> {
        let here = Arc::clone(&self.deciding).lock_owned().await;
        Ok(match &self.home {
            Home::File(_) => Alone {
                _here: here,
                #[cfg(feature = "postgres")]
                _everywhere: None,
            },
            #[cfg(feature = "postgres")]
            Home::Server(server) => Alone { _here: here, _everywhere: Some(server.lock_to_decide().await?) },
        })
    }

    /// The right to sweep; none while another process has it.
    pub(crate) async fn sweeping_alone(&self) -> Result<Option<Alone>, StoreError> {
        // One task of a process sweeps, so there is nobody to wait for here.
        let here = Arc::new(tokio::sync::Mutex::new(())).lock_owned().await;
        Ok(match &self.home {
            Home::File(_) => Some(Alone {
                _here: here,
                #[cfg(feature = "postgres")]
                _everywhere: None,
            }),
            #[cfg(feature = "postgres")]
            Home::Server(server) => server.lock_to_sweep().await?.map(|lock| Alone { _here: here, _everywhere: Some(lock) }),
        })
    }

    /// Whether it can be used. After a failed write one is tried, so that what has healed is noticed without traffic.
    pub(crate) async fn check(&self) -> Result<(), StoreError> {
        at_home!(self, home => home.check().await)
    }

    /// Resolves when the writer has ended, which it does only by a fault of this program: the process should not go on without it.
    pub(crate) fn ended(&self) -> impl Future<Output = ()> + Send + 'static {
        let ended: std::pin::Pin<Box<dyn Future<Output = ()> + Send>> = at_home!(self, home => Box::pin(home.ended()));
        ended
    }

    /// Who waits for tasks.
    pub(crate) fn waiters(&self) -> &Arc<Waiters> {
        &self.waiters
    }

    /// What was committed last.
    pub(crate) fn feed(&self) -> &Arc<Feed> {
        &self.feed
    }
}

/// A status as it is stored. Numbers are never reused.
const fn status_code(status: Status) -> u8 {
    match status {
        Status::Accepted => 0,
        Status::Queued => 1,
        Status::Running => 2,
        Status::AwaitingApproval => 3,
        Status::AwaitingHandoff => 4,
        Status::Completed => 5,
        Status::Failed => 6,
        Status::Rejected => 7,
        Status::Cancelled => 8,
        Status::TimedOut => 9,
        Status::BudgetExceeded => 10,
    }
}

#[cfg(test)]
#[cfg(feature = "postgres")]
#[path = "store/tests.rs"]
#[expect(clippy::duplicate_mod, reason = "the same tests on another store")]
mod on_postgres;
#[cfg(test)]
mod tests;
