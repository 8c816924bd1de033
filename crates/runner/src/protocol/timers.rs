//! Durable timers: approvals, hand-offs, delays and deadlines, by name. They may fire on any replica, early, late, again, and before the document that
//! relies on them says so.
//!
//! Only a task without an owner relies on them: its owner makes them, while it owns it, before the write that gives it up or that asks a question.
//! (Making them at admission lost: with the scheduler down one delayed task held up the triggers of all others behind it.)
//! While a task has an owner, that one looks at the clock itself (see `news`); while it waits for the delivery of its turn, that delivery does.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fte_events::{ResultKind, ResumeReason, TaskId};
use jiff::Timestamp;

use super::admission::deadline_end;
use super::change::{Plan, change};
use super::handoffs;
use super::instance::Instance;
use crate::document::{End, State, TaskDoc};
use crate::ports::PortError;

/// A timer may fire early by so much, for clocks differ a little.
const EARLY_MAX: Duration = Duration::from_secs(2);
/// A timer is deleted so long after it may have fired. Until whoever fires it has the answer, Dapr 1.14 holds a lock on its name: a handler that waits for the
/// deletion waits for itself, and holds up the other timers with it.
pub(super) const ANSWERED: Duration = Duration::from_secs(1);

/// What a timer's name says: whose it is and for what.
pub(super) struct Timer {
    kind: TimerKind,
    task: TaskId,
    ordinal: u32,
}

enum TimerKind {
    Approval,
    Handoff,
    Delay,
    Deadline,
}

impl Timer {
    pub(super) fn handoff(task: TaskId, ordinal: u32) -> Self {
        Self { kind: TimerKind::Handoff, task, ordinal }
    }

    pub(super) fn approval(task: TaskId, question: u32) -> Self {
        Self { kind: TimerKind::Approval, task, ordinal: question }
    }

    pub(super) fn delay(task: TaskId) -> Self {
        Self { kind: TimerKind::Delay, task, ordinal: 0 }
    }

    pub(super) fn deadline(task: TaskId) -> Self {
        Self { kind: TimerKind::Deadline, task, ordinal: 0 }
    }

    /// Whether it is the name of a question's timer.
    pub(super) fn is_approval(name: &str) -> bool {
        Self::parse(name).is_some_and(|timer| matches!(timer.kind, TimerKind::Approval))
    }

    fn parse(name: &str) -> Option<Self> {
        let (kind, rest) = name.split_once('-')?;
        let (task, ordinal) = rest.rsplit_once('-')?;
        let kind = match kind {
            "approval" => TimerKind::Approval,
            "handoff" => TimerKind::Handoff,
            "delay" => TimerKind::Delay,
            "deadline" => TimerKind::Deadline,
            _ => return None,
        };
        Some(Self { kind, task: task.parse().ok()?, ordinal: ordinal.parse().ok()? })
    }

    /// When it is due, if the document waits for it.
    fn due(&self, doc: &TaskDoc) -> Option<Timestamp> {
        let request = doc.request.as_ref();
        match self.kind {
            TimerKind::Approval if doc.state == State::ParkedForApproval => {
                doc.approval.as_ref().filter(|approval| approval.ordinal == self.ordinal).map(|approval| approval.expires_at)
            }
            TimerKind::Handoff => doc.open_handoffs().find(|handoff| handoff.ordinal == self.ordinal).map(|handoff| handoff.expires_at),
            TimerKind::Delay if doc.state == State::ParkedForTime => request.and_then(|request| request.not_before),
            TimerKind::Deadline if !doc.ended() && !doc.deadline_passed => request.and_then(|request| request.deadline),
            _ => None,
        }
    }
}

impl fmt::Display for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            TimerKind::Approval => "approval",
            TimerKind::Handoff => "handoff",
            TimerKind::Delay => "delay",
            TimerKind::Deadline => "deadline",
        };
        write!(f, "{kind}-{}-{}", self.task, self.ordinal)
    }
}

/// What is to become of a timer that fired.
enum Fired {
    /// It fired a little before its time, by this clock: here it waits for it.
    Early(Duration),
    /// It fires again, should it still be needed.
    Keep,
    /// It moved the task on, whose end will end it, too. (Two deletions of a name at a time can end the scheduler of Dapr 1.14.)
    Moved,
    /// The document is past it.
    Over,
}

pub(super) async fn timer_fired(instance: &Arc<Instance>, name: &str) -> Result<(), PortError> {
    let Some(timer) = Timer::parse(name) else {
        tracing::warn!(timer = name, "a timer with an unknown name fired; it is deleted");
        end_once_answered(instance, name);
        return Ok(());
    };
    loop {
        let fired = change(instance, timer.task, |doc, now| match doc {
            // It was made for a document: one that is gone ended long ago.
            None => Plan::Leave(Fired::Over),
            Some(doc) if doc.ended() => Plan::Leave(Fired::Over),
            Some(doc) => match timer.due(&doc).map(|due| Duration::try_from(due.duration_since(now)).unwrap_or_default()) {
                Some(early) if !early.is_zero() && early <= EARLY_MAX => Plan::Leave(Fired::Early(early)),
                _ => match timer.kind {
                    TimerKind::Approval => approval_fired(doc, timer.ordinal, now),
                    TimerKind::Handoff => handoff_fired(doc, timer.ordinal, now),
                    TimerKind::Delay => delay_fired(doc, now),
                    TimerKind::Deadline => deadline_fired(doc, now),
                },
            },
        })
        .await?;
        match fired {
            Fired::Early(early) => instance.ports.world.sleep(early).await,
            Fired::Keep | Fired::Moved => return Ok(()),
            Fired::Over => {
                end_once_answered(instance, name);
                return Ok(());
            }
        }
    }
}

