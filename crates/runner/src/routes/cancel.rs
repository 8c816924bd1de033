//! `POST /v1/tasks/{id}/cancel`

use axum::extract::State;
use fte_events::TaskId;
use fte_service::extract::{Json, OptionalJson, Path};
use fte_service::keys::Caller;
use fte_service::{FieldError, Problem};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{AppState, NAME_CHARS_MAX, is_name, unavailable, whoever};
use crate::protocol::CancelError;

/// Who calls it off; there need not be a body.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CancelRequest {
    /// Their name, for the record, at most 200 characters. Where API keys are in force it is the key's owner whatever stands here; where nobody is named it is `unknown`.
    by: Option<String>,
}

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
    post, path = "/v1/tasks/{id}/cancel", tag = "tasks", request_body = Option<CancelRequest>,
    params(("id" = String, Path, description = "The task")),
    responses(
        (status = 202, description = "The task will end, as `cancelled` unless it finishes first", body = CancelAccepted),
        (status = 409, description = "`task_ended`"),
        (status = 422, description = "`invalid_cancel`: a name that is too long"),
        (status = 503, description = "`runner_unavailable`: whether it counts is not known; send the same again"),
    )
)]
pub(crate) async fn cancel(
    State(app): State<AppState>,
    caller: Caller,
    Path(id): Path<TaskId>,
    OptionalJson(request): OptionalJson<CancelRequest>,
) -> Result<(StatusCode, Json<CancelAccepted>), Problem> {
    let by = whoever(&caller, request.by);
    if !is_name(&by) {
        let wrong = FieldError { pointer: "/by".to_owned(), detail: format!("at most {NAME_CHARS_MAX} characters") };
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_cancel", "Nothing was cancelled.").errors(vec![wrong]));
    }
    match app.runner.cancel(id, by, caller.only_tenant().map(str::to_owned)).await {
        Ok(()) => Ok((StatusCode::ACCEPTED, Json(CancelAccepted { task_id: id, result: format!("/v1/tasks/{id}/result") }))),
        Err(CancelError::Ended(kind)) => {
            let detail = format!("The task has ended already: it is {kind}.");
            Err(Problem::new(StatusCode::CONFLICT, "task_ended", detail).with("task_status", kind.status().as_str()))
        }
        Err(CancelError::Unavailable(error)) => Err(unavailable(&error)),
    }
}
