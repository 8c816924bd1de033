//! The messages of the JSON-lines protocol, version 1: one JSON object a line, in both directions. `docs/agents.md` is its specification, and
//! `docs/process-protocol.schema.json` its schema, which is made from the types here.
//!
//! Always true: fields that this version does not know are ignored, message types that it does not know are an error, and a message that names another
//! protocol version is an error before anything else in it is looked at.

use fte_bus::json;
use fte_events::limits::{AHEAD_MAX, CONTEXT_BYTES_MAX, is_task_text, json_bytes};
use fte_events::{AgentName, EscalationLevel, ResultKind, TaskError, TaskId, Tokens};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::limits::{NAME_BYTES_MAX, clip};
use crate::document::{Budget, HandoffReply};
use crate::ports::{Escalation, Handoff, Start, Tell};

#[cfg(test)]
mod schema_tests;

/// Most artifacts that are handed over at once.
const HANDED_MAX: usize = 100;

/// Where what was handed over lies in the workspace.
pub(super) const HANDED: &str = "handed";

/// Where the artifacts of a reply lie in the workspace.
pub(super) fn reply_directory(child: Option<TaskId>) -> String {
    child.map_or_else(|| "replies".to_owned(), |child| format!("replies/{child}"))
}

/// The version that is spoken here.
pub(super) const PROTOCOL: u64 = 1;

/// What an agent writes.
#[derive(Debug, PartialEq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "type", rename_all = "lowercase")]
pub(super) enum Message {
    /// It enters a stage.
    Stage { name: String },
    /// How far it is.
    Progress {
        #[cfg_attr(test, schemars(range(min = 0, max = 100)))]
        #[serde(default)]
        pct: Option<f64>,
        /// For people.
        #[serde(default)]
        message: Option<String>,
    },
    /// A line for people.
    Log {
        message: String,
        #[serde(default)]
        level: Level,
    },
    /// It did something worth recording.
    Action {
        /// A name such as `tool.called`.
        #[cfg_attr(test, schemars(length(min = 1)))]
        action: String,
        #[serde(default)]
        data: Map<String, Value>,
    },
    /// To be given back at the next start.
    Checkpoint {
        data: Value,
        /// Ids of the messages that it includes.
        #[serde(default)]
        messages: Vec<String>,
    },
    /// A file of the workspace, to be kept.
    Artifact {
        path: String,
        #[serde(default)]
        name: Option<String>,
        #[serde(default)]
        content_type: Option<String>,
    },
    /// May it go on? The answer is a `decision`.
    Approval {
        #[serde(default)]
        action: Option<String>,
        #[serde(default)]
        reason: Option<String>,
        #[serde(default)]
        data: Option<Value>,
    },
    /// Work for another agent, or for people. The answer is a `reply`.
    Handoff(Box<HandoffMessage>),
    /// What it cost since it last said.
    Cost {
        #[cfg_attr(test, schemars(range(min = 0), extend("exclusiveMaximum" = 1e9)))]
        #[serde(default)]
        usd: f64,
        #[serde(default)]
        tokens: Tokens,
    },
    /// Its last word: done.
    Result { result: Value },
    /// Its last word: it could not do it.
    Error {
        /// A name such as `not_found`.
        #[cfg_attr(test, schemars(length(min = 1)))]
        code: String,
        message: String,
        /// Whether another attempt may help.
        #[serde(default)]
        retryable: bool,
    },
}

