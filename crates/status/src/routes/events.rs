//! `GET /v1/tasks/{id}/events`
//!
//! A stream that cannot go on where its client was is refused with 410, here as on `GET /v1/events`. To begin anew would show events twice to somebody
//! who counts on each once, and to begin with the next one could lose some: which of the two is right only the client knows, and it says so by coming
//! without `Last-Event-ID`. (Browsers' `EventSource` does not come again after a 410, so nobody asks in vain for ever.)

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use fte_events::TaskId;
use fte_service::extract::{Path, Query};
use fte_service::keys::{Caller, Scope};
use fte_service::{Page, Problem};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use utoipa::IntoParams;

use super::{AppState, query, unavailable};
use crate::reading::EventId;
use crate::store::{BYTES_MAX, EventRow};
use crate::streams::TaskStream;
use crate::tenant::Tenant;

/// Which events.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Parameters {
    /// Of the list: only those after the event of this id, which is also what `next_cursor` says.
    after: Option<String>,
    /// Of the list: how many at most, 1 to 1000; 50 by default. A page may be shorter, for its size.
    #[param(value_type = Option<u16>)]
    limit: Option<String>,
    /// Of the stream: as the header `Last-Event-ID`, for clients that cannot set it.
    last_event_id: Option<String>,
}

/// A task's events in the order in which they became known here: a list, or with `Accept: text/event-stream` a stream.
///
/// On the stream `id` is the event's id, `event` its type and `data` the CloudEvent on one line. `Last-Event-ID` takes it up again with nothing lost or
/// repeated; 410 says that it names none of the task's events, and that a stream without it would begin anew. The server ends the stream once the result, the final status and all
/// releases are sent.
#[utoipa::path(
    get, path = "/v1/tasks/{id}/events", tag = "tasks",
    params(
        ("id" = String, Path, description = "The task"),
        ("Last-Event-ID" = Option<String>, Header, description = "Of the stream: the last event that was seen"),
        Parameters
    ),
    responses(
        (status = 200, description = "The events", content((Page<Value> = "application/json"), (String = "text/event-stream"))),
        (status = 400, description = "`invalid_query`, `invalid_path`"),
        (status = 404, description = "`task_not_found`, `event_not_found` (of `after`)"),
        (status = 410, description = "`event_gone`: the task has no such last event, so the stream cannot go on after it",
            body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`too_many_waiters`, `status_unavailable`"),
    )
)]
pub(crate) async fn list_or_stream(
    State(app): State<AppState>,
    caller: Caller,
    Path(id): Path<TaskId>,
    Query(parameters): Query<Parameters>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let limit = query::limit(parameters.limit.as_deref())?;
    let tenant = app.known(id, caller.scope()).await?.tenant;
    if !wants_stream(&headers) {
        return list(&app, id, tenant, parameters.after.as_deref().filter(|after| !after.is_empty()), limit).await;
    }
    let after = match query::last_event_id(&headers, parameters.last_event_id.as_deref()) {
        Some(last) => row_of(&app, id, &tenant, last).await?.ok_or_else(|| query::event_gone(last, &format!("of task {id}")))?,
        None => 0,
    };
    let waiter = app.wait_for(id)?;
    Ok(TaskStream::new(app.store, id, tenant, after, waiter, app.stopping).into_response())
}

fn wants_stream(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).any(|value| value.contains("text/event-stream"))
}

async fn row_of(app: &AppState, task: TaskId, tenant: &Tenant, event: &str) -> Result<Option<i64>, Problem> {
    // Of this task of this tenant, whoever asks.
    let scope = Scope::One(tenant.as_ref().into());
    app.store.row_of(Some(task), scope, EventId::from(event.to_owned())).await.map_err(|error| unavailable(&error))
}

async fn list(app: &AppState, id: TaskId, tenant: Tenant, after: Option<&str>, limit: usize) -> Result<Response, Problem> {
    let after = match after {
        Some(after) => row_of(app, id, &tenant, after).await?.ok_or_else(|| {
            let detail = format!("Task {id} has no event {after}; start without the parameter after.");
            Problem::new(StatusCode::NOT_FOUND, "event_not_found", detail)
        })?,
        None => 0,
    };
    let read = app.store.events_of(id, tenant, after, limit, BYTES_MAX).await.map_err(|error| unavailable(&error))?;
    let next_cursor = read.events.last().filter(|_| !read.all).map(|last| last.id.to_string());
    Ok(([(CONTENT_TYPE, "application/json")], Body::from(page(&read.events, next_cursor))).into_response())
}

/// The page, with each event's bytes as they came.
fn page(events: &[EventRow], next_cursor: Option<String>) -> Vec<u8> {
    let mut out = Vec::with_capacity(events.iter().map(|event| event.body.len() + 1).sum::<usize>() + 64);
    out.extend_from_slice(br#"{"items":["#);
    for (place, event) in events.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        out.extend_from_slice(&event.body);
    }
    out.push(b']');
    if let Some(cursor) = next_cursor {
        out.extend_from_slice(br#","next_cursor":"#);
        out.extend_from_slice(Value::from(cursor).to_string().as_bytes());
    }
    out.push(b'}');
    out
}
