//! The apps beside this sidecar: which of their instances are up, and what each subscribes to.
//!
//! For each instance one task waits until its port accepts, asks `GET /dapr/subscribe` once, and looks at the port now and
//! then. Only when the port refused meanwhile is the list asked for again: the app may have been restarted with another.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::Full;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};

use crate::broker::InstanceId;
use crate::client::{Answer, AppClient, CallError};

/// First and longest wait between two looks at a port that refuses.
const POLL_FIRST: Duration = Duration::from_millis(10);
const POLL_MAX: Duration = Duration::from_millis(250);
/// An app that is away for longer is worth a warning.
const AWAY_NOTED: Duration = Duration::from_secs(2);
/// Limit of one look at a port.
const CONNECT: Duration = Duration::from_secs(2);
/// Limit of the question for the subscriptions.
const LIST: Duration = Duration::from_secs(30);
/// Subscriptions one app may have.
const SUBSCRIPTIONS_MAX: usize = 1000;
/// Records of a bulk call where the subscription names no number: what Dapr's Kafka component does.
const BULK_DEFAULT: usize = 80;

/// An app: the instances that share its id.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) id: Arc<str>,
    pub(crate) instances: Vec<Arc<Instance>>,
    turn: AtomicUsize,
}

/// One instance of an app.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) id: InstanceId,
    pub(crate) app_id: Arc<str>,
    pub(crate) addr: SocketAddr,
    pub(crate) token: Option<HeaderValue>,
    /// What `PUT /v1.0/metadata/{key}` said.
    pub(crate) extended: Mutex<BTreeMap<String, String>>,
    status: watch::Sender<Status>,
    suspect: Notify,
    changes: watch::Sender<u64>,
}

#[derive(Debug, Clone)]
enum Status {
    Down,
    Up(Arc<Listed>),
}

/// What an instance said it subscribes to.
#[derive(Debug, Default)]
pub(crate) struct Listed {
    pub(crate) subscriptions: Vec<Arc<Subscription>>,
    /// What was refused, and why.
    pub(crate) problems: Vec<String>,
}

/// One subscription of one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subscription {
    pub(crate) topic: String,
    pub(crate) path: String,
    /// Most records of a bulk call; `None` is single mode.
    pub(crate) bulk: Option<usize>,
    pub(crate) raw: bool,
    pub(crate) dead_letter: Option<String>,
    pub(crate) metadata: BTreeMap<String, String>,
}

impl App {
    pub(crate) fn new(id: Arc<str>, instances: Vec<Arc<Instance>>) -> Self {
        Self { id, instances, turn: AtomicUsize::new(0) }
    }

    /// An instance that is up, each in turn.
    pub(crate) fn live(&self) -> Option<&Arc<Instance>> {
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        (0..self.instances.len())
            .map(|step| &self.instances[first.wrapping_add(step) % self.instances.len()])
            .find(|instance| instance.listed().is_some())
    }
}

impl Instance {
    pub(crate) fn new(id: InstanceId, app_id: Arc<str>, addr: SocketAddr, token: Option<HeaderValue>, changes: watch::Sender<u64>) -> Self {
        Self {
            id,
            app_id,
            addr,
            token,
            extended: Mutex::new(BTreeMap::new()),
            status: watch::Sender::new(Status::Down),
            suspect: Notify::new(),
            changes,
        }
    }

    /// What the instance subscribes to, when it is up.
    pub(crate) fn listed(&self) -> Option<Arc<Listed>> {
        match &*self.status.borrow() {
            Status::Down => None,
            Status::Up(listed) => Some(listed.clone()),
        }
    }

    /// The instance refused a connection: it is down until it accepts again.
    pub(crate) fn refused(&self) {
        self.set(Status::Down);
        self.suspect.notify_one();
    }

    /// Whether the port accepts now; if not, the instance is down.
    pub(crate) async fn still_there(&self) -> bool {
        let there = accepts(self.addr).await;
        if !there {
            self.refused();
        }
        there
    }

    fn set(&self, status: Status) {
        self.status.send_replace(status);
        self.changes.send_modify(|changes| *changes = changes.wrapping_add(1));
    }

    /// A request to this instance with what every request to an app carries.
    pub(crate) fn request(&self, method: Method, path: &str) -> http::request::Builder {
        let request = Request::builder().method(method).uri(format!("http://{}{path}", self.addr));
        match &self.token {
            Some(token) => request.header("dapr-api-token", token),
            None => request,
        }
    }

