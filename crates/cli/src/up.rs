//! `fte up`: everything in one process. The embedded sidecar and the four services speak over loopback HTTP, as they would beside Dapr, so
//! that nothing works here that would not work there.
//!
//! The order of the start: configuration is read, ports are bound, the sidecar takes the data directory's lock, and only then do services open
//! their files in it. Who holds that lock is the only runner on this data, and takes over at once what its dead predecessor left.

mod banner;
mod ready;
mod waiting;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use fte_events::AgentName;
use fte_service::{Check, Env, MapEnv, ProcessEnv, Secret, Service, Settings};
use fte_sidecar::{AppSpec, Options, Resiliency, Sidecar, TopicSpec};
use futures_util::future::try_join_all;
use tokio::net::TcpListener;
use uuid::Uuid;

use self::banner::Callers;
use crate::client::{Client, Target};
use crate::error::Error;
use crate::hints::Hints;
use crate::output::Output;
use crate::serve::listen;
use crate::server;
use crate::services::{Config, Name, stopped};
use crate::signals::Shutdown;

/// The policy that `dapr run` uses too.
const RESILIENCY: &str = include_str!("../../../dapr/resiliency.yaml");
/// The app id of programs that are not ours.
const LOCAL_APP: &str = "fte-local";
/// What the runner holds that no other process can: see the module's text.
pub(crate) const SEAT: &str = "data-directory";

#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Where everything is kept
    #[arg(long, env = "FTE_DATA", hide_env_values = true, default_value = "fte-data", value_name = "DIR")]
    data: PathBuf,
    /// Port of the public API, on loopback (0: any free one)
    #[arg(long, default_value_t = 8080, value_name = "PORT")]
    port: u16,
    /// Port of the sidecar's API for other programs, on loopback (0: any free one)
    #[arg(long, default_value_t = 3500, value_name = "PORT")]
    sidecar_port: u16,
    /// The agents; without it `echo` and `demo`
    #[arg(long, env = "FTE_AGENTS", hide_env_values = true, value_name = "FILE")]
    agents: Option<PathBuf>,
    /// Secrets that agents may be given, as a JSON object of names and values
    #[arg(long, env = "FTE_SECRETS_FILE", hide_env_values = true, value_name = "FILE")]
    secrets: Option<PathBuf>,
    /// Say nothing when all is well
    #[arg(long)]
    quiet: bool,
    /// Write the addresses to this file, as JSON, once everything is ready
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

/// The process's environment under what the command line says.
struct Layered {
    over: MapEnv,
}

impl Env for Layered {
    fn get(&self, name: &str) -> Option<String> {
        self.over.get(name).or_else(|| ProcessEnv.get(name))
    }

    fn names(&self) -> Vec<String> {
        self.over.names().into_iter().chain(ProcessEnv.names()).collect()
    }
}

/// Ports that are bound, so that nobody else can take them.
struct Listeners {
    api: TcpListener,
    apps: Vec<TcpListener>,
}

/// What each service and its sidecar show each other.
struct Tokens {
    app: Secret,
    api: Secret,
}

impl Up {
    pub(crate) fn run(self, output: Output) -> Result<(), Error> {
        server::run("warn", self.serve(output))
    }

    async fn serve(self, output: Output) -> Result<(), Error> {
        let shutdown = Shutdown::on_signals(output)?;
        let env = self.env();
        let settings = Settings::from_env(&env, Name::Intake.ports()).map_err(server::config_error)?;
        let configs =
            Name::ALL.map(|name| Config::read(name, &env)).into_iter().collect::<Result<Vec<_>, _>>().map_err(server::config_error)?;

        let options = self.sidecar_options(&settings)?;
        fte_sidecar::check(&options).map_err(|error| server::sidecar_error(error, "--sidecar-port"))?;

        let listeners = self.listen().await?;
        let tokens = Name::ALL.map(|_| Tokens { app: secret(), api: secret() });
        let lost = lost_log(&self.data);
        let sidecar = self.start_sidecar(options, &settings, &listeners, &tokens).await?;
        if let Some(warning) = lost {
            tracing::warn!("{warning}");
        }
        let addrs = sidecar.http_addrs().to_vec();
        let api = local_addr(&listeners.api)?;
        let named = env.get(fte_service::settings::ENV_PUBLIC_URL).is_some();
        let public_url = if named { settings.public_url.clone() } else { fte_service::settings::url_of(api) };
        let own = |index: usize| Settings {
            public_url: public_url.clone(),
            sidecar_url: format!("http://{}", addrs[index]),
            sidecar_token: Some(tokens[index].api.clone()),
            app_token: Some(tokens[index].app.clone()),
            ..settings.clone()
        };
        let starting = configs.into_iter().enumerate().map(async |(index, config)| config.start(&own(index)).await);
        let services: Vec<Service> = try_join_all(starting).await?;

        let place = ready::Place {
            api: format!("http://{api}"),
            sidecar: format!("http://{}", addrs[Name::ALL.len()]),
            pid: std::process::id(),
            data: std::path::absolute(&self.data).unwrap_or_else(|_| self.data.clone()),
        };
        let checks: Vec<Check> = services.iter().flat_map(|service| &service.checks).map(|(_, check)| Check::clone(check)).collect();
        let callers = if settings.keys.is_some() { Callers::WithKey } else { Callers::Anybody };
        let ended = sidecar.failed();
        let asked = async {
            tokio::select! {
                () = shutdown.asked() => Ok(()),
                () = ended => Err(Error::Stopped { what: "the store of the sidecar has ended; the log says why".to_owned(), source: None }),
                Err(error) = self.announce(&checks, &place, callers, output) => Err(error),
            }
        };
        let (tell, told) = tokio::sync::oneshot::channel();
        let until = async move {
            // Nobody waits for the outcome only when `run` has ended first.
            let _ = tell.send(asked.await);
        };
        let services = services.into_iter().zip(listeners.apps).collect();
        let outcome = fte_service::run(services, listeners.api, &settings, until).await.map_err(stopped);
        sidecar.stop().await;
        outcome?;
        told.await.unwrap_or(Ok(()))
    }

