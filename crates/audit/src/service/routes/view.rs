//! An entry as the API shows it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fte_events::hex;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use crate::engine::Published;
use crate::entry::Entry;
use crate::entry::leaf::{Flag, Kind};

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
    /// Where it was read; empty for what the log itself wrote.
    pub(crate) topic: String,
    /// Kafka's partition: a hint.
    pub(crate) partition: Option<i32>,
    /// Kafka's offset: a hint.
    pub(crate) offset: Option<i64>,
    /// When it happened, as its publisher says, to the millisecond.
    pub(crate) time: Option<String>,
    /// When it was logged; never before an earlier entry.
    #[serde(serialize_with = "fte_bus::time::serialize")]
    pub(crate) logged_time: Timestamp,
    /// `event`, `unparsed` (no event, kept as evidence), `conflict` (contradicts an earlier event of the same source and id), or one of the log's own, such
    /// as `task_closed`.
    pub(crate) kind: &'static str,
    /// What is odd about it: `clock_back`, `offset_regression`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) flags: Vec<&'static str>,
    /// The how manieth entry of its task, from 0 without a gap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) task_seq: Option<u64>,
    /// SHA-256 of the bytes that came, in lower-case hex; of what is stored, where these were erased.
    pub(crate) sha256: String,
    /// What came, to the byte. Absent where it is no JSON, or was erased.
    #[schema(value_type = Option<Object>)]
    pub(crate) event: Option<Box<RawValue>>,
    /// What came, in base64; only where `event` is absent or lacks the white space around it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) event_base64: Option<String>,
    /// The key to what came was destroyed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) erased: bool,
}

impl From<Entry> for AuditEntry {
    fn from(entry: Entry) -> Self {
        let task_id = entry.task().map(|task| task.to_string());
        let Entry { position, header, bytes } = entry;
        let text = |text: Option<std::borrow::Cow<'static, str>>| text.map(std::borrow::Cow::into_owned);
        // Only an event was checked to be one JSON text; evidence may be anything.
        let event: Option<Box<RawValue>> = bytes.as_deref().and_then(|bytes| serde_json::from_slice(bytes).ok());
        let is_exact = bytes.as_ref().is_none_or(|bytes| event.as_ref().is_some_and(|event| event.get().len() == bytes.len()));
        let sha256 = match &bytes {
            Some(bytes) if header.enc.is_some() => Sha256::digest(bytes).into(),
            _ => header.payload_sha256,
        };
        Self {
            shard: position.shard,
            index: position.index,
            // That of evidence is no event's.
            id: text(header.id).filter(|_| header.kind != Kind::Unparsed),
            source: text(header.source),
            event_type: text(header.event_type),
            task_id,
            time: text(header.time).map(|time| fte_bus::time::normal(&time)),
            logged_time: Timestamp::from_millisecond(header.logged_time).unwrap_or_default(),
            kind: header.kind.as_str(),
            flags: header.flags.iter().copied().map(Flag::as_str).collect(),
            task_seq: header.task_seq,
            sha256: hex(&sha256),
            event_base64: bytes.as_ref().filter(|_| !is_exact).map(|bytes| STANDARD.encode(bytes)),
            erased: bytes.is_none(),
            event,
            topic: text(header.topic).unwrap_or_default(),
            partition: header.partition,
            offset: header.offset,
        }
    }
}

/// A signed statement about all entries of a shard up to a size.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AuditCheckpoint {
    pub(crate) shard: u16,
    /// The log's name in checkpoints.
    #[schema(example = "fte-0a1b2c3d.localhost/2026")]
    pub(crate) origin: String,
    /// How many entries it covers: those with a smaller index.
    pub(crate) size: u64,
    /// The root of their Merkle tree, in base64.
    pub(crate) root: String,
}

impl From<Published> for AuditCheckpoint {
    fn from(published: Published) -> Self {
        let checkpoint = published.checkpoint;
        Self { shard: published.shard, origin: checkpoint.origin, size: checkpoint.size, root: checkpoint.root.to_string() }
    }
}
