use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::routing::{get, post};
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::*;
use crate::extract::{Json, Path, Query};
use crate::probes::{Check, check};
use crate::{FieldError, Problem, TraceParent};

#[derive(serde::Deserialize)]
struct Order {
    count: u32,
}

/// An order.
#[utoipa::path(get, path = "/v1/orders/{id}", responses((status = 404)))]
async fn order(Path(_id): Path<u32>) -> Problem {
    let errors = vec![FieldError { pointer: "/id".to_owned(), detail: "unknown".to_owned() }];
    Problem::new(StatusCode::NOT_FOUND, "order_not_found", "No such order.").errors(errors)
}

/// A file.
#[utoipa::path(get, path = "/v1/files/{*path}", params(("path" = String, Path)), responses((status = 200, body = String)))]
async fn file(Path(path): Path<String>) -> String {
    path
}

fn api_with(checks: Vec<(String, Check)>) -> Router {
    let routes = ApiRoutes::default()
        .routes(utoipa_axum::routes!(order))
        .routes(utoipa_axum::routes!(file))
        .route("/orders", post(async |Json(order): Json<Order>| order.count.to_string()))
        .route("/v1/jobs/{id}", get(async |Path(id): Path<fte_events::TaskId>| id.to_string()))
        .route("/search", get(async |Query(order): Query<Order>| order.count.to_string()))
        .route("/trace", get(async |trace: TraceParent| trace.to_string()))
        .route("/axum", post(async |_: axum::Json<Order>| ()))
        .route(
            "/panic",
            get(async || {
                if true {
                    panic!("a bug with a secret in its text")
                }
            }),
        );
    let options = ApiOptions {
        listens_on: ([127, 0, 0, 1], 8080).into(),
        allowed_hosts: Vec::new(),
        body_bytes_max: 4096,
        trail: None,
        denials: None,
        keys: None,
    };
    api_router(vec![routes], &Readiness::new(checks), options)
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }
}

async fn send(api: Router, request: Request) -> Answer {
    let response = api.oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    Answer { status: parts.status.as_u16(), headers: parts.headers, body: to_bytes(body, usize::MAX).await.unwrap().to_vec() }
}

fn request(method: Method, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Request {
    let mut request = Request::builder().method(method).uri(path).header("host", "localhost:8080");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body.into()).unwrap()
}

async fn call(method: Method, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
    send(api_with(Vec::new()), request(method, path, headers, body)).await
}

const JSON: (&str, &str) = ("content-type", "application/json");

/// Every error has one shape: status, code, title, detail, trace id.
async fn check_error(method: Method, path: &str, headers: &[(&str, &str)], body: impl Into<Body>, status: u16, code: &str) -> Value {
    let answer = call(method, path, headers, body).await;
    let problem = answer.json();
    assert_eq!((answer.status, problem["code"].as_str()), (status, Some(code)), "{path}: {problem}");
    assert_eq!(answer.headers["content-type"], "application/problem+json");
    assert_eq!(problem["status"], status);
    assert_eq!(problem["type"], format!("urn:fte:problem:{code}"));
    assert!(!problem["title"].as_str().unwrap().is_empty() && !problem["detail"].as_str().unwrap().is_empty());
    assert_eq!(problem["trace_id"].as_str().unwrap(), answer.headers["x-request-id"]);
    assert!(problem["retryable"].is_boolean());
    problem
}

