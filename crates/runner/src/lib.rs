//! Runs tasks: the state machine, sandboxes, agents, approvals and takeover.
//!
//! Accepts requests and resumptions from `fte.triggers.inbound`, timers, and people's decisions over HTTP; publishes what happens to a task on
//! `fte.sandbox.lifecycle`, `fte.status.updates`, `fte.results.completed` and `fte.audit.actions`. Keeps one document per task and one per
//! process in the state store; keeps nothing else. Always true: see [`protocol`].
//!
//! | where | what |
//! |---|---|
//! | [`document`] | the task document and the moves it can make; pure |
//! | [`protocol`] | who may make which move when; on [`ports`] alone, so that it can be simulated |
//! | [`agents`] | the kinds of agents |
//! | `adapters`, `app`, `asked`, `routes` | the ports on a sidecar; what the sidecar delivers; what other services ask; what people call |

mod adapters;
pub mod agents;
mod app;
mod asked;
pub mod config;
pub mod document;
pub mod metrics;
pub mod ports;
pub mod protocol;
mod routes;
pub mod settings;

use std::sync::Arc;

use fte_service::agents::Agent;
use fte_service::agents::sandbox::Walls;
use fte_service::diagnosis::Note;
use fte_service::{Bus, Env, Service, Settings, check};

pub use config::Config;

