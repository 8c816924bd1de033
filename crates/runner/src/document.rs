//! The task document: the one truth about a task, and the moves it can make.
//!
//! Pure: no I/O, no clock. Every move changes the document and appends what it has to say to the outbox inside it, so that one guarded write
//! makes both durable. Status sequences are gapless because only moves take numbers. Who sends an outbox may be anyone, any number of
//! times: ids are derived from the task, so a second publish is recognised.

use fte_events::{
    ActionOutcome, Actor, ActorType, Artifact, ClaimId, EventName, ReleaseReason, ResultKind, ResumeReason, Runtime, SandboxKind, Status,
    TaskError, TaskId, TaskRequested, TaskResult, TaskResumed, Tokens, json_sha256,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The name this service publishes under.
pub(crate) const SERVICE: &str = "runner";
/// Most events that may wait in a document's outbox; a task that reports faster is slowed down.
pub(crate) const OUTBOX_MAX: usize = 256;
/// Most artifacts of a task.
pub(crate) const ARTIFACTS_MAX: usize = 1000;

mod approvals;
mod budget;
mod handoff;
mod messages;
mod says;

pub use self::approvals::{Approval, Ask, Decision, Granted, POLICY, Yes, edited_request, question, request_input};
pub use self::budget::{Budget, sum_usd};
pub use self::handoff::{Handoff, HandoffReply, Parent, PersonAnswer};
pub use self::messages::{Accepted, MESSAGES_MAX, Message, NoRoom};
pub use self::says::OutEvent;

/// One process's life as a runner, new for each start.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InstanceId(pub String);

/// Where a task stands, as far as responsibility goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Waits for a sandbox, or for the timers with which it will be parked; without an owner, for the delivery of its turn.
    Queued,
    /// An agent works on it, or waits for a decision in its sandbox.
    Running,
    /// Waits without owner or sandbox for a person.
    ParkedForApproval,
    /// Waits without owner or sandbox for the replies to its hand-offs, or for the person that it was handed to.
    ParkedForReply,
    /// Waits without owner or sandbox for its time.
    ParkedForTime,
    /// Ended; nothing follows.
    Ended(ResultKind),
}

/// A held sandbox.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    /// Its id.
    pub claim_id: ClaimId,
    /// Which sandbox.
    pub sandbox_id: String,
    /// What it is made of.
    pub runtime: Runtime,
    /// Since when.
    pub claimed_at: Timestamp,
    /// How long the task waited for it.
    pub waited_ms: u64,
    /// Sandboxes of the pool in use, this one included.
    pub in_use: u32,
    /// Sandboxes the pool may have.
    pub capacity: u32,
    /// Whether one stood ready.
    #[serde(default)]
    pub warm: bool,
}

