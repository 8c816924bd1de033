//! The envelope: what a publication becomes before it is stored, as Dapr does it.
//!
//! A CloudEvent is kept: `topic` and `pubsubname` are overwritten, `time`, `source`, `type`, `specversion`, `traceid`,
//! `traceparent` and `tracestate` filled in where absent; its bytes are otherwise copied, not parsed and written again.
//! (Dapr overwrites a `traceparent` that comes without a `traceid`; here it is kept and becomes the `traceid`.)
//! Anything else becomes the `data` of a new CloudEvent.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::value::RawValue;

use crate::json::{Members, Pairs, member, string};

/// Trace context of a publication that has none.
const NO_TRACE: &str = "00-00000000000000000000000000000000-0000000000000000-00";

/// What surrounds an event when it is published.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Surroundings<'a> {
    pub(crate) app_id: &'a str,
    pub(crate) pubsub: &'a str,
    pub(crate) topic: &'a str,
    pub(crate) traceparent: Option<&'a str>,
    pub(crate) tracestate: Option<&'a str>,
    pub(crate) now: Timestamp,
    /// `now` in RFC 3339, whole seconds.
    pub(crate) now_text: &'a str,
}

/// An event as the publisher gave it.
#[derive(Debug)]
pub(crate) enum Event<'a> {
    Envelope(&'a [u8]),
    Json(&'a [u8]),
    Text(Cow<'a, str>),
    Binary(Cow<'a, [u8]>),
}

/// The event cannot be put into an envelope.
#[derive(Debug, thiserror::Error)]
#[error("cannot create cloudevent: {source}")]
pub(crate) struct EnvelopeError {
    #[from]
    source: serde_json::Error,
}

/// What the content type of a publication asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    CloudEvent,
    Json,
    Binary,
    Text,
}

/// Reads a content type; parameters do not count. JSON is `application/json` and nothing like it, as in Dapr.
pub(crate) fn kind(content_type: &str) -> Kind {
    let media = content_type.split(';').next().unwrap_or_default().trim();
    if media.eq_ignore_ascii_case("application/cloudevents+json") {
        Kind::CloudEvent
    } else if media.eq_ignore_ascii_case("application/json") {
        Kind::Json
    } else if media.eq_ignore_ascii_case("application/octet-stream") || media.eq_ignore_ascii_case("application/cloudevents+protobuf") {
        Kind::Binary
    } else {
        Kind::Text
    }
}

/// Appends the envelope of `event` to `out`; returns when it expires in Unix milliseconds, 0 for never.
pub(crate) fn write(
    out: &mut Vec<u8>,
    event: &Event<'_>,
    content_type: &str,
    metadata: &Pairs,
    around: &Surroundings<'_>,
) -> Result<i64, EnvelopeError> {
    let ttl = ttl_s(metadata).map(|ttl_s| {
        // Dapr writes whole seconds.
        let expires_s = around.now.as_second().saturating_add(ttl_s);
        Timestamp::from_second(expires_s).unwrap_or(Timestamp::MAX)
    });
    match event {
        Event::Envelope(body) => keep(out, body, ttl, around),
        other => {
            wrap(out, other, content_type, metadata, ttl, around);
            Ok(ttl.map_or(0, Timestamp::as_millisecond))
        }
    }
}

fn ttl_s(metadata: &Pairs) -> Option<i64> {
    metadata
        .get_any_case("ttlInSeconds")
        .or_else(|| metadata.get_any_case("ttl"))
        .and_then(|text| text.parse::<i64>().ok())
        .filter(|ttl_s| *ttl_s > 0)
}

fn keep(out: &mut Vec<u8>, body: &[u8], ttl: Option<Timestamp>, around: &Surroundings<'_>) -> Result<i64, EnvelopeError> {
    let members: Members<'_> = serde_json::from_slice(body)?;
    let (mut time, mut source, mut kind, mut version) = (false, false, false, false);
    let (mut traceid, mut traceparent, mut tracestate) = (false, None, false);
    let mut expiration = None;
    let mut overwrite = false;
    for (key, value) in &members.0 {
        let null = value.get() == "null";
        match &*key.0 {
            "topic" | "pubsubname" => overwrite = true,
            "time" => time = true,
            "source" => source = fill(null, &mut overwrite),
            "type" => kind = fill(null, &mut overwrite),
            "specversion" => version = fill(null, &mut overwrite),
            "traceid" => traceid = true,
            "traceparent" => traceparent = Some(*value),
            "tracestate" => tracestate = true,
            "expiration" => {
                expiration = Some(*value);
                overwrite |= ttl.is_some();
            }
            _ => {}
        }
    }
    let start = out.len();
    if overwrite {
        out.push(b'{');
        for (key, value) in &members.0 {
            let null = value.get() == "null";
            let dropped = match &*key.0 {
                "topic" | "pubsubname" => true,
                "source" | "type" | "specversion" => null,
                "expiration" => ttl.is_some(),
                _ => false,
            };
            if !dropped {
                if out.len() > start + 1 {
                    out.push(b',');
                }
                string(out, &key.0);
                out.push(b':');
                out.extend_from_slice(value.get().as_bytes());
            }
        }
    } else {
        out.extend_from_slice(body.trim_ascii_start());
        // The body is a valid object: what stands before its end is its members.
        while let Some(byte) = out.pop() {
            if byte == b'}' {
                break;
            }
        }
    }
    let empty = out[start + 1..].trim_ascii().is_empty();
    let added = out.len();
    member(out, "topic", around.topic);
    member(out, "pubsubname", around.pubsub);
    if empty {
        // The first member has no comma before it.
        out.remove(added);
    }
    if !time {
        member(out, "time", around.now_text);
    }
    if !source {
        member(out, "source", "Dapr");
    }
    if !kind {
        member(out, "type", "com.dapr.event.sent");
    }
    if !version {
        member(out, "specversion", "1.0");
    }
    if !traceid {
        let given = traceparent.and_then(|raw: &RawValue| serde_json::from_str::<crate::json::Text<'_>>(raw.get()).ok());
        let trace = given.as_ref().map(|text| &*text.0).or(around.traceparent).unwrap_or(NO_TRACE);
        member(out, "traceid", trace);
        if traceparent.is_none() {
            member(out, "traceparent", trace);
        }
    }
    if !tracestate {
        member(out, "tracestate", around.tracestate.unwrap_or_default());
    }
    let expires_ms = match ttl {
        Some(at) => {
            member(out, "expiration", &at.to_string());
            at.as_millisecond()
        }
        None => expiration
            .and_then(|raw| serde_json::from_str::<String>(raw.get()).ok())
            .and_then(|text| text.parse::<Timestamp>().ok())
            .map_or(0, Timestamp::as_millisecond),
    };
    out.push(b'}');
    Ok(expires_ms)
}

/// A `null` member counts as absent and has to be replaced.
fn fill(null: bool, overwrite: &mut bool) -> bool {
    *overwrite |= null;
    !null
}

fn wrap(out: &mut Vec<u8>, event: &Event<'_>, content_type: &str, metadata: &Pairs, ttl: Option<Timestamp>, around: &Surroundings<'_>) {
    let own = |name: &str| metadata.get_any_case(name).filter(|value| !value.is_empty());
    out.extend_from_slice(b"{\"id\":");
    match own("cloudevent.id") {
        Some(id) => string(out, id),
        None => string(out, uuid::Uuid::new_v4().hyphenated().encode_lower(&mut [0; 36])),
    }
    member(out, "specversion", "1.0");
    member(out, "source", own("cloudevent.source").unwrap_or(around.app_id));
    member(out, "type", own("cloudevent.type").unwrap_or("com.dapr.event.sent"));
    if let Some(subject) = own("cloudevent.subject") {
        member(out, "subject", subject);
    }
    member(out, "datacontenttype", content_type);
    member(out, "topic", around.topic);
    member(out, "pubsubname", around.pubsub);
    // Both say the same, and an own trace parent counts more than an own trace id.
    let trace = own("cloudevent.traceparent").or_else(|| own("cloudevent.traceid")).or(around.traceparent).unwrap_or(NO_TRACE);
    member(out, "traceid", trace);
    member(out, "traceparent", trace);
    let tracestate = own("cloudevent.tracestate").or(around.tracestate);
    member(out, "tracestate", tracestate.unwrap_or_default());
    member(out, "time", around.now_text);
    if let Some(at) = ttl {
        member(out, "expiration", &at.to_string());
    }
    match event {
        Event::Envelope(json) | Event::Json(json) => {
            if serde_json::from_slice::<&RawValue>(json).is_ok() {
                out.extend_from_slice(b",\"data\":");
                out.extend_from_slice(json.trim_ascii());
            } else {
                member(out, "data", &String::from_utf8_lossy(json));
            }
        }
        Event::Text(text) => member(out, "data", text),
        Event::Binary(bytes) => {
            out.extend_from_slice(b",\"data_base64\":\"");
            base64(out, bytes);
            out.push(b'"');
        }
    }
    out.push(b'}');
}

/// Appends `bytes` in base64.
pub(crate) fn base64(out: &mut Vec<u8>, bytes: &[u8]) {
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    // The space is exact.
    let _ = STANDARD.encode_slice(bytes, &mut out[start..]);
}

/// The CloudEvent Dapr makes of a record for a subscription with `rawPayload`, in single mode.
pub(crate) fn from_raw(value: &[u8], topic: &str, pubsub: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len() * 4 / 3 + 320);
    out.extend_from_slice(b"{\"id\":");
    string(&mut out, uuid::Uuid::new_v4().hyphenated().encode_lower(&mut [0; 36]));
    member(&mut out, "specversion", "1.0");
    member(&mut out, "datacontenttype", "application/octet-stream");
    member(&mut out, "source", "Dapr");
    member(&mut out, "type", "com.dapr.event.sent");
    member(&mut out, "topic", topic);
    member(&mut out, "pubsubname", pubsub);
    out.extend_from_slice(b",\"data_base64\":\"");
    base64(&mut out, value);
    out.extend_from_slice(b"\"}");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn published(event: &Event<'_>, content_type: &str, metadata: &Value) -> (Value, i64) {
        let metadata: Pairs =
            serde_json::from_value::<Pairs>(metadata.clone()).or_else(|_| serde_json::from_str(&metadata.to_string())).unwrap();
        let around = Surroundings {
            app_id: "app",
            pubsub: "pubsub",
            topic: "orders",
            traceparent: None,
            tracestate: None,
            now: "2026-01-02T03:04:05Z".parse().unwrap(),
            now_text: "2026-01-02T03:04:05Z",
        };
        let mut out = Vec::new();
        let expires = write(&mut out, event, content_type, &metadata, &around).unwrap();
        (serde_json::from_slice(&out).unwrap(), expires)
    }

    #[test]
    fn a_cloudevent_keeps_what_it_says_except_where_it_goes() {
        let body = br#" {"id":"1","topic":"x","time":"t","source":null,"mine":{"a":[1]},"traceparent":"p"} "#;
        let (event, _) = published(&Event::Envelope(body), "application/cloudevents+json", &json!({}));
        assert_eq!(
            event,
            json!({"id":"1","topic":"orders","pubsubname":"pubsub","time":"t","source":"Dapr","mine":{"a":[1]},
                "type":"com.dapr.event.sent","specversion":"1.0","traceparent":"p","traceid":"p","tracestate":""})
        );
    }

    #[test]
    fn an_empty_cloudevent_is_filled_in_without_an_id() {
        for body in [&b"{}"[..], b"{ }\n"] {
            let (event, _) = published(&Event::Envelope(body), "", &json!({}));
            assert_eq!(event["topic"], "orders");
            assert_eq!(event["time"], "2026-01-02T03:04:05Z");
            assert!(event.get("id").is_none());
        }
    }

    #[test]
    fn a_plain_event_becomes_the_data_of_a_new_one() {
        let check = |event: Event<'_>, content_type: &str, key: &str, data: Value| {
            let (envelope, _) =
                published(&event, content_type, &json!({"cloudevent.ID":"7","cloudevent.type":"t","cloudevent.topic":"no"}));
            assert_eq!(envelope[key], data);
            assert_eq!(envelope["id"], "7");
            assert_eq!(envelope["type"], "t");
            assert_eq!(envelope["topic"], "orders");
            assert_eq!(envelope["source"], "app");
            assert_eq!(envelope["datacontenttype"], content_type);
        };
        check(Event::Json(br#"{"a": 1}"#), "application/json", "data", json!({"a":1}));
        check(Event::Json(b"{broken"), "application/json", "data", json!("{broken"));
        check(Event::Text("a \"b\"".into()), "text/plain", "data", json!("a \"b\""));
        check(Event::Binary(b"\x00\xff"[..].into()), "application/octet-stream", "data_base64", json!("AP8="));
    }

    #[test]
    fn time_to_live_becomes_an_expiration() {
        let at: Timestamp = "2026-01-02T03:04:15Z".parse().unwrap();
        for event in [Event::Json(b"1"), Event::Envelope(br#"{"expiration":"2020-01-01T00:00:00Z"}"#)] {
            let (envelope, expires_ms) = published(&event, "x/y", &json!({"ttlInSeconds":"10"}));
            assert_eq!(envelope["expiration"], "2026-01-02T03:04:15Z");
            assert_eq!(expires_ms, at.as_millisecond());
        }
        let (_, expires_ms) = published(&Event::Envelope(br#"{"expiration":"2026-01-02T03:04:15Z"}"#), "", &json!({}));
        assert_eq!(expires_ms, at.as_millisecond());
    }

    #[test]
    fn what_is_no_object_is_no_cloudevent() {
        for body in [&b"[]"[..], b"", b"{\"a\":}", b"{} x"] {
            let around = Surroundings {
                app_id: "",
                pubsub: "",
                topic: "",
                traceparent: None,
                tracestate: None,
                now: Timestamp::UNIX_EPOCH,
                now_text: "",
            };
            let mut out = Vec::new();
            assert!(write(&mut out, &Event::Envelope(body), "", &Pairs::default(), &around).is_err());
        }
    }
}
