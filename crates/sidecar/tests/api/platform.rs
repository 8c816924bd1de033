//! The rest of the API: tokens, health, metadata, invocation, secrets, and what is refused.

use http::Method;
use serde_json::json;

use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_asked_for_and_sent() {
    let app = App::start(json!([subscription("t")])).await;
    let daprd = Daprd::with(&app, |options| {
        options.apps[0].api_token = Some("secret".to_owned());
        options.apps[0].app_token = Some("app-secret".to_owned());
    })
    .await;
    let path = "/v1.0/publish/pubsub/t";
    daprd.send(Method::POST, path, &[], "x").await.expect(401);
    daprd.send(Method::POST, path, &[("dapr-api-token", "wrong")], "x").await.expect(401);
    daprd.get("/v1.0/metadata").await.expect(401);
    daprd.get("/nowhere").await.expect(401);
    daprd.get("/v1.0/healthz/outbound").await.expect(204);
    daprd.send(Method::POST, path, &[("dapr-api-token", "secret")], "x").await.expect(204);
    let calls = app.wait_calls(1).await;
    assert_eq!(calls[0].header("dapr-api-token"), "app-secret");
    let daprd = daprd.ready().await;
    daprd.get("/v1.0/healthz").await.expect(204);
}

#[tokio::test(flavor = "multi_thread")]
async fn web_pages_are_refused() {
    let app = App::start(json!([subscription("t")])).await;
    let daprd = Daprd::beside(&app).await.ready().await;
    for header in
        [("origin", "http://evil.example"), ("origin", "null"), ("sec-fetch-site", "cross-site"), ("sec-fetch-site", "same-origin")]
    {
        let answer = daprd.send(Method::POST, "/v1.0/publish/pubsub/t", &[header, ("content-type", "text/plain")], "x").await;
        assert_eq!((answer.status, answer.code()), (403, "ERR_ORIGIN_REFUSED".to_owned()), "{header:?}");
    }
    daprd.send(Method::GET, "/v1.0/metadata", &[("sec-fetch-site", "none")], "").await.expect(200);
    daprd.send(Method::POST, "/v1.0/publish/pubsub/t", &[], "x").await.expect(204);
    assert_eq!(app.wait_calls(1).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_follows_the_app_and_outbound_does_not() {
    let mut app = App::start(json!([])).await;
    let daprd = Daprd::beside(&app).await.ready().await;
    app.down().await;
    let answer = eventually("unhealthy", async || {
        let answer = daprd.get("/v1.0/healthz").await;
        (answer.status == 500).then_some(answer)
    })
    .await;
    assert_eq!(answer.code(), "ERR_HEALTH_NOT_READY");
    daprd.get("/v1.0/healthz/outbound").await.expect(204);
    app.up().await;
    daprd.ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_are_refused_loudly_and_the_rest_works() {
    let rules = json!({"pubsubname": "pubsub", "topic": "r", "routes": {"rules": [{"match": "true", "path": "/r"}]}});
    let app = App::start(json!([subscription("t"), rules])).await;
    let daprd = Daprd::beside(&app).await;
    daprd.publish("t", "k", json!(1)).await;
    app.wait_data(1).await;
    let health = daprd.get("/v1.0/healthz").await.expect(500);
    assert!(health.json()["message"].as_str().unwrap().contains("CEL"), "{health:?}");
    let metadata = daprd.get("/v1.0/metadata").await.expect(200).json();
    assert!(metadata["extended"]["subscriptionProblems"].as_str().unwrap().contains("CEL"));
    assert_eq!(metadata["subscriptions"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_says_what_this_is() {
    let app = App::start(json!([with(subscription("t"), "deadLetterTopic", json!("d"))])).await;
    let daprd = Daprd::beside(&app).await.ready().await;
    daprd.send(Method::PUT, "/v1.0/metadata/colour", &[], "blue").await.expect(204);
    let metadata = daprd.get("/v1.0/metadata").await.expect(200).json();
    assert_eq!(metadata["id"], "app");
    assert_eq!(metadata["runtimeVersion"], "1.18.3");
    assert_eq!(metadata["extended"]["colour"], "blue");
    let subscription = &metadata["subscriptions"][0];
    assert_eq!(subscription["topic"], "t");
    assert_eq!(subscription["deadLetterTopic"], "d");
    assert_eq!(subscription["rules"][0]["path"], "/events");
    let names: Vec<_> = metadata["components"].as_array().unwrap().iter().map(|c| c["name"].clone()).collect();
    assert_eq!(names, ["pubsub", "statestore"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn methods_of_an_app_are_invoked() {
    let callee = App::start(json!([])).await;
    callee.answer(|call| Reply(201, format!("{} {}", call.header("x-mine"), String::from_utf8_lossy(&call.body))));
    let daprd = Daprd::of(&[("caller", callee.addr), ("callee", callee.addr)], |_| {}).await.ready().await;
    let answer = daprd.send(Method::PUT, "/v1.0/invoke/callee/method/a%20b/c?q=1", &[("x-mine", "yes")], "body").await.expect(201);
    assert_eq!(answer.body, "yes body");
    let call = &callee.calls()[0];
    assert_eq!(call.path, "/a%20b/c?q=1");
    assert_eq!(call.header("dapr-caller-app-id"), "caller");
    let by_header = daprd.send(Method::GET, "/a/b?q=1", &[("dapr-app-id", "callee")], "").await.expect(201);
    assert_eq!(by_header.body, " ");
    assert_eq!(callee.calls()[1].path, "/a/b?q=1");
    assert_eq!(callee.calls()[1].header("dapr-app-id"), "");
    let unknown = daprd.get("/v1.0/invoke/nobody/method/x").await.expect(500);
    assert_eq!(unknown.code(), "ERR_DIRECT_INVOKE");
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_come_from_their_file() {
    let app = App::start(json!([])).await;
    let dir = tempfile::TempDir::new().unwrap();
    let file = dir.path().join("secrets.json");
    std::fs::write(&file, r#"{"key": "value", "db": {"user": "u", "port": 5}}"#).unwrap();
    let daprd = Daprd::with(&app, |options| options.secrets_file = Some(file)).await;
    assert_eq!(daprd.get("/v1.0/secrets/secretstore/key").await.expect(200).json(), json!({"key": "value"}));
    let db = daprd.get("/v1.0/secrets/secretstore/db").await.expect(200).json();
    assert_eq!(db, json!({"user": "u", "port": "5"}));
    assert_eq!(daprd.get("/v1.0/secrets/secretstore/bulk").await.expect(200).json()["db"], db);
    daprd.get("/v1.0/secrets/secretstore/none").await.expect(500);
    daprd.get("/v1.0/secrets/other/key").await.expect(401);
    let none = Daprd::beside(&app).await;
    none.get("/v1.0/secrets/secretstore/key").await.expect(500);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_here_says_so() {
    let app = App::start(json!([])).await;
    let daprd = Daprd::beside(&app).await;
    for path in [
        "/v1.0/actors/t/1/method/m",
        "/v1.0/workflows/dapr/x/start",
        "/v1.0-beta1/workflows/dapr/x/start",
        "/v1.0/bindings/b",
        "/v1.0/configuration/c",
        "/v1.0-alpha1/lock/l",
        "/v1.0-alpha1/unlock/l",
        "/v1.0-alpha1/crypto/c/encrypt",
        "/v1.0/shutdown",
    ] {
        let answer = daprd.post(path, &json!({})).await.expect(501);
        assert_eq!(answer.code(), "ERR_API_UNIMPLEMENTED", "{path}");
        assert!(answer.json()["message"].as_str().unwrap().contains("embedded sidecar"));
    }
    daprd.get("/v2/nothing").await.expect(404);
    // As with Dapr, a method that a route does not take is no route.
    let answer = daprd.delete("/v1.0/metadata").await.expect(404);
    assert_eq!(answer.code(), "ERR_DIRECT_INVOKE");
}