#[tokio::test]
async fn every_error_is_a_problem() {
    let (get, post) = (Method::GET, Method::POST);
    check_error(get.clone(), "/nothing", &[], "", 404, "route_not_found").await;
    check_error(get.clone(), "/docs/nothing.js", &[], "", 404, "route_not_found").await;
    check_error(get.clone(), "/orders", &[], "", 405, "method_not_allowed").await;
    check_error(post.clone(), "/orders", &[], "{}", 415, "unsupported_media_type").await;
    check_error(post.clone(), "/orders", &[("content-type", "text/plain")], "{}", 415, "unsupported_media_type").await;
    check_error(post.clone(), "/orders", &[JSON], "{", 400, "invalid_json").await;
    check_error(post.clone(), "/orders", &[JSON], "{}", 422, "invalid_body").await;
    check_error(post.clone(), "/orders", &[JSON], "x".repeat(5000), 413, "body_too_large").await;
    let declared = [JSON, ("content-length", "99999")];
    check_error(post.clone(), "/orders", &declared, "{}", 413, "body_too_large").await;
    check_error(get.clone(), "/search?count=x", &[], "", 400, "invalid_query").await;
    check_error(get.clone(), "/v1/orders/x", &[], "", 400, "invalid_path").await;
    check_error(get.clone(), "/panic", &[], "", 500, "internal").await;
    // Rejections of axum's own extractors too, should one be used.
    let rejected = check_error(post.clone(), "/axum", &[JSON], "{}", 422, "invalid_body").await;
    assert!(rejected["detail"].as_str().unwrap().contains("missing field `count`"), "{rejected}");
    check_error(post, "/axum", &[], "{}", 415, "unsupported_media_type").await;
    let own = check_error(get, "/v1/orders/7", &[], "", 404, "order_not_found").await;
    assert_eq!((&own["title"], &own["errors"][0]["pointer"]), (&json!("Order not found"), &json!("/id")));
}

