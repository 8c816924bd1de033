//! The one error body of the public API: RFC 9457 problem details with a stable code, the trace id and whether a retry may help.
//!
//! Making a response from a problem is pure; the front middleware adds the trace id and logs the cause, once, inside the request's span.

use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// Media type of a problem.
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";

/// What went wrong, for the caller and for its program. Texts say what happened, why, and what to do.
#[derive(Clone, Debug)]
pub struct Problem {
    /// The HTTP status.
    pub status: StatusCode,
    /// The stable name that programs may rely on: `task_not_found`.
    pub code: &'static str,
    /// What happened here, and what to do.
    pub detail: String,
    /// When a repeat may help.
    pub retry_after: Option<Duration>,
    /// Each field that is wrong.
    pub errors: Vec<FieldError>,
    /// Further members of the body.
    pub extra: Option<Box<Map<String, Value>>>,
    /// Why, for the log only.
    pub cause: Option<String>,
    /// It is as it should be, and no news for the log: somebody asks early, as they may.
    pub expected: bool,
    /// A rule of access refused it, which the audit trail has to say: so it is with each 401 and 403.
    pub is_denial: bool,
}

/// One wrong field of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// JSON Pointer to the field: `/context`.
    #[schema(example = "/task")]
    pub pointer: String,
    /// What is wrong with it, and the accepted form.
    pub detail: String,
}

impl Problem {
    /// A problem with a status, a stable code and a text for the caller.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        let is_denial = is_refusal(status);
        let detail = detail.into();
        Self { status, code, detail, retry_after: None, errors: Vec::new(), extra: None, cause: None, expected: false, is_denial }
    }

    /// The caller may repeat the request after this long.
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// The fields that are wrong.
    pub fn errors(mut self, errors: Vec<FieldError>) -> Self {
        self.errors = errors;
        self
    }

    /// One more member of the body.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.extra.get_or_insert_default().insert(name.to_owned(), value.into());
        self
    }

    /// Why, for the log; the caller does not see it.
    pub fn caused_by(mut self, error: &dyn std::error::Error) -> Self {
        self.cause = Some(crate::chain(error));
        self
    }

    /// A rule of access refused it, though the status is that of something else.
    pub fn as_denial(mut self) -> Self {
        self.is_denial = true;
        self
    }

    /// 500 without a word about why; the cause is for the log.
    pub fn internal(error: &dyn std::error::Error) -> Self {
        Self::unexpected().caused_by(error)
    }

    pub(crate) fn unexpected() -> Self {
        let detail = "Something failed on our side that should not have; the log has more under this trace id.";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
    }

    /// Whether the same request may succeed later.
    pub fn retryable(&self) -> bool {
        self.retry_after.is_some() || matches!(self.status.as_u16(), 408 | 429 | 502 | 503 | 504)
    }

    /// The short text for the kind of problem, made from the code: `Task not found`.
    pub fn title(&self) -> String {
        let mut title = self.code.replace('_', " ");
        if let Some(first) = title.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        title
    }

    /// The response's body.
    pub(crate) fn body(&self, trace_id: Option<&str>) -> Vec<u8> {
        let wire = Wire {
            kind: format!("urn:fte:problem:{}", self.code),
            title: self.title(),
            status: self.status.as_u16(),
            detail: &self.detail,
            code: self.code,
            retryable: self.retryable(),
            trace_id,
            errors: &self.errors,
            extra: self.extra.as_deref(),
        };
        serde_json::to_vec(&wire).unwrap_or_default()
    }
}

/// The body on the wire.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
struct Wire<'a> {
    /// A URN that ends in the code.
    #[serde(rename = "type")]
    #[schema(example = "urn:fte:problem:task_not_found")]
    kind: String,
    /// The kind of problem, for people.
    #[schema(example = "Task not found")]
    title: String,
    /// The HTTP status.
    #[schema(example = 404)]
    status: u16,
    /// What happened here, and what to do.
    detail: &'a str,
    /// The kind of problem, for programs; stable.
    #[schema(example = "task_not_found")]
    code: &'a str,
    /// Whether the same request may succeed later.
    retryable: bool,
    /// The id under which the log and the events of this request are found.
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<&'a str>,
    /// Each field that is wrong.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
    #[serde(flatten)]
    #[schema(ignore)]
    extra: Option<&'a Map<String, Value>>,
}

impl utoipa::PartialSchema for Problem {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        Wire::schema()
    }
}

impl ToSchema for Problem {
    fn name() -> std::borrow::Cow<'static, str> {
        "Problem".into()
    }

    fn schemas(schemas: &mut Vec<(String, utoipa::openapi::RefOr<utoipa::openapi::schema::Schema>)>) {
        Wire::schemas(schemas);
    }
}

/// The statuses that say who may do what.
pub(crate) fn is_refusal(status: StatusCode) -> bool {
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
}

/// Rounded up: whoever comes back then is not early by a part of a second.
fn whole_seconds(wait: Duration) -> u64 {
    let more = u64::from(wait.subsec_nanos() > 0);
    wait.as_secs().saturating_add(more).max(1)
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body(None)));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(wait) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        // For the front middleware, which adds the trace id and logs the cause.
        response.extensions_mut().insert(std::sync::Arc::new(self));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_back_when_told_is_never_early() {
        let check = |wait: Duration, header: &str| {
            let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", "Later.").retry_after(wait);
            assert_eq!(problem.into_response().headers()[RETRY_AFTER], header, "{wait:?}");
        };
        check(Duration::ZERO, "1");
        check(Duration::from_millis(400), "1");
        check(Duration::from_secs(2), "2");
        check(Duration::from_nanos(2_000_000_001), "3");
    }
}
