//! Questions to a person, and their answers: by a person, by policy, or by nobody in time.
//!
//! Always true: a question has one answer, and the answer says what was approved, as a digest that stands in the audit trail: whoever has the input that an
//! agent worked with can show that it is what was approved, edited or not.
//!
//! The input that an edit replaces is not kept beside it: the question was published as it was asked.

use fte_events::limits::json_bytes;
use fte_events::{
    ActionOutcome, ActionRecorded, Actor, ActorType, ApprovalRequest, ExpiryDefault, ResumeReason, Status, TaskRequested, json_sha256,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{State, TaskDoc};

/// Most answers that are kept for an agent that starts over, and for people who repeat theirs.
const ANSWERS_MAX: usize = 100;
/// Most bytes of edits that are kept for it, as JSON.
const EDITS_BYTES_MAX: usize = 256 * 1024;
/// Who decides where nobody was asked, or nobody answered.
pub const POLICY: &str = "policy";

/// A question, as it is asked.
#[derive(Clone, Debug)]
pub struct Ask {
    /// What it is about, as a policy names it.
    pub action: Option<String>,
    /// Why it is asked.
    pub reason: Option<String>,
    /// What to look at.
    pub data: Option<Value>,
    /// The answer counts until then.
    pub expires_at: Timestamp,
    /// It is approved then, if nobody has answered.
    pub approve_on_expiry: bool,
    /// Where a person can answer.
    pub link: Option<String>,
}

/// A question to a person.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Approval {
    /// Which of the task's questions, from 1.
    pub ordinal: u32,
    /// What it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// Why it is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What to look at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
    /// The answer counts until then.
    pub expires_at: Timestamp,
    /// It is approved then, if nobody has answered.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub approve_on_expiry: bool,
    /// Where a person can answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// The answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
    /// Somebody waits for the answer: its agent, as far as it was seen, or the task itself. Not once its agent was started again and has not asked so far.
    #[serde(default = "yes", skip_serializing_if = "Clone::clone")]
    pub asking: bool,
    /// It was asked before the start, by the runner: no agent is told.
    #[serde(default)]
    pub before_start: bool,
    /// Whether the agent has been told.
    #[serde(default)]
    pub told: bool,
}

fn yes() -> bool {
    true
}

impl Approval {
    /// What the policy says if nobody answers in time.
    pub fn default_at_expiry(&self) -> ExpiryDefault {
        if self.approve_on_expiry { ExpiryDefault::Approve } else { ExpiryDefault::Reject }
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// Yes or no.
    pub approved: bool,
    /// In their words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who.
    pub approver: String,
    /// When.
    pub decided_at: Timestamp,
    /// The configuration said so, and no person.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_policy: bool,
    /// What the agent is given instead of what it asked about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edit: Option<Value>,
    /// The digest of the edit, also of one before the start: that one is in the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edit_sha256: Option<String>,
    /// The digest of what was approved, edited or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_sha256: Option<String>,
}

impl Decision {
    /// An answer without an edit.
    pub fn new(approved: bool, reason: Option<String>, approver: impl Into<String>, decided_at: Timestamp) -> Self {
        let approver = approver.into();
        Self { approved, reason, approver, decided_at, by_policy: false, edit: None, edit_sha256: None, input_sha256: None }
    }

    /// What the configuration answers.
    pub fn by_policy(approved: bool, reason: Option<String>, decided_at: Timestamp) -> Self {
        Self { by_policy: true, ..Self::new(approved, reason, POLICY, decided_at) }
    }

    /// The same, for other input than was asked about.
    pub fn edited(self, edit: Option<Value>) -> Self {
        Self { edit_sha256: edit.as_ref().map(json_sha256), edit, ..self }
    }
}

/// An earlier question that was answered with yes: who repeats that answer is told so, and decides nothing else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Granted {
    /// The question's ordinal.
    pub ordinal: u32,
    /// Who said yes.
    pub approver: String,
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_at: Option<Timestamp>,
    /// The digest of their edit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edit_sha256: Option<String>,
}

/// A yes to an agent's question. Every start from the same point asks the same questions again, and is given the same answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Yes {
    /// The question's ordinal.
    pub ordinal: u32,
    /// The question, as a digest.
    pub question: String,
    /// In the decider's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What the agent is given instead of what it asked about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edit: Option<Value>,
}

/// What a person may change before the start.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestEdit {
    task: Option<String>,
    context: Option<Map<String, Value>>,
}

