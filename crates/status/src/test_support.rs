//! What this crate's tests are made of: histories of tasks as the runner writes them, a store in a directory of its own, and the whole service around it.

#[cfg(feature = "postgres")]
pub(crate) mod cluster;

use std::sync::Arc;

use axum::body::Body;
use axum::{Extension, Router};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use fte_artifacts::{Artifacts, Digest};
use fte_bus::{Delivery, RawEvent, Record};
use fte_events::{
    ClaimId, EventName, Origin, Outgoing, Payload, ReleaseReason, ResultKind, SandboxChange, SandboxClaim, SandboxKind, Status,
    StatusChanged, TENANT, TaskId, TaskRequested, TaskResult, event_id, sample,
};
use fte_service::keys::Caller;
use fte_service::{Bus, MapEnv, Ports, Service, Settings};
use fte_testkit::{Dir, FakeSidecar, PATIENCE, eventually};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use jiff::Timestamp;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::Config;
use crate::feed::Feed;
use crate::reading::{Incoming, read};
use crate::store::{Store, StoreOptions};
use crate::wake::Waiters;

/// Writes a task's history, event by event, as the runner would: gapless sequence, claims with both halves, one result.
pub(crate) struct History {
    pub(crate) task: TaskId,
    pub(crate) tenant: &'static str,
    pub(crate) events: Vec<Delivery>,
    sequence: u64,
    attempt: u32,
    turn: u32,
    clock: i64,
}

impl History {
    pub(crate) fn of(task: TaskId) -> Self {
        let clock = task.minted_at().map_or(0, |at| at.as_microsecond());
        Self { task, tenant: TENANT, events: Vec::new(), sequence: 0, attempt: 1, turn: 0, clock }
    }

    /// Asked for, claimed, run, ended, released.
    pub(crate) fn whole(task: TaskId) -> Self {
        Self::of(task).requested("say hello").claimed().step(Status::Running).ended(ResultKind::Completed)
    }

    pub(crate) fn requested(self, text: &str) -> Self {
        let request = TaskRequested { agent: Some("writer".into()), ..TaskRequested::new(self.task, text, Origin::Http, sample::time(0)) };
        self.say("intake", EventName::Trigger { turn: 0 }, &request)
    }

    pub(crate) fn claimed(self) -> Self {
        let claim = ClaimId::of(self.task, self.turn, self.attempt);
        self.sandbox(SandboxKind::Claimed, EventName::Claimed(claim), claim, None)
    }

    pub(crate) fn released(self, kind: SandboxKind, reason: ReleaseReason) -> Self {
        let claim = ClaimId::of(self.task, self.turn, self.attempt);
        self.sandbox(kind, EventName::Released(claim), claim, Some(reason))
    }

    fn sandbox(self, kind: SandboxKind, name: EventName<'_>, claim_id: ClaimId, reason: Option<ReleaseReason>) -> Self {
        let SandboxChange { claim, .. } = sample::sandbox_change(kind);
        self.say("runner", name, &SandboxChange { kind, claim: SandboxClaim { claim_id, reason, ..claim } })
    }

    pub(crate) fn step(self, status: Status) -> Self {
        self.step_with(status, |_| {})
    }

    pub(crate) fn step_with(mut self, status: Status, set: impl FnOnce(&mut StatusChanged)) -> Self {
        self.sequence += 1;
        let mut change = StatusChanged::new(self.task, status, self.sequence, self.attempt);
        set(&mut change);
        let name = EventName::Status { sequence: self.sequence };
        self.say("runner", name, &change)
    }

    /// The last try failed; the next one is queued.
    pub(crate) fn failed_try(self) -> Self {
        let mut next = self.released(SandboxKind::Released, ReleaseReason::Failed);
        next.attempt += 1;
        next.step(Status::Queued)
    }

    /// A person is asked; the sandbox is given back; the decision wakes the task.
    pub(crate) fn parked(self) -> Self {
        self.step(Status::AwaitingApproval).released(SandboxKind::Released, ReleaseReason::Parked).woken()
    }

    /// Its runner died; another one goes on with it.
    pub(crate) fn taken_over(self) -> Self {
        self.released(SandboxKind::Expired, ReleaseReason::Takeover).woken()
    }

    fn woken(self) -> Self {
        let mut next = self.step(Status::Queued);
        next.turn += 1;
        let resumed = fte_events::TaskResumed { turn: next.turn, task_id: next.task, ..sample::task_resumed() };
        let name = EventName::Trigger { turn: next.turn };
        next.say("runner", name, &resumed).claimed().step(Status::Running)
    }