/// The document `task/{id}`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TaskDoc {
    /// Which task.
    pub task_id: TaskId,
    /// Unique to each write, so that a writer recognises its own.
    pub stamp: String,
    /// The stamp of the write that made it.
    #[serde(default)]
    pub born: String,
    /// What was asked; absent while only a cancel or a takeover knows of the task, and dropped at its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Box<TaskRequested>>,
    /// The trigger's event id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// The trigger's trace context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// Whose it is. Empty while only a takeover, or somebody who may cancel anybody's tasks, knows of it.
    #[serde(default)]
    pub tenant: String,
    /// Who is to do it.
    pub agent: String,
    /// Where it stands.
    pub state: State,
    /// How often it was taken up; a trigger of another turn means nothing.
    pub turn: u32,
    /// The instance responsible.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<InstanceId>,
    /// Writes of its drivers: nobody else changes it, so that a driver knows its own writes again.
    #[serde(default)]
    pub revision: u64,
    /// Which try, from 1.
    pub attempt: u32,
    /// The last status sequence used.
    pub sequence: u64,
    /// The sandbox held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<Claim>,
    /// The last question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<Approval>,
    /// The questions before that were answered with yes, by whom.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub granted: Vec<Granted>,
    /// What was answered with yes since the checkpoint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<Yes>,
    /// Who waits for it, if it was handed off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Box<Parent>>,
    /// What it has handed off.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub handoffs: Vec<Handoff>,
    /// What the person answered that it was handed to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<PersonAnswer>,
    /// What people have said to it, as far as no checkpoint includes it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<Message>,
    /// All messages that were accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accepted: Vec<Accepted>,
    /// What the agent asked to keep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Value>,
    /// The agent's last stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// The agent's last progress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress_pct: Option<u8>,
    /// What was made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<Artifact>,
    /// What it cost so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
    /// The tokens that it took so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Tokens>,
    /// Somebody called it off; who.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel_requested: Option<String>,
    /// Somebody did before its request came, which is still to be said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled_early: Option<CancelledEarly>,
    /// It is to be forgotten: nothing of it is kept once it has ended.
    #[serde(default)]
    pub erased: bool,
    /// Its deadline passed while somebody owned it.
    #[serde(default)]
    pub deadline_passed: bool,
    /// When work first began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// Durable timers that were made for it before this was written, and are to be deleted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub timers: Vec<String>,
    /// Events appended so far.
    pub out: u64,
    /// Events to publish.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outbox: Vec<OutEvent>,
}

/// A task was called off before anybody had met it: who did, and when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CancelledEarly {
    /// Who.
    pub by: Actor,
    /// When.
    pub at: Timestamp,
}

/// Something the agent reported that becomes a status event or an action.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// It has asked a person and waits for the answer.
    pub asking: bool,
    /// It entered this stage.
    pub stage: Option<String>,
    /// It got this far.
    pub progress_pct: Option<u8>,
    /// For people.
    pub message: Option<String>,
    /// Lines for people.
    pub log: Vec<String>,
    /// Actions, in order.
    pub actions: Vec<(String, Map<String, Value>)>,
    /// What the configuration answered, in order: whether it said yes, to what, and about it.
    pub by_policy: Vec<(bool, String, Map<String, Value>)>,
    /// Files, in order.
    pub artifacts: Vec<Artifact>,
    /// What to give back at the next start, and the ordinals of the answers that it includes.
    pub checkpoint: Option<(Value, Vec<u32>)>,
    /// The messages that it includes, or the one before does.
    pub heard: Vec<String>,
    /// What it cost.
    pub cost_usd: f64,
    /// The tokens that it took.
    pub tokens: Tokens,
}

impl Report {
    /// Whether there is anything to write.
    pub fn is_news(&self) -> bool {
        *self != Self { asking: self.asking, ..Self::default() }
    }
}

/// How a task ends.
#[derive(Clone, Debug, PartialEq)]
pub struct End {
    /// The kind.
    pub kind: ResultKind,
    /// The agent's answer.
    pub result: Option<Value>,
    /// What went wrong.
    pub error: Option<TaskError>,
}

impl End {
    /// An end with an error.
    pub fn error(kind: ResultKind, code: &str, message: impl Into<String>) -> Self {
        Self { kind, result: None, error: Some(TaskError::new(code, message)) }
    }
}

/// The key of a task's document.
pub fn key(task: TaskId) -> String {
    format!("task/{task}")
}

impl TaskDoc {
    /// A task that nobody has asked for yet: queued at turn 0, without owner and request.
    pub fn blank(task_id: TaskId) -> Self {
        Self {
            task_id,
            stamp: String::new(),
            born: String::new(),
            request: None,
            cause: None,
            traceparent: None,
            tenant: String::new(),
            agent: String::new(),
            state: State::Queued,
            turn: 0,
            owner: None,
            revision: 0,
            attempt: 1,
            sequence: 0,
            claim: None,
            approval: None,
            granted: Vec::new(),
            answers: Vec::new(),
            parent: None,
            handoffs: Vec::new(),
            answer: None,
            messages: Vec::new(),
            accepted: Vec::new(),
            checkpoint: None,
            stage: None,
            progress_pct: None,
            artifacts: Vec::new(),
            cost_usd: None,
            tokens: None,
            cancel_requested: None,
            cancelled_early: None,
            erased: false,
            deadline_passed: false,
            started_at: None,
            timers: Vec::new(),
            out: 0,
            outbox: Vec::new(),
        }
    }

