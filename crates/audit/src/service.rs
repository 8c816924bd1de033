//! The service at work: what each part of the crate is given, and what runs beside what.
//!
//! | where | what |
//! |---|---|
//! | `subscribe`, `heard` | from a delivery to an entry; whether deliveries come at all |
//! | `routes`, `reads`, `exports` | what people ask for; that contents were read; the making of evidence |
//! | `desk`, `contents` | erasures and holds seen through; contents whose time is over |
//! | `anchor`, `witnessing` | saying checkpoints on a topic; showing them to witnesses |

mod anchor;
mod contents;
mod desk;
mod exports;
pub mod heard;
mod reads;
mod routes;
pub mod subscribe;
mod witnessing;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fte_service::{Bus, Lack, Readiness, Secret, Service, Settings, SteadyClock, chain, check};

use self::anchor::Anchors;
use self::contents::{Contents, DAY_MS};
use self::desk::Desk;
use self::exports::{Exports, Signers};
use self::heard::Heard;
use self::reads::Reads;
use self::witnessing::Witnessing;
use crate::config::Config;
use crate::engine::{self, Engine, EngineOptions, Sealing};
use crate::keys::rotation::{self, Given};
use crate::keys::signing::{self, KeyError, KeyPlace};
use crate::log::{Log, LogError};
use crate::notes::{LogNotes, Notes};
use crate::subjects::{self, Subjects, SubjectsOptions};
use crate::{NAME, metrics};

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
    #[error("the legal holds that the audit log has cannot be looked for")]
    Holds(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("exports of earlier runs cannot be removed")]
    Exports(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the thread that works on the audit log has ended")]
    Ended,
}

/// Opens the log in the data directory and gives the service that records into it.
pub async fn start(config: Config, settings: &Settings, bus: Bus) -> Result<Service, Error> {
    start_looking(config, settings, bus, anchor::LOOK_EVERY).await
}

/// [`start`], with the time between two looks for what is to be anchored.
async fn start_looking(config: Config, settings: &Settings, bus: Bus, anchor_every: Duration) -> Result<Service, Error> {
    metrics::register();
    let data = settings.data_dir.clone();
    let group_open = settings.group_open(engine::OPEN);
    let Config { cache_kib, readers_max, origin, master_key_file, master_key_secret, witness_policy, record_reads, contents_days, .. } =
        config;
    let place = key_place(&bus, config.key_secret, config.key_file).await?;
    let place = place.unwrap_or_else(|| KeyPlace::File(data.join("audit/keys").join(signing::KEY)));
    let next_place = key_place(&bus, config.next_key_secret, config.next_key_file).await?;
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
        let Given { present, next, former } = rotation::given(&place, next_place, origin.as_deref(), &directory)?;
        let (key, next_key) = (Arc::new(present), next.map(Arc::new));
        let signers = Signers::new(Arc::clone(&key), &former);
        let mut sealing = SubjectsOptions { master_secret, ..SubjectsOptions::at(directory.join("keys")) };
        sealing.master_key = master_key_file.unwrap_or(sealing.master_key);
        let clock = Arc::clone(&sealing.clock);
        let subjects = Arc::new(Subjects::open(sealing)?);
        let sealing: Arc<dyn Sealing> = Arc::clone(&subjects) as _;
        let options = EngineOptions {
            cache_kib,
            readers_max,
            group_open,
            sealing: Arc::clone(&sealing),
            next_key,
            former,
            ..EngineOptions::at(&*directory, key)
        };
        let log = Engine::open(options)?;
        let ended = log.ended();
        let log: Arc<dyn Log> = Arc::new(log);
        let reads = if record_reads { Reads::on_record(Arc::clone(&log), Arc::clone(&sealing)) } else { Reads::default() };
        let exports =
            Exports::open(directory.join("exports"), Arc::clone(&log), sealing, signers).map_err(|error| Error::Exports(error.into()))?;
        Ok::<_, Error>((log, ended, subjects, clock, exports, reads))
    });
    let (log, ended, subjects, clock, exports, reads) = opening.await.map_err(|_| Error::Ended)??;

    let mut service = Service::new(NAME, &bus);
    service.background.push(Box::pin(async move {
        ended.await;
        Err(Error::Ended.into())
    }));
    let heard = Heard::nothing();
    service.app = subscribe::subscriptions(settings, &log, &heard).router();
    let (expecting, sidecar) = (heard.clone(), bus.sidecar.clone());
    service.background.push(Box::pin(async move {
        Readiness::sidecar_is_there(&sidecar).await;
        expecting.expected();
        Ok(())
    }));
    // What the log has can be read all the same: a pod that were not ready for it would take that away, and the diagnosis too.
    service.checks.push((
        "deliveries",
        check(move || {
            let given = heard.check().map_err(Lack::that_serves);
            async { given }
        }),
    ));
    let trail = service.trail.clone();
    let notes: Arc<dyn Notes> = Arc::new(LogNotes(Arc::clone(&log)));
    let desk = Desk::new(Arc::clone(&subjects), notes, bus.publisher, trail.clone()).with_exports(exports.clone());
    desk.recall_holds(&*log).await.map_err(|error| Error::Holds(error.into()))?;
    let witnessed = witnessing.as_ref().map(Witnessing::witnessed).unwrap_or_default();
    service.api = routes::routes(&log, reads, &desk, &witnessed, &exports);
    if let Some(witnessing) = witnessing {
        service.background.push(Box::pin(witnessing.run(Arc::clone(&log))));
    }
    if let Some(days) = contents_days {
        let clock = SteadyClock::over("contents", move || clock());
        let contents = Contents { log: Arc::clone(&log), subjects, desk: desk.clone(), kept_ms: i64::from(days) * DAY_MS, clock };
        service.background.push(Box::pin(contents.keep()));
    }
    service.background.push(Box::pin(desk.keep()));
    service.background.push(Box::pin(exports.keep()));
    service.background.push(Box::pin(Anchors::new(Arc::clone(&log), trail).keep(anchor_every)));
    service.checks.push((
        "log",
        check(move || {
            let ready = log.ready().map_err(|error| chain(&error));
            async { ready }
        }),
    ));
    Ok(service)
}

