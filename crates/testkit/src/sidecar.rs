//! A fake sidecar for one application: publish and state in memory, and every fault a real one can have, when the test says so.
//!
//! It answers as Dapr does where an application can tell the difference: 204s, 409 for a conflict, the other documents of a failed call written.
//! For everything else there is the embedded sidecar.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::listen;

const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;
const CONNECTIONS_MAX: usize = 1_024;
const PUBLISHED_MAX: usize = 1_000_000;

/// A kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// A publish, single or bulk.
    Publish,
    /// A state read, single or bulk.
    Read,
    /// A state save or delete.
    Write,
    /// A question after its health.
    Health,
}

/// What goes wrong with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is answered with this status and has no effect.
    Refuse(u16),
    /// It takes effect, but the connection breaks before the answer.
    LoseAnswer,
    /// The connection breaks before it takes effect.
    Break,
}

/// What the fake's state store does wrong, as some of Dapr's do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Careless {
    /// It takes a create-only write for a document that exists.
    Replaces,
    /// It does not look at ETags.
    Overwrites,
    /// It gives none.
    NoVersions,
    /// Documents do not end in their time, and its component says so.
    KeepsForEver,
    /// It begins anew again and again: nothing is found.
    Loses,
}

/// An event that was published.
#[derive(Debug, Clone)]
pub struct Published {
    /// Its topic.
    pub topic: String,
    /// Its partition key.
    pub key: Option<String>,
    /// Its exact bytes.
    pub body: Bytes,
}

impl Published {
    /// The event as JSON. Panics when it is none.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {:?}", self.body))
    }

    /// The event's id.
    #[track_caller]
    pub fn id(&self) -> String {
        self.json()["id"].as_str().expect("an event has an id").to_owned()
    }
}

#[derive(Debug, Clone)]
struct Row {
    value: Value,
    etag: u64,
    ttl_s: Option<u64>,
}

#[derive(Debug, Default)]
struct State {
    published: Vec<Published>,
    rows: BTreeMap<String, Row>,
    writes: u64,
    calls: BTreeMap<Call, usize>,
    next: BTreeMap<Call, VecDeque<Option<Fault>>>,
    always: BTreeMap<Call, Fault>,
    held: BTreeMap<Call, (watch::Receiver<()>, usize)>,
    /// How many calls of any kind still go well, how the one after goes, and how all later ones go.
    outage: Option<(usize, Fault, Fault)>,
    careless: Option<Careless>,
}

/// A running fake sidecar. Dropping it stops it.
#[derive(Debug)]
pub struct FakeSidecar {
    port: u16,
    state: Arc<Mutex<State>>,
    server: Option<tokio::task::JoinHandle<()>>,
}