/// Work for another agent, or for people.
#[derive(Debug, PartialEq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct HandoffMessage {
    /// What the reply is called by.
    #[cfg_attr(test, schemars(length(max = 128)))]
    #[serde(default)]
    pub(super) id: Option<String>,
    pub(super) to: String,
    #[cfg_attr(test, schemars(length(min = 1, max = 32_000)))]
    pub(super) task: String,
    #[serde(default)]
    pub(super) context: Map<String, Value>,
    /// Names of artifacts to hand over.
    #[cfg_attr(test, schemars(length(max = 100)))]
    #[serde(default)]
    pub(super) artifacts: Vec<String>,
    #[serde(default)]
    pub(super) reason: Option<String>,
    /// A time, or how long from now.
    #[serde(default)]
    pub(super) deadline: Option<String>,
    /// What it may cost, of what the one who asks may.
    #[cfg_attr(test, schemars(extend("exclusiveMinimum" = 0, "exclusiveMaximum" = 1e9)))]
    #[serde(default)]
    pub(super) budget_usd: Option<f64>,
    #[cfg_attr(test, schemars(range(min = 1)))]
    #[serde(default)]
    pub(super) budget_tokens: Option<u64>,
    #[serde(default)]
    pub(super) ticket_id: Option<String>,
    #[serde(default)]
    pub(super) level: Option<EscalationLevel>,
    #[cfg_attr(test, schemars(range(min = -1, max = 1)))]
    #[serde(default)]
    pub(super) sentiment: Option<f64>,
    #[serde(default)]
    pub(super) history: Vec<Value>,
    #[serde(default)]
    pub(super) suggested_action: Option<String>,
}

impl HandoffMessage {
    /// How much it says besides the task and its context, which have limits of their own.
    pub(super) fn data_bytes(&self) -> usize {
        json_bytes(&self.history) + json_bytes(&self.artifacts) + json_bytes(&(&self.reason, &self.ticket_id, &self.suggested_action))
    }

    /// What it asks for, by the limits that every request keeps.
    pub(super) fn into_handoff(self, now: Timestamp) -> Result<Handoff, BadLine> {
        let is_short = |text: &Option<String>| text.as_ref().is_none_or(|text| text.len() <= NAME_BYTES_MAX);
        let deadline = self.deadline.as_deref().map(|text| {
            let after = fte_service::parse_duration(text).filter(|after| *after <= AHEAD_MAX).and_then(|after| now.checked_add(after).ok());
            after.or_else(|| text.parse().ok()).ok_or(BadLine::Invalid("deadline: expected a time, or a duration such as \"2h\""))
        });
        match () {
            () if !is_task_text(&self.task) => Err(BadLine::Invalid("task: expected a text of at most 32000 characters")),
            () if json_bytes(&self.context) > CONTEXT_BYTES_MAX => {
                Err(BadLine::Invalid("context: expected at most 64 KiB; hand large inputs over as artifacts"))
            }
            () if !is_short(&self.id) => Err(BadLine::Invalid("id: expected at most 128 bytes")),
            () if self.artifacts.len() > HANDED_MAX => Err(BadLine::Invalid("artifacts: expected at most 100 names")),
            () if self.sentiment.is_some_and(|mood| !(-1.0..=1.0).contains(&mood)) => {
                Err(BadLine::Invalid("sentiment: expected a number from -1 to 1"))
            }
            () if self.budget_usd.is_some_and(|usd| !(usd > 0.0 && usd < 1e9)) || self.budget_tokens == Some(0) => {
                Err(BadLine::Invalid("budget_usd or budget_tokens: expected more than 0"))
            }
            () => Ok(Handoff {
                id: self.id,
                to: clip(self.to, NAME_BYTES_MAX),
                task: self.task,
                context: self.context,
                artifacts: self.artifacts,
                reason: self.reason,
                deadline: deadline.transpose()?,
                budget: Budget { usd: self.budget_usd, tokens: self.budget_tokens },
                escalation: Escalation {
                    ticket_id: self.ticket_id,
                    level: self.level,
                    sentiment: self.sentiment,
                    history: self.history,
                    suggested_action: self.suggested_action,
                },
            }),
        }
    }
}

/// How loud a log line is. What is below `info` stays in the runner's own log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    Trace,
    Debug,
    #[default]
    Info,
    Warn,
    Error,
}

