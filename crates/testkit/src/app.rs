//! A fake application behind a sidecar: it says what it subscribes to, records every delivery, and answers as the test says.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::listen;

const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;
const RECEIVED_MAX: usize = 1_000_000;
const CONNECTIONS_MAX: usize = 1_024;

/// A call from the sidecar.
#[derive(Debug, Clone)]
pub struct Received {
    /// `POST`, `GET`, …
    pub method: Method,
    /// The path, with its query.
    pub path: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Received {
    /// The body as JSON. Panics with the body when it is none.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {:?}", self.body))
    }
}

/// What the application answers.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The media type.
    pub content_type: &'static str,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// A status without a body. 200 is success, 404 drops the event, everything else is tried again.
    pub fn status(status: u16) -> Self {
        Self { status: StatusCode::from_u16(status).expect("a status"), content_type: "application/json", body: Bytes::new() }
    }

    /// 200 with JSON.
    pub fn json(body: &Value) -> Self {
        Self { body: body.to_string().into(), ..Self::status(200) }
    }

    /// 200 with `SUCCESS`, `RETRY` or `DROP`.
    pub fn verdict(verdict: &str) -> Self {
        Self::json(&json!({ "status": verdict }))
    }

    /// 200 for a bulk delivery, with the verdict of each entry by its event's id.
    pub fn bulk(received: &Received, mut verdict: impl FnMut(&Value) -> &'static str) -> Self {
        let body = received.json();
        let entries = body["entries"].as_array().expect("a bulk delivery has entries");
        let statuses: Vec<_> =
            entries.iter().map(|entry| json!({"entryId": entry["entryId"], "status": verdict(&entry["event"])})).collect();
        Self::json(&json!({ "statuses": statuses }))
    }
}

type Handler = dyn Fn(Received) -> Pin<Box<dyn Future<Output = Answer> + Send>> + Send + Sync;

struct Shared {
    subscriptions: Value,
    handler: Box<Handler>,
    received: Mutex<Vec<Received>>,
    lists: AtomicUsize,
}

/// A running fake application. Dropping it stops it and breaks its connections, as a crash would.
pub struct FakeApp {
    port: u16,
    shared: Arc<Shared>,
    server: tokio::task::JoinHandle<()>,
}

impl fmt::Debug for FakeApp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeApp").field("port", &self.port).finish_non_exhaustive()
    }
}

