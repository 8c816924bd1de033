//! How the document of a task that somebody else may own, or nobody, is changed: read, plan, write; a conflict means read again.
//!
//! An ownerless task is moved on here: index entry, document, outbox, entry removed. An owned one gets a note into its document, which its
//! owner reads.

use std::sync::Arc;

use fte_events::TaskId;
use jiff::Timestamp;

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

/// Reads, plans, writes; again after each conflict.
pub(super) async fn change<T>(
    instance: &Arc<Instance>,
    task: TaskId,
    plan: impl Fn(Option<TaskDoc>, Timestamp) -> Plan<T>,
) -> Result<T, PortError> {
    loop {
        let (found, guard) = match instance.load(task).await? {
            Some((doc, guard)) => (Some(doc), guard),
            None => (None, Guard::Absent),
        };
        match plan(found, instance.ports.world.now()) {
            Plan::Leave(value) => return Ok(value),
            Plan::Note(doc, value) => {
                if instance.save(*doc, guard).await.0? == Saved::Written {
                    instance.poke(task);
                    return Ok(value);
                }
            }
            Plan::Move(doc, value) => {
                instance.index.add(task, Purpose::Wake).await.map_err(|error| PortError {
                    what: "moving the task on",
                    reason: match error {
                        AddError::Full => "this runner has its hands full; try again shortly".to_owned(),
                        AddError::Fenced => "this runner was cut off; try again".to_owned(),
                    },
                })?;
                match instance.save(*doc, guard.clone()).await {
                    (Ok(Saved::Written), doc) => {
                        drive::settle(instance, doc, Purpose::Wake);
                        return Ok(value);
                    }
                    (Ok(Saved::Conflict), doc) => instance.doubts.add(&doc, guard, Purpose::Wake),
                    (Err(error), doc) => {
                        instance.doubts.add(&doc, guard, Purpose::Wake);
                        return Err(error);
                    }
                }
            }
        }
    }
}
