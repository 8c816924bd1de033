//! Starts agents, of every kind: parts of this program (`echo`, `demo`), any command, programs that speak JSON lines or the Agent Client Protocol, and agents
//! that run elsewhere.
//! `docs/agents.md` is for who writes one.
//!
//! Always true, for every kind: what an agent says is bounded in size and number, and waits where the runner is slower; what it makes is kept before it is
//! named; when its session is dropped it is killed with all it started, and its workspace removed; it dies with the runner, also when that is killed.
//!
//! How a program is held apart from the rest of the machine is the matter of a [`Launcher`].

mod acp;
mod artifacts;
mod claims;
mod command;
mod demo;
mod echo;
mod elsewhere;
mod group;
mod handed;
mod http;
mod inside;
mod lacks;
mod launch;
mod limits;
mod lines;
mod measure;
mod process;
mod program;
mod proxy;
mod secrets;
mod session;
mod warm;
mod watchdog;
mod wire;
mod workspace;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fte_artifacts::{Artifacts, Away};
use fte_events::{AgentName, Runtime};
use fte_service::agents::{self as config, AgentKind, Builtin};
use fte_service::{ConfigError, Env};
use tokio::sync::mpsc;
use uuid::Uuid;

pub use self::claims::{ClaimError, ClaimRequest, ClaimedSandbox, Claims, SandboxHost};
pub use self::http::HttpLimits;
pub use self::launch::Launcher;
pub use self::limits::Limits;
pub use self::secrets::{NoSecrets, SecretError, Secrets};

use self::artifacts::ArtifactStore;
use self::http::HttpAgent;
use self::session::{ProgramAgent, Talk, Variables};
use self::watchdog::Watchdog;
use crate::ports::{Agents, Pending, Session, Start, StartError, Tell};