/// Why the runner did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data directory cannot hold workspaces, or the artifacts' directory no artifacts.
    #[error("the agents' directories in {}, or that of FTE_ARTIFACTS, cannot be written", data_dir.display())]
    Agents {
        /// The data directory.
        data_dir: std::path::PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A value that an agent needs is not in the environment.
    #[error(transparent)]
    Config(fte_service::ConfigError),
    /// This machine cannot hold what shall be held, and nobody accepted that.
    #[error("these agents would not be held as they should be: {}", agents.join(", "))]
    Walls {
        /// Whose programs they are.
        agents: Vec<String>,
        /// What is missing, and what to do about it.
        source: Unheld,
    },
    /// Artifacts cannot be kept with this configuration.
    #[error("artifacts cannot be kept")]
    Artifacts(#[source] fte_artifacts::OpenError),
}

/// What this machine lacks, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{}", missing.iter().map(|missing| format!("{missing}: {}", missing.advice())).collect::<Vec<_>>().join("; "))]
pub struct Unheld {
    /// What is missing.
    pub missing: Vec<fte_sandbox::Missing>,
}

/// The runner as a service. It works once its background is running. `env` is where agents get the variables from that they are allowed.
pub async fn start(config: Config, settings: &Settings, bus: Bus, env: &impl Env) -> Result<Service, Error> {
    let failed = |source| Error::Agents { data_dir: settings.data_dir.clone(), source };
    // A bare file name has a parent only once it is absolute.
    let agents_file = settings.agents_file.as_deref().map(std::path::absolute).transpose().map_err(failed)?;
    let beside = agents_file.as_deref().and_then(std::path::Path::parent);
    let launcher = launcher(&config, settings, env)?;
    let claims = config.claims.clone();
    let means = agents::Means { launcher, secrets: Box::new(adapters::SidecarSecrets(bus.secrets.clone())) };
    let artifacts = fte_artifacts::Artifacts::open(&config.artifacts, &settings.data_dir).map_err(Error::Artifacts)?;
    let limits = agents::Limits::default();
    let host = agents::AgentHost::new(&settings.agents, beside, &settings.data_dir, artifacts, env, limits, means);
    let host = host.map_err(|error| match error {
        agents::HostError::Directory(source) => failed(source),
        agents::HostError::Config(error) => Error::Config(error),
    })?;
    let host = host.with_claims(config.claims.clone());
    host.probe().await.map_err(failed)?;
    let mut notes = notes(settings, &host);
    for lack in host.lacks() {
        let key = format!("agents.{}.command", lack.agent);
        let found = format!("{} cannot start: {}", lack.agent, lack.problem);
        notes.push(Note { about: "agents".to_owned(), found, advice: Some(lack.advice.to_owned()) });
        tracing::warn!(agent = lack.agent, key, problem = lack.problem, advice = lack.advice, "an agent cannot start; its tasks will fail");
    }
    if config.seat.is_some() {
        // Whoever holds the seat is alone on this directory: what lies there is a dead predecessor's.
        host.sweep().map_err(failed)?;
    }
    let (warm, put_away) = (host.keep_warm(), host.put_away());
    metrics::register(settings.agents.agents.keys().map(fte_events::AgentName::as_str));
    let ports = ports::Ports {
        store: Arc::new(adapters::SidecarStore(bus.state.clone())),
        outlet: Arc::new(adapters::SidecarOutlet(bus.publisher.clone())),
        timers: Arc::new(adapters::SidecarTimers(bus.jobs.clone())),
        world: Arc::new(adapters::Tokio),
        agents: Arc::new(host),
    };
    let protocol = settings::Settings { public_url: Some(settings.public_url.clone()), ..config.protocol(&settings.agents) };
    let runner = protocol::Runner::new(ports, protocol);
    let mut service = Service::new("runner", &bus);
    service.notes = notes;
    service.app = app::subscriptions(&runner, settings, &bus).router();
    service.api = routes::router(routes::AppState { runner: Arc::clone(&runner), agents: Arc::clone(&settings.agents) });
    let live = Arc::clone(&runner);
    service.checks.push((
        "lease",
        check(move || {
            let live = live.is_live();
            async move { if live { Ok(()) } else { Err("this runner holds no lease yet, or lost it".to_owned()) } }
        }),
    ));
    // Twice this: for what runs, and for handing over the rest; and half of it for giving back what is elsewhere, and for clearing away what is here. It is the
    // half of the drain time that a service has for its stop.
    let patience = settings.drain / 5;
    let stopping = Arc::clone(&runner);
    service.stop = Some(Box::new(move || {
        Box::pin(async move {
            stopping.stop(patience).await;
            let given_back = async {
                if let Some(claims) = claims {
                    claims.settled().await;
                }
            };
            let elsewhere = tokio::time::timeout(patience / 2, given_back);
            // What is not gone by then is killed with this process.
            let (elsewhere, _) = tokio::join!(elsewhere, tokio::time::timeout(patience / 2, put_away));
            if elsewhere.is_err() {
                tracing::warn!("not all sandboxes that were claimed elsewhere are given back; they end by themselves");
            }
        })
    }));
    service.on_state(&bus, async move {
        // What waits for tasks ends with the runner.
        tokio::select! {
            () = runner.run() => {}
            () = async { warm.await; std::future::pending().await } => {}
        }
        Ok(())
    });
    Ok(service)
}

/// What holds agents here, and what does not.
fn notes(settings: &Settings, host: &agents::AgentHost) -> Vec<Note> {
    let note = |found: String, advice: Option<&str>| Note { about: "sandbox".to_owned(), found, advice: advice.map(str::to_owned) };
    let mut notes = Vec::new();
    if let Some(holds) = host.holds() {
        notes.push(note(format!("agents are held by {}", holds.standing.join("; ")), None));
        notes.extend(holds.missed(asks_for_shares(settings)).map(|missing| note(missing.to_string(), Some(missing.advice()))));
        if rustix::process::getuid().is_root() {
            let advice = "run it as a user of its own: what gets through a hole in the walls is root then";
            notes.push(note("the runner is root".to_owned(), Some(advice)));
        }
    }
    let open = settings.agents.agents.iter().filter(|(_, agent)| agent.kind.is_program() && agent.sandbox.walls == Walls::None);
    let open: Vec<_> = open.map(|(name, _)| name.as_str()).collect();
    if !open.is_empty() {
        let advice = "they can read what the runner's user can read: take sandbox = \"none\" out where it is not needed";
        notes.push(note(format!("without walls: {}", open.join(", ")), Some(advice)));
    }
    notes
}

/// Whether an agent is to have a share of the processors and no more.
fn asks_for_shares(settings: &Settings) -> bool {
    settings.agents.agents.values().any(|agent| agent.sandbox.walls == Walls::Bubblewrap && agent.sandbox.cpu_milli.is_some())
}

/// Makes sandboxes where an agent asks for them, and refuses to go on where this machine cannot hold what it should.
fn launcher(config: &Config, settings: &Settings, env: &impl Env) -> Result<agents::Launcher, Error> {
    let held = |agent: &Agent| agent.kind.is_program() && agent.sandbox.walls == Walls::Bubblewrap;
    let agents: Vec<_> = settings.agents.agents.iter().filter(|(_, agent)| held(agent)).map(|(name, _)| name.to_string()).collect();
    let Some(stage) = config.stage.as_ref().filter(|_| !agents.is_empty()) else { return Ok(agents::Launcher::default()) };
    let failed = |source| Error::Agents { data_dir: settings.data_dir.clone(), source };
    let path = env.get("PATH").unwrap_or_default();
    let directory = std::path::absolute(settings.data_dir.join("sandbox")).map_err(failed)?;
    let sandboxes = fte_sandbox::Sandboxes::new(&directory, stage, &path).map_err(failed)?;
    let shares = asks_for_shares(settings);
    let refused: Vec<_> = sandboxes.holds().refused(&settings.agents.accept, shares).cloned().collect();
    if !refused.is_empty() {
        return Err(Error::Walls { agents, source: Unheld { missing: refused } });
    }
    for missing in sandboxes.holds().missed(shares) {
        tracing::warn!(%missing, advice = missing.advice(), "agents are held less well than they could be");
    }
    tracing::info!(walls = sandboxes.holds().standing.join("; "), "agents are held");
    Ok(agents::Launcher::new(Some(sandboxes), &directory))
}