    /// The result, the final status and the release, in the order of the outbox.
    pub(crate) fn ended(self, kind: ResultKind) -> Self {
        let result =
            TaskResult { task_id: self.task, attempt: self.attempt, parent_task_id: None, handoff_id: None, ..sample::task_result(kind) };
        let held = self.events.iter().any(|event| event.event.event_type == "fte.sandbox.claimed");
        let next = self.say("runner", EventName::Result, &result).step(kind.status());
        if held { next.released(SandboxKind::Released, ReleaseReason::Completed) } else { next }
    }

    pub(crate) fn say<P: Payload>(mut self, service: &str, name: EventName<'_>, payload: &P) -> Self {
        self.clock += 1_000;
        let time = Timestamp::from_microsecond(self.clock).unwrap();
        let body = Outgoing::new(service, event_id(self.task, name), time, payload).about(self.task).tenant(self.tenant).to_bytes();
        self.events.push(delivery(&payload.topic(), body));
        self
    }

    /// The events of a tenant's.
    pub(crate) fn of_tenant(mut self, tenant: &'static str) -> Self {
        self.tenant = tenant;
        self.rewritten(|event| event["ftetenant"] = json!(tenant))
    }

    /// The same events by another producer: others than those, if there are any.
    pub(crate) fn said_elsewhere(self) -> Self {
        self.rewritten(|event| event["source"] = json!("/elsewhere"))
    }

    fn rewritten(mut self, rewrite: impl Fn(&mut Value)) -> Self {
        for event in &mut self.events {
            let mut json: Value = serde_json::from_slice(&event.record.body).unwrap();
            rewrite(&mut json);
            *event = delivery(&event.record.topic, json.to_string().into());
        }
        self
    }

    pub(crate) fn ids(&self) -> Vec<String> {
        self.events.iter().map(|delivery| delivery.event.id.clone()).collect()
    }
}

/// A task that made `a.txt`, and its content.
pub(crate) fn made() -> (History, Digest) {
    let digest = Digest::new([0xab; 32]);
    let uri = format!("artifact:sha256/{digest}");
    let artifact = json!({"name": "a.txt", "content_type": "text/plain", "size_bytes": 3, "uri": uri, "sha256": digest.to_string()});
    let history = History::of(TaskId::now()).requested("make");
    (history.step_with(Status::Running, |event| drop(event.details.insert("artifact".to_owned(), artifact))), digest)
}

pub(crate) fn delivery(topic: &str, body: Bytes) -> Delivery {
    Delivery { event: RawEvent::parse(&body).unwrap(), record: record(topic, body) }
}

pub(crate) fn record(topic: &str, body: Bytes) -> Record {
    Record { topic: Arc::from(topic), body, partition: None, offset: None, key: None }
}

pub(crate) fn incoming(deliveries: impl IntoIterator<Item = Delivery>) -> Vec<Incoming> {
    deliveries.into_iter().map(|delivery| read(delivery, Timestamp::UNIX_EPOCH).unwrap()).collect()
}

pub(crate) fn open(options: StoreOptions) -> Store {
    Store::open(options, Waiters::new(64), Feed::new(64 * 1024, 8)).unwrap()
}

/// Whether tests in this module are on PostgreSQL; the same files are two modules.
pub(crate) const fn on_server(module: &str) -> bool {
    let (module, wanted) = (module.as_bytes(), b"on_postgres");
    let mut start = 0;
    while start + wanted.len() <= module.len() {
        let mut same = 0;
        while same < wanted.len() && module[start + same] == wanted[same] {
            same += 1;
        }
        if same == wanted.len() {
            return true;
        }
        start += 1;
    }
    false
}

/// An empty store, on the server or in a file of its own directory.
pub(crate) async fn fresh(on_server: bool) -> (Dir, Store) {
    let dir = Dir::new();
    #[cfg(feature = "postgres")]
    if on_server {
        let cluster = cluster::shared();
        return (dir, connect(cluster.url(&cluster.database().await)).await);
    }
    assert!(!on_server);
    let store = open(StoreOptions::at(dir.join("status.sqlite")));
    (dir, store)
}

#[cfg(feature = "postgres")]
pub(crate) async fn connect(url: fte_service::Secret) -> Store {
    Store::connect(crate::store::PostgresOptions::at(url), Waiters::new(64), Feed::new(64 * 1024, 8)).await.unwrap()
}

/// The service without its listeners, as [`crate::start`] makes it: its store, its routes, what the sidecar calls, and a fake sidecar.
pub(crate) struct Fixture<const ON_SERVER: bool> {
    pub(crate) store: Store,
    pub(crate) artifacts: Artifacts,
    pub(crate) api: Router,
    /// The paths of the OpenAPI document.
    pub(crate) paths: Vec<String>,
    pub(crate) app: Router,
    pub(crate) sidecar: FakeSidecar,
    pub(crate) service: Service,
    pub(crate) options: StoreOptions,
    /// The database's name on the server.
    database: String,
    pub(crate) dir: Dir,
}

