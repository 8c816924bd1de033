//! Hand-offs in a task's document: what it has asked of other agents and of people, and what came back.
//!
//! * A hand-off is one child: its task id is derived from the parent and the hand-off's ordinal. Which ordinal a question has stands in the document
//!   before the child is asked for, so that an agent that starts over and asks the same again gets the same child.
//! * A reply is written down once; the first one counts, be it the child's result or the end of its time.
//! * Every hand-off of a task stays until its end: the same question gets the same answer, however often and by whichever start of the agent it is asked. To
//!   forget those whose replies a checkpoint includes lost: an agent may say its checkpoint while a reply is on its way to it, and nobody knows which was first.
//!
//! A *cycle* is a hand-off to an agent that already waits in the chain, the sender itself included: it would be asked to work on what it waits for. To forbid
//! only the same question lost: two agents that pass a task to and fro rarely put it in the same words. What somebody else must know to go on stands in
//! a reply, or is a new hand-off by the one who got it.

use fte_events::handoffs::{DEPTH_MAX, HUMAN};
use fte_events::limits::json_bytes;
use fte_events::{
    ActionOutcome, Actor, ActorType, AgentName, Artifact, EventName, HandoffRequested, HandoffWithdrawn, ResultKind, Status, TaskError,
    TaskId, TaskResult, Tokens, event_id, json_sha256,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{Budget, End, TaskDoc};
use crate::ports;

/// Most hand-offs of a task that wait for their replies.
pub(crate) const OPEN_MAX: usize = 16;
/// Most hand-offs of a task in all: their replies are kept for an agent that starts over.
const MADE_MAX: usize = 64;
/// Most bytes of the replies that are kept. What is more is told without its result, so that a document always fits into the state store.
const REPLIES_BYTES_MAX: usize = 1024 * 1024;

/// Of a task that was handed off: who waits for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Parent {
    /// The task that waits.
    pub task_id: TaskId,
    /// The hand-off.
    pub handoff_id: Uuid,
    /// The agent that waits.
    pub from: AgentName,
    /// Those that wait for that one, the first one first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ancestors: Vec<AgentName>,
    /// How deep the chain is, from 1.
    pub depth: u8,
    /// Why it was handed off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What was handed over with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<Artifact>,
}

/// A hand-off that waits for its reply, or whose reply may still be asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Handoff {
    /// Which of the task's hand-offs, from 1.
    pub ordinal: u32,
    /// The question, as a digest.
    pub question: String,
    /// Who was asked.
    pub to: AgentName,
    /// An answer counts until then.
    pub expires_at: Timestamp,
    /// What is set aside for it until its answer is here.
    #[serde(default)]
    pub budget: Budget,
    /// The answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<HandoffReply>,
    /// An agent was told.
    #[serde(default)]
    pub told: bool,
}

/// What came of a hand-off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HandoffReply {
    /// How the child ended.
    pub status: ResultKind,
    /// What it answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// What it made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<Artifact>,
    /// Why it was not done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<TaskError>,
    /// What it cost, with all that it handed off itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
    /// The tokens that it took, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Tokens>,
}

/// A person's answer to what was handed to them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PersonAnswer {
    /// Who.
    pub by: String,
    /// What tells it from another.
    pub digest: String,
    /// The answer, until the task has ended with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// Why they do not do it, in their words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl HandoffReply {
    /// A reply that is nobody's: the hand-off came to nothing.
    pub fn failed(status: ResultKind, code: &str, message: impl Into<String>) -> Self {
        Self { status, result: None, artifacts: Vec::new(), error: Some(TaskError::new(code, message)), cost_usd: None, tokens: None }
    }

    fn bytes(&self) -> usize {
        json_bytes(self)
    }
}

impl From<TaskResult> for HandoffReply {
    fn from(result: TaskResult) -> Self {
        let TaskResult { status, result, artifacts, error, cost_usd, tokens, .. } = result;
        let tokens = tokens.map(|used| Tokens { input: used.input, output: used.output });
        Self { status, result, artifacts, error, cost_usd, tokens }
    }
}