    /// Watches the instance for ever.
    pub(crate) async fn watch(self: Arc<Self>, client: AppClient, pubsub: String, every: Duration) {
        let mut was_up = false;
        loop {
            let (mut wait, away_since) = (POLL_FIRST, Instant::now());
            while !accepts(self.addr).await {
                // One that restarts, or ends together with the sidecar, is not worth a warning.
                if was_up && away_since.elapsed() > AWAY_NOTED {
                    tracing::warn!(app = %self.app_id, addr = %self.addr, "app is away; deliveries wait until it is back");
                    was_up = false;
                }
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(POLL_MAX);
            }
            let Ok(listed) = self.list(&client, &pubsub).await else {
                tokio::time::sleep(POLL_MAX).await;
                continue;
            };
            for problem in &listed.problems {
                tracing::error!(app = %self.app_id, problem, "subscription refused");
            }
            tracing::info!(app = %self.app_id, addr = %self.addr, subscriptions = listed.subscriptions.len(), "app is up");
            self.set(Status::Up(Arc::new(listed)));
            was_up = true;
            loop {
                tokio::select! {
                    () = tokio::time::sleep(every) => {}
                    () = self.suspect.notified() => {}
                }
                if self.listed().is_none() || !accepts(self.addr).await {
                    break;
                }
            }
            self.set(Status::Down);
        }
    }

    async fn list(&self, client: &AppClient, pubsub: &str) -> Result<Listed, CallError> {
        let request = self.request(Method::GET, "/dapr/subscribe").body(Full::new(Bytes::new()));
        let Ok(request) = request else {
            return Ok(Listed::default());
        };
        let answer = client.call(request, Some(LIST)).await?;
        Ok(read_list(&answer, pubsub))
    }

