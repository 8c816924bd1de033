//! `GET /v1/tasks/{id}/artifacts` and `GET /v1/tasks/{id}/artifacts/{artifact}`
//!
//! Always true: only what the task itself named is given, whatever else the store holds; an agent's file never runs in the reader's browser as a page of this
//! origin: its type is one of a short list, nothing is guessed, and what may hold a script is saved, not shown.

mod headers;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use fte_artifacts::{Away, Digest, ReadError};
use fte_events::TaskId;
use fte_service::extract::{Json, Path};
use fte_service::keys::Caller;
use fte_service::{Page, Problem, chain};
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use std::io;
use std::time::Duration;

use self::headers::Part;
use super::{AppState, unavailable};
use crate::downloads::NotGiven;
use crate::naming::Named;
use crate::view::ArtifactView;

/// Not yet among the names of the crate `http`.
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// What a task made so far, the last first.
#[utoipa::path(
    get, path = "/v1/tasks/{id}/artifacts", tag = "tasks", params(("id" = String, Path, description = "The task")),
    responses(
        (status = 200, description = "Its artifacts: all of them, at most 1000", body = Page<ArtifactView>),
        (status = 400, description = "`invalid_path`"),
        (status = 404, description = "`task_not_found`"),
        (status = 503, description = "`too_many_waiters`, `status_unavailable`"),
    )
)]
pub(crate) async fn list(State(app): State<AppState>, caller: Caller, Path(id): Path<TaskId>) -> Result<Json<Page<ArtifactView>>, Problem> {
    let artifacts = app.artifacts(id, &caller).await?;
    Ok(Json(Page { items: artifacts.into_iter().map(|named| ArtifactView::new(id, named)).collect(), next_cursor: None }))
}

/// The bytes of an artifact: by its SHA-256, or by its name, of which the last one with that name is given.
///
/// The transfer is broken off, so that the promised length is not reached, when what is stored turns out to be something else. Ranges are answered with 206.
#[utoipa::path(
    get, path = "/v1/tasks/{id}/artifacts/{artifact}", tag = "tasks",
    params(
        ("id" = String, Path, description = "The task"),
        ("artifact" = String, Path, description = "The artifact's SHA-256, or its name"),
        ("Range" = Option<String>, Header, description = "One range of bytes"),
        ("If-None-Match" = Option<String>, Header, description = "The `ETag` of what is known already")
    ),
    responses(
        (status = 200, description = "The bytes", content_type = "application/octet-stream", body = Vec<u8>),
        (status = 206, description = "The bytes of the range", content_type = "application/octet-stream", body = Vec<u8>),
        (status = 304, description = "It is known already"),
        (status = 400, description = "`invalid_path`"),
        (status = 404, description = "`task_not_found`, `artifact_not_found` (the task made none of this name), `artifact_missing` (it is not in the store any more)",
            body = Problem, content_type = "application/problem+json"),
        (status = 416, description = "`range_not_satisfiable`"),
        (status = 500, description = "`artifact_damaged`"),
        (status = 503, description = "`artifacts_unavailable`, `too_many_downloads`, `too_many_waiters`, `status_unavailable`",
            body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn get(
    State(app): State<AppState>,
    caller: Caller,
    method: Method,
    Path((id, wanted)): Path<(TaskId, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let artifacts = app.artifacts(id, &caller).await?;
    let digest = wanted.parse::<Digest>().ok();
    let by_digest = digest.and_then(|digest| artifacts.iter().find(|named| named.digest == digest));
    let is_fixed = by_digest.is_some();
    let named = by_digest.or_else(|| artifacts.iter().find(|named| named.name == wanted)).ok_or_else(|| not_found(id, &wanted))?;
    let tag = format!("\"{}\"", named.digest);
    // What is under a name changes when the agent makes another.
    let cache = if is_fixed { "private, max-age=31536000, immutable" } else { "private, no-cache" };
    if headers::is_known(&headers, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, [(ETAG, tag.as_str()), (CACHE_CONTROL, cache)]).into_response());
    }
    let size = named.size.unsigned_abs();
    let (status, range) = match headers::part(&headers, &tag, size) {
        Part::Whole => (StatusCode::OK, 0..size),
        Part::Of(range) => (StatusCode::PARTIAL_CONTENT, range),
        Part::Beyond => return Ok(beyond(size)),
    };
    let body = if method == Method::HEAD {
        app.downloads.look(named).await.map(|()| axum::body::Body::empty())
    } else {
        app.downloads.open(named, range.clone()).await
    };
    let mut response = body.map_err(|error| not_given(named, error))?.into_response();
    *response.status_mut() = status;
    let (content_type, is_harmless) = headers::shown_as(&named.content_type);
    let fixed = [
        (CONTENT_TYPE, content_type),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CONTENT_SECURITY_POLICY, "sandbox; default-src 'none'"),
        (RESOURCE_POLICY, "same-origin"),
        (CACHE_CONTROL, cache),
        (ACCEPT_RANGES, "bytes"),
    ];
    let headers = response.headers_mut();
    headers.extend(fixed.map(|(name, value)| (name, HeaderValue::from_static(value))));
    headers.insert(CONTENT_LENGTH, (range.end - range.start).into());
    let mut made = vec![(CONTENT_DISPOSITION, headers::disposition(&named.name, is_harmless)), (ETAG, tag)];
    if status == StatusCode::PARTIAL_CONTENT {
        made.push((CONTENT_RANGE, format!("bytes {}-{}/{size}", range.start, range.end - 1)));
    }
    for (name, value) in made {
        headers.insert(name, HeaderValue::try_from(value).map_err(|error| Problem::internal(&error))?);
    }
    Ok(response)
}

