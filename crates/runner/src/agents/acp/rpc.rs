//! JSON-RPC 2.0 as the Agent Client Protocol speaks it over standard input and output: one message a line, no batches.
//!
//! Always true: what is read is a request, a notification or a response and nothing of two; members that JSON-RPC does not know are ignored.

use agent_client_protocol_schema::rpc::{JsonRpcMessage, Notification};
use agent_client_protocol_schema::v1::{Error, Request, RequestId, Response};
use fte_bus::json;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Longest id of a request, in bytes: it is kept until it is answered.
const ID_BYTES_MAX: usize = 256;

/// What an agent writes.
#[derive(Debug, PartialEq)]
pub(super) enum Message {
    /// It wants an answer.
    Request { id: RequestId, method: String, params: Value },
    /// It tells.
    Notification { method: String, params: Value },
    /// It answers.
    Response { id: RequestId, outcome: Result<Value, Error> },
}

/// A line that is no message.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadLine {
    #[error("not JSON ({0}); standard output carries one JSON-RPC message a line, anything else belongs on standard error")]
    NotJson(serde_json::Error),
    #[error("JSON, but no object with \"jsonrpc\": \"2.0\"")]
    NotRpc,
    #[error("neither a request nor a response")]
    Neither,
    #[error("without a valid {0}")]
    Invalid(&'static str),
}

/// Reads one line.
pub(super) fn read(line: &[u8]) -> Result<Message, BadLine> {
    let value: Value = json::from_slice(line, json::DEPTH_MAX).map_err(BadLine::NotJson)?;
    let Value::Object(mut members) = value else { return Err(BadLine::NotRpc) };
    if members.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
        return Err(BadLine::NotRpc);
    }
    let id = members.remove("id").map(id).transpose()?;
    let method = match members.remove("method") {
        Some(Value::String(method)) => Some(method),
        Some(_) => return Err(BadLine::Invalid("method: expected a name")),
        None => None,
    };
    let answered = members.contains_key("result") || members.contains_key("error");
    match (method, id) {
        (Some(_), _) if answered => Err(BadLine::Neither),
        (Some(method), id) => {
            let params = members.remove("params").unwrap_or_default();
            Ok(match id {
                Some(id) => Message::Request { id, method, params },
                None => Message::Notification { method, params },
            })
        }
        (None, Some(id)) => Ok(Message::Response { id, outcome: outcome(members)? }),
        (None, None) => Err(BadLine::Neither),
    }
}

fn id(value: Value) -> Result<RequestId, BadLine> {
    let id = RequestId::deserialize(value).map_err(|_| BadLine::Invalid("id: expected an integer, a text or null"))?;
    if matches!(&id, RequestId::Str(text) if text.len() > ID_BYTES_MAX) {
        return Err(BadLine::Invalid("id: expected at most 256 bytes"));
    }
    Ok(id)
}

fn outcome(mut members: Map<String, Value>) -> Result<Result<Value, Error>, BadLine> {
    match (members.remove("result"), members.remove("error")) {
        (Some(result), None) => Ok(Ok(result)),
        (None, Some(error)) => Error::deserialize(error).map(Err).map_err(|_| BadLine::Invalid("error: expected a code and a message")),
        (Some(_), Some(_)) | (None, None) => Err(BadLine::Neither),
    }
}

/// A line that asks for something.
pub(super) fn request(id: i64, method: &str, params: &impl Serialize) -> Vec<u8> {
    line(&JsonRpcMessage::wrap(Request { id: RequestId::Number(id), method: method.into(), params: Some(params) }))
}

/// A line that tells something.
pub(super) fn notification(method: &str, params: &impl Serialize) -> Vec<u8> {
    line(&JsonRpcMessage::wrap(Notification { method: method.into(), params: Some(params) }))
}

/// A line that answers a request.
pub(super) fn response<T: Serialize>(id: RequestId, outcome: Result<T, Error>) -> Vec<u8> {
    line(&JsonRpcMessage::wrap(Response::new(id, outcome)))
}

fn line(message: &impl Serialize) -> Vec<u8> {
    // Text, numbers and JSON values always serialise.
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_kind_of_message_is_read() {
        let check = |line: &str, expected: Message| assert_eq!(read(line.as_bytes()).unwrap(), expected, "{line}");
        let (method, params) = ("m".to_owned(), json!({"a": 1}));
        let id = RequestId::Number(7);
        let request = Message::Request { id: id.clone(), method: method.clone(), params: params.clone() };
        check(r#"{"jsonrpc":"2.0","id":7,"method":"m","params":{"a":1},"later":true}"#, request);
        let text = RequestId::Str("x".to_owned());
        check(r#"{"jsonrpc":"2.0","id":"x","method":"m"}"#, Message::Request { id: text, method: method.clone(), params: Value::Null });
        check(r#"{"method":"m","params":{"a":1},"jsonrpc":"2.0"}"#, Message::Notification { method, params });
        check(r#"{"jsonrpc":"2.0","id":7,"result":null}"#, Message::Response { id: id.clone(), outcome: Ok(Value::Null) });
        let error = Message::Response { id, outcome: Err(Error::new(-32601, "no such method")) };
        check(r#"{"jsonrpc":"2.0","id":7,"error":{"code":-32601,"message":"no such method"}}"#, error);
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let long = format!(r#"{{"jsonrpc":"2.0","id":"{}","result":1}}"#, "x".repeat(ID_BYTES_MAX + 1));
        for (line, words) in [
            ("debugging!", "not JSON"),
            ("[]", "no object"),
            (r#"[{"jsonrpc":"2.0","method":"m"}]"#, "no object"),
            (r#"{"id":1,"method":"m"}"#, "jsonrpc"),
            (r#"{"jsonrpc":"1.0","id":1,"method":"m"}"#, "jsonrpc"),
            (r#"{"jsonrpc":"2.0"}"#, "neither"),
            (r#"{"jsonrpc":"2.0","id":1}"#, "neither"),
            (r#"{"jsonrpc":"2.0","id":1,"result":1,"error":{"code":1,"message":""}}"#, "neither"),
            (r#"{"jsonrpc":"2.0","id":1,"method":"m","result":1}"#, "neither"),
            (r#"{"jsonrpc":"2.0","id":1.5,"method":"m"}"#, "id"),
            (r#"{"jsonrpc":"2.0","id":1,"method":7}"#, "method"),
            (r#"{"jsonrpc":"2.0","id":1,"error":"bad"}"#, "error"),
            (long.as_str(), "256"),
        ] {
            let error = read(line.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(words), "{line}: {error}");
        }
    }

    #[test]
    fn what_is_written_is_one_line_of_json_rpc() {
        let text = |line: Vec<u8>| String::from_utf8(line).unwrap();
        let params = json!({"a": "x\ny"});
        assert_eq!(text(request(1, "m", &params)), "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"m\",\"params\":{\"a\":\"x\\ny\"}}\n");
        assert_eq!(text(notification("m", &params)), "{\"jsonrpc\":\"2.0\",\"method\":\"m\",\"params\":{\"a\":\"x\\ny\"}}\n");
        assert_eq!(text(response(RequestId::Str("q".into()), Ok(1))), "{\"jsonrpc\":\"2.0\",\"id\":\"q\",\"result\":1}\n");
        let error = response::<()>(RequestId::Number(2), Err(Error::new(-1, "no")));
        assert_eq!(text(error), "{\"jsonrpc\":\"2.0\",\"id\":2,\"error\":{\"code\":-1,\"message\":\"no\"}}\n");
    }
}
