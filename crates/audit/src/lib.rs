//! The audit service: it records every event of every topic exactly once, durably, before it acknowledges it, and answers who did what and when.
//!
//! Always true:
//! * An event is acknowledged to the sidecar only when it is durable and numbered. The service rejects nothing, drops nothing and has no
//!   dead-letter topic: what is no event is kept as evidence, and a full disk makes the topics wait.
//! * Each (`source`, `id`) is one entry, whatever comes twice, at the same time, after a restart, or in a replay from the first offset.
//! * The same identity with other content is an entry of its own, of kind `conflict`, and an alarm.
//! * Entries are numbered without a gap in the order in which they were logged, and no route changes or removes one.
//!
//! * What is in the log cannot be changed unnoticed by who cannot sign: entries are leaves of a Merkle tree whose root is signed twice a second, in the
//!   formats of C2SP ([`leaf`], [`engine`]).
//!
//! The way of an event: [`subscribe`] takes its bytes as they are on the topic, [`reading`] reads them, [`entry`] gives it its identity,
//! [`engine`] writes it with all that is waiting, and [`routes`] shows it; [`history`] says whether a task's is whole.

pub mod anchor;
pub mod canonical;
pub mod config;
pub mod desk;
pub mod engine;
pub mod entry;
pub mod export;
pub mod history;
pub mod holds;
pub mod leaf;
pub mod log;
pub mod metrics;
pub mod reading;
pub mod routes;
pub mod signing;
pub mod subjects;
pub mod subscribe;
pub mod trust;
pub mod verify;
pub mod witness;
pub mod witnessing;

use std::path::PathBuf;
use std::sync::Arc;

use fte_service::{Bus, Secret, Service, Settings, chain, check};

pub use self::config::Config;
use self::desk::{Desk, LogNotes, Notes};
use self::engine::{Engine, EngineOptions, Sealing};
use self::log::{Log, LogError};
use self::signing::{KeyError, KeyPlace};
use self::subjects::{Subjects, SubjectsOptions};
use self::witnessing::Witnessing;

/// Its name; its app id is `fte-audit`.
pub const NAME: &str = "audit";

/// Why it cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the data directory {} cannot be made", path.display())]
    Directory { path: PathBuf, source: std::io::Error },
    #[error("the audit log cannot be opened")]
    Log(#[from] LogError),
    #[error("the audit log has no key to sign with")]
    Key(#[from] KeyError),
    #[error("the keys that seal personal data cannot be used")]
    Subjects(#[from] subjects::KeyError),
    #[error("the audit log and its witnesses do not agree, or they cannot be asked")]
    Witness(#[from] witnessing::WitnessError),
    #[error("the secret {name} with a key of the audit log cannot be read")]
    Secret { name: String, source: fte_bus::Error },
    #[error("the secret {name} has no value")]
    EmptySecret { name: String },
    #[error("the thread that works on the audit log has ended")]
    Ended,
}

/// Opens the log in the data directory and gives the service that records into it.
pub async fn start(config: Config, settings: &Settings, bus: Bus) -> Result<Service, Error> {
    metrics::register();
    let data = settings.data_dir.clone();
    let group_open = settings.group_open(engine::OPEN);
    let Config { cache_kib, readers_max, origin, key_file, key_secret, master_key_file, master_key_secret, witness_policy } = config;
    let place = match (key_secret, key_file) {
        (Some(name), _) => KeyPlace::Text(secret(&bus, name).await?),
        (None, Some(path)) => KeyPlace::File(path),
        (None, None) => KeyPlace::File(data.join("audit/keys/log.key")),
    };
    let master_secret = match master_key_secret {
        Some(name) => Some(Secret::new(secret(&bus, name).await?)),
        None => None,
    };
    let mut witnessing = witness_policy.map(|policy| Witnessing::open(&data.join("audit"), &policy)).transpose()?;
    if let Some(witnessing) = &mut witnessing {
        witnessing.check_before_start().await?;
    }
    let opening = tokio::task::spawn_blocking(move || {
        std::fs::create_dir_all(&data).map_err(|source| Error::Directory { path: data.clone(), source })?;
        let directory = data.join("audit");
        let key = signing::key(&place, origin.as_deref(), &directory)?;
        let mut sealing = SubjectsOptions { master_secret, ..SubjectsOptions::at(directory.join("keys")) };
        sealing.master_key = master_key_file.unwrap_or(sealing.master_key);
        let subjects = Arc::new(Subjects::open(sealing)?);
        let sealing: Arc<dyn Sealing> = Arc::clone(&subjects) as _;
        let options = EngineOptions { cache_kib, readers_max, group_open, sealing, ..EngineOptions::at(directory, Arc::new(key)) };
        Ok::<_, Error>((Engine::open(options)?, subjects))
    });
    let (log, subjects) = opening.await.map_err(|_| Error::Ended)??;
    let ended = log.ended();
    let log: Arc<dyn Log> = Arc::new(log);

    let mut service = Service::new(NAME, &bus);
    service.background.push(Box::pin(async move {
        ended.await;
        Err(Error::Ended.into())
    }));
    service.app = subscribe::subscriptions(settings, &log).router();
    let trail = service.trail.clone();
    let notes: Arc<dyn Notes> = Arc::new(LogNotes(Arc::clone(&log)));
    let desk = Desk::new(subjects, notes, bus.publisher, trail.clone());
    let witnessed = witnessing.as_ref().map(Witnessing::witnessed).unwrap_or_default();
    service.api = routes::routes(&log, &desk, &witnessed);
    if let Some(witnessing) = witnessing {
        service.background.push(Box::pin(witnessing.run(Arc::clone(&log))));
    }
    service.background.push(Box::pin(desk.keep()));
    service.background.push(Box::pin(anchor::publish(Arc::clone(&log), trail)));
    service.checks.push((
        "log",
        check(move || {
            let ready = log.ready().map_err(|error| chain(&error));
            async { ready }
        }),
    ));
    Ok(service)
}

/// The value of a secret.
async fn secret(bus: &Bus, name: String) -> Result<String, Error> {
    let mut values = match bus.secrets.get(&name).await {
        Ok(values) => values,
        Err(source) => return Err(Error::Secret { name, source }),
    };
    let value = values.remove(&name).or_else(|| values.into_values().next());
    value.ok_or(Error::EmptySecret { name })
}

#[cfg(test)]
mod tests {
    use fte_service::{Env, MapEnv};

    use super::*;

    fn settings(data: &std::path::Path) -> Settings {
        let env = MapEnv::of([("FTE_DATA", &data.to_string_lossy())]);
        assert!(env.get("FTE_DATA").is_some());
        Settings::from_env(&env, config::PORTS).unwrap()
    }

    #[tokio::test]
    async fn it_starts_on_an_empty_directory_and_is_ready_to_record() {
        let directory = tempfile::tempdir().unwrap();
        let settings = settings(&directory.path().join("new"));
        let service = start(Config::default(), &settings, Bus::connect(&settings, NAME).unwrap()).await.unwrap();
        assert!(settings.data_dir.join("audit/index.sqlite").exists());
        let (_, ready) = service.checks.iter().find(|(name, _)| *name == "log").unwrap();
        ready().await.unwrap();
    }

    #[tokio::test]
    async fn a_data_directory_that_cannot_be_used_ends_the_start_with_a_reason() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        let settings = settings(&file);
        let error = start(Config::default(), &settings, Bus::connect(&settings, NAME).unwrap()).await.err().unwrap();
        assert!(chain(&error).contains("cannot be made"), "{}", chain(&error));
    }
}
