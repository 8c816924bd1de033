//! `GET /v1/agents`

use axum::extract::State;
use fte_service::Page;
use fte_service::agents::AgentKind;
use fte_service::extract::Json;
use serde::Serialize;
use utoipa::ToSchema;

use super::AppState;

/// An agent and how its pool is used, in this runner.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AgentView {
    /// Its name.
    name: String,
    /// `builtin`, `command`, `process`, `acp` or `http`.
    kind: &'static str,
    /// Whether it does tasks that name no agent.
    default: bool,
    /// Sandboxes it may have at once.
    capacity: u32,
    /// Sandboxes in use.
    in_use: u32,
    /// Admitted tasks that wait for a sandbox.
    queued: u32,
    /// How many may; beyond that tasks are refused with `pool_full`.
    queue: u32,
    /// No further task is admitted now.
    full: bool,
    /// Most starts in a time, as `60/m`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "60/m")]
    rate: Option<String>,
}

/// The agents that can be asked for.
#[utoipa::path(get, path = "/v1/agents", tag = "agents", responses((status = 200, description = "The agents", body = Page<AgentView>)))]
pub(crate) async fn list(State(app): State<AppState>) -> Json<Page<AgentView>> {
    let usage = app.runner.usage().into_iter().filter_map(|usage| {
        let (name, agent) = app.agents.agents.iter().find(|(name, _)| name.as_str() == usage.agent)?;
        let kind = match agent.kind {
            AgentKind::Builtin(_) => "builtin",
            AgentKind::Command(_) => "command",
            AgentKind::Process(_) => "process",
            AgentKind::Http(_) => "http",
            AgentKind::Acp(..) => "acp",
        };
        Some(AgentView {
            full: app.runner.is_full(&usage.agent),
            name: usage.agent,
            kind,
            default: *name == app.agents.default,
            capacity: usage.capacity,
            in_use: usage.in_use,
            queued: usage.queued,
            queue: usage.queue,
            rate: agent.rate.map(|rate| rate.to_string()),
        })
    });
    Json(Page { items: usage.collect(), next_cursor: None })
}
