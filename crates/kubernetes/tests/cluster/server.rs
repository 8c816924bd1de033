//! The fake API server: one kind of objects to write (`sandboxclaims`) and one to read (`sandboxes`), with what the real one does that a client can see:
//! versions, watches that resume, bookmarks, 410 for versions that are forgotten, preconditions, finalizers; and faults on request.

use std::collections::{BTreeMap, HashMap};
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use bytes::Bytes;
use futures_util::stream;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::sync::{Notify, watch};
use tower::ServiceExt;

/// Says which client calls.
pub(crate) const CLIENT: &str = "x-client";
const CLAIMS: &str = "/apis/extensions.agents.x-k8s.io/v1beta1/namespaces/{namespace}/sandboxclaims";
const SANDBOXES: &str = "/apis/agents.x-k8s.io/v1beta1/namespaces/{namespace}/sandboxes/{name}";

/// A request, as far as faults choose by it.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// `create`, `get`, `list`, `watch`, `patch`, `delete`, or `sandbox`.
    pub(crate) verb: &'static str,
    pub(crate) name: String,
    pub(crate) client: String,
    /// How many of this verb were before.
    pub(crate) before: usize,
}

/// What goes wrong with a request.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Refused, and not done. The last is `Retry-After`.
    Refused(u16, &'static str, &'static str, Option<u64>),
    /// The connection breaks before it is done.
    Cut,
    /// Done, and the connection breaks before the answer.
    Lost,
    /// The connection breaks, and then, after a while, it is done.
    Behind(Duration),
    /// The connection breaks, and it is done once the gate is closed.
    Held(Arc<Semaphore>),
    /// Done and answered after a while.
    Late(Duration),
    /// Never done and never answered.
    Hung,
}

type Faults = Box<dyn FnMut(&Call) -> Option<Fault> + Send>;

/// Something that was done.
#[derive(Clone, Debug)]
pub(crate) struct Deed {
    pub(crate) call: Call,
    pub(crate) at: std::time::Instant,
    pub(crate) status: u16,
    /// The claim that was deleted: its uid, its holder and seat by its labels, and whether its time had passed.
    pub(crate) deleted: Option<Deleted>,
}

#[derive(Clone, Debug)]
pub(crate) struct Deleted {
    pub(crate) uid: String,
    pub(crate) holder: String,
    pub(crate) seat: String,
    pub(crate) was_over: bool,
}

