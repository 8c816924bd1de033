//! What every API request passes through, in one hand-written middleware: trace context, the `Host` and `Origin` rule, the API key, the body's limit, panics,
//! problem bodies, the request's metric and its log line, and its place in the audit trail where it is refused.
//!
//! One function instead of a stack of layers: each layer would box a future and clone a service per request.
//!
//! Always true: a response with status 400 or above is `application/problem+json` with the request's trace id; one that a rule of access refused is told to
//! [`Denials`], once.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::body::{Body, to_bytes};
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tracing::Instrument;

use crate::api::ApiOptions;
use crate::audit::AuditTrail;
use crate::denials::Denials;
use crate::extract::{body_too_large, discard};
use crate::guard::Guard;
use crate::keys::{Caller, Keys};
use crate::metrics;
use crate::problem::{PROBLEM_JSON, Problem, is_refusal};
use crate::throttle::Throttle;
use crate::trace::TraceParent;

/// The response header that carries the trace id.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Most bytes of a framework's own error text that become a problem's detail.
const DETAIL_BYTES_MAX: usize = 2048;
/// Failures logged per second; the metric counts all.
const LOGGED_PER_SECOND: u32 = 20;

pub(crate) struct Front {
    guard: Guard,
    keys: Option<Keys>,
    body_bytes_max: usize,
    trail: Option<AuditTrail>,
    denials: Option<Denials>,
    log_throttle: Throttle,
}

impl Front {
    pub(crate) fn new(options: ApiOptions) -> Arc<Self> {
        Arc::new(Self {
            guard: Guard::new(&options.allowed_hosts, options.listens_on),
            keys: options.keys,
            body_bytes_max: options.body_bytes_max,
            trail: options.trail,
            denials: options.denials,
            log_throttle: Throttle::new(LOGGED_PER_SECOND),
        })
    }

    /// Who calls, unless they are refused before any handler runs.
    fn admit(&self, request: &Request, route: Option<&str>) -> Result<Caller, Problem> {
        let (method, headers) = (request.method(), request.headers());
        let caller = self.guard.check(method, request.uri(), headers).and_then(|()| match &self.keys {
            Some(keys) => keys.admit(method, route, headers).inspect(|caller| self.used(keys, caller)),
            None => Ok(Caller::anonymous()),
        });
        let caller = caller?;
        let declared = content_length(request.headers());
        if declared.is_some_and(|length| length > self.body_bytes_max as u64) {
            return Err(body_too_large(Some(self.body_bytes_max)));
        }
        Ok(caller)
    }

    fn used(&self, keys: &Keys, caller: &Caller) {
        if let (Some(trail), Some(name)) = (&self.trail, caller.name())
            && keys.is_news(name)
        {
            trail.key_used(name, caller.tenant());
        }
    }

    /// Whose key it is that was sent along with a request, wherever that is refused.
    fn owner(&self, headers: &HeaderMap) -> Caller {
        self.keys.as_ref().map_or_else(Caller::anonymous, |keys| keys.owner(headers))
    }

    fn log(&self, problem: &Problem) {
        let (code, detail, cause) = (problem.code, problem.detail.as_str(), problem.cause.as_deref());
        let status = problem.status.as_u16();
        if status < 500 || problem.expected {
            tracing::debug!(status, code, detail, cause, "refused");
        } else if !self.log_throttle.admit() {
            // The metric counts it.
        } else if problem.status == StatusCode::SERVICE_UNAVAILABLE {
            // It heals by itself: something is starting, stopping or away, and the caller is told to come again.
            tracing::warn!(status, code, detail, cause, "not now");
        } else {
            tracing::error!(status, code, detail, cause, "failed");
        }
    }
}