/// Somebody who calls the public routes.
pub(crate) struct Client {
    api: Router,
}

/// An answer of a route, read whole.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

impl Answer {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {:?}", self.body))
    }

    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{:?}", self.body);
        self.json()
    }

    #[track_caller]
    pub(crate) fn expect_code(self, status: u16, code: &str) {
        assert_eq!(self.expect(status)["code"], code);
    }
}

impl<const ON_SERVER: bool> Fixture<ON_SERVER> {
    pub(crate) async fn start() -> Self {
        Self::with(Config { waiters_max: 16, ..Config::default() }).await
    }

    pub(crate) async fn with(config: Config) -> Self {
        let (dir, sidecar) = (Dir::new(), FakeSidecar::start().await);
        let options = StoreOptions::at(dir.join("status.sqlite"));
        let (waiters, feed) = (Waiters::new(config.waiters_max), Feed::new(64 * 1024, config.feeds_max));
        let (store, database) = match ON_SERVER {
            false => (Store::open(options.clone(), waiters, feed).unwrap(), String::new()),
            #[cfg(feature = "postgres")]
            true => {
                let database = cluster::shared().database().await;
                let url = cluster::shared().url(&database);
                (Store::connect(crate::store::PostgresOptions::at(url), waiters, feed).await.unwrap(), database)
            }
            #[cfg(not(feature = "postgres"))]
            true => unreachable!("built without PostgreSQL"),
        };
        Self { database, ..Self::around(store, options, config, dir, sidecar) }
    }

    /// The service around a store.
    pub(crate) fn around(store: Store, options: StoreOptions, config: Config, dir: Dir, sidecar: FakeSidecar) -> Self {
        Self::delivered(true, store, options, config, dir, sidecar)
    }

    /// The same, with events in quick batches or not.
    pub(crate) fn delivered(quickly: bool, store: Store, options: StoreOptions, config: Config, dir: Dir, sidecar: FakeSidecar) -> Self {
        let env = MapEnv::of([("FTE_SIDECAR_URL", sidecar.url().as_str()), ("FTE_BULK_DELIVERY", &quickly.to_string())]);
        let settings = Settings::from_env(&env, Ports { app: 0, api: 0 }).unwrap();
        let bus = Bus::connect(&settings, "status").unwrap();
        let artifacts = Artifacts::open(&config.artifacts, &dir.join("data")).unwrap();
        let mut service = crate::service(store.clone(), artifacts.clone(), config, &settings, &bus);
        let (api, document) = std::mem::take(&mut service.api).split_for_parts();
        let paths = document.paths.paths.into_keys().collect();
        let app = std::mem::take(&mut service.app);
        Self { store, artifacts, api, paths, app, sidecar, service, options, database: String::new(), dir }
    }

    /// Makes the database refuse events of this producer, as no valid one is refused today.
    pub(crate) async fn refuse_events_of(&self, source: &str) {
        #[cfg(feature = "postgres")]
        if ON_SERVER {
            let sql = format!("ALTER TABLE fte_status.event ADD CONSTRAINT refused CHECK (source <> '{source}')");
            return cluster::shared().run(&self.database, &sql).await.unwrap();
        }
        let sql =
            format!("CREATE TRIGGER refuse BEFORE INSERT ON event WHEN NEW.source = '{source}' BEGIN SELECT RAISE(ABORT, 'refused'); END");
        assert!(self.database.is_empty());
        rusqlite::Connection::open(&self.options.path).unwrap().execute_batch(&sql).unwrap();
    }

    pub(crate) async fn record(&self, deliveries: impl IntoIterator<Item = Delivery>) {
        self.store.record(incoming(deliveries)).await.unwrap();
    }

    /// The same service, called by the owner of a key for this tenant; without one, for every tenant.
    pub(crate) fn called_by(&self, name: &str, tenant: Option<&str>) -> Client {
        let caller = Caller::of_key(name.to_owned(), tenant.map(str::to_owned));
        Client { api: self.api.clone().layer(Extension(caller)) }
    }

    fn client(&self) -> Client {
        Client { api: self.api.clone() }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.client().get(path).await
    }

    pub(crate) fn get_later(&self, path: &str) -> tokio::task::JoinHandle<Answer> {
        self.client().get_later(path)
    }

    pub(crate) async fn post(&self, path: &str) -> Answer {
        self.client().post(path).await
    }

    pub(crate) async fn open(&self, path: &str, headers: &[(&str, &str)]) -> Response<Body> {
        self.client().open(path, headers).await
    }

    pub(crate) async fn open_whole(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.client().open_whole(path, headers).await
    }

