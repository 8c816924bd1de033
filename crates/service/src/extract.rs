//! Extractors like axum's whose rejections are problems: a handler never meets a bad request, a caller never meets a bare text.

mod idempotency;
mod one_meaning;
mod query;
mod words;

use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::{BytesRejection, FailedToBufferBody, PathRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use fte_bus::json;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http_body_util::{BodyExt as _, Limited};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::error::Category;

pub use self::idempotency::{IDEMPOTENCY_KEY, idempotency_key};
use self::one_meaning::OneMeaning;
use crate::problem::Problem;

/// Longest wait for the whole of a request's body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// How much of a refused body is read, and for how long.
const DISCARD_BYTES_MAX: usize = 16 * 1024 * 1024;
const DISCARD_TIMEOUT: Duration = Duration::from_secs(2);

/// A JSON object as the body in, or a JSON body out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Json<T>(pub T);

/// A JSON object as the body in, where there is a body: without one all its fields are absent.
#[derive(Clone, Copy, Debug, Default)]
pub struct OptionalJson<T>(pub T);

/// The bytes of a JSON body: the media type is checked, the text is not yet read.
#[derive(Clone, Debug)]
pub struct JsonBytes(pub Bytes);

/// The query string, as a struct of its parameters. One that the struct does not have is refused: an answer that ignored a misspelt filter would say too
/// much.
#[derive(Clone, Copy, Debug, Default)]
pub struct Query<T>(pub T);

/// The parameters in the path.
#[derive(Clone, Copy, Debug, Default)]
pub struct Path<T>(pub T);

impl<S: Send + Sync> FromRequest<S> for JsonBytes {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if !is_json(&request) {
            discard(request.into_body()).await;
            return Err(not_said_to_be_json());
        }
        whole(request, state).await.map(Self)
    }
}

fn not_said_to_be_json() -> Problem {
    let detail = "The body must be JSON and say so: send it with the header \"content-type: application/json\".";
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail)
}

/// All of a body, in time and within its limit.
async fn whole<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Problem> {
    match tokio::time::timeout(BODY_TIMEOUT, Bytes::from_request(request, state)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_)))) => Err(body_too_large(None)),
        Ok(Err(error)) => {
            let detail = "The body did not arrive whole.";
            Err(Problem::new(StatusCode::BAD_REQUEST, "body_incomplete", detail).caused_by(&error))
        }
        Err(_) => {
            let detail = format!("The body did not arrive within {} s.", BODY_TIMEOUT.as_secs());
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", detail))
        }
    }
}

impl<S: Send + Sync, T: DeserializeOwned + Default> FromRequest<S> for OptionalJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let is_json = is_json(&request);
        // Whether there is one shows only at its end: one of no length may come in pieces.
        match whole(request, state).await? {
            bytes if bytes.is_empty() => Ok(Self::default()),
            _ if !is_json => Err(not_said_to_be_json()),
            bytes => parse_json(&bytes).map(Self),
        }
    }
}

/// Reads and forgets the body of a request that is refused, as far as that is reasonable: a caller whose body is not read may find its connection
/// reset before it has seen why.
pub(crate) async fn discard(body: Body) {
    let mut body = Limited::new(body, DISCARD_BYTES_MAX);
    let all = async { while body.frame().await.is_some_and(|frame| frame.is_ok()) {} };
    drop(tokio::time::timeout(DISCARD_TIMEOUT, all).await);
}

fn is_json(request: &Request) -> bool {
    let Some(kind) = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/json")
        || (kind.len() > 17 && kind[..12].eq_ignore_ascii_case("application/") && kind[kind.len() - 5..].eq_ignore_ascii_case("+json"))
}

pub(crate) fn body_too_large(max: Option<usize>) -> Problem {
    let limit = max.map(|max| format!(" of {max} bytes")).unwrap_or_default();
    let detail = format!("The body is larger than the limit{limit}; pass large inputs by reference.");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail)
}

/// Reads a JSON object: 400 `invalid_json` for what is not JSON, 422 `invalid_body` for what is, but not of this shape, or says a thing twice. The field
/// that does not fit is named.
pub fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let invalid = |detail: String| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_body", detail);
    let not_json = |error: &serde_json::Error| Problem::new(StatusCode::BAD_REQUEST, "invalid_json", words::not_json(bytes, error));
    json::check(bytes, json::DEPTH_MAX).map_err(|unfit| invalid(format!("The body does not fit: {unfit}.")))?;
    serde_json::from_slice::<OneMeaning>(bytes).map_err(|error| match error.classify() {
        Category::Data => invalid(format!("The body does not fit: {}.", words::ambiguous(&error))),
        Category::Syntax | Category::Eof | Category::Io => not_json(&error),
    })?;
    serde_json::from_slice(bytes).map_err(|error| match error.classify() {
        Category::Data => {
            let wrong = words::unfit(&path_of_misfit::<T>(bytes), &error);
            let detail = format!("The body does not fit; to be mended: {}.", wrong.pointer.trim_start_matches('/'));
            invalid(detail).errors(vec![wrong])
        }
        Category::Syntax | Category::Eof | Category::Io => not_json(&error),
    })
}

/// Reads a body that does not fit once more, and notes the way: that costs more than to read it, and most bodies fit.
fn path_of_misfit<T: DeserializeOwned>(bytes: &[u8]) -> String {
    let read: Result<T, _> = serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_slice(bytes));
    read.err().map_or_else(String::new, |error| error.path().to_string())
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let JsonBytes(bytes) = JsonBytes::from_request(request, state).await?;
        parse_json(&bytes).map(Json)
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        query::parse(&parts.uri).map(Self)
    }
}

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(path)) => Ok(Self(path)),
            Err(error) if error.status().is_server_error() => Err(Problem::internal(&error)),
            Err(error) => {
                let why = match &error {
                    PathRejection::FailedToDeserializePathParams(unfit) => words::bad_path(unfit.kind()),
                    _ => None,
                };
                let detail = why.unwrap_or_else(|| format!("{}.", error.body_text()));
                Err(Problem::new(StatusCode::BAD_REQUEST, "invalid_path", detail))
            }
        }
    }
}
