//! An entry of the log: what it is, where it stands, and what makes it the same as another.
//!
//! A record is an event of one identity, (`source`, `id`), or it is evidence that something unreadable arrived, whose identity is its topic and its
//! digest. Where it came from (partition, offset) is a hint and never identity: a recreated topic starts its offsets again.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use fte_bus::Record;
use fte_events::TENANT;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::canonical::content_digest;
pub use crate::leaf::Kind;
use crate::reading::Reading;

/// Where an entry stands: its shard (a year of the log's clock) and its index there, from 0 without a gap. Positions are ordered as the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    pub shard: u16,
    pub index: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.shard, self.index)
    }
}

/// A text that is no position.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no position in the log, which looks like 2026-17 (shard and index)")]
pub struct NoPosition(String);

impl FromStr for Position {
    type Err = NoPosition;
    fn from_str(text: &str) -> Result<Self, NoPosition> {
        let parts = text.split_once('-').and_then(|(shard, index)| Some((shard.parse().ok()?, index.parse().ok()?)));
        let (shard, index) = parts.ok_or_else(|| NoPosition(text.chars().take(64).collect()))?;
        Ok(Self { shard, index })
    }
}

/// The task an entry belongs to. An outside system may name its own in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    Id(Uuid),
    Named(Box<str>),
}

impl From<&str> for Task {
    fn from(text: &str) -> Self {
        Uuid::try_parse(text).map_or_else(|_| Self::Named(text.into()), Self::Id)
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Named(name) => f.write_str(name),
        }
    }
}

/// Sixteen bytes that stand for an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key(pub [u8; 16]);

impl Key {
    /// The first 48 bits are those of an id that starts with its task's time (UUIDv7, UUIDv8), so that keys arrive nearly in order; the rest is a
    /// digest. Two identities with one key are not lost: the second one's content differs, so it is kept as a conflict.
    fn of(parts: [&[u8]; 3], id: &str) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(part);
        }
        let digest: [u8; 32] = hash.finalize().into();
        let mut key = [0; 16];
        match Uuid::try_parse(id) {
            Ok(uuid) if matches!(uuid.get_version_num(), 7 | 8) => {
                key[..6].copy_from_slice(&uuid.as_bytes()[..6]);
                key[6..].copy_from_slice(&digest[..10]);
            }
            _ => key.copy_from_slice(&digest[..16]),
        }
        Self(key)
    }

    fn of_event(source: &str, id: &str) -> Self {
        Self::of([b"event", source.as_bytes(), id.as_bytes()], id)
    }

    fn of_unparsed(topic: &str, sha256: &[u8; 32]) -> Self {
        Self::of([b"unparsed", topic.as_bytes(), sha256], "")
    }

    /// A conflict is written once for each other content.
    fn of_conflict(source: &str, id: &str, content: &[u8; 32]) -> Self {
        // The identity's own digest keeps (`a`, `bc`) apart from (`ab`, `c`).
        let identity = Self::of_event(source, id);
        Self::of([b"conflict", &identity.0, content], id)
    }
}

/// What entries are found by, besides task and place.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facets {
    pub agent: Option<Box<str>>,
    /// What was done: the event's own word, and its type.
    pub action: [Option<Box<str>>; 2],
    pub actor: Option<Box<str>>,
    pub outcome: Option<Box<str>>,
    /// Whose it is; that of what cannot be read is the one there always is.
    pub tenant: Option<Box<str>>,
}

/// No counter reaches this; it keeps sums of counters far from an overflow.
const SEQUENCE_MAX: u64 = 1_000_000_000_000;

/// A number of the gapless counter that a publisher's process gives its actions, from 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Counted {
    pub source: Box<str>,
    pub epoch: Box<str>,
    pub sequence: u64,
}

/// A record, read and about to be appended.
#[derive(Clone, Debug)]
pub struct NewEntry {
    pub kind: Kind,
    pub key: Key,
    pub task: Option<Task>,
    pub facets: Facets,
    pub counted: Option<Counted>,
    pub topic: Arc<str>,
    pub partition: Option<i32>,
    pub offset: Option<i64>,
    pub bytes: Bytes,
    pub sha256: [u8; 32],
}