/// What tells one question from another: the same words and data about the same action are the same question. A yes to one action is none to another.
pub fn question(action: Option<&str>, reason: Option<&str>, data: Option<&Value>) -> String {
    json_sha256(&json!([action, reason, data]))
}

/// What is approved before the start: the task and its context, as they will run.
pub fn request_input(request: &TaskRequested) -> Value {
    json!({ "task": request.task, "context": request.context })
}

/// The request with another task or context, or both; or why that is none.
///
/// # Errors
/// What is wrong with the edit, for who made it.
pub fn edited_request(request: &TaskRequested, edit: &Value, now: Timestamp) -> Result<TaskRequested, String> {
    let edit: RequestEdit = serde_json::from_value(edit.clone())
        .map_err(|error| format!("before the start an edit is an object with `task`, `context` or both: {error}"))?;
    let mut edited = request.clone();
    edited.task = edit.task.unwrap_or(edited.task);
    edited.context = edit.context.unwrap_or(edited.context);
    match edited.within_limits(now) {
        Err(beyond @ (fte_events::limits::BeyondLimits::Task | fte_events::limits::BeyondLimits::Context)) => Err(beyond.to_string()),
        _ => Ok(edited),
    }
}

impl TaskDoc {
    /// A person is asked. The timer for `expires_at` exists before this is written.
    pub fn ask(&mut self, now: Timestamp, ask: Ask) {
        self.take_question(ask);
        self.ask_again(now);
    }

    /// The configuration answers a question of the agent; nobody is asked, and the answer is as durable as a person's.
    pub fn answer_by_policy(&mut self, now: Timestamp, ask: Ask) {
        self.take_question(ask);
        self.decide(now, Decision::by_policy(true, None, now));
        if let Some(approval) = &mut self.approval {
            approval.told = true;
        }
    }

    /// The configuration says no to a question; the agent goes on without, and no question is open.
    pub fn refuse_by_policy(&mut self, now: Timestamp, action: Option<&str>, data: Option<&Value>) {
        let input = data.map(json_sha256);
        self.say_action(now, "approval.denied", policy(), ActionOutcome::Denied, |event| {
            event.input_sha256 = input;
            about(event, None, action);
        });
    }

    /// The configuration answered a wish of the agent beside the document, which says so.
    pub(super) fn answered_by_policy(
        &mut self,
        now: Timestamp,
        status: Status,
        (allowed, action): (bool, String),
        data: Map<String, Value>,
    ) {
        let data = Value::Object(data);
        let (word, outcome) = match allowed {
            true => ("approval.granted", ActionOutcome::Success),
            false => ("approval.denied", ActionOutcome::Denied),
        };
        let input = json_sha256(&data);
        self.say_action(now, word, policy(), outcome, |event| {
            event.input_sha256 = Some(input);
            about(event, None, Some(&action));
        });
        self.say_status(now, status, |event| {
            event.details.insert("action".to_owned(), Value::from(word));
            event.details.insert("data".to_owned(), data);
        });
    }

    fn take_question(&mut self, ask: Ask) {
        let before_start = self.state == State::Queued;
        let ordinal = self.next_approval();
        if let Some(before) = self.approval.take()
            && let Some(decision) = before.decision.filter(|decision| decision.approved)
        {
            let Decision { approver, decided_at, edit_sha256, .. } = decision;
            self.granted.push(Granted { ordinal: before.ordinal, approver, decided_at: Some(decided_at), edit_sha256 });
            let most = self.granted.len().saturating_sub(ANSWERS_MAX);
            self.granted.drain(..most);
        }
        let Ask { action, reason, data, expires_at, approve_on_expiry, link } = ask;
        self.approval = Some(Approval {
            ordinal,
            action,
            reason,
            data,
            expires_at,
            approve_on_expiry,
            link,
            decision: None,
            asking: true,
            before_start,
            told: false,
        });
    }

    /// The open question is shown again, after a restart.
    pub fn ask_again(&mut self, now: Timestamp) {
        if let Some(approval) = &mut self.approval {
            approval.asking = true;
        }
        let question = self.approval.as_ref().map(|approval| ApprovalRequest {
            question: Some(approval.ordinal),
            action: approval.action.clone(),
            reason: approval.reason.clone(),
            data: approval.data.clone(),
            expires_at: Some(approval.expires_at),
            default: Some(approval.default_at_expiry()),
            link: approval.link.clone(),
            extra: Map::new(),
        });
        self.say_status(now, Status::AwaitingApproval, |event| event.approval = question);
    }

