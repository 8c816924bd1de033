//! `POST /v1/tasks/{id}/approval`

use axum::extract::State;
use fte_events::TaskId;
use fte_events::limits::json_bytes;
use fte_service::extract::{Json, Path};
use fte_service::keys::Caller;
use fte_service::{FieldError, Problem};
use http::StatusCode;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{AppState, NAME_CHARS_MAX, not_found, once_met, unavailable, who};
use crate::protocol::{Answer, DecideError, Decided, Made};

const REASON_CHARS_MAX: usize = 2000;
const EDIT_BYTES_MAX: usize = 64 * 1024;

/// A person's answer to a question.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DecisionRequest {
    /// Yes or no.
    approved: bool,
    /// The question it is for, as `approval.question` of the task names it; else whichever is open. With it, a request that is sent again
    /// because its answer was lost cannot decide the next question.
    question: Option<u32>,
    /// In their words, for the agent and the audit.
    reason: Option<String>,
    /// With a yes: what the agent shall work with instead of the `data` that it asked about, at most 64 KiB of JSON. Before the start (`require_approval`) an object with
    /// `task`, `context` or both, which replace those of the request.
    #[schema(value_type = Option<Object>)]
    edit: Option<Value>,
    /// Who decides: needed where no API keys are in force, else it is the key's owner whatever stands here.
    approver: Option<String>,
}

/// The decision that counts.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DecisionTaken {
    /// The task.
    task_id: TaskId,
    /// Yes or no.
    approved: bool,
    /// Who made it: perhaps somebody else, where it was made already.
    approver: String,
    /// When.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "fte_bus::time::serialize")]
    decided_at: Option<Timestamp>,
    /// Whether they changed the input.
    edited: bool,
    /// It was made before this request, which changed nothing.
    already: bool,
}

/// Decides a task that awaits approval. The same decision again is 200.
#[utoipa::path(
    post, path = "/v1/tasks/{id}/approval", tag = "tasks", request_body = DecisionRequest,
    params(("id" = String, Path, description = "The task")),
    responses(
        (status = 200, description = "The decision counts", body = DecisionTaken),
        (status = 403, description = "`not_an_approver`: the agent's configuration names others"),
        (status = 404, description = "`task_not_found`"),
        (status = 409, description = "`not_awaiting_approval`, `other_question`, `decided_otherwise` (also with another edit): with `approved`, `approver`, `decided_at` and `edited` of the decision that counts"),
        (status = 422, description = "`approver_missing`: nobody decides without a name. `invalid_decision`: what is too long, or an edit that does not fit"),
        (status = 503, description = "`runner_unavailable`: whether it counts is not known; send the same again"),
    )
)]
pub(crate) async fn decide(
    State(app): State<AppState>,
    caller: Caller,
    Path(id): Path<TaskId>,
    Json(request): Json<DecisionRequest>,
) -> Result<Json<DecisionTaken>, Problem> {
    let Some(approver) = who(&caller, request.approver) else { return Err(nameless()) };
    let too_long = [("/reason", request.reason.as_deref().unwrap_or_default(), REASON_CHARS_MAX), ("/approver", &approver, NAME_CHARS_MAX)]
        .into_iter()
        .filter(|(_, text, max)| text.chars().count() > *max)
        .map(|(pointer, _, max)| FieldError { pointer: pointer.to_owned(), detail: format!("at most {max} characters") })
        .collect::<Vec<_>>();
    if !too_long.is_empty() {
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_decision", "The decision is too long.").errors(too_long));
    }
    if let Some(edit) = &request.edit {
        let wrong = match request.approved {
            false => Some("only what is approved can be edited".to_owned()),
            true if json_bytes(edit) > EDIT_BYTES_MAX => Some(format!("at most {EDIT_BYTES_MAX} bytes of JSON")),
            true => None,
        };
        if let Some(wrong) = wrong {
            return Err(bad_edit(wrong));
        }
    }
    let answer = Answer {
        question: request.question,
        approved: request.approved,
        reason: request.reason,
        approver,
        edit: request.edit,
        tenant: caller.only_tenant().map(str::to_owned),
    };
    let is_unmet = |error: &DecideError| matches!(error, DecideError::Unknown(_));
    match once_met(id, is_unmet, || app.runner.decide(id, answer.clone())).await {
        Ok((decided, made)) => {
            let Made { approved, approver, decided_at, edited } = made;
            Ok(Json(DecisionTaken { task_id: id, approved, approver, decided_at, edited, already: decided == Decided::Before }))
        }
        Err(DecideError::Unknown(task)) => Err(not_found(task)),
        Err(DecideError::NotAwaiting(status)) => {
            let detail = format!("The task does not await approval: it is {status}.");
            Err(Problem::new(StatusCode::CONFLICT, "not_awaiting_approval", detail).with("task_status", status))
        }
        Err(error @ DecideError::OtherQuestion { asked, .. }) => {
            let detail = format!("Nothing was decided: {error}. Look at the task and answer what it asks now.");
            Err(Problem::new(StatusCode::CONFLICT, "other_question", detail).with("question", asked))
        }
        Err(DecideError::Otherwise(made)) => Err(otherwise(made)),
        Err(error @ DecideError::NotApprover { .. }) => {
            let detail = format!("Nothing was decided: {error} (`approvers` in agents.toml).");
            Err(Problem::new(StatusCode::FORBIDDEN, "not_an_approver", detail))
        }
        Err(DecideError::BadEdit(misfit)) => Err(bad_edit(misfit)),
        Err(DecideError::Unavailable(error)) => Err(unavailable(&error)),
    }
}

/// Somebody was first.
fn otherwise(made: Made) -> Problem {
    let detail = format!("Nothing was decided: the task was {made} already; a decision cannot be changed.");
    let Made { approved, approver, decided_at, edited } = made;
    let problem = Problem::new(StatusCode::CONFLICT, "decided_otherwise", detail);
    let problem = problem.with("approved", approved).with("approver", approver).with("edited", edited);
    match decided_at {
        Some(at) => problem.with("decided_at", fte_bus::time::text(at)),
        None => problem,
    }
}

/// The record names who decided.
fn nameless() -> Problem {
    let detail = "Nothing was decided: say who decides, as in {\"approved\": true, \"approver\": \"ada\"}. With the command line: fte approve --as ada. Where API keys are in force it is the key's owner.";
    let missing = FieldError { pointer: "/approver".to_owned(), detail: "it is missing or empty".to_owned() };
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "approver_missing", detail).errors(vec![missing])
}

fn bad_edit(detail: String) -> Problem {
    let wrong = FieldError { pointer: "/edit".to_owned(), detail };
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_decision", "Nothing was decided: the edit does not fit.").errors(vec![wrong])
}
