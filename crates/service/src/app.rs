//! The app listener: what the sidecar calls. The service's own routes and the probes, with a problem for every error that is told in words.
//!
//! What Dapr reads out of an answer (`{"status": "RETRY"}`, the results of a batch) is JSON already and passes as it is.

use std::sync::Arc;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};

use crate::front::from_status;
use crate::probes::{Readiness, probes};
use crate::problem::Problem;

/// Most bytes of an error's text that become a problem's detail.
const DETAIL_BYTES_MAX: usize = 8192;

/// What the sidecar calls: the service's own routes, and the probes.
pub fn app_router(app: Router, readiness: &Readiness) -> Router {
    app.merge(Router::from(probes(readiness))).fallback(async || StatusCode::NOT_FOUND).layer(middleware::from_fn(words_as_problems))
}

async fn words_as_problems(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let is_json = response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().ends_with(b"json"));
    if response.status().as_u16() < 400 || is_json || response.extensions().get::<Arc<Problem>>().is_some() {
        return response;
    }
    let (parts, body) = response.into_parts();
    let mut problem = from_status(parts.status, None);
    // Nobody but the sidecar and its operators read this: the reason stands in what it logs.
    if let Ok(said) = to_bytes(body, DETAIL_BYTES_MAX).await
        && !said.is_empty()
    {
        problem.detail = String::from_utf8_lossy(&said).into_owned();
    }
    let mut answer = problem.into_response();
    let said = parts.headers.into_iter().filter_map(|(name, value)| Some((name?, value)));
    answer.headers_mut().extend(said.filter(|(name, _)| *name != CONTENT_TYPE && *name != CONTENT_LENGTH));
    answer
}

#[cfg(test)]
mod tests {
    use axum::Json;
    use axum::body::Body;
    use axum::routing::post;
    use http_body_util::BodyExt;
    use serde_json::{Value, json};
    use tower::ServiceExt;

    use super::*;

    async fn ask(router: &Router, path: &str) -> (StatusCode, String, Value) {
        let answer = router.clone().oneshot(Request::post(path).body(Body::empty()).unwrap()).await.unwrap();
        let (parts, body) = answer.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let kind = parts.headers.get(CONTENT_TYPE).map(|kind| kind.to_str().unwrap().to_owned()).unwrap_or_default();
        (parts.status, kind, serde_json::from_slice(&body).unwrap_or_default())
    }

    #[tokio::test]
    async fn words_become_problems_and_what_dapr_reads_stays_as_it_is() {
        let app = Router::new()
            .route("/events/t", post(async || (StatusCode::INTERNAL_SERVER_ERROR, Json(json!({ "status": "RETRY" })))))
            .route("/job/j", post(async || (StatusCode::INTERNAL_SERVER_ERROR, "the store is away")))
            .route("/bare", post(async || StatusCode::FORBIDDEN));
        let router = app_router(app, &Readiness::new(Vec::new()));
        let (status, kind, body) = ask(&router, "/events/t").await;
        assert_eq!((status.as_u16(), &*kind, body), (500, "application/json", json!({ "status": "RETRY" })));
        let (status, kind, body) = ask(&router, "/job/j").await;
        assert_eq!((status.as_u16(), &*kind, &body["code"]), (500, "application/problem+json", &json!("internal")));
        assert_eq!(body["detail"], "the store is away");
        for (path, status, code) in
            [("/bare", 403, "forbidden"), ("/nowhere", 404, "route_not_found"), ("/health", 405, "method_not_allowed")]
        {
            let (found, kind, body) = ask(&router, path).await;
            assert_eq!((found.as_u16(), &*kind, &body["code"]), (status, "application/problem+json", &json!(code)), "{path}");
        }
    }
}
