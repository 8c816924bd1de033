//! The rest of the API: health, metadata, tokens, invocation, and what is not there.

use std::sync::Arc;

use fte_testkit::Client;
use http::Method;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::app::Reply;
use crate::runner::{Case, cases};
use crate::topics::{Mode, TOPICS, route};
use crate::world::{JSON, World, error_code};

pub(crate) const CASES: &[Case] = cases![
    both_health_routes_answer_204,
    metadata_says_what_the_sidecar_is,
    metadata_lists_the_subscriptions,
    metadata_takes_keys_of_the_app,
    without_the_token_only_health_is_open needs [ApiToken],
    methods_of_an_app_are_invoked,
    an_answer_of_a_method_is_passed_back,
    a_method_that_takes_its_time_holds_up_no_other,
    an_app_that_is_not_there_is_not_invoked,
    what_is_no_route_is_a_failed_invocation,
    what_the_embedded_sidecar_does_not_do_says_so needs [Embedded],
];

async fn both_health_routes_answer_204(world: &World) {
    for sidecar in &world.target.sidecars {
        for path in ["/v1.0/healthz", "/v1.0/healthz/outbound"] {
            let answer = sidecar.client.get(path).await.expect("an answer").expect_status(204);
            assert_eq!(answer.text(), "");
        }
    }
}

async fn metadata_says_what_the_sidecar_is(world: &World) {
    let metadata: Value = world.get("/v1.0/metadata").await.expect_status(200).json();
    assert_eq!(metadata["id"], world.app_id());
    let version = metadata["runtimeVersion"].as_str().expect("a version");
    assert_eq!(version.trim_start_matches('v').split('.').count(), 3, "{version}");
    assert_eq!(metadata["extended"]["daprRuntimeVersion"], version);
    assert!(metadata["actorRuntime"].is_object());
    let connection = &metadata["appConnectionProperties"];
    assert_eq!(connection["port"], world.apps.port(0));
    assert_eq!(connection["protocol"], "http");
    assert!(connection["channelAddress"].is_string());
    let component = |name: &str| {
        let all = metadata["components"].as_array().expect("components");
        all.iter().find(|component| component["name"] == name).unwrap_or_else(|| panic!("{name} in {all:?}")).clone()
    };
    let pubsub = component(&world.target.pubsub);
    assert!(pubsub["type"].as_str().is_some_and(|kind| kind.starts_with("pubsub.")) && pubsub["version"].is_string(), "{pubsub}");
    let store = component(&world.target.statestore);
    let capabilities = store["capabilities"].as_array().expect("capabilities");
    for capability in ["ETAG", "TRANSACTIONAL", "TTL"] {
        assert!(capabilities.contains(&json!(capability)), "{store}");
    }
}

async fn metadata_lists_the_subscriptions(world: &World) {
    let metadata: Value = world.get("/v1.0/metadata").await.expect_status(200).json();
    let listed = metadata["subscriptions"].as_array().expect("subscriptions");
    for topic in TOPICS.iter().filter(|topic| topic.mode != Mode::Unread) {
        let subscription = listed.iter().find(|subscription| subscription["topic"] == topic.name);
        let subscription = subscription.unwrap_or_else(|| panic!("{} is not in {listed:?}", topic.name));
        assert_eq!(subscription["pubsubname"], *world.target.pubsub);
        assert_eq!(subscription["rules"][0]["path"], route(topic.name), "{subscription}");
        assert_eq!(subscription["deadLetterTopic"].as_str().filter(|letters| !letters.is_empty()), topic.dead_letter);
        assert_eq!(subscription["metadata"]["rawPayload"].as_str(), topic.raw.then_some("true"));
        assert_eq!(subscription["type"], "PROGRAMMATIC");
    }
    assert_eq!(listed.len(), TOPICS.len() - 1);
}

async fn metadata_takes_keys_of_the_app(world: &World) {
    let (key, value) = (world.mark(), "blue ü");
    world.send(Method::PUT, &format!("/v1.0/metadata/{key}"), &[("content-type", "text/plain")], value).await.expect_status(204);
    let metadata: Value = world.get("/v1.0/metadata").await.expect_status(200).json();
    assert_eq!(metadata["extended"][&key], value);
}

async fn without_the_token_only_health_is_open(world: &World) {
    let publish = world.publish_path(crate::topics::UNREAD, "");
    let state = format!("/v1.0/state/{}/k", world.target.statestore);
    for client in [Client::new(world.api().base()), Client::new(world.api().base()).with_header("dapr-api-token", "wrong")] {
        for path in [&*publish, &*state, "/v1.0/metadata", "/v1.0-alpha1/jobs/x", "/v1.0/invoke/x/method/y", "/v1.0/shutdown"] {
            let answer = client.post(path, &json!({})).await.expect("an answer");
            assert_eq!(answer.status, 401, "{path}: {}", answer.text());
        }
        assert_eq!(client.get(&state).await.expect("an answer").status, 401);
        for path in ["/v1.0/healthz", "/v1.0/healthz/outbound"] {
            client.get(path).await.expect("an answer").expect_status(204);
        }
    }
}