    pub(crate) fn extended(&self) -> BTreeMap<String, String> {
        self.extended.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn accepts(addr: SocketAddr) -> bool {
    matches!(tokio::time::timeout(CONNECT, TcpStream::connect(addr)).await, Ok(Ok(_)))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    #[serde(default)]
    pubsubname: String,
    #[serde(default)]
    topic: String,
    #[serde(default)]
    route: Option<String>,
    #[serde(default)]
    routes: Option<Routes>,
    #[serde(default)]
    dead_letter_topic: Option<String>,
    #[serde(default)]
    metadata: Option<BTreeMap<String, serde_json::Value>>,
    #[serde(default)]
    bulk_subscribe: Option<Bulk>,
}

#[derive(Debug, Default, Deserialize)]
struct Routes {
    #[serde(default)]
    rules: Option<Vec<serde_json::Value>>,
    #[serde(default)]
    default: Option<String>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct Bulk {
    enabled: bool,
    max_messages_count: Option<i64>,
}

/// Reads the answer to `GET /dapr/subscribe`. What is refused is named; the rest stands.
fn read_list(answer: &Answer, pubsub: &str) -> Listed {
    let mut listed = Listed::default();
    if answer.status == StatusCode::NOT_FOUND {
        return listed;
    }
    if answer.status != StatusCode::OK {
        listed
            .problems
            .push(format!("GET /dapr/subscribe answered {}: no subscriptions until the app comes again", answer.status.as_u16()));
        return listed;
    }
    let body = answer.body.trim_ascii();
    if body.is_empty() || body == b"null" {
        return listed;
    }
    let items: Vec<Item> = match serde_json::from_slice(body) {
        Ok(items) => items,
        Err(error) => {
            listed.problems.push(format!("GET /dapr/subscribe answered no list of subscriptions: {error}"));
            return listed;
        }
    };
    for item in items {
        let topic = item.topic.clone();
        match subscription(item, pubsub) {
            Ok(subscription) => {
                if let Some(at) = listed.subscriptions.iter().position(|other| other.topic == subscription.topic) {
                    // As on Kafka: handlers are kept by topic.
                    listed.problems.push(format!("topic {topic} is subscribed twice: the last subscription counts"));
                    listed.subscriptions.remove(at);
                }
                listed.subscriptions.push(Arc::new(subscription));
            }
            Err(problem) => listed.problems.push(format!("subscription to {topic}: {problem}")),
        }
    }
    if listed.subscriptions.len() > SUBSCRIPTIONS_MAX {
        listed.problems.push(format!("{} subscriptions, {SUBSCRIPTIONS_MAX} are served", listed.subscriptions.len()));
        listed.subscriptions.truncate(SUBSCRIPTIONS_MAX);
    }
    listed
}

fn subscription(item: Item, pubsub: &str) -> Result<Subscription, String> {
    if item.pubsubname != pubsub {
        return Err(format!("there is no pub/sub component {}, only {pubsub}", item.pubsubname));
    }
    if item.topic.is_empty() {
        return Err("it has no topic".to_owned());
    }
    let routes = item.routes.unwrap_or_default();
    if routes.rules.is_some_and(|rules| !rules.is_empty()) {
        return Err("routes.rules are CEL, which this sidecar does not have: use one topic and one route per handler".to_owned());
    }
    let path = routes.default.filter(|path| !path.is_empty()).or(item.route).filter(|path| !path.is_empty()).ok_or("it has no route")?;
    let path = if path.starts_with('/') { path } else { format!("/{path}") };
    if path.parse::<http::uri::PathAndQuery>().is_err() {
        return Err(format!("route {path} is not a path"));
    }
    let metadata: BTreeMap<String, String> = item
        .metadata
        .unwrap_or_default()
        .into_iter()
        .map(|(key, value)| {
            let text = match value {
                serde_json::Value::String(text) => text,
                other => other.to_string(),
            };
            (key, text)
        })
        .collect();
    let raw = metadata.iter().any(|(key, value)| key.eq_ignore_ascii_case("rawPayload") && value.eq_ignore_ascii_case("true"));
    let bulk = item.bulk_subscribe.filter(|bulk| bulk.enabled).map(|bulk| {
        bulk.max_messages_count.and_then(|count| usize::try_from(count).ok()).filter(|count| *count > 0).unwrap_or(BULK_DEFAULT)
    });
    Ok(Subscription { topic: item.topic, path, bulk, raw, dead_letter: item.dead_letter_topic.filter(|topic| !topic.is_empty()), metadata })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(status: u16, body: &str) -> Listed {
        let answer = Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: http::HeaderMap::new(),
            body: Bytes::copy_from_slice(body.as_bytes()),
        };
        read_list(&answer, "pubsub")
    }

    #[test]
    fn a_list_is_read_as_dapr_reads_it() {
        let listed = list(
            200,
            r#"[{"pubsubname":"pubsub","topic":"a","route":"x"},
                {"pubsubname":"pubsub","topic":"b","routes":{"default":"/y"},"route":"/no","deadLetterTopic":"b.dlq",
                 "metadata":{"rawPayload":"true"},"bulkSubscribe":{"enabled":true,"maxMessagesCount":7,"maxAwaitDurationMs":5}},
                {"pubsubname":"pubsub","topic":"c","route":"/c","bulkSubscribe":{"enabled":true}}]"#,
        );
        assert!(listed.problems.is_empty(), "{:?}", listed.problems);
        let [a, b, c] = &listed.subscriptions[..] else {
            panic!("{listed:?}");
        };
        assert_eq!((a.path.as_str(), a.bulk, a.raw), ("/x", None, false));
        assert_eq!((b.path.as_str(), b.bulk, b.raw), ("/y", Some(7), true));
        assert_eq!(b.dead_letter.as_deref(), Some("b.dlq"));
        assert_eq!(c.bulk, Some(80));
    }

    #[test]
    fn what_cannot_be_served_is_refused_by_name() {
        for (status, body, says) in [
            (500, "", "500"),
            (200, "{}", "no list"),
            (200, r#"[{"pubsubname":"other","topic":"a","route":"/a"}]"#, "other"),
            (200, r#"[{"pubsubname":"pubsub","topic":"a"}]"#, "no route"),
            (200, r#"[{"pubsubname":"pubsub","topic":"a","routes":{"rules":[{"match":"true","path":"/a"}],"default":"/a"}}]"#, "CEL"),
        ] {
            let listed = list(status, body);
            assert!(listed.subscriptions.is_empty());
            assert!(listed.problems[0].contains(says), "{:?}", listed.problems);
        }
        for (status, body) in [(404, "nothing here"), (200, "[]"), (200, ""), (200, "null")] {
            assert!(list(status, body).problems.is_empty());
        }
    }
}
