//! What people say to a task, through any replica: decisions and cancels.

use std::fmt;
use std::sync::Arc;

use fte_events::{Actor, ResultKind, ResumeReason, TaskId, json_sha256};
use jiff::Timestamp;
use serde_json::Value;

use super::admission::rejected_end;
use super::change::{Plan, change};
use super::instance::Instance;
use crate::document::{Decision, End, Granted, State, TaskDoc, edited_request};
use crate::ports::PortError;

/// What a person says.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The question it is for, by its ordinal; else the one that is open when it arrives.
    pub question: Option<u32>,
    /// Yes or no.
    pub approved: bool,
    /// In their words.
    pub reason: Option<String>,
    /// Who says it.
    pub approver: String,
    /// What the agent shall work with instead of what it asked about; before the start an object with `task`, `context` or both. Only with a yes.
    pub edit: Option<Value>,
    /// The tenant whose tasks they may see; none: every tenant's. Any other task is one that they do not know of.
    pub tenant: Option<String>,
}

/// How a decision was taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decided {
    /// It counts.
    Now,
    /// The same decision had been made before.
    Before,
}

/// A decision that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// Yes or no.
    pub approved: bool,
    /// Who made it.
    pub approver: String,
    /// When; an old document does not say so of an earlier question.
    pub decided_at: Option<Timestamp>,
    /// They changed the input.
    pub edited: bool,
}

impl fmt::Display for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.approved { "approved" } else { "rejected" };
        let edit = if self.edited { " with an edit" } else { "" };
        write!(f, "{word}{edit} by {}", self.approver)?;
        self.decided_at.map_or(Ok(()), |at| write!(f, " at {}", fte_bus::time::text(at)))
    }
}

impl From<&Decision> for Made {
    fn from(decision: &Decision) -> Self {
        let Decision { approved, approver, decided_at, edit_sha256, .. } = decision;
        Self { approved: *approved, approver: approver.clone(), decided_at: Some(*decided_at), edited: edit_sha256.is_some() }
    }
}

impl From<&Granted> for Made {
    fn from(granted: &Granted) -> Self {
        let Granted { approver, decided_at, edit_sha256, .. } = granted;
        Self { approved: true, approver: approver.clone(), decided_at: *decided_at, edited: edit_sha256.is_some() }
    }
}

