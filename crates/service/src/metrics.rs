//! Metrics: the names of this crate's, the recorder that holds all, and their text for `/metrics`. Labels are bounded: route templates, never ids.

use std::sync::OnceLock;
use std::time::Duration;

use axum::extract::MatchedPath;
use http::{Method, StatusCode};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

/// Seconds a request of the API took until its response began, by `route`, `method` and `status`; a histogram, its count is the number of requests.
pub const HTTP_REQUESTS: &str = "fte_http_request_sec";
/// Open connections, by `listener` (`api`, `app`).
pub const HTTP_CONNECTIONS: &str = "fte_http_connections";
/// Requests that a rule of access refused, by the problem's `code`.
pub const HTTP_DENIED: &str = "fte_http_denied_total";
/// Those of them that got no entry of their own in the audit log because there were too many, by the problem's `code`.
pub const DENIALS_LEFT_OUT: &str = "fte_http_denials_left_out_total";
/// Actions published on the audit topic, by `service`.
pub const ACTIONS: &str = "fte_audit_actions_total";
/// Actions that were not recorded because too many were waiting, by `service`.
pub const ACTIONS_DROPPED: &str = "fte_audit_actions_dropped_total";

/// Upper bounds in seconds, from a loopback hop to a long poll.
const SECONDS: [f64; 16] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// How often samples are moved into their buckets when nobody asks for them: until then they take memory.
pub(crate) const UPKEEP: Duration = Duration::from_secs(5);

/// The recorder, installed for the whole process at the first call. `None` when another one was installed before.
fn recorder() -> Option<&'static PrometheusHandle> {
    static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    RECORDER
        .get_or_init(|| {
            let builder = PrometheusBuilder::new().set_buckets(&SECONDS).ok()?;
            builder
                .install_recorder()
                .inspect_err(|error| tracing::warn!(%error, "metrics are recorded elsewhere; /metrics stays empty"))
                .ok()
        })
        .as_ref()
}

/// Starts recording. Call it before the first metric is touched; later calls do nothing.
pub fn install() {
    recorder();
}

/// All metrics in Prometheus' text form.
pub fn render() -> String {
    recorder().map(PrometheusHandle::render).unwrap_or_default()
}

/// Moves samples into their buckets; [`crate::run`] does it regularly.
pub fn upkeep() {
    if let Some(recorder) = recorder() {
        recorder.run_upkeep();
    }
}

pub(crate) fn request(route: Option<MatchedPath>, method: &Method, status: StatusCode, took: Duration) {
    let route = route.map_or_else(|| "none".to_owned(), |route| route.as_str().to_owned());
    metrics::histogram!(HTTP_REQUESTS, "route" => route, "method" => method_label(method), "status" => status_label(status))
        .record(took.as_secs_f64());
}

pub(crate) fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::PATCH => "PATCH",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// The class for what is rare, the code for what is worth telling apart.
fn status_label(status: StatusCode) -> &'static str {
    match status.as_u16() {
        200 => "200",
        202 => "202",
        204 => "204",
        400 => "400",
        403 => "403",
        404 => "404",
        409 => "409",
        413 => "413",
        422 => "422",
        429 => "429",
        500 => "500",
        503 => "503",
        code => match code / 100 {
            1 => "1xx",
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            _ => "5xx",
        },
    }
}
