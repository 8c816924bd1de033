//! `POST /v1.0/publish/{pubsub}/{topic}` and `/v1.0[-alpha1]/publish/bulk/{pubsub}/{topic}`.
//!
//! A bulk call is one command to the writer: all of it is stored or none, so a failure names every entry.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Api, ApiError, QueryMetadata, no_content, take_body};
use crate::cloudevent::{self, Event, Kind, Surroundings};
use crate::json::{Members, Object, Pairs, Text, string};
use crate::metrics;
use crate::record::{FLAG_OPAQUE, Head, RecordBuf};
use crate::store::StoreError;
use crate::topics::{Topic, partition_of};

const PUBLISH: &str = "ERR_PUBSUB_PUBLISH_MESSAGE";
const REQUEST_METADATA: &str = "ERR_PUBSUB_REQUEST_METADATA";
const EVENTS_SER: &str = "ERR_PUBSUB_EVENTS_SER";
const CLOUD_EVENTS_SER: &str = "ERR_PUBSUB_CLOUD_EVENTS_SER";

/// Whether `name` may name a topic: not empty, at most 249 bytes as on Kafka, nothing that cannot be seen.
pub(crate) fn check_topic(name: &str) -> Result<(), &'static str> {
    if name.trim_matches('/').is_empty() {
        return Err("topic is empty");
    }
    if name.len() > 249 {
        return Err("topic is longer than 249 bytes");
    }
    if name.chars().any(char::is_control) {
        return Err("topic has control characters");
    }
    Ok(())
}

async fn topic_of(api: &Api, pubsub: &str, name: &str) -> Result<Arc<Topic>, ApiError> {
    if pubsub.is_empty() {
        return Err(ApiError::new(StatusCode::NOT_FOUND, "ERR_PUBSUB_EMPTY", "pubsub name is empty"));
    }
    if pubsub != api.context.pubsub {
        return Err(ApiError::new(StatusCode::NOT_FOUND, "ERR_PUBSUB_NOT_FOUND", format!("pubsub {pubsub} is not found")));
    }
    if let Some(topic) = api.context.store.topic(name) {
        return Ok(topic);
    }
    check_topic(name)
        .map_err(|problem| ApiError::new(StatusCode::NOT_FOUND, "ERR_TOPIC_NAME_EMPTY", format!("{problem} in pubsub {pubsub}")))?;
    api.context.store.ensure_topic(name).await.map_err(|error| failed(name, pubsub, &error))
}

fn failed(topic: &str, pubsub: &str, error: &StoreError) -> ApiError {
    let doing = format!("error when publishing to topic {topic} in pubsub {pubsub}");
    ApiError::store(PUBLISH, &doing, error)
}

fn raw_payload(metadata: &Pairs) -> Result<bool, ApiError> {
    metadata.flag("rawPayload").map_err(|value| {
        ApiError::new(
            StatusCode::BAD_REQUEST,
            REQUEST_METADATA,
            format!("failed deserializing metadata: rawPayload {value:?} is not a boolean"),
        )
    })
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok()).filter(|value| !value.is_empty())
}

/// Where a record goes and what goes with it, from its metadata.
struct Target<'a> {
    key: Option<&'a str>,
    partition: u16,
    headers: Vec<u8>,
}

impl<'a> Target<'a> {
    /// `loose` is the partition of records without a key.
    fn of(metadata: &'a Pairs, topic: &Topic, loose: u16) -> Result<Self, String> {
        let key = metadata.get("partitionKey").or_else(|| metadata.get("__key"));
        let partition = match (metadata.get("partitionNumber"), key) {
            (Some(text), _) => text
                .parse()
                .ok()
                .filter(|partition| *partition < topic.partitions)
                .ok_or_else(|| format!("topic {} has no partition {text}", topic.name))?,
            (None, Some(key)) => partition_of(key.as_bytes(), topic.partitions),
            (None, None) => loose,
        };
        let mut headers = Vec::new();
        // `__key` and its like are written at delivery; twice in one object they would be an error to strict readers.
        for (key, value) in metadata.0.iter().filter(|(key, _)| !key.starts_with("__")) {
            if !headers.is_empty() {
                headers.push(b',');
            }
            string(&mut headers, key);
            headers.push(b':');
            string(&mut headers, value);
        }
        Ok(Self { key, partition, headers })
    }
}

/// Whether bytes are a JSON object, which a CloudEvent has to be.
fn is_object(bytes: &[u8]) -> bool {
    serde_json::from_slice::<Members<'_>>(bytes).is_ok()
}

