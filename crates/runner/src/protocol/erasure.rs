//! A person is to be forgotten: what the runner holds of their tasks goes.
//!
//! A task that has not ended is called off, and ends as `cancelled` like any other, so that whoever waits for it hears of it; one that nobody has asked for
//! yet leaves the call-off behind for its request. Once a task has ended and everything it had to say is out, its document is stripped to what tells
//! that it was there: that is kept as long as the document of any ended task, which is longer than a request can be delivered again, so that none brings
//! it back.
//!
//! Whoever sees the end of the outbox of an erased task strips it: its driver, whoever moved it on, who takes over, and the erasure itself. Each sends the
//! outbox that it has just read before it writes without it, so that nothing is lost whoever has written since. Only what nobody is responsible for any
//! more is out, and is not said again: what is personal in it nobody can read any more, and would stand on the topics anew.

use std::sync::Arc;

use fte_events::{ActionOutcome, Actor, ActorType, ResultKind, TaskId};

use super::change::{Plan, change};
use super::instance::{Instance, RETRY};
use super::{outbox, peers};
use crate::document::{End, TaskDoc};
use crate::ports::{Guard, PortError, Saved};

/// Who calls the tasks off, in their results.
const BY: &str = "an erasure";
/// Tries to strip a document before it is left to whoever asks again.
const TRIES_MAX: usize = 100;

/// Forgets a task. To repeat it is safe.
pub(super) async fn erase(instance: &Arc<Instance>, task: TaskId, tenant: &str) -> Result<(), PortError> {
    let ended = change(instance, task, |doc, now| {
        let mut doc = doc.unwrap_or_else(|| TaskDoc::blank(task));
        if !doc.is_seen_by(Some(tenant)) {
            return Plan::Leave(Ok(false));
        }
        if doc.ended() {
            return Plan::Leave(Ok(true));
        }
        if doc.erased {
            return Plan::Leave(Ok(false));
        }
        doc.erased = true;
        if doc.request.is_none() {
            // Its request is still to come, and will find this.
            doc.cancel_requested = Some(BY.to_owned());
            doc.tenant = tenant.to_owned();
            return Plan::Note(Box::new(doc), Ok(false));
        }
        if doc.cancel_requested.is_none() {
            let audit = Actor::new(ActorType::Service, "audit");
            doc.say_action(now, "task.cancel-requested", audit, ActionOutcome::Success, |_| {});
            doc.cancel_requested = Some(BY.to_owned());
        }
        if doc.owner.is_some() {
            return Plan::Note(Box::new(doc), Ok(false));
        }
        doc.end(now, End::error(ResultKind::Cancelled, "cancelled", format!("cancelled by {BY}")));
        Plan::Move(Box::new(doc), Ok(false))
    })
    .await?;
    if ended? { strip(instance, task).await } else { Ok(()) }
}

/// After the outbox of a task is out: strips it if it was erased. Tried until it succeeds, within reason: who asked for the erasure asks again.
pub(super) async fn strip_if_erased(instance: &Arc<Instance>, doc: &TaskDoc) {
    if !doc.erased || !doc.ended() {
        return;
    }
    for _ in 0..TRIES_MAX {
        match strip(instance, doc.task_id).await {
            Ok(()) => return,
            Err(error) => {
                tracing::warn!(task = %doc.task_id, %error, "an erased task's document could not be stripped; trying again");
                instance.ports.world.sleep(RETRY).await;
            }
        }
    }
}

async fn strip(instance: &Arc<Instance>, task: TaskId) -> Result<(), PortError> {
    loop {
        let Some((doc, guard)) = instance.load(task).await? else { return Ok(()) };
        if !doc.ended() || doc.is_stripped() {
            return Ok(());
        }
        // Read after the document, which had ended by then: whoever ended it lists it until its outbox is out.
        if peers::is_listed(instance, task).await? {
            outbox::send(&instance.ports, &doc).await?;
        }
        debug_assert!(matches!(guard, Guard::Unchanged(_)), "it was read");
        if instance.save(doc.stripped(), guard).await.0? == Saved::Written {
            return Ok(());
        }
    }
}
