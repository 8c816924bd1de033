//! Admission: a delivered request to run, or a resumption, becomes this instance's responsibility.
//!
//! Admitted are a missing document (turn 0 only) and an ownerless queued one at that very turn. Read the document, write the index, write the document.
//! The read may be left out where the write only creates: whoever takes over from this instance makes the documents that its index has and the store
//! has not, so that a write that froze fails all the same.
//! With no place free, or none for its agent, the delivery is held, and then given back: the broker is the buffer.
//!
//! To wait for a sandbox with an owner costs a task another write. So one that may be free in a moment is waited for first, in its agent's queue as all others.
//!
//! A task that is made and run is written into the index and into its document at the same time, which saves a commit from the way of each task: until both
//! are durable its delivery is not acknowledged, and makes up for an index that lacks it (see `reachable`). Nothing else is in the outbox of such a
//! document than its owner sends, once it drives it.
//!
//! Any other delivery is done with, if its task can be found without it. Whatever its document still needs is the business of whoever has it in an
//! index: a driver, a doubt that is being settled, or a takeover. Above all its outbox is not sent from here: a resumption in it would be published
//! again for each delivery of that resumption, for ever.

use std::sync::Arc;
use std::time::Duration;

use fte_events::{Priority, ResultKind, TaskId, TaskRequested, sha256_hex};
use futures_util::future::{Either, join, select};

use super::change::{Plan, change};
use super::drive::{self, Drive};
use super::index::{self, AddError, LeaseDoc, Purpose};
use super::instance::Instance;
use super::pool::{Ask, Full, Key, Place, Slot};
use super::waits::Wait;
use crate::document::{Claim, End, Parent, TaskDoc};
use crate::metrics;
use crate::ports::{Guard, PortError, Saved};

/// A delivery that starts a task or takes it up again.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// Which task.
    pub task_id: TaskId,
    /// 0 for a request, n for a resumption.
    pub turn: u32,
    /// The request, at turn 0.
    pub request: Option<Box<TaskRequested>>,
    /// Who handed it off, if somebody did.
    pub parent: Option<Box<Parent>>,
    /// Why it cannot be done at all: the task ends `failed` with this code and message.
    pub refusal: Option<(&'static str, String)>,
    /// Whose task it is.
    pub tenant: String,
    /// The event's id.
    pub event_id: String,
    /// The event's trace context.
    pub traceparent: Option<String>,
}

/// How a delivery ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// It is done with: the effect is durable, or it never had one.
    Done,
    /// Deliver it again later.
    Retry(String),
}

/// What admitting a task comes to.
enum Step {
    /// It is owned, and has a sandbox, waits for one, or is to be parked.
    Run(Option<Slot>),
    /// It has ended.
    Leave,
}

pub(super) async fn admit(instance: &Arc<Instance>, incoming: Incoming) -> Admitted {
    match try_admit(instance, incoming).await {
        Ok(admitted) => admitted,
        Err(error) => Admitted::Retry(error.to_string()),
    }
}