/// Publishes one event: 204 once it is durable.
pub(super) async fn single(
    State(api): State<Api>,
    Path((pubsub, name)): Path<(String, String)>,
    QueryMetadata(metadata): QueryMetadata,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let topic = topic_of(&api, &pubsub, &name).await?;
    let raw = raw_payload(&metadata)?;
    let body = take_body(&api, body).await?;
    let content_type = header(&headers, CONTENT_TYPE.as_str()).unwrap_or("text/plain");
    let now = Timestamp::now();
    let now_text = whole_seconds(now);
    let around = surroundings(&api, &pubsub, &name, &headers, (now, &now_text));
    let target = Target::of(&metadata, &topic, fastrand::u16(..topic.partitions))
        .map_err(|problem| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, PUBLISH, problem))?;
    let mut records = RecordBuf::default();
    records.bytes.reserve(body.bytes.len() + target.headers.len() + 512);
    let opaque = raw && !is_object(&body.bytes);
    let head = Head {
        flags: if opaque { FLAG_OPAQUE } else { 0 },
        at_ms: now.as_millisecond(),
        key: target.key.map(str::as_bytes),
        headers: &target.headers,
    };
    records
        .push(target.partition, head, |out| {
            if raw {
                out.extend_from_slice(&body.bytes);
                return Ok(0);
            }
            let event = match cloudevent::kind(content_type) {
                Kind::CloudEvent => Event::Envelope(&body.bytes),
                Kind::Json => Event::Json(&body.bytes),
                Kind::Binary => Event::Binary(Cow::Borrowed(&body.bytes)),
                Kind::Text => Event::Text(String::from_utf8_lossy(&body.bytes)),
            };
            cloudevent::write(out, &event, content_type, &metadata, &around)
        })
        .map_err(|error| ApiError::new(StatusCode::BAD_REQUEST, CLOUD_EVENTS_SER, error.to_string()))?;
    api.context.store.publish(topic, records).await.map_err(|error| failed(&name, &pubsub, &error))?;
    metrics::published(&name, 1);
    Ok(no_content())
}

/// What a new envelope says besides the event.
fn surroundings<'a>(
    api: &'a Api,
    pubsub: &'a str,
    topic: &'a str,
    headers: &'a HeaderMap,
    (now, now_text): (Timestamp, &'a str),
) -> Surroundings<'a> {
    let (traceparent, tracestate) = (header(headers, "traceparent"), header(headers, "tracestate"));
    Surroundings { app_id: &api.instance.app_id, pubsub, topic, traceparent, tracestate, now, now_text }
}

fn whole_seconds(now: Timestamp) -> String {
    Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    #[serde(borrow, default)]
    entry_id: Option<Text<'a>>,
    #[serde(borrow, default)]
    event: Option<&'a RawValue>,
    #[serde(borrow, default)]
    content_type: Option<Text<'a>>,
    #[serde(default)]
    metadata: Option<Pairs>,
}