    /// Whether a delivery of `turn` may take it up.
    pub fn admissible(&self, turn: u32) -> bool {
        self.owner.is_none() && self.state == State::Queued && self.turn == turn
    }

    /// Whether its deadline has passed, by this clock or by somebody's who left a note.
    pub fn is_overdue(&self, now: Timestamp) -> bool {
        self.deadline_passed || self.request.as_ref().and_then(|request| request.deadline).is_some_and(|deadline| deadline <= now)
    }

    /// Whether it has ended.
    pub fn ended(&self) -> bool {
        matches!(self.state, State::Ended(_))
    }

    /// Whether somebody may see it who sees this tenant's tasks; none stands for every tenant's.
    pub fn is_seen_by(&self, tenant: Option<&str>) -> bool {
        tenant.is_none_or(|tenant| self.tenant.is_empty() || self.tenant == tenant)
    }

    /// The same, of a task that was met: a document that holds but a cancel, or an erasure, is of one whose request is still to come, if there is any.
    pub fn is_met_by(&self, tenant: Option<&str>) -> bool {
        self.is_seen_by(tenant) && (self.request.is_some() || self.ended())
    }

    /// What is kept of an ended task that was erased: that it was there, and how it ended. What a document may hold besides is not listed, so that nothing
    /// that is added to it is kept by oversight.
    pub fn stripped(self) -> Self {
        let Self { task_id, tenant, agent, state, turn, revision, attempt, sequence, timers, out, .. } = self;
        Self { tenant, agent, state, turn, revision, attempt, sequence, timers, out, erased: true, ..Self::blank(task_id) }
    }

    /// Whether there is nothing more to forget.
    pub fn is_stripped(&self) -> bool {
        let kept = |doc: Self| serde_json::to_value(Self { stamp: String::new(), born: String::new(), ..doc }).ok();
        self.erased && kept(self.clone()) == kept(self.clone().stripped())
    }

    /// Whether it waits, without an owner, for a person.
    pub fn awaits_decision(&self) -> bool {
        matches!(self.state, State::Running | State::ParkedForApproval) && self.open_question().is_some_and(|open| open.asking)
    }

    /// It waits for a sandbox, or for its time.
    pub fn queue(&mut self, now: Timestamp) {
        self.state = State::Queued;
        self.say_status(now, Status::Queued, |_| {});
    }

    /// It has a sandbox and starts.
    pub fn start(&mut self, now: Timestamp, claim: Claim) {
        self.state = State::Running;
        self.started_at.get_or_insert(now);
        self.say_sandbox(now, SandboxKind::Claimed, &claim, None);
        self.claim = Some(claim);
        self.say_status(now, Status::Running, |_| {});
    }

    /// The sandbox that was claimed could not be had, or its agent did not start in it. The claim is given back as any other, by what follows.
    pub fn claim_failed(&mut self, now: Timestamp, reason: ReleaseReason) {
        if let Some(claim) = self.claim.clone() {
            self.say_sandbox(now, SandboxKind::ClaimFailed, &claim, Some(reason));
        }
    }