/// Why a decision was not taken in.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DecideError {
    /// There is no such task.
    #[error("there is no task {0}, or it ended more than 8 days ago")]
    Unknown(TaskId),
    /// Nobody asked, or nobody asks any more.
    #[error("the task does not await a decision: it is {0}")]
    NotAwaiting(&'static str),
    /// It is for another question than the one that is open, if any.
    #[error("the task does not ask question {named}{}", asked.map(|asked| format!(": it is at question {asked}")).unwrap_or_default())]
    OtherQuestion {
        /// The question that the answer was for.
        named: u32,
        /// The task's last question.
        asked: Option<u32>,
    },
    /// It was decided otherwise.
    #[error("the task was {0} already")]
    Otherwise(Made),
    /// The configuration names who may decide, and this is somebody else.
    #[error("{approver} may not decide what agent {agent} asks: its approvers are others")]
    NotApprover {
        /// Who tried.
        approver: String,
        /// Whose question it is.
        agent: String,
    },
    /// The edit does not fit.
    #[error("{0}")]
    BadEdit(String),
    /// The state store or the index could not take it; try again.
    #[error(transparent)]
    Unavailable(#[from] PortError),
}

/// Why a cancel was not taken in.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CancelError {
    /// It is too late.
    #[error("the task has ended already: it is {0}")]
    Ended(ResultKind),
    /// The state store or the index could not take it; try again.
    #[error(transparent)]
    Unavailable(#[from] PortError),
}

pub(super) async fn decide(instance: &Arc<Instance>, task: TaskId, answer: Answer) -> Result<(Decided, Made), DecideError> {
    let edit_sha256 = answer.edit.as_ref().map(json_sha256);
    change(instance, task, |doc, now| {
        let known = doc.filter(|doc| doc.is_met_by(answer.tenant.as_deref()));
        let Some(mut doc) = known else { return Plan::Leave(Err(DecideError::Unknown(task))) };
        let Answer { question, approved, reason, approver, edit, .. } = answer.clone();
        if !instance.settings.approvals(&doc.agent).may_decide(&approver) {
            return Plan::Leave(Err(DecideError::NotApprover { approver, agent: doc.agent }));
        }
        if let Some(named) = question.filter(|named| doc.approval.as_ref().is_none_or(|approval| approval.ordinal != *named)) {
            return Plan::Leave(decided_earlier(&doc, named, approved, edit_sha256.as_deref()));
        }
        match doc.approval.as_ref().map(|approval| &approval.decision) {
            // An edit that differs is another decision.
            Some(Some(made)) if made.approved == approved && made.edit_sha256 == edit_sha256 => {
                return Plan::Leave(Ok((Decided::Before, made.into())));
            }
            Some(Some(made)) => return Plan::Leave(Err(DecideError::Otherwise(made.into()))),
            Some(None) if !doc.ended() => {}
            _ => return Plan::Leave(Err(DecideError::NotAwaiting(standing(&doc)))),
        }
        if let Some(edit) = &edit
            && let Err(misfit) = fits(instance, &doc, edit, now)
        {
            return Plan::Leave(Err(DecideError::BadEdit(misfit)));
        }
        let decision = Decision::new(approved, reason.clone(), &approver, now).edited(edit);
        let taken = Ok((Decided::Now, Made::from(&decision)));
        doc.decide(now, decision);
        if doc.owner.is_some() {
            return Plan::Note(Box::new(doc), taken);
        }
        if !approved {
            doc.end(now, rejected_end(reason.as_deref(), &approver));
        } else if doc.state == State::ParkedForApproval {
            doc.wake(now, ResumeReason::Approved);
        }
        Plan::Move(Box::new(doc), taken)
    })
    .await?
}

/// Whether what is asked can be edited, and so.
fn fits(instance: &Instance, doc: &TaskDoc, edit: &Value, now: Timestamp) -> Result<(), String> {
    if let (true, Some(request)) = (doc.approval.as_ref().is_some_and(|approval| approval.before_start), &doc.request) {
        return edited_request(request, edit, now).map(drop);
    }
    match instance.settings.agents.get(&doc.agent) {
        Some(limits) if !limits.takes_edits => {
            Err(format!("agent {} takes no edits: what its tools are called with is its own", doc.agent))
        }
        _ => Ok(()),
    }
}

/// An answer to a question that is not the last one.
fn decided_earlier(doc: &TaskDoc, named: u32, approved: bool, edit_sha256: Option<&str>) -> Result<(Decided, Made), DecideError> {
    match doc.granted.iter().find(|granted| granted.ordinal == named) {
        Some(granted) if approved && granted.edit_sha256.as_deref() == edit_sha256 => Ok((Decided::Before, granted.into())),
        Some(granted) => Err(DecideError::Otherwise(granted.into())),
        None => Err(DecideError::OtherQuestion { named, asked: doc.approval.as_ref().map(|approval| approval.ordinal) }),
    }
}

pub(super) fn standing(doc: &TaskDoc) -> &'static str {
    match doc.state {
        State::Queued | State::ParkedForTime => "queued",
        State::Running => "running",
        State::ParkedForApproval => "awaiting_approval",
        State::ParkedForReply => "awaiting_handoff",
        State::Ended(kind) => kind.status().as_str(),
    }
}

pub(super) async fn cancel(instance: &Arc<Instance>, task: TaskId, by: Actor, tenant: Option<String>) -> Result<(), CancelError> {
    change(instance, task, |doc, now| {
        let mut doc = doc.unwrap_or_else(|| TaskDoc::blank(task));
        if !doc.is_seen_by(tenant.as_deref()) {
            // As for a task that nobody has met: its trigger would find the cancel, and that it is none of its tenant.
            return Plan::Leave(Ok(()));
        }
        if let State::Ended(kind) = doc.state {
            return Plan::Leave(Err(CancelError::Ended(kind)));
        }
        if doc.cancel_requested.is_some() {
            return Plan::Leave(Ok(()));
        }
        if doc.request.is_none() {
            // Its trigger is still to come, and will find this.
            doc.cancel_early(now, by.clone());
            doc.tenant = tenant.clone().unwrap_or_default();
            return Plan::Note(Box::new(doc), Ok(()));
        }
        doc.request_cancel(now, by.clone());
        if doc.owner.is_some() {
            return Plan::Note(Box::new(doc), Ok(()));
        }
        doc.end(now, End::error(ResultKind::Cancelled, "cancelled", format!("cancelled by {}", by.id)));
        Plan::Move(Box::new(doc), Ok(()))
    })
    .await?
}
