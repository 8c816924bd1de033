//! How the document of a task that somebody else may own, or nobody, is changed: read, plan, write; a conflict means read again.
//!
//! An ownerless task is moved on here: index entry, document, outbox, entry removed. An owned one gets a note into its document, which its
//! owner reads.

use std::sync::Arc;

use fte_events::TaskId;
use jiff::Timestamp;

use super::admission::refused_end;
use super::drive;
use super::index::{AddError, Purpose};
use super::instance::Instance;
use crate::document::TaskDoc;
use crate::ports::{Guard, PortError, Saved};

/// What a document asks to be done with it.
pub(super) enum Plan<T> {
    /// Nothing.
    Leave(T),
    /// A note for the owner; or a document without anything to send.
    Note(Box<TaskDoc>, T),
    /// An ownerless task moves on: responsibility first, then the write, then its outbox.
    Move(Box<TaskDoc>, T),
}

impl<T> Plan<T> {
    fn map<U>(self, change: impl FnOnce(T) -> U) -> Plan<U> {
        match self {
            Self::Leave(value) => Plan::Leave(change(value)),
            Self::Note(doc, value) => Plan::Note(doc, change(value)),
            Self::Move(doc, value) => Plan::Move(doc, change(value)),
        }
    }
}

/// Reads, plans, writes; again after each conflict. A task that can only be moved on by a write that is
/// refused for good ends, and the refusal is the answer.
pub(super) async fn change<T>(
    instance: &Arc<Instance>,
    task: TaskId,
    plan: impl Fn(Option<TaskDoc>, Timestamp) -> Plan<T>,
) -> Result<T, PortError> {
    let mut refused: Option<PortError> = None;
    loop {
        let (found, guard) = match instance.load(task).await? {
            Some((doc, guard)) => (Some(doc), guard),
            None => (None, Guard::Absent),
        };
        let now = instance.ports.world.now();
        let planned = match &refused {
            None => plan(found, now).map(Ok),
            // As it was to be written, nothing would ever come of it.
            Some(error) => match (found.clone(), plan(found, now)) {
                (Some(mut doc), Plan::Move(..)) if !doc.ended() => {
                    doc.end(now, refused_end(error));
                    Plan::Move(Box::new(doc), Err(error.clone()))
                }
                _ => Plan::Leave(Err(error.clone())),
            },
        };
        match planned {
            Plan::Leave(value) => return value,
            Plan::Note(doc, value) => {
                if instance.save(*doc, guard).await.0? == Saved::Written {
                    instance.poke(task);
                    return value;
                }
            }
            Plan::Move(doc, value) => {
                let ends = doc.ended();
                instance.index.add(task, Purpose::Wake).await.map_err(|error| {
                    let reason = match error {
                        AddError::Full => "this runner has its hands full; try again shortly",
                        AddError::Fenced => "this runner was cut off; try again",
                    };
                    PortError::new("moving the task on", reason)
                })?;
                match instance.save(*doc, guard.clone()).await {
                    (Ok(Saved::Written), doc) => {
                        drive::settle(instance, doc, Purpose::Wake);
                        return value;
                    }
                    (Ok(Saved::Conflict), doc) => instance.doubts.add(&doc, guard, Purpose::Wake),
                    (Err(error), _) if error.refused && !ends => {
                        instance.index.remove(task, Purpose::Wake);
                        refused = Some(error);
                    }
                    (Err(error), doc) => {
                        instance.doubts.add(&doc, guard, Purpose::Wake);
                        return Err(error);
                    }
                }
            }
        }
    }
}
