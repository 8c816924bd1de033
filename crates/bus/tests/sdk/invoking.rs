//! Asking another application.

use std::time::Duration;

use axum::routing::get;
use axum::{Json, Router};
use fte_bus::{Error, Invoker, Sidecar, SidecarConfig, Subscriptions};
use serde_json::{Value, json};

/// A sidecar that passes on what it is asked, with the answers of one application.
async fn sidecar(app: Router) -> Sidecar {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = axum::serve(listener, Router::new().nest("/v1.0/invoke/shop/method", app));
    tokio::spawn(async move { server.await });
    Sidecar::new(SidecarConfig::at_port(port)).unwrap()
}

#[tokio::test]
async fn an_answer_is_what_the_application_says_and_none_where_it_has_nothing() {
    let app = Router::new()
        .route("/open", get(async || Json(json!({ "until": "noon" }))))
        .route("/broken", get(async || (http::StatusCode::SERVICE_UNAVAILABLE, "later")))
        .route("/text", get(async || "noon"));
    let shop = Invoker::new(sidecar(app).await, "shop", Duration::from_secs(30));
    assert_eq!(shop.get::<Value>("open").await.unwrap(), Some(json!({ "until": "noon" })));
    assert_eq!(shop.get::<Value>("closed").await.unwrap(), None);
    assert!(matches!(shop.get::<Value>("broken").await, Err(Error::Answered { status: 503, .. })));
    assert!(matches!(shop.get::<Value>("text").await, Err(Error::Malformed { .. })));
}

#[tokio::test]
async fn an_application_that_hangs_is_not_waited_for() {
    let app = Router::new().route("/open", get(async || std::future::pending::<()>().await));
    let shop = Invoker::new(sidecar(app).await, "shop", Duration::from_millis(20));
    assert!(matches!(shop.get::<Value>("open").await, Err(Error::TimedOut { timeout_ms: 20, .. })));
}

#[tokio::test]
async fn methods_are_for_whoever_has_the_token_as_all_that_a_sidecar_calls() {
    use axum::body::Body;
    use http::Request;
    use tower::ServiceExt as _;

    let methods = Router::new().route("/open", get(async || "yes"));
    let app = Subscriptions::new("pubsub", "shop").app_token(Some("secret".to_owned())).methods(methods).router();
    for (token, status) in [("secret", 200), ("guess", 401)] {
        let request = Request::get("/open").header("dapr-api-token", token).body(Body::empty()).unwrap();
        assert_eq!(app.clone().oneshot(request).await.unwrap().status(), status);
    }
}

#[tokio::test]
async fn another_application_cannot_forge_events_or_jobs() {
    use axum::body::Body;
    use http::Request;
    use tower::ServiceExt as _;

    let methods = Router::new().route("/open", get(async || "yes"));
    let app = Subscriptions::new("pubsub", "shop").on_job(async |_| fte_bus::Outcome::Done).methods(methods).router();
    for (method, path, status) in
        [("GET", "/open", 200), ("POST", "/job/x", 403), ("POST", "/events/x", 403), ("GET", "/dapr/subscribe", 403)]
    {
        let request = Request::builder().method(method).uri(path).header("dapr-caller-app-id", "other").body(Body::empty()).unwrap();
        assert_eq!(app.clone().oneshot(request).await.unwrap().status(), status, "{path}");
    }
    let from_the_sidecar = Request::post("/job/x").body(Body::empty()).unwrap();
    assert_eq!(app.oneshot(from_the_sidecar).await.unwrap().status(), 200);
}
