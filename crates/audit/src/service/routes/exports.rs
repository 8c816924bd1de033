//! `POST /v1/audit/exports` makes evidence, and `GET /v1/audit/exports/{id}` hands it out.

use std::io::Read as _;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use fte_service::extract::{Json, JsonBytes, Path, idempotency_key, parse_json};
use fte_service::keys::Caller;
use fte_service::{ApiRoutes, Problem};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;
use utoipa_axum::routes;
use uuid::Uuid;

use super::entries::AuditFilters;
use super::unreadable;
use crate::service::exports::{ExportedShard, Exports, Failure, Kept, Made, Request};

/// When to come again for what is being made.
const COME_AGAIN: Duration = Duration::from_secs(2);
const CHUNK_BYTES: usize = 64 * 1024;

pub(super) fn routes(exports: &Exports) -> ApiRoutes {
    ApiRoutes::<Exports>::new().routes(routes!(make)).routes(routes!(archive)).with_state(exports.clone())
}

/// An export.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AuditExport {
    /// Its id; the log's entry of kind `export` names it.
    export_id: Uuid,
    /// How many entries it has.
    entries: usize,
    /// Whether the task's history is whole; absent where the question was another.
    #[serde(skip_serializing_if = "Option::is_none")]
    complete: Option<bool>,
    /// What it has of each year.
    shards: Vec<ExportedShard>,
    /// Size of the archive.
    bytes: u64,
    #[serde(serialize_with = "fte_bus::time::serialize")]
    made_at: Timestamp,
    /// From then on it is not handed out any more.
    #[serde(serialize_with = "fte_bus::time::serialize")]
    expires_at: Timestamp,
}

impl From<Kept> for AuditExport {
    fn from(kept: Kept) -> Self {
        let entries = kept.entries();
        let Kept { id: export_id, complete, shards, bytes, made_at, expires_at, tenant: _ } = kept;
        Self { export_id, entries, complete, shards, bytes, made_at, expires_at }
    }
}

/// An export that is being made.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AuditExportUnderWay {
    /// Its id.
    export_id: Uuid,
}

/// Export entries as evidence: an archive with a proof for each, which the log has an entry of before it can be fetched.
///
/// 202 means that it is being made: send the same request with the same `Idempotency-Key` again, or fetch the archive. The same request with the same key is
/// the same export for as long as that is kept.
#[utoipa::path(
    post, path = "/v1/audit/exports", tag = "audit",
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 200 visible ASCII characters, such as a UUID")),
    request_body = AuditFilters,
    responses(
        (status = 201, description = "It can be fetched", body = AuditExport),
        (status = 202, description = "It is being made", body = AuditExportUnderWay),
        (status = 400),
        (status = 404, description = "No entry matches: `nothing_to_export`"),
        (status = 422, description = "No filters, or too much matches: `export_too_large`"),
        (status = 503, description = "Not now, as another is being made: `export_busy`; try again"),
    )
)]
async fn make(State(exports): State<Exports>, caller: Caller, headers: HeaderMap, JsonBytes(body): JsonBytes) -> Result<Response, Problem> {
    let key = idempotency_key(&headers)?;
    let filters: AuditFilters = parse_json(&body)?;
    let words = serde_json::to_value(&filters).map_err(|error| Problem::internal(&error))?;
    let id = key.map_or_else(Uuid::now_v7, |key| id_of(&caller, &key, &words));
    let by = caller.name().unwrap_or("unknown").to_owned();
    let request = Request { id, by, query: filters.query(&caller)?, words };
    Ok(match exports.make(request).await.map_err(refused)? {
        Made::Ready(kept) => {
            let location = [(LOCATION, format!("/v1/audit/exports/{id}"))];
            (StatusCode::CREATED, location, Json(AuditExport::from(kept))).into_response()
        }
        Made::UnderWay => {
            let headers = [(LOCATION, format!("/v1/audit/exports/{id}")), (RETRY_AFTER, COME_AGAIN.as_secs().to_string())];
            (StatusCode::ACCEPTED, headers, Json(AuditExportUnderWay { export_id: id })).into_response()
        }
    })
}

