//! The routes of a witness: `POST /add-checkpoint`, and `GET /{sha256 of the origin}/checkpoint` for monitors.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use fte_service::chain;

use super::{Verdict, Witness};

/// Largest body: a proof of 63 hashes, and a checkpoint with as many signatures as anybody makes.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// The content type of a size, by the specification.
const SIZE: &str = "text/x.tlog.size";
const TEXT: &str = "text/plain; charset=utf-8";

/// The routes over a witness.
pub fn router(witness: Arc<Witness>) -> Router {
    Router::new()
        .route("/add-checkpoint", post(add_checkpoint))
        .route("/{origin}/checkpoint", get(latest))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(witness)
}

async fn add_checkpoint(State(witness): State<Arc<Witness>>, body: Bytes) -> Response {
    let judged = tokio::task::spawn_blocking(move || witness.add_checkpoint(&body)).await;
    match judged {
        Ok(Ok(verdict)) => answer(verdict),
        Ok(Err(error)) => {
            tracing::error!(error = %chain(&error), "nothing is signed");
            text(StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n"))
        }
        Err(error) => {
            tracing::error!(%error, "a request failed");
            text(StatusCode::INTERNAL_SERVER_ERROR, "the witness failed\n".to_owned())
        }
    }
}

fn answer(verdict: Verdict) -> Response {
    match verdict {
        Verdict::Signed(lines) => text(StatusCode::OK, lines),
        Verdict::Malformed(what) => text(StatusCode::BAD_REQUEST, format!("{what}\n")),
        Verdict::Untrusted => {
            text(StatusCode::FORBIDDEN, "no signature of a key that is trusted for this log, or a wrong one\n".to_owned())
        }
        Verdict::UnknownLog => text(StatusCode::NOT_FOUND, "this witness does not know the log\n".to_owned()),
        Verdict::Conflict(size) => (StatusCode::CONFLICT, [(CONTENT_TYPE, SIZE)], format!("{size}\n")).into_response(),
        Verdict::Inconsistent => {
            text(StatusCode::UNPROCESSABLE_ENTITY, "the checkpoint does not continue the one that was signed last\n".to_owned())
        }
    }
}

fn text(status: StatusCode, text: String) -> Response {
    (status, [(CONTENT_TYPE, TEXT)], text).into_response()
}

async fn latest(State(witness): State<Arc<Witness>>, Path(origin): Path<String>) -> Response {
    match tokio::task::spawn_blocking(move || witness.latest(&origin)).await {
        Ok(Some(note)) => (StatusCode::OK, [(CONTENT_TYPE, TEXT), (CACHE_CONTROL, "max-age=5")], note).into_response(),
        _ => text(StatusCode::NOT_FOUND, "nothing of such a log was signed\n".to_owned()),
    }
}
