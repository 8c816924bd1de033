//! `GET /v1/audit/tasks/{id}`.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use fte_events::TaskId;
use fte_service::extract::{Json, Path, Query};
use fte_service::keys::Caller;
use fte_service::{Arrival, Problem};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use super::view::{AuditCheckpoint, AuditEntry};
use super::{Reading, limit, position, unreadable};
use crate::entry::Task;
use crate::history::{self, ENTRIES_MAX};

/// How often a young task's first entry is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Which part of the history to show; its completeness is always that of the whole.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Part {
    /// After this place: a `next_cursor`, or `shard-index` of an entry.
    after: Option<String>,
    /// At most this many entries.
    #[param(maximum = 10000, minimum = 1)]
    limit: Option<usize>,
}

/// A task's history.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AuditTask {
    /// The task.
    task_id: String,
    /// Whether everything is there: its trigger, gapless status changes up to a final one, one result, and a release of each sandbox claimed.
    complete: bool,
    /// What is not there, or not yet; for people.
    missing: Vec<String>,
    /// How many entries of its beginning were logged in years that are retired. Then it is not complete, and what the rest lacks may have been there.
    #[serde(skip_serializing_if = "is_zero")]
    retired: u64,
    /// What is there, in the order in which it was logged.
    entries: Vec<AuditEntry>,
    /// Give it as `after` for further entries.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
    /// The last checkpoint when it was read. Entries after it are durable, and are in the next one.
    checkpoint: Option<AuditCheckpoint>,
}

/// A task's whole history, and whether it is complete. A task less than 10 s old that is not known yet is waited for, up to 2 s.
#[utoipa::path(
    get, path = "/v1/audit/tasks/{id}", tag = "audit", params(("id" = String, Path, description = "The task"), Part),
    responses((status = 200, body = AuditTask), (status = 400), (status = 404, body = Problem), (status = 503, body = Problem)),
)]
pub(crate) async fn history(
    State(Reading { log, reads }): State<Reading>,
    caller: Caller,
    Path(id): Path<String>,
    Query(part): Query<Part>,
) -> Result<Json<AuditTask>, Problem> {
    let (after, limit) = (position(part.after.as_deref())?, limit(part.limit, ENTRIES_MAX, ENTRIES_MAX)?);
    let task = Task::from(id.as_str());
    let arrival = Arrival::of(id.parse().ok());
    let history = loop {
        if let Some(history) = history::of(&*log, task.clone(), caller.only_tenant().map(str::to_owned), after, limit)
            .await
            .map_err(|error| unreadable(&error))?
        {
            break history;
        }
        if !arrival.wait(tokio::time::sleep(LOOK_EVERY)).await {
            let why = id.parse::<TaskId>().err().map_or_else(String::new, |error| format!(": {error}"));
            return Err(Problem::new(StatusCode::NOT_FOUND, "task_not_found", format!("The audit log has nothing of this task{why}.")));
        }
    };
    reads.record(&caller, json!({"task_id": task.to_string(), "after": part.after}), None, history.entries.len()).await?;
    Ok(Json(AuditTask {
        task_id: task.to_string(),
        complete: history.missing.is_empty(),
        missing: history.missing,
        retired: history.retired,
        entries: history.entries.into_iter().map(AuditEntry::from).collect(),
        next_cursor: history.next.map(|next| next.to_string()),
        checkpoint: history.published.map(Into::into),
    }))
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}
