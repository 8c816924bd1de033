//! The bulk publish call: its body is made by joining the events' own bytes, and a failure names only the entries that failed.

use bytes::Bytes;
use http::Method;
use serde::Deserialize;

use super::{CLOUD_EVENTS_JSON, Message};
use crate::error::Error;
use crate::sidecar::{Moved, Sidecar, encode};

/// Publishes the events in one call; for each the error, or none when it was published.
pub(super) async fn publish<'a>(
    sidecar: &Sidecar,
    pubsub: &str,
    topic: &str,
    messages: impl Iterator<Item = &'a Message> + Clone,
) -> Vec<Option<Error>> {
    let count = messages.clone().count();
    let body = Bytes::from(encode_entries(messages));
    let tail = format!("publish/bulk/{}/{}", encode(pubsub), encode(topic));
    let answer = sidecar.call_moved("a bulk publish", Moved::BulkPublish, Method::POST, &tail, Some((body, "application/json"))).await;
    match answer {
        Ok(answer) if answer.status.is_success() => vec![None; count],
        Ok(answer) => failures(&answer.body, answer.error(), count),
        Err(error) => vec![Some(error); count],
    }
}

fn encode_entries<'a>(messages: impl Iterator<Item = &'a Message> + Clone) -> Vec<u8> {
    let size: usize = messages.clone().map(|message| message.body.len() + 160).sum();
    let mut body = Vec::with_capacity(size + 2);
    body.push(b'[');
    for (index, message) in messages.enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(format!(r#"{{"entryId":"{index}","event":"#).as_bytes());
        body.extend_from_slice(&message.body);
        body.extend_from_slice(format!(r#","contentType":"{CLOUD_EVENTS_JSON}","metadata":{{"#).as_bytes());
        if let Some(key) = &message.key {
            let key = serde_json::Value::from(&**key);
            body.extend_from_slice(format!(r#""partitionKey":{key}"#).as_bytes());
        }
        body.extend_from_slice(b"}}");
    }
    body.push(b']');
    body
}

#[derive(Deserialize)]
struct BulkFailure {
    #[serde(rename = "failedEntries")]
    failed: Vec<FailedEntry>,
}

#[derive(Deserialize)]
struct FailedEntry {
    #[serde(rename = "entryId")]
    entry_id: String,
    #[serde(default)]
    error: String,
}

/// Only the named entries failed; an answer that names none, or an unknown one, fails them all.
fn failures(body: &[u8], whole: Error, count: usize) -> Vec<Option<Error>> {
    let Ok(named) = serde_json::from_slice::<BulkFailure>(body) else {
        return vec![Some(whole); count];
    };
    let mut outcome = vec![None; count];
    for entry in &named.failed {
        let Some(slot) = entry.entry_id.parse::<usize>().ok().and_then(|index| outcome.get_mut(index)) else {
            return vec![Some(whole); count];
        };
        *slot = Some(match &whole {
            Error::Answered { status, code, .. } => Error::Answered { status: *status, code: code.clone(), message: entry.error.clone() },
            other => other.clone(),
        });
    }
    if named.failed.is_empty() { vec![Some(whole); count] } else { outcome }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> Error {
        Error::Answered { status: 500, code: "ERR_PUBSUB_PUBLISH_MESSAGE".to_owned(), message: "it failed".to_owned() }
    }

    #[test]
    fn only_named_entries_fail() {
        let outcome = failures(br#"{"failedEntries":[{"entryId":"1","error":"full"}],"errorCode":"E"}"#, whole(), 3);
        assert_eq!(outcome.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true, false]);
    }

    #[test]
    fn an_answer_that_names_nobody_fails_all() {
        assert!(failures(b"oops", whole(), 2).iter().all(Option::is_some));
        assert!(failures(br#"{"failedEntries":[]}"#, whole(), 2).iter().all(Option::is_some));
        assert!(failures(br#"{"failedEntries":[{"entryId":"7"}]}"#, whole(), 2).iter().all(Option::is_some));
    }

    #[test]
    fn the_body_is_valid_json_with_each_key_in_its_entry() {
        let messages = [
            Message { topic: "t".into(), key: Some("a\"b".into()), body: Bytes::from_static(br#"{"id":"1"}"#) },
            Message { topic: "t".into(), key: None, body: Bytes::from_static(br#"{"id":"2"}"#) },
        ];
        let body: serde_json::Value = serde_json::from_slice(&encode_entries(messages.iter())).unwrap();
        assert_eq!(body[0]["metadata"]["partitionKey"], "a\"b");
        assert_eq!(body[1]["event"]["id"], "2");
        assert_eq!(body[1]["metadata"], serde_json::json!({}));
    }
}
