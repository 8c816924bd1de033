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

use fte_service::{ApiRoutes, Problem};
use http::StatusCode;
use utoipa_axum::routes;

use crate::ports::PortError;
use crate::protocol::Runner;

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

/// The state store or this runner cannot take it now.
fn unavailable(error: &PortError) -> Problem {
    // An error does not say that a write did not happen; the same request again is harmless either way.
    let detail = "The runner could not reach its state, or has its hands full: whether the request counts is not known. Send the same again; it counts once.";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "runner_unavailable", detail).retry_after(Duration::from_secs(1)).caused_by(error)
}
