//! A task as the API shows it: its record, with the texts of the events that the record names.
//!
//! What the events say is passed on as it is, JSON for JSON: a request that the runner refused may hold anything, and is shown all the same.

use fte_bus::RawEvent;
use fte_events::{ApprovalRequest, Priority, Requester, Status, TaskError, TaskId, TokensUsed};
use fte_service::pools::Standing;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::naming::Named;
use crate::store::TaskRow;
use crate::tenant::{Tenant, shown};

type Json = Box<RawValue>;

/// A task.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Task)]
pub(crate) struct TaskView {
    /// Its id.
    task_id: TaskId,
    /// Whose it is, where that is not `default`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    tenant: Option<Tenant>,
    /// Where it stands.
    status: Status,
    /// What the agent is at, in its words.
    stage: Option<String>,
    /// Where it stands while it waits for a sandbox, as far as a runner says so. Lists leave it out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) queue: Option<Standing>,
    /// How far its present try is, from 0 to 100.
    progress_pct: Option<u8>,
    /// For people: what the last step said.
    #[schema(value_type = Option<String>)]
    message: Option<Json>,
    /// Who does it.
    agent: Option<String>,
    /// Which try, from 1; 0 before the first.
    attempt: u32,
    /// What a person has to decide, while the task awaits it.
    #[schema(value_type = Option<ApprovalRequest>)]
    approval: Option<Json>,
    /// What the agent answered. Lists leave it out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    result: Option<Option<Json>>,
    /// Why it was not done.
    #[schema(value_type = Option<TaskError>)]
    error: Option<Json>,
    /// What the agent made. Lists leave it out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<ArtifactView>>)]
    artifacts: Option<Json>,
    /// When it was asked for.
    #[serde(serialize_with = "fte_bus::time::serialize")]
    created_at: Timestamp,
    /// When the last thing happened.
    #[serde(serialize_with = "fte_bus::time::serialize")]
    updated_at: Timestamp,
    /// What to do, in words; absent while the request is not known here.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    task: Option<Json>,
    /// How urgent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Priority>)]
    priority: Option<Json>,
    /// Whether a person is asked before the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<bool>)]
    require_approval: Option<Json>,
    /// Who asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Requester>)]
    requester: Option<Json>,
    /// The requester's own notes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    metadata: Option<Json>,
    /// Where the request came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    origin: Option<Json>,
    /// It is `timed_out` after this.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Timestamp>)]
    deadline: Option<Json>,
    /// It does not start before this.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Timestamp>)]
    not_before: Option<Json>,
    /// What it may cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    budget_usd: Option<Json>,
    /// How many tokens it may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    budget_tokens: Option<Json>,
    /// The task that handed it off.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<TaskId>)]
    parent_task_id: Option<Json>,
    /// When work began. Of an ended task; lists leave it out, like what follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Timestamp>)]
    started_at: Option<Json>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Timestamp>)]
    completed_at: Option<Json>,
    /// From start to end, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    duration_ms: Option<Json>,
    /// What it has cost so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    cost_usd: Option<Json>,
    /// The tokens that it has taken so far, as far as its agent says.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<TokensUsed>)]
    tokens: Option<Json>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RequestData {
    task: Option<Json>,
    priority: Option<Json>,
    require_approval: Option<Json>,
    requester: Option<Json>,
    metadata: Option<Json>,
    origin: Option<Json>,
    deadline: Option<Json>,
    not_before: Option<Json>,
    budget_usd: Option<Json>,
    budget_tokens: Option<Json>,
    parent_task_id: Option<Json>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct StepData {
    message: Option<Json>,
    approval: Option<Json>,
    error: Option<Json>,
    cost_usd: Option<Json>,
    tokens: Option<Json>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ResultData {
    result: Option<Json>,
    error: Option<Json>,
    artifacts: Option<Json>,
    parent_task_id: Option<Json>,
    started_at: Option<Json>,
    completed_at: Option<Json>,
    duration_ms: Option<Json>,
    cost_usd: Option<Json>,
    tokens: Option<Json>,
}

impl TaskView {
    pub(crate) fn new(row: TaskRow) -> Self {
        let TaskRow { id, tenant, record, bodies } = row;
        let has_request = bodies.request.is_some();
        let request = request_of(bodies.request);
        let step: StepData = data_of(bodies.step);
        let has_result = bodies.result.is_some();
        let result: ResultData = data_of(bodies.result);
        let status = record.status();
        // A request that leaves a field out means its default.
        let or_default = |value: Option<Json>, default: &str| value.or_else(|| has_request.then(|| json(default)).flatten());
        Self {
            task_id: id,
            tenant: shown(tenant),
            status,
            stage: record.stage().map(str::to_owned),
            queue: None,
            progress_pct: record.progress_pct(),
            message: step.message,
            agent: record.agent().map(str::to_owned),
            attempt: record.attempt,
            approval: step.approval.filter(|_| status == Status::AwaitingApproval),
            // There is no result yet, or it is not at hand: a null would say that the agent answered nothing.
            result: (has_result || !status.is_terminal()).then_some(result.result),
            error: result.error.or(step.error),
            artifacts: result.artifacts.map(|artifacts| with_hrefs(id, artifacts)).or_else(|| has_result.then(|| json("[]")).flatten()),
            created_at: time(record.created_us(id)),
            updated_at: time(record.updated_us(id)),
            // Of a request that its runner refuses anything may be one.
            task: request.task.filter(|task| task.get().starts_with('"')),
            priority: or_default(request.priority, "\"P2\""),
            require_approval: or_default(request.require_approval, "false"),
            requester: request.requester,
            metadata: or_default(request.metadata, "{}"),
            origin: or_default(request.origin, if request.parent_task_id.is_some() { "\"handoff\"" } else { "\"event\"" }),
            deadline: request.deadline.map(normal),
            not_before: request.not_before.map(normal),
            budget_usd: request.budget_usd,
            budget_tokens: request.budget_tokens,
            parent_task_id: request.parent_task_id.or(result.parent_task_id),
            started_at: result.started_at.map(normal),
            completed_at: result.completed_at.map(normal),
            duration_ms: result.duration_ms,
            cost_usd: result.cost_usd.or(step.cost_usd),
            tokens: result.tokens.or(step.tokens),
        }
    }
}

/// An artifact of a task.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TaskArtifact)]
pub(crate) struct ArtifactView {
    /// Its name, which several may have.
    name: String,
    /// Its media type, as its agent says.
    content_type: String,
    /// How many bytes it has.
    size_bytes: u64,
    /// The digest of its bytes, in hexadecimal digits.
    sha256: String,
    /// Its name in the artifacts' store.
    uri: String,
    /// Where to get it; absent where it is kept elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    href: Option<String>,
}

impl ArtifactView {
    pub(crate) fn new(task: TaskId, named: Named) -> Self {
        let sha256 = named.digest.to_string();
        let (uri, href) = (format!("{URI}{sha256}"), Some(href(task, &sha256)));
        Self { name: named.name, content_type: named.content_type, size_bytes: named.size.unsigned_abs(), sha256, uri, href }
    }
}

const URI: &str = "artifact:sha256/";

fn href(task: TaskId, sha256: &str) -> String {
    format!("/v1/tasks/{task}/artifacts/{sha256}")
}

/// The artifacts as the result lists them, each with where to get it; what is no list of artifacts is passed on as it is.
fn with_hrefs(task: TaskId, artifacts: Json) -> Json {
    let Ok(mut list) = serde_json::from_str::<Vec<serde_json::Map<String, Value>>>(artifacts.get()) else { return artifacts };
    for artifact in &mut list {
        let sha256 = artifact.get("uri").and_then(Value::as_str).and_then(|uri| uri.strip_prefix(URI)).map(str::to_owned);
        if let Some(sha256) = sha256.filter(|sha256| sha256.parse::<fte_artifacts::Digest>().is_ok()) {
            artifact.insert("href".to_owned(), href(task, &sha256).into());
        }
    }
    serde_json::value::to_raw_value(&list).unwrap_or(artifacts)
}

/// A task in a tree of hand-offs.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TaskTree)]
pub(crate) struct TreeView {
    /// Its id.
    task_id: TaskId,
    /// Who handed it off.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<TaskId>)]
    parent_task_id: Option<Json>,
    /// Who does it.
    agent: Option<String>,
    /// Where it stands.
    status: Status,
    /// What the agent is at, in its words.
    #[serde(skip_serializing_if = "Option::is_none")]
    stage: Option<String>,
    /// Which try, from 1; 0 before the first.
    attempt: u32,
    /// What to do, in words.
    #[schema(value_type = Option<String>)]
    task: Option<Json>,
    /// Why it was not done.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<TaskError>)]
    error: Option<Json>,
    /// What it cost with all that it handed off, once it has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    cost_usd: Option<Json>,
    /// When it was asked for.
    #[serde(serialize_with = "fte_bus::time::serialize")]
    created_at: Timestamp,
    /// When the last thing happened.
    #[serde(serialize_with = "fte_bus::time::serialize")]
    updated_at: Timestamp,
    /// When work began; known once it has ended, as what follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Timestamp>)]
    started_at: Option<Json>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Timestamp>)]
    completed_at: Option<Json>,
    /// From start to end, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    duration_ms: Option<Json>,
    /// What it handed off, in that order.
    #[schema(no_recursion)]
    pub(crate) children: Vec<TreeView>,
    /// It has more children than the tree has room for.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) truncated: bool,
}

