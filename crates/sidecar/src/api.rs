//! The HTTP API of one app instance. The whole table is [`router`]; what Dapr has and this has not answers 501.
//!
//! Errors are Dapr's: JSON `{"errorCode","message"}`. A body over the limit is 413 here where Dapr says 500, because a
//! 500 asks to be tried again.

pub(crate) mod health;
pub(crate) mod invoke;
pub(crate) mod jobs;
pub(crate) mod metadata;
pub(crate) mod publish;
pub(crate) mod secrets;
pub(crate) mod state;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, FromRequestParts, Query, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post, put};
use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, Uri};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Body as _;
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;

use crate::Context;
use crate::apps::Instance;
use crate::json::Pairs;
use crate::store::StoreError;

/// Longest wait for room among the request bodies.
const ROOM: Duration = Duration::from_secs(30);
/// How much of a body that is refused is read all the same, and for how long.
const DISCARD_BYTES_MAX: usize = 16 * 1024 * 1024;
const DISCARD_TIME: Duration = Duration::from_secs(2);

/// What the handlers of one listener share.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) context: Arc<Context>,
    pub(crate) instance: Arc<Instance>,
    token: Option<HeaderValue>,
}

impl Api {
    pub(crate) fn new(context: Arc<Context>, instance: Arc<Instance>, token: Option<&str>) -> Self {
        Self { context, instance, token: token.and_then(|token| HeaderValue::from_str(token).ok()) }
    }
}

/// The routes of a sidecar, both generations.
pub(crate) fn router(api: Api) -> Router {
    let publish = post(publish::single).put(publish::single);
    let bulk = post(publish::bulk).put(publish::bulk);
    let jobs = post(jobs::create).get(jobs::read).delete(jobs::remove);
    let state = post(state::save).put(state::save);
    let transaction = post(state::transaction).put(state::transaction);
    let mut router = Router::new()
        .route("/v1.0/publish/{pubsub}/{*topic}", publish)
        .route("/v1.0/publish/bulk/{pubsub}/{*topic}", bulk.clone())
        .route("/v1.0-alpha1/publish/bulk/{pubsub}/{*topic}", bulk)
        .route("/v1.0/state/{store}", state)
        .route("/v1.0/state/{store}/bulk", post(state::bulk_get).put(state::bulk_get))
        .route("/v1.0/state/{store}/transaction", transaction)
        .route("/v1.0/state/{store}/{key}", get(state::read).delete(state::remove))
        .route("/v1.0/jobs/{name}", jobs.clone())
        .route("/v1.0-alpha1/jobs/{name}", jobs)
        .route("/v1.0/invoke/{app}/method/{*path}", any(invoke::invoke))
        .route("/v1.0/secrets/{store}/bulk", get(secrets::all))
        .route("/v1.0/secrets/{store}/{key}", get(secrets::one))
        .route("/v1.0/healthz", get(health::all))
        .route("/v1.0/healthz/outbound", get(health::outbound))
        .route("/v1.0/metadata", get(metadata::read))
        .route("/v1.0/metadata/{key}", put(metadata::write));
    for (path, what) in REFUSED {
        router = router.route(path, any(move || async move { refused(what) }));
    }
    router
        .fallback(unknown)
        .method_not_allowed_fallback(unknown)
        .layer(middleware::from_fn_with_state(api.clone(), authorize))
        .layer(DefaultBodyLimit::disable())
        .with_state(api)
}