impl PersonAnswer {
    /// What they said, as a result or as the reason why there is none.
    pub fn new(by: String, said: Result<Value, String>) -> Self {
        let digest = json_sha256(&said.as_ref().map_or_else(|error| json!({ "error": error }), |result| json!({ "result": result })));
        let (result, error) = match said {
            Ok(result) => (Some(result), None),
            Err(error) => (None, Some(error)),
        };
        Self { by, digest, result, error }
    }

    /// How the task ends with it.
    pub fn end(&self) -> End {
        match &self.error {
            Some(error) => End::error(ResultKind::Failed, "declined", format!("{} did not do it: {error}", self.by)),
            None => End { kind: ResultKind::Completed, result: Some(self.result.clone().unwrap_or_default()), error: None },
        }
    }
}

impl ports::Handoff {
    /// What tells one hand-off from another: the same words for the same agent, under the same name, are the same one. A time limit does not: it may be counted
    /// from now.
    pub fn question(&self) -> String {
        json_sha256(&json!([self.id, self.to, self.task, self.context, self.artifacts, self.reason]))
    }
}

impl TaskDoc {
    /// The hand-offs that wait for their replies.
    pub fn open_handoffs(&self) -> impl Iterator<Item = &Handoff> {
        self.handoffs.iter().filter(|handoff| handoff.reply.is_none())
    }

    /// The ordinal of the next hand-off.
    pub fn next_handoff(&self) -> u32 {
        self.handoffs.last().map_or(1, |handoff| handoff.ordinal + 1)
    }

    /// The hand-off with this ordinal.
    pub fn handoff(&self, ordinal: u32) -> Option<&Handoff> {
        self.handoffs.iter().find(|handoff| handoff.ordinal == ordinal)
    }

    /// Whether an agent that stops now would not know of a reply that is here.
    pub fn has_unread_reply(&self) -> bool {
        self.handoffs.iter().any(|handoff| handoff.reply.is_some() && !handoff.told)
    }

    /// Whether it was handed to a person.
    pub fn is_for_a_person(&self) -> bool {
        self.parent.is_some() && self.agent == HUMAN
    }

    /// Where a task stands at which an agent is.
    pub(super) fn status_at_work(&self, asking: bool) -> Status {
        match () {
            () if asking => Status::AwaitingApproval,
            () if self.open_handoffs().next().is_some() => Status::AwaitingHandoff,
            () => Status::Running,
        }
    }

    /// Why a hand-off is not made, if it is not.
    pub fn refuses_handoff(&self, to: &str, is_known: bool) -> Option<HandoffReply> {
        let refused = |code: &str, message: String| Some(HandoffReply::failed(ResultKind::Failed, code, message));
        let waiting = self.parent.iter().flat_map(|parent| parent.ancestors.iter().chain([&parent.from]));
        let depth = self.parent.as_ref().map_or(0, |parent| parent.depth);
        if !is_known {
            return refused("agent_unknown", format!("there is no agent {to:?} here"));
        }
        if to == self.agent || waiting.into_iter().any(|agent| agent.as_str() == to) {
            return refused("handoff_cycle", format!("{to} waits for this task already; answer it instead"));
        }
        if depth >= DEPTH_MAX {
            return refused("handoff_too_deep", format!("this task is {DEPTH_MAX} hand-offs deep already"));
        }
        if self.open_handoffs().count() >= OPEN_MAX {
            return refused("handoffs_too_many", format!("{OPEN_MAX} hand-offs wait for their replies already"));
        }
        if self.handoffs.len() >= MADE_MAX {
            return refused("handoffs_too_many", format!("a task makes at most {MADE_MAX} hand-offs"));
        }
        None
    }