/// The archive of an export: a tar file with a folder for each year, to be checked by `fte audit verify`.
#[utoipa::path(
    get, path = "/v1/audit/exports/{id}", tag = "audit",
    params(("id" = Uuid, Path, description = "The export")),
    responses(
        (status = 200, description = "The archive", content_type = "application/x-tar"),
        (status = 404, description = "There is none, or it is not kept any more: `export_unknown`"),
        (status = 503, description = "It is being made: `export_under_way`"),
    )
)]
async fn archive(State(exports): State<Exports>, caller: Caller, Path(id): Path<Uuid>) -> Result<Response, Problem> {
    let kept = exports.kept(id).await.map_err(refused)?.filter(|kept| may_have(&caller, kept));
    let Some(kept) = kept else {
        if exports.is_under_way(id) {
            let text = "The export is being made; try again.";
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "export_under_way", text).retry_after(COME_AGAIN));
        }
        return Err(unknown());
    };
    let file = exports.archive(id).await.map_err(refused)?.ok_or_else(unknown)?;
    let headers = [
        (CONTENT_TYPE, "application/x-tar".to_owned()),
        (CONTENT_LENGTH, kept.bytes.to_string()),
        (CONTENT_DISPOSITION, format!("attachment; filename=\"export-{id}.tar\"")),
        (CACHE_CONTROL, "no-store".to_owned()),
    ];
    Ok((headers, Body::from_stream(chunks(file))).into_response())
}

/// A file, piece by piece, as far as its reader takes it.
fn chunks(file: std::fs::File) -> impl futures_util::Stream<Item = std::io::Result<Bytes>> {
    futures_util::stream::try_unfold(file, |mut file| async move {
        let read = tokio::task::spawn_blocking(move || {
            let mut chunk = vec![0; CHUNK_BYTES];
            let length = file.read(&mut chunk)?;
            chunk.truncate(length);
            Ok::<_, std::io::Error>((Bytes::from(chunk), file))
        });
        let (chunk, file) = read.await.map_err(std::io::Error::other)??;
        Ok((!chunk.is_empty()).then_some((chunk, file)))
    })
}

fn may_have(caller: &Caller, kept: &Kept) -> bool {
    match &kept.tenant {
        Some(tenant) => caller.sees(tenant),
        None => caller.only_tenant().is_none(),
    }
}

/// The id of the export that a caller's key stands for.
fn id_of(caller: &Caller, key: &str, words: &Value) -> Uuid {
    let mut hash = Sha256::new();
    for part in [caller.name().unwrap_or_default(), caller.only_tenant().unwrap_or("*"), key, &words.to_string()] {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    let mut id = [0; 16];
    id.copy_from_slice(&hash.finalize()[..16]);
    uuid::Builder::from_custom_bytes(id).into_uuid()
}

fn unknown() -> Problem {
    let text = "There is no such export, or it is not kept any more: make it again.";
    Problem::new(StatusCode::NOT_FOUND, "export_unknown", text)
}

fn refused(error: Failure) -> Problem {
    let unavailable = |code, text: String, wait_s| {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, text).retry_after(Duration::from_secs(wait_s)).caused_by(&error)
    };
    match &error {
        Failure::Busy => unavailable("export_busy", "Another export is being made, and one is made at a time; try again.".to_owned(), 5),
        Failure::Nothing => Problem::new(StatusCode::NOT_FOUND, "nothing_to_export", "No entry matches."),
        Failure::TooMany | Failure::Export(crate::export::ExportError::TooLarge) => {
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "export_too_large", format!("{}.", fte_service::chain(&error)))
        }
        Failure::NotYet | Failure::Outdated => unavailable("export_not_made", format!("{error}; try again."), 1),
        Failure::Log(error) => unreadable(error),
        Failure::Export(_) | Failure::Disk { .. } | Failure::Ended => {
            unavailable("export_not_made", "The export cannot be made now; try again, which is safe.".to_owned(), 5)
        }
    }
}

#[cfg(test)]
mod tests;