async fn methods_of_an_app_are_invoked(world: &World) {
    let check = async |method: Method, path: &str, body: &str| {
        let answer = world
            .send(
                method.clone(),
                &format!("/v1.0/invoke/{}/method{path}", world.app_id()),
                &[("content-type", "text/x-mine"), ("x-mine", "yes")],
                body.to_owned(),
            )
            .await
            .expect_status(201);
        assert_eq!(answer.headers["content-type"], "application/vnd.echo+json");
        let echo: Value = answer.json();
        assert_eq!(
            (echo["method"].as_str(), echo["path"].as_str(), echo["body"].as_str()),
            (Some(method.as_str()), Some(path), Some(body))
        );
        assert_eq!(echo["headers"]["x-mine"], "yes");
        if !body.is_empty() {
            assert_eq!(echo["headers"]["content-type"], "text/x-mine");
        }
        if let Some(token) = &world.target.app_token {
            assert_eq!(echo["headers"]["dapr-api-token"], **token);
        }
    };
    check(Method::GET, "/echo/a", "").await;
    check(Method::POST, "/echo/a?q=1&r=%20", "body ü").await;
    check(Method::PUT, "/echo/a/b/c", "{}").await;
    check(Method::PATCH, "/echo/x", "patch").await;
    check(Method::DELETE, "/echo/x", "").await;
    // Any path that is no route, with the app in a header.
    let by_header = world.send(Method::POST, "/echo/h?q=1", &[("dapr-app-id", world.app_id())], "body").await.expect_status(201);
    let echo: Value = by_header.json();
    assert_eq!((echo["method"].as_str(), echo["path"].as_str(), echo["body"].as_str()), (Some("POST"), Some("/echo/h?q=1"), Some("body")));
    if let Some(other) = world.target.sidecars.iter().find(|sidecar| sidecar.app_id != world.app_id()) {
        let echo: Value = world.get(&format!("/v1.0/invoke/{}/method/echo/x", other.app_id)).await.expect_status(201).json();
        assert_eq!(echo["headers"]["dapr-caller-app-id"], world.app_id());
        assert_eq!(echo["headers"]["dapr-callee-app-id"], *other.app_id);
    }
}

async fn an_answer_of_a_method_is_passed_back(world: &World) {
    for (status, body) in [(200, "yes"), (204, ""), (400, "no"), (404, "not here"), (409, "conflict"), (500, "broken"), (503, "later")] {
        let mark = world.mark();
        world.reply(&mark, [Reply::Http(status, body.to_owned())]);
        let answer = world.get(&format!("/v1.0/invoke/{}/method/{mark}", world.app_id())).await;
        assert_eq!((answer.status.as_u16(), answer.text()), (status, body.to_owned()));
        assert_eq!(world.seen(&mark).len(), 1, "an answer is an answer, whatever it says");
    }
}

async fn a_method_that_takes_its_time_holds_up_no_other(world: &World) {
    let gate = Arc::new(Semaphore::new(0));
    let (slow, quick) = (world.mark(), world.mark());
    world.reply(&slow, [Reply::Held(gate.clone())]);
    world.reply(&quick, [Reply::Http(200, "at once".to_owned())]);
    let path = |mark: &str| format!("/v1.0/invoke/{}/method/{mark}", world.app_id());
    let (slow_path, quick_path) = (path(&slow), path(&quick));
    let others = async {
        while world.seen(&slow).is_empty() {
            tokio::task::yield_now().await;
        }
        let answer = world.get(&quick_path).await.expect_status(200);
        gate.close();
        answer.text()
    };
    let (slowly, at_once) = tokio::join!(world.get(&slow_path), others);
    assert_eq!((slowly.status.as_u16(), at_once.as_str()), (200, "at once"));
}

async fn an_app_that_is_not_there_is_not_invoked(world: &World) {
    let answer = world.get("/v1.0/invoke/conf-nobody/method/x").await.expect_status(500);
    assert_eq!(error_code(&answer), "ERR_DIRECT_INVOKE");
}

async fn what_is_no_route_is_a_failed_invocation(world: &World) {
    let state = format!("/v1.0/state/{}", world.target.statestore);
    for (method, path) in [
        (Method::POST, "/v2.0/publish/pubsub/t"),
        (Method::POST, "/v1.0/nothing"),
        (Method::GET, "/nothing"),
        // A method that a route does not take is no route, either.
        (Method::GET, &world.publish_path("t", "")),
        (Method::DELETE, &world.publish_path("t", "")),
        (Method::GET, &state),
        (Method::POST, "/v1.0/healthz"),
        (Method::DELETE, "/v1.0/metadata"),
    ] {
        let answer = world.send(method.clone(), path, &[("content-type", JSON)], "").await;
        assert_eq!(answer.status.as_u16(), 404, "{method} {path}: {}", answer.text());
        assert_eq!(error_code(&answer), "ERR_DIRECT_INVOKE", "{method} {path}");
        let said = answer.json::<Value>()["message"].as_str().unwrap_or_default().to_owned();
        assert!(said.starts_with("failed getting app id either from the URL path or the header dapr-app-id"), "{said}");
    }
}

async fn what_the_embedded_sidecar_does_not_do_says_so(world: &World) {
    for path in [
        "/v1.0/actors/t/1/method/m",
        "/v1.0/workflows/dapr/x/start",
        "/v1.0-beta1/workflows/dapr/x/start",
        "/v1.0-alpha1/workflows/dapr/x/start",
        "/v1.0/bindings/b",
        "/v1.0/configuration/c",
        "/v1.0-alpha1/configuration/c/subscribe",
        "/v1.0-alpha1/lock/l",
        "/v1.0-alpha1/unlock/l",
        "/v1.0-alpha1/crypto/c/encrypt",
        "/v1.0-alpha1/subtlecrypto/c/encrypt",
        "/v1.0-alpha1/conversation/c/converse",
        "/v1.0-alpha2/conversation/c/converse",
        "/v1.0-alpha1/state/statestore/query",
        "/v1.0/shutdown",
    ] {
        let answer = world.post(path, &json!({})).await;
        assert_eq!(answer.status.as_u16(), 501, "{path}: {}", answer.text());
        assert_eq!(error_code(&answer), "ERR_API_UNIMPLEMENTED", "{path}");
        assert!(answer.text().contains("not implemented by the embedded sidecar: "), "{path}: {}", answer.text());
    }
}