#[derive(Default)]
pub(crate) struct World {
    pub(crate) version: u64,
    /// By namespace and name, with a slash.
    pub(crate) claims: BTreeMap<String, Value>,
    pub(crate) sandboxes: BTreeMap<String, Value>,
    log: Vec<(u64, &'static str, Value)>,
    /// Versions up to this one are forgotten.
    forgotten: u64,
    pub(crate) counts: HashMap<&'static str, usize>,
    pub(crate) deeds: Vec<Deed>,
    /// Claims are made with a finalizer.
    pub(crate) finalizers: bool,
    /// Watches end after so many events, in the middle of a line.
    pub(crate) watch_events_max: Option<usize>,
    /// Watches say nothing.
    pub(crate) silent: bool,
    /// Open watches.
    pub(crate) watches: usize,
    /// The last version that a bookmark said.
    pub(crate) marked: u64,
    /// Rises when all open watches end.
    pub(crate) hang_up: u64,
}

pub(crate) struct Server {
    world: Mutex<World>,
    changed: watch::Sender<u64>,
    faults: Mutex<Faults>,
    pub(crate) url: String,
}

/// Breaks a connection.
#[derive(Clone)]
struct Cord(Arc<Notify>);

impl Cord {
    async fn pull(&self) -> Response {
        self.0.notify_one();
        pending().await
    }
}

impl Server {
    /// Listens on loopback until the runtime ends.
    pub(crate) async fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = Arc::new(Self { world: Mutex::default(), changed: watch::channel(0).0, faults: Mutex::new(Box::new(|_| None)), url });
        let router = Router::new()
            .route(CLAIMS, get(list).post(create))
            .route(&format!("{CLAIMS}/{{name}}"), get(read).patch(patch).delete(delete))
            .route(SANDBOXES, get(read_sandbox))
            .with_state(Arc::clone(&server));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                let router = router.clone();
                let cord = Cord(Arc::default());
                tokio::spawn(async move {
                    let broken = Arc::clone(&cord.0);
                    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                        router.clone().layer(Extension(cord.clone())).oneshot(request.map(Body::new))
                    });
                    tokio::select! {
                        _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service) => {}
                        () = broken.notified() => {}
                    }
                });
            }
        });
        server
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// From now on this goes wrong.
    pub(crate) fn faults(&self, faults: impl FnMut(&Call) -> Option<Fault> + Send + 'static) {
        *self.faults.lock().unwrap() = Box::new(faults);
    }

    /// Changes things as the controller does.
    pub(crate) fn change(&self, change: impl FnOnce(&mut World)) {
        let version = {
            let mut world = self.world();
            change(&mut world);
            world.version
        };
        self.changed.send_replace(version);
    }

    /// Ends when the world is like that.
    pub(crate) async fn until(&self, what: &str, is: impl Fn(&World) -> bool) {
        let began = std::time::Instant::now();
        while !is(&self.world()) {
            let world = self.world();
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "{what}: {:#?} {:#?}",
                world.claims,
                world.deeds.iter().rev().take(20).collect::<Vec<_>>()
            );
            drop(world);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) fn deeds(&self, verb: &str) -> Vec<Deed> {
        self.world().deeds.iter().filter(|deed| deed.call.verb == verb).cloned().collect()
    }

    /// How often it was asked for that.
    pub(crate) fn asked(&self, verb: &str) -> usize {
        self.world().counts.get(verb).copied().unwrap_or(0)
    }

    fn call(&self, verb: &'static str, name: &str, headers: &HeaderMap) -> (Call, Option<Fault>) {
        let client = headers.get(CLIENT).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
        let before = {
            let mut world = self.world();
            let count = world.counts.entry(verb).or_default();
            *count += 1;
            *count - 1
        };
        let call = Call { verb, name: name.to_owned(), client, before };
        let fault = (self.faults.lock().unwrap())(&call);
        (call, fault)
    }

    /// Does it, as the fault has it.
    async fn answer(
        self: &Arc<Self>,
        call: Call,
        fault: Option<Fault>,
        cord: &Cord,
        work: impl FnOnce(&mut World) -> (u16, Value, Option<Deleted>) + Send + 'static,
    ) -> Response {
        let server = Arc::clone(self);
        let act = move || {
            let mut answer = (0, Value::Null);
            server.change(|world| {
                let (status, body, deleted) = work(world);
                world.deeds.push(Deed { call, at: std::time::Instant::now(), status, deleted });
                answer = (status, body);
            });
            answer
        };
        let (status, body) = match fault {
            None => act(),
            Some(Fault::Refused(code, reason, message, wait)) => return refused(code, reason, message, wait),
            Some(Fault::Cut) => return cord.pull().await,
            Some(Fault::Lost) => {
                act();
                return cord.pull().await;
            }
            Some(Fault::Behind(time)) => {
                // Beside the connection, whose end would end it too.
                tokio::spawn(async move {
                    tokio::time::sleep(time).await;
                    act();
                });
                return cord.pull().await;
            }
            Some(Fault::Held(gate)) => {
                tokio::spawn(async move {
                    drop(gate.acquire().await);
                    act();
                });
                return cord.pull().await;
            }
            Some(Fault::Late(time)) => {
                tokio::time::sleep(time).await;
                act()
            }
            Some(Fault::Hung) => pending().await,
        };
        (StatusCode::from_u16(status).unwrap(), Json(body)).into_response()
    }
}