impl AppState {
    async fn artifacts(&self, task: TaskId, caller: &Caller) -> Result<Vec<Named>, Problem> {
        let tenant = self.known(task, caller.scope()).await?.tenant;
        self.store.artifacts_of(task, tenant).await.map_err(|error| unavailable(&error))
    }
}

fn not_found(task: TaskId, wanted: &str) -> Problem {
    let wanted: String = wanted.chars().take(100).collect();
    let detail = format!("Task {task} made no artifact {wanted:?}, or has not yet: /v1/tasks/{task}/artifacts lists what it made.");
    Problem::new(StatusCode::NOT_FOUND, "artifact_not_found", detail)
}

fn beyond(size: u64) -> Response {
    let detail = format!("The artifact has {size} bytes: ask for a range that begins before its end.");
    let mut response = Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, "range_not_satisfiable", detail).into_response();
    if let Ok(range) = HeaderValue::try_from(format!("bytes */{size}")) {
        response.headers_mut().insert(CONTENT_RANGE, range);
    }
    response
}

fn not_given(named: &Named, error: NotGiven) -> Problem {
    let same = "FTE_ARTIFACTS of the status service must name the directory or bucket that the runner's names";
    match error {
        NotGiven::Busy(limit) => {
            let detail = format!("{limit} artifacts are being read already, which is the limit. Try again.");
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_downloads", detail).retry_after(Duration::from_secs(1))
        }
        NotGiven::Unread(error @ ReadError::Missing { .. }) => {
            let detail = format!(
                "{:?} was made, but is not in the artifacts' store: it was removed there, or the store is another one ({same}).",
                named.name
            );
            Problem::new(StatusCode::NOT_FOUND, "artifact_missing", detail).caused_by(&error)
        }
        NotGiven::Unread(error @ ReadError::Corrupt { .. }) => {
            tracing::error!(error = %chain(&error), "an artifact is damaged");
            let detail = format!("What the artifacts' store holds for {:?} is not what was made; nothing of it is given away.", named.name);
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "artifact_damaged", detail).caused_by(&error)
        }
        NotGiven::Unread(ReadError::Away(error)) => {
            let is_absent = matches!(&error, Away::Directory { source, .. } if source.kind() == io::ErrorKind::NotFound);
            let detail = match is_absent {
                true => format!("The status service has no artifacts' store: {same}."),
                false => "The artifacts' store cannot be read now. Try again; the log of the status service says why.".to_owned(),
            };
            let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "artifacts_unavailable", detail).caused_by(&error);
            if is_absent { problem } else { problem.retry_after(Duration::from_secs(5)) }
        }
    }
}
