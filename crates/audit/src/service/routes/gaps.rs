//! `GET /v1/audit/gaps`.

use axum::extract::State;
use fte_service::Problem;
use fte_service::extract::{Json, Query};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{App, unreadable};
use crate::log;

/// Nothing to choose: an unknown parameter is refused.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nothing {}

/// Numbers of a publisher's counter on `fte.audit.actions`.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AuditGap {
    /// Whose counter.
    source: String,
    /// Which process of that publisher.
    epoch: String,
    first: u64,
    last: u64,
    /// The entry (`shard-index`) that tells of it; absent while they may only be late.
    #[serde(skip_serializing_if = "Option::is_none")]
    entry: Option<String>,
}

impl From<log::Gap> for AuditGap {
    fn from(gap: log::Gap) -> Self {
        let log::Gap { source, epoch, first, last, entry } = gap;
        Self { source, epoch, first, last, entry: entry.map(|at| at.to_string()) }
    }
}

/// What has not arrived, and what came late.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AuditGaps {
    /// Numbers that have not arrived; at most 1 000 runs of them.
    open: Vec<AuditGap>,
    /// Numbers that arrived after their absence was recorded, the newest first; at most 1 000.
    filled: Vec<AuditGap>,
    /// How many numbers have not arrived, in all.
    actions_missing: u64,
}

/// Actions that were published, by their numbers, and have not arrived in the log.
#[utoipa::path(
    get, path = "/v1/audit/gaps", tag = "audit",
    responses((status = 200, body = AuditGaps), (status = 400), (status = 503, body = Problem)),
)]
pub(crate) async fn list(State(app): State<App>, Query(Nothing {}): Query<Nothing>) -> Result<Json<AuditGaps>, Problem> {
    let gaps = app.gaps().await.map_err(|error| unreadable(&error))?;
    let shown = |gaps: Vec<log::Gap>| gaps.into_iter().map(AuditGap::from).collect();
    Ok(Json(AuditGaps { open: shown(gaps.open), filled: shown(gaps.filled), actions_missing: gaps.missing }))
}
