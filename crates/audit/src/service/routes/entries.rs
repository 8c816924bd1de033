//! `GET /v1/audit/entries`, `GET /v1/audit/entries/{shard}/{index}` and its `/proof`.

use std::time::Duration;

use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, ETAG};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use fte_service::Problem;
use fte_service::extract::{Json, Path, Query};
use fte_service::keys::Caller;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use super::view::{AuditCheckpoint, AuditEntry};
use super::{App, Reading, caching, limit, position, still_there, unreadable};
use crate::entry::{Entry, Position, Task};
use crate::log;

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 1000;

/// Which entries to list.
#[derive(Debug, Deserialize, Serialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Filters {
    /// Of this task.
    #[serde(skip_serializing_if = "Option::is_none")]
    task_id: Option<String>,
    /// Of this agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<String>,
    /// Of this action, such as `tool.called`, or of events of this type.
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<String>,
    /// By this actor or requester (its id).
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<String>,
    /// `success`, `failure` or `denied`.
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<String>,
    /// Logged at this time (RFC 3339) or later.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<Timestamp>,
    /// Logged before this time (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<Timestamp>,
    /// After this place: a `next_cursor`, or `shard-index` of an entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(example = "2026-17")]
    after: Option<String>,
    /// At most this many, 100 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(maximum = 1000, minimum = 1)]
    limit: Option<usize>,
}

impl Filters {
    fn query(self, caller: &Caller) -> Result<log::Query, Problem> {
        // Nothing is found by nothing: who asks by an unset variable did not mean everything.
        let text = |name: &str, text: Option<String>| match text {
            Some(text) if text.is_empty() => Err(Problem::new(
                StatusCode::BAD_REQUEST,
                "invalid_query",
                format!("{name}: it is empty. Give it a value, or leave it out."),
            )),
            text => Ok(text),
        };
        Ok(log::Query {
            task: text("task_id", self.task_id)?.map(|task| Task::from(task.as_str())),
            agent: text("agent", self.agent)?,
            action: text("action", self.action)?,
            actor: text("actor", self.actor)?,
            outcome: text("outcome", self.outcome)?,
            tenant: caller.only_tenant().map(str::to_owned),
            from_ms: self.from.map(first_ms),
            to_ms: self.to.map(first_ms),
            after: position(self.after.as_deref())?,
            limit: limit(self.limit, LIMIT_DEFAULT, LIMIT_MAX)?,
            headers_only: false,
        })
    }
}

/// The same filters, all of a query and not a page of it.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditFilters {
    /// Of this task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_id: Option<String>,
    /// Of this agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// Of this action, such as `tool.called`, or of events of this type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// By this actor or requester (its id).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// `success`, `failure` or `denied`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// Logged at this time (RFC 3339) or later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Timestamp>,
    /// Logged before this time (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Timestamp>,
}

impl AuditFilters {
    pub(super) fn query(self, caller: &Caller) -> Result<log::Query, Problem> {
        let Self { task_id, agent, action, actor, outcome, from, to } = self;
        if [&task_id, &agent, &action, &actor, &outcome].iter().all(|filter| filter.is_none()) && from.is_none() && to.is_none() {
            let text = "Say which entries: task_id, agent, action, actor, outcome, from or to. All of them are in a copy of the log.";
            return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "no_filters", text));
        }
        Filters { task_id, agent, action, actor, outcome, from, to, after: None, limit: None }.query(caller)
    }
}

/// The first millisecond that is not before a time.
fn first_ms(time: Timestamp) -> i64 {
    let ms = time.as_millisecond();
    match Timestamp::from_millisecond(ms) {
        Ok(rounded) if rounded < time => ms + 1,
        _ => ms,
    }
}

/// Entries in log order.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AuditEntries {
    items: Vec<AuditEntry>,
    /// Give it as `after` to go on; absent once the end of the log is reached. A page may be short, even empty, and not be the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
    /// How many numbers of the publishers' counters on `fte.audit.actions` have not arrived: 0 when no action is known to be lost or late.
    actions_missing: u64,
    /// The last checkpoint when the list was made. Entries after it are durable, and are in the next one.
    checkpoint: Option<AuditCheckpoint>,
}

