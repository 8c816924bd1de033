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
//! | `adapters`, `app`, `routes` | the ports on a sidecar; what the sidecar delivers; what people call |

mod adapters;
pub mod agents;
mod app;
pub mod config;
pub mod document;
pub mod ports;
pub mod protocol;
mod routes;
pub mod settings;

use std::sync::Arc;

use fte_service::{Bus, Env, Service, Settings, check};

pub use config::Config;

/// Why the runner did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data directory cannot hold artifacts and workspaces.
    #[error("the agents' directories in {} cannot be written", data_dir.display())]
    Agents {
        /// The data directory.
        data_dir: std::path::PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

/// The runner as a service. It works once its background is running. `env` is where agents get the variables from that they are allowed.
pub async fn start(config: Config, settings: &Settings, bus: Bus, env: &impl Env) -> Result<Service, Error> {
    let failed = |source| Error::Agents { data_dir: settings.data_dir.clone(), source };
    // A bare file name has a parent only once it is absolute.
    let agents_file = settings.agents_file.as_deref().map(std::path::absolute).transpose().map_err(failed)?;
    let beside = agents_file.as_deref().and_then(std::path::Path::parent);
    let host = agents::AgentHost::new(&settings.agents, beside, &settings.data_dir, env, agents::Limits::default()).map_err(failed)?;
    host.probe().map_err(failed)?;
    for lack in host.lacks() {
        let key = format!("agents.{}.command", lack.agent);
        tracing::warn!(agent = lack.agent, key, problem = lack.problem, advice = lack.advice, "an agent cannot start; its tasks will fail");
    }
    if config.seat.is_some() {
        // Whoever holds the seat is alone on this directory: what lies there is a dead predecessor's.
        host.sweep().map_err(failed)?;
    }
    let ports = ports::Ports {
        store: Arc::new(adapters::SidecarStore(bus.state.clone())),
        outlet: Arc::new(adapters::SidecarOutlet(bus.publisher.clone())),
        timers: Arc::new(adapters::SidecarTimers(bus.jobs.clone())),
        world: Arc::new(adapters::Tokio),
        agents: Arc::new(host),
    };
    let runner = protocol::Runner::new(ports, config.protocol(&settings.agents));
    let mut service = Service::new("runner", &bus);
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
    // Twice this: for what runs, and for handing over the rest. It is the half of the drain time that a service has for its stop.
    let patience = settings.drain / 4;
    let stopping = Arc::clone(&runner);
    service.stop = Some(Box::new(move || Box::pin(async move { stopping.stop(patience).await })));
    service.background.push(Box::pin(async move {
        runner.run().await;
        Ok(())
    }));
    Ok(service)
}