pub(crate) async fn pass(State(front): State<Arc<Front>>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let trace = TraceParent::continue_or_mint(request.headers());
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    // At the level of errors, so that no filter separates a line from its trace id.
    let span = tracing::error_span!("request", trace_id = trace.trace_id(), %method, route = route.as_ref().map(MatchedPath::as_str));

    let (caller, mut response) = match front.admit(&request, route.as_ref().map(MatchedPath::as_str)) {
        Err(problem) => {
            let owner = front.owner(request.headers());
            discard(request.into_body()).await;
            (owner, problem.into_response())
        }
        Ok(caller) => {
            DefaultBodyLimit::max(front.body_bytes_max).apply(&mut request);
            request.extensions_mut().insert(trace);
            request.extensions_mut().insert(caller.clone());
            let handled = AssertUnwindSafe(next.run(request)).catch_unwind().instrument(span.clone()).await;
            let response = handled.unwrap_or_else(|panic| {
                let mut problem = Problem::unexpected();
                problem.cause = Some(format!("panic: {}", panic_text(&*panic)));
                problem.into_response()
            });
            (caller, response)
        }
    };
    if let (Some(denials), Some(code)) = (&front.denials, denied_by(&response)) {
        denials.record(&caller, &method, route.as_ref().map(MatchedPath::as_str), code);
    }
    if response.status().as_u16() >= 400 {
        response = as_problem(&front, &trace, response).instrument(span).await;
    }
    if let Ok(id) = HeaderValue::from_str(trace.trace_id()) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    metrics::request(route, &method, response.status(), started.elapsed());
    response
}

/// The rule of access that refused a request, whoever made the answer: the front, an extractor, a handler or the framework.
fn denied_by(response: &Response) -> Option<&'static str> {
    match response.extensions().get::<Arc<Problem>>() {
        Some(problem) => problem.is_denial.then_some(problem.code),
        None => is_refusal(response.status()).then(|| from_status(response.status(), None).code),
    }
}

/// Gives an error response its problem body: the handler's own, or one made from the framework's.
async fn as_problem(front: &Front, trace: &TraceParent, mut response: Response) -> Response {
    let problem = match response.extensions_mut().remove::<Arc<Problem>>() {
        Some(problem) => problem,
        None if is(response.headers(), PROBLEM_JSON) => return response,
        None => {
            let status = response.status();
            let text = is(response.headers(), "text/plain");
            let body = std::mem::take(response.body_mut());
            let said = if text { to_bytes(body, DETAIL_BYTES_MAX).await.ok() } else { None };
            Arc::new(from_status(status, said.as_deref().map(String::from_utf8_lossy).as_deref()))
        }
    };
    front.log(&problem);
    let body = problem.body(Some(trace.trace_id()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    *response.body_mut() = Body::from(body);
    response
}

/// The problem behind a bare status, with what the framework said where it says more than the status does.
pub(crate) fn from_status(status: StatusCode, said: Option<&str>) -> Problem {
    let (code, detail) = match status {
        StatusCode::NOT_FOUND => ("route_not_found", "There is nothing at this path; /docs lists what there is."),
        StatusCode::METHOD_NOT_ALLOWED => {
            ("method_not_allowed", "This path does not take this method; the Allow header lists those it takes.")
        }
        StatusCode::PAYLOAD_TOO_LARGE => ("body_too_large", "The body is larger than the limit; pass large inputs by reference."),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => ("unsupported_media_type", "The body's media type is not taken here."),
        StatusCode::UNPROCESSABLE_ENTITY => ("invalid_body", "The body does not fit."),
        StatusCode::BAD_REQUEST => ("bad_request", "The request cannot be understood."),
        StatusCode::UNAUTHORIZED => ("unauthorized", "This needs credentials."),
        StatusCode::FORBIDDEN => ("forbidden", "This is not allowed."),
        StatusCode::SERVICE_UNAVAILABLE => ("unavailable", "This cannot be done now; try again."),
        status if status.is_server_error() => return Problem { status, ..Problem::unexpected() },
        _ => ("request_refused", "The request was refused."),
    };
    let said = said.map(str::trim).filter(|said| !said.is_empty() && !status.is_server_error());
    Problem::new(status, code, said.unwrap_or(detail))
}

fn is(headers: &HeaderMap, media_type: &str) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(media_type.as_bytes()))
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a text")
}