/// Holds calls back until it is dropped.
#[derive(Debug)]
pub struct Held(#[expect(dead_code, reason = "dropping it is what counts")] watch::Sender<()>);

impl FakeSidecar {
    /// Starts on a free port of the loopback.
    pub async fn start() -> Self {
        let listener = listen(([127, 0, 0, 1], 0)).await;
        let port = listener.local_addr().expect("a bound listener has an address").port();
        let state = Arc::<Mutex<State>>::default();
        let server = Some(tokio::spawn(accept(listener, Arc::clone(&state))));
        Self { port, state, server }
    }

    /// Stops it, breaking its connections: nobody listens on its port any more.
    pub async fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
            let _ = server.await;
        }
    }

    /// Starts again on the same port, with the state it had.
    pub async fn restart(&mut self) {
        self.stop().await;
        let listener = listen(([127, 0, 0, 1], self.port)).await;
        self.server = Some(tokio::spawn(accept(listener, Arc::clone(&self.state))));
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The next calls of this kind go like this, one after the other; `None` is a call that goes well.
    pub fn next(&self, call: Call, faults: impl IntoIterator<Item = Option<Fault>>) {
        self.lock().next.entry(call).or_default().extend(faults);
    }

    /// Every call of this kind goes wrong, until told otherwise; what [`FakeSidecar::next`] said comes first.
    pub fn always(&self, call: Call, fault: Option<Fault>) {
        let mut state = self.lock();
        match fault {
            Some(fault) => drop(state.always.insert(call, fault)),
            None => drop(state.always.remove(&call)),
        }
    }

    /// Holds back calls of this kind, before they take effect, until the guard is dropped.
    pub fn hold(&self, call: Call) -> Held {
        self.hold_some(call, usize::MAX)
    }

    /// Holds back the next call of this kind only.
    pub fn hold_next(&self, call: Call) -> Held {
        self.hold_some(call, 1)
    }

    fn hold_some(&self, call: Call, count: usize) -> Held {
        let (sender, receiver) = watch::channel(());
        self.lock().held.insert(call, (receiver, count));
        Held(sender)
    }

    /// After `good` more calls of any kind, one goes like `first` and all later ones like `then`, until [`FakeSidecar::heal`].
    pub fn fail_after(&self, good: usize, first: Fault, then: Fault) {
        self.lock().outage = Some((good, first, then));
    }

    /// Its state store is one that cannot be worked with.
    pub fn careless(&self, how: Careless) {
        self.lock().careless = Some(how);
    }

    /// Everything goes well again.
    pub fn heal(&self) {
        let mut state = self.lock();
        state.outage = None;
        state.next.clear();
        state.always.clear();
    }

    /// How many calls of this kind have arrived.
    pub fn calls(&self, call: Call) -> usize {
        self.lock().calls.get(&call).copied().unwrap_or(0)
    }

    /// Every event that was published, in order; one that was published twice is there twice.
    pub fn published(&self) -> Vec<Published> {
        self.lock().published.clone()
    }

    /// The document under a key.
    pub fn document(&self, key: &str) -> Option<Value> {
        self.lock().rows.get(key).map(|row| row.value.clone())
    }

    /// Puts a document under a key, whatever is there.
    pub fn put(&self, key: &str, value: Value) {
        let mut state = self.lock();
        state.writes += 1;
        let etag = state.writes;
        state.rows.insert(key.to_owned(), Row { value, etag, ttl_s: None });
    }

    /// How long the document under a key is kept, in seconds.
    pub fn ttl_s(&self, key: &str) -> Option<u64> {
        self.lock().rows.get(key).and_then(|row| row.ttl_s)
    }

    /// The keys of all documents.
    pub fn keys(&self) -> Vec<String> {
        self.lock().rows.keys().cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for FakeSidecar {
    fn drop(&mut self) {
        if let Some(server) = &self.server {
            server.abort();
        }
    }
}

async fn accept(listener: TcpListener, state: Arc<Mutex<State>>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
        }
        let Ok((stream, _)) = listener.accept().await else { continue };
        let state = Arc::clone(&state);
        connections.spawn(async move {
            let service = service_fn(move |request| answer(Arc::clone(&state), request));
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

/// Breaks the connection.
#[derive(Debug)]
struct Broken;

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the test breaks this connection")
    }
}

impl std::error::Error for Broken {}

type Answer = Response<Full<Bytes>>;

async fn answer(state: Arc<Mutex<State>>, request: Request<Incoming>) -> Result<Answer, Broken> {
    let (parts, body) = request.into_parts();
    let Ok(body) = Limited::new(body, BODY_BYTES_MAX).collect().await else { return Err(Broken) };
    let body = body.to_bytes();
    let path: Vec<String> = parts.uri.path().trim_matches('/').split('/').map(decode).collect();
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let call = match (&parts.method, path.as_slice()) {
        (&Method::POST, [_, "publish", ..]) => Call::Publish,
        (&Method::GET, [_, "state", ..]) | (&Method::POST, [_, "state", _, "bulk"]) => Call::Read,
        (_, [_, "state", ..]) => Call::Write,
        (&Method::GET, [_, "healthz", ..]) => Call::Health,
        (&Method::GET, [_, "metadata"]) => return Ok(state.lock().unwrap_or_else(PoisonError::into_inner).metadata()),
        _ => return Ok(error(501, "ERR_FAKE", "the fake sidecar does not do this")),
    };
    let (held, fault) = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        *state.calls.entry(call).or_default() += 1;
        let next = state.next.get_mut(&call).and_then(VecDeque::pop_front);
        let fault = next.unwrap_or_else(|| state.always.get(&call).copied()).or_else(|| state.outage());
        (state.holding(call), fault)
    };
    if let Some(mut held) = held {
        // Fails when the guard is dropped, which is what is waited for.
        let _ = held.changed().await;
    }
    match fault {
        Some(Fault::Refuse(status)) => return Ok(error(status, "ERR_FAKE", "the test refuses this call")),
        Some(Fault::Break) => return Err(Broken),
        Some(Fault::LoseAnswer) | None => {}
    }
    let query = parts.uri.query().unwrap_or_default();
    let answer = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        match (&parts.method, path.as_slice()) {
            (_, [_, "publish", "bulk", _, topic]) => state.publish_bulk(topic, &body),
            (_, [_, "publish", _, topic]) => state.publish(topic, query_value(query, "metadata.partitionKey"), body),
            (&Method::POST, [_, "state", _, "bulk"]) => state.read_many(&body),
            (&Method::GET, [_, "state", _, key]) => state.read(key),
            (&Method::POST, [_, "state", _]) => state.save(&body),
            (&Method::DELETE, [_, "state", _, key]) => state.delete(key, parts.headers.get("if-match")),
            (_, [_, "healthz", ..]) => empty(204),
            _ => error(501, "ERR_FAKE", "the fake sidecar does not do this"),
        }
    };
    if fault.is_some() { Err(Broken) } else { Ok(answer) }
}

