//! `POST /v1/tasks/{id}/cancel`

use axum::extract::State;
use fte_events::TaskId;
use fte_service::Problem;
use fte_service::extract::{Json, Path};
use fte_service::keys::Caller;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::{AppState, unavailable};
use crate::protocol::CancelError;

/// The cancel is on its way.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CancelAccepted {
    /// The task.
    task_id: TaskId,
    /// Where to see how it ends.
    result: String,
}

/// Calls a task off, also before the runner has met it. A task that finishes first stays finished.
#[utoipa::path(
    post, path = "/v1/tasks/{id}/cancel", tag = "tasks",
    params(("id" = String, Path, description = "The task")),
    responses(
        (status = 202, description = "The task will end, as `cancelled` unless it finishes first", body = CancelAccepted),
        (status = 409, description = "`task_ended`"),
        (status = 503, description = "`runner_unavailable`: whether it counts is not known; send the same again"),
    )
)]
pub(crate) async fn cancel(
    State(app): State<AppState>,
    caller: Caller,
    Path(id): Path<TaskId>,
) -> Result<(StatusCode, Json<CancelAccepted>), Problem> {
    match app.runner.cancel(id, caller.name().unwrap_or("unknown").to_owned(), caller.only_tenant().map(str::to_owned)).await {
        Ok(()) => Ok((StatusCode::ACCEPTED, Json(CancelAccepted { task_id: id, result: format!("/v1/tasks/{id}/result") }))),
        Err(CancelError::Ended(kind)) => {
            let detail = format!("The task has ended already: it is {kind}.");
            Err(Problem::new(StatusCode::CONFLICT, "task_ended", detail).with("task_status", kind.status().as_str()))
        }
        Err(CancelError::Unavailable(error)) => Err(unavailable(&error)),
    }
}