    /// The agent reported.
    pub fn report(&mut self, now: Timestamp, report: Report) {
        let status = self.status_at_work(report.asking);
        for (action, data) in report.actions {
            let data = Value::Object(data);
            let agent = Actor::new(ActorType::Agent, &self.agent);
            let digest = json_sha256(&data);
            self.say_action(now, &action, agent, ActionOutcome::Success, |event| event.input_sha256 = Some(digest));
            self.say_status(now, status, |event| {
                event.details.insert("action".to_owned(), Value::from(action));
                event.details.insert("data".to_owned(), data);
            });
        }
        for (allowed, action, data) in report.by_policy {
            self.answered_by_policy(now, status, (allowed, action), data);
        }
        let costs = report.cost_usd > 0.0 || report.tokens != Tokens::default();
        for artifact in report.artifacts {
            // An agent that was started again may say what it said before.
            let known = self.artifacts.iter().any(|kept| kept.name == artifact.name && kept.sha256 == artifact.sha256);
            if self.artifacts.len() < ARTIFACTS_MAX && !known {
                let shown = serde_json::to_value(&artifact).unwrap_or_default();
                self.artifacts.push(artifact);
                self.say_status(now, status, |event| drop(event.details.insert("artifact".to_owned(), shown)));
            }
        }
        self.spend(report.cost_usd, report.tokens);
        self.confirm_messages(&report.heard);
        if let Some((checkpoint, included)) = report.checkpoint {
            self.checkpoint = Some(checkpoint);
            self.answers.retain(|answer| !included.contains(&answer.ordinal));
        }
        let news = report.stage.is_some() || report.progress_pct.is_some() || report.message.is_some() || !report.log.is_empty() || costs;
        if news {
            self.stage = report.stage.or_else(|| self.stage.take());
            self.progress_pct = report.progress_pct.or(self.progress_pct);
            self.say_status(now, status, |event| {
                event.message = report.message;
                if !report.log.is_empty() {
                    event.details.insert("log".to_owned(), Value::from(report.log));
                }
            });
        }
    }

    /// Somebody calls it off; whoever owns the task, or ends it, acts on it.
    pub fn request_cancel(&mut self, now: Timestamp, by: Actor) {
        self.cancel_requested = Some(by.id.clone());
        self.say_action(now, "task.cancel-requested", by, ActionOutcome::Success, |_| {});
    }

    /// Somebody calls it off before its request is here: what it is of, and for whom, is not known yet, so nothing can be said.
    pub fn cancel_early(&mut self, now: Timestamp, by: Actor) {
        self.cancel_requested = Some(by.id.clone());
        self.cancelled_early = Some(CancelledEarly { by, at: now });
    }

    /// Its request is here: says who had called it off.
    pub fn say_cancelled_early(&mut self) {
        if let Some(CancelledEarly { by, at }) = self.cancelled_early.take() {
            self.say_action(at, "task.cancel-requested", by, ActionOutcome::Success, |_| {});
        }
    }

    /// It gives its sandbox and its owner back while a person decides, or while others work on what it handed off.
    pub fn park(&mut self, now: Timestamp) {
        self.release(now, ReleaseReason::Parked);
        self.state = if self.open_question().is_some() { State::ParkedForApproval } else { State::ParkedForReply };
        self.owner = None;
    }

    /// It gives its owner back until its time has come.
    pub fn park_for_time(&mut self) {
        self.state = State::ParkedForTime;
        self.owner = None;
    }

    /// What it waited for is there: it is queued for its next turn, whose trigger goes out.
    pub fn wake(&mut self, now: Timestamp, reason: ResumeReason) {
        self.turn += 1;
        self.owner = None;
        self.state = State::Queued;
        self.asks_no_more();
        let decided = if reason == ResumeReason::Approved { self.decided() } else { None };
        self.say_status(now, Status::Queued, |event| event.details.extend(decided));
        let resumed = TaskResumed { task_id: self.task_id, turn: self.turn, reason, extra: Map::new() };
        self.say(now, EventName::Trigger { turn: self.turn }, &resumed);
    }

    /// Its resumption was delivered, so it and all that was said before it are out: see `outbox`.
    pub fn forget_resumed(&mut self) {
        let resumed = self.outbox.iter().rev().find(|event| event.is_trigger()).map_or(0, |event| event.n);
        self.outbox.retain(|event| event.n > resumed);
    }

