//! An embedded sidecar that speaks the Dapr HTTP API, on SQLite.
//!
//! For one machine, up to its disk: an app that works beside this works beside `daprd` with Kafka, with the same routes,
//! answers and failures. It knows no topic and no payload. What Dapr offers and this does not answers 501 with what and
//! why, never with an approximation.
//!
//! Always true:
//! * What was answered 2xx is fsynced. What could not be stored was refused, and nothing of it is stored.
//! * A record is delivered at least once to every group (app id) that subscribes to its topic, in order within its
//!   partition, until it is answered SUCCESS or DROP or is durable in the dead-letter topic.
//! * An app that is away costs no retry and no dead letter; deliveries wait until it is back.
//! * Records are deleted by retention or the byte cap only when every known group has read them.
//!
//! # Where it differs from Dapr, on purpose
//!
//! The conformance suite (`tests/tests/conformance`) runs against this and `daprd` with Kafka and pins each of these:
//!
//! | | Dapr | here |
//! |---|---|---|
//! | a CloudEvent that is no JSON object, a job's schedule or a TTL that is none | 500, which asks to be tried again | 400 |
//! | a body over the limit | 400 or 500 | 413 |
//! | a request that a browser sent for a page | answered | 403: a page must not be able to publish |
//! | a publish route without component or topic | 404 `ERR_DIRECT_INVOKE` | 404 that says what is missing |
//! | errors | with `details` | `errorCode` and `message`, with the same codes |
//! | a CloudEvent with a `traceparent` and no `traceid` | the `traceparent` is overwritten | it is kept |
//! | a slash in a topic's name | Kafka refuses it | fine |
//! | a bulk publish that fails | what was sent before stays | nothing of it is stored |
//! | an operation of a transaction without a key | writes a row nobody can read | 400 |
//! | whole numbers over 2^53 in state | rounded (SQLite) | kept |
//! | names of jobs with a slash | not looked at | come back as they were |
//! | the app is away | retries are spent; `healthz` stays 204 | deliveries wait; `healthz` is 500 until it is back |
//! | it is asked to stop | leaves in the middle of deliveries, unless `--dapr-block-shutdown-duration` and the graceful time are set | waits for what is out, and takes what is published meanwhile |
//! | a bulk delivery that holds | holds all bulk topics of the sidecar | holds its partition |
//! | what is not implemented | answers of its own | 501 with what and why |
//!
//! It answers as 1.18 where versions differ, and the alpha routes of 1.14, too.
//!
//! The way of an event: [`api`](self) puts it into its envelope → the store's writer gives it an offset, together with
//! everything else that waits, and fsyncs → the tasks of the groups that subscribe are woken, read it from memory, and
//! call the app → positions become durable within half a second.

mod api;
mod apps;
mod broker;
mod client;
mod cloudevent;
mod delivery;
mod jobs;
mod json;
mod metrics;
mod options;
mod record;
mod resiliency;
mod server;
mod store;
mod topics;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

pub use options::{AppSpec, Limits, Options, StartError, TopicSpec};
pub use resiliency::{Backoff, Policy, Resiliency, ResiliencyError};
pub use store::StoreError;

use apps::{App, Instance};
use client::AppClient;
use store::{Store, StoreThreads};

/// What all tasks of a sidecar share.
pub(crate) struct Context {
    pub(crate) store: Store,
    pub(crate) client: AppClient,
    pub(crate) apps: BTreeMap<Arc<str>, Arc<App>>,
    /// Counts the times an instance of an app came or went.
    pub(crate) changes: watch::Sender<u64>,
    pub(crate) pubsub: String,
    pub(crate) statestore: String,
    pub(crate) secretstore: String,
    pub(crate) secrets: Option<api::secrets::Secrets>,
    pub(crate) runtime_version: String,
    pub(crate) resiliency: Resiliency,
    pub(crate) limits: Limits,
    /// Bytes of request bodies that may still be taken in, in KiB.
    pub(crate) bodies: Arc<Semaphore>,
    pub(crate) alarm: jobs::Alarm,
}