/// What Dapr has and this sidecar has not.
const REFUSED: &[(&str, &str)] = &[
    ("/v1.0/actors/{*rest}", "actors need Dapr's placement and scheduler services"),
    ("/v1.0/workflows/{*rest}", "workflows need a worker over gRPC, which this sidecar does not speak"),
    ("/v1.0-beta1/workflows/{*rest}", "workflows need a worker over gRPC, which this sidecar does not speak"),
    ("/v1.0-alpha1/workflows/{*rest}", "workflows need a worker over gRPC, which this sidecar does not speak"),
    ("/v1.0/bindings/{*rest}", "there are no binding components here"),
    ("/v1.0/configuration/{*rest}", "there is no configuration store here"),
    ("/v1.0-alpha1/configuration/{*rest}", "there is no configuration store here"),
    ("/v1.0-alpha1/lock/{*rest}", "there is no lock store here; use a create-only state write"),
    ("/v1.0-alpha1/unlock/{*rest}", "there is no lock store here; use a create-only state write"),
    ("/v1.0-alpha1/crypto/{*rest}", "there are no crypto components here"),
    ("/v1.0-alpha1/subtlecrypto/{*rest}", "there are no crypto components here"),
    ("/v1.0-alpha1/conversation/{*rest}", "there are no conversation components here"),
    ("/v1.0-alpha2/conversation/{*rest}", "there are no conversation components here"),
    ("/v1.0-alpha1/state/{store}/query", "the state store has no query API; keep an index in a document of its own"),
    ("/v1.0/shutdown", "the sidecar ends with the process it is part of"),
];

fn refused(what: &str) -> ApiError {
    ApiError::new(StatusCode::NOT_IMPLEMENTED, "ERR_API_UNIMPLEMENTED", format!("not implemented by the embedded sidecar: {what}"))
}

/// What is no route, or no method of one: Dapr takes it for an invocation.
async fn unknown(State(api): State<Api>, uri: Uri, request: Request) -> Result<Response, ApiError> {
    if let Some(app) = invoke::named(request.headers()) {
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        return invoke::call(&api, &app, path, request).await;
    }
    Err(no_route(request.method(), &uri))
}

fn no_route(method: &Method, uri: &Uri) -> ApiError {
    let publish = ["/v1.0/publish/bulk/", "/v1.0-alpha1/publish/bulk/", "/v1.0/publish/"];
    if let Some(rest) = publish.iter().find_map(|route| uri.path().strip_prefix(route))
        && (method == Method::POST || method == Method::PUT)
    {
        // The router only takes whole paths; say what is missing as Dapr does.
        let (code, what) = if rest.is_empty() || rest.starts_with('/') {
            ("ERR_PUBSUB_EMPTY", "pubsub name is empty".to_owned())
        } else {
            ("ERR_TOPIC_NAME_EMPTY", format!("topic is empty in pubsub {}", rest.trim_matches('/')))
        };
        return ApiError::new(StatusCode::NOT_FOUND, code, what);
    }
    let text =
        format!("failed getting app id either from the URL path or the header dapr-app-id: there is no route {method} {}", uri.path());
    ApiError::new(StatusCode::NOT_FOUND, "ERR_DIRECT_INVOKE", text)
}

/// Whether a web page sent it: browsers say so themselves. What people type into the address bar is no page's (`none`).
fn is_of_a_page(headers: &http::HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").map(http::HeaderValue::as_bytes);
    headers.contains_key(http::header::ORIGIN) || site.is_some_and(|site| site != b"none")
}

/// Refuses web pages, which must not be able to publish here, and callers without the token, except to the two health routes.
async fn authorize(State(api): State<Api>, request: Request, next: Next) -> Response {
    if is_of_a_page(request.headers()) {
        let text = "web pages may not call the sidecar: it is for programs on this machine";
        return ApiError::new(StatusCode::FORBIDDEN, "ERR_ORIGIN_REFUSED", text).into_response();
    }
    let Some(token) = &api.token else {
        return next.run(request).await;
    };
    let exempt = matches!(request.uri().path(), "/v1.0/healthz" | "/v1.0/healthz/outbound");
    let given = request.headers().get("dapr-api-token");
    if exempt || given.is_some_and(|given| same(given.as_bytes(), token.as_bytes())) {
        return next.run(request).await;
    }
    ApiError::new(StatusCode::UNAUTHORIZED, "ERR_UNAUTHORIZED", "header dapr-api-token is missing or wrong").into_response()
}