impl World {
    /// Writes a claim, and lets it be known.
    pub(crate) fn put(&mut self, key: &str, mut claim: Value, kind: &'static str) -> Value {
        self.version += 1;
        claim["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.log.push((self.version, kind, claim.clone()));
        if kind == "DELETED" {
            self.claims.remove(key);
        } else {
            self.claims.insert(key.to_owned(), claim.clone());
        }
        claim
    }

    /// Deletes a claim: at once, or once its finalizers are gone.
    pub(crate) fn remove(&mut self, key: &str) -> Option<Value> {
        let mut claim = self.claims.get(key)?.clone();
        if claim["metadata"]["finalizers"].as_array().is_some_and(|list| !list.is_empty()) {
            if claim["metadata"]["deletionTimestamp"].is_null() {
                claim["metadata"]["deletionTimestamp"] = seconds().into();
                return Some(self.put(key, claim, "MODIFIED"));
            }
            return Some(claim);
        }
        Some(self.put(key, claim, "DELETED"))
    }

    /// No watch can be resumed from before now, as after a compaction.
    pub(crate) fn forget(&mut self) {
        self.forgotten = self.version;
    }

    /// Time goes on elsewhere: versions rise without anything that our watches select.
    pub(crate) fn age(&mut self) {
        self.version += 1;
    }

    /// As somebody else would make it.
    pub(crate) fn plant(&mut self, name: &str, labels: &[(&str, &str)], ends_in: Duration) {
        let labels: BTreeMap<&str, &str> = labels.iter().copied().collect();
        let ends = Timestamp::from_second((Timestamp::now() + ends_in).as_second()).unwrap();
        let claim = json!({
            "metadata": {"name": name, "namespace": "agents", "labels": labels},
            "spec": {"warmPoolRef": {"name": "research"}, "lifecycle": {"shutdownTime": ends, "shutdownPolicy": "Delete"}},
        });
        self.create("agents", claim);
    }

    fn create(&mut self, namespace: &str, mut claim: Value) -> (u16, Value) {
        let name = claim["metadata"]["name"].as_str().unwrap().to_owned();
        let key = format!("{namespace}/{name}");
        if self.claims.contains_key(&key) {
            return (409, failure(409, "AlreadyExists", &format!("sandboxclaims \"{name}\" already exists")));
        }
        claim["apiVersion"] = "extensions.agents.x-k8s.io/v1beta1".into();
        claim["kind"] = "SandboxClaim".into();
        let metadata = &mut claim["metadata"];
        metadata["namespace"] = namespace.into();
        metadata["uid"] = uuid::Uuid::new_v4().to_string().into();
        metadata["creationTimestamp"] = seconds().into();
        if self.finalizers {
            metadata["finalizers"] = json!(["test/held"]);
        }
        (201, self.put(&key, claim, "ADDED"))
    }
}

/// Whether the claim's time has passed.
pub(crate) fn is_over(claim: &Value) -> bool {
    let ends = claim["spec"]["lifecycle"]["shutdownTime"].as_str().and_then(|text| text.parse::<Timestamp>().ok());
    ends.is_some_and(|ends| ends <= Timestamp::now())
}

fn seconds() -> String {
    Timestamp::from_second(Timestamp::now().as_second()).unwrap().to_string()
}

fn failure(code: u16, reason: &str, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": reason, "code": code})
}

fn refused(code: u16, reason: &str, message: &str, wait: Option<u64>) -> Response {
    let mut response = (StatusCode::from_u16(code).unwrap(), Json(failure(code, reason, message))).into_response();
    if let Some(wait) = wait {
        response.headers_mut().insert(header::RETRY_AFTER, wait.into());
    }
    response
}

fn selects(selector: Option<&String>, claim: &Value) -> bool {
    selector.into_iter().flat_map(|text| text.split(',')).all(|pair| {
        let (key, value) = pair.split_once('=').unwrap();
        claim["metadata"]["labels"][key] == value
    })
}

type Shared = State<Arc<Server>>;
type Rope = Extension<Cord>;

async fn list(
    State(server): Shared,
    Extension(cord): Rope,
    Path(namespace): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    if query.get("watch").is_some_and(|watch| watch == "true" || watch == "1") {
        return watch_claims(server, cord, namespace, query, headers).await;
    }
    let (call, fault) = server.call("list", "", &headers);
    server
        .answer(call, fault, &cord, move |world| {
            let limit = query.get("limit").and_then(|limit| limit.parse().ok()).filter(|limit| *limit > 0).unwrap_or(usize::MAX);
            let after = query.get("continue").cloned().unwrap_or_default();
            let prefix = format!("{namespace}/");
            let mut matching = world
                .claims
                .iter()
                .filter(|(key, claim)| key.starts_with(&prefix) && **key > after && selects(query.get("labelSelector"), claim));
            let page: Vec<(&String, &Value)> = matching.by_ref().take(limit).collect();
            let more = matching.next().and_then(|_| page.last()).map(|(key, _)| (*key).clone());
            let items: Vec<&Value> = page.into_iter().map(|(_, claim)| claim).collect();
            let metadata = json!({"resourceVersion": world.version.to_string(), "continue": more});
            let list = json!({
                "kind": "SandboxClaimList", "apiVersion": "extensions.agents.x-k8s.io/v1beta1", "metadata": metadata, "items": items
            });
            (200, list, None)
        })
        .await
}

/// Counts itself among the open watches.
struct Open(Arc<Server>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.world().watches -= 1;
    }
}

