//! What one entry is in the log's tree, to the byte: a header, a line feed, and the payload.
//!
//! The header is one JSON object in the form of RFC 8785 (JCS), on one line. The payload is what came, to the byte, or its ciphertext where `enc` is
//! there. A leaf that would pass [`LEAF_BYTES_MAX`] (entries carry a length of 16 bits in C2SP's tiles) has `payload_ref` instead of bytes: the
//! SHA-256, in lower-case hex, of a blob that stands beside the tree and is the payload.
//!
//! The header says all that entries are found and checked by, so that an index can be made from the log, and compared with it, without any key: nothing
//! that entries are found by is a function of the payload that only its reader could work out again. What is personal (`actor`) is a keyed hash where the payload
//! is encrypted.
//!
//! Decoding is strict: a header that is not exactly what encoding gives is refused, so one leaf has one meaning and one form.
//!
//! | field | meaning |
//! |---|---|
//! | `v`, `kind`, `flags` | 1; [`Kind`]; [`Flag`]s, absent where there are none |
//! | `logged_time` | ms since 1970 by the log's clock; never less than that of the entry before |
//! | `source`, `id`, `type`, `time` | the event's; `time` as its publisher wrote it |
//! | `tenant`, `task`, `task_seq` | whose it is, which task's, and the how manieth of that task, from 0 without a gap |
//! | `agent`, `action`, `actor`, `outcome` | what it is found by |
//! | `sequence`, `epoch` | the publisher's number: of (`source`, `epoch`) for actions, of the task's status changes without an epoch |
//! | `topic`, `partition`, `offset` | where it was read; a hint and never identity |
//! | `payload_len`, `payload_sha256`, `payload_ref` | of the payload as stored |
//! | `content` | a keyed digest by which repeated events were told from contradictions; no longer written, since the payload is opened for that |
//! | `enc` | how the payload is encrypted: `alg`, `key` (a reference), `nonce`, which is a keyed digest of the event to the byte |

use std::borrow::Cow;
use std::fmt::Write;

use fte_events::{push_hex, unhex};
use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer};
use sha2::{Digest, Sha256};

use crate::entry::canonical::write_string;

/// Largest leaf, in bytes.
pub const LEAF_BYTES_MAX: usize = 65_535;
/// Version of the header.
pub const VERSION: u64 = 1;
/// Integers up to here are exact in JSON.
const INTEGER_MAX: i64 = (1 << 53) - 1;

/// Why an entry was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The normal case.
    Event,
    /// A record that is no event, kept as evidence.
    Unparsed,
    /// An event with the identity of an earlier one and other content: an attack or a bug.
    Conflict,
    /// A publisher's number has not arrived.
    Gap,
    /// It arrived after all.
    GapFilled,
    /// A task has ended; says how many entries it has. Written again after a late one.
    TaskClosed,
    /// The first of a shard: names the last checkpoint of the shard before.
    ShardOpen,
    /// The log's next public key.
    KeyRotated,
    HoldPlaced,
    HoldLifted,
    /// The key of somebody's personal data is gone.
    KeyDestroyed,
    /// Entries were exported.
    Export,
    /// Entries were read.
    Read,
    /// A shard has had its time: what it was, before it is removed.
    ShardRetired,
}

impl Kind {
    pub const ALL: [Self; 14] = [
        Self::Event,
        Self::Unparsed,
        Self::Conflict,
        Self::Gap,
        Self::GapFilled,
        Self::TaskClosed,
        Self::ShardOpen,
        Self::KeyRotated,
        Self::HoldPlaced,
        Self::HoldLifted,
        Self::KeyDestroyed,
        Self::Export,
        Self::Read,
        Self::ShardRetired,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Unparsed => "unparsed",
            Self::Conflict => "conflict",
            Self::Gap => "gap",
            Self::GapFilled => "gap_filled",
            Self::TaskClosed => "task_closed",
            Self::ShardOpen => "shard_open",
            Self::KeyRotated => "key_rotated",
            Self::HoldPlaced => "hold_placed",
            Self::HoldLifted => "hold_lifted",
            Self::KeyDestroyed => "key_destroyed",
            Self::Export => "export",
            Self::Read => "read",
            Self::ShardRetired => "shard_retired",
        }
    }

    /// Whether a publisher's record made it; the log itself writes all others.
    pub const fn is_received(self) -> bool {
        matches!(self, Self::Event | Self::Unparsed | Self::Conflict)
    }
}

