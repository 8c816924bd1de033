//! What comes from outside a driver: decisions, cancels and timers. They may reach any replica.
//!
//! An ownerless task is moved on here: index entry, document, outbox, entry removed. An owned one gets a note into its document, which its
//! owner reads. A conflict means: read again.

use std::sync::Arc;
use std::time::Duration;

use fte_events::{ResultKind, ResumeReason, TaskId};
use jiff::Timestamp;

use super::admission::{deadline_end, rejected_end};
use super::drive;
use super::index::{AddError, Purpose};
use super::instance::Instance;
use crate::document::{Decision, End, State, TaskDoc};
use crate::ports::{Guard, PortError, Saved};

/// A timer may fire early by so much, for clocks differ a little.
const EARLY_MAX: Duration = Duration::from_secs(2);

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
}

/// How a decision was taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decided {
    /// It counts.
    Now,
    /// The same decision had been made before.
    Before,
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
    /// It was decided the other way.
    #[error("the task was {} by {approver} already", if *approved { "approved" } else { "rejected" })]
    Otherwise {
        /// The decision that counts.
        approved: bool,
        /// Who made it.
        approver: String,
    },
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

/// What a document asks to be done with it.
enum Plan<T> {
    /// Nothing.
    Leave(T),
    /// A note for the owner; or a document without anything to send.
    Note(Box<TaskDoc>, T),
    /// An ownerless task moves on: responsibility first, then the write, then its outbox.
    Move(Box<TaskDoc>, T),
}

/// Reads, plans, writes; again after each conflict.
async fn change<T>(instance: &Arc<Instance>, task: TaskId, plan: impl Fn(Option<TaskDoc>, Timestamp) -> Plan<T>) -> Result<T, PortError> {
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
                    (Ok(Saved::Conflict), doc) => instance.doubt(doc, guard, Purpose::Wake),
                    (Err(error), doc) => {
                        instance.doubt(doc, guard, Purpose::Wake);
                        return Err(error);
                    }
                }
            }
        }
    }
}

pub(super) async fn decide(instance: &Arc<Instance>, task: TaskId, answer: Answer) -> Result<Decided, DecideError> {
    let Answer { question, approved, reason, approver } = answer;
    change(instance, task, |doc, now| {
        let Some(mut doc) = doc else { return Plan::Leave(Err(DecideError::Unknown(task))) };
        if let Some(named) = question.filter(|named| doc.approval.as_ref().is_none_or(|approval| approval.ordinal != *named)) {
            return Plan::Leave(decided_earlier(&doc, named, approved));
        }
        match doc.approval.as_ref().map(|approval| &approval.decision) {
            Some(Some(made)) if made.approved == approved => return Plan::Leave(Ok(Decided::Before)),
            Some(Some(made)) => {
                return Plan::Leave(Err(DecideError::Otherwise { approved: made.approved, approver: made.approver.clone() }));
            }
            Some(None) if !doc.ended() => {}
            _ => return Plan::Leave(Err(DecideError::NotAwaiting(standing(&doc)))),
        }
        doc.decide(now, Decision { approved, reason: reason.clone(), approver: approver.clone(), decided_at: now });
        if doc.owner.is_some() {
            return Plan::Note(Box::new(doc), Ok(Decided::Now));
        }
        if !approved {
            doc.end(now, rejected_end(reason.as_deref(), &approver));
        } else if doc.state == State::ParkedForApproval {
            doc.wake(now, ResumeReason::Approved);
        }
        Plan::Move(Box::new(doc), Ok(Decided::Now))
    })
    .await?
}

/// An answer to a question that is not the last one.
fn decided_earlier(doc: &TaskDoc, named: u32, approved: bool) -> Result<Decided, DecideError> {
    match doc.granted.iter().find(|granted| granted.ordinal == named) {
        Some(_) if approved => Ok(Decided::Before),
        Some(granted) => Err(DecideError::Otherwise { approved: true, approver: granted.approver.clone() }),
        None => Err(DecideError::OtherQuestion { named, asked: doc.approval.as_ref().map(|approval| approval.ordinal) }),
    }
}

fn standing(doc: &TaskDoc) -> &'static str {
    match doc.state {
        State::Queued | State::ParkedForTime => "queued",
        State::Running => "running",
        State::ParkedForApproval => "awaiting_approval",
        State::Ended(kind) => kind.status().as_str(),
    }
}