/// A line that is no message.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadLine {
    #[error("not JSON ({0}); standard output carries one JSON object a line, anything else belongs on standard error")]
    NotJson(serde_json::Error),
    #[error("JSON, but not an object")]
    NotObject,
    #[error("of protocol {0}; this runner speaks {PROTOCOL}")]
    Protocol(Value),
    #[error("no message of the protocol: {0}")]
    Unknown(serde_json::Error),
    #[error("no valid {0}")]
    Invalid(&'static str),
}

impl BadLine {
    /// The error's code, for programs.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Protocol(_) => "protocol_unsupported",
            Self::NotJson(_) | Self::NotObject | Self::Unknown(_) | Self::Invalid(_) => "bad_message",
        }
    }
}

/// Reads one line.
pub(super) fn read(line: &[u8]) -> Result<Message, BadLine> {
    let value: Value = json::from_slice(line, json::DEPTH_MAX).map_err(BadLine::NotJson)?;
    match value.as_object().map(|message| message.get("protocol")) {
        None => return Err(BadLine::NotObject),
        Some(Some(protocol)) if protocol.as_u64() != Some(PROTOCOL) => return Err(BadLine::Protocol(protocol.clone())),
        Some(_) => {}
    }
    let message = Message::deserialize(value).map_err(BadLine::Unknown)?;
    match &message {
        Message::Progress { pct: Some(pct), .. } if !(0.0..=100.0).contains(pct) => Err(BadLine::Invalid("pct: expected 0 to 100")),
        Message::Cost { usd, .. } if !(0.0..1e9).contains(usd) => Err(BadLine::Invalid("usd: expected an amount that is not negative")),
        Message::Action { action, .. } if action.is_empty() => Err(BadLine::Invalid("action: expected a name such as tool.called")),
        Message::Error { code, .. } if code.is_empty() => Err(BadLine::Invalid("code: expected a name such as not_found")),
        _ => Ok(message),
    }
}

/// What an agent reads. The order of the keys of `start` is part of the protocol, so that a shell script can read it.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "type", rename_all = "lowercase")]
enum Told<'a> {
    /// The first line: what there is to do.
    Start {
        /// The version that is spoken.
        #[cfg_attr(test, schemars(extend("const" = PROTOCOL)))]
        protocol: u64,
        task_id: TaskId,
        #[cfg_attr(test, schemars(range(min = 1)))]
        attempt: u32,
        task: &'a str,
        context: &'a Map<String, Value>,
        /// What it last asked to keep.
        checkpoint: &'a Option<Value>,
        /// Of a task that was handed off.
        #[serde(skip_serializing_if = "Option::is_none")]
        handoff: Option<HandedOff<'a>>,
    },
    /// The answer to an `approval`.
    Decision {
        approved: bool,
        /// The words of who decided.
        reason: &'a Option<String>,
        /// With a yes: what was approved.
        data: &'a Option<Value>,
    },
    /// Somebody says something to the task.
    Message {
        id: &'a str,
        text: &'a str,
        data: &'a Option<Value>,
        /// Whether it shall not wait until the agent is done with what it does.
        interrupt: bool,
    },
    /// What came of a hand-off.
    Reply {
        /// What the hand-off was called.
        handoff: &'a str,
        task_id: Option<TaskId>,
        status: ResultKind,
        result: &'a Option<Value>,
        #[cfg_attr(test, schemars(with = "Vec<schema_tests::LaidOut>"))]
        artifacts: &'a [Value],
        error: &'a Option<TaskError>,
    },
    /// It should stop.
    Cancel,
}

/// Who handed a task off, and what with it.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct HandedOff<'a> {
    from: &'a AgentName,
    parent_task_id: TaskId,
    reason: &'a Option<String>,
    /// How long the chain of hand-offs is, from 1.
    depth: u8,
    #[cfg_attr(test, schemars(with = "Vec<schema_tests::LaidOut>"))]
    artifacts: &'a [Value],
}