struct Watching {
    open: Open,
    changed: watch::Receiver<u64>,
    namespace: String,
    selector: Option<String>,
    at: u64,
    said: usize,
    bookmarks: bool,
    hang_up: u64,
}

async fn watch_claims(server: Arc<Server>, cord: Cord, namespace: String, query: HashMap<String, String>, headers: HeaderMap) -> Response {
    let (call, fault) = server.call("watch", "", &headers);
    match fault {
        None => {}
        Some(Fault::Refused(code, reason, message, wait)) => return refused(code, reason, message, wait),
        Some(Fault::Hung) => return pending().await,
        Some(_) => return cord.pull().await,
    }
    let at = query.get("resourceVersion").and_then(|version| version.parse().ok()).unwrap_or(0);
    let hang_up = {
        let mut world = server.world();
        let status = if at < world.forgotten { 410 } else { 200 };
        world.deeds.push(Deed { call, at: std::time::Instant::now(), status, deleted: None });
        if status == 410 {
            return refused(410, "Expired", "too old resource version", None);
        }
        world.watches += 1;
        world.hang_up
    };
    let changed = server.changed.subscribe();
    let bookmarks = query.get("allowWatchBookmarks").is_some_and(|allow| allow == "true");
    let selector = query.get("labelSelector").cloned();
    let watching = Watching { open: Open(server), changed, namespace, selector, at, said: 0, bookmarks, hang_up };
    let lines = stream::unfold(Some(watching), |watching| async { watching?.next().await });
    Response::builder().header(header::CONTENT_TYPE, "application/json").body(Body::from_stream(lines)).unwrap()
}

impl Watching {
    async fn next(mut self) -> Option<(Result<Bytes, std::io::Error>, Option<Self>)> {
        loop {
            self.changed.borrow_and_update();
            if self.open.0.world().hang_up != self.hang_up {
                return None;
            }
            if let Some((line, ends)) = self.line() {
                return match ends {
                    // In the middle of a line, as a connection breaks.
                    true => Some((Ok(line.slice(..line.len() / 2)), None)),
                    false => Some((Ok(line), Some(self))),
                };
            }
            self.changed.changed().await.ok()?;
        }
    }

    /// The next line, and whether the watch breaks with it.
    fn line(&mut self) -> Option<(Bytes, bool)> {
        let mut world = self.open.0.world();
        if world.silent {
            return None;
        }
        let line = |event: Value| Bytes::from(format!("{event}\n"));
        if self.at < world.forgotten {
            let gone = json!({"type": "ERROR", "object": failure(410, "Expired", "too old resource version")});
            self.at = world.version;
            return Some((line(gone), false));
        }
        let next = world.log.iter().find(|(version, _, claim)| {
            *version > self.at && claim["metadata"]["namespace"] == self.namespace.as_str() && selects(self.selector.as_ref(), claim)
        });
        match next {
            Some((version, kind, claim)) => {
                self.at = *version;
                self.said += 1;
                let ends = world.watch_events_max.is_some_and(|max| self.said > max);
                Some((line(json!({"type": kind, "object": claim})), ends))
            }
            None if self.bookmarks && world.version > self.at => {
                self.at = world.version;
                world.marked = world.version;
                let object = json!({
                    "kind": "SandboxClaim", "apiVersion": "extensions.agents.x-k8s.io/v1beta1",
                    "metadata": {"resourceVersion": world.version.to_string(), "creationTimestamp": null}, "spec": {"warmPoolRef": {"name": ""}}
                });
                Some((line(json!({"type": "BOOKMARK", "object": object})), false))
            }
            None => None,
        }
    }
}

