//! Answers in Dapr's words.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

const JSON: [(header::HeaderName, &str); 1] = [(header::CONTENT_TYPE, "application/json")];

/// A single delivery: 200 SUCCESS, or a 500 that the resiliency policy retries.
pub(super) fn single(acknowledged: bool) -> Response {
    if acknowledged {
        (StatusCode::OK, JSON, r#"{"status":"SUCCESS"}"#).into_response()
    } else {
        (StatusCode::INTERNAL_SERVER_ERROR, JSON, r#"{"status":"RETRY"}"#).into_response()
    }
}

/// A bulk delivery: every entry is named, since a missing one would be a retry.
pub(super) fn bulk<'a>(entries: impl Iterator<Item = (&'a str, bool)>) -> Response {
    let mut body = String::from(r#"{"statuses":["#);
    for (index, (entry_id, acknowledged)) in entries.enumerate() {
        if index > 0 {
            body.push(',');
        }
        let status = if acknowledged { "SUCCESS" } else { "RETRY" };
        let entry_id = serde_json::Value::from(entry_id);
        body.push_str(&format!(r#"{{"entryId":{entry_id},"status":"{status}"}}"#));
    }
    body.push_str("]}");
    (StatusCode::OK, JSON, body).into_response()
}
