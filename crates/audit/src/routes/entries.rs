//! `GET /v1/audit/entries`, `GET /v1/audit/entries/{shard}/{index}` and its `/proof`.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use fte_service::Problem;
use fte_service::extract::{Json, Path, Query};
use fte_service::keys::Caller;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::view::{AuditCheckpoint, AuditEntry};
use super::{App, limit, position, unreadable};
use crate::entry::{Entry, Position, Task};
use crate::log;

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 1000;

/// Which entries to list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Filters {
    /// Of this task.
    task_id: Option<String>,
    /// Of this agent.
    agent: Option<String>,
    /// Of this action, such as `tool.called`, or of events of this type.
    action: Option<String>,
    /// By this actor or requester (its id).
    actor: Option<String>,
    /// `success`, `failure` or `denied`.
    outcome: Option<String>,
    /// Logged at this time (RFC 3339) or later.
    from: Option<Timestamp>,
    /// Logged before this time (RFC 3339).
    to: Option<Timestamp>,
    /// After this place: a `next_cursor`, or `shard-index` of an entry.
    #[param(example = "2026-17")]
    after: Option<String>,
    /// At most this many, 100 by default.
    #[param(maximum = 1000, minimum = 1)]
    limit: Option<usize>,
}

impl Filters {
    fn query(self, caller: &Caller) -> Result<log::Query, Problem> {
        let text = |text: Option<String>| text.filter(|text| !text.is_empty());
        Ok(log::Query {
            task: text(self.task_id).map(|task| Task::from(task.as_str())),
            agent: text(self.agent),
            action: text(self.action),
            actor: text(self.actor),
            outcome: text(self.outcome),
            tenant: caller.only_tenant().map(str::to_owned),
            from_ms: self.from.map(first_ms),
            to_ms: self.to.map(first_ms),
            after: position(self.after.as_deref())?,
            limit: limit(self.limit, LIMIT_DEFAULT, LIMIT_MAX)?,
        })
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
    responses((status = 200, body = AuditEntries), (status = 400, body = Problem), (status = 503, body = Problem)),
)]
pub(crate) async fn list(State(app): State<App>, caller: Caller, Query(filters): Query<Filters>) -> Result<Json<AuditEntries>, Problem> {
    let page = app.entries(filters.query(&caller)?).await.map_err(|error| unreadable(&error))?;
    let items = page.entries.into_iter().map(AuditEntry::from).collect();
    let (next_cursor, checkpoint) = (page.next.map(|next| next.to_string()), page.published.map(Into::into));
    Ok(Json(AuditEntries { items, next_cursor, actions_missing: page.actions_missing, checkpoint }))
}

/// One audit entry, by its place.
#[utoipa::path(
    get, path = "/v1/audit/entries/{shard}/{index}", tag = "audit",
    params(("shard" = u16, Path, description = "The shard: a year"), ("index" = u64, Path, description = "The place in it, from 0")),
    responses((status = 200, body = AuditEntry), (status = 400, body = Problem), (status = 404, body = Problem), (status = 503, body = Problem)),
)]
pub(crate) async fn one(
    State(app): State<App>,
    caller: Caller,
    Path((shard, index)): Path<(u16, u64)>,
) -> Result<Json<AuditEntry>, Problem> {
    Ok(Json(AuditEntry::from(seen(&app, &caller, Position { shard, index }).await?)))
}

/// An entry, if the caller may see it.
async fn seen(app: &App, caller: &Caller, at: Position) -> Result<Entry, Problem> {
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
    responses((status = 200, body = String, content_type = "text/plain"), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 503, body = Problem)),
)]
pub(crate) async fn proof(State(app): State<App>, caller: Caller, Path((shard, index)): Path<(u16, u64)>) -> Result<Response, Problem> {
    let at = Position { shard, index };
    seen(&app, &caller, at).await?;
    let proof = app.proof(at).await.map_err(|error| unreadable(&error))?;
    let pending = || {
        let text = format!("The entry {at} is in no checkpoint yet; it will be within a second.");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_in_checkpoint", text).retry_after(Duration::from_secs(1))
    };
    Ok(([(CONTENT_TYPE, "text/plain; charset=utf-8")], proof.ok_or_else(pending)?.to_string()).into_response())
}
