//! `/v1.0/healthz`: 204 when the sidecar and its app are ready. `/v1.0/healthz/outbound`: when the sidecar is.

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;

use super::{Api, ApiError, no_content};

/// Whether all is ready, the app included.
pub(super) async fn all(State(api): State<Api>) -> Result<Response, ApiError> {
    let not_ready =
        |what: String| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "ERR_HEALTH_NOT_READY", format!("dapr is not ready: {what}"));
    match api.instance.listed() {
        None => Err(not_ready(format!("[app {} at {}]", api.instance.app_id, api.instance.addr))),
        Some(listed) if !listed.problems.is_empty() => Err(not_ready(listed.problems.join("; "))),
        Some(_) => Ok(no_content()),
    }
}

/// Whether an app that starts may use the API.
pub(super) async fn outbound() -> Response {
    // The listener is bound after the store is open.
    no_content()
}
