//! `/v1.0/invoke/{app}/method/{path}`: passes a request on to an instance of an app and its answer back. So does any path
//! that is no route, when the header `dapr-app-id` names the app.

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use http::header::HeaderName;
use http::{HeaderMap, StatusCode, Uri};
use http_body_util::Full;

use super::{Api, ApiError, take_body};

const INVOKE: &str = "ERR_DIRECT_INVOKE";
/// Headers of one connection only.
const HOP_BY_HOP: &[&str] = &[
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "dapr-api-token",
    "dapr-app-id",
];

fn passes(name: &HeaderName) -> bool {
    !HOP_BY_HOP.contains(&name.as_str())
}

/// Calls a method of an app.
pub(super) async fn invoke(
    State(api): State<Api>,
    Path((app, _)): Path<(String, String)>,
    uri: Uri,
    request: Request,
) -> Result<Response, ApiError> {
    // As it was sent, so that escapes stay.
    let path =
        uri.path_and_query().and_then(|path| path.as_str().split_once("/method/")).map(|(_, rest)| format!("/{rest}")).unwrap_or_default();
    call(&api, &app, &path, request).await
}

/// The app that the header of a request to no route names.
pub(super) fn named(headers: &HeaderMap) -> Option<String> {
    headers.get("dapr-app-id").and_then(|id| id.to_str().ok()).filter(|id| !id.is_empty()).map(str::to_owned)
}

/// Calls `path` of an app.
pub(super) async fn call(api: &Api, app: &str, path: &str, request: Request) -> Result<Response, ApiError> {
    let failed =
        |what: String| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, INVOKE, format!("failed to invoke, id: {app}, err: {what}"));
    let instance = api
        .context
        .apps
        .get(app)
        .ok_or_else(|| failed("there is no such app here".to_owned()))?
        .live()
        .ok_or_else(|| failed("no instance of the app is up".to_owned()))?;
    let (parts, body) = request.into_parts();
    let body = take_body(api, body).await?;
    let mut outgoing = instance.request(parts.method, path);
    for (name, value) in parts.headers.iter().filter(|(name, _)| passes(name)) {
        outgoing = outgoing.header(name, value);
    }
    let outgoing = outgoing
        .header("dapr-caller-app-id", &*api.instance.app_id)
        .header("dapr-callee-app-id", app)
        .body(Full::new(body.bytes.clone()))
        .map_err(|error| failed(error.to_string()))?;
    let answer = api.context.client.call(outgoing, None).await.map_err(|error| failed(crate::chain(&error)))?;
    let headers: HeaderMap =
        answer.headers.iter().filter(|(name, _)| passes(name)).map(|(name, value)| (name.clone(), value.clone())).collect();
    Ok((answer.status, headers, Body::from(answer.body)).into_response())
}