/// What is odd about an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Flag {
    /// The clock went back: `logged_time` repeats that of the entry before.
    ClockBack,
    /// An unknown event at an offset that the log has passed: its topic was made again.
    OffsetRegression,
}

impl Flag {
    pub const ALL: [Self; 2] = [Self::ClockBack, Self::OffsetRegression];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClockBack => "clock_back",
            Self::OffsetRegression => "offset_regression",
        }
    }
}

/// How a payload is encrypted.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enc<'a> {
    #[serde(borrow)]
    pub alg: Cow<'a, str>,
    /// Names the key, and says nothing about whose it is.
    #[serde(borrow)]
    pub key: Cow<'a, str>,
    #[serde(borrow)]
    pub nonce: Cow<'a, str>,
}

/// What is known of an entry without its payload.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header<'a> {
    /// [`VERSION`].
    pub v: u64,
    #[serde(deserialize_with = "kind")]
    pub kind: Kind,
    /// Ascending, each once.
    #[serde(default, deserialize_with = "flags")]
    pub flags: Vec<Flag>,
    pub logged_time: i64,
    #[serde(default, deserialize_with = "text")]
    pub source: Option<Cow<'a, str>>,
    #[serde(default, deserialize_with = "text")]
    pub id: Option<Cow<'a, str>>,
    #[serde(default, rename = "type", deserialize_with = "text")]
    pub event_type: Option<Cow<'a, str>>,
    #[serde(default, deserialize_with = "text")]
    pub time: Option<Cow<'a, str>>,
    #[serde(default, deserialize_with = "text")]
    pub tenant: Option<Cow<'a, str>>,
    #[serde(default, deserialize_with = "text")]
    pub task: Option<Cow<'a, str>>,
    pub task_seq: Option<u64>,
    #[serde(default, deserialize_with = "text")]
    pub agent: Option<Cow<'a, str>>,
    #[serde(default, deserialize_with = "text")]
    pub action: Option<Cow<'a, str>>,
    #[serde(default, deserialize_with = "text")]
    pub actor: Option<Cow<'a, str>>,
    #[serde(default, deserialize_with = "text")]
    pub outcome: Option<Cow<'a, str>>,
    pub sequence: Option<u64>,
    #[serde(default, deserialize_with = "text")]
    pub epoch: Option<Cow<'a, str>>,
    #[serde(default, deserialize_with = "text")]
    pub topic: Option<Cow<'a, str>>,
    pub partition: Option<i32>,
    pub offset: Option<i64>,
    pub payload_len: u64,
    #[serde(deserialize_with = "digest")]
    pub payload_sha256: [u8; 32],
    #[serde(default, deserialize_with = "optional_digest")]
    pub payload_ref: Option<[u8; 32]>,
    #[serde(default, deserialize_with = "text")]
    pub content: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub enc: Option<Enc<'a>>,
}

/// A leaf that is none, or not in the one form it may have.
#[derive(Debug, thiserror::Error)]
pub enum LeafError {
    #[error("a leaf of {0} bytes; at most {LEAF_BYTES_MAX} are possible")]
    TooLong(usize),
    #[error("no line feed ends a header")]
    NoHeader,
    #[error("the header cannot be read")]
    Header(#[source] serde_json::Error),
    #[error("a header of version {0}; {VERSION} is known")]
    Version(u64),
    #[error("the header is not in canonical form")]
    NotCanonical,
    #[error("the header promises {expected} bytes of payload; there are {found}")]
    Length { expected: u64, found: u64 },
    #[error("the payload's SHA-256 is not the one in the header")]
    Payload,
}

impl Header<'_> {
    /// A header of a kind for a payload, with nothing else said yet.
    pub fn new(kind: Kind, logged_time: i64, payload: &[u8]) -> Self {
        Self::of_digest(kind, logged_time, payload.len(), Sha256::digest(payload).into())
    }