async fn try_admit(instance: &Arc<Instance>, incoming: Incoming) -> Result<Admitted, PortError> {
    let task = incoming.task_id;
    // Whose place it needs is known once the document is, at the latest.
    let asked = incoming.request.as_ref().map(|request| request.agent.as_deref().unwrap_or(&instance.settings.default_agent));
    let mut place = asked.and_then(|agent| instance.pool.try_place(agent).ok());
    // A request is nearly always new: then the read is saved. The write only creates, and after a conflict there is a read.
    let mut taken_as_new = place.is_some() && incoming.request.is_some() && !instance.is_held(task, 0);
    let mut refused = None;
    loop {
        let found = if std::mem::take(&mut taken_as_new) { None } else { instance.load(task).await? };
        let (mut doc, guard) = match found {
            None if incoming.turn == 0 => (TaskDoc::blank(task), Guard::Absent),
            None => return Ok(Admitted::Done),
            Some((doc, guard)) => (doc, guard),
        };
        if !doc.admissible(incoming.turn) {
            return reachable(instance, &doc, incoming.turn).await;
        }
        let agent = if doc.agent.is_empty() { asked.unwrap_or_default() } else { &doc.agent };
        let free = match place.take().map_or_else(|| instance.pool.try_place(agent), Ok) {
            Ok(free) => free,
            Err(full) => {
                place = hold_for_place(instance, agent).await;
                if place.is_none() {
                    return Ok(Admitted::Retry(no_place(full).to_owned()));
                }
                // Much may have happened while waiting.
                continue;
            }
        };
        let slot = slot_in_a_moment(instance, &doc, &incoming).await;
        // Before the write, not after: until its answer is here the task would look like one that is owned and not driven.
        let Some(hold) = instance.hold(&doc) else { return Ok(Admitted::Retry("it is being taken up by another delivery".to_owned())) };
        let step = prepare(instance, &mut doc, &incoming, refused.as_ref(), slot);
        let added = match instance.index.begin_add(task, Purpose::Run) {
            Ok(added) => Box::pin(added),
            Err(error) => return Ok(not_added(error)),
        };
        let (added, saved) = if guard == Guard::Absent && matches!(step, Step::Run(_)) {
            join(added, Box::pin(instance.save(doc, guard.clone()))).await
        } else {
            match added.await {
                Ok(()) => (Ok(()), instance.save(doc, guard.clone()).await),
                Err(error) => return Ok(not_added(error)),
            }
        };
        if let Err(error) = added {
            // This instance is over: whether its document was written or not, the delivery comes again.
            return Ok(not_added(error));
        }
        match saved {
            (Ok(Saved::Written), doc) => {
                match step {
                    Step::Run(slot) => Drive::begin(instance, doc, Some(free), slot, hold),
                    Step::Leave => drive::settle(instance, doc, Purpose::Run),
                }
                return Ok(Admitted::Done);
            }
            (Ok(Saved::Conflict), doc) => {
                instance.doubts.add(&doc, guard, Purpose::Run);
                place = Some(free);
            }
            (Err(error), _) if error.refused && refused.is_none() => {
                instance.index.remove(task, Purpose::Run);
                refused = Some(error);
                place = Some(free);
            }
            (Err(error), doc) => {
                instance.doubts.add(&doc, guard, Purpose::Run);
                return Err(error);
            }
        }
    }
}

fn not_added(error: AddError) -> Admitted {
    let reason = match error {
        AddError::Full => "the index is full",
        AddError::Fenced => "this instance was cut off",
    };
    Admitted::Retry(reason.to_owned())
}

/// A delivery that admits nothing is done with when its task can be found without it. One that was just made may have an owner that has not got it in its
/// index yet; if that owner is gone by now, the task is moved on here, as a takeover would.
async fn reachable(instance: &Arc<Instance>, doc: &TaskDoc, turn: u32) -> Result<Admitted, PortError> {
    let Some(owner) = doc.owner.as_ref().filter(|_| doc.turn == 0 && turn == 0) else { return Ok(Admitted::Done) };
    if *owner == instance.id {
        let driven = instance.is_driven(doc);
        return Ok(if driven { Admitted::Done } else { Admitted::Retry("it is being taken up by another delivery".to_owned()) });
    }
    let lease = instance.ports.store.get(index::key(owner)).await?;
    let parsed = lease.map(|lease| serde_json::from_slice::<LeaseDoc>(&lease.value)).transpose();
    match parsed.map_err(|error| PortError::new("reading a runner's index", error.to_string()))? {
        Some(lease) if lease.entries.contains(&doc.task_id) => Ok(Admitted::Done),
        Some(lease) if lease.fenced_by.is_none() => Ok(Admitted::Retry("another runner is taking it up".to_owned())),
        Some(_) | None => {
            change(instance, doc.task_id, |doc, now| match doc {
                Some(mut doc) if doc.turn == 0 && doc.owner.as_ref() == Some(owner) => {
                    doc.cut_off(now);
                    Plan::Move(Box::new(doc), ())
                }
                _ => Plan::Leave(()),
            })
            .await?;
            Ok(Admitted::Done)
        }
    }
}