impl FakeApp {
    /// Starts on a free port of the loopback. `subscriptions` is its answer to `GET /dapr/subscribe`; every `POST` but those of the start
    /// is recorded and then answered by `handler`, which may take its time.
    pub async fn start<F: Future<Output = Answer> + Send + 'static>(
        subscriptions: Value,
        handler: impl Fn(Received) -> F + Send + Sync + 'static,
    ) -> Self {
        Self::start_at(0, subscriptions, handler).await
    }

    /// [`FakeApp::start`] on a given port, to come back where it was.
    pub async fn start_at<F: Future<Output = Answer> + Send + 'static>(
        port: u16,
        subscriptions: Value,
        handler: impl Fn(Received) -> F + Send + Sync + 'static,
    ) -> Self {
        let listener = listen(([127, 0, 0, 1], port)).await;
        let port = listener.local_addr().expect("a bound listener has an address").port();
        let handler = Box::new(move |received| Box::pin(handler(received)) as Pin<Box<dyn Future<Output = Answer> + Send>>);
        let shared = Arc::new(Shared { subscriptions, handler, received: Mutex::default(), lists: AtomicUsize::new(0) });
        let server = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self { port, shared, server }
    }

    /// An application that accepts everything on `topics` of the component `pubsub`, each at `/events/<topic>`.
    pub async fn accepting(topics: &[&str]) -> Self {
        Self::start(subscriptions(topics), |_| async { Answer::verdict("SUCCESS") }).await
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What it has received so far, in the order of arrival.
    pub fn received(&self) -> Vec<Received> {
        self.shared.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How often it was asked for its subscriptions.
    pub fn lists(&self) -> usize {
        self.shared.lists.load(Ordering::Relaxed)
    }

    /// Stops it and breaks its connections. Its port is free when this returns.
    pub async fn stop(mut self) {
        self.server.abort();
        let _ = (&mut self.server).await;
    }
}

impl Drop for FakeApp {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Single subscriptions to `topics` of the component `pubsub`, each at `/events/<topic>`.
fn subscriptions(topics: &[&str]) -> Value {
    let one = |topic: &&str| json!({"pubsubname": "pubsub", "topic": topic, "route": format!("/events/{topic}")});
    topics.iter().map(one).collect()
}

/// The connections live in the set of this task: they end when it does.
async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
        }
        let Ok((stream, _)) = listener.accept().await else { continue };
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let service = service_fn(move |request| answer(Arc::clone(&shared), request));
            // A connection that breaks is the sidecar's matter.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let answer = match (&parts.method, parts.uri.path()) {
        (&Method::GET, "/dapr/subscribe") => {
            shared.lists.fetch_add(1, Ordering::Relaxed);
            Answer::json(&shared.subscriptions)
        }
        (&Method::GET, "/health") => Answer::status(200),
        (&Method::GET, "/dapr/config") => Answer::status(404),
        _ => match Limited::new(body, BODY_BYTES_MAX).collect().await {
            Err(_) => Answer::status(400),
            Ok(body) => {
                let path = parts.uri.path_and_query().map_or_else(String::new, ToString::to_string);
                let received = Received { method: parts.method, path, headers: parts.headers, body: body.to_bytes() };
                {
                    let mut log = shared.received.lock().unwrap_or_else(PoisonError::into_inner);
                    assert!(log.len() < RECEIVED_MAX, "a fake application records at most {RECEIVED_MAX} calls");
                    log.push(received.clone());
                }
                (shared.handler)(received).await
            }
        },
    };
    let mut response = Response::new(Full::new(answer.body));
    *response.status_mut() = answer.status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(answer.content_type));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Client;

    #[tokio::test]
    async fn a_fake_application_records_what_it_gets_and_answers_as_told() {
        let topics = subscriptions(&["orders"]);
        let app = FakeApp::start(topics.clone(), |received| async move {
            if received.path.starts_with("/bulk") {
                return Answer::bulk(&received, |event| if event["id"] == "bad" { "RETRY" } else { "SUCCESS" });
            }
            Answer::status(500)
        })
        .await;
        let sidecar = Client::new(format!("http://127.0.0.1:{}", app.port())).with_header("__key", "k");

        assert_eq!(sidecar.get("/dapr/subscribe").await.unwrap().json::<Value>(), topics);
        sidecar.post("/events/orders", &json!({"id": "1"})).await.unwrap().expect_status(500);
        let bulk = json!({"entries": [{"entryId": "0", "event": {"id": "good"}}, {"entryId": "1", "event": {"id": "bad"}}]});
        let statuses = sidecar.post("/bulk", &bulk).await.unwrap().expect_status(200).json::<Value>();
        assert_eq!(statuses, json!({"statuses": [{"entryId": "0", "status": "SUCCESS"}, {"entryId": "1", "status": "RETRY"}]}));

        let received = app.received();
        assert_eq!(received.iter().map(|call| call.path.as_str()).collect::<Vec<_>>(), ["/events/orders", "/bulk"]);
        assert_eq!((received[0].json(), &received[0].headers["__key"]), (json!({"id": "1"}), &"k".parse().unwrap()));
    }

    #[tokio::test]
    async fn a_stream_is_taken_up_after_the_last_event() {
        let server = FakeApp::start(json!([]), |received| async move {
            let last = received.headers.get("last-event-id").map_or(0, |id| id.to_str().unwrap().parse::<u32>().unwrap());
            let events: String = (last + 1..=3).map(|id| format!("id: {id}\nevent: step\ndata: {{\"n\":{id}}}\n\n")).collect();
            Answer { content_type: "text/event-stream", body: events.into(), ..Answer::status(200) }
        })
        .await;
        let client = Client::new(format!("http://127.0.0.1:{}", server.port()));

        let mut stream = client.events("/events", None).await.unwrap();
        let first = stream.next().await.unwrap();
        assert_eq!((first.id.as_str(), first.event.as_str(), first.json()), ("1", "step", json!({"n": 1})));
        drop(stream);
        let rest = client.events("/events", Some(&first.id)).await.unwrap().rest().await;
        assert_eq!(rest.iter().map(|event| event.id.as_str()).collect::<Vec<_>>(), ["2", "3"]);
    }

    #[tokio::test]
    async fn a_stopped_application_is_unreachable_until_it_comes_back_on_its_port() {
        let app = FakeApp::accepting(&["orders"]).await;
        let (port, client) = (app.port(), Client::new(format!("http://127.0.0.1:{}", app.port())));
        client.post("/events/orders", &json!({})).await.unwrap().expect_status(200);
        app.stop().await;
        assert!(matches!(client.get("/health").await, Err(crate::ClientError::Unreachable(_))));

        let _again = FakeApp::start_at(port, json!([]), |_| async { Answer::status(200) }).await;
        client.get("/health").await.unwrap().expect_status(200);
    }
}