/// A running sidecar. Dropped without [`stop`](Self::stop) it ends as in a crash: nothing committed is lost, what was in
/// flight is delivered again.
pub struct Sidecar {
    http_addrs: Vec<SocketAddr>,
    /// Deliveries and jobs; they end by themselves once `stop_work` is true.
    work: JoinSet<()>,
    stop_work: watch::Sender<bool>,
    /// API listeners; they end by themselves once `stop_api` is true.
    api: JoinSet<()>,
    stop_api: watch::Sender<bool>,
    /// What watches and sweeps for ever.
    background: JoinSet<()>,
    drain: Duration,
    // Last, so that a drop ends the tasks first.
    threads: StoreThreads,
}

/// Starts a sidecar: opens the data, binds the API listeners, begins to look for the apps.
pub async fn start(options: Options) -> Result<Sidecar, StartError> {
    check(&options)?;
    metrics::register();
    let secrets = read_secrets(&options)?;
    for warning in options.resiliency.warnings() {
        tracing::warn!("{warning}");
    }
    // Ports first: a mistake there is found before anything is written.
    let mut listeners = Vec::with_capacity(options.apps.len());
    for spec in &options.apps {
        let listener = TcpListener::bind(spec.http).await.and_then(|listener| {
            let addr = listener.local_addr()?;
            Ok((listener, addr))
        });
        listeners.push(listener.map_err(|source| StartError::Listen { app_id: spec.app_id.clone(), addr: spec.http, source })?);
    }
    let http_addrs: Vec<SocketAddr> = listeners.iter().map(|(_, addr)| *addr).collect();
    let opening = options.clone();
    let (store, threads) = match tokio::task::spawn_blocking(move || store::open(&opening)).await {
        Ok(opened) => opened?,
        Err(join) => std::panic::resume_unwind(join.into_panic()),
    };
    let mut groups: BTreeMap<Arc<str>, Vec<Arc<Instance>>> = BTreeMap::new();
    let changes = watch::Sender::new(0);
    let mut instances = Vec::with_capacity(options.apps.len());
    for (id, spec) in options.apps.iter().enumerate() {
        let app_id: Arc<str> = spec.app_id.as_str().into();
        let token = spec.app_token.as_deref().and_then(|token| HeaderValue::from_str(token).ok());
        let instance = Arc::new(Instance::new(id, app_id.clone(), spec.app, token, changes.clone()));
        groups.entry(app_id).or_default().push(instance.clone());
        instances.push(instance);
    }
    let apps = groups.into_iter().map(|(id, instances)| (id.clone(), Arc::new(App::new(id, instances)))).collect();
    let limits = options.limits.clone();
    let context = Arc::new(Context {
        store: store.clone(),
        client: AppClient::new(limits.answer_bytes_max),
        apps,
        changes,
        pubsub: options.pubsub,
        statestore: options.statestore,
        secretstore: options.secretstore,
        secrets,
        runtime_version: options.runtime_version,
        resiliency: options.resiliency,
        bodies: Arc::new(Semaphore::new(limits.bodies_bytes_max.max(limits.body_bytes_max) / 1024)),
        alarm: jobs::Alarm::new(),
        limits,
    });
    let mut background = JoinSet::new();
    let flush = context.limits.cursor_flush;
    let sweep = context.limits.sweep_interval;
    background.spawn({
        let store = store.clone();
        async move { store.flush_cursors(flush).await }
    });
    background.spawn(store.sweep(sweep));
    for instance in &instances {
        let watch = instance.clone().watch(context.client.clone(), context.pubsub.clone(), context.limits.app_poll);
        background.spawn(watch);
    }
    let (stop_api, api_stopping) = watch::channel(false);
    let mut api = JoinSet::new();
    for ((listener, _), (instance, spec)) in listeners.into_iter().zip(instances.into_iter().zip(&options.apps)) {
        let router = api::router(api::Api::new(context.clone(), instance, spec.api_token.as_deref()));
        api.spawn(server::serve(listener, router, context.limits.connections_max, api_stopping.clone()));
    }
    let (stop_work, work_stopping) = watch::channel(false);
    let mut work = JoinSet::new();
    for app in context.apps.values() {
        work.spawn(delivery::supervise(context.clone(), app.clone(), work_stopping.clone()));
    }
    work.spawn(jobs::run(context.clone(), work_stopping));
    Ok(Sidecar { http_addrs, work, stop_work, api, stop_api, background, drain: context.limits.drain, threads })
}