/// List audit entries in the order in which they were logged.
#[utoipa::path(
    get, path = "/v1/audit/entries", tag = "audit", params(Filters),
    responses((status = 200, body = AuditEntries), (status = 400), (status = 503, body = Problem)),
)]
pub(crate) async fn list(
    State(Reading { log, reads }): State<Reading>,
    caller: Caller,
    Query(filters): Query<Filters>,
) -> Result<Json<AuditEntries>, Problem> {
    let words = serde_json::to_value(&filters).map_err(|error| Problem::internal(&error))?;
    let query = filters.query(&caller)?;
    let actor = query.actor.clone();
    let page = log.entries(query).await.map_err(|error| unreadable(&error))?;
    reads.record(&caller, words, actor, page.entries.len()).await?;
    let items = page.entries.into_iter().map(AuditEntry::from).collect();
    let (next_cursor, checkpoint) = (page.next.map(|next| next.to_string()), page.published.map(Into::into));
    Ok(Json(AuditEntries { items, next_cursor, actions_missing: page.actions_missing, checkpoint }))
}

/// One audit entry, by its place.
///
/// Whoever keeps it has to ask with `If-None-Match` before using it again, since it may have been erased.
#[utoipa::path(
    get, path = "/v1/audit/entries/{shard}/{index}", tag = "audit",
    params(("shard" = u16, Path, description = "The shard: a year"), ("index" = u64, Path, description = "The place in it, from 0")),
    responses((status = 200, body = AuditEntry), (status = 304, description = "It is as it was"), (status = 400),
        (status = 404), (status = 410, body = Problem), (status = 503, body = Problem)),
)]
pub(crate) async fn one(
    State(Reading { log, reads }): State<Reading>,
    caller: Caller,
    Path((shard, index)): Path<(u16, u64)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let at = Position { shard, index };
    let entry = seen(&log, &caller, at).await?;
    reads.record(&caller, json!({"entry": at.to_string()}), None, 1).await?;
    let tag = caching::tag(&entry);
    let is_known = caching::is_known(&headers, &tag);
    let lasts = ([caching::ASKED_AFTER], [(ETAG, tag)]);
    Ok(if is_known { (StatusCode::NOT_MODIFIED, lasts).into_response() } else { (lasts, Json(AuditEntry::from(entry))).into_response() })
}

/// An entry, if the caller may see it.
async fn seen(app: &App, caller: &Caller, at: Position) -> Result<Entry, Problem> {
    still_there(app, at.shard)?;
    let entry = app.entry(at).await.map_err(|error| unreadable(&error))?;
    let seen = entry.filter(|entry| caller.sees(entry.tenant()));
    seen.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "entry_not_found", format!("The log has no entry {at}.")))
}

/// The proof that an entry is in the log: a file of C2SP `tlog-proof`, to be checked offline.
///
/// It leads to the last checkpoint of the entry's shard. A new entry is in one within a second.
#[utoipa::path(
    get, path = "/v1/audit/entries/{shard}/{index}/proof", tag = "audit",
    params(("shard" = u16, Path, description = "The shard: a year"), ("index" = u64, Path, description = "The place in it, from 0")),
    responses((status = 200, body = String, content_type = "text/plain"), (status = 400), (status = 404, body = Problem),
        (status = 410), (status = 503, body = Problem)),
)]
pub(crate) async fn proof(State(app): State<App>, caller: Caller, Path((shard, index)): Path<(u16, u64)>) -> Result<Response, Problem> {
    let at = Position { shard, index };
    seen(&app, &caller, at).await?;
    let proof = app.proof(at).await.map_err(|error| unreadable(&error))?;
    let pending = || {
        let text = format!("The entry {at} is in no checkpoint yet; it will be within a second.");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_in_checkpoint", text).retry_after(Duration::from_secs(1))
    };
    Ok(([(CONTENT_TYPE, "text/plain; charset=utf-8"), caching::LAST_FOR_ONE], proof.ok_or_else(pending)?.to_string()).into_response())
}