/// The first line that an agent gets; `artifacts` is what was handed over with the task, as it lies in the workspace.
pub(super) fn start_line(start: &Start, artifacts: &[Value]) -> Vec<u8> {
    line(&Told::Start {
        protocol: PROTOCOL,
        task_id: start.task_id,
        attempt: start.attempt,
        task: &start.task,
        context: &start.context,
        checkpoint: &start.checkpoint,
        handoff: handed_off(start, artifacts),
    })
}

/// Who handed the task off, and what with it, where somebody did: what agents of other kinds are told, too.
pub(super) fn handoff(start: &Start, artifacts: &[Value]) -> Option<Value> {
    handed_off(start, artifacts).and_then(|handoff| serde_json::to_value(handoff).ok())
}

fn handed_off<'a>(start: &'a Start, artifacts: &'a [Value]) -> Option<HandedOff<'a>> {
    start.handed_off.as_deref().map(|parent| HandedOff {
        from: &parent.from,
        parent_task_id: parent.task_id,
        reason: &parent.reason,
        depth: parent.depth,
        artifacts,
    })
}

/// A line that an agent gets later; with a reply, what came with it, as it lies in the workspace.
pub(super) fn tell_line(tell: &Tell, artifacts: &[Value]) -> Vec<u8> {
    match tell {
        Tell::Decision { approved, reason, data } => line(&Told::Decision { approved: *approved, reason, data }),
        Tell::Message { id, text, data, interrupt } => line(&Told::Message { id, text, data, interrupt: *interrupt }),
        Tell::Reply { handoff, task_id, reply } => {
            let HandoffReply { status, result, error, .. } = &**reply;
            line(&Told::Reply { handoff, task_id: *task_id, status: *status, result, artifacts, error })
        }
        Tell::Cancel => line(&Told::Cancel),
    }
}

