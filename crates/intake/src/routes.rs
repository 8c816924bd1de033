//! The public routes.
//!
//! | method | path | |
//! |---|---|---|
//! | POST | `/v1/tasks` | accepts a task |
//! | POST | `/tasks` | the same, for short |

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use fte_events::TaskId;
use fte_service::extract::{JsonBytes, parse_json};
use fte_service::keys::Caller;
use fte_service::{ApiRoutes, Problem, TraceParent};
use http::header::LOCATION;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::routes;

use crate::idempotency::Key;
use crate::intake::Intake;
use crate::request::NewTask;

pub(crate) fn routes(intake: Arc<Intake>) -> ApiRoutes {
    let mut routes = ApiRoutes::default().routes(routes!(create_task)).route("/tasks", post(create_task));
    let paths = &mut routes.get_openapi_mut().paths.paths;
    if let Some(short) = paths.get("/v1/tasks").cloned() {
        paths.insert("/tasks".to_owned(), short);
    }
    routes.with_state(intake)
}

/// A task was accepted.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AcceptedTask {
    /// The task's id.
    pub task_id: TaskId,
    /// Always `accepted`.
    #[schema(example = "accepted")]
    pub status: &'static str,
    /// What to do next.
    pub message: &'static str,
    /// Where it goes on.
    pub links: Links,
}

/// Where a task goes on.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Links {
    /// The task as it stands.
    #[serde(rename = "self")]
    pub this: String,
    /// What happens to it, live with `Accept: text/event-stream`.
    pub events: String,
    /// Its result; `?wait=30s` waits for it.
    pub result: String,
    /// Where to approve or reject it.
    pub approval: String,
    /// Where to cancel it.
    pub cancel: String,
}

impl AcceptedTask {
    fn new(task_id: TaskId) -> Self {
        let this = format!("/v1/tasks/{task_id}");
        let links = Links {
            events: format!("{this}/events"),
            result: format!("{this}/result"),
            approval: format!("{this}/approval"),
            cancel: format!("{this}/cancel"),
            this,
        };
        Self {
            task_id,
            status: "accepted",
            message: "The task is accepted. Follow it at links.events; links.result will have its result.",
            links,
        }
    }
}

impl IntoResponse for AcceptedTask {
    fn into_response(self) -> Response {
        let location = HeaderValue::from_str(&self.links.this);
        let mut response = (StatusCode::ACCEPTED, Json(self)).into_response();
        if let Ok(location) = location {
            response.headers_mut().insert(LOCATION, location);
        }
        response
    }
}

/// Give a task to an agent.
///
/// 202 means that the task is safe and will be done, once. With an `Idempotency-Key` the same request may be sent again for 24 hours and gets the
/// same answer; without one, a repeat is a new task.
#[utoipa::path(
    post,
    path = "/v1/tasks",
    tag = "tasks",
    request_body = NewTask,
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 200 visible ASCII characters, such as a UUID")),
    responses(
        (status = 202, description = "Accepted", body = AcceptedTask, headers(("Location" = String, description = "The task"))),
        (status = 400, description = "Not JSON, or a bad key"),
        (status = 409, description = "The key stands for another body"),
        (status = 413, description = "Too large"),
        (status = 415, description = "Not sent as JSON"),
        (status = 422, description = "Some fields are wrong"),
        (status = 503, description = "Not accepted now; try again: `task_not_accepted`, or `pool_full` where its agent's queue is full"),
    )
)]
async fn create_task(
    State(intake): State<Arc<Intake>>,
    trace: TraceParent,
    caller: Caller,
    headers: HeaderMap,
    JsonBytes(body): JsonBytes,
) -> Result<AcceptedTask, Problem> {
    let key = Key::of(&headers)?;
    let task_id = intake.accept(parse_json(&body)?, key, &caller, &trace).await?;
    Ok(AcceptedTask::new(task_id))
}