    /// The same, where the payload's digest is known.
    pub fn of_digest(kind: Kind, logged_time: i64, payload_len: usize, payload_sha256: [u8; 32]) -> Self {
        Self {
            v: VERSION,
            kind,
            flags: Vec::new(),
            logged_time,
            source: None,
            id: None,
            event_type: None,
            time: None,
            tenant: None,
            task: None,
            task_seq: None,
            agent: None,
            action: None,
            actor: None,
            outcome: None,
            sequence: None,
            epoch: None,
            topic: None,
            partition: None,
            offset: None,
            payload_len: payload_len as u64,
            payload_sha256,
            payload_ref: None,
            content: None,
            enc: None,
        }
    }

    /// The same, of texts of its own.
    pub fn into_owned(self) -> Header<'static> {
        let text = |text: Option<Cow<'_, str>>| text.map(|text| Cow::Owned(text.into_owned()));
        Header {
            source: text(self.source),
            id: text(self.id),
            event_type: text(self.event_type),
            time: text(self.time),
            tenant: text(self.tenant),
            task: text(self.task),
            agent: text(self.agent),
            action: text(self.action),
            actor: text(self.actor),
            outcome: text(self.outcome),
            epoch: text(self.epoch),
            topic: text(self.topic),
            content: text(self.content),
            enc: self.enc.map(|Enc { alg, key, nonce }| Enc {
                alg: Cow::Owned(alg.into_owned()),
                key: Cow::Owned(key.into_owned()),
                nonce: Cow::Owned(nonce.into_owned()),
            }),
            v: self.v,
            kind: self.kind,
            flags: self.flags,
            logged_time: self.logged_time,
            task_seq: self.task_seq,
            sequence: self.sequence,
            partition: self.partition,
            offset: self.offset,
            payload_len: self.payload_len,
            payload_sha256: self.payload_sha256,
            payload_ref: self.payload_ref,
        }
    }

    /// Appends the header's line, with its line feed.
    fn write(&self, text: &mut String) {
        let mut members = Members { text, first: true };
        members.text("action", self.action.as_deref());
        members.text("actor", self.actor.as_deref());
        members.text("agent", self.agent.as_deref());
        members.text("content", self.content.as_deref());
        if let Some(enc) = &self.enc {
            members.name("enc");
            members.text.push('{');
            let mut inner = Members { text: members.text, first: true };
            inner.text("alg", Some(&enc.alg));
            inner.text("key", Some(&enc.key));
            inner.text("nonce", Some(&enc.nonce));
            members.text.push('}');
        }
        members.text("epoch", self.epoch.as_deref());
        if !self.flags.is_empty() {
            members.name("flags");
            for (place, flag) in self.flags.iter().enumerate() {
                members.text.push(if place == 0 { '[' } else { ',' });
                write_string(flag.as_str(), members.text);
            }
            members.text.push(']');
        }
        members.text("id", self.id.as_deref());
        members.text("kind", Some(self.kind.as_str()));
        members.number("logged_time", Some(self.logged_time));
        members.number("offset", self.offset.filter(|offset| offset.unsigned_abs() <= INTEGER_MAX.unsigned_abs()));
        members.text("outcome", self.outcome.as_deref());
        members.number("partition", self.partition);
        members.number("payload_len", Some(self.payload_len));
        members.digest("payload_ref", self.payload_ref.as_ref());
        members.digest("payload_sha256", Some(&self.payload_sha256));
        members.number("sequence", self.sequence);
        members.text("source", self.source.as_deref());
        members.text("task", self.task.as_deref());
        members.number("task_seq", self.task_seq);
        members.text("tenant", self.tenant.as_deref());
        members.text("time", self.time.as_deref());
        members.text("topic", self.topic.as_deref());
        members.text("type", self.event_type.as_deref());
        members.number("v", Some(self.v));
        members.text.push_str("}\n");
    }
}

/// Encodes a leaf. With a `payload_ref` in the header the payload is not part of it.
///
/// # Errors
/// [`LeafError::TooLong`] when it does not fit: put the payload into a blob then.
pub fn encode(header: &Header<'_>, payload: &[u8]) -> Result<Vec<u8>, LeafError> {
    let mut text = String::with_capacity(640 + payload.len());
    header.write(&mut text);
    let mut leaf = text.into_bytes();
    if header.payload_ref.is_none() {
        leaf.extend_from_slice(payload);
    }
    if leaf.len() > LEAF_BYTES_MAX { Err(LeafError::TooLong(leaf.len())) } else { Ok(leaf) }
}