#[tokio::test]
async fn a_good_request_passes_and_a_panic_tells_nothing() {
    assert_eq!(call(Method::POST, "/orders", &[JSON], r#"{"count":3}"#).await.body, b"3");
    assert_eq!(
        call(Method::POST, "/orders", &[("content-type", "application/vnd.x+json; charset=utf-8")], r#"{"count":3}"#).await.body,
        b"3"
    );
    let panicked = call(Method::GET, "/panic", &[], "").await;
    assert!(!String::from_utf8_lossy(&panicked.body).contains("secret"));
}

#[tokio::test]
async fn the_address_itself_leads_to_the_documentation() {
    let answer = call(Method::GET, "/", &[], "").await;
    assert_eq!((answer.status, &answer.headers["location"]), (303, &http::HeaderValue::from_static("/docs")));
}

#[tokio::test]
async fn an_id_that_is_none_is_told_what_one_looks_like() {
    let problem = check_error(Method::GET, "/v1/orders/x", &[], "", 400, "invalid_path").await;
    assert_eq!(problem["detail"], "The path does not fit: \"x\" stands where a whole number is expected.");
    let problem = check_error(Method::GET, "/v1/jobs/x", &[], "", 400, "invalid_path").await;
    assert_eq!(problem["detail"], "The path does not fit: \"x\" is not a UUID of the form 01980000-0000-7000-8000-000000000001.");
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_ones() {
    assert_eq!(call(Method::GET, "/orders", &[], "").await.headers["allow"], "POST");
}

#[tokio::test]
async fn foreign_sites_reach_no_route() {
    let foreign = |name: &'static str, value: &'static str| {
        let mut request = request(Method::GET, "/trace", &[], "");
        request.headers_mut().insert(name, value.parse().unwrap());
        send(api_with(Vec::new()), request)
    };
    for (name, value, code) in [
        ("host", "evil.example", "host_refused"),
        ("origin", "https://evil.example", "origin_refused"),
        ("sec-fetch-site", "cross-site", "cross_site_refused"),
    ] {
        let answer = foreign(name, value).await;
        assert_eq!((answer.status, &answer.json()["code"]), (403, &json!(code)));
    }
    assert_eq!(foreign("origin", "http://localhost:8080").await.status, 200);
    let mut probe = request(Method::GET, "/health", &[], "");
    probe.headers_mut().insert("host", "evil.example".parse().unwrap());
    assert_eq!(send(api_with(Vec::new()), probe).await.status, 403);
}

#[tokio::test]
async fn a_trace_goes_through_to_the_handler_and_back() {
    let given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let answer = call(Method::GET, "/trace", &[("traceparent", given)], "").await;
    assert_eq!(answer.headers["x-request-id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert!(answer.body.starts_with(b"00-4bf92f3577b34da6a3ce929d0e0e4736-"));
    let minted = call(Method::GET, "/trace", &[], "").await;
    assert_eq!(minted.headers["x-request-id"].as_bytes(), &minted.body[3..35]);
}

#[tokio::test]
async fn health_is_the_process_and_readiness_names_what_is_missing() {
    let good = check(async || Ok::<(), String>(()));
    let bad = check(async || Err("nobody listens".to_owned()));
    let api = api_with(vec![("intake/sidecar".to_owned(), good), ("audit/store".to_owned(), bad)]);
    let health = send(api.clone(), request(Method::GET, "/health", &[], "")).await;
    assert_eq!((health.status, &health.json()["status"]), (200, &json!("up")));
    let ready = send(api, request(Method::GET, "/ready", &[], "")).await;
    let problem = ready.json();
    assert_eq!((ready.status, &problem["code"], &problem["detail"]), (503, &json!("not_ready"), &json!("Not ready: audit/store.")));
    let checks = json!([{"name": "intake/sidecar", "ready": true}, {"name": "audit/store", "ready": false, "detail": "nobody listens"}]);
    assert_eq!(problem["checks"], checks);

    let ready = call(Method::GET, "/ready", &[], "").await;
    assert_eq!((ready.status, &ready.json()["status"]), (200, &json!("ready")));
}

#[tokio::test(start_paused = true)]
async fn a_check_that_hangs_is_not_waited_for() {
    let api = api_with(vec![("audit/store".to_owned(), check(std::future::pending::<Result<(), String>>))]);
    let ready = send(api, request(Method::GET, "/ready", &[], "")).await;
    assert_eq!((ready.status, &ready.json()["checks"][0]["detail"]), (503, &json!("no answer within 2 s")));
}

#[tokio::test]
async fn metrics_count_requests_by_route() {
    crate::metrics::install();
    call(Method::GET, "/v1/orders/7", &[], "").await;
    let text = String::from_utf8(call(Method::GET, "/metrics", &[], "").await.body).unwrap();
    let counted = |line: &str| line.starts_with("fte_http_request_sec_bucket") && line.contains(r#"route="/v1/orders/{id}""#);
    assert!(text.lines().any(counted), "{text}");
    assert!(!text.contains("orders/7"));
}

#[tokio::test]
async fn the_document_lists_the_routes_and_its_page_is_served_from_here() {
    let document = call(Method::GET, "/openapi.json", &[], "").await.json();
    assert_eq!(document["info"]["title"], "FTE");
    assert_eq!(
        document["paths"]["/v1/orders/{id}"]["get"]["responses"]["404"]["content"]["application/problem+json"]["schema"]["$ref"],
        "#/components/schemas/Problem"
    );
    assert_eq!(document["components"]["schemas"]["Problem"]["properties"]["code"]["type"], "string");
    assert!(document["components"]["schemas"]["FieldError"].is_object());
    assert!(document["paths"]["/v1/files/{path}"].is_object(), "{}", document["paths"]);
    // What the front may answer is said of each route that takes a key, and of no other.
    for refusal in ["401", "403", "429"] {
        let order = &document["paths"]["/v1/orders/{id}"]["get"];
        assert_eq!(order["responses"][refusal]["content"]["application/problem+json"]["schema"]["$ref"], "#/components/schemas/Problem");
        assert!(document["paths"]["/ready"]["get"]["responses"].get(refusal).is_none());
    }
    assert_eq!(document["paths"]["/v1/orders/{id}"]["get"]["security"], json!([{}, { "api_key": [] }]));
    assert_eq!(document["components"]["securitySchemes"]["api_key"]["scheme"], "bearer");
    assert_eq!(call(Method::GET, "/v1/files/a/b", &[], "").await.body, b"a/b");

    let page = String::from_utf8(call(Method::GET, "/docs/", &[], "").await.body).unwrap();
    assert!(page.contains("swagger-ui-bundle.js") && !page.contains("https://"), "{page}");
    let script = String::from_utf8(call(Method::GET, "/docs/swagger-initializer.js", &[], "").await.body).unwrap();
    assert!(script.contains("/openapi.json"), "{script}");
    assert_eq!(call(Method::GET, "/docs/swagger-ui-bundle.js", &[], "").await.status, 200);
}
