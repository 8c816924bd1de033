//! `POST /v1/tasks/{id}/messages`

use std::time::Duration;

use axum::extract::State;
use fte_events::TaskId;
use fte_events::limits::{TASK_CHARS_MAX, is_task_text, json_bytes};
use fte_service::extract::{Json, Path, idempotency_key};
use fte_service::keys::Caller;
use fte_service::{FieldError, Problem};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{AppState, NAME_CHARS_MAX, is_name, not_found, once_met, unavailable, whoever};
use crate::document::{Message, NoRoom};
use crate::protocol::{Letter, SendError};

const DATA_BYTES_MAX: usize = 64 * 1024;
const ID_BYTES_MAX: usize = 200;

/// What becomes of a message while the agent works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Policy {
    /// It is told as soon as the agent can be told anything.
    #[default]
    Enqueue,
    /// The same, and what the agent does now is cut short for it, as far as its kind can.
    Interrupt,
    /// It is refused.
    Reject,
}

/// A message to a task that is under way.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MessageRequest {
    /// In words: 1 to 32 000 characters.
    #[schema(min_length = 1, max_length = 32_000)]
    text: String,
    /// And as data, at most 64 KiB of JSON.
    #[schema(value_type = Option<Object>)]
    data: Option<Value>,
    /// What becomes of it while the agent works.
    #[serde(default)]
    policy: Policy,
    /// Its id within the task, 1 to 200 visible characters: who sends it again sends nothing new. Else that of the header `Idempotency-Key`, else a new one.
    message_id: Option<String>,
    /// Who says it, at most 200 characters. Where API keys are in force it is the key's owner whatever stands here; where nobody is named it is `unknown`.
    by: Option<String>,
}

/// The message is kept, and the agent will be told unless the task ends first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MessageAccepted {
    /// The task.
    task_id: TaskId,
    /// The message's id.
    message_id: String,
}

/// Says something to a task that has not ended: while its agent works, waits, or is still to start. The same message again is the same answer, and is told once.
#[utoipa::path(
    post, path = "/v1/tasks/{id}/messages", tag = "tasks", request_body = MessageRequest,
    params(
        ("id" = String, Path, description = "The task"),
        ("Idempotency-Key" = Option<String>, Header, description = "The message's id, where the body names none"),
    ),
    responses(
        (status = 202, description = "The message is kept; the agent is told unless the task ends first", body = MessageAccepted),
        (status = 400, description = "Not JSON, or `invalid_idempotency_key`"),
        (status = 404, description = "`task_not_found`"),
        (status = 409, description = "`task_ended`, `messages_unsupported` (the agent listens to nobody), `agent_busy` (with `reject`), `message_id_reused`, `too_many_messages`"),
        (status = 422, description = "`invalid_message`"),
        (status = 503, description = "`runner_unavailable`: whether it counts is not known; send the same again, with its id"),
    )
)]
pub(crate) async fn send(
    State(app): State<AppState>,
    caller: Caller,
    Path(task): Path<TaskId>,
    headers: HeaderMap,
    Json(request): Json<MessageRequest>,
) -> Result<(StatusCode, Json<MessageAccepted>), Problem> {
    let letter = read(request, &headers, &caller)?;
    let message_id = letter.message.id.clone();
    let is_unmet = |error: &SendError| matches!(error, SendError::Unknown(_));
    match once_met(task, is_unmet, || app.runner.send(task, letter.clone())).await {
        Ok(_) => Ok((StatusCode::ACCEPTED, Json(MessageAccepted { task_id: task, message_id }))),
        Err(error) => Err(refused(error)),
    }
}

fn read(request: MessageRequest, headers: &HeaderMap, caller: &Caller) -> Result<Letter, Problem> {
    let MessageRequest { text, data, policy, message_id, by } = request;
    let key = idempotency_key(headers)?;
    let id = message_id.or(key).unwrap_or_else(|| Uuid::now_v7().to_string());
    let from = whoever(caller, by);
    let wrong = [
        (is_task_text(&text), "/text", format!("expected a text of 1 to {TASK_CHARS_MAX} characters")),
        (data.as_ref().is_none_or(|data| json_bytes(data) <= DATA_BYTES_MAX), "/data", format!("at most {DATA_BYTES_MAX} bytes of JSON")),
        (is_name(&from), "/by", format!("at most {NAME_CHARS_MAX} characters")),
        (is_id(&id), "/message_id", format!("expected 1 to {ID_BYTES_MAX} visible ASCII characters, such as a UUID")),
    ];
    let wrong: Vec<_> = wrong
        .into_iter()
        .filter(|(fits, ..)| !fits)
        .map(|(_, pointer, detail)| FieldError { pointer: pointer.to_owned(), detail })
        .collect();
    if !wrong.is_empty() {
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_message", "Nothing was sent.").errors(wrong));
    }
    let message = Message { id, text, data, interrupt: policy == Policy::Interrupt, from, told: false };
    Ok(Letter { message, unless_busy: policy == Policy::Reject, tenant: caller.only_tenant().map(str::to_owned) })
}

fn is_id(id: &str) -> bool {
    (1..=ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
}

fn refused(error: SendError) -> Problem {
    let conflict = |code, detail: String| Problem::new(StatusCode::CONFLICT, code, detail);
    match error {
        SendError::Unknown(task) => not_found(task),
        SendError::Ended(kind) => {
            conflict("task_ended", format!("The task has ended already: it is {kind}.")).with("task_status", kind.status().as_str())
        }
        SendError::Deaf(agent) => {
            let detail = format!(
                "Agent {agent} takes no messages while it works. Agents of kind acp, http (a2a), and process with `messages = true` in agents.toml do."
            );
            conflict("messages_unsupported", detail)
        }
        SendError::Busy => conflict("agent_busy", "The agent works, and the message was not to wait.".to_owned()),
        SendError::IdReused(id) => {
            conflict("message_id_reused", format!("Another message of this task has the id {id}. Use a new one for a new message."))
        }
        SendError::Full(NoRoom::Waiting) => {
            let detail = "The task has as many messages as it may have that its agent has not said to have kept. Send it later.";
            conflict("too_many_messages", detail.to_owned()).retry_after(Duration::from_secs(10))
        }
        SendError::Full(NoRoom::Task) => conflict("too_many_messages", "The task has had as many messages as it may have.".to_owned()),
        SendError::Unavailable(error) => unavailable(&error),
    }
}