    /// An artifact that this task can hand over, by its name: its own, what it got with a reply, what was handed to it. Of several, the last.
    pub fn artifact_named(&self, name: &str) -> Option<&Artifact> {
        let replies = self.handoffs.iter().filter_map(|handoff| handoff.reply.as_ref()).flat_map(|reply| &reply.artifacts);
        let handed = self.parent.iter().flat_map(|parent| &parent.artifacts);
        handed.chain(replies).chain(&self.artifacts).rfind(|artifact| artifact.name == name)
    }

    /// Work is given to another agent, or to people, within a part of the budget: `most` is what the agent of this task may cost at all, and that of the other. Its
    /// timer exists before this is written. Gives the hand-off's ordinal.
    pub fn hand_off(
        &mut self,
        now: Timestamp,
        asked: &ports::Handoff,
        to: &AgentName,
        expires_at: Timestamp,
        most: (Budget, Budget),
    ) -> u32 {
        let ordinal = self.next_handoff();
        let artifacts = asked.artifacts.iter().filter_map(|name| self.artifact_named(name)).cloned().collect();
        let request = self.request.as_deref();
        let ancestors = self.parent.iter().flat_map(|parent| parent.ancestors.iter().chain([&parent.from])).cloned().collect();
        // People cost nothing that is counted here.
        let budget = if to.as_str() == HUMAN { Budget::default() } else { self.share(asked.budget.within(most.1), most.0) };
        let event = HandoffRequested {
            handoff_id: event_id(self.task_id, EventName::Handoff { ordinal }),
            parent_task_id: self.task_id,
            task_id: TaskId::of_handoff(self.task_id, ordinal),
            from_agent: self.agent_name(),
            to_agent: to.clone(),
            task: asked.task.clone(),
            context: asked.context.clone(),
            artifacts,
            reason: asked.reason.clone(),
            depth: self.parent.as_ref().map_or(1, |parent| parent.depth + 1),
            ancestors,
            deadline: Some(expires_at),
            requester: request.and_then(|request| request.requester.clone()),
            priority: request.map(|request| request.priority).unwrap_or_default(),
            budget_usd: budget.usd,
            budget_tokens: budget.tokens,
            ticket_id: asked.escalation.ticket_id.clone(),
            level: asked.escalation.level.clone(),
            sentiment: asked.escalation.sentiment,
            history: asked.escalation.history.clone(),
            suggested_action: asked.escalation.suggested_action.clone(),
            extra: Map::new(),
        };
        self.say(now, EventName::Handoff { ordinal }, &event);
        self.handoffs.push(Handoff { ordinal, question: asked.question(), to: to.clone(), expires_at, budget, reply: None, told: false });
        self.show_handoff(now, ordinal);
        ordinal
    }

    /// An open hand-off is shown again, after a restart.
    pub fn show_handoff(&mut self, now: Timestamp, ordinal: u32) {
        let Some(handoff) = self.handoff(ordinal) else { return };
        let shown = json!({
            "ordinal": ordinal, "to": handoff.to, "task_id": TaskId::of_handoff(self.task_id, ordinal), "expires_at": fte_bus::time::text(handoff.expires_at),
        });
        self.say_status(now, Status::AwaitingHandoff, |event| drop(event.details.insert("handoff".to_owned(), shown)));
    }

    /// A child has ended; whoever owns the task, or wakes it, acts on it. False where nobody waits for that any more.
    pub fn take_reply(&mut self, child: TaskId, mut reply: HandoffReply) -> bool {
        let open = |handoff: &Handoff| handoff.reply.is_none();
        let Some(at) = self.handoffs.iter().position(|it| open(it) && TaskId::of_handoff(self.task_id, it.ordinal) == child) else {
            return false;
        };
        self.spend(reply.cost_usd.unwrap_or(0.0), reply.tokens.unwrap_or_default());
        let kept: usize = self.handoffs.iter().filter_map(|handoff| handoff.reply.as_ref()).map(HandoffReply::bytes).sum();
        if kept + reply.bytes() > REPLIES_BYTES_MAX {
            let status = if reply.status == ResultKind::Completed { ResultKind::Failed } else { reply.status };
            let message = format!(
                "the replies to this task are larger than {REPLIES_BYTES_MAX} bytes together; this one is the result of task {child}"
            );
            reply = HandoffReply { artifacts: Vec::new(), ..HandoffReply::failed(status, "reply_too_large", message) };
        }
        self.handoffs[at].reply = Some(reply);
        true
    }