/// Where programs are looked for when the runner itself was not told.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Why there is no host of agents.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// A directory is of no use.
    #[error("a directory of the agents cannot be found")]
    Directory(#[from] io::Error),
    /// A value that an agent needs is not there.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// All configured agents.
pub struct AgentHost {
    agents: BTreeMap<AgentName, Worker>,
    shared: Arc<Shared>,
    claims: Option<Arc<dyn Claims>>,
    /// Leads nowhere: for agents that listen to nothing.
    deaf: mpsc::Sender<Tell>,
}

/// Who does the work.
enum Worker {
    Echo,
    Demo,
    Program(Arc<ProgramAgent>),
    Http(Arc<HttpAgent>),
    /// The same, in a sandbox that is claimed for each session.
    Claimed(Arc<HttpAgent>, config::kubernetes::KubernetesSandbox),
}

/// What programs are started with.
pub struct Means {
    /// Starts them.
    pub launcher: Launcher,
    /// Where their secrets come from.
    pub secrets: Box<dyn Secrets>,
}

impl Default for Means {
    /// No walls, no secrets.
    fn default() -> Self {
        Self { launcher: Launcher::default(), secrets: Box::new(NoSecrets) }
    }
}

/// What all sessions use.
struct Shared {
    artifacts: ArtifactStore,
    workspaces: PathBuf,
    launcher: Launcher,
    secrets: Box<dyn Secrets>,
    watchdog: Arc<Watchdog>,
    limits: Limits,
}

impl AgentHost {
    /// The agents of the configuration. `beside` is the directory of `agents.toml`: arguments that are the names of files there become absolute, since an
    /// agent runs in its own workspace. `data` is where workspaces go. `env` is read now and for the names on the agents' lists only.
    pub fn new(
        agents: &config::Agents,
        beside: Option<&Path>,
        data: &Path,
        artifacts: Artifacts,
        env: &impl Env,
        limits: Limits,
        means: Means,
    ) -> Result<Self, HostError> {
        let Means { launcher, secrets } = means;
        let data = std::path::absolute(data)?;
        let beside = beside.map(std::path::absolute).transpose()?;
        let worker = |(name, agent): (&AgentName, &config::Agent)| {
            let program = |talk, command: &[String]| {
                let command: Vec<_> = command.iter().enumerate().map(|(at, argument)| absolute(at, argument, beside.as_deref())).collect();
                let shown = launcher.shown(agent, &command, beside.as_deref());
                let env = environment(&agent.env, env);
                Worker::Program(Arc::new(ProgramAgent {
                    name: name.to_string(),
                    agent: agent.clone(),
                    talk,
                    command,
                    shown,
                    env,
                    warm: Arc::default(),
                }))
            };
            let worker = match &agent.kind {
                AgentKind::Builtin(Builtin::Echo) => Worker::Echo,
                AgentKind::Builtin(Builtin::Demo) => Worker::Demo,
                AgentKind::Command(command) => program(Talk::Command, command),
                AgentKind::Process(command) => program(Talk::Process, command),
                AgentKind::Http(http) => {
                    let http = Arc::new(HttpAgent::new(name.as_str(), agent, http, env, &limits.http)?);
                    agent
                        .kubernetes
                        .clone()
                        .map_or_else(|| Worker::Http(Arc::clone(&http)), |place| Worker::Claimed(Arc::clone(&http), place))
                }
                AgentKind::Acp(command, permissions) => program(Talk::Acp(*permissions), command),
            };
            Ok::<_, HostError>((name.clone(), worker))
        };
        let workers = agents.agents.iter().map(worker).collect::<Result<_, _>>()?;
        let shared = Shared {
            artifacts: ArtifactStore::new(artifacts, limits.artifact_bytes_max),
            workspaces: data.join("workspaces"),
            launcher,
            secrets,
            watchdog: Arc::default(),
            limits,
        };
        Ok(Self { agents: workers, shared: Arc::new(shared), claims: None, deaf: mpsc::channel(1).0 })
    }

    /// The same, with somebody who claims sandboxes that are elsewhere. Without, agents in such cannot start.
    pub fn with_claims(self, claims: Option<Arc<dyn Claims>>) -> Self {
        Self { claims, ..self }
    }

    /// Finds out whether workspaces can be made and artifacts kept, before a task finds out. A full disk is no obstacle, nor is a store on the network
    /// that is away: that heals by itself.
    pub async fn probe(&self) -> io::Result<()> {
        let probe = self.shared.workspaces.join(format!("probe-{}", Uuid::new_v4().simple()));
        match std::fs::create_dir_all(&probe).and_then(|()| std::fs::remove_dir(&probe)) {
            Err(error) if error.kind() != io::ErrorKind::StorageFull => return Err(error),
            _ => {}
        }
        let artifacts = self.shared.artifacts.kept();
        match artifacts.probe().await {
            Err(Away::Directory { source, .. }) => return Err(source),
            Err(away) => {
                let error = fte_service::chain(&away);
                let advice = "check FTE_ARTIFACTS, the endpoint, the bucket and its rights; tasks that make artifacts fail until then";
                tracing::warn!(store = ?artifacts, error, advice, "the artifacts' store cannot be used now");
            }
            Ok(()) => {}
        }
        Ok(())
    }

    /// What agents lack that would keep them from starting.
    pub(crate) fn lacks(&self) -> Vec<lacks::Lack> {
        self.programs().filter_map(|program| lacks::of(program)).collect()
    }

    /// What holds programs here, where one asks for it.
    pub(crate) fn holds(&self) -> Option<&fte_sandbox::Holds> {
        self.shared.launcher.holds()
    }

    /// Keeps programs ready that were asked for ahead of their tasks, for as long as it is polled.
    pub fn keep_warm(&self) -> impl Future<Output = ()> + Send + use<> {
        let programs: Vec<_> = self.programs().filter(|program| program.agent.min_warm > 0).cloned().collect();
        let shared = Arc::clone(&self.shared);
        async move {
            let keep = programs.iter().map(|program| {
                let (min, max) = (program.agent.min_warm, program.agent.max);
                program.warm.keep(min, max, || async {
                    let started = session::spawn_ahead(program, &shared).await;
                    started.inspect_err(|error| tracing::warn!(%error, "an agent cannot be started ahead of its tasks")).ok()
                })
            });
            futures_util::future::join_all(keep).await;
        }
    }

    /// Ends programs that wait for a task, and waits until those at work are gone, too, once others have ended them. None is kept ready any more.
    pub fn put_away(&self) -> impl Future<Output = ()> + Send + use<> {
        let programs: Vec<_> = self.programs().cloned().collect();
        async move { drop(futures_util::future::join_all(programs.iter().map(|program| program.warm.close())).await) }
    }

    fn programs(&self) -> impl Iterator<Item = &Arc<ProgramAgent>> {
        self.agents.values().filter_map(|worker| match worker {
            Worker::Program(program) => Some(program),
            Worker::Echo | Worker::Demo | Worker::Http(_) | Worker::Claimed(..) => None,
        })
    }

    /// Removes what a killed predecessor left in the data directory. Only for who knows that no other runner uses it: before the first start, under the
    /// directory's lock.
    pub fn sweep(&self) -> io::Result<()> {
        workspace::sweep(&self.shared.workspaces)?;
        self.shared.launcher.sweep()?;
        self.shared.artifacts.kept().sweep()
    }

    /// What the sandboxes of an agent are made of; `None` where there is no such agent.
    pub fn runtime(&self, agent: &str) -> Option<Runtime> {
        self.agents.get(agent).map(|worker| match worker {
            Worker::Echo | Worker::Demo | Worker::Http(_) => Runtime::None,
            Worker::Program(_) => self.shared.launcher.runtime(),
            Worker::Claimed(..) => Runtime::Kubernetes,
        })
    }
}

impl Agents for AgentHost {
    fn is_warm(&self, agent: &str) -> bool {
        matches!(self.agents.get(agent), Some(Worker::Program(program)) if program.warm.is_ready())
    }

    fn start(&self, agent: &str, start: Start) -> Pending<Result<Session, StartError>> {
        match self.agents.get(agent) {
            Some(Worker::Echo) => Box::pin(std::future::ready(Ok(echo::start(start, &self.deaf)))),
            Some(Worker::Demo) => Box::pin(std::future::ready(Ok(demo::start(start, Arc::clone(&self.shared))))),
            Some(Worker::Http(agent)) => Box::pin(std::future::ready(Ok(http::start(Arc::clone(agent), start, Arc::clone(&self.shared))))),
            Some(Worker::Program(program)) => Box::pin(session::start(Arc::clone(program), start, Arc::clone(&self.shared))),
            Some(Worker::Claimed(worker, place)) => match &self.claims {
                Some(claims) => {
                    let sandbox = place.clone();
                    let request = ClaimRequest { claim_id: start.claim_id, task_id: start.task_id, agent: agent.to_owned(), sandbox };
                    // What an earlier session began in its sandbox is gone with that.
                    let start = Start { checkpoint: None, ..start };
                    let (worker, shared) = (Arc::clone(worker), Arc::clone(&self.shared));
                    let begin = move |authority: &str| worker.at(authority).map(|worker| http::start(Arc::new(worker), start, shared));
                    Box::pin(elsewhere::start(Arc::clone(claims), request, begin))
                }
                None => not_started(agent, "nobody here claims sandboxes"),
            },
            None => not_started(agent, "it is not configured"),
        }
    }
}

fn not_started(agent: &str, reason: &str) -> Pending<Result<Session, StartError>> {
    let error = StartError { agent: agent.to_owned(), reason: reason.to_owned(), retryable: false };
    Box::pin(std::future::ready(Err(error)))
}

/// Makes the name of a file that stands beside `agents.toml` absolute. A program without a slash stays as it is, to be found in `PATH`.
fn absolute(at: usize, argument: &str, beside: Option<&Path>) -> String {
    let bare = argument.is_empty() || argument.starts_with('-') || (at == 0 && !argument.contains('/'));
    let Some(beside) = beside.filter(|_| !bare) else { return argument.to_owned() };
    let file = beside.join(argument);
    match file.to_str() {
        Some(absolute) if file.is_file() => absolute.to_owned(),
        _ => argument.to_owned(),
    }
}

/// The variables on an agent's list, and where to find programs.
fn environment(allowed: &[String], env: &impl Env) -> Variables {
    let path = ("PATH".to_owned(), env.get("PATH").unwrap_or_else(|| PATH.to_owned()));
    let own = ["PATH", "HOME", "TMPDIR"];
    let allowed = allowed.iter().filter(|name| !own.contains(&name.as_str()));
    std::iter::once(path).chain(allowed.filter_map(|name| Some((name.clone(), env.get(name)?)))).collect()
}

#[cfg(test)]
mod test_support;
