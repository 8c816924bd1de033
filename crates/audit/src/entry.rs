//! An entry of the log: what it is, where it stands, and what makes it the same as another.
//!
//! A record is an event of one identity, (`source`, `id`), or it is evidence that something unreadable arrived, whose identity is its topic and a
//! digest of it: keyed where the log seals what it keeps, so that nobody can find out by guessing what was there. Where it came from (partition, offset) is a hint and never identity: a recreated topic starts its offsets again.

pub(crate) mod canonical;
pub mod leaf;
pub(crate) mod mark;
pub mod reading;

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use fte_bus::Record;
use fte_events::{TENANT, hex};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use self::leaf::Header;
pub use self::leaf::Kind;
use self::reading::Reading;
use crate::subjects::About;

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
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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

    /// `id` is a digest of what came, in hex.
    fn of_unparsed(topic: &str, id: &str) -> Self {
        Self::of([b"unparsed", topic.as_bytes(), id.as_bytes()], "")
    }

    /// The key of the how manieth contradiction of an event, from 0.
    pub(crate) fn of_conflict(source: &str, id: &str, ordinal: u64) -> Self {
        // The identity's own digest keeps (`a`, `bc`) apart from (`ab`, `c`).
        let identity = Self::of_event(source, id);
        Self::of([b"conflict", &identity.0, &ordinal.to_be_bytes()], id)
    }

    /// What an entry of the log is recognised by. A conflict has the identity of another; which of its contradictions it is, the log's order says.
    pub(crate) fn of_header(header: &Header<'_>) -> Option<Self> {
        match header.kind {
            Kind::Conflict => None,
            // What the log itself says has ids that anybody could give an event: the two have no key in common.
            kind if !kind.is_received() => {
                Some(Self::of([b"own", header.source.as_deref()?.as_bytes(), header.id.as_deref()?.as_bytes()], header.id.as_deref()?))
            }
            Kind::Unparsed => Some(Self::of_unparsed(header.topic.as_deref().unwrap_or_default(), header.id.as_deref()?)),
            _ => Some(Self::of_event(header.source.as_deref()?, header.id.as_deref()?)),
        }
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

/// Longer values are found by their beginning.
const VALUE_BYTES_MAX: usize = 256;
/// A longer source or id is no identity: a header could not hold it.
const IDENTITY_BYTES_MAX: usize = 1024;
/// No counter reaches this; it keeps sums of counters far from an overflow.
const SEQUENCE_MAX: u64 = 1_000_000_000_000;

/// A number that a publisher gives without a gap, from 1.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counted {
    pub sequence: Option<u64>,
    /// The publisher's process; none where the number is the task's.
    pub epoch: Option<Box<str>>,
}

/// A record, read and about to be appended.
#[derive(Clone, Debug)]
pub struct NewEntry {
    pub kind: Kind,
    pub key: Key,
    /// What earlier versions recognised it by, where that is another.
    pub earlier_key: Option<Key>,
    /// Of what is no event, none.
    pub source: Option<Box<str>>,
    /// Of what is no event, a digest of what came, in hex.
    pub id: Box<str>,
    /// When it happened, as its publisher says.
    pub time: Option<Box<str>>,
    pub task: Option<Task>,
    pub facets: Facets,
    /// Whom it is about, as far as keys go.
    pub about: About,
    pub counted: Counted,
    pub topic: Arc<str>,
    pub partition: Option<i32>,
    pub offset: Option<i64>,
    pub bytes: Bytes,
    pub sha256: [u8; 32],
}

impl NewEntry {
    pub fn read(record: Record) -> Self {
        let sha256: [u8; 32] = Sha256::digest(&record.body).into();
        let Record { topic, body, partition, offset, key: _ } = record;
        let Some(reading) = Reading::of(&body).filter(|reading| reading.source.len().max(reading.id.len()) <= IDENTITY_BYTES_MAX) else {
            let id: Box<str> = hex(&sha256).into();
            let key = Key::of_unparsed(clip(&topic), &id);
            let facets = Facets { tenant: Some(TENANT.into()), ..Facets::default() };
            let (kind, counted) = (Kind::Unparsed, Counted::default());
            return Self {
                kind,
                key,
                earlier_key: None,
                source: None,
                id,
                time: None,
                task: None,
                facets,
                about: About::unreadable(),
                counted,
                topic,
                partition,
                offset,
                bytes: body,
                sha256,
            };
        };
        let key = Key::of_event(&reading.source, &reading.id);
        let task = reading.task(&topic).map(|task| match task {
            Task::Named(name) => Task::from(clip(&name)),
            id @ Task::Id(_) => id,
        });
        let clipped = |text: &str| Box::from(clip(text));
        let facets = Facets {
            agent: reading.agent().map(clipped),
            action: [reading.action().map(clipped), Some(&*reading.event_type).filter(|name| !name.is_empty()).map(clipped)],
            actor: reading.actor().map(clipped),
            outcome: reading.outcome().map(clipped),
            tenant: Some(clipped(reading.tenant())),
        };
        let (about, counted) = (About::of(&reading, clip(&topic)), counted(&reading, &topic));
        let (source, id, time) = (Some((&*reading.source).into()), (&*reading.id).into(), reading.time.as_deref().map(clipped));
        Self {
            kind: Kind::Event,
            key,
            earlier_key: None,
            source,
            id,
            time,
            task,
            facets,
            about,
            counted,
            topic,
            partition,
            offset,
            bytes: body,
            sha256,
        }
    }

