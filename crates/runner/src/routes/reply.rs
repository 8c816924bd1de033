//! `POST /v1/tasks/{id}/reply`

use axum::extract::State;
use fte_events::TaskId;
use fte_events::limits::json_bytes;
use fte_service::extract::{Json, Path};
use fte_service::keys::Caller;
use fte_service::{FieldError, Problem};
use http::StatusCode;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{AppState, is_name, not_found, once_met, unavailable, who};
use crate::document::PersonAnswer;
use crate::protocol::AnswerError;

/// Most bytes of a result.
const RESULT_BYTES_MAX: usize = 256 * 1024;
const ERROR_CHARS_MAX: usize = 2000;

/// A person's answer to what an agent handed to them: `result` or `error`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReplyRequest {
    /// What came of it; any JSON, at most 256 KiB.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Object>)]
    result: Option<Value>,
    /// Why it is not done, in their words.
    error: Option<String>,
    /// Who answers: needed where no API keys are in force, else it is the key's owner whatever stands here.
    by: Option<String>,
}

/// `null` is a result, too.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// The answer that counts.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReplyTaken {
    /// The task that was handed to a person, and ends with this.
    task_id: TaskId,
}

/// Answers a task that an agent handed to people: its agent is `human`. The same answer again is 200.
#[utoipa::path(
    post, path = "/v1/tasks/{id}/reply", tag = "tasks", request_body = ReplyRequest,
    params(("id" = String, Path, description = "The task")),
    responses(
        (status = 200, description = "The answer counts", body = ReplyTaken),
        (status = 404, description = "`task_not_found`"),
        (status = 409, description = "`not_awaiting_reply`, `replied_otherwise`"),
        (status = 422, description = "`invalid_reply`. `replier_missing`: nobody answers without a name"),
        (status = 503, description = "`runner_unavailable`: whether it counts is not known; send the same again"),
    )
)]
pub(crate) async fn reply(
    State(app): State<AppState>,
    caller: Caller,
    Path(id): Path<TaskId>,
    Json(request): Json<ReplyRequest>,
) -> Result<Json<ReplyTaken>, Problem> {
    let invalid = |detail: &str| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_reply", detail);
    let said = match (request.result, request.error) {
        (Some(result), None) if json_bytes(&result) <= RESULT_BYTES_MAX => Ok(result),
        (Some(_), None) => return Err(invalid("The result is larger than 256 KiB: put it where the agent can get it, and say where.")),
        (None, Some(error)) if (1..=ERROR_CHARS_MAX).contains(&error.chars().count()) => Err(error),
        (None, Some(_)) => return Err(invalid("The error must be a text of 1 to 2000 characters.")),
        (Some(_), Some(_)) | (None, None) => return Err(invalid("Say either a result or an error.")),
    };
    let Some(by) = who(&caller, request.by) else { return Err(nameless()) };
    if !is_name(&by) {
        return Err(invalid("The name of who answers must be at most 200 characters."));
    }
    let (answer, tenant) = (PersonAnswer::new(by, said), caller.only_tenant().map(str::to_owned));
    let is_unmet = |error: &AnswerError| matches!(error, AnswerError::Unknown(_));
    match once_met(id, is_unmet, || app.runner.answer(id, answer.clone(), tenant.clone())).await {
        Ok(_) => Ok(Json(ReplyTaken { task_id: id })),
        Err(AnswerError::Unknown(task)) => Err(not_found(task)),
        Err(AnswerError::NotAwaiting(status)) => {
            let detail = format!("Only a task that was handed to people takes a reply, until it has ended; this one is {status}.");
            Err(Problem::new(StatusCode::CONFLICT, "not_awaiting_reply", detail).with("task_status", status))
        }
        Err(AnswerError::Otherwise { by }) => {
            let detail = format!("{by} has answered already, and otherwise; an answer cannot be changed.");
            Err(Problem::new(StatusCode::CONFLICT, "replied_otherwise", detail).with("by", by))
        }
        Err(AnswerError::Unavailable(error)) => Err(unavailable(&error)),
    }
}

/// The record names who answered.
fn nameless() -> Problem {
    let detail = "Nothing was answered: say who answers, as in {\"result\": \"yes\", \"by\": \"ada\"}. With the command line: fte reply --as ada. Where API keys are in force it is the key's owner.";
    let missing = FieldError { pointer: "/by".to_owned(), detail: "it is missing or empty".to_owned() };
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "replier_missing", detail).errors(vec![missing])
}
