//! `GET /v1/events`

use axum::extract::State;
use axum::response::Response;
use fte_events::TaskId;
use fte_service::Problem;
use fte_service::extract::Query;
use fte_service::keys::Caller;
use http::HeaderMap;
use serde::Deserialize;
use utoipa::IntoParams;

use super::{AppState, query, too_many, unavailable};
use crate::reading::EventId;
use crate::sse::Filter;
use crate::streams::FeedStream;

/// Most types that a filter may name.
const TYPES_MAX: usize = 64;

/// Which events.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Parameters {
    /// Only these event types, separated by commas.
    #[serde(rename = "type")]
    types: Option<String>,
    /// Only of this task.
    #[param(value_type = Option<TaskId>)]
    task_id: Option<String>,
    /// As the header `Last-Event-ID`, for clients that cannot set it.
    last_event_id: Option<String>,
}

/// The events of all tasks that the caller may see, as they become known here, as server-sent events (see the events of a task for their form).
///
/// It begins with the next event, or with `Last-Event-ID` after that one: nothing is lost or repeated, however slow the client is. It has no end.
#[utoipa::path(
    get, path = "/v1/events", tag = "tasks",
    params(("Last-Event-ID" = Option<String>, Header, description = "The last event that was seen"), Parameters),
    responses(
        (status = 200, description = "The stream", body = String, content_type = "text/event-stream"),
        (status = 400, description = "`invalid_query`"),
        (status = 410, description = "`event_gone`: the last event is not known here, so the stream cannot go on after it",
            body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`too_many_waiters`, `status_unavailable`"),
    )
)]
pub(crate) async fn stream(
    State(app): State<AppState>,
    caller: Caller,
    Query(parameters): Query<Parameters>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let types: Vec<Box<str>> =
        parameters.types.iter().flat_map(|types| types.split(',')).map(str::trim).filter(|t| !t.is_empty()).map(Into::into).collect();
    if types.len() > TYPES_MAX {
        return Err(query::invalid("type", "at most 64 event types, separated by commas"));
    }
    let task = query::parsed("task_id", parameters.task_id.as_deref(), "the id of a task")?;
    let filter = Filter { types, task, scope: caller.scope().clone() };
    let mut listener = app.store.feed().listen(filter.clone()).map_err(|error| too_many(&error))?;
    let after = match query::last_event_id(&headers, parameters.last_event_id.as_deref()) {
        None => listener.head(),
        Some(last) => {
            let row = app
                .store
                .row_of(None, caller.scope().clone(), EventId::from(last.to_owned()))
                .await
                .map_err(|error| unavailable(&error))?;
            row.ok_or_else(|| query::event_gone(last, "known here"))?
        }
    };
    Ok(FeedStream::new(app.store, listener, after, filter, app.stopping).into_response())
}
