//! `GET /v1/audit/tasks/{id}`.

use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::StatusCode;
use fte_events::TaskId;
use fte_service::Problem;
use fte_service::extract::{Json, Path, Query};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::view::AuditEntry;
use super::{App, limit, position, unreadable};
use crate::entry::Task;
use crate::history::{self, ENTRIES_MAX};

/// A task younger than this that is not known may be on its way.
const YOUNG: SignedDuration = SignedDuration::from_secs(10);
/// Longest wait for a young task's first entry, and how often it is looked for.
const YOUNG_WAIT_MAX: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(20);

fn is_young(id: &str) -> bool {
    let minted = id.parse::<TaskId>().ok().and_then(|task| task.minted_at());
    minted.is_some_and(|minted| Timestamp::now().duration_since(minted).abs() < YOUNG)
}

/// Which part of the history to show; its completeness is always that of the whole.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
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
    /// What is there, in the order in which it was logged.
    entries: Vec<AuditEntry>,
    /// Give it as `after` for further entries.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// A task's whole history, and whether it is complete. A task less than 10 s old that is not known yet is waited for, up to 2 s.
#[utoipa::path(
    get, path = "/v1/audit/tasks/{id}", tag = "audit", params(("id" = String, Path, description = "The task"), Part),
    responses((status = 200, body = AuditTask), (status = 400, body = Problem), (status = 404, body = Problem), (status = 503, body = Problem)),
)]
pub(crate) async fn history(State(app): State<App>, Path(id): Path<String>, Query(part): Query<Part>) -> Result<Json<AuditTask>, Problem> {
    let (after, limit) = (position(part.after.as_deref())?, limit(part.limit, ENTRIES_MAX, ENTRIES_MAX)?);
    let task = Task::from(id.as_str());
    let started = Instant::now();
    let history = loop {
        match history::of(&*app, task.clone(), after, limit).await.map_err(|error| unreadable(&error))? {
            Some(history) => break history,
            None if is_young(&id) && started.elapsed() < YOUNG_WAIT_MAX => tokio::time::sleep(LOOK_EVERY).await,
            None => return Err(Problem::new(StatusCode::NOT_FOUND, "task_not_found", "The audit log has nothing of this task.")),
        }
    };
    Ok(Json(AuditTask {
        task_id: task.to_string(),
        complete: history.missing.is_empty(),
        missing: history.missing,
        entries: history.entries.into_iter().map(AuditEntry::from).collect(),
        next_cursor: history.next.map(|next| next.to_string()),
    }))
}
