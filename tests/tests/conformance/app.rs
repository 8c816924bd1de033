//! The app beside the sidecars: files what it gets under the mark the event carries, and answers as a case has said.
//!
//! A mark is `cf<run>-<number>`, anywhere in an event's bytes or in a path. What carries none of this run is acknowledged
//! and forgotten, so that records of earlier runs disturb nothing.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use fte_testkit::{Answer, FakeApp, PATIENCE, Received};
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};

/// Which app got a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Who {
    First,
    Second,
}

/// What the app answers to one delivery of an event.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// This, to the whole call.
    Http(u16, String),
    /// In a bulk call, this status for the event's entry; `None` leaves the entry out.
    Entry(Option<&'static str>),
    /// SUCCESS, once the gate is closed.
    Held(Arc<Semaphore>),
    /// Nothing: the connection breaks.
    Broken,
}

impl Reply {
    pub(crate) fn status(status: u16) -> Self {
        Self::Http(status, String::new())
    }

    pub(crate) fn verdict(verdict: &str) -> Self {
        Self::Http(200, json!({ "status": verdict }).to_string())
    }
}

/// One event, or one job or method call, that reached the app.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    /// Which of the first app's instances, or the second app.
    pub(crate) instance: usize,
    /// The number of the call; the entries of a bulk call share it.
    pub(crate) call: u64,
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    /// The body of the call, or of the entry its `event`, as JSON; null when it is none.
    pub(crate) event: Value,
    /// The bulk call without its entries, and the entry.
    pub(crate) bulk: Option<(Value, Value)>,
    pub(crate) body: Bytes,
    pub(crate) at: Instant,
}

impl Delivery {
    /// A header of the call, or a member of the entry's metadata; empty when there is none.
    pub(crate) fn header(&self, name: &str) -> String {
        match &self.bulk {
            Some((_, entry)) => entry["metadata"][name].as_str().unwrap_or_default().to_owned(),
            None => self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned(),
        }
    }
}

#[derive(Default)]
struct Filed {
    deliveries: HashMap<(Who, String), Vec<Delivery>>,
    replies: HashMap<String, VecDeque<Reply>>,
}

/// What all instances share.
struct Shared {
    prefix: String,
    filed: Mutex<Filed>,
    changed: watch::Sender<()>,
    calls: AtomicU64,
    marks: AtomicU64,
}

/// The apps, one listener for each sidecar.
pub(crate) struct Apps {
    shared: Arc<Shared>,
    listeners: Vec<Listener>,
}

struct Listener {
    who: Who,
    port: u16,
    subscriptions: Value,
    app: tokio::sync::Mutex<Option<FakeApp>>,
}

impl Apps {
    /// Listens at each port (0: any), with what is subscribed to there.
    pub(crate) async fn start(listeners: Vec<(Who, u16, Value)>) -> Self {
        let run = uuid::Uuid::new_v4().simple().to_string();
        let shared = Arc::new(Shared {
            prefix: format!("cf{}-", &run[..10]),
            filed: Mutex::default(),
            changed: watch::Sender::new(()),
            calls: AtomicU64::new(0),
            marks: AtomicU64::new(0),
        });
        let mut apps = Self { shared, listeners: Vec::new() };
        for (who, port, subscriptions) in listeners {
            apps.listeners.push(Listener { who, port, subscriptions, app: tokio::sync::Mutex::default() });
            apps.up(apps.listeners.len() - 1).await;
            let last = apps.listeners.len() - 1;
            let port = apps.listeners[last].app.get_mut().as_ref().map_or(port, FakeApp::port);
            apps.listeners[last].port = port;
        }
        apps
    }

    pub(crate) fn port(&self, index: usize) -> u16 {
        self.listeners[index].port
    }

    /// Listens again where it did.
    pub(crate) async fn up(&self, index: usize) {
        let listener = &self.listeners[index];
        let (shared, who) = (self.shared.clone(), listener.who);
        let app = FakeApp::start_at(listener.port, listener.subscriptions.clone(), move |received| {
            let shared = shared.clone();
            async move { shared.handle(who, index, received).await }
        });
        *listener.app.lock().await = Some(app.await);
    }

    /// Goes away as a killed process does.
    pub(crate) async fn down(&self, index: usize) {
        if let Some(app) = self.listeners[index].app.lock().await.take() {
            app.stop().await;
        }
    }

    /// How often the app at `index` was asked for its subscriptions since it is up.
    pub(crate) async fn lists(&self, index: usize) -> usize {
        self.listeners[index].app.lock().await.as_ref().map_or(0, FakeApp::lists)
    }

    /// A mark nobody has had.
    pub(crate) fn mark(&self) -> String {
        format!("{}{}", self.shared.prefix, self.shared.marks.fetch_add(1, Ordering::Relaxed))
    }

    /// The first deliveries of what carries `mark` are answered so, the others with success.
    pub(crate) fn reply(&self, mark: &str, replies: impl IntoIterator<Item = Reply>) {
        self.shared.filed().replies.insert(mark.to_owned(), replies.into_iter().collect());
    }

    /// What has come so far with `mark`.
    pub(crate) fn seen(&self, who: Who, mark: &str) -> Vec<Delivery> {
        self.shared.filed().deliveries.get(&(who, mark.to_owned())).cloned().unwrap_or_default()
    }

