//! `GET /v1/dead-letters`, `GET /v1/dead-letters/{id}`, `POST /v1/dead-letters/{id}/replay`, `POST /v1/dead-letters/{id}/discard`

use std::time::Duration;

use axum::extract::State;
use fte_events::{Failure, TaskId};
use fte_service::extract::{Json, Path, Query};
use fte_service::keys::Caller;
use fte_service::{Page, Problem, decode_cursor, encode_cursor};
use http::StatusCode;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::{AppState, query, unavailable};
use crate::dead_letters::{Letter, Original};
use crate::desk::DecideError;
use crate::store::{LetterRow, LetterState};
use crate::tenant::{Tenant, shown};
use crate::view::time;

/// Something that a consumer gave up on.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeadLetter)]
pub(crate) struct LetterView {
    /// The letter's id.
    id: String,
    /// Whose its event was, where that is not `default`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    tenant: Option<Tenant>,
    /// Whether it was decided.
    status: LetterState,
    /// Who gave up.
    consumer: String,
    /// The dead-letter topic.
    topic: String,
    /// Where the event was read, if that is known.
    original_topic: Option<String>,
    /// Why.
    error: Failure,
    /// How often it was tried, if that is known.
    attempts: Option<u32>,
    /// When it was given up; where that is not known, when it arrived here.
    #[serde(serialize_with = "fte_bus::time::serialize")]
    failed_at: Timestamp,
    /// When it was replayed or discarded.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "fte_bus::time::serialize")]
    decided_at: Option<Timestamp>,
    /// The task it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    task_id: Option<TaskId>,
    /// Whether its event can be published again.
    replayable: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_replayable: Option<String>,
    /// The task that its replay makes, or made, where that is a new one.
    #[serde(skip_serializing_if = "Option::is_none")]
    replay_task_id: Option<TaskId>,
    /// The event as it was received: JSON, or text where it was no JSON. Lists leave it out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    original_event: Option<Box<RawValue>>,
    /// How a larger event begins. Lists leave it out.
    #[serde(skip_serializing_if = "Option::is_none")]
    original_prefix: Option<String>,
    /// A larger event's size in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    original_size: Option<u64>,
    /// A larger event's SHA-256.
    #[serde(skip_serializing_if = "Option::is_none")]
    original_sha256: Option<String>,
}

/// What was decided.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LetterDecided {
    /// The letter's id.
    id: String,
    /// What was decided about it.
    status: LetterState,
    /// When.
    #[serde(serialize_with = "fte_bus::time::serialize")]
    decided_at: Option<Timestamp>,
    /// Of a replay: where its event was published.
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
    /// Of a replay: the id of its event.
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<String>,
    /// Of a replay: the task it is about; a new one where the letter was a request to run a task.
    #[serde(skip_serializing_if = "Option::is_none")]
    task_id: Option<TaskId>,
}

/// Which letters.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Parameters {
    /// Only those that are `open`, `replayed` or `discarded`.
    #[param(value_type = Option<LetterState>)]
    status: Option<String>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    /// How many at most, 1 to 1000; 50 by default. A page may be shorter, for its size.
    #[param(value_type = Option<u16>)]
    limit: Option<String>,
}

/// Dead letters, newest first, without their events.
#[utoipa::path(
    get, path = "/v1/dead-letters", tag = "dead letters", params(Parameters),
    responses(
        (status = 200, description = "A page of letters", body = Page<LetterView>),
        (status = 400, description = "`invalid_query`, `invalid_cursor`"),
        (status = 503, description = "`status_unavailable`"),
    )
)]
pub(crate) async fn list(
    State(app): State<AppState>,
    caller: Caller,
    Query(parameters): Query<Parameters>,
) -> Result<Json<Page<LetterView>>, Problem> {
    let state = match parameters.status.as_deref() {
        None | Some("") => None,
        Some("open") => Some(LetterState::Open),
        Some("replayed") => Some(LetterState::Replayed),
        Some("discarded") => Some(LetterState::Discarded),
        Some(_) => return Err(query::invalid("status", "one of open, replayed, discarded")),
    };
    let before = parameters.cursor.filter(|cursor| !cursor.is_empty()).map(|cursor| decode_cursor::<i64>(&cursor)).transpose()?;
    let limit = query::limit(parameters.limit.as_deref())?;
    let page = app.store.letters(caller.scope().clone(), state, before, limit).await.map_err(|error| unavailable(&error))?;
    let next_cursor = page.next.map(|next| encode_cursor(&next));
    Ok(Json(Page { items: page.rows.into_iter().map(|row| view(row, false)).collect(), next_cursor }))
}

/// A dead letter with its event.
#[utoipa::path(
    get, path = "/v1/dead-letters/{id}", tag = "dead letters", params(("id" = String, Path, description = "The letter")),
    responses(
        (status = 200, description = "The letter", body = LetterView),
        (status = 404, description = "`letter_not_found`"),
        (status = 503, description = "`status_unavailable`"),
    )
)]
pub(crate) async fn get(State(app): State<AppState>, caller: Caller, Path(id): Path<String>) -> Result<Json<LetterView>, Problem> {
    let row = app.store.letter(id.clone(), caller.scope().clone()).await.map_err(|error| unavailable(&error))?;
    row.map(|row| Json(view(row, true))).ok_or_else(|| problem(&id, DecideError::Unknown))
}