/// Publishes many events: 204 once all are durable; 500 with the ids of all when they are not.
pub(super) async fn bulk(
    State(api): State<Api>,
    Path((pubsub, name)): Path<(String, String)>,
    QueryMetadata(metadata): QueryMetadata,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let topic = topic_of(&api, &pubsub, &name).await?;
    let raw = raw_payload(&metadata)?;
    let body = take_body(&api, body).await?;
    let malformed = |problem: String| {
        ApiError::new(
            StatusCode::BAD_REQUEST,
            EVENTS_SER,
            format!("error when unmarshaling the request for topic {name} pubsub {pubsub}: {problem}"),
        )
    };
    let entries: Vec<Object<Entry<'_>>> = serde_json::from_slice(&body.bytes).map_err(|error| malformed(error.to_string()))?;
    if entries.len() > api.context.limits.items_max {
        return Err(malformed(format!("{} entries, at most {} at a time", entries.len(), api.context.limits.items_max)));
    }
    let now = Timestamp::now();
    let now_text = whole_seconds(now);
    let around = surroundings(&api, &pubsub, &name, &headers, (now, &now_text));
    let loose = fastrand::u16(..topic.partitions);
    let mut records = RecordBuf::default();
    records.bytes.reserve(body.bytes.len() + entries.len() * 256);
    records.spans.reserve(entries.len());
    let mut ids: HashSet<&str> = HashSet::with_capacity(entries.len());
    let mut ordered: Vec<&str> = Vec::with_capacity(entries.len());
    let mut refused: Option<String> = None;
    for Object(entry) in &entries {
        let id = entry
            .entry_id
            .as_ref()
            .map(|id| &*id.0)
            .filter(|id| !id.is_empty())
            .ok_or_else(|| malformed("an entry has no entryId".to_owned()))?;
        if !ids.insert(id) {
            return Err(malformed(format!("entryId {id} is not unique")));
        }
        ordered.push(id);
        let content_type = entry
            .content_type
            .as_ref()
            .map(|text| &*text.0)
            .filter(|text| !text.is_empty())
            .ok_or_else(|| malformed(format!("entry {id} has no contentType")))?;
        let event = entry.event.ok_or_else(|| malformed(format!("entry {id} has no event")))?;
        let event = event_of(event, content_type).map_err(|problem| malformed(format!("entry {id}: {problem}")))?;
        // The request's metadata wins over the entry's as a record header, and reaches the envelope only if the entry has
        // metadata of its own: Dapr's ways.
        let merged;
        let all = match &entry.metadata {
            None => &metadata,
            Some(own) if metadata.0.is_empty() => own,
            Some(own) => {
                let mut pairs = metadata.0.clone();
                pairs.extend(own.0.iter().filter(|(key, _)| metadata.get(key).is_none()).cloned());
                merged = Pairs(pairs);
                &merged
            }
        };
        let none = Pairs::default();
        let envelope = if entry.metadata.is_some() { all } else { &none };
        let target = match Target::of(all, &topic, loose) {
            Ok(target) => target,
            Err(problem) => {
                refused = Some(problem);
                continue;
            }
        };
        let opaque = raw
            && match &event {
                Event::Envelope(bytes) | Event::Json(bytes) => !is_object(bytes),
                Event::Text(text) => !is_object(text.as_bytes()),
                Event::Binary(bytes) => !is_object(bytes),
            };
        let head = Head {
            flags: if opaque { FLAG_OPAQUE } else { 0 },
            at_ms: now.as_millisecond(),
            key: target.key.map(str::as_bytes),
            headers: &target.headers,
        };
        records
            .push(target.partition, head, |out| {
                if raw {
                    match &event {
                        Event::Envelope(bytes) | Event::Json(bytes) => out.extend_from_slice(bytes),
                        Event::Text(text) => out.extend_from_slice(text.as_bytes()),
                        Event::Binary(bytes) => out.extend_from_slice(bytes),
                    }
                    return Ok(0);
                }
                cloudevent::write(out, &event, content_type, envelope, &around)
            })
            .map_err(|error| ApiError::new(StatusCode::BAD_REQUEST, CLOUD_EVENTS_SER, format!("entry {id}: {error}")))?;
    }
    let stored = match refused {
        // All or nothing, so that the answer is the same for every entry.
        Some(problem) => Err(problem),
        None => {
            let count = records.spans.len();
            let stored = api.context.store.publish(topic, records).await;
            if stored.is_ok() {
                metrics::published(&name, count);
            }
            stored.map_err(|error| crate::chain(&error))
        }
    };
    match stored {
        Ok(()) => Ok(no_content()),
        Err(problem) => Ok(failed_entries(&ordered, &problem)),
    }
}

fn event_of<'a>(event: &'a RawValue, content_type: &str) -> Result<Event<'a>, String> {
    let text = || {
        serde_json::from_str::<Text<'a>>(event.get())
            .map(|text| text.0)
            .map_err(|_| format!("event is no string, as contentType {content_type} wants"))
    };
    let media = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    Ok(match cloudevent::kind(content_type) {
        Kind::CloudEvent => Event::Envelope(event.get().as_bytes()),
        Kind::Json => Event::Json(event.get().as_bytes()),
        Kind::Binary => {
            let bytes = STANDARD.decode(text()?.as_bytes()).map_err(|_| "event is not base64".to_owned())?;
            Event::Binary(Cow::Owned(bytes))
        }
        Kind::Text if media.starts_with("text/") || media == "application/xml" => Event::Text(text()?),
        Kind::Text => return Err(format!("contentType {content_type} is not supported")),
    })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FailedEntries<'a> {
    failed_entries: Vec<FailedEntry<'a>>,
    error_code: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FailedEntry<'a> {
    entry_id: &'a str,
    error: &'a str,
}

fn failed_entries(ids: &[&str], error: &str) -> Response {
    let body = FailedEntries { failed_entries: ids.iter().map(|entry_id| FailedEntry { entry_id, error }).collect(), error_code: PUBLISH };
    (StatusCode::INTERNAL_SERVER_ERROR, axum::Json(body)).into_response()
}
