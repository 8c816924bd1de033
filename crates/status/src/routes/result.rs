//! `GET /v1/tasks/{id}/result`

use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use fte_events::{TaskId, TaskResult};
use fte_service::extract::{Json, Path, Query};
use fte_service::keys::{Caller, Scope};
use fte_service::{Problem, parse_duration};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};
use utoipa::IntoParams;

use super::{AppState, not_found, query, unavailable};
use crate::view::{TaskView, data_text};

/// Longest wait for a result.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// How long to wait.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Parameters {
    /// How long to wait for the result, as `30s`; at most `60s`, by default not at all.
    wait: Option<String>,
}

/// How a task ended: the data of its result event, whatever the end. Waits for it as long as asked to.
#[utoipa::path(
    get, path = "/v1/tasks/{id}/result", tag = "tasks",
    params(("id" = String, Path, description = "The task"), Parameters),
    responses(
        (status = 200, description = "The task has ended", body = TaskResult),
        (status = 202, description = "The task has not ended", body = TaskView),
        (status = 400, description = "`invalid_query`, `invalid_path`"),
        (status = 404, description = "`task_not_found`"),
        (status = 503, description = "`too_many_waiters`, `status_unavailable`"),
    )
)]
pub(crate) async fn get(
    State(app): State<AppState>,
    caller: Caller,
    Path(id): Path<TaskId>,
    Query(parameters): Query<Parameters>,
) -> Result<Response, Problem> {
    let wait = wait(parameters.wait.as_deref())?;
    let deadline = Instant::now() + wait;
    let mut waiter = app.wait_for(id)?;
    let row = app.arrived(id, caller.scope(), &mut waiter).await?;
    if row.record.result.is_some() {
        return ended(row.bodies.result.as_deref());
    }
    if wait.is_zero() {
        return Ok(not_ended(TaskView::new(row)));
    }
    let (mut stopping, tenant) = (app.stopping.clone(), row.tenant);
    let result = async {
        loop {
            let news = waiter.news().await;
            match news.result {
                Some((of, result)) if of == tenant => return Ok(Some(result)),
                _ if news.look => {
                    if let Some(result) = app.result(id, caller.scope()).await? {
                        return Ok(Some(result.into()));
                    }
                }
                _ => {}
            }
        }
    };
    let waited = tokio::select! {
        waited = timeout_at(deadline, result) => waited.unwrap_or(Ok(None))?,
        () = stopping.stopped() => None,
    };
    if let Some(result) = waited {
        return ended(Some(&result));
    }
    let row = app.store.task(id, caller.scope().clone()).await.map_err(|error| unavailable(&error))?.ok_or_else(|| not_found(id))?;
    // The clock and the result may have met.
    if row.record.result.is_some() { ended(row.bodies.result.as_deref()) } else { Ok(not_ended(TaskView::new(row))) }
}

impl AppState {
    async fn result(&self, task: TaskId, scope: &Scope) -> Result<Option<Vec<u8>>, Problem> {
        let row = self.store.task(task, scope.clone()).await.map_err(|error| unavailable(&error))?;
        Ok(row.and_then(|row| row.bodies.result))
    }
}

fn wait(text: Option<&str>) -> Result<Duration, Problem> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(Duration::ZERO);
    };
    parse_duration(text).filter(|wait| *wait <= WAIT_MAX).ok_or_else(|| query::invalid("wait", "a duration such as 30s, at most 60s"))
}

fn ended(event: Option<&[u8]>) -> Result<Response, Problem> {
    let data = event.and_then(data_text).ok_or_else(|| Problem::internal(&ResultLost))?;
    Ok(([(CONTENT_TYPE, "application/json")], data.get().to_owned()).into_response())
}

fn not_ended(task: TaskView) -> Response {
    (StatusCode::ACCEPTED, Json(task)).into_response()
}

/// The record names a result event that is not there: the sweep removed it between two reads, or the file was tampered with.
#[derive(Debug, thiserror::Error)]
#[error("the result event that the task's record names cannot be read")]
struct ResultLost;
