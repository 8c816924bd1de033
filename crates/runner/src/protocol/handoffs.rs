//! What comes back from hand-offs, through any replica: a child's result, a person's answer; and the word that nobody waits any more.
//!
//! | what | becomes |
//! |---|---|
//! | a reply to a task that has an owner | a note in its document, which its owner reads |
//! | a reply to a task that is parked, for whatever | the move that wakes it |
//! | a reply to a task that waits for the delivery of its turn | a note in its document, which whoever takes it up reads |
//! | a reply that came before, or to a task that has ended or waits no more | nothing |
//!
//! A child cannot answer before its parent's document knows of it: it is asked for by an event out of that document's outbox. Nor can a reply be forgotten: its
//! delivery is not acknowledged before it is in the document.

use std::sync::Arc;

use fte_events::{Actor, ActorType, HandoffWithdrawn, ResumeReason, TaskId, TaskResult};
use jiff::Timestamp;

use super::change::{Plan, change};
use super::decisions::{CancelError, Decided, cancel, standing};
use super::instance::Instance;
use crate::document::{HandoffReply, PersonAnswer, State, TaskDoc};
use crate::ports::PortError;

/// What became of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replied {
    /// It counts.
    Taken,
    /// Nobody waits for it.
    Ignored,
}

/// Why a person's answer was not taken in.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AnswerError {
    /// There is no such task.
    #[error("there is no task {0}, or it ended more than 8 days ago")]
    Unknown(TaskId),
    /// It was not handed to a person, or has ended.
    #[error("the task does not wait for a person's reply: it is {0}")]
    NotAwaiting(&'static str),
    /// Somebody answered otherwise.
    #[error("{by} has answered already, and otherwise")]
    Otherwise {
        /// Who.
        by: String,
    },
    /// The state store or the index could not take it; try again.
    #[error(transparent)]
    Unavailable(#[from] PortError),
}

/// A task without an owner has a reply.
pub(super) fn wake(doc: &mut TaskDoc, now: Timestamp) {
    if matches!(doc.state, State::ParkedForReply | State::ParkedForApproval) {
        doc.wake(now, ResumeReason::HandoffReplied);
    }
}

/// A task has ended that may have been handed off.
pub(super) async fn replied(instance: &Arc<Instance>, result: TaskResult) -> Result<Replied, PortError> {
    let (Some(parent), child) = (result.parent_task_id, result.task_id) else { return Ok(Replied::Ignored) };
    let reply = HandoffReply::from(result);
    change(instance, parent, |doc, now| {
        let Some(mut doc) = doc.filter(|doc| !doc.ended()) else { return Plan::Leave(Replied::Ignored) };
        if !doc.take_reply(child, reply.clone()) {
            return Plan::Leave(Replied::Ignored);
        }
        if doc.owner.is_some() || doc.state == State::Queued {
            return Plan::Note(Box::new(doc), Replied::Taken);
        }
        wake(&mut doc, now);
        Plan::Move(Box::new(doc), Replied::Taken)
    })
    .await
}

/// Nobody waits for a child any more: it is called off.
pub(super) async fn withdrawn(instance: &Arc<Instance>, event: &HandoffWithdrawn, tenant: String) -> Result<(), PortError> {
    let by = Actor::new(ActorType::Agent, format!("{} of task {}", event.from_agent, event.parent_task_id));
    match cancel(instance, event.task_id, by, Some(tenant)).await {
        Ok(()) | Err(CancelError::Ended(_)) => Ok(()),
        Err(CancelError::Unavailable(error)) => Err(error),
    }
}

/// A person answers what was handed to them.
pub(super) async fn answered(
    instance: &Arc<Instance>,
    task: TaskId,
    answer: PersonAnswer,
    tenant: Option<String>,
) -> Result<Decided, AnswerError> {
    change(instance, task, |doc, now| {
        let known = doc.filter(|doc| doc.is_met_by(tenant.as_deref()));
        let Some(mut doc) = known else { return Plan::Leave(Err(AnswerError::Unknown(task))) };
        match &doc.answer {
            Some(made) if made.digest == answer.digest => return Plan::Leave(Ok(Decided::Before)),
            Some(made) => return Plan::Leave(Err(AnswerError::Otherwise { by: made.by.clone() })),
            None if doc.is_for_a_person() && !doc.ended() => {}
            None => return Plan::Leave(Err(AnswerError::NotAwaiting(standing(&doc)))),
        }
        doc.take_answer(now, answer.clone());
        if doc.owner.is_some() {
            return Plan::Note(Box::new(doc), Ok(Decided::Now));
        }
        doc.end(now, answer.end());
        Plan::Move(Box::new(doc), Ok(Decided::Now))
    })
    .await?
}
