//! An entry as the API shows it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::entry::{Entry, Kind};

/// An entry of the audit log.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AuditEntry {
    /// The shard: a year of the log's clock.
    #[schema(example = 2026)]
    pub(crate) shard: u16,
    /// Its place in the shard, from 0 without a gap.
    pub(crate) index: u64,
    /// The event's id, unique within its source. Absent where there is no event.
    pub(crate) id: Option<String>,
    /// Who published it.
    pub(crate) source: Option<String>,
    /// The event's type.
    #[serde(rename = "type")]
    pub(crate) event_type: Option<String>,
    /// The task it belongs to.
    pub(crate) task_id: Option<String>,
    /// Where it was read.
    pub(crate) topic: String,
    /// Kafka's partition: a hint.
    pub(crate) partition: Option<i32>,
    /// Kafka's offset: a hint.
    pub(crate) offset: Option<i64>,
    /// When it happened, as its publisher says.
    pub(crate) time: Option<String>,
    /// When it was logged; never before an earlier entry.
    pub(crate) logged_time: Timestamp,
    /// `event`, `unparsed` (no event, kept as evidence) or `conflict` (contradicts an earlier event of the same source and id).
    pub(crate) kind: &'static str,
    /// SHA-256 of the bytes that came, in lower-case hex.
    pub(crate) sha256: String,
    /// What came, to the byte. Absent where it is no JSON.
    #[schema(value_type = Option<Object>)]
    pub(crate) event: Option<Box<RawValue>>,
    /// What came, in base64; only where `event` is absent or lacks the white space around it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) event_base64: Option<String>,
}

impl From<Entry> for AuditEntry {
    fn from(entry: Entry) -> Self {
        let reading = entry.reading().unwrap_or_default();
        let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let (id, source, event_type) = (text(&reading.id), text(&reading.source), text(&reading.event_type));
        let time = reading.time.as_deref().and_then(text);
        // Only an event was checked to be one JSON text; evidence may be anything.
        let event: Option<Box<RawValue>> = serde_json::from_slice(&entry.bytes).ok();
        let exact = event.as_ref().is_some_and(|event| event.get().len() == entry.bytes.len());
        Self {
            shard: entry.position.shard,
            index: entry.position.index,
            id,
            source,
            event_type,
            task_id: entry.task.as_ref().map(ToString::to_string),
            time,
            logged_time: Timestamp::from_millisecond(entry.logged_ms).unwrap_or_default(),
            kind: Kind::as_str(entry.kind),
            sha256: entry.sha256.iter().map(|byte| format!("{byte:02x}")).collect(),
            event_base64: (!exact).then(|| STANDARD.encode(&entry.bytes)),
            event,
            topic: entry.topic,
            partition: entry.partition,
            offset: entry.offset,
        }
    }
}
