//! The read model: what every task is, from its events.
//!
//! Subscribes to every topic but the audit actions; keeps tasks, events and dead letters in `<data>/status.sqlite`, or in a PostgreSQL that several
//! replicas share; answers who asks, waits or watches.
//! Publishes replays of dead letters and the audit actions that tell of them. What it keeps comes from the topics alone: a missing database is an
//! empty one, and is filled again by reading the topics from their beginning.
//!
//! Always true:
//! * An event is acknowledged when it is on the disk, and not before.
//! * The same events, late, doubled or crosswise, make the same tasks (`model`).
//! * Whoever waits is woken by the commit: nothing polls (but for what other replicas commit, should the server's notices be lost).
//! * Everything that waits or is kept is bounded; who is over a limit is told so.
//!
//! | where | what |
//! |---|---|
//! | `reading` | from a delivery to what is stored of it |
//! | `tenant` | whose it is, and who sees it |
//! | `model` | the fold of events into a task; pure |
//! | `store` | SQLite or PostgreSQL: the writer, the readers, the sweep |
//! | `wake`, `feed`, `sse`, `streams` | who waits for a task, who listens to all of them |
//! | `naming`, `downloads`, `sweeping` | which artifacts an event names; giving them away; removing those that nobody names any more |
//! | `dead_letters`, `desk` | what a letter says; deciding about it |
//! | `subscriptions`, `routes`, `view` | what the sidecar delivers; what people call; how a task is shown |

mod config;
mod dead_letters;
mod desk;
mod downloads;
mod feed;
pub mod metrics;
mod model;
mod naming;
mod reading;
mod removing;
#[cfg(test)]
#[cfg(feature = "postgres")]
mod replicas_tests;
mod routes;
mod sse;
mod store;
mod streams;
mod subscriptions;
mod sweeping;
mod tenant;
#[cfg(test)]
mod test_support;
mod view;
mod wake;

use fte_artifacts::Artifacts;
use fte_service::pools::Standings;
use fte_service::{Bus, Service, Settings, chain, check};

pub use config::Config;
pub use config::{ENV_DATABASE_URL, ENV_FEEDS_MAX, ENV_READERS_MAX, ENV_RETENTION, ENV_SWEEP_EVERY, ENV_WAITERS_MAX};

use crate::downloads::Downloads;
use crate::feed::Feed;
use crate::store::{Store, StoreError, StoreOptions};
use crate::streams::Stopping;
use crate::subscriptions::SERVICE;
use crate::wake::Waiters;

/// Most bytes of recent events kept ready for streams of all tasks.
const FEED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The database's file in the data directory.
const FILE: &str = "status.sqlite";

/// Why the read model did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its database cannot be opened.
    #[error("the status database cannot be opened")]
    Store(#[source] StoreError),
    /// Artifacts cannot be read with this configuration.
    #[error("artifacts cannot be read")]
    Artifacts(#[source] fte_artifacts::OpenError),
}

/// The read model as a service.
pub async fn start(config: Config, settings: &Settings, bus: Bus) -> Result<Service, Error> {
    metrics::register();
    let artifacts = Artifacts::open(&config.artifacts, &settings.data_dir).map_err(Error::Artifacts)?;
    let store = open(&config, settings).await.map_err(Error::Store)?;
    Ok(service(store, artifacts, config, settings, &bus))
}

async fn open(config: &Config, settings: &Settings) -> Result<Store, StoreError> {
    let (waiters, feed) = (Waiters::new(config.waiters_max), Feed::new(FEED_BYTES_MAX, config.feeds_max));
    let group_open = settings.group_open(store::OPEN);
    #[cfg(feature = "postgres")]
    if let Some(url) = &config.database_url {
        let options = store::PostgresOptions { readers_max: config.readers_max, group_open, ..store::PostgresOptions::at(url.clone()) };
        return Store::connect(options, waiters, feed).await;
    }
    let options = StoreOptions { readers_max: config.readers_max, group_open, ..StoreOptions::at(settings.data_dir.join(FILE)) };
    let opening = tokio::task::spawn_blocking(move || Store::open(options, waiters, feed));
    opening.await.map_err(|_| StoreError::Closed)?
}

/// The service around a store.
fn service(store: Store, artifacts: Artifacts, config: Config, settings: &Settings, bus: &Bus) -> Service {
    let mut service = Service::new(SERVICE, bus);
    let audit = service.trail.clone();
    let desk = desk::Desk::new(store.clone(), bus.publisher.clone(), audit.clone());
    let (stop, stopping) = Stopping::new();
    service.app = subscriptions::subscriptions(&store, settings, bus).router();
    let (downloads, standings) = (Downloads::new(artifacts.clone()), Standings::new(bus.sidecar.clone()));
    service.api = routes::router(routes::AppState { store: store.clone(), desk, downloads, stopping, standings });
    let checked = store.clone();
    service.checks.push((
        "store",
        check(move || {
            let store = checked.clone();
            async move { store.check().await.map_err(|error| chain(&error)) }
        }),
    ));
    let ended = store.ended();
    service.background.push(Box::pin(async move {
        ended.await;
        Err(StoreError::Closed.into())
    }));
    service.background.push(Box::pin(sweeping::sweep_for_ever(store, artifacts, config.retention, config.sweep_every)));
    let patience = settings.drain / 3;
    service.stop = Some(Box::new(move || {
        Box::pin(async move {
            stop.send_replace(true);
            audit.flush(patience).await;
        })
    }));
    service
}

#[cfg(test)]
mod tests {
    use fte_service::{MapEnv, Ports};
    use fte_testkit::Dir;

    use super::*;

    fn settings(data: &std::path::Path) -> Settings {
        let env = MapEnv::of([("FTE_DATA", &data.to_string_lossy())]);
        Settings::from_env(&env, Ports { app: 0, api: 0 }).unwrap()
    }

    #[tokio::test]
    async fn the_service_starts_in_a_new_directory_and_again_in_the_same() {
        let dir = Dir::new();
        let settings = settings(&dir.join("new"));
        for _ in 0..2 {
            let bus = Bus::connect(&settings, SERVICE).unwrap();
            let service = start(Config::default(), &settings, bus).await.unwrap();
            assert_eq!((service.name, service.checks.len(), service.background.len()), ("status", 3, 2));
        }
        assert!(dir.join("new").join(FILE).exists());
    }

    #[tokio::test]
    async fn a_data_directory_that_cannot_be_used_is_a_clear_error() {
        let dir = Dir::new();
        let settings = settings(&dir.write("a-file", ""));
        let bus = Bus::connect(&settings, SERVICE).unwrap();
        let error = start(Config::default(), &settings, bus).await.err().unwrap();
        assert!(chain(&error).starts_with("the status database cannot be opened: the directory"), "{}", chain(&error));
    }
}