    /// Its agent is to be started again: it asks again what it wants to know, or does not.
    pub(super) fn asks_no_more(&mut self) {
        if let Some(approval) = self.approval.as_mut().filter(|approval| !approval.before_start) {
            approval.asking = false;
        }
    }

    /// The question that a person is asked and has not answered.
    pub fn open_question(&self) -> Option<&Approval> {
        self.approval.as_ref().filter(|approval| approval.decision.is_none())
    }

    /// The ordinal of the next question.
    pub fn next_approval(&self) -> u32 {
        self.approval.as_ref().map_or(1, |approval| approval.ordinal + 1)
    }

    /// Somebody answered; whoever owns the task, or wakes it, acts on it. An edit before the start fits: see [`edited_request`].
    pub fn decide(&mut self, now: Timestamp, mut decision: Decision) {
        let Some(approval) = &mut self.approval else { return };
        if approval.before_start {
            if let (Some(request), Some(edit)) = (&mut self.request, decision.edit.take())
                && let Ok(edited) = edited_request(request, &edit, now)
            {
                **request = edited;
            }
            decision.input_sha256 = self.request.as_ref().map(|request| json_sha256(&request_input(request)));
        } else {
            decision.input_sha256 = decision.edit.as_ref().or(approval.data.as_ref()).map(json_sha256);
        }
        let shown = approval.data.as_ref().map(json_sha256);
        let (ordinal, about_action) = (approval.ordinal, approval.action.clone());
        if decision.approved && !approval.before_start {
            let question = question(approval.action.as_deref(), approval.reason.as_deref(), approval.data.as_ref());
            self.answers.push(Yes { ordinal, question, reason: decision.reason.clone(), edit: decision.edit.clone() });
            // Past the limits an agent that starts over asks a person again.
            let edits = |answers: &[Yes]| answers.iter().filter_map(|answer| answer.edit.as_ref()).map(json_bytes).sum::<usize>();
            while self.answers.len() > ANSWERS_MAX || (self.answers.len() > 1 && edits(&self.answers) > EDITS_BYTES_MAX) {
                self.answers.remove(0);
            }
        }
        let actor = if decision.by_policy { policy() } else { Actor::new(ActorType::User, &decision.approver) };
        let (action, outcome) =
            if decision.approved { ("approval.granted", ActionOutcome::Success) } else { ("approval.denied", ActionOutcome::Denied) };
        let (input, edited) = (decision.input_sha256.clone(), decision.edit_sha256.is_some());
        if let Some(approval) = &mut self.approval {
            approval.decision = Some(decision);
        }
        self.say_action(now, action, actor, outcome, |event| {
            event.input_sha256 = input;
            about(event, Some(ordinal), about_action.as_deref());
            if edited {
                event.data.insert("edited".to_owned(), Value::Bool(true));
                event.data.extend(shown.map(|shown| ("asked_sha256".to_owned(), Value::String(shown))));
            }
        });
    }

    /// Nobody has answered in time, and the policy says that this is a yes: it is queued for its next turn.
    pub fn expire_approved(&mut self, now: Timestamp) {
        let reason = "nobody decided before the approval ran out, and then it counts as approved".to_owned();
        self.decide(now, Decision::by_policy(true, Some(reason), now));
        self.wake(now, ResumeReason::Approved);
    }

    /// It goes on after a yes, in its sandbox.
    pub fn told(&mut self, now: Timestamp) {
        if let Some(approval) = &mut self.approval {
            approval.told = true;
        }
        let decided = self.decided();
        self.say_status(now, Status::Running, |event| event.details.extend(decided));
    }

    /// Who answered the last question, and how, for people who watch.
    pub(super) fn decided(&self) -> Option<(String, Value)> {
        let approval = self.approval.as_ref()?;
        let Decision { approved, approver, .. } = approval.decision.as_ref()?;
        let shown = json!({ "question": approval.ordinal, "approved": approved, "by": approver });
        Some(("decision".to_owned(), shown))
    }
}

fn policy() -> Actor {
    Actor::new(ActorType::Service, POLICY)
}

fn about(event: &mut ActionRecorded, question: Option<u32>, action: Option<&str>) {
    event.resource = action.map(str::to_owned);
    event.data.extend(question.map(|question| ("question".to_owned(), Value::from(question))));
}

#[cfg(test)]
mod tests;