/// Where a key is, if that is said: a secret that is read now, or a file.
async fn key_place(bus: &Bus, name: Option<String>, path: Option<PathBuf>) -> Result<Option<KeyPlace>, Error> {
    match (name, path) {
        (Some(name), _) => Ok(Some(KeyPlace::Text(secret(bus, name).await?))),
        (None, path) => Ok(path.map(KeyPlace::File)),
    }
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
        Settings::from_env(&env, crate::config::PORTS).unwrap()
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
    async fn a_service_that_runs_anchors_what_it_has_signed() {
        let directory = tempfile::tempdir().unwrap();
        let sidecar = fte_testkit::FakeSidecar::start().await;
        let env = MapEnv::of([("FTE_DATA", directory.path().to_str().unwrap()), ("FTE_SIDECAR_URL", &sidecar.url())]);
        let settings = Settings::from_env(&env, crate::config::PORTS).unwrap();
        // What an earlier process left.
        let key = engine::tests::test_key();
        std::fs::create_dir_all(directory.path().join("audit/keys")).unwrap();
        std::fs::write(directory.path().join("audit/keys/log.key"), &*key.private_text()).unwrap();
        let log = anchor::tests::log_in(&directory.path().join("audit"));
        let signed = anchor::tests::logged(&log, &[b"one"]).await;
        drop(log);

        let bus = Bus::connect(&settings, NAME).unwrap();
        let service = start_looking(Config::default(), &settings, bus, Duration::from_millis(10)).await.unwrap();
        let running: Vec<_> = service.background.into_iter().map(tokio::spawn).collect();
        let anchored = || async {
            let anchors = anchor::tests::anchors(&sidecar, &key.verifier());
            if anchors == [signed.checkpoint.clone()] { Ok(()) } else { Err(anchors) }
        };
        fte_testkit::eventually(anchored).await;
        running.iter().for_each(tokio::task::JoinHandle::abort);
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