fn no_place(full: Full) -> &'static str {
    match full {
        Full::Process => "no place is free",
        Full::Queue => "the agent's queue is full",
    }
}

async fn hold_for_place(instance: &Arc<Instance>, agent: &str) -> Option<Place> {
    let ended = Box::pin(async {
        select(Box::pin(instance.index.fenced()), Box::pin(instance.stopping.on())).await;
    });
    let over = select(instance.ports.world.sleep(instance.settings.hold), ended);
    match select(Box::pin(instance.pool.place(agent)), over).await {
        Either::Left((place, _)) => place,
        Either::Right(_) => None,
    }
}

/// A sandbox, if none is free and one is in a moment.
async fn slot_in_a_moment(instance: &Arc<Instance>, doc: &TaskDoc, incoming: &Incoming) -> Option<Slot> {
    let (request, tenant) = match &doc.request {
        Some(request) => (request, &doc.tenant),
        None => (incoming.request.as_ref()?, &incoming.tenant),
    };
    let (settings, world) = (&instance.settings, &instance.ports.world);
    let named = request.agent.as_deref().unwrap_or(&settings.default_agent);
    let agent = if doc.agent.is_empty() { named } else { &doc.agent };
    let waits_for_more =
        request.require_approval || request.not_before.is_some() || Key::of_request(instance, agent, tenant, request).is_some();
    if waits_for_more || !instance.pool.is_free_within(agent, settings.soon) {
        return None;
    }
    let ask = ask(instance, (doc.task_id, agent, tenant), Some(request), world.monotonic());
    match select(Box::pin(instance.pool.slot(agent, ask, None)), world.sleep(settings.soon * 2)).await {
        Either::Left((slot, _)) => slot,
        Either::Right(_) => None,
    }
}

/// Changes the document as admitting it does.
fn prepare(instance: &Instance, doc: &mut TaskDoc, incoming: &Incoming, refused: Option<&PortError>, slot: Option<Slot>) -> Step {
    let settings = &instance.settings;
    let now = instance.ports.world.now();
    if doc.turn > 0 {
        doc.forget_resumed();
    }
    if doc.request.is_none() {
        doc.request = incoming.request.clone();
        if !doc.is_seen_by(Some(&incoming.tenant)) {
            // Somebody called off a task that is not theirs.
            doc.cancel_requested = None;
            doc.cancelled_early = None;
            doc.erased = false;
        }
        doc.tenant.clone_from(&incoming.tenant);
        doc.cause = Some(incoming.event_id.clone());
        doc.traceparent = incoming.traceparent.clone();
        doc.parent.clone_from(&incoming.parent);
        let asked = doc.request.as_ref().and_then(|request| request.agent.clone());
        doc.agent = asked.unwrap_or_else(|| settings.default_agent.clone());
        doc.say_cancelled_early();
        if doc.is_for_a_person()
            && let Some(request) = &mut doc.request
        {
            // Nobody may forget it for ever.
            request.deadline.get_or_insert(now + settings.handoff_ttl);
        }
    }
    if let Some(end) = refused.map(refused_end).or_else(|| ends_at_once(instance, doc, incoming)) {
        doc.end(now, end);
        return Step::Leave;
    }
    if doc.request.is_none() {
        doc.end(now, End::error(ResultKind::Failed, "request_missing", "the task was resumed, but what was asked is not known"));
        return Step::Leave;
    }
    doc.owner = Some(instance.id.clone());
    if let Some(wait) = Wait::of(doc, now) {
        // One that only a person holds back says so itself, at once.
        if doc.turn == 0 && matches!(wait, Wait::Time(_)) {
            doc.queue(now);
        }
        return Step::Run(None);
    }
    // What has a key asks for that first.
    let slot = if Key::of(instance, doc).is_some() { None } else { slot.or_else(|| instance.pool.try_slot(&doc.agent)) };
    match &slot {
        Some(slot) => {
            let claim = claim(instance, doc, slot, slot.waited);
            doc.start(now, claim);
        }
        // A task that was woken has said that it is queued already.
        None if doc.turn == 0 => doc.queue(now),
        None => {}
    }
    Step::Run(slot)
}

