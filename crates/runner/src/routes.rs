//! The runner's public routes.
//!
//! | route | |
//! |---|---|
//! | `POST /v1/tasks/{id}/approval` | a person decides |
//! | `POST /v1/tasks/{id}/reply` | a person answers what was handed to them |
//! | `GET /v1/approvals/{id}` | what is asked, also as a page |
//! | `POST /v1/tasks/{id}/messages` | somebody says something to a task |
//! | `POST /v1/tasks/{id}/cancel` | somebody calls a task off |
//! | `GET /v1/agents` | agents, their pools and how they are used |

mod agents;
mod approval;
mod cancel;
mod messages;
mod question;
mod reply;

use std::sync::Arc;
use std::time::Duration;

use fte_events::TaskId;
use fte_service::keys::Caller;
use fte_service::{ApiRoutes, Arrival, Problem};
use http::StatusCode;
use utoipa_axum::routes;

use crate::ports::PortError;
use crate::protocol::Runner;

/// How often a task that is on its way is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Longest name of who decides, replies, cancels or sends.
const NAME_CHARS_MAX: usize = 200;

/// What handlers need.
#[derive(Clone)]
pub(crate) struct AppState {
    pub(crate) runner: Arc<Runner>,
    pub(crate) agents: Arc<fte_service::agents::Agents>,
}

pub(crate) fn router(state: AppState) -> ApiRoutes {
    ApiRoutes::new()
        .routes(routes!(approval::decide, question::show))
        .routes(routes!(messages::send))
        .routes(routes!(reply::reply))
        .routes(routes!(cancel::cancel))
        .routes(routes!(agents::list))
        .with_state(state)
}

/// Asks, and again for a short while if nobody has met the task: one that was accepted a moment ago may still be on its way here.
async fn once_met<T, E, F>(task: TaskId, is_unmet: impl Fn(&E) -> bool, ask: impl Fn() -> F) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
{
    let arrival = Arrival::of(Some(task));
    loop {
        match ask().await {
            Err(error) if is_unmet(&error) && arrival.wait(tokio::time::sleep(LOOK_EVERY)).await => {}
            answer => return answer,
        }
    }
}

/// Who does something: the key's owner where API keys are in force, else whom the body names.
fn who(caller: &Caller, named: Option<String>) -> Option<String> {
    caller.name().map(str::to_owned).or_else(|| named.filter(|name| !name.trim().is_empty()))
}

/// The same where it need not be known.
fn whoever(caller: &Caller, named: Option<String>) -> String {
    who(caller, named).unwrap_or_else(|| "unknown".to_owned())
}

/// Whether it can be a name.
fn is_name(name: &str) -> bool {
    name.chars().count() <= NAME_CHARS_MAX
}

fn not_found(task: TaskId) -> Problem {
    let detail = format!("There is no task {task} here; it may not have arrived yet, or it ended more than 8 days ago.");
    Problem::new(StatusCode::NOT_FOUND, "task_not_found", detail)
}

/// The state store or this runner cannot take it now.
fn unavailable(error: &PortError) -> Problem {
    // An error does not say that a write did not happen; the same request again is harmless either way.
    let detail = "The runner could not reach its state, or has its hands full: whether the request counts is not known. Send the same again; it counts once.";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "runner_unavailable", detail).retry_after(Duration::from_secs(1)).caused_by(error)
}