    /// Gives a record that is no event another identity than the digest of its bytes. An entry that has that one is still recognised as the same.
    pub(crate) fn identify_as(&mut self, id: &str) {
        self.earlier_key = Some(self.key);
        self.key = Key::of_unparsed(clip(&self.topic), id);
        self.id = id.into();
    }

    /// What its header says, for a payload that is stored as it came. Its place in the log and in its task is not known yet.
    pub fn header(&self, logged_time: i64) -> Header<'_> {
        let text = |text: &'_ Option<Box<str>>| text.as_deref().map(str::to_owned).map(Cow::Owned);
        Header {
            source: self.source.as_deref().map(Cow::Borrowed),
            id: Some(Cow::Borrowed(&self.id)),
            event_type: text(&self.facets.action[1]),
            time: text(&self.time),
            tenant: text(&self.facets.tenant),
            task: self.task.as_ref().map(|task| Cow::Owned(task.to_string())),
            agent: text(&self.facets.agent),
            action: text(&self.facets.action[0]),
            actor: text(&self.facets.actor),
            outcome: text(&self.facets.outcome),
            sequence: self.counted.sequence,
            epoch: text(&self.counted.epoch),
            topic: Some(Cow::Borrowed(clip(&self.topic))),
            partition: self.partition,
            offset: self.offset,
            ..Header::of_digest(self.kind, logged_time, self.bytes.len(), self.sha256)
        }
    }
}

/// The publisher's number: of an action by its process's counter, of a status change by its task's.
fn counted(reading: &Reading<'_>, topic: &str) -> Counted {
    let number = |text: &str| text.parse().ok().filter(|number| (1..=SEQUENCE_MAX).contains(number));
    if topic == fte_events::audit::TOPIC {
        let both = reading.sequence.as_deref().and_then(number).zip(reading.epoch.as_deref());
        return both
            .map_or_else(Counted::default, |(sequence, epoch)| Counted { sequence: Some(sequence), epoch: Some(clip(epoch).into()) });
    }
    let sequence = reading.data.sequence.filter(|sequence| *reading.event_type == *"fte.status.changed" && *sequence <= SEQUENCE_MAX);
    Counted { sequence, epoch: None }
}

/// As much of a value as a header holds and entries are found by.
pub(crate) fn clip(value: &str) -> &str {
    let mut end = value.len().min(VALUE_BYTES_MAX);
    while !value.is_char_boundary(end) {
        end -= 1;
    }
    &value[..end]
}

/// An entry as it is in the log.
#[derive(Clone, Debug)]
pub struct Entry {
    pub position: Position,
    pub header: Header<'static>,
    /// What was received, to the byte, or what the log itself wrote; nothing where the key to it was destroyed.
    pub bytes: Option<Vec<u8>>,
}

impl Entry {
    pub fn task(&self) -> Option<Task> {
        self.header.task.as_deref().map(Task::from)
    }

    pub fn topic(&self) -> &str {
        self.header.topic.as_deref().unwrap_or_default()
    }

    /// Whose it is.
    pub fn tenant(&self) -> &str {
        self.header.tenant.as_deref().unwrap_or(TENANT)
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
    fn what_an_entry_is_recognised_by_can_be_told_from_its_header() {
        for (topic, body) in [("a", br#"{"id":"1","source":"/s"}"#.as_slice()), ("a", b"nonsense"), (&"t".repeat(300), b"x")] {
            let entry = NewEntry::read(Record { topic: topic.into(), body: body.into(), partition: None, offset: None, key: None });
            assert_eq!(Key::of_header(&entry.header(0)), Some(entry.key));
        }
    }

    #[test]
    fn what_a_header_cannot_hold_is_cut_or_no_identity() {
        let long = "é".repeat(600);
        let body = serde_json::json!({"id": "1", "source": "/s", "data": {"agent": long}}).to_string();
        let entry = NewEntry::read(Record { topic: "a".into(), body: body.into(), partition: None, offset: None, key: None });
        assert_eq!(entry.facets.agent.as_deref(), Some(&*"é".repeat(128)));
        let body = serde_json::json!({"id": long, "source": "/s"}).to_string();
        let entry = NewEntry::read(Record { topic: "a".into(), body: body.into(), partition: None, offset: None, key: None });
        assert_eq!(entry.kind, Kind::Unparsed);
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