pub(super) async fn cancel(instance: &Arc<Instance>, task: TaskId, by: String) -> Result<(), CancelError> {
    change(instance, task, |doc, now| {
        let mut doc = doc.unwrap_or_else(|| TaskDoc::blank(task));
        if let State::Ended(kind) = doc.state {
            return Plan::Leave(Err(CancelError::Ended(kind)));
        }
        if doc.cancel_requested.is_some() {
            return Plan::Leave(Ok(()));
        }
        if doc.request.is_none() {
            // Its trigger is still to come, and will find this.
            doc.cancel_requested = Some(by.clone());
            return Plan::Note(Box::new(doc), Ok(()));
        }
        doc.request_cancel(now, by.clone());
        if doc.owner.is_some() {
            return Plan::Note(Box::new(doc), Ok(()));
        }
        doc.end(now, End::error(ResultKind::Cancelled, "cancelled", format!("cancelled by {by}")));
        Plan::Move(Box::new(doc), Ok(()))
    })
    .await?
}

/// A timer's name, taken apart.
struct Timer {
    kind: TimerKind,
    task: TaskId,
    ordinal: u32,
}

enum TimerKind {
    Approval,
    Delay,
    Deadline,
}

impl Timer {
    fn parse(name: &str) -> Option<Self> {
        let (kind, rest) = name.split_once('-')?;
        let (task, ordinal) = rest.rsplit_once('-')?;
        let kind = match kind {
            "approval" => TimerKind::Approval,
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
            TimerKind::Delay if doc.state == State::ParkedForTime => request.and_then(|request| request.not_before),
            TimerKind::Deadline if !doc.ended() && !doc.deadline_passed => request.and_then(|request| request.deadline),
            _ => None,
        }
    }
}

/// What is to become of a timer that fired.
enum Fired {
    /// It fired a little before its time, by this clock: here it waits for it.
    Early(Duration),
    /// It fires again, should it still be needed.
    Keep,
    /// The document is past it.
    Over,
}

pub(super) async fn timer_fired(instance: &Arc<Instance>, name: &str) -> Result<(), PortError> {
    let Some(timer) = Timer::parse(name) else {
        tracing::warn!(timer = name, "a timer with an unknown name fired; it is deleted");
        return instance.ports.timers.delete(name.to_owned()).await;
    };
    loop {
        let fired = change(instance, timer.task, |doc, now| match doc {
            // The write that relies on it may still come.
            None => Plan::Leave(Fired::Keep),
            Some(doc) if doc.ended() => Plan::Leave(Fired::Over),
            Some(doc) => match timer.due(&doc).map(|due| Duration::try_from(due.duration_since(now)).unwrap_or_default()) {
                Some(early) if !early.is_zero() && early <= EARLY_MAX => Plan::Leave(Fired::Early(early)),
                _ => match timer.kind {
                    TimerKind::Approval => approval_fired(doc, timer.ordinal, now),
                    TimerKind::Delay => delay_fired(doc, now),
                    TimerKind::Deadline => deadline_fired(doc, now),
                },
            },
        })
        .await?;
        match fired {
            Fired::Early(early) => instance.ports.world.sleep(early).await,
            Fired::Keep => return Ok(()),
            Fired::Over => return instance.ports.timers.delete(name.to_owned()).await,
        }
    }
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
    doc.end(now, End::error(ResultKind::TimedOut, "approval_expired", "nobody decided before the approval ran out"));
    Plan::Move(Box::new(doc), Fired::Over)
}

fn delay_fired(mut doc: TaskDoc, now: Timestamp) -> Plan<Fired> {
    if doc.request.is_none() {
        return Plan::Leave(Fired::Keep);
    }
    if doc.state != State::ParkedForTime {
        return Plan::Leave(Fired::Over);
    }
    if doc.request.as_ref().and_then(|request| request.not_before).is_some_and(|due| due > now) {
        return Plan::Leave(Fired::Keep);
    }
    doc.wake(now, ResumeReason::Timer);
    Plan::Move(Box::new(doc), Fired::Over)
}

fn deadline_fired(mut doc: TaskDoc, now: Timestamp) -> Plan<Fired> {
    let due = doc.request.as_ref().and_then(|request| request.deadline).is_some_and(|deadline| deadline <= now);
    if !due || doc.deadline_passed {
        return Plan::Leave(Fired::Keep);
    }
    if doc.owner.is_some() {
        doc.deadline_passed = true;
        return Plan::Note(Box::new(doc), Fired::Keep);
    }
    doc.end(now, deadline_end());
    Plan::Move(Box::new(doc), Fired::Over)
}
