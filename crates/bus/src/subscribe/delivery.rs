//! What arrives from the sidecar, one by one or in a bulk body, as records and as events.

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::HeaderMap;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::event::RawEvent;

/// An event and where it came from.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The event.
    pub event: RawEvent,
    /// Its bytes as they arrived.
    pub record: Record,
}

/// A record of a topic. Partition, offset and key are hints: a producer's headers can overwrite them.
#[derive(Clone, Debug)]
pub struct Record {
    /// The topic it was subscribed on.
    pub topic: Arc<str>,
    /// Its bytes.
    pub body: Bytes,
    /// Kafka partition.
    pub partition: Option<i32>,
    /// Kafka offset.
    pub offset: Option<i64>,
    /// Kafka key.
    pub key: Option<String>,
}

/// A record of a bulk body with the id its status must carry.
pub(super) struct Entry {
    pub(super) entry_id: String,
    pub(super) record: Record,
}

#[derive(Deserialize)]
struct BulkBody<'a> {
    #[serde(borrow)]
    entries: Vec<BulkEntry<'a>>,
}

#[derive(Deserialize)]
struct BulkEntry<'a> {
    #[serde(rename = "entryId")]
    entry_id: String,
    #[serde(borrow, default)]
    event: Option<&'a RawValue>,
    #[serde(borrow, default)]
    metadata: Option<Hints<'a>>,
}

/// The metadata that is read, each of whatever form; a map of all of it would cost more than the event.
#[derive(Default, Deserialize)]
struct Hints<'a> {
    #[serde(borrow, default, rename = "__partition")]
    partition: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "__offset")]
    offset: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "__key")]
    key: Option<&'a RawValue>,
}

/// Reads a bulk body; `raw` entries are base64 of the record.
pub(super) fn read_bulk(topic: &Arc<str>, body: &Bytes, raw: bool) -> Result<Vec<Entry>, serde_json::Error> {
    // Checked once as a whole, which is cheaper than once for each text in it.
    let text = std::str::from_utf8(body).map_err(serde::de::Error::custom)?;
    let bulk: BulkBody<'_> = serde_json::from_str(text)?;
    let entries = bulk.entries.into_iter().map(|entry| {
        let text = entry.event.map_or("null", RawValue::get);
        let bytes = if raw { raw_bytes(text) } else { None };
        let bytes = bytes
            .unwrap_or_else(|| entry.event.map_or_else(|| Bytes::from_static(b"null"), |event| body.slice_ref(event.get().as_bytes())));
        let hints = entry.metadata.unwrap_or_default();
        let record = Record {
            topic: Arc::clone(topic),
            body: bytes,
            partition: json_text(hints.partition).and_then(|text| text.parse().ok()),
            offset: json_text(hints.offset).and_then(|text| text.parse().ok()),
            key: json_text(hints.key).map(Cow::into_owned),
        };
        Entry { entry_id: entry.entry_id, record }
    });
    Ok(entries.collect())
}

/// A bulk `event` of a raw subscription: a JSON string of base64.
fn raw_bytes(json: &str) -> Option<Bytes> {
    STANDARD.decode(unquoted(json)?.as_bytes()).ok().map(Bytes::from)
}

fn json_text(value: Option<&RawValue>) -> Option<Cow<'_, str>> {
    unquoted(value?.get())
}

/// The text of a JSON string, borrowed where it has no escapes; `None` for any other value.
fn unquoted(json: &str) -> Option<Cow<'_, str>> {
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') { serde_json::from_str(json).ok().map(Cow::Owned) } else { Some(Cow::Borrowed(inner)) }
}

/// Reads a single delivery; of a raw subscription the record is the `data_base64` of the envelope the sidecar made.
pub(super) fn read_single(topic: &Arc<str>, headers: &HeaderMap, body: Bytes, raw: bool) -> Record {
    #[derive(Deserialize)]
    struct Wrapped {
        data_base64: String,
    }
    let unwrapped = if raw {
        serde_json::from_slice::<Wrapped>(&body).ok().and_then(|wrapped| STANDARD.decode(wrapped.data_base64).ok()).map(Bytes::from)
    } else {
        None
    };
    let hint = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    Record {
        topic: Arc::clone(topic),
        body: unwrapped.unwrap_or(body),
        partition: hint("__partition").and_then(|text| text.parse().ok()),
        offset: hint("__offset").and_then(|text| text.parse().ok()),
        key: hint("__key").map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bulk_body_keeps_each_events_bytes_and_hints() {
        let topic: Arc<str> = "t".into();
        let body = Bytes::from_static(
            br#"{"id":"x","entries":[{"entryId":"0","event":{"id": "1"},"metadata":{"__partition":"3","__offset":"7","__key":"k"},"contentType":"c"},{"entryId":"1"}]}"#,
        );
        let entries = read_bulk(&topic, &body, false).unwrap();
        assert_eq!(&entries[0].record.body[..], br#"{"id": "1"}"#);
        assert_eq!(
            (entries[0].record.partition, entries[0].record.offset, entries[0].record.key.as_deref()),
            (Some(3), Some(7), Some("k"))
        );
        assert_eq!(&entries[1].record.body[..], b"null");
    }

    #[test]
    fn hints_of_any_form_and_escapes_do_not_spoil_a_bulk_body() {
        let topic: Arc<str> = "t".into();
        let body = Bytes::from_static(
            br#"{"entries":[{"entryId":"0","event":"bm90IGpzb24=","metadata":{"__partition":3,"__offset":null,"__key":"a\"b","other":[{}]}},
            {"entryId":"1","event":"bm90\u0049Gpzb24=","metadata":null}]}"#,
        );
        let entries = read_bulk(&topic, &body, true).unwrap();
        let record = &entries[0].record;
        assert_eq!((record.partition, record.offset, record.key.as_deref()), (None, None, Some("a\"b")));
        assert_eq!(&entries[1].record.body[..], b"not json");
        assert!(read_bulk(&topic, &Bytes::from_static(b"{\"entries\":[{\"entryId\":\"0\",\"event\":\"\xff\"}]}"), true).is_err());
    }

    #[test]
    fn raw_records_are_unwrapped_in_both_modes() {
        let topic: Arc<str> = "t".into();
        let bulk = Bytes::from_static(br#"{"entries":[{"entryId":"0","event":"bm90IGpzb24="}]}"#);
        assert_eq!(&read_bulk(&topic, &bulk, true).unwrap()[0].record.body[..], b"not json");
        let single = Bytes::from_static(br#"{"id":"x","data_base64":"bm90IGpzb24="}"#);
        assert_eq!(&read_single(&topic, &HeaderMap::new(), single, true).body[..], b"not json");
    }
}
