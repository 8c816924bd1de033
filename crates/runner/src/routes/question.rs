//! `GET /v1/approvals/{id}`: what is asked, as JSON, or for a browser as a page on which a person answers.
//!
//! Always true: the page is the same for everybody and holds nothing of any task. It asks for the JSON itself, with the key that its reader types in where keys
//! are in force; so nothing that an agent or a requester wrote is ever part of a document, and nothing has to be escaped into it. It loads nothing from anywhere
//! else, and its policy lets nothing else run.
//!
//! Rejected: a page with the question in it. A link cannot carry a key, so with keys it could not be shown; and a one-time secret in the link would let whoever
//! is forwarded a mail decide in the name of nobody. And `GET` at the address that decisions are posted to: what lies under `/v1/tasks` and is read is status', and a
//! gateway that knows paths by their beginnings could not tell this one from the others.

use std::sync::LazyLock;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use fte_events::{ExpiryDefault, TaskId};
use fte_service::Problem;
use fte_service::browser::wants_page;
use fte_service::extract::{Json, Path};
use fte_service::keys::Caller;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use super::{AppState, not_found, once_met, unavailable};
use crate::document::{Decision, TaskDoc, request_input};

const STYLE: &str = include_str!("question/page.css");
const SCRIPT: &str = include_str!("question/page.js");

/// The last question of a task.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct QuestionView {
    /// The task.
    task_id: TaskId,
    /// Whose question it is.
    agent: String,
    /// Which of the task's questions this is, from 1.
    question: u32,
    /// Whether an answer counts now.
    open: bool,
    /// It is asked before the start: an edit is an object with `task`, `context` or both.
    before_start: bool,
    /// What it is about, as the agent names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<String>,
    /// Why it is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// What to look at; before the start the task and its context. What an edit replaces.
    #[schema(value_type = Option<Object>)]
    data: Option<Value>,
    /// Whether it can be edited.
    editable: bool,
    /// Nobody can answer after this.
    #[serde(serialize_with = "fte_bus::time::serialize")]
    expires_at: Timestamp,
    /// What counts if nobody has answered until then.
    default: ExpiryDefault,
    /// Who may decide, where the agent's configuration names them; else whoever may decide at all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    approvers: Vec<String>,
    /// This page.
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<String>,
    /// The answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<DecisionView>,
}

/// An answer.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DecisionView {
    /// Yes or no.
    approved: bool,
    /// In their words.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Who; `policy` where nobody did.
    approver: String,
    /// When.
    #[serde(serialize_with = "fte_bus::time::serialize")]
    decided_at: Timestamp,
    /// Whether they changed the input.
    edited: bool,
    /// The digest of what was approved, as it stands in the audit trail.
    #[serde(skip_serializing_if = "Option::is_none")]
    input_sha256: Option<String>,
}

impl From<Decision> for DecisionView {
    fn from(decision: Decision) -> Self {
        let Decision { approved, reason, approver, decided_at, edit_sha256, input_sha256, .. } = decision;
        Self { approved, reason, approver, decided_at, edited: edit_sha256.is_some(), input_sha256 }
    }
}

/// Shows what a task asks a person, or asked last. With `Accept: text/html` it is a page on which a person can answer.
#[utoipa::path(
    get, path = "/v1/approvals/{id}", tag = "tasks",
    params(("id" = String, Path, description = "The task")),
    responses(
        (status = 200, description = "The question", body = QuestionView),
        (status = 404, description = "`task_not_found`, `nothing_asked`"),
        (status = 503, description = "`runner_unavailable`"),
    )
)]
pub(crate) async fn show(
    State(app): State<AppState>,
    caller: Caller,
    Path(task): Path<TaskId>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    if wants_page(&headers) {
        return Ok(page());
    }
    let look = || async { app.runner.look(task, caller.only_tenant()).await.map_err(Some)?.ok_or(None) };
    let doc =
        once_met(task, Option::is_none, look).await.map_err(|error| error.map_or_else(|| not_found(task), |error| unavailable(&error)))?;
    let Some(view) = view(&app, doc) else {
        return Err(Problem::new(StatusCode::NOT_FOUND, "nothing_asked", "The task has asked nobody anything yet."));
    };
    Ok(([(CACHE_CONTROL, "no-store"), (VARY, "accept")], Json(view)).into_response())
}

fn view(app: &AppState, doc: TaskDoc) -> Option<QuestionView> {
    let settings = app.runner.settings();
    let (open, request) = (doc.open_question().is_some() && !doc.ended(), doc.request);
    let approval = doc.approval?;
    let shown = if approval.before_start { request.as_deref().map(request_input) } else { None };
    Some(QuestionView {
        task_id: doc.task_id,
        question: approval.ordinal,
        open,
        before_start: approval.before_start,
        editable: approval.before_start || settings.agents.get(&doc.agent).is_some_and(|limits| limits.takes_edits),
        default: approval.default_at_expiry(),
        action: approval.action,
        reason: approval.reason,
        data: shown.or(approval.data),
        expires_at: approval.expires_at,
        approvers: settings.approvals(&doc.agent).approvers,
        link: approval.link,
        decision: approval.decision.map(DecisionView::from),
        agent: doc.agent,
    })
}

fn page() -> Response {
    static PAGE: LazyLock<String> = LazyLock::new(|| {
        format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
             <title>A decision for FTE</title><style>{STYLE}</style></head><body><main id=\"main\"><p>Loading…</p></main>\
             <noscript><p>This page needs JavaScript. Without it: fte approve</p></noscript><script>{SCRIPT}</script></body></html>\n"
        )
    });
    static POLICY: LazyLock<String> = LazyLock::new(|| {
        format!(
            "default-src 'none'; script-src '{}'; style-src '{}'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            source(SCRIPT),
            source(STYLE)
        )
    });
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, POLICY.as_str()),
        (CACHE_CONTROL, "no-store"),
        (VARY, "accept"),
        (REFERRER_POLICY, "no-referrer"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, PAGE.as_str()).into_response()
}

/// A script or style as a content security policy names it.
fn source(text: &str) -> String {
    format!("sha256-{}", base64::engine::general_purpose::STANDARD.encode(Sha256::digest(text.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_loads_nothing_and_its_policy_names_its_own_parts() {
        let page = page();
        let policy = page.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
        assert!(policy.starts_with("default-src 'none'; script-src 'sha256-") && policy.contains("frame-ancestors 'none'"), "{policy}");
        for text in [STYLE, SCRIPT] {
            assert!(
                !text.contains("http://") && !text.contains("https://") && !text.contains("innerHTML") && !text.contains("</"),
                "{text}"
            );
        }
    }
}
