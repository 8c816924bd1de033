//! What a document has to say: each event gets its id, its number and its bytes inside the document, before anybody publishes it.

use fte_events::{
    ActionOutcome, ActionRecorded, Actor, EventName, Origin, Outgoing, Payload, ReleaseReason, SandboxChange, SandboxClaim, SandboxKind,
    Status, StatusChanged, TaskId, TaskRequested, event_id, triggers,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::{Claim, SERVICE, TaskDoc};

/// An event that is durable in the document and may not have been published yet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OutEvent {
    /// Counts up over the task's life.
    pub n: u64,
    /// Where it goes.
    pub topic: String,
    /// The task that it is keyed by, where that is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<TaskId>,
    /// The CloudEvent.
    pub body: Box<RawValue>,
}

impl OutEvent {
    /// Whether it takes the task up again.
    pub fn is_trigger(&self) -> bool {
        self.topic == triggers::TOPIC
    }
}

impl TaskDoc {
    pub(super) fn release(&mut self, now: Timestamp, reason: ReleaseReason) {
        if let Some(claim) = self.claim.take() {
            self.say_sandbox(now, SandboxKind::Released, &claim, Some(reason));
        }
    }

    pub(super) fn say_status(&mut self, now: Timestamp, status: Status, more: impl FnOnce(&mut StatusChanged)) {
        self.sequence += 1;
        let mut event = StatusChanged::new(self.task_id, status, self.sequence, self.attempt);
        event.stage = self.stage.clone();
        event.progress_pct = self.progress_pct;
        event.agent = Some(self.agent.clone());
        event.cost_usd = self.cost_usd;
        event.tokens = self.tokens.map(Into::into);
        if self.sequence == 1 {
            event.details.extend(self.made_here().map(|request| ("request".to_owned(), request)));
        }
        more(&mut event);
        self.say(now, EventName::Status { sequence: self.sequence }, &event);
    }

    /// The request, where it is in no event: the configuration made it on an occasion.
    fn made_here(&self) -> Option<Value> {
        let request = self.request.as_ref().filter(|request| request.origin == Origin::Schedule)?;
        let TaskRequested { task, priority, require_approval, origin, .. } = &**request;
        Some(json!({ "task": task, "priority": priority, "require_approval": require_approval, "origin": origin }))
    }

    pub(crate) fn say_action(
        &mut self,
        now: Timestamp,
        action: &str,
        actor: Actor,
        outcome: ActionOutcome,
        more: impl FnOnce(&mut ActionRecorded),
    ) {
        let mut event = ActionRecorded::new(action, actor, outcome, now);
        event.task_id = Some(self.task_id);
        more(&mut event);
        self.say(now, EventName::Action { ordinal: self.out + 1 }, &event);
    }

    pub(super) fn say_sandbox(&mut self, now: Timestamp, kind: SandboxKind, claim: &Claim, reason: Option<ReleaseReason>) {
        let ends = kind.ends_claim();
        let held_ms = ends.then(|| u64::try_from(now.duration_since(claim.claimed_at).as_millis()).unwrap_or(0));
        let change = SandboxChange {
            kind,
            claim: SandboxClaim {
                sandbox_id: claim.sandbox_id.clone(),
                claim_id: claim.claim_id,
                pool: self.agent.clone(),
                agent: self.agent.clone(),
                runtime: claim.runtime.clone(),
                warm: claim.warm,
                waited_ms: claim.waited_ms,
                held_ms,
                reason,
                in_use: if ends { claim.in_use.saturating_sub(1) } else { claim.in_use },
                capacity: claim.capacity,
                extra: Map::new(),
            },
        };
        let name = match kind {
            SandboxKind::Claimed => EventName::Claimed(claim.claim_id),
            SandboxKind::ClaimFailed => EventName::ClaimFailed(claim.claim_id),
            SandboxKind::Released | SandboxKind::Expired => EventName::Released(claim.claim_id),
        };
        self.say(now, name, &change);
    }

    pub(super) fn say<P: Payload>(&mut self, now: Timestamp, name: EventName<'_>, payload: &P) {
        // A hand-off is about the child.
        let about = payload.task_id().unwrap_or(self.task_id);
        let mut event =
            Outgoing::new(SERVICE, event_id(self.task_id, name), now, payload).about(about).traceparent(self.traceparent.as_deref());
        if let Some(cause) = &self.cause {
            event = event.cause(cause);
        }
        if !self.tenant.is_empty() {
            event = event.tenant(&self.tenant);
        }
        self.out += 1;
        let entry = OutEvent {
            n: self.out,
            topic: event.topic().into_owned(),
            key: Some(about).filter(|about| *about != self.task_id),
            body: event.to_raw(),
        };
        self.outbox.push(entry);
    }
}
