//! `GET /health` (this process answers), `GET /ready` (what it needs is there), `GET /metrics`; on both listeners.
//!
//! Health never depends on anything outside: a restart would not bring the sidecar back. Readiness asks the sidecar and the service's own
//! checks each time, side by side and each for a bounded time, and says which one is missing. It is closed while draining. Until it was open once nothing is
//! amiss: then the log has no warning of it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures_util::future::{BoxFuture, join_all};
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::routes;

use crate::ApiRoutes;
use crate::chain;
use crate::metrics;
use crate::problem::Problem;

/// Between two looks at whether the sidecar is there.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Longest wait for one check.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// Whether something that is needed is there; the error says what is missing.
pub type Check = Arc<dyn Fn() -> BoxFuture<'static, Result<(), Lack>> + Send + Sync>;

/// What is missing. A plain text is something without which nothing can be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    detail: String,
    serves: bool,
}

impl Lack {
    /// Something to tell whoever looks, without which what is there can be served all the same: it keeps nobody away.
    pub fn that_serves(detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), serves: true }
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl From<String> for Lack {
    fn from(detail: String) -> Self {
        Self { detail, serves: false }
    }
}

/// Makes a check from an async closure.
pub fn check<F, E>(check: impl Fn() -> F + Send + Sync + 'static) -> Check
where
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: Into<Lack>,
{
    Arc::new(move || {
        let checked = check();
        Box::pin(async move { checked.await.map_err(Into::into) })
    })
}

/// What must be there for a listener to be ready; cheap to clone.
#[derive(Clone)]
pub struct Readiness {
    checks: Arc<Vec<(String, Check)>>,
    draining: Arc<AtomicBool>,
    was_ready: Arc<AtomicBool>,
}

/// How one check ended.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CheckState {
    /// What was checked: `intake/sidecar`.
    pub name: String,
    /// Whether it is there.
    pub ready: bool,
    /// What is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl Readiness {
    /// Ready when all of these are.
    pub fn new(checks: Vec<(String, Check)>) -> Self {
        Self { checks: Arc::new(checks), draining: Arc::default(), was_ready: Arc::default() }
    }

    /// The sidecar's own check: it is up and can be called.
    pub fn sidecar(sidecar: &fte_bus::Sidecar) -> Check {
        let sidecar = sidecar.clone();
        check(move || {
            let sidecar = sidecar.clone();
            async move { sidecar.outbound_ready().await.map_err(|error| chain(&error)) }
        })
    }

    /// Waits until the sidecar is up and can be called.
    pub async fn sidecar_is_there(sidecar: &fte_bus::Sidecar) {
        while sidecar.outbound_ready().await.is_err() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Not ready any more, for good.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Runs all checks.
    pub async fn states(&self) -> Vec<CheckState> {
        let mut states = join_all(self.checks.iter().map(|(name, check)| async move {
            let outcome = tokio::time::timeout(CHECK_TIMEOUT, check()).await;
            let outcome = outcome.unwrap_or_else(|_| Err(format!("no answer within {} s", CHECK_TIMEOUT.as_secs()).into()));
            let lack = outcome.err();
            CheckState { name: name.clone(), ready: lack.as_ref().is_none_or(|lack| lack.serves), detail: lack.map(|lack| lack.detail) }
        }))
        .await;
        if self.draining.load(Ordering::Relaxed) {
            let detail = Some("this process is ending; it finishes what it has".to_owned());
            states.push(CheckState { name: "process".to_owned(), ready: false, detail });
        }
        states
    }
}

pub(crate) fn probes(readiness: &Readiness) -> ApiRoutes {
    ApiRoutes::default().routes(routes!(health)).routes(routes!(ready)).routes(routes!(numbers)).with_state(readiness.clone())
}

/// This process answers.
#[utoipa::path(get, path = "/health", tag = "probes", responses((status = 200, description = "Always, whatever is outside")))]
async fn health() -> Response {
    ([(CACHE_CONTROL, "no-store")], Json(json!({ "status": "up", "version": env!("CARGO_PKG_VERSION") }))).into_response()
}

/// What it needs is there.
#[utoipa::path(
    get,
    path = "/ready",
    tag = "probes",
    responses(
        (status = 200, description = "Each check, as it is now"),
        (status = 503, description = "Something is missing: `checks` says what"),
    )
)]
async fn ready(State(readiness): State<Readiness>) -> Response {
    let states = readiness.states().await;
    let missing: Vec<&str> = states.iter().filter(|state| !state.ready).map(|state| state.name.as_str()).collect();
    if missing.is_empty() {
        readiness.was_ready.store(true, Ordering::Relaxed);
        return ([(CACHE_CONTROL, "no-store")], Json(json!({ "status": "ready", "checks": states }))).into_response();
    }
    let detail = format!("Not ready: {}.", missing.join(", "));
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", detail).with("checks", json!(states));
    let expected = !readiness.was_ready.load(Ordering::Relaxed);
    Problem { expected, ..problem.retry_after(Duration::from_secs(1)) }.into_response()
}

/// What is counted.
#[utoipa::path(get, path = "/metrics", tag = "probes", responses((status = 200, description = "In Prometheus's text format", content_type = "text/plain")))]
async fn numbers() -> Response {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], metrics::render()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_no_news_that_something_starts_but_that_it_went_away() {
        let is_there = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&is_there);
        let store = check(move || std::future::ready(if asked.load(Ordering::Relaxed) { Ok(()) } else { Err("away".to_owned()) }));
        let readiness = Readiness::new(vec![("audit/store".to_owned(), store)]);
        let expected = async || {
            let response = ready(State(readiness.clone())).await;
            response.extensions().get::<Arc<Problem>>().map(|problem| problem.expected)
        };
        assert_eq!(expected().await, Some(true));
        is_there.store(true, Ordering::Relaxed);
        assert_eq!(expected().await, None);
        is_there.store(false, Ordering::Relaxed);
        assert_eq!(expected().await, Some(false));
    }
}