fn line(message: &impl Serialize) -> Vec<u8> {
    // Text, numbers and JSON values always serialise.
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use fte_events::TaskId;
    use serde_json::json;

    use super::*;

    #[test]
    fn every_message_of_the_protocol_is_read() {
        let check = |line: &str, expected: Message| assert_eq!(read(line.as_bytes()).unwrap(), expected, "{line}");
        check(r#"{"type":"stage","name":"plan"}"#, Message::Stage { name: "plan".into() });
        check(r#"{"type":"progress","pct":12.5}"#, Message::Progress { pct: Some(12.5), message: None });
        check(r#"{"type":"log","message":"m"}"#, Message::Log { message: "m".into(), level: Level::Info });
        check(r#"{"type":"log","message":"m","level":"debug"}"#, Message::Log { message: "m".into(), level: Level::Debug });
        check(r#"{"type":"action","action":"tool.called"}"#, Message::Action { action: "tool.called".into(), data: Map::new() });
        check(r#"{"type":"checkpoint","data":[1]}"#, Message::Checkpoint { data: json!([1]), messages: vec![] });
        let heard = Message::Checkpoint { data: json!(1), messages: vec!["m".into()] };
        check(r#"{"type":"checkpoint","data":1,"messages":["m"]}"#, heard);
        check(r#"{"type":"artifact","path":"a"}"#, Message::Artifact { path: "a".into(), name: None, content_type: None });
        check(r#"{"type":"approval"}"#, Message::Approval { action: None, reason: None, data: None });
        let handoff = HandoffMessage {
            id: Some("a".into()),
            to: "writer".into(),
            task: "t".into(),
            context: Map::new(),
            artifacts: vec!["notes.md".into()],
            reason: None,
            deadline: Some("1h".into()),
            budget_usd: Some(0.5),
            budget_tokens: None,
            ticket_id: None,
            level: Some(EscalationLevel::L2),
            sentiment: None,
            history: Vec::new(),
            suggested_action: None,
        };
        let line = r#"{"type":"handoff","id":"a","to":"writer","task":"t","context":{},"artifacts":["notes.md"],"deadline":"1h","budget_usd":0.5,"level":"L2"}"#;
        check(line, Message::Handoff(Box::new(handoff)));
        check(r#"{"type":"cost","usd":0}"#, Message::Cost { usd: 0.0, tokens: Tokens::default() });
        let tokens = Tokens { input: 12, output: 3 };
        check(r#"{"type":"cost","tokens":{"input":12,"output":3}}"#, Message::Cost { usd: 0.0, tokens });
        check(r#"{"type":"result","result":null}"#, Message::Result { result: Value::Null });
        check(r#" {"type":"error","code":"c","message":"m"} "#, Message::Error { code: "c".into(), message: "m".into(), retryable: false });
        check(r#"{"type":"stage","name":"plan","protocol":1,"later":true}"#, Message::Stage { name: "plan".into() });
    }

    #[test]
    fn what_is_no_message_says_why() {
        let check = |line: &str, code: &str, text: &str| {
            let error = read(line.as_bytes()).unwrap_err();
            assert!(error.code() == code && error.to_string().contains(text), "{line}: {} {error}", error.code());
        };
        check("hello", "bad_message", "standard error");
        check("[1]", "bad_message", "not an object");
        check(r#"{"type":"invented"}"#, "bad_message", "unknown variant `invented`");
        check(r#"{"name":"plan"}"#, "bad_message", "missing field `type`");
        check(r#"{"type":"stage"}"#, "bad_message", "missing field `name`");
        check(r#"{"type":"progress","pct":101}"#, "bad_message", "0 to 100");
        check(r#"{"type":"cost","usd":-1}"#, "bad_message", "not negative");
        check(r#"{"type":"cost","tokens":{"input":-1}}"#, "bad_message", "u64");
        check(r#"{"type":"invented","protocol":2}"#, "protocol_unsupported", "protocol 2");
        check(r#"{"type":"stage","name":"x","protocol":"1"}"#, "protocol_unsupported", "speaks 1");
    }

    #[test]
    fn the_start_line_keeps_its_order() {
        let task_id: TaskId = "01980000-0000-7000-8000-000000000001".parse().unwrap();
        let claim_id = fte_events::ClaimId::of(task_id, 0, 2);
        let (task, checkpoint) = ("say \"hi\"\n".into(), Some(json!({"at": 3})));
        let start = Start { task_id, attempt: 2, claim_id, task, context: Map::new(), checkpoint, handed_off: None };
        let expected = concat!(
            r#"{"type":"start","protocol":1,"task_id":"01980000-0000-7000-8000-000000000001","attempt":2,"#,
            r#""task":"say \"hi\"\n","context":{},"checkpoint":{"at":3}}"#,
            "\n"
        );
        assert_eq!(String::from_utf8(start_line(&start, &[])).unwrap(), expected);
        let decision = tell_line(&Tell::Decision { approved: true, reason: None, data: Some(json!({ "to": "ada" })) }, &[]);
        assert_eq!(decision, b"{\"type\":\"decision\",\"approved\":true,\"reason\":null,\"data\":{\"to\":\"ada\"}}\n");
        assert_eq!(tell_line(&Tell::Cancel, &[]), b"{\"type\":\"cancel\"}\n");
        let reply = HandoffReply { artifacts: Vec::new(), ..HandoffReply::failed(ResultKind::Failed, "agent_unknown", "m") };
        let line =
            tell_line(&Tell::Reply { handoff: "a".into(), task_id: None, reply: Box::new(reply) }, &[json!({"name": "n", "path": "p"})]);
        let expected = json!({"type": "reply", "handoff": "a", "task_id": null, "status": "failed", "result": null,
            "artifacts": [{"name": "n", "path": "p"}], "error": {"code": "agent_unknown", "message": "m", "retryable": false}});
        assert_eq!(serde_json::from_slice::<Value>(&line).unwrap(), expected);
    }
}
