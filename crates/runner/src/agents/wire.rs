//! The messages of the JSON-lines protocol, version 1: one JSON object a line, in both directions. `docs/agents.md` is its specification.
//!
//! Always true: fields that this version does not know are ignored, message types that it does not know are an error, and a message that names another
//! protocol version is an error before anything else in it is looked at.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ports::{Start, Tell};

/// The version that is spoken here.
pub(super) const PROTOCOL: u64 = 1;

/// What an agent writes.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(super) enum Message {
    Stage {
        name: String,
    },
    Progress {
        #[serde(default)]
        pct: Option<f64>,
        #[serde(default)]
        message: Option<String>,
    },
    Log {
        message: String,
        #[serde(default)]
        level: Level,
    },
    Action {
        action: String,
        #[serde(default)]
        data: Map<String, Value>,
    },
    Checkpoint {
        data: Value,
    },
    Artifact {
        path: String,
        #[serde(default)]
        name: Option<String>,
        #[serde(default)]
        content_type: Option<String>,
    },
    Approval {
        #[serde(default)]
        reason: Option<String>,
        #[serde(default)]
        data: Option<Value>,
    },
    Handoff {
        to: String,
    },
    Cost {
        usd: f64,
    },
    Result {
        result: Value,
    },
    Error {
        code: String,
        message: String,
        #[serde(default)]
        retryable: bool,
    },
}

/// How loud a log line is. What is below `info` stays in the runner's own log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
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
    let value: Value = serde_json::from_slice(line).map_err(BadLine::NotJson)?;
    match value.as_object().map(|message| message.get("protocol")) {
        None => return Err(BadLine::NotObject),
        Some(Some(protocol)) if protocol.as_u64() != Some(PROTOCOL) => return Err(BadLine::Protocol(protocol.clone())),
        Some(_) => {}
    }
    let message = Message::deserialize(value).map_err(BadLine::Unknown)?;
    match &message {
        Message::Progress { pct: Some(pct), .. } if !(0.0..=100.0).contains(pct) => Err(BadLine::Invalid("pct: expected 0 to 100")),
        Message::Cost { usd } if !(0.0..1e9).contains(usd) => Err(BadLine::Invalid("usd: expected an amount that is not negative")),
        Message::Action { action, .. } if action.is_empty() => Err(BadLine::Invalid("action: expected a name such as tool.called")),
        Message::Error { code, .. } if code.is_empty() => Err(BadLine::Invalid("code: expected a name such as not_found")),
        _ => Ok(message),
    }
}

/// The first line that an agent gets. The order of its keys is part of the protocol, so that a shell script can read it.
pub(super) fn start_line(start: &Start) -> Vec<u8> {
    #[derive(Serialize)]
    struct Line<'a> {
        r#type: &'static str,
        protocol: u64,
        task_id: String,
        attempt: u32,
        task: &'a str,
        context: &'a Map<String, Value>,
        checkpoint: &'a Option<Value>,
    }
    line(&Line {
        r#type: "start",
        protocol: PROTOCOL,
        task_id: start.task_id.to_string(),
        attempt: start.attempt,
        task: &start.task,
        context: &start.context,
        checkpoint: &start.checkpoint,
    })
}

/// A line that an agent gets later.
pub(super) fn tell_line(tell: &Tell) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(tag = "type", rename_all = "lowercase")]
    enum Line<'a> {
        Decision { approved: bool, reason: &'a Option<String> },
        Cancel,
    }
    match tell {
        Tell::Decision { approved, reason } => line(&Line::Decision { approved: *approved, reason }),
        Tell::Cancel => line(&Line::Cancel),
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
        check(r#"{"type":"checkpoint","data":[1]}"#, Message::Checkpoint { data: json!([1]) });
        check(r#"{"type":"artifact","path":"a"}"#, Message::Artifact { path: "a".into(), name: None, content_type: None });
        check(r#"{"type":"approval"}"#, Message::Approval { reason: None, data: None });
        check(r#"{"type":"handoff","to":"writer","task":"t","context":{}}"#, Message::Handoff { to: "writer".into() });
        check(r#"{"type":"cost","usd":0}"#, Message::Cost { usd: 0.0 });
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
        check(r#"{"type":"invented","protocol":2}"#, "protocol_unsupported", "protocol 2");
        check(r#"{"type":"stage","name":"x","protocol":"1"}"#, "protocol_unsupported", "speaks 1");
    }

    #[test]
    fn the_start_line_keeps_its_order() {
        let task_id: TaskId = "01980000-0000-7000-8000-000000000001".parse().unwrap();
        let claim_id = fte_events::ClaimId::of(task_id, 0, 2);
        let (task, checkpoint) = ("say \"hi\"\n".into(), Some(json!({"at": 3})));
        let start = Start { task_id, attempt: 2, claim_id, task, context: Map::new(), checkpoint };
        let expected = concat!(
            r#"{"type":"start","protocol":1,"task_id":"01980000-0000-7000-8000-000000000001","attempt":2,"#,
            r#""task":"say \"hi\"\n","context":{},"checkpoint":{"at":3}}"#,
            "\n"
        );
        assert_eq!(String::from_utf8(start_line(&start)).unwrap(), expected);
        let decision = tell_line(&Tell::Decision { approved: true, reason: None });
        assert_eq!(decision, b"{\"type\":\"decision\",\"approved\":true,\"reason\":null}\n");
        assert_eq!(tell_line(&Tell::Cancel), b"{\"type\":\"cancel\"}\n");
    }
}