/// Finds what is wrong with options before a port is bound and a file is made. [`start`] does it, too.
///
/// # Errors
/// An option that cannot be used, or a secrets file that cannot be read.
pub fn check(options: &Options) -> Result<(), StartError> {
    read_secrets(options)?;
    let bad = |text: String| Err(StartError::Options(text));
    for (what, name) in [("pubsub", &options.pubsub), ("statestore", &options.statestore), ("secretstore", &options.secretstore)] {
        if name.is_empty() || name == "bulk" || name.contains('/') {
            return bad(format!("{what}: {name:?} cannot name a component"));
        }
    }
    for spec in &options.topics {
        if let Err(problem) = api::publish::check_topic(&spec.name) {
            return bad(format!("topic {:?}: {problem}", spec.name));
        }
        if spec.partitions == 0 {
            return bad(format!("topic {}: partitions must be at least 1", spec.name));
        }
    }
    if options.default_partitions == 0 {
        return bad("default_partitions must be at least 1".to_owned());
    }
    for spec in &options.apps {
        if spec.app_id.is_empty() || spec.app_id.contains("||") {
            return bad(format!("{:?} cannot be an app id", spec.app_id));
        }
        for token in [&spec.api_token, &spec.app_token].into_iter().flatten() {
            if HeaderValue::from_str(token).is_err() {
                return bad(format!("a token of app {} cannot stand in a header", spec.app_id));
            }
        }
    }
    Ok(())
}

fn read_secrets(options: &Options) -> Result<Option<api::secrets::Secrets>, StartError> {
    let read =
        |path: &std::path::PathBuf| api::secrets::Secrets::read(path).map_err(|source| StartError::Secrets { path: path.clone(), source });
    options.secrets_file.as_ref().map(read).transpose()
}

impl Sidecar {
    /// Where the API listens, in the order of the options' apps.
    pub fn http_addrs(&self) -> &[SocketAddr] {
        &self.http_addrs
    }

    /// Resolves when the store has ended without being told to: the process should end, too. A full disk is no such case.
    pub fn failed(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut ended = self.threads.ended.clone();
        async move {
            let _ = ended.wait_for(|ended| *ended).await;
        }
    }

    /// Begins no more calls, waits for those in flight (bounded by `Limits::drain`; apps may publish and keep state
    /// meanwhile), then closes the API and the database.
    pub async fn stop(mut self) {
        self.stop_work.send_replace(true);
        if tokio::time::timeout(self.drain, join(&mut self.work)).await.is_err() {
            tracing::warn!("deliveries were still in flight when the time to drain was over; they are made again");
        }
        self.work.shutdown().await;
        self.stop_api.send_replace(true);
        if tokio::time::timeout(self.drain, join(&mut self.api)).await.is_err() {
            tracing::warn!("API calls were still in flight when the time to drain was over");
        }
        self.api.shutdown().await;
        self.background.shutdown().await;
        self.threads.stop().await;
    }
}

async fn join(tasks: &mut JoinSet<()>) {
    while tasks.join_next().await.is_some() {}
}

/// Resolves once `stop` says true, or can no longer.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}
