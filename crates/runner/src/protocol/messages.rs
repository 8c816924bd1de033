//! What people say to a task while it is under way, through any replica.

use std::sync::Arc;

use fte_events::{ResultKind, TaskId};

use super::change::{Plan, change};
use super::instance::Instance;
use crate::document::{Message, NoRoom, State, TaskDoc};
use crate::ports::PortError;

/// A message, and who sends it.
#[derive(Clone, Debug)]
pub struct Letter {
    /// The message.
    pub message: Message,
    /// It is not to wait: an agent that is busy shall not get it.
    pub unless_busy: bool,
    /// The tenant whose tasks the sender may see; none: every tenant's.
    pub tenant: Option<String>,
}

/// Why a message was not taken in.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SendError {
    /// There is no such task.
    #[error("there is no task {0}, or it ended more than 8 days ago")]
    Unknown(TaskId),
    /// It is too late.
    #[error("the task has ended already: it is {0}")]
    Ended(ResultKind),
    /// Its agent listens to nobody.
    #[error("agent {0} takes no messages")]
    Deaf(String),
    /// The agent works, and the message was not to wait.
    #[error("the agent is busy")]
    Busy,
    /// Another message has this id.
    #[error("another message of this task has the id {0}")]
    IdReused(String),
    /// There are too many.
    #[error("the task has as many messages as it may have")]
    Full(NoRoom),
    /// The state store or the index could not take it; try again.
    #[error(transparent)]
    Unavailable(#[from] PortError),
}

/// Takes a message in; true if it had been taken in before.
pub(super) async fn send(instance: &Arc<Instance>, task: TaskId, letter: Letter) -> Result<bool, SendError> {
    change(instance, task, |doc, now| {
        let known = doc.filter(|doc| doc.is_met_by(letter.tenant.as_deref()));
        let Some(mut doc) = known else { return Plan::Leave(Err(SendError::Unknown(task))) };
        let message = letter.message.clone();
        match doc.accepted(&message.id) {
            Some(sha256) if sha256 == message.sha256() => return Plan::Leave(Ok(true)),
            Some(_) => return Plan::Leave(Err(SendError::IdReused(message.id))),
            None => {}
        }
        if let State::Ended(kind) = doc.state {
            return Plan::Leave(Err(SendError::Ended(kind)));
        }
        if !instance.settings.agents.get(&doc.agent).is_some_and(|limits| limits.takes_messages) {
            return Plan::Leave(Err(SendError::Deaf(doc.agent)));
        }
        if letter.unless_busy && is_busy(&doc) {
            return Plan::Leave(Err(SendError::Busy));
        }
        if let Err(full) = doc.accept(now, message) {
            return Plan::Leave(Err(SendError::Full(full)));
        }
        // Without an owner it says that it was accepted itself; it is told when the task runs again.
        if doc.owner.is_some() { Plan::Note(Box::new(doc), Ok(false)) } else { Plan::Move(Box::new(doc), Ok(false)) }
    })
    .await?
}

/// An agent that asks a person does nothing.
fn is_busy(doc: &TaskDoc) -> bool {
    doc.state == State::Running && !doc.awaits_decision()
}
