//! The parts as processes of their own, as beside a real sidecar: `fte sidecar`, and `fte serve` for each service, with tokens between them.

use std::path::PathBuf;

use fte_testkit::{Client, Daemon, Dir, built_binary, eventually};
use fte_tests::ports::free_port;

use crate::between::Between;
use crate::load::Doors;

const API_TOKEN: &str = "what-the-sidecar-asks-for";
const APP_TOKEN: &str = "what-the-sidecar-shows";

/// A service and where it listens.
pub(crate) struct Part {
    pub(crate) daemon: Daemon,
    pub(crate) api: Client,
    /// The port that the sidecar calls, for its probes.
    pub(crate) app: Client,
    /// What stands between it and its sidecar, where something does.
    pub(crate) between: Option<Between>,
    app_id: String,
    ports: Ports,
}

/// Which way between a runner and its sidecar something stands in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// What the runner asks of its sidecar.
    Calls,
    /// What the sidecar brings to the runner.
    Deliveries,
}

/// Where a service and its sidecar listen, and where each finds the other: elsewhere where something stands between them.
#[derive(Clone, Copy)]
struct Ports {
    app: u16,
    api: u16,
    sidecar: u16,
    app_found: u16,
    sidecar_found: u16,
}

impl Ports {
    fn new(between: Option<Way>) -> Self {
        let (app, sidecar) = (free_port(), free_port());
        let found = |way: Way, port: u16| if between == Some(way) { free_port() } else { port };
        let (app_found, sidecar_found) = (found(Way::Deliveries, app), found(Way::Calls, sidecar));
        Self { app, api: free_port(), sidecar, app_found, sidecar_found }
    }
}

/// All parts, on a directory of their own.
pub(crate) struct Parts {
    pub(crate) sidecar: Daemon,
    pub(crate) intake: Part,
    pub(crate) runners: Vec<Part>,
    pub(crate) status: Part,
    pub(crate) audit: Part,
    _dir: Dir,
}

impl Parts {
    /// Starts everything, with a runner for each of these environments, and waits until all are ready.
    pub(crate) async fn start(agents: &str, runners: &[&[(&str, &str)]]) -> Self {
        Self::start_with(agents, runners, &[]).await
    }

    /// The same, with an environment for status as well.
    pub(crate) async fn start_with(agents: &str, runners: &[&[(&str, &str)]], of_status: &[(&str, &str)]) -> Self {
        Self::start_all(agents, runners, of_status, &[], None).await
    }

    /// One of each, with this file of API keys.
    pub(crate) async fn guarded(agents: &str, keys: &str) -> Self {
        Self::start_all(agents, &[&[]], &[], &[("FTE_API_KEYS_FILE", keys)], None).await
    }

    /// With something between each runner and its sidecar.
    pub(crate) async fn with_between(agents: &str, runners: &[&[(&str, &str)]], way: Way) -> Self {
        Self::start_all(agents, runners, &[], &[], Some(way)).await
    }

    async fn start_all(
        agents: &str,
        runners: &[&[(&str, &str)]],
        of_status: &[(&str, &str)],
        of_all: &[(&str, &str)],
        between: Option<Way>,
    ) -> Self {
        let dir = Dir::new();
        let agents = dir.write("agents.toml", agents);
        let part = |name: &str, number: usize, env: &[(&str, &str)]| {
            let ports = Ports::new(between.filter(|_| name == "runner"));
            let mut daemon = Daemon::new(format!("{name} {number}"), [built_binary().into_os_string(), "serve".into(), name.into()])
                .env("APP_PORT", ports.app.to_string())
                .env("FTE_API_ADDR", format!("127.0.0.1:{}", ports.api))
                .env("DAPR_HTTP_PORT", ports.sidecar_found.to_string())
                .env("DAPR_API_TOKEN", API_TOKEN)
                .env("APP_API_TOKEN", APP_TOKEN)
                .env("FTE_DATA", dir.join(format!("{name}-{number}")))
                .env("FTE_AGENTS", &agents);
            for (name, value) in env.iter().chain(of_all) {
                daemon = daemon.env(name, value);
            }
            let client = |port: u16| Client::new(format!("http://127.0.0.1:{port}"));
            Part { daemon, api: client(ports.api), app: client(ports.app), between: None, app_id: format!("fte-{name}"), ports }
        };
        let intake = part("intake", 0, &[]);
        let mut runners: Vec<Part> = runners.iter().enumerate().map(|(number, env)| part("runner", number, env)).collect();
        for runner in &mut runners {
            let Ports { app, sidecar, app_found, sidecar_found, .. } = runner.ports;
            runner.between = match between {
                Some(Way::Calls) => Some(Between::start(sidecar_found, sidecar).await),
                Some(Way::Deliveries) => Some(Between::start(app_found, app).await),
                None => None,
            };
        }
        let (status, audit) = (part("status", 0, of_status), part("audit", 0, &[]));

        let mut sidecar = Daemon::new("sidecar", [built_binary().into_os_string(), "sidecar".into()])
            .env("DAPR_API_TOKEN", API_TOKEN)
            .env("APP_API_TOKEN", APP_TOKEN)
            .arg("--data")
            .arg(dir.join("sidecar"))
            .arg("--resources-path")
            .arg(PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../dapr")));
        for Part { app_id, ports, .. } in [&intake, &status, &audit].into_iter().chain(&runners) {
            sidecar = sidecar.arg("--app").arg(format!("{app_id}:{}:{}", ports.app_found, ports.sidecar));
        }
        let mut parts = Self { sidecar, intake, runners, status, audit, _dir: dir };
        parts.sidecar.start().await;
        for part in parts.services_mut() {
            part.daemon.start().await;
        }
        parts.ready().await;
        parts
    }

    /// Where people find them; tasks are decided about at the first runner.
    pub(crate) fn doors(&self) -> Doors {
        Doors {
            intake: self.intake.api.clone(),
            runner: self.runners[0].api.clone(),
            status: self.status.api.clone(),
            audit: self.audit.api.clone(),
        }
    }

    pub(crate) fn services(&self) -> impl Iterator<Item = &Part> {
        [&self.intake, &self.status, &self.audit].into_iter().chain(&self.runners)
    }

    fn services_mut(&mut self) -> impl Iterator<Item = &mut Part> {
        [&mut self.intake, &mut self.status, &mut self.audit].into_iter().chain(&mut self.runners)
    }

    /// Waits until every service is ready.
    pub(crate) async fn ready(&self) {
        for part in self.services() {
            part.ready().await;
        }
    }
}

impl Part {
    /// Waits until it is ready.
    pub(crate) async fn ready(&self) {
        eventually(|| async {
            let answer = self.app.get("/ready").await.map_err(|error| error.to_string())?;
            if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
        })
        .await;
    }

    /// Kills it as `kill -9` does, starts it again, and waits until it is ready.
    pub(crate) async fn kill_and_restart(&mut self) {
        self.daemon.start().await;
        self.ready().await;
    }
}