    /// The agent is told a reply.
    pub fn tell_reply(&mut self, now: Timestamp, ordinal: u32) {
        let Some(handoff) = self.handoffs.iter_mut().find(|handoff| handoff.ordinal == ordinal) else { return };
        handoff.told = true;
        let status = handoff.reply.as_ref().map(|reply| reply.status);
        let shown = json!({ "ordinal": ordinal, "to": handoff.to, "task_id": TaskId::of_handoff(self.task_id, ordinal), "status": status });
        let at_work = self.status_at_work(false);
        self.say_status(now, at_work, |event| drop(event.details.insert("reply".to_owned(), shown)));
    }

    /// The time for an answer is over: that is the reply, and the child is called off.
    pub fn expire_handoff(&mut self, now: Timestamp, ordinal: u32) {
        let Some(handoff) = self.handoffs.iter_mut().find(|handoff| handoff.ordinal == ordinal && handoff.reply.is_none()) else { return };
        let message = format!("{} did not answer in time", handoff.to);
        handoff.reply = Some(HandoffReply::failed(ResultKind::TimedOut, "handoff_timed_out", message));
        self.withdraw(now, ordinal, "the time for an answer is over");
    }

    /// The task ends: nobody waits for its hand-offs any more.
    pub(super) fn withdraw_handoffs(&mut self, now: Timestamp) {
        let open: Vec<u32> = self.open_handoffs().map(|handoff| handoff.ordinal).collect();
        for ordinal in open {
            self.withdraw(now, ordinal, "the task that asked has ended");
        }
        self.handoffs = Vec::new();
        if let Some(parent) = &mut self.parent {
            parent.artifacts = Vec::new();
        }
        if let Some(answer) = &mut self.answer {
            answer.result = None;
        }
    }

    fn withdraw(&mut self, now: Timestamp, ordinal: u32, reason: &str) {
        let Some(to_agent) = self.handoff(ordinal).map(|handoff| handoff.to.clone()) else { return };
        let event = HandoffWithdrawn {
            handoff_id: event_id(self.task_id, EventName::Handoff { ordinal }),
            parent_task_id: self.task_id,
            task_id: TaskId::of_handoff(self.task_id, ordinal),
            from_agent: self.agent_name(),
            to_agent,
            reason: Some(reason.to_owned()),
            extra: Map::new(),
        };
        self.say(now, EventName::HandoffWithdrawn { ordinal }, &event);
    }

    /// It waits, without an owner, for the person it was handed to.
    pub fn await_person(&mut self, now: Timestamp) {
        // What a person takes for it is what it takes.
        self.started_at.get_or_insert(now);
        let from = self.parent.as_ref().map(|parent| parent.from.to_string()).unwrap_or_default();
        self.say_status(now, Status::AwaitingHandoff, |event| event.message = Some(format!("{from} asks a person to do this")));
        self.park(now);
    }

    /// A person has done what was handed to them, or will not; whoever owns the task, or ends it, acts on it.
    pub fn take_answer(&mut self, now: Timestamp, answer: PersonAnswer) {
        let (by, digest) = (Actor::new(ActorType::User, &answer.by), answer.digest.clone());
        let outcome = if answer.error.is_some() { ActionOutcome::Denied } else { ActionOutcome::Success };
        self.say_action(now, "handoff.replied", by, outcome, |event| event.output_sha256 = Some(digest));
        self.answer = Some(answer);
    }

    fn agent_name(&self) -> AgentName {
        // Only configured agents run, and their names are names.
        self.agent.parse().unwrap_or_else(|_| HUMAN.parse().expect("a name"))
    }
}