impl TaskView {
    /// The task as part of a tree, without its children.
    pub(crate) fn into_leaf(self) -> TreeView {
        TreeView {
            task_id: self.task_id,
            parent_task_id: self.parent_task_id,
            agent: self.agent,
            status: self.status,
            stage: self.stage,
            attempt: self.attempt,
            task: self.task,
            error: self.error,
            cost_usd: self.cost_usd,
            created_at: self.created_at,
            updated_at: self.updated_at,
            started_at: self.started_at,
            completed_at: self.completed_at,
            duration_ms: self.duration_ms,
            children: Vec::new(),
            truncated: false,
        }
    }

    pub(crate) fn is_queued(&self) -> bool {
        self.status == Status::Queued
    }
}

/// The payload of an event as it came, as JSON text.
pub(crate) fn data_text(body: &[u8]) -> Option<Json> {
    RawEvent::parse(body).ok()?.data
}

fn data_of<T: DeserializeOwned + Default>(body: Option<Vec<u8>>) -> T {
    body.and_then(|body| serde_json::from_str(data_text(&body)?.get()).ok()).unwrap_or_default()
}

/// The request: an event of its own, or what the first step has of it.
fn request_of(body: Option<Vec<u8>>) -> RequestData {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct StepOf {
        details: Details,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Details {
        request: RequestData,
    }
    let event = body.as_deref().and_then(|body| RawEvent::parse(body).ok());
    if event.is_some_and(|event| event.event_type == "fte.status.changed") {
        data_of::<StepOf>(body).details.request
    } else {
        data_of(body)
    }
}

fn json(text: &str) -> Option<Json> {
    RawValue::from_string(text.to_owned()).ok()
}

/// A time that an event names, as all times are written; what is none is passed on as it is.
fn normal(time: Json) -> Json {
    let text = serde_json::from_str::<&str>(time.get()).ok();
    text.and_then(|text| serde_json::value::to_raw_value(&fte_bus::time::normal(text)).ok()).unwrap_or(time)
}

/// A time of the store; one out of range (a producer may write anything) is shown as the nearest that is in it.
pub(crate) fn time(us: i64) -> Timestamp {
    Timestamp::from_microsecond(us).unwrap_or(if us < 0 { Timestamp::MIN } else { Timestamp::MAX })
}
