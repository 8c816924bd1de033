//! What the tests are written in: an app whose answers a test chooses, a sidecar beside it, a client for its API, and
//! waiting for conditions.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::IntoResponse;
use fte_sidecar::{AppSpec, Options, Resiliency, Sidecar, TopicSpec};
use fte_testkit::listen;
use http::{HeaderMap, Method, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;

/// Longest wait for a condition. Never waited for when all is well.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `condition` gives something; panics with the last `state` after long.
pub(crate) async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A call that reached the app.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Call {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    /// The events in it: one, or those of a bulk call.
    pub(crate) fn events(&self) -> Vec<Value> {
        let json = self.json();
        match json.get("entries") {
            Some(entries) => entries.as_array().unwrap().iter().map(|entry| entry["event"].clone()).collect(),
            None => vec![json],
        }
    }
}

/// What the app answers to a call.
pub(crate) struct Reply(pub(crate) u16, pub(crate) String);

impl Reply {
    pub(crate) fn ok() -> Self {
        Self(200, String::new())
    }

    pub(crate) fn status(status: &str) -> Self {
        Self(200, json!({ "status": status }).to_string())
    }

    /// SUCCESS for each entry, or what `of` says of the entry's event.
    pub(crate) fn bulk(call: &Call, of: impl Fn(&Value) -> &'static str) -> Self {
        let json = call.json();
        let statuses: Vec<Value> = json["entries"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| json!({"entryId": entry["entryId"], "status": of(&entry["event"])}))
            .collect();
        Self(200, json!({ "statuses": statuses }).to_string())
    }
}

type Handler = dyn Fn(Call) -> futures_util::future::BoxFuture<'static, Reply> + Send + Sync;

struct Shared {
    calls: Mutex<Vec<Call>>,
    subscriptions: Mutex<(u16, String)>,
    lists: Mutex<usize>,
    handler: Mutex<Arc<Handler>>,
}

/// An app beside the sidecar.
pub(crate) struct App {
    shared: Arc<Shared>,
    pub(crate) addr: SocketAddr,
    server: JoinSet<()>,
}

async fn handle(State(shared): State<Arc<Shared>>, uri: Uri, headers: HeaderMap, body: Bytes) -> impl IntoResponse {
    if uri.path() == "/dapr/subscribe" {
        *shared.lists.lock().unwrap() += 1;
        let (status, body) = shared.subscriptions.lock().unwrap().clone();
        return (StatusCode::from_u16(status).unwrap(), body);
    }
    let call = Call { path: uri.path_and_query().unwrap().to_string(), headers, body };
    shared.calls.lock().unwrap().push(call.clone());
    let handler = shared.handler.lock().unwrap().clone();
    let Reply(status, body) = handler(call).await;
    (StatusCode::from_u16(status).unwrap(), body)
}

impl App {
    /// An app that subscribes to `subscriptions` and answers 200.
    pub(crate) async fn start(subscriptions: Value) -> Self {
        let shared = Arc::new(Shared {
            calls: Mutex::new(Vec::new()),
            subscriptions: Mutex::new((200, subscriptions.to_string())),
            lists: Mutex::new(0),
            handler: Mutex::new(Arc::new(|_| Box::pin(async { Reply::ok() }))),
        });
        let mut app = Self { shared, addr: ([127, 0, 0, 1], 0).into(), server: JoinSet::new() };
        app.up().await;
        app
    }

    /// Listens, at the same port as before if there was one.
    pub(crate) async fn up(&mut self) {
        let listener = listen(self.addr).await;
        self.addr = listener.local_addr().unwrap();
        let router = Router::new().fallback(handle).with_state(self.shared.clone());
        self.server.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                let service = TowerToHyperService::new(router.clone());
                connections.spawn(async move {
                    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
    }

    /// Goes away as a killed process does: connections break, the port refuses.
    pub(crate) async fn down(&mut self) {
        self.server.shutdown().await;
    }

    pub(crate) fn subscribe(&self, subscriptions: &Value) {
        *self.shared.subscriptions.lock().unwrap() = (200, subscriptions.to_string());
    }

    pub(crate) fn subscribe_answers(&self, status: u16) {
        self.shared.subscriptions.lock().unwrap().0 = status;
    }

    /// How often `/dapr/subscribe` was asked.
    pub(crate) fn lists(&self) -> usize {
        *self.shared.lists.lock().unwrap()
    }

    pub(crate) fn answer(&self, answer: impl Fn(&Call) -> Reply + Send + Sync + 'static) {
        let answer = Arc::new(answer);
        self.answer_later(move |call| {
            let answer = answer.clone();
            Box::pin(async move { answer(&call) })
        });
    }

    pub(crate) fn answer_later(&self, answer: impl Fn(Call) -> futures_util::future::BoxFuture<'static, Reply> + Send + Sync + 'static) {
        *self.shared.handler.lock().unwrap() = Arc::new(answer);
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.shared.calls.lock().unwrap().clone()
    }

    /// All events that were delivered, in order of arrival.
    pub(crate) fn events(&self) -> Vec<Value> {
        self.calls().iter().flat_map(Call::events).collect()
    }

    /// The `data` of all events that were delivered.
    pub(crate) fn data(&self) -> Vec<Value> {
        self.events().into_iter().map(|event| event["data"].clone()).collect()
    }

    /// Waits until `count` events were delivered; returns their `data`.
    pub(crate) async fn wait_data(&self, count: usize) -> Vec<Value> {
        eventually(&format!("{count} events"), async || {
            let data = self.data();
            (data.len() >= count).then_some(data)
        })
        .await
    }

    pub(crate) async fn wait_calls(&self, count: usize) -> Vec<Call> {
        eventually(&format!("{count} calls"), async || {
            let calls = self.calls();
            (calls.len() >= count).then_some(calls)
        })
        .await
    }
}

/// A subscription as an app lists it.
pub(crate) fn subscription(topic: &str) -> Value {
    json!({"pubsubname": "pubsub", "topic": topic, "route": "/events"})
}

/// The same in bulk.
pub(crate) fn bulk(topic: &str, max: usize) -> Value {
    let mut subscription = subscription(topic);
    subscription["bulkSubscribe"] = json!({"enabled": true, "maxMessagesCount": max, "maxAwaitDurationMs": 1000});
    subscription
}

pub(crate) fn with(mut value: Value, key: &str, set: Value) -> Value {
    value[key] = set;
    value
}

/// An answer of the API.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    pub(crate) fn code(&self) -> String {
        self.json()["errorCode"].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn etag(&self) -> String {
        self.headers["etag"].to_str().unwrap().to_owned()
    }

    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }
}

/// A sidecar, its client, and the directory that outlives it.
pub(crate) struct Daprd {
    pub(crate) sidecar: Option<Sidecar>,
    pub(crate) dir: Arc<TempDir>,
    addrs: Vec<SocketAddr>,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// Options with everything quick, for `apps` called `app`, `app` … or as given.
pub(crate) fn options(dir: &Path, apps: &[(&str, SocketAddr)]) -> Options {
    let mut options = Options::new(dir);
    options.apps = apps
        .iter()
        .map(|(id, addr)| AppSpec {
            app_id: (*id).to_owned(),
            app: *addr,
            http: ([127, 0, 0, 1], 0).into(),
            api_token: None,
            app_token: None,
        })
        .collect();
    options.limits.app_poll = Duration::from_millis(50);
    options.limits.drain = Duration::from_secs(5);
    options
}

/// A topic of one partition, where order is total.
pub(crate) fn one_partition(topic: &str) -> TopicSpec {
    TopicSpec { name: topic.to_owned(), partitions: 1, retention: None }
}

/// A Resiliency file whose pub/sub inbound policy is `retry`.
pub(crate) fn policy(retry: &str) -> Resiliency {
    let yaml = format!(
        "kind: Resiliency\nspec:\n  policies:\n    retries:\n      r: {retry}\n  targets:\n    components:\n      pubsub: {{inbound: {{retry: r}}}}\n"
    );
    Resiliency::from_yaml(&yaml).unwrap()
}

impl Daprd {
    /// Beside one app called `app`.
    pub(crate) async fn beside(app: &App) -> Self {
        Self::with(app, |_| {}).await
    }

    pub(crate) async fn with(app: &App, change: impl FnOnce(&mut Options)) -> Self {
        Self::of(&[("app", app.addr)], change).await
    }

    pub(crate) async fn of(apps: &[(&str, SocketAddr)], change: impl FnOnce(&mut Options)) -> Self {
        let dir = Arc::new(TempDir::new().unwrap());
        Self::again(dir, apps, change).await
    }

    /// On a directory that was used before.
    pub(crate) async fn again(dir: Arc<TempDir>, apps: &[(&str, SocketAddr)], change: impl FnOnce(&mut Options)) -> Self {
        let mut options = options(dir.path(), apps);
        change(&mut options);
        let sidecar = fte_sidecar::start(options).await.unwrap();
        Self {
            addrs: sidecar.http_addrs().to_vec(),
            sidecar: Some(sidecar),
            dir,
            client: Client::builder(TokioExecutor::new()).build_http(),
        }
    }

    /// Waits until every app is up and listed.
    pub(crate) async fn ready(self) -> Self {
        self.ready_again().await;
        self
    }

    pub(crate) async fn ready_again(&self) {
        for index in 0..self.addrs.len() {
            eventually("healthz", async || (self.send_to(index, Method::GET, "/v1.0/healthz", &[], "").await.status == 204).then_some(()))
                .await;
        }
    }

    pub(crate) async fn send_to(
        &self,
        index: usize,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let mut request = http::Request::builder().method(method).uri(format!("http://{}{path}", self.addrs[index]));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        let response = self.client.request(request).await.unwrap();
        let (parts, body) = response.into_parts();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body: body.collect().await.unwrap().to_bytes() }
    }

    pub(crate) async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        self.send_to(0, method, path, headers, body).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], "").await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, &[], "").await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        let headers = [("content-type", "application/json")];
        self.send(Method::POST, path, &headers, body.to_string()).await
    }

    /// Publishes `data` as JSON, with a key.
    pub(crate) async fn publish(&self, topic: &str, key: &str, data: Value) {
        let path = format!("/v1.0/publish/pubsub/{topic}?metadata.partitionKey={key}");
        self.post(&path, &data).await.expect(204);
    }

    /// Publishes `count` numbers from `from` in one bulk call, all with one key.
    pub(crate) async fn publish_numbers(&self, topic: &str, key: &str, from: usize, count: usize) {
        let entries: Vec<Value> = (from..from + count)
            .map(|n| {
                json!({"entryId": n.to_string(), "event": n, "contentType": "application/json",
                    "metadata": {"partitionKey": key}})
            })
            .collect();
        self.post(&format!("/v1.0/publish/bulk/pubsub/{topic}"), &json!(entries)).await.expect(204);
    }

    pub(crate) async fn stop(mut self) -> Arc<TempDir> {
        self.sidecar.take().unwrap().stop().await;
        self.dir.clone()
    }

    /// Ends as in a crash.
    pub(crate) fn crash(mut self) -> Arc<TempDir> {
        drop(self.sidecar.take());
        self.dir.clone()
    }
}

/// How often each value occurs.
pub(crate) fn counts(values: &[Value]) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for value in values {
        *counts.entry(value.to_string()).or_default() += 1;
    }
    counts
}

/// Numbers `0..count` as JSON.
pub(crate) fn numbers(count: usize) -> Vec<Value> {
    (0..count).map(|n| json!(n)).collect()
}