    /// Waits until `mark` has come so often.
    #[track_caller]
    pub(crate) fn wait(&self, who: Who, mark: &str, count: usize) -> impl Future<Output = Vec<Delivery>> {
        let caller = std::panic::Location::caller();
        let mut changed = self.shared.changed.subscribe();
        async move {
            let enough = async {
                loop {
                    changed.mark_unchanged();
                    let seen = self.seen(who, mark);
                    if seen.len() >= count {
                        return seen;
                    }
                    if changed.changed().await.is_err() {
                        std::future::pending::<()>().await;
                    }
                }
            };
            match tokio::time::timeout(PATIENCE, enough).await {
                Ok(seen) => seen,
                Err(_) => {
                    let seen = self.seen(who, mark);
                    let times: Vec<_> = seen.iter().map(|delivery| (&delivery.path, delivery.at.elapsed())).collect();
                    panic!("{mark} came {} times to {who:?} within {PATIENCE:?}, not {count} as {caller} waits for: {times:?}", seen.len());
                }
            }
        }
    }
}

impl Shared {
    fn filed(&self) -> MutexGuard<'_, Filed> {
        self.filed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mark_in(&self, bytes: &[u8]) -> Option<String> {
        let prefix = self.prefix.as_bytes();
        let start = bytes.windows(prefix.len()).position(|window| window == prefix)?;
        let digits = bytes[start + prefix.len()..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        Some(String::from_utf8_lossy(&bytes[start..start + prefix.len() + digits]).into_owned())
    }

    /// The mark in an event, be it in base64.
    fn mark_of(&self, event: &Value) -> Option<String> {
        let inner = event.as_str().or_else(|| event["data_base64"].as_str()).and_then(|text| STANDARD.decode(text).ok());
        self.mark_in(event.to_string().as_bytes()).or_else(|| self.mark_in(&inner?))
    }

    /// Files a delivery and takes the reply to it.
    fn file(&self, who: Who, mark: String, delivery: Delivery) -> Option<Reply> {
        let mut filed = self.filed();
        let reply = filed.replies.get_mut(&mark).and_then(VecDeque::pop_front);
        filed.deliveries.entry((who, mark)).or_default().push(delivery);
        drop(filed);
        self.changed.send_replace(());
        reply
    }

    async fn handle(&self, who: Who, instance: usize, received: Received) -> Answer {
        let body: Value = serde_json::from_slice(&received.body).unwrap_or_default();
        let delivery = Delivery {
            instance,
            call: self.calls.fetch_add(1, Ordering::Relaxed),
            method: received.method.clone(),
            path: received.path.clone(),
            headers: received.headers.clone(),
            event: Value::Null,
            bulk: None,
            body: received.body.clone(),
            at: Instant::now(),
        };
        if received.path.starts_with("/events/")
            && let Some(entries) = body["entries"].as_array()
        {
            return self.bulk(who, &delivery, &body, entries).await;
        }
        let mark = self.mark_in(received.path.as_bytes()).or_else(|| self.mark_of(&body)).or_else(|| self.mark_in(&received.body));
        let echo = received.path.starts_with("/echo/").then(|| echo(&received));
        let reply = mark.and_then(|mark| self.file(who, mark, Delivery { event: body, ..delivery }));
        match reply {
            Some(reply) => whole(reply).await,
            None => echo.unwrap_or_else(|| Answer::verdict("SUCCESS")),
        }
    }

    async fn bulk(&self, who: Who, delivery: &Delivery, body: &Value, entries: &[Value]) -> Answer {
        let mut envelope = body.clone();
        if let Some(members) = envelope.as_object_mut() {
            members.remove("entries");
        }
        let mut statuses = Vec::new();
        let mut answer = None;
        for entry in entries {
            let id = &entry["entryId"];
            let reply = self.mark_of(&entry["event"]).and_then(|mark| {
                let bulk = Some((envelope.clone(), entry.clone()));
                self.file(who, mark, Delivery { event: entry["event"].clone(), bulk, ..delivery.clone() })
            });
            match reply {
                None => statuses.push(json!({"entryId": id, "status": "SUCCESS"})),
                Some(Reply::Entry(None)) => {}
                Some(Reply::Entry(Some(status))) => statuses.push(json!({"entryId": id, "status": status})),
                Some(reply) => answer = Some(reply),
            }
        }
        match answer {
            Some(Reply::Held(gate)) => {
                drop(gate.acquire().await);
                Answer::json(&json!({ "statuses": statuses }))
            }
            Some(reply) => whole(reply).await,
            None => Answer::json(&json!({ "statuses": statuses })),
        }
    }
}

async fn whole(reply: Reply) -> Answer {
    match reply {
        Reply::Http(status, body) => Answer { body: body.into(), ..Answer::status(status) },
        Reply::Entry(_) => Answer::status(500),
        Reply::Held(gate) => {
            drop(gate.acquire().await);
            Answer::verdict("SUCCESS")
        }
        // Ends the task of this connection without a word on stderr.
        Reply::Broken => std::panic::resume_unwind(Box::new("the connection breaks")),
    }
}

/// What was received, told to the caller.
fn echo(received: &Received) -> Answer {
    let headers: HashMap<&str, String> =
        received.headers.iter().map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes()).into_owned())).collect();
    let body = json!({
        "method": received.method.as_str(),
        "path": received.path,
        "headers": headers,
        "body": String::from_utf8_lossy(&received.body),
    });
    Answer { status: StatusCode::CREATED, content_type: "application/vnd.echo+json", body: body.to_string().into() }
}
