//! The log's tree for anyone to check: `GET /v1/audit/log/{shard}/…` as C2SP `tlog-tiles` wants it, and `GET /v1/audit/consistency`.
//!
//! A path is read into a place of the tree and never into one of the file system, so there is nothing that a strange path could reach. Smaller partial
//! tiles than the last are made from it: who holds an older checkpoint can still read its tree.

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use fte_events::unhex;
use fte_service::Problem;
use fte_service::extract::{Json, Path, Query};
use fte_service::keys::Caller;
use fte_tlog::{TileLevel, TilePath};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::view::AuditCheckpoint;
use super::{App, caching, still_there, unreadable};
use crate::engine::RETIRED;
use crate::service::witnessing::Witnessed;

fn not_found(path: &str) -> Problem {
    let path: String = path.chars().take(200).collect();
    Problem::new(StatusCode::NOT_FOUND, "not_in_log", format!("{path:?} is not in this shard as far as it has been published."))
}

/// A file of the log: `checkpoint`, `tile/<level>/<n>[.p/<w>]`, `tile/entries/<n>[.p/<w>]`, or `blob/<sha256>`.
///
/// Of a year that was retired there is the checkpoint, and `retired`, which names the entry that says so.
#[utoipa::path(
    get, path = "/v1/audit/log/{shard}/{*path}", tag = "audit",
    params(("shard" = u16, Path, description = "The shard: a year"), ("path" = String, Path, description = "The file, as in C2SP tlog-tiles")),
    responses((status = 200, description = "The file", content_type = "application/octet-stream"), (status = 400),
        (status = 403), (status = 404, body = Problem), (status = 410, body = Problem), (status = 503, body = Problem)),
)]
pub(crate) async fn file(State(app): State<App>, caller: Caller, Path((shard, path)): Path<(u16, String)>) -> Result<Response, Problem> {
    if path == "checkpoint" {
        let checkpoint = app.checkpoint(Some(shard)).await.map_err(|error| unreadable(&error))?.ok_or_else(|| not_found(&path))?;
        let headers = [(CONTENT_TYPE, "text/plain; charset=utf-8"), caching::LAST];
        return Ok((headers, checkpoint.note.to_string()).into_response());
    }
    if path == RETIRED {
        let retired = app.retired().into_iter().find(|retired| retired.shard == shard).ok_or_else(|| not_found(&path))?;
        let said = serde_json::json!({"shard": shard, "entry": retired.record.to_string(), "since_ms": retired.since_ms});
        return Ok(([caching::FIXED], Json(said)).into_response());
    }
    still_there(&app, shard)?;
    // Hashes tell nothing of anybody; entries are of all tenants.
    let is_hashes = path.parse::<TilePath>().is_ok_and(|tile| tile.level != TileLevel::Entries);
    if !is_hashes && caller.only_tenant().is_some() {
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            "all_tenants_only",
            "Entries of the tree are of all tenants: it takes a key whose tenant is *.",
        ));
    }
    let bytes = if let Some(digest) = path.strip_prefix("blob/").and_then(unhex) {
        app.blob(shard, digest).await
    } else {
        let tile: TilePath = path.parse().map_err(|_| not_found(&path))?;
        app.tile(shard, tile).await
    };
    let bytes = bytes.map_err(|error| unreadable(&error))?.ok_or_else(|| not_found(&path))?;
    let headers = [(CONTENT_TYPE, "application/octet-stream"), if is_hashes { caching::FIXED } else { caching::FIXED_FOR_ONE }];
    Ok((headers, Body::from(bytes)).into_response())
}

/// The last checkpoint of a shard that witnesses have signed, with their signatures.
#[utoipa::path(
    get, path = "/v1/audit/log/{shard}/witnessed", tag = "audit",
    params(("shard" = u16, Path, description = "The shard: a year")),
    responses((status = 200, description = "A signed note", content_type = "text/plain"), (status = 404)),
)]
pub(crate) async fn witnessed(State(witnessed): State<Witnessed>, Path(shard): Path<u16>) -> Result<Response, Problem> {
    let note = witnessed.note(shard).ok_or_else(|| {
        Problem::new(StatusCode::NOT_FOUND, "not_witnessed", "No witness has signed a checkpoint of this shard, or none is asked.")
    })?;
    Ok(([(CONTENT_TYPE, "text/plain; charset=utf-8"), caching::LAST], note.to_string()).into_response())
}

/// Between which sizes.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Sizes {
    /// The smaller size.
    from: u64,
    /// The larger size; that of the last checkpoint by default.
    to: Option<u64>,
    /// The shard; the newest by default.
    shard: Option<u16>,
}

/// That a shard only grew.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AuditConsistency {
    from: u64,
    to: u64,
    /// The hashes of RFC 6962, in base64.
    proof: Vec<String>,
    /// The shard's last checkpoint when the answer was made.
    checkpoint: AuditCheckpoint,
}

/// The proof of RFC 6962 that the log at one size is the beginning of the log at another.
///
/// With `from`, `to` and `shard` it is the same for ever, and may be kept.
#[utoipa::path(
    get, path = "/v1/audit/consistency", tag = "audit", params(Sizes),
    responses((status = 200, body = AuditConsistency), (status = 400), (status = 404, body = Problem),
        (status = 410), (status = 503, body = Problem)),
)]
pub(crate) async fn consistency(State(app): State<App>, Query(sizes): Query<Sizes>) -> Result<Response, Problem> {
    let published = app.checkpoint(sizes.shard).await.map_err(|error| unreadable(&error))?;
    let published = published.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "no_checkpoint", "There is no such checkpoint yet."))?;
    still_there(&app, published.shard)?;
    let (from, to) = (sizes.from, sizes.to.unwrap_or(published.checkpoint.size));
    let outside = || {
        let text = format!("from and to: expected 0 < from <= to <= {}, the size of the last checkpoint.", published.checkpoint.size);
        Problem::new(StatusCode::BAD_REQUEST, "invalid_query", text)
    };
    if from == 0 || from > to || to > published.checkpoint.size {
        return Err(outside());
    }
    let proof = app.consistency(published.shard, from, to).await.map_err(|error| unreadable(&error))?.ok_or_else(outside)?;
    let proof = proof.iter().map(ToString::to_string).collect();
    // With neither of them left to be chosen here.
    let lasts = if sizes.to.is_some() && sizes.shard.is_some() { caching::FIXED } else { caching::LAST };
    Ok(([lasts], Json(AuditConsistency { from, to, proof, checkpoint: published.into() })).into_response())
}
