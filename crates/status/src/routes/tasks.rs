//! `GET /v1/tasks` and `GET /v1/tasks/{id}`

use axum::extract::State;
use fte_events::{Status, TaskId};
use fte_service::extract::{Json, Path, Query};
use fte_service::keys::Caller;
use fte_service::{Page, Problem, decode_cursor, encode_cursor};
use jiff::Timestamp;
use serde::Deserialize;
use utoipa::IntoParams;

use super::{AppState, query, unavailable};
use crate::store::{ListQuery, TaskPlace};
use crate::view::TaskView;

/// Which tasks.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Parameters {
    /// Only in this status.
    #[param(value_type = Option<Status>)]
    status: Option<String>,
    /// Only of this agent.
    agent: Option<String>,
    /// Only asked for at or after this.
    #[param(value_type = Option<Timestamp>)]
    since: Option<String>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    /// How many at most, 1 to 1000; 50 by default. A page may be shorter, for its size; the last one has no `next_cursor`.
    #[param(value_type = Option<u16>)]
    limit: Option<String>,
}

/// Tasks, newest first, without their results.
#[utoipa::path(
    get, path = "/v1/tasks", tag = "tasks", params(Parameters),
    responses(
        (status = 200, description = "A page of tasks", body = Page<TaskView>),
        (status = 400, description = "`invalid_query`, `invalid_cursor`"),
        (status = 503, description = "`status_unavailable`"),
    )
)]
pub(crate) async fn list(
    State(app): State<AppState>,
    caller: Caller,
    Query(parameters): Query<Parameters>,
) -> Result<Json<Page<TaskView>>, Problem> {
    let statuses = Status::ALL.map(Status::as_str).join(", ");
    let since = query::parsed::<Timestamp>("since", parameters.since.as_deref(), "a time such as 2026-07-01T10:00:00Z")?;
    let cursor = parameters.cursor.filter(|cursor| !cursor.is_empty());
    let wanted = ListQuery {
        scope: caller.scope().clone(),
        status: query::parsed("status", parameters.status.as_deref(), &format!("one of {statuses}"))?,
        agent: parameters.agent.filter(|agent| !agent.is_empty()),
        since_us: since.map(Timestamp::as_microsecond),
        before: cursor.map(|cursor| decode_cursor::<TaskPlace>(&cursor)).transpose()?,
        limit: query::limit(parameters.limit.as_deref())?,
    };
    let page = app.store.tasks(wanted).await.map_err(|error| unavailable(&error))?;
    let next_cursor = page.next.map(|next| encode_cursor(&next));
    Ok(Json(Page { items: page.rows.into_iter().map(TaskView::new).collect(), next_cursor }))
}

/// A task. One accepted in the last ten seconds that is not known yet is waited for, up to two. Of a queued one the runner is asked where it stands; without an
/// answer within 200 ms `queue` is absent.
#[utoipa::path(
    get, path = "/v1/tasks/{id}", tag = "tasks", params(("id" = String, Path, description = "The task")),
    responses(
        (status = 200, description = "The task", body = TaskView),
        (status = 400, description = "`invalid_path`"),
        (status = 404, description = "`task_not_found`"),
        (status = 503, description = "`too_many_waiters`, `status_unavailable`"),
    )
)]
pub(crate) async fn get(State(app): State<AppState>, caller: Caller, Path(id): Path<TaskId>) -> Result<Json<TaskView>, Problem> {
    let mut task = TaskView::new(app.known(id, caller.scope()).await?);
    if task.is_queued() {
        task.queue = app.standings.of(id).await;
    }
    Ok(Json(task))
}
