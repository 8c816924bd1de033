//! The runner's own configuration.

use std::sync::Arc;
use std::time::Duration;

use fte_service::agents::{Agent, AgentKind};
use fte_service::{ConfigError, Env};

use crate::agents::Claims;
use crate::document::Budget;
use crate::settings::{AgentLimits, Settings};

/// Tasks this process may be responsible for at once, 1 to 16 384. Default: what all agents together may have (`max` and `queue` of each), but at least 640
/// and at most 4 096. Where it is less than that, one busy agent can hold up the others.
pub const ENV_PLACES: &str = "FTE_RUNNER_PLACES";
/// How long a task waits for a sandbox until it counts as one step more urgent, `P3` as `P2` and `P2` as `P1`: `1m`.
pub const ENV_AGEING: &str = "FTE_RUNNER_AGEING";
/// How long a task keeps its sandbox while a person decides, in milliseconds. Default 10 000.
pub const ENV_APPROVAL_STAY_MS: &str = "FTE_RUNNER_APPROVAL_STAY_MS";
/// How long an approval waits for its decision: `24h`.
pub const ENV_APPROVAL_TTL: &str = "FTE_RUNNER_APPROVAL_TTL";
/// How long a task keeps its sandbox while its agent, with open hand-offs, says nothing, in milliseconds. Default 10 000.
pub const ENV_HANDOFF_STAY_MS: &str = "FTE_RUNNER_HANDOFF_STAY_MS";
/// How long a hand-off waits for its reply, unless the agent says less: `24h`.
pub const ENV_HANDOFF_TTL: &str = "FTE_RUNNER_HANDOFF_TTL";
/// Names what only one process can hold at a time, such as a locked directory or a pod's name: its last holder is dead, and is taken over
/// at once instead of after 15 s.
pub const ENV_SEAT: &str = "FTE_RUNNER_SEAT";

/// The least and the most of what the default of [`ENV_PLACES`] can be. Each write of the index names all tasks.
const PLACES_MIN: usize = 640;
const PLACES_MAX: usize = 4096;

/// What the runner reads from the environment.
#[derive(Clone, Debug)]
pub struct Config {
    /// See [`ENV_PLACES`].
    pub places: Option<usize>,
    /// See [`ENV_AGEING`].
    pub ageing: Duration,
    /// See [`ENV_APPROVAL_STAY_MS`].
    pub approval_stay: Duration,
    /// See [`ENV_APPROVAL_TTL`].
    pub approval_ttl: Duration,
    /// See [`ENV_HANDOFF_STAY_MS`].
    pub handoff_stay: Duration,
    /// See [`ENV_HANDOFF_TTL`].
    pub handoff_ttl: Duration,
    /// See [`ENV_SEAT`].
    pub seat: Option<String>,
    /// The program that is the first one inside a sandbox; without it none is made. Not of the environment: whoever composes the process knows.
    pub stage: Option<fte_sandbox::Stage>,
    /// See [`fte_artifacts::ENV_ARTIFACTS`].
    pub artifacts: fte_artifacts::Place,
    /// Who claims the sandboxes that are elsewhere. Not of the environment, either.
    pub claims: Option<Arc<dyn Claims>>,
}

impl Config {
    /// Reads the environment.
    pub fn from_env(env: &impl Env) -> Result<Self, ConfigError> {
        let defaults = Settings::default();
        let places = env.parsed::<usize>(ENV_PLACES)?;
        if let Some(wrong) = places.filter(|places| !(1..=16_384).contains(places)) {
            return Err(ConfigError::variable(ENV_PLACES, wrong.to_string(), "1 to 16384"));
        }
        Ok(Self {
            places,
            ageing: env.duration_or(ENV_AGEING, defaults.ageing)?,
            approval_stay: env.millis_or(ENV_APPROVAL_STAY_MS, defaults.approval_stay)?,
            approval_ttl: env.patience_or(ENV_APPROVAL_TTL, defaults.approval_ttl)?,
            handoff_stay: env.millis_or(ENV_HANDOFF_STAY_MS, defaults.handoff_stay)?,
            handoff_ttl: env.patience_or(ENV_HANDOFF_TTL, defaults.handoff_ttl)?,
            seat: env.parsed(ENV_SEAT)?,
            stage: None,
            artifacts: fte_artifacts::Place::from_env(env)?,
            claims: None,
        })
    }

    /// The protocol's settings for these agents.
    pub fn protocol(self, agents: &fte_service::agents::Agents) -> Settings {
        let asked_for: usize = agents.agents.values().map(|agent| agent.max as usize + agent.queue as usize).sum();
        Settings {
            agents: agents.agents.iter().map(|(name, agent)| (name.as_str().to_owned(), limits(agent))).collect(),
            default_agent: agents.default.as_str().to_owned(),
            places: self.places.unwrap_or_else(|| asked_for.clamp(PLACES_MIN, PLACES_MAX)),
            ageing: self.ageing,
            approval_stay: self.approval_stay,
            approval_ttl: self.approval_ttl,
            handoff_stay: self.handoff_stay,
            handoff_ttl: self.handoff_ttl,
            seat: self.seat,
            ..Settings::default()
        }
    }
}

fn limits(agent: &Agent) -> AgentLimits {
    let runtime = match agent.kind {
        AgentKind::Http(_) if agent.kubernetes.is_some() => fte_events::Runtime::Kubernetes,
        AgentKind::Builtin(_) | AgentKind::Http(_) => fte_events::Runtime::None,
        AgentKind::Command(_) | AgentKind::Process(_) | AgentKind::Acp(..) => fte_events::Runtime::Process,
    };
    AgentLimits {
        max: agent.max,
        queue: agent.queue,
        rate: agent.rate,
        concurrency_key: agent.concurrency_key.clone(),
        runtime,
        timeout: agent.timeout,
        attempts_max: agent.attempts,
        approvals: agent.approvals.clone(),
        budget: Budget { usd: agent.budget_usd, tokens: agent.budget_tokens },
        takes_messages: agent.messages,
        // What a tool of such an agent is called with is the agent's own.
        takes_edits: !matches!(agent.kind, AgentKind::Acp(..)),
    }
}
