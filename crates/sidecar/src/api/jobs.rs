//! `/v1.0[-alpha1]/jobs/{name}`: create, read, delete.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use jiff::Timestamp;

use super::{Api, ApiError, no_content, take_body};
use crate::jobs::spec::{Problem, ProblemKind, Spec};
use crate::json::{Members, string};

/// Longest name of a job, in bytes.
const NAME_MAX: usize = 512;

fn check_name(name: &str) -> Result<(), ApiError> {
    if name.trim().is_empty() || name.len() > NAME_MAX || name.chars().any(char::is_control) {
        return Err(ApiError::malformed(format!("job name must have 1 to {NAME_MAX} bytes and no control characters")));
    }
    Ok(())
}

/// Dapr says 500 to a schedule or time that is none; here it is 400, because a 500 asks to be tried again.
fn refused(problem: &Problem) -> ApiError {
    let bad = |code, text: String| ApiError::new(StatusCode::BAD_REQUEST, code, text);
    let due_to = format!("failed to schedule job due to: {problem}");
    match problem.kind {
        ProblemKind::Body => ApiError::malformed(format!("failed deserializing HTTP body: {problem}")),
        ProblemKind::Name => bad("DAPR_SCHEDULER_JOB_NAME", problem.to_string()),
        ProblemKind::Empty => bad("DAPR_SCHEDULER_SCHEDULE_EMPTY", problem.to_string()),
        ProblemKind::Spec => bad("DAPR_SCHEDULER_SCHEDULE_JOB", due_to),
        ProblemKind::Unsupported => ApiError::new(StatusCode::NOT_IMPLEMENTED, "ERR_API_UNIMPLEMENTED", due_to),
    }
}

/// 204 once the job is durable; 409 when one of that name exists and `overwrite` is not true.
pub(super) async fn create(State(api): State<Api>, Path(name): Path<String>, body: Body) -> Result<Response, ApiError> {
    check_name(&name)?;
    let body = take_body(&api, body).await?;
    let spec = Spec::read(&body.bytes).map_err(|problem| refused(&problem))?;
    let job = spec.begin(&api.instance.app_id, &name, Timestamp::now(), &body.bytes).map_err(|problem| refused(&problem))?;
    let due_ms = job.due_ms;
    let done = api
        .context
        .store
        .put_job(job, spec.overwrite)
        .await
        .map_err(|error| ApiError::store("DAPR_SCHEDULER_SCHEDULE_JOB", "failed to schedule job due to", &error))?;
    if !done {
        return Err(ApiError::new(
            StatusCode::CONFLICT,
            "DAPR_SCHEDULER_SCHEDULE_JOB",
            format!("failed to schedule job due to: job already exists: {name}; set overwrite to replace it"),
        ));
    }
    api.context.alarm.due(due_ms);
    Ok(no_content())
}

/// The job as it was created, with its name; 500 when there is none, as Dapr says it.
pub(super) async fn read(State(api): State<Api>, Path(name): Path<String>) -> Result<Response, ApiError> {
    check_name(&name)?;
    let failed = |what: &str| {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "DAPR_SCHEDULER_GET_JOB", format!("failed to get job due to: {what}"))
    };
    let row = api
        .context
        .store
        .job(&api.instance.app_id, &name)
        .await
        .map_err(|error| failed(&crate::chain(&error)))?
        .ok_or_else(|| failed(&format!("job not found: {name}")))?;
    let members: Members<'_> = serde_json::from_slice(&row.spec).unwrap_or_default();
    let mut out = b"{\"name\":".to_vec();
    string(&mut out, &name);
    for (key, value) in members.0 {
        if key.0 != "overwrite" && key.0 != "name" {
            out.push(b',');
            string(&mut out, &key.0);
            out.push(b':');
            out.extend_from_slice(value.get().as_bytes());
        }
    }
    out.push(b'}');
    Ok(([(CONTENT_TYPE, "application/json")], out).into_response())
}

/// 204, whether the job was there or not.
pub(super) async fn remove(State(api): State<Api>, Path(name): Path<String>) -> Result<Response, ApiError> {
    check_name(&name)?;
    api.context
        .store
        .delete_job(&api.instance.app_id, &name)
        .await
        .map_err(|error| ApiError::store("DAPR_SCHEDULER_DELETE_JOB", "failed to delete job due to", &error))?;
    Ok(no_content())
}