    pub(crate) async fn stream(&self, path: &str, after: Option<&str>) -> Frames {
        self.client().stream(path, after).await
    }

    /// Returns when so many wait.
    pub(crate) async fn waiting(&self, count: usize) {
        let waiters = self.store.waiters();
        eventually(|| async { if waiters.count() == count { Ok(()) } else { Err(waiters.count()) } }).await;
    }

    /// What the sidecar is told to subscribe to.
    pub(crate) async fn subscriptions(&self) -> Value {
        let request = Request::get("/dapr/subscribe").body(Body::empty()).unwrap();
        read_whole(self.app.clone().oneshot(request).await.unwrap()).await.expect(200)
    }

    /// Delivers records of a dead-letter topic: for each whether it was acknowledged.
    pub(crate) async fn deliver_raw(&self, topic: &str, records: &[&[u8]]) -> Vec<bool> {
        let records = records.iter().map(|record| Value::from(STANDARD.encode(record)));
        self.deliver(topic, records.collect()).await
    }

    /// Delivers events of a topic: for each whether it was acknowledged.
    pub(crate) async fn deliver(&self, topic: &str, events: Vec<Value>) -> Vec<bool> {
        let entries = events.into_iter().enumerate().map(|(place, event)| json!({"entryId": place.to_string(), "event": event}));
        let body = json!({"id": "1", "topic": topic, "entries": entries.collect::<Vec<_>>()}).to_string();
        let request = Request::post(format!("/events/{topic}")).header("content-type", "application/json").body(Body::from(body)).unwrap();
        let answer = read_whole(self.app.clone().oneshot(request).await.unwrap()).await.expect(200);
        answer["statuses"].as_array().unwrap().iter().map(|status| status["status"] == "SUCCESS").collect()
    }
}

impl Client {
    pub(crate) async fn get(&self, path: &str) -> Answer {
        read_whole(self.open(path, &[]).await).await
    }

    /// The answer of a route while the test goes on.
    pub(crate) fn get_later(&self, path: &str) -> tokio::task::JoinHandle<Answer> {
        let (api, request) = (self.api.clone(), Request::get(path).body(Body::empty()).unwrap());
        tokio::spawn(async move { read_whole(api.oneshot(request).await.unwrap()).await })
    }

    pub(crate) async fn post(&self, path: &str) -> Answer {
        let request = Request::post(path).body(Body::empty()).unwrap();
        read_whole(self.api.clone().oneshot(request).await.unwrap()).await
    }

    /// The response with its body unread.
    pub(crate) async fn open(&self, path: &str, headers: &[(&str, &str)]) -> Response<Body> {
        let request = headers.iter().fold(Request::get(path), |request, (name, value)| request.header(*name, *value));
        self.api.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    /// The response, read whole, to a request with these headers.
    pub(crate) async fn open_whole(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        read_whole(self.open(path, headers).await).await
    }

    /// A stream, after this event if one is given.
    pub(crate) async fn stream(&self, path: &str, after: Option<&str>) -> Frames {
        let mut headers = vec![("accept", "text/event-stream")];
        headers.extend(after.map(|after| ("last-event-id", after)));
        let response = self.open(path, &headers).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Frames { body: response.into_body(), text: String::new() }
    }
}

async fn read_whole(response: Response<Body>) -> Answer {
    let status = response.status();
    Answer { status, body: response.into_body().collect().await.unwrap().to_bytes() }
}

/// A stream of server-sent events as a client reads it.
pub(crate) struct Frames {
    body: Body,
    text: String,
}

/// One event of a stream.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Frame {
    pub(crate) id: String,
    pub(crate) event: String,
    pub(crate) data: Value,
}

impl Frames {
    /// The next event, or none at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        loop {
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::to_owned);
                let frame = field("data").map(|data| Frame {
                    id: field("id").unwrap(),
                    event: field("event").unwrap(),
                    data: serde_json::from_str(&data).unwrap(),
                });
                self.text = rest.to_owned();
                if frame.is_some() {
                    return frame;
                }
            }
            let piece = tokio::time::timeout(PATIENCE, self.body.frame()).await.expect("the stream is silent")?.unwrap();
            self.text.push_str(std::str::from_utf8(piece.data_ref().unwrap()).unwrap());
        }
    }

    /// The ids of the next events.
    pub(crate) async fn ids(&mut self, count: usize) -> Vec<String> {
        let mut ids = Vec::new();
        while ids.len() < count {
            ids.push(self.next().await.expect("the stream ended early").id);
        }
        ids
    }

    /// The ids of all events to the end of the stream.
    pub(crate) async fn rest(mut self) -> Vec<String> {
        let mut ids = Vec::new();
        while let Some(frame) = self.next().await {
            ids.push(frame.id);
        }
        ids
    }
}