impl NewEntry {
    pub fn read(record: Record) -> Self {
        let sha256 = Sha256::digest(&record.body).into();
        let Record { topic, body, partition, offset, key: _ } = record;
        let Some(reading) = Reading::of(&body) else {
            let key = Key::of_unparsed(&topic, &sha256);
            let (task, facets, counted) = (None, Facets { tenant: Some(TENANT.into()), ..Facets::default() }, None);
            return Self { kind: Kind::Unparsed, key, task, facets, counted, topic, partition, offset, bytes: body, sha256 };
        };
        let key = Key::of_event(&reading.source, &reading.id);
        let task = reading.task(&topic);
        let facets = Facets {
            agent: reading.agent().map(Into::into),
            action: [reading.action().map(Into::into), Some(&*reading.event_type).filter(|name| !name.is_empty()).map(Into::into)],
            actor: reading.actor().map(Into::into),
            outcome: reading.outcome().map(Into::into),
            tenant: Some(reading.tenant().into()),
        };
        let counted = (*topic == *fte_events::audit::TOPIC).then(|| counted(&reading)).flatten();
        Self { kind: Kind::Event, key, task, facets, counted, topic, partition, offset, bytes: body, sha256 }
    }

    /// The same record as evidence against an earlier one.
    pub fn into_conflict(self) -> Self {
        let key = match Reading::of(&self.bytes) {
            Some(reading) => Key::of_conflict(&reading.source, &reading.id, &content_digest(&self.bytes)),
            None => Key::of_conflict(&self.topic, "", &self.sha256),
        };
        Self { kind: Kind::Conflict, key, counted: None, ..self }
    }
}

fn counted(reading: &Reading<'_>) -> Option<Counted> {
    let (sequence, epoch) = (reading.sequence.as_deref()?, reading.epoch.as_deref()?);
    let sequence = sequence.parse().ok().filter(|sequence| (1..=SEQUENCE_MAX).contains(sequence))?;
    Some(Counted { source: (&*reading.source).into(), epoch: epoch.into(), sequence })
}

/// An entry as it is in the log.
#[derive(Clone, Debug)]
pub struct Entry {
    pub position: Position,
    pub kind: Kind,
    /// When it was logged, in milliseconds by the log's clock, which never goes back.
    pub logged_ms: i64,
    pub task: Option<Task>,
    pub topic: String,
    pub partition: Option<i32>,
    pub offset: Option<i64>,
    /// The event exactly as it was received.
    pub bytes: Vec<u8>,
    pub sha256: [u8; 32],
}

impl Entry {
    /// The event it holds, if it is one.
    pub fn reading(&self) -> Option<Reading<'_>> {
        match self.kind {
            Kind::Event | Kind::Conflict => Reading::of(&self.bytes),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(topic: &str, body: &'static [u8]) -> NewEntry {
        NewEntry::read(Record { topic: topic.into(), body: Bytes::from_static(body), partition: None, offset: None, key: None })
    }

    #[test]
    fn identity_is_source_and_id_alone() {
        let one = read("a", br#"{"id":"1","source":"/s","data":1}"#);
        assert_eq!(one.key, read("b", br#"{"source":"/s","id":"1","data":2}"#).key);
        assert_ne!(one.key, read("a", br#"{"id":"1","source":"/t","data":1}"#).key);
        assert_ne!(one.key, read("a", br#"{"id":"2","source":"/s","data":1}"#).key);
        assert_ne!(read("a", br#"{"id":"c","source":"ab"}"#).key, read("a", br#"{"id":"bc","source":"a"}"#).key);
    }

    #[test]
    fn what_is_no_event_is_identified_by_topic_and_bytes() {
        let one = read("a", b"nonsense");
        assert_eq!((one.kind, one.key), (Kind::Unparsed, read("a", b"nonsense").key));
        assert_ne!(one.key, read("b", b"nonsense").key);
        assert_ne!(one.key, read("a", b"other").key);
    }

    #[test]
    fn keys_of_ids_that_start_with_a_time_start_with_it_too() {
        let entry = read("a", br#"{"id":"01980000-0001-7000-8000-000000000001","source":"/s"}"#);
        assert_eq!(entry.key.0[..6], [0x01, 0x98, 0, 0, 0, 1]);
    }

    #[test]
    fn a_conflict_is_one_entry_for_each_content() {
        let conflict = |body| read("a", body).into_conflict();
        let one = conflict(br#"{"id":"1","source":"/s","data":1}"#);
        assert_eq!(one.kind, Kind::Conflict);
        assert_eq!(one.key, conflict(br#"{"source":"/s","id":"1","data":1.0,"traceid":"x"}"#).key);
        assert_ne!(one.key, conflict(br#"{"id":"1","source":"/s","data":2}"#).key);
        assert_ne!(one.key, read("a", br#"{"id":"1","source":"/s","data":1}"#).key);
    }

    #[test]
    fn positions_are_written_and_read_and_ordered_as_the_log_is() {
        let position: Position = "2026-17".parse().unwrap();
        assert_eq!((position, position.to_string().as_str()), (Position { shard: 2026, index: 17 }, "2026-17"));
        assert!(position < Position { shard: 2027, index: 0 });
        for text in ["", "2026", "2026-", "-1", "2026--1", "x-1", "2026-1-1"] {
            assert!(text.parse::<Position>().is_err(), "{text}");
        }
    }
}
