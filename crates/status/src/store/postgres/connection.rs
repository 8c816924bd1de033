//! Connections to the server: how they are made, a bounded number of them for reading, and the locks that processes take in turn.
//!
//! Always true: nothing of the URL but its hosts and its database is ever shown; a connection that has failed is not used again.

use std::collections::HashMap;
use std::future::poll_fn;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fte_service::Secret;
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, Config, Connection, Row, Socket, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::store::StoreError;

/// Longest wait for a connection, and for a free one.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Longest wait for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(25);
/// What the server may take for one statement, and what a session may leave a transaction alone; so a frozen process does not hold up the others for long.
const STATEMENT_MAX_MS: u32 = 20_000;
const IDLE_MAX_MS: u32 = 10_000;
/// Most prepared statements of a connection; there are fewer.
const STATEMENTS_MAX: usize = 128;

/// Advisory locks: the numbers are this program's alone.
pub(super) const SCHEMA: i64 = 0x6674_6500_0001;
pub(super) const DECIDING: i64 = 0x6674_6500_0002;
pub(super) const SWEEPING: i64 = 0x6674_6500_0003;

/// Makes connections.
pub(super) struct Connector {
    config: Config,
    tls: MakeRustlsConnect,
}

/// A connection with its prepared statements. The server ends what it has begun when this is dropped.
pub(super) struct Session {
    client: Client,
    statements: Mutex<HashMap<Box<str>, Statement>>,
    /// An answer did not come in time.
    gave_up: AtomicBool,
}

/// A lock that is held until this is dropped.
pub(crate) struct Lock(#[expect(dead_code, reason = "its drop gives the lock back")] Session);

impl Connector {
    pub(super) fn new(url: &Secret) -> Result<Self, StoreError> {
        // The reason may quote the URL.
        let mut config: Config = url.expose().parse().map_err(|_| StoreError::Url)?;
        config.application_name("fte-status").connect_timeout(CONNECT_MAX).tcp_user_timeout(Duration::from_secs(10));
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let tls = tls.map_err(|_| StoreError::Url)?.with_root_certificates(roots).with_no_client_auth();
        Ok(Self { config, tls: MakeRustlsConnect::new(tls) })
    }

    async fn open(&self) -> Result<(Client, Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>), StoreError> {
        let connecting = tokio::time::timeout(CONNECT_MAX, self.config.connect(self.tls.clone()));
        connecting.await.map_err(|_| StoreError::Busy)?.map_err(StoreError::from)
    }

    /// A session with its limits set.
    pub(super) async fn session(&self) -> Result<Session, StoreError> {
        self.session_that_hears(Arc::default()).await
    }

    /// A session with its limits set, which tells of each notice.
    pub(super) async fn session_that_hears(&self, notices: Arc<Notify>) -> Result<Session, StoreError> {
        let (client, mut connection) = self.open().await?;
        tokio::spawn(async move {
            while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
                match message {
                    Ok(AsyncMessage::Notification(_)) => notices.notify_one(),
                    Ok(_) => {}
                    Err(error) => {
                        tracing::debug!(error = %fte_service::chain(&error), "a connection to the status database ended");
                        return;
                    }
                }
            }
        });
        // A server that answers before the disk has it would break the promise to the sidecar.
        let settings = format!(
            "SET statement_timeout = {STATEMENT_MAX_MS}; SET idle_in_transaction_session_timeout = {IDLE_MAX_MS}; SET TIME ZONE 'UTC';
             SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
        );
        let session = Session { client, statements: Mutex::default(), gave_up: AtomicBool::default() };
        session.batch(&settings).await?;
        Ok(session)
    }

    /// Waits for a lock.
    pub(super) async fn lock(&self, number: i64) -> Result<Lock, StoreError> {
        let session = self.session().await?;
        session.query("SELECT pg_advisory_lock($1)", &[&number]).await?;
        Ok(Lock(session))
    }

    /// The lock, unless somebody has it.
    pub(super) async fn try_lock(&self, number: i64) -> Result<Option<Lock>, StoreError> {
        let session = self.session().await?;
        let taken: bool = session.query_one("SELECT pg_try_advisory_lock($1)", &[&number]).await?.get(0);
        Ok(taken.then_some(Lock(session)))
    }
}

impl Session {
    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed() || self.gave_up.load(Ordering::Relaxed)
    }

    /// A frozen server keeps to no limit of its own.
    async fn in_time<T>(&self, answer: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, StoreError> {
        match tokio::time::timeout(ANSWER_MAX, answer).await {
            Ok(answer) => Ok(answer?),
            Err(_) => {
                self.gave_up.store(true, Ordering::Relaxed);
                Err(StoreError::Busy)
            }
        }
    }

    async fn prepared(&self, sql: &str) -> Result<Statement, StoreError> {
        let known = self.statements.lock().unwrap_or_else(PoisonError::into_inner).get(sql).cloned();
        if let Some(statement) = known {
            return Ok(statement);
        }
        let statement = self.in_time(self.client.prepare(sql)).await?;
        let mut statements = self.statements.lock().unwrap_or_else(PoisonError::into_inner);
        if statements.len() < STATEMENTS_MAX {
            statements.insert(sql.into(), statement.clone());
        }
        Ok(statement)
    }

    pub(super) async fn query(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, StoreError> {
        let statement = self.prepared(sql).await?;
        self.in_time(self.client.query(&statement, values)).await
    }

    pub(super) async fn query_one(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Row, StoreError> {
        let statement = self.prepared(sql).await?;
        self.in_time(self.client.query_one(&statement, values)).await
    }

    pub(super) async fn execute(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<u64, StoreError> {
        let statement = self.prepared(sql).await?;
        self.in_time(self.client.execute(&statement, values)).await
    }

    pub(super) async fn batch(&self, sql: &str) -> Result<(), StoreError> {
        self.in_time(self.client.batch_execute(sql)).await
    }
}

/// Sessions that read, a bounded number of them.
pub(super) struct Pool {
    connector: Arc<Connector>,
    idle: Mutex<Vec<Session>>,
    places: Arc<Semaphore>,
}

/// A session of the pool, given back when dropped.
pub(super) struct Reader {
    session: Option<Session>,
    pool: Arc<Pool>,
    _place: OwnedSemaphorePermit,
}

impl Pool {
    pub(super) fn new(connector: Arc<Connector>, readers_max: usize) -> Self {
        Self { connector, idle: Mutex::default(), places: Arc::new(Semaphore::new(readers_max)) }
    }

    pub(super) async fn reader(self: &Arc<Self>) -> Result<Reader, StoreError> {
        let place = tokio::time::timeout(CONNECT_MAX, Arc::clone(&self.places).acquire_owned());
        let place = place.await.map_err(|_| StoreError::Busy)?.map_err(|_| StoreError::Closed)?;
        let idle = {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.retain(|session| !session.is_closed());
            idle.pop()
        };
        let session = match idle {
            Some(session) => session,
            None => self.connector.session().await?,
        };
        Ok(Reader { session: Some(session), pool: Arc::clone(self), _place: place })
    }
}

impl Deref for Reader {
    type Target = Session;
    fn deref(&self) -> &Session {
        self.session.as_ref().expect("the session is there until the drop")
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // Reading is single statements: there is nothing half done to hand on.
        if let Some(session) = self.session.take().filter(|session| !session.is_closed()) {
            self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner).push(session);
        }
    }
}