impl State {
    fn holding(&mut self, call: Call) -> Option<watch::Receiver<()>> {
        let (receiver, left) = self.held.get_mut(&call)?;
        *left = left.checked_sub(1)?;
        Some(receiver.clone())
    }

    fn outage(&mut self) -> Option<Fault> {
        let (good, first, then) = self.outage.as_mut()?;
        if *good > 0 {
            *good -= 1;
            return None;
        }
        Some(std::mem::replace(first, *then))
    }

    fn publish(&mut self, topic: &str, key: Option<String>, body: Bytes) -> Answer {
        assert!(self.published.len() < PUBLISHED_MAX, "a fake sidecar keeps at most {PUBLISHED_MAX} events");
        self.published.push(Published { topic: topic.to_owned(), key, body });
        empty(204)
    }

    fn publish_bulk(&mut self, topic: &str, body: &[u8]) -> Answer {
        #[derive(serde::Deserialize)]
        struct Entry {
            event: Box<serde_json::value::RawValue>,
            #[serde(default)]
            metadata: BTreeMap<String, String>,
        }
        let Ok(entries) = serde_json::from_slice::<Vec<Entry>>(body) else {
            return error(400, "ERR_PUBSUB_EVENTS_SER", "not a list of entries");
        };
        for entry in entries {
            let key = entry.metadata.get("partitionKey").cloned();
            self.publish(topic, key, Bytes::from(entry.event.get().to_owned()));
        }
        empty(204)
    }

    fn metadata(&self) -> Answer {
        let can: &[&str] = if self.careless == Some(Careless::KeepsForEver) { &["ETAG"] } else { &["ETAG", "TTL"] };
        json(200, &json!({"id": "fake", "components": [{"name": "statestore", "type": "state.fake", "capabilities": can}]}))
    }

    fn read(&self, key: &str) -> Answer {
        let Some(row) = self.rows.get(key).filter(|_| self.careless != Some(Careless::Loses)) else { return empty(204) };
        let mut answer = json(200, &row.value);
        if self.careless != Some(Careless::NoVersions) {
            answer.headers_mut().insert(http::header::ETAG, http::HeaderValue::from(row.etag));
        }
        answer
    }

    fn read_many(&self, body: &[u8]) -> Answer {
        let asked: Value = serde_json::from_slice(body).unwrap_or_default();
        let keys = asked["keys"].as_array().cloned().unwrap_or_default();
        let found = keys.iter().filter_map(Value::as_str).map(|key| match self.rows.get(key) {
            Some(row) => json!({"key": key, "data": row.value, "etag": row.etag.to_string()}),
            None => json!({"key": key}),
        });
        json(200, &found.collect())
    }

    fn save(&mut self, body: &[u8]) -> Answer {
        let Ok(Value::Array(items)) = serde_json::from_slice(body) else {
            return error(400, "ERR_MALFORMED_REQUEST", "not a list of items");
        };
        let mut conflict = false;
        for item in items {
            let key = item["key"].as_str().unwrap_or_default().to_owned();
            let before = self.rows.get(&key).and_then(|row| row.ttl_s);
            let found = self.rows.get(&key).map(|row| row.etag.to_string());
            let first_write = item["options"]["concurrency"] == "first-write";
            let holds = match item["etag"].as_str() {
                Some(etag) => found.as_deref() == Some(etag) || self.careless == Some(Careless::Overwrites),
                None => !first_write || found.is_none() || self.careless == Some(Careless::Replaces),
            };
            if holds {
                self.writes += 1;
                // As on Redis: where nothing is said the time stays, and -1 ends it.
                let ttl_s = item["metadata"]["ttlInSeconds"].as_str().map_or(before, |ttl| ttl.parse().ok());
                self.rows.insert(key, Row { value: item["value"].clone(), etag: self.writes, ttl_s });
            }
            conflict |= !holds;
        }
        if conflict { error(409, "ERR_STATE_SAVE", "possible etag mismatch") } else { empty(204) }
    }