/// Takes a leaf apart: its header, and the payload unless that is a blob (then empty). The payload's digest is left to [`check_payload`].
pub fn decode(leaf: &[u8]) -> Result<(Header<'_>, &[u8]), LeafError> {
    let (header, payload) = read(leaf)?;
    let line = &leaf[..leaf.len() - payload.len()];
    let mut again = String::with_capacity(line.len());
    header.write(&mut again);
    if again.as_bytes() != line {
        return Err(LeafError::NotCanonical);
    }
    let (expected, found) = (if header.payload_ref.is_some() { 0 } else { header.payload_len }, payload.len() as u64);
    if expected != found {
        return Err(LeafError::Length { expected, found });
    }
    Ok((header, payload))
}

/// [`decode`], of a leaf that it has taken apart before: whether that is in the one form it may have is not asked again.
pub(crate) fn read(leaf: &[u8]) -> Result<(Header<'_>, &[u8]), LeafError> {
    if leaf.len() > LEAF_BYTES_MAX {
        return Err(LeafError::TooLong(leaf.len()));
    }
    let end = memchr::memchr(b'\n', leaf).ok_or(LeafError::NoHeader)?;
    let (line, payload) = (&leaf[..end], &leaf[end + 1..]);
    // Text that is checked as a whole need not be checked string by string.
    let header: Header<'_> = match std::str::from_utf8(line) {
        Ok(line) => serde_json::from_str(line),
        Err(_) => serde_json::from_slice(line),
    }
    .map_err(LeafError::Header)?;
    if header.v == VERSION { Ok((header, payload)) } else { Err(LeafError::Version(header.v)) }
}

/// Whether a payload, from the leaf or from its blob, is the one that the header names.
pub fn check_payload(header: &Header<'_>, payload: &[u8]) -> Result<(), LeafError> {
    if header.payload_len != payload.len() as u64 {
        return Err(LeafError::Length { expected: header.payload_len, found: payload.len() as u64 });
    }
    let digest: [u8; 32] = Sha256::digest(payload).into();
    if digest != header.payload_sha256 || header.payload_ref.is_some_and(|blob| blob != digest) {
        return Err(LeafError::Payload);
    }
    Ok(())
}

/// Writes the members of an object, in the order in which they are given.
struct Members<'a> {
    text: &'a mut String,
    first: bool,
}

impl Members<'_> {
    fn name(&mut self, name: &str) {
        if self.text.is_empty() {
            self.text.push('{');
        }
        if !self.first {
            self.text.push(',');
        }
        self.first = false;
        self.text.push('"');
        self.text.push_str(name);
        self.text.push_str("\":");
    }

    fn text(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.name(name);
            write_string(value, self.text);
        }
    }

    fn number(&mut self, name: &str, value: Option<impl std::fmt::Display>) {
        if let Some(value) = value {
            self.name(name);
            let _ = write!(self.text, "{value}");
        }
    }

    fn digest(&mut self, name: &str, value: Option<&[u8; 32]>) {
        if let Some(value) = value {
            self.name(name);
            self.text.push('"');
            push_hex(value, self.text);
            self.text.push('"');
        }
    }
}

/// Text that is borrowed where it has no escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a text")
            }
            fn visit_borrowed_str<E: serde::de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

fn text<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Cow<'a, str>>, D::Error> {
    Ok(Some(Text::deserialize(deserializer)?.0))
}

fn kind<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Kind, D::Error> {
    let Text(name) = Text::deserialize(deserializer)?;
    Kind::ALL.into_iter().find(|kind| kind.as_str() == name).ok_or_else(|| D::Error::custom("an unknown kind"))
}

fn flags<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Flag>, D::Error> {
    let names = Vec::<Text<'_>>::deserialize(deserializer)?;
    let flag = |Text(name): Text<'_>| Flag::ALL.into_iter().find(|flag| flag.as_str() == name);
    let flags: Option<Vec<_>> = names.into_iter().map(flag).collect();
    flags.filter(|flags| flags.is_sorted_by(|a, b| a < b)).ok_or_else(|| D::Error::custom("unknown or disordered flags"))
}

fn digest<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
    unhex(&Text::deserialize(deserializer)?.0).ok_or_else(|| D::Error::custom("no digest of 64 lower-case hex digits"))
}

fn optional_digest<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<[u8; 32]>, D::Error> {
    digest(deserializer).map(Some)
}

#[cfg(test)]
mod tests;