/// Compares without telling by its time where two texts differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

/// An error as Dapr answers it.
#[derive(Debug)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    pub(crate) fn malformed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "ERR_MALFORMED_REQUEST", message)
    }

    /// What the store could not do is 500, as a component's failure is in Dapr.
    pub(crate) fn store(code: &'static str, doing: &str, error: &StoreError) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, code, format!("{doing}: {}", crate::chain(error)))
    }
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    #[serde(rename = "errorCode")]
    error_code: &'a str,
    message: &'a str,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = ErrorBody { error_code: self.code, message: &self.message };
        (self.status, axum::Json(body)).into_response()
    }
}

/// A request body within its limit, and its share of the room for bodies until it is dropped.
pub(crate) struct Taken {
    pub(crate) bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

/// Takes the body of a request in. Waits while other bodies fill the room.
pub(crate) async fn take_body(api: &Api, mut body: Body) -> Result<Taken, ApiError> {
    let bytes_max = api.context.limits.body_bytes_max;
    let too_long = || {
        ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "ERR_BODY_TOO_LARGE",
            format!("body is longer than {bytes_max} bytes; send less at a time"),
        )
    };
    // A request without a body announces none; one in chunks may be as long as is allowed.
    let announced = body.size_hint().upper().map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    if announced.is_some_and(|announced| announced > bytes_max) {
        discard(body).await;
        return Err(too_long());
    }
    let kib = announced.unwrap_or(bytes_max) / 1024 + 1;
    let busy = || ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "ERR_OVERLOADED", "too many requests wait for the disk; try again");
    let room = api.context.bodies.clone().acquire_many_owned(kib as u32);
    let room = tokio::time::timeout(ROOM, room).await.map_err(|_| busy())?.map_err(|_| busy())?;
    let unread = || ApiError::new(StatusCode::BAD_REQUEST, "ERR_BODY_READ", "failed to read request body");
    let read = Limited::new(&mut body, bytes_max).collect();
    match tokio::time::timeout(api.context.limits.body_read, read).await.map_err(|_| unread())? {
        Ok(read) => Ok(Taken { bytes: read.to_bytes(), _room: room }),
        Err(error) if error.is::<LengthLimitError>() => {
            drop(room);
            discard(body).await;
            Err(too_long())
        }
        Err(_) => Err(unread()),
    }
}

/// Reads and forgets a body that is refused, as far as that is reasonable: a caller whose body is not read finds its connection reset before it
/// has seen why.
async fn discard(body: Body) {
    let mut body = Limited::new(body, DISCARD_BYTES_MAX);
    let all = async { while body.frame().await.is_some_and(|frame| frame.is_ok()) {} };
    drop(tokio::time::timeout(DISCARD_TIME, all).await);
}

/// The `metadata.*` parameters of a query; the first of a name wins.
#[derive(Debug, Default)]
pub(crate) struct QueryMetadata(pub(crate) Pairs);

impl<S: Send + Sync> FromRequestParts<S> for QueryMetadata {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut http::request::Parts, state: &S) -> Result<Self, ApiError> {
        if parts.uri.query().is_none_or(str::is_empty) {
            return Ok(Self::default());
        }
        let Query(all) = Query::<Vec<(String, String)>>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| ApiError::malformed(rejection.body_text()))?;
        let mut pairs: Vec<(String, String)> = Vec::new();
        for (name, value) in all {
            if let Some(key) = name.strip_prefix("metadata.")
                && !pairs.iter().any(|(other, _)| other == key)
            {
                pairs.push((key.to_owned(), value));
            }
        }
        Ok(Self(Pairs(pairs)))
    }
}

/// 204 without a body.
pub(crate) fn no_content() -> Response {
    StatusCode::NO_CONTENT.into_response()
}
