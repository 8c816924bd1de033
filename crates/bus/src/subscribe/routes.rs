//! The routes that the sidecar calls. Bodies are taken raw: a framework's own 4xx would be retried for ever, a 404 would drop the event.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::json;

use super::faults::Faults;
use super::work::Worker;
use super::{JobHandler, Outcome, Subscription, Subscriptions, answer, delivery};
use crate::error::chain;
use crate::metrics;

/// Most bytes of one call of the sidecar.
const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;

struct App {
    list: String,
    workers: HashMap<String, Worker>,
    job: Option<JobHandler>,
}

pub(super) fn router(subscriptions: Subscriptions) -> Router {
    let list = subscription_list(&subscriptions.pubsub, &subscriptions.topics).to_string();
    let mut workers = HashMap::new();
    for subscription in subscriptions.topics {
        metrics::subscribed(&subscription.topic);
        let worker = Worker {
            raw: subscription.is_raw(),
            consumer: Arc::clone(&subscriptions.consumer),
            topic: Arc::clone(&subscription.topic),
            options: subscription.options,
            work: subscription.work,
            dead_letters: subscriptions.dead_letters.clone(),
            last_words: subscriptions.last_words.clone(),
            faults: Faults::default(),
        };
        let other = workers.insert(subscription.topic.to_string(), worker);
        assert!(other.is_none(), "{} is subscribed to twice: one handler has a topic, and takes all of its types", subscription.topic);
    }
    let app = Arc::new(App { list, workers, job: subscriptions.job });
    let token = subscriptions.app_token.map(Arc::<str>::from);
    Router::new()
        .route("/dapr/subscribe", get(list_subscriptions))
        .route("/events/{*topic}", post(event))
        .route("/job/{*name}", post(job))
        .with_state(app)
        .route_layer(middleware::from_fn(refuse_applications))
        .merge(subscriptions.methods)
        .layer(middleware::from_fn(move |request: Request, next: Next| check_token(token.clone(), request, next)))
}

fn subscription_list(pubsub: &str, topics: &[Subscription]) -> serde_json::Value {
    let list = topics.iter().map(|subscription| {
        let mut entry = json!({ "pubsubname": pubsub, "topic": &*subscription.topic, "route": format!("/events/{}", subscription.topic) });
        if let Some(topic) = &subscription.options.dead_letter_topic {
            entry["deadLetterTopic"] = json!(topic);
        }
        if let Some(bulk) = subscription.options.bulk {
            entry["bulkSubscribe"] =
                json!({ "enabled": true, "maxMessagesCount": bulk.max_count, "maxAwaitDurationMs": bulk.max_await_ms });
        }
        if subscription.is_raw() {
            entry["metadata"] = json!({ "rawPayload": "true" });
        }
        entry
    });
    list.collect()
}

async fn check_token(token: Option<Arc<str>>, request: Request, next: Next) -> Response {
    if let Some(expected) = &token {
        let given = request.headers().get("dapr-api-token").map_or(&b""[..], |value| value.as_bytes());
        if !same_secret(given, expected.as_bytes()) {
            return (StatusCode::UNAUTHORIZED, "this port is for the sidecar: the app API token is missing or wrong").into_response();
        }
    }
    next.run(request).await
}

/// Events and jobs come from the sidecar itself. Another application that may invoke this one could forge them by its sidecar, which shows the token for it;
/// but Dapr puts the name of whoever invokes into each such call.
async fn refuse_applications(request: Request, next: Next) -> Response {
    if request.headers().contains_key("dapr-caller-app-id") {
        return (StatusCode::FORBIDDEN, "events and jobs come from the sidecar, not from other applications").into_response();
    }
    next.run(request).await
}

/// Compares in a time that depends on the lengths alone.
fn same_secret(given: &[u8], expected: &[u8]) -> bool {
    given.len() == expected.len() && given.iter().zip(expected).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

async fn list_subscriptions(State(app): State<Arc<App>>) -> Response {
    ([(http::header::CONTENT_TYPE, "application/json")], app.list.clone()).into_response()
}

async fn event(State(app): State<Arc<App>>, Path(topic): Path<String>, headers: HeaderMap, body: Body) -> Response {
    // Never 404: a topic that is not subscribed to cannot have been meant to be dropped.
    let Some(worker) = app.workers.get(&topic) else {
        return (StatusCode::INTERNAL_SERVER_ERROR, format!("{topic} is not subscribed to here")).into_response();
    };
    let body = match to_bytes(body, BODY_BYTES_MAX).await {
        Ok(body) => body,
        Err(error) => return (StatusCode::INTERNAL_SERVER_ERROR, chain(&error)).into_response(),
    };
    let raw = worker.raw;
    if worker.options.bulk.is_some() {
        match delivery::read_bulk(&worker.topic, &body, raw) {
            Ok(entries) => {
                let (ids, records): (Vec<_>, Vec<_>) = entries.into_iter().map(|entry| (entry.entry_id, entry.record)).unzip();
                let acknowledged = worker.work(records).await;
                return answer::bulk(ids.iter().map(String::as_str).zip(acknowledged));
            }
            // A sidecar that does not do bulk delivers one by one.
            Err(error) if headers.get(http::header::CONTENT_TYPE).is_some_and(|kind| kind == "application/json") => {
                return (StatusCode::INTERNAL_SERVER_ERROR, format!("not a bulk delivery: {error}")).into_response();
            }
            Err(_) => {}
        }
    }
    let record = delivery::read_single(&worker.topic, &headers, body, raw);
    let acknowledged = worker.work(vec![record]).await;
    answer::single(acknowledged.first().copied().unwrap_or(false))
}

async fn job(State(app): State<Arc<App>>, Path(name): Path<String>) -> Response {
    let Some(handler) = &app.job else {
        return (StatusCode::INTERNAL_SERVER_ERROR, "no job handler here").into_response();
    };
    match handler(name.clone()).await {
        Outcome::Done => StatusCode::OK.into_response(),
        Outcome::Retry(error) => (StatusCode::INTERNAL_SERVER_ERROR, chain(&*error)).into_response(),
        Outcome::Reject(error) => {
            tracing::warn!(job = name, reason = %chain(&*error), "job rejected");
            StatusCode::OK.into_response()
        }
    }
}
