//! What a sidecar is started with: every name, address and limit, each with its default here and nowhere else.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::resiliency::Resiliency;
use crate::store::StoreError;

/// Everything [`start`](crate::start) needs. `Options::new` fills in the defaults.
#[derive(Debug, Clone)]
pub struct Options {
    /// Directory of `sidecar.sqlite`; made if missing and locked by one process.
    pub data_dir: PathBuf,
    /// Retry policies of deliveries, from the same files Dapr reads.
    pub resiliency: Resiliency,
    /// Name of the pub/sub component.
    pub pubsub: String,
    /// Name of the state store component.
    pub statestore: String,
    /// Name of the secret store component.
    pub secretstore: String,
    /// JSON file `{"name": "value" | {"key": "value"}}` behind the secret store. Without it there is no store.
    pub secrets_file: Option<PathBuf>,
    /// Topics made at the start. Others are made on first use with the defaults below.
    pub topics: Vec<TopicSpec>,
    /// Partitions of a topic made on first use.
    pub default_partitions: u16,
    /// Retention of a topic made on first use, and of those that name none.
    pub default_retention: Duration,
    /// Byte cap of the event log. What a known group has not read is never deleted: past the cap publishing is refused.
    pub bytes_max: u64,
    /// Cap of the whole database file, log and state; `None` is up to the disk.
    pub database_bytes_max: Option<u64>,
    /// The apps beside which this sidecar stands. An id may repeat: instances of one app.
    pub apps: Vec<AppSpec>,
    /// What `/v1.0/metadata` says of the runtime's version.
    pub runtime_version: String,
    /// The rarely changed limits.
    pub limits: Limits,
}

impl Options {
    /// The defaults, with data in `data_dir` and no apps.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            resiliency: Resiliency::default(),
            pubsub: "pubsub".to_owned(),
            statestore: "statestore".to_owned(),
            secretstore: "secretstore".to_owned(),
            secrets_file: None,
            topics: Vec::new(),
            default_partitions: 12,
            default_retention: Duration::from_secs(7 * 24 * 3600),
            bytes_max: 10 << 30,
            database_bytes_max: None,
            apps: Vec::new(),
            runtime_version: "1.18.3".to_owned(),
            limits: Limits::default(),
        }
    }
}

/// A topic that exists from the start.
#[derive(Debug, Clone)]
pub struct TopicSpec {
    /// The topic's name.
    pub name: String,
    /// Partitions. Fixed once the topic exists: another number would move keys and break their order.
    pub partitions: u16,
    /// How long records are kept, at least until every known group has read them.
    pub retention: Option<Duration>,
}

/// One instance of an app and the API port that belongs to it.
#[derive(Debug, Clone)]
pub struct AppSpec {
    /// Dapr's app id: the consumer group and the prefix of state keys.
    pub app_id: String,
    /// The app's own port, where deliveries go.
    pub app: SocketAddr,
    /// Where this instance's sidecar API listens. Port 0 is allowed.
    pub http: SocketAddr,
    /// Callers of the API must send it as `dapr-api-token`.
    pub api_token: Option<String>,
    /// Sent to the app as `dapr-api-token`.
    pub app_token: Option<String>,
}

/// Bounds of buffers, bodies, waits and concurrency.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Largest request body of the API, in bytes (Dapr's `--max-body-size`, 4 MiB).
    pub body_bytes_max: usize,
    /// Request bodies held at one time, in bytes; more callers wait.
    pub bodies_bytes_max: usize,
    /// Connections of one API listener.
    pub connections_max: usize,
    /// Recent records kept in memory over all topics, in bytes.
    pub tail_bytes_max: usize,
    /// Body of one bulk delivery, in bytes. One record always fits.
    pub bulk_bytes_max: usize,
    /// Records of one bulk delivery, whatever the subscription asks for.
    pub bulk_records_max: usize,
    /// Bulk calls in flight for a topic at one instance, not counting those older than `bulk_call_young`.
    pub bulk_calls_max: usize,
    /// After this an unanswered bulk call is held by the app and no longer counts.
    pub bulk_call_young: Duration,
    /// Longest answer of an app that is read, in bytes.
    pub answer_bytes_max: usize,
    /// Topics that may exist.
    pub topics_max: usize,
    /// Jobs that may exist.
    pub jobs_max: u32,
    /// Job calls in flight over all apps.
    pub job_calls_max: usize,
    /// Keys of one bulk get, items of one save, operations of one transaction, entries of one bulk publish.
    pub items_max: usize,
    /// Consumer positions are durable at the latest after this; a crash delivers that much again.
    pub cursor_flush: Duration,
    /// A group that no app has used for this long is forgotten and no longer keeps records alive.
    pub group_expiry: Duration,
    /// How often retention, the byte cap and the expiry of state are looked after.
    pub sweep_interval: Duration,
    /// How often the port of an app is looked at.
    pub app_poll: Duration,
    /// Limit of one call of a job; past it the call has failed.
    pub job_call: Duration,
    /// Longest wait for a request body to arrive.
    pub body_read: Duration,
    /// Longest wait for calls in flight when stopping.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: 4 << 20,
            bodies_bytes_max: 64 << 20,
            connections_max: 4096,
            tail_bytes_max: 32 << 20,
            bulk_bytes_max: 1 << 20,
            bulk_records_max: 1000,
            bulk_calls_max: 4,
            bulk_call_young: Duration::from_millis(50),
            answer_bytes_max: 4 << 20,
            topics_max: 1000,
            jobs_max: 1_000_000,
            job_calls_max: 32,
            items_max: 10_000,
            cursor_flush: Duration::from_millis(500),
            group_expiry: Duration::from_secs(7 * 24 * 3600),
            sweep_interval: Duration::from_secs(10),
            app_poll: Duration::from_secs(1),
            job_call: Duration::from_secs(60),
            body_read: Duration::from_secs(60),
            drain: Duration::from_secs(20),
        }
    }
}

/// Why a sidecar did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory cannot be made.
    #[error("data directory {} cannot be made; choose one that can be written", path.display())]
    DataDir { path: PathBuf, source: io::Error },
    /// Another process holds the lock.
    #[error("data directory {} is in use by another process; stop that one or choose another directory", path.display())]
    Locked { path: PathBuf },
    /// The lock file or the database cannot be written.
    #[error("data directory {} cannot be written; check its owner, its mode and the mount", path.display())]
    ReadOnly { path: PathBuf, source: io::Error },
    /// The database does not open.
    #[error("database {} does not open", path.display())]
    Database { path: PathBuf, source: StoreError },
    /// The database was written by a later version.
    #[error("database {} has schema {found}, this version knows up to {known}; use a newer version", path.display())]
    Schema { path: PathBuf, found: i64, known: i64 },
    /// The port of an API listener is taken.
    #[error("sidecar API of app {app_id} cannot listen on {addr}")]
    Listen { app_id: String, addr: SocketAddr, source: io::Error },
    /// An option makes no sense.
    #[error("{0}")]
    Options(String),
    /// The secrets file cannot be read.
    #[error("secrets file {} cannot be read as JSON object", path.display())]
    Secrets { path: PathBuf, source: io::Error },
}