    fn delete(&mut self, key: &str, etag: Option<&http::HeaderValue>) -> Answer {
        let expected = etag.and_then(|etag| etag.to_str().ok()).map(|etag| etag.trim_matches('"'));
        if let (Some(expected), Some(row)) = (expected, self.rows.get(key))
            && row.etag.to_string() != expected
        {
            return error(409, "ERR_STATE_DELETE", "possible etag mismatch");
        }
        self.rows.remove(key);
        empty(204)
    }
}

fn empty(status: u16) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::from_u16(status).expect("a status");
    answer
}

fn json(status: u16, body: &Value) -> Answer {
    let mut answer = empty(status);
    answer.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    *answer.body_mut() = Full::from(body.to_string());
    answer
}

fn error(status: u16, code: &str, message: &str) -> Answer {
    json(status, &json!({"errorCode": code, "message": message}))
}

fn query_value(query: &str, name: &str) -> Option<String> {
    query.split('&').filter_map(|pair| pair.split_once('=')).find(|(found, _)| *found == name).map(|(_, value)| decode(value))
}

/// Undoes percent-encoding.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let escaped = (*first == b'%').then(|| tail.get(..2)).flatten();
        match escaped.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use fte_bus::{Guard, PublishOptions, Publisher, Save, Saved, Sidecar, SidecarConfig, StateStore};

    use super::*;

    fn save(value: &str, guard: Guard) -> Save {
        Save { key: "a/b".to_owned(), value: Bytes::from(format!("\"{value}\"")), guard, ttl: None }
    }

    #[tokio::test]
    async fn the_sdk_cannot_tell_it_from_a_sidecar() {
        let fake = FakeSidecar::start().await;
        let sidecar = Sidecar::new(SidecarConfig::at(fake.url())).unwrap();
        sidecar.outbound_ready().await.unwrap();

        let store = StateStore::new(sidecar.clone(), "statestore");
        assert_eq!(store.save(save("one", Guard::Absent)).await.unwrap(), Saved::Written);
        assert_eq!(store.save(save("two", Guard::Absent)).await.unwrap(), Saved::Conflict);
        let found = store.get("a/b").await.unwrap().unwrap();
        assert_eq!(store.save(save("three", Guard::Unchanged(found.etag))).await.unwrap(), Saved::Written);
        assert_eq!(fake.document("a/b"), Some(json!("three")));
        store.delete("a/b", None).await.unwrap();
        assert!(store.get("a/b").await.unwrap().is_none());

        let publisher = Publisher::new(sidecar, "/test", PublishOptions::default());
        let event = crate::bare("/shop", "1", json!({"n": 1}));
        publisher.publish_event("orders", Some("k 1"), &event).await.unwrap();
        let published = fake.published();
        assert_eq!((published[0].topic.as_str(), published[0].key.as_deref()), ("orders", Some("k 1")));
        assert_eq!(published[0].id(), "1");
    }

    #[tokio::test]
    async fn faults_happen_as_told() {
        let mut fake = FakeSidecar::start().await;
        let sidecar = Sidecar::new(SidecarConfig::at(fake.url())).unwrap();
        let publisher = Publisher::new(sidecar.clone(), "/test", PublishOptions { tries_max: 1, ..PublishOptions::default() });
        let event = crate::bare("/shop", "1", json!({"n": 1}));
        let publish = || publisher.publish_event("orders", None, &event);

        fake.next(Call::Publish, [Some(Fault::Refuse(500)), Some(Fault::Break), Some(Fault::LoseAnswer)]);
        for published in [0, 0, 1] {
            publish().await.unwrap_err();
            assert_eq!(fake.published().len(), published);
        }
        publish().await.unwrap();
        assert_eq!((fake.published().len(), fake.calls(Call::Publish)), (2, 4));

        fake.always(Call::Health, Some(Fault::Refuse(500)));
        sidecar.outbound_ready().await.unwrap_err();
        fake.stop().await;
        publish().await.unwrap_err();
        fake.restart().await;
        publish().await.unwrap();
        assert_eq!(fake.published().len(), 3);
    }
}