/// Publishes the letter's event again: for the consumer that gave up on it, or, where it asked to run a task, as a new task.
///
/// Repeating it publishes nothing more and gives the same answer. It is recorded in the audit trail first. Where the runner has ended the task already and whoever waited for it was
/// told so (a hand-off, a resumption), there is nothing to publish: start the task anew.
#[utoipa::path(
    post, path = "/v1/dead-letters/{id}/replay", tag = "dead letters", params(("id" = String, Path, description = "The letter")),
    responses(
        (status = 200, description = "The event is published", body = LetterDecided),
        (status = 404, description = "`letter_not_found`"),
        (status = 409, description = "`letter_discarded`, `letter_not_replayable`"),
        (status = 503, description = "`sidecar_unavailable`, `status_unavailable`: safe to repeat"),
    )
)]
pub(crate) async fn replay(State(app): State<AppState>, caller: Caller, Path(id): Path<String>) -> Result<Json<LetterDecided>, Problem> {
    let (row, replay) = app.desk.replay(&id, &caller).await.map_err(|error| problem(&id, error))?;
    Ok(Json(LetterDecided {
        topic: Some(replay.message.topic.to_string()),
        event_id: Some(replay.event_id),
        task_id: replay.task,
        ..decided(row)
    }))
}

/// Puts the letter away. It stays readable; the audit trail keeps the decision. Repeating it gives the same answer.
#[utoipa::path(
    post, path = "/v1/dead-letters/{id}/discard", tag = "dead letters", params(("id" = String, Path, description = "The letter")),
    responses(
        (status = 200, description = "The letter is discarded", body = LetterDecided),
        (status = 404, description = "`letter_not_found`"),
        (status = 409, description = "`letter_replayed`"),
        (status = 503, description = "`sidecar_unavailable`, `status_unavailable`: safe to repeat"),
    )
)]
pub(crate) async fn discard(State(app): State<AppState>, caller: Caller, Path(id): Path<String>) -> Result<Json<LetterDecided>, Problem> {
    app.desk.discard(&id, &caller).await.map(|row| Json(decided(row))).map_err(|error| problem(&id, error))
}

fn decided(row: LetterRow) -> LetterDecided {
    LetterDecided { id: row.id, status: row.state, decided_at: row.decided_us.map(time), topic: None, event_id: None, task_id: None }
}

fn view(row: LetterRow, whole: bool) -> LetterView {
    let letter = Letter::read(&row.topic, &row.record);
    let replay = letter.replay(&row.id, Timestamp::now());
    let new_task = replay.as_ref().ok().and_then(|replay| replay.task).filter(|task| Some(*task) != letter.task);
    let (mut original_event, mut original_prefix, mut original_size, mut original_sha256) = (None, None, None, None);
    match letter.original {
        Original::Event(json) | Original::Other(json) => original_event = Some(json).filter(|_| whole),
        Original::Prefix { text, size, sha256 } => {
            (original_prefix, original_size, original_sha256) = (Some(text).filter(|_| whole), size, sha256);
        }
    }
    LetterView {
        id: row.id,
        tenant: shown(row.tenant),
        status: row.state,
        consumer: letter.consumer,
        topic: row.topic,
        original_topic: letter.original_topic,
        error: letter.error,
        attempts: letter.attempts,
        failed_at: letter.failed_at.unwrap_or_else(|| time(row.stored_ms.saturating_mul(1000))),
        decided_at: row.decided_us.map(time),
        task_id: letter.task,
        replayable: replay.is_ok() && row.state != LetterState::Discarded,
        not_replayable: replay.err().map(|reason| reason.to_string()),
        replay_task_id: new_task,
        original_event,
        original_prefix,
        original_size,
        original_sha256,
    }
}

fn problem(id: &str, error: DecideError) -> Problem {
    let retry = Duration::from_secs(1);
    match error {
        DecideError::Unknown => Problem::new(
            StatusCode::NOT_FOUND,
            "letter_not_found",
            format!("There is no dead letter {id} here; it may be older than is kept."),
        ),
        DecideError::Otherwise(LetterState::Replayed) => Problem::new(
            StatusCode::CONFLICT,
            "letter_replayed",
            "The letter was replayed already; what was published cannot be taken back.",
        ),
        DecideError::Otherwise(LetterState::Discarded | LetterState::Open) => {
            Problem::new(StatusCode::CONFLICT, "letter_discarded", "The letter was discarded; a decision cannot be changed.")
        }
        DecideError::NotReplayable(reason) => {
            Problem::new(StatusCode::CONFLICT, "letter_not_replayable", format!("The letter cannot be replayed: {reason}."))
        }
        DecideError::NotRecorded => {
            let detail =
                "The decision could not be recorded in the audit trail in time, so it was not carried out. Send the same request again.";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "sidecar_unavailable", detail).retry_after(retry)
        }
        DecideError::NotPublished(cause) => {
            let detail = "The event could not be published, so the letter stays open. Send the same request again.";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "sidecar_unavailable", detail).retry_after(retry).caused_by(&cause)
        }
        DecideError::Store(error) => unavailable(&error),
    }
}