    fn env(&self) -> Layered {
        let path = |path: &Path| path.to_string_lossy().into_owned();
        let mut over = BTreeMap::from([
            (fte_service::settings::ENV_DATA.to_owned(), path(&self.data)),
            (fte_runner::config::ENV_SEAT.to_owned(), SEAT.to_owned()),
            (fte_service::settings::ENV_BULK_DELIVERY.to_owned(), true.to_string()),
        ]);
        if let Some(agents) = &self.agents {
            over.insert(fte_service::settings::ENV_AGENTS.to_owned(), path(agents));
        }
        Layered { over: MapEnv(over) }
    }

    async fn listen(&self) -> Result<Listeners, Error> {
        let api = listen(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)), "--port").await?;
        let apps = try_join_all(Name::ALL.map(|_| listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), "--port"))).await?;
        Ok(Listeners { api, apps })
    }

    /// Without the apps, whose ports are not known yet.
    fn sidecar_options(&self, settings: &Settings) -> Result<Options, Error> {
        let mut options = Options::new(&self.data);
        options.resiliency = Resiliency::from_yaml(RESILIENCY).map_err(|error| Error::Start {
            what: "the resiliency policy is not usable".to_owned(),
            advice: String::new(),
            source: Some(error.into()),
        })?;
        options.pubsub.clone_from(&settings.pubsub);
        options.statestore.clone_from(&settings.statestore);
        options.secretstore.clone_from(&settings.secretstore);
        options.secrets_file.clone_from(&self.secrets);
        let agents: Vec<AgentName> = settings.agents.agents.keys().cloned().collect();
        options.topics.extend(fte_events::topics(&agents).into_iter().map(|topic| TopicSpec {
            name: topic.name.into_owned(),
            partitions: u16::try_from(topic.partitions).unwrap_or(u16::MAX),
            retention: Some(Duration::from_millis(topic.retention_ms)),
        }));
        Ok(options)
    }

    async fn start_sidecar(
        &self,
        mut options: Options,
        settings: &Settings,
        listeners: &Listeners,
        tokens: &[Tokens],
    ) -> Result<Sidecar, Error> {
        for ((name, listener), tokens) in Name::ALL.into_iter().zip(&listeners.apps).zip(tokens) {
            options.apps.push(AppSpec {
                app_id: name.app_id(),
                app: local_addr(listener)?,
                http: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
                api_token: Some(tokens.api.expose().to_owned()),
                app_token: Some(tokens.app.expose().to_owned()),
            });
        }
        options.apps.push(AppSpec {
            app_id: LOCAL_APP.to_owned(),
            // It only calls; nothing listens on port 0, and so nothing is delivered to it.
            app: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            http: SocketAddr::from((Ipv4Addr::LOCALHOST, self.sidecar_port)),
            api_token: settings.sidecar_token.as_ref().map(Secret::expose).map(str::to_owned),
            app_token: None,
        });
        fte_sidecar::start(options).await.map_err(|error| server::sidecar_error(error, "--sidecar-port"))
    }

    /// Says that everything is ready, once it is. Ends only with an error.
    async fn announce(
        &self,
        checks: &[Check],
        place: &ready::Place,
        callers: Callers,
        output: Output,
    ) -> Result<std::convert::Infallible, Error> {
        ready::wait(checks).await;
        if let Some(file) = &self.ready_file {
            place.write(file).map_err(|source| Error::Write { what: file.display().to_string(), source })?;
        }
        if output.json {
            output.json_line(place)?;
        } else if !self.quiet {
            output.note(banner::text(place, callers));
            let hints = Hints::new(place.is_elsewhere().then(|| place.api.clone()));
            let target = Target::new(&place.api, ProcessEnv.get("FTE_API_KEY").as_deref())?.with_hints(hints);
            return Ok(waiting::tell(Client::new(target), output).await);
        }
        std::future::pending().await
    }
}

/// What is to be said where a data directory was used before and has no audit log: somebody took that away. To be asked before the sidecar starts.
fn lost_log(data: &Path) -> Option<String> {
    let log = data.join("audit");
    let is_lost = data.join("sidecar.sqlite").exists() && !log.exists();
    is_lost.then(|| {
        format!(
            "there is no audit log in {}, though this data directory was used before: a new and empty log begins, with a key of its own, and nothing in it \
             shows what was done until now. If the log was moved or deleted, stop this and put {} back from a copy",
            data.display(),
            log.display()
        )
    })
}

fn secret() -> Secret {
    Secret::new(Uuid::new_v4().simple().to_string())
}

fn local_addr(listener: &TcpListener) -> Result<SocketAddr, Error> {
    listener.local_addr().map_err(|error| Error::Failed(format!("a listener has no address: {error}")))
}