async fn create(
    State(server): Shared,
    Extension(cord): Rope,
    Path(namespace): Path<String>,
    headers: HeaderMap,
    Json(claim): Json<Value>,
) -> Response {
    let (call, fault) = server.call("create", claim["metadata"]["name"].as_str().unwrap(), &headers);
    server
        .answer(call, fault, &cord, move |world| {
            let (status, body) = world.create(&namespace, claim);
            (status, body, None)
        })
        .await
}

fn found(objects: &BTreeMap<String, Value>, namespace: &str, name: &str) -> (u16, Value) {
    let missing = || (404, failure(404, "NotFound", &format!("\"{name}\" not found")));
    objects.get(&format!("{namespace}/{name}")).map_or_else(missing, |object| (200, object.clone()))
}

async fn read(
    State(server): Shared,
    Extension(cord): Rope,
    Path((namespace, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let (call, fault) = server.call("get", &name, &headers);
    server
        .answer(call, fault, &cord, move |world| {
            let (status, body) = found(&world.claims, &namespace, &name);
            (status, body, None)
        })
        .await
}

async fn read_sandbox(
    State(server): Shared,
    Extension(cord): Rope,
    Path((namespace, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let (call, fault) = server.call("sandbox", &name, &headers);
    server
        .answer(call, fault, &cord, move |world| {
            let (status, body) = found(&world.sandboxes, &namespace, &name);
            (status, body, None)
        })
        .await
}

fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(&key);
        } else {
            merge(&mut target[key], value);
        }
    }
}

async fn patch(
    State(server): Shared,
    Extension(cord): Rope,
    Path((namespace, name)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    assert_eq!(headers[header::CONTENT_TYPE], "application/merge-patch+json");
    let patch: Value = serde_json::from_slice(&body).unwrap();
    let (call, fault) = server.call("patch", &name, &headers);
    server
        .answer(call, fault, &cord, move |world| {
            let (status, mut claim) = found(&world.claims, &namespace, &name);
            if status != 200 {
                return (status, claim, None);
            }
            if patch["metadata"]["uid"].as_str().is_some_and(|uid| claim["metadata"]["uid"] != uid) {
                return (409, failure(409, "Conflict", "Precondition failed: UID in precondition"), None);
            }
            merge(&mut claim, patch);
            (200, world.put(&format!("{namespace}/{name}"), claim, "MODIFIED"), None)
        })
        .await
}

async fn delete(
    State(server): Shared,
    Extension(cord): Rope,
    Path((namespace, name)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let options: Value = serde_json::from_slice(&body).unwrap();
    let (call, fault) = server.call("delete", &name, &headers);
    server
        .answer(call, fault, &cord, move |world| {
            let (status, claim) = found(&world.claims, &namespace, &name);
            if status != 200 {
                return (status, claim, None);
            }
            for (key, own) in [("uid", "uid"), ("resourceVersion", "resourceVersion")] {
                let wanted = &options["preconditions"][key];
                if !wanted.is_null() && *wanted != claim["metadata"][own] {
                    return (409, failure(409, "Conflict", "Precondition failed"), None);
                }
            }
            let label = |key: &str| claim["metadata"]["labels"][key].as_str().unwrap_or_default().to_owned();
            let uid = claim["metadata"]["uid"].as_str().unwrap().to_owned();
            let deleted = Deleted { uid, holder: label("fte/holder"), seat: label("fte/seat"), was_over: is_over(&claim) };
            // Deleting again what is being deleted changes nothing.
            let again = !claim["metadata"]["deletionTimestamp"].is_null();
            let gone = world.remove(&format!("{namespace}/{name}")).unwrap();
            (200, gone, (!again).then_some(deleted))
        })
        .await
}