    /// Its owner is gone: the sandbox is written off and the task queued again, at the same try. A question that is still open stays open,
    /// without an owner.
    pub fn cut_off(&mut self, now: Timestamp) {
        if let Some(claim) = self.claim.take() {
            self.say_sandbox(now, SandboxKind::Expired, &claim, Some(ReleaseReason::Takeover));
        }
        // An agent with open hand-offs may have been at work on something else.
        let waits = self.awaits_decision() && !self.has_unread_reply();
        if waits && self.cancel_requested.is_none() && !self.is_overdue(now) {
            self.state = State::ParkedForApproval;
            self.owner = None;
        } else {
            self.wake(now, ResumeReason::Takeover);
        }
    }

    /// The try failed and another one follows, under the same owner.
    pub fn retry(&mut self, now: Timestamp, error: TaskError) {
        self.release(now, ReleaseReason::Failed);
        self.attempt += 1;
        self.state = State::Queued;
        self.asks_no_more();
        // The next try begins anew; what the last one showed is not its progress.
        self.stage = None;
        self.progress_pct = None;
        self.say_status(now, Status::Queued, |event| event.error = Some(error));
    }

    /// It ends. One result, the final status, and the sandbox given back.
    pub fn end(&mut self, now: Timestamp, end: End) {
        self.drop_messages(now);
        let started_at = self.started_at.unwrap_or(now);
        let duration_ms = u64::try_from(now.duration_since(started_at).as_millis()).unwrap_or(0);
        let error = end.error.clone();
        let result = TaskResult {
            task_id: self.task_id,
            status: end.kind,
            result: end.result,
            artifacts: std::mem::take(&mut self.artifacts),
            error: end.error,
            agent: self.agent.clone(),
            parent_task_id: self.parent.as_ref().map(|parent| parent.task_id),
            handoff_id: self.parent.as_ref().map(|parent| parent.handoff_id),
            attempt: self.attempt,
            started_at,
            completed_at: now,
            duration_ms,
            cost_usd: self.cost_usd,
            tokens: self.tokens.map(Into::into),
            reply: None,
            extra: Map::new(),
        };
        self.say(now, EventName::Result, &result);
        self.say_status(now, end.kind.status(), |event| event.error = error);
        self.release(
            now,
            match end.kind {
                ResultKind::Completed => ReleaseReason::Completed,
                ResultKind::Cancelled => ReleaseReason::Cancelled,
                ResultKind::TimedOut => ReleaseReason::TimedOut,
                ResultKind::Failed | ResultKind::Rejected | ResultKind::BudgetExceeded => ReleaseReason::Failed,
            },
        );
        self.withdraw_handoffs(now);
        self.state = State::Ended(end.kind);
        self.owner = None;
        self.request = None;
        self.checkpoint = None;
        self.answers = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use fte_events::Extra;

    use super::*;

    #[test]
    fn an_artifact_that_is_said_again_is_listed_once() {
        let artifact = |name: &str, sha256: &str| {
            let (name, sha256) = (name.to_owned(), sha256.to_owned());
            Artifact {
                name,
                content_type: "text/plain".into(),
                size_bytes: 1,
                uri: format!("artifact:{sha256}"),
                sha256,
                extra: Extra::default(),
            }
        };
        let mut doc = TaskDoc::blank(TaskId::now());
        let said = |artifacts: Vec<Artifact>| Report { artifacts, ..Report::default() };
        doc.report(Timestamp::now(), said(vec![artifact("a", "1"), artifact("b", "1")]));
        let events = doc.outbox.len();
        doc.report(Timestamp::now(), said(vec![artifact("a", "1"), artifact("b", "1")]));
        assert_eq!((doc.artifacts.len(), doc.outbox.len()), (2, events));
        // Another content under the same name is another artifact.
        doc.report(Timestamp::now(), said(vec![artifact("a", "2")]));
        assert_eq!(doc.artifacts.len(), 3);
    }
}