fn ends_at_once(instance: &Instance, doc: &TaskDoc, incoming: &Incoming) -> Option<End> {
    let called_off = drive::called_off(doc, instance.ports.world.now());
    if doc.cancel_requested.is_some() {
        return called_off;
    }
    if let Some((code, message)) = &incoming.refusal {
        return Some(End::error(ResultKind::Failed, code, message.clone()));
    }
    if called_off.is_some() {
        return called_off;
    }
    if let Some(end) = rejection(doc) {
        return Some(end);
    }
    if !instance.settings.agents.contains_key(&doc.agent) && !doc.is_for_a_person() {
        let known: Vec<&str> = instance.settings.agents.keys().map(String::as_str).collect();
        let message = format!("there is no agent {:?} here; known are {}", doc.agent, known.join(", "));
        return Some(End::error(ResultKind::Failed, "agent_unknown", message));
    }
    None
}

pub(super) fn deadline_end() -> End {
    End::error(ResultKind::TimedOut, "deadline_passed", "the task's deadline passed before it was done")
}

pub(super) fn budget_end(why: String) -> End {
    End::error(ResultKind::BudgetExceeded, "budget_exceeded", why)
}

pub(super) fn refused_end(error: &PortError) -> End {
    let message = format!("the task has become too large: {error}; give its agent less to keep, or the state store a higher limit");
    End::error(ResultKind::Failed, "state_refused", message)
}

/// The end of a task of which somebody has said no to the last question. It counts from then on, whatever its agent has done meanwhile.
pub(super) fn rejection(doc: &TaskDoc) -> Option<End> {
    let decision = doc.approval.as_ref()?.decision.as_ref().filter(|decision| !decision.approved)?;
    Some(rejected_end(decision.reason.as_deref(), &decision.approver))
}

pub(super) fn rejected_end(reason: Option<&str>, approver: &str) -> End {
    let message = reason.map_or_else(|| format!("rejected by {approver}"), |reason| format!("rejected by {approver}: {reason}"));
    End::error(ResultKind::Rejected, "rejected", message)
}

pub(super) fn claim(instance: &Instance, doc: &TaskDoc, slot: &Slot, waited: Duration) -> Claim {
    let limits = instance.settings.agents.get(&doc.agent);
    metrics::waited(&doc.agent, waited);
    Claim {
        claim_id: fte_events::ClaimId::of(doc.task_id, doc.turn, doc.attempt),
        sandbox_id: slot.sandbox_id(),
        runtime: limits.map_or(fte_events::Runtime::None, |limits| limits.runtime.clone()),
        claimed_at: instance.ports.world.now(),
        waited_ms: u64::try_from(waited.as_millis()).unwrap_or(u64::MAX),
        in_use: slot.in_use,
        capacity: limits.map_or(0, |limits| limits.max),
        warm: instance.ports.agents.is_warm(&doc.agent),
    }
}

/// How a task of this agent and tenant waits for a sandbox, since that moment of the monotonic clock.
pub(super) fn ask(
    instance: &Instance,
    (task, agent, tenant): (TaskId, &str, &str),
    request: Option<&TaskRequested>,
    since: Duration,
) -> Ask {
    let who = request.and_then(|request| request.requester.as_ref()).map(|who| (&who.requester_type, &who.id));
    // However long their name is, it takes up little where they wait.
    let requester = sha256_hex(serde_json::json!([tenant, who]).to_string().as_bytes()).into();
    let priority = request.map_or_else(Priority::default, |request| request.priority);
    let key = request.and_then(|request| Key::of_request(instance, agent, tenant, request));
    Ask { task, priority, requester, key, since }
}