fn end_once_answered(instance: &Arc<Instance>, name: &str) {
    let (by, name) = (Arc::clone(instance), name.to_owned());
    instance.spawn(async move {
        by.ports.world.sleep(ANSWERED).await;
        end(&by, &[name]).await;
    });
}

/// Fires what came due before the document that relies on it was there: the timer itself may have found nothing then, and comes again only after
/// a while.
pub(super) fn fire_overdue(instance: &Arc<Instance>, doc: &TaskDoc) {
    let now = instance.ports.world.now();
    let is_due = |name: &&String| Timer::parse(name).and_then(|timer| timer.due(doc)).is_some_and(|due| due <= now);
    let overdue: Vec<String> = doc.timers.iter().filter(is_due).cloned().collect();
    for name in overdue {
        let by = Arc::clone(instance);
        instance.ports.world.spawn(Box::pin(async move {
            if let Err(error) = timer_fired(&by, &name).await {
                tracing::warn!(%error, timer = name, "a timer that came due early has to fire once more");
            }
        }));
    }
}

/// Ends timers. One that is missed here ends itself when it fires.
pub(super) async fn end(instance: &Instance, timers: &[String]) {
    // While the scheduler is away there are ever more to be ended, and each call takes its time to fail.
    let Ok(_turn) = instance.ending_timers.try_acquire() else { return };
    for name in timers {
        if let Err(error) = instance.ports.timers.delete(name.clone()).await {
            tracing::debug!(timer = name, %error, "timer not deleted; it ends itself when it fires");
        }
    }
}

fn approval_fired(mut doc: TaskDoc, ordinal: u32, now: Timestamp) -> Plan<Fired> {
    let asked = doc.approval.as_ref().map_or(0, |approval| approval.ordinal);
    let open = doc.approval.as_ref().is_some_and(|approval| approval.decision.is_none());
    let due = doc.approval.as_ref().is_some_and(|approval| approval.expires_at <= now);
    if asked > ordinal || (asked == ordinal && !open) {
        return Plan::Leave(Fired::Over);
    }
    if asked < ordinal || !due || doc.state != State::ParkedForApproval {
        return Plan::Leave(Fired::Keep);
    }
    if doc.approval.as_ref().is_some_and(|approval| approval.approve_on_expiry) {
        doc.expire_approved(now);
    } else {
        doc.end(now, End::error(ResultKind::TimedOut, "approval_expired", "nobody decided before the approval ran out"));
    }
    Plan::Move(Box::new(doc), Fired::Moved)
}

/// The time for an answer to a hand-off is over; who owns the task reads that there.
fn handoff_fired(mut doc: TaskDoc, ordinal: u32, now: Timestamp) -> Plan<Fired> {
    if ordinal >= doc.next_handoff() {
        return Plan::Leave(Fired::Keep);
    }
    let Some(handoff) = doc.open_handoffs().find(|handoff| handoff.ordinal == ordinal) else { return Plan::Leave(Fired::Over) };
    if handoff.expires_at > now {
        return Plan::Leave(Fired::Keep);
    }
    doc.expire_handoff(now, ordinal);
    if doc.owner.is_some() {
        return Plan::Note(Box::new(doc), Fired::Keep);
    }
    handoffs::wake(&mut doc, now);
    Plan::Move(Box::new(doc), Fired::Moved)
}

fn delay_fired(mut doc: TaskDoc, now: Timestamp) -> Plan<Fired> {
    if doc.request.is_none() {
        return Plan::Leave(Fired::Keep);
    }
    if doc.state != State::ParkedForTime {
        // Before it is parked the document does not know its timer.
        let parked_before = doc.timers.contains(&Timer::delay(doc.task_id).to_string());
        return Plan::Leave(if parked_before { Fired::Over } else { Fired::Keep });
    }
    if doc.request.as_ref().and_then(|request| request.not_before).is_some_and(|due| due > now) {
        return Plan::Leave(Fired::Keep);
    }
    doc.wake(now, ResumeReason::Timer);
    Plan::Move(Box::new(doc), Fired::Moved)
}

fn deadline_fired(mut doc: TaskDoc, now: Timestamp) -> Plan<Fired> {
    let due = doc.request.as_ref().and_then(|request| request.deadline).is_some_and(|deadline| deadline <= now);
    if !due || doc.deadline_passed {
        return Plan::Leave(Fired::Keep);
    }
    if doc.owner.is_some() {
        // Its owner's clock may be behind.
        doc.deadline_passed = true;
        return Plan::Note(Box::new(doc), Fired::Keep);
    }
    doc.end(now, deadline_end());
    Plan::Move(Box::new(doc), Fired::Moved)
}
