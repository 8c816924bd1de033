//! Names and ids. Whoever computes the id of a happening computes the same one, so that a second publish after a crash is
//! recognised everywhere.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;
use uuid::Uuid;

/// The UUIDv5 namespace of tasks made from a bare event: itself UUIDv5 of the URL namespace and `urn:fte:bare-event`.
/// Never change it: a redelivered bare event would start a second task.
pub const BARE_EVENT_NAMESPACE: Uuid = Uuid::from_u128(0x9e42_a802_f720_57fb_b401_e97c_4fc8_06f2);

/// Why a text is no id or name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not a UUID in its hyphenated form of 36 characters.
    #[error("{0:?} is not a UUID of the form 01980000-0000-7000-8000-000000000001")]
    NotUuid(String),
    /// Not an agent's name.
    #[error("{0:?} is not an agent's name: 1 to 40 of a-z, 0-9 and -")]
    NotAgentName(String),
}

/// Only the hyphenated form is an id, so that one id has one spelling (but for the case of its letters).
fn parse_hyphenated(text: &str) -> Result<Uuid, IdError> {
    match Uuid::try_parse(text) {
        Ok(uuid) if text.len() == 36 => Ok(uuid),
        _ => Err(IdError::NotUuid(text.chars().take(64).collect())),
    }
}

/// A newtype over [`Uuid`] that is its hyphenated text everywhere outside.
macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema, ToSchema)]
        #[schema(value_type = String, format = Uuid)]
        pub struct $name(Uuid);

        impl $name {
            /// Takes any UUID as it is, as one read from a database.
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }
            /// The UUID itself.
            pub const fn as_uuid(&self) -> &Uuid {
                &self.0
            }
            /// Its 16 bytes, as they are stored.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                parse_hyphenated(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.0.hyphenated().encode_lower(&mut Uuid::encode_buffer()))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(ParsedVisitor(std::marker::PhantomData))
            }
        }
    };
}

/// Reads anything that parses from text, without copying the text.
struct ParsedVisitor<T>(std::marker::PhantomData<T>);

impl<T: FromStr<Err = IdError>> serde::de::Visitor<'_> for ParsedVisitor<T> {
    type Value = T;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an id as text")
    }
    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

uuid_id! {
    /// A task, from its request to its result. UUIDv7 when we mint it; any UUID when another system chose it.
    TaskId
}

uuid_id! {
    /// One claim of a sandbox for one try at a task: one `claimed`, and one `released` or `expired`.
    ClaimId
}

impl TaskId {
    /// A new id whose order is the order of `at`; `random` makes it unique. Both are arguments so that a simulation repeats.
    pub fn mint(at: Timestamp, random: u128) -> Self {
        let millis = u64::try_from(at.as_millisecond()).unwrap_or(0);
        let mut bytes = [0; 10];
        bytes.copy_from_slice(&random.to_be_bytes()[6..]);
        Self(uuid::Builder::from_unix_timestamp_millis(millis, &bytes).into_uuid())
    }

    /// A new id, now. Ids of one process are strictly ascending.
    pub fn now() -> Self {
        Self(Uuid::now_v7())
    }

    /// The task that a bare event starts: the same event always starts the same task.
    ///
    /// UUIDv5 in [`BARE_EVENT_NAMESPACE`] of `source`, a zero byte, `id`; the zero keeps (`ab`, `c`) apart from (`a`, `bc`).
    pub fn from_source(source: &str, id: &str) -> Self {
        Self(Uuid::new_v5(&BARE_EVENT_NAMESPACE, format!("{source}\0{id}").as_bytes()))
    }

    /// The task that a hand-off of `parent` starts: the same hand-off always starts the same task.
    pub fn of_handoff(parent: Self, ordinal: u32) -> Self {
        Self(derived(parent, format_args!("child/{ordinal}")))
    }

    /// When it was minted, for a UUIDv7.
    pub fn minted_at(&self) -> Option<Timestamp> {
        let (seconds, nanos) = self.0.get_timestamp().filter(|_| self.0.get_version_num() == 7)?.to_unix();
        Timestamp::new(i64::try_from(seconds).ok()?, i32::try_from(nanos).ok()?).ok()
    }
}

impl ClaimId {
    /// The claim of a task's try: a task holds at most one sandbox per turn and attempt, so this names it.
    pub fn of(task: TaskId, turn: u32, attempt: u32) -> Self {
        Self(derived(task, format_args!("claim/{turn}/{attempt}")))
    }
}

/// What happened to a task, by the name that its event id is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventName<'a> {
    /// A request to run (turn 0) or a resumption (turn n).
    Trigger {
        /// The task's turn.
        turn: u32,
    },
    /// A status change.
    Status {
        /// The task's gapless sequence number.
        sequence: u64,
    },
    /// A sandbox was claimed.
    Claimed(ClaimId),
    /// A claim ended: `released` and `expired` share the name, since a claim has exactly one of them.
    Released(ClaimId),
    /// A claim could not be had.
    ClaimFailed(ClaimId),
    /// The one result.
    Result,
    /// A hand-off to another agent.
    Handoff {
        /// Which of the task's hand-offs, from 1.
        ordinal: u32,
    },
    /// A hand-off is not waited for any more.
    HandoffWithdrawn {
        /// Which of the task's hand-offs, from 1.
        ordinal: u32,
    },
    /// An action that belongs to the task: a tool call, a decision.
    Action {
        /// Which of the events that the task has said.
        ordinal: u64,
    },
    /// A request to forget somebody; the id that it is made of is the erasure's.
    Erasure {
        /// Which part of the list of tasks, from 0.
        part: u32,
    },
    /// A consumer gave up on an event.
    Letter {
        /// Who gave up.
        consumer: &'a str,
        /// The event it gave up on.
        original_id: &'a str,
        /// The letter whose replay failed again, if it was one.
        replay: Option<&'a str>,
    },
}

impl fmt::Display for EventName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trigger { turn } => write!(f, "trigger/{turn}"),
            Self::Status { sequence } => write!(f, "status/{sequence}"),
            Self::Claimed(claim) => write!(f, "claimed/{claim}"),
            Self::Released(claim) => write!(f, "released/{claim}"),
            Self::ClaimFailed(claim) => write!(f, "claim-failed/{claim}"),
            Self::Result => f.write_str("result"),
            Self::Handoff { ordinal } => write!(f, "handoff/{ordinal}"),
            Self::HandoffWithdrawn { ordinal } => write!(f, "handoff-withdrawn/{ordinal}"),
            Self::Action { ordinal } => write!(f, "action/{ordinal}"),
            Self::Erasure { part } => write!(f, "erasure/{part}"),
            Self::Letter { consumer, original_id, replay: None } => write!(f, "letter/{consumer}/{original_id}"),
            Self::Letter { consumer, original_id, replay: Some(replay) } => {
                write!(f, "letter/{consumer}/{original_id}/{replay}")
            }
        }
    }
}

/// The id of an event about a task: the same happening, the same id.
///
/// UUIDv8: the first 48 bits are those of the task id (its time, so that indexes stay ordered), the rest are the first bits of
/// SHA-256 over the task id's 16 bytes followed by the name's text, with the version and variant bits set over them.
pub fn event_id(task: TaskId, name: EventName<'_>) -> Uuid {
    derived(task, format_args!("{name}"))
}

fn derived(task: TaskId, name: fmt::Arguments<'_>) -> Uuid {
    struct Hashed(Sha256);
    impl fmt::Write for Hashed {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0.update(text.as_bytes());
            Ok(())
        }
    }

    let mut hashed = Hashed(Sha256::new());
    hashed.0.update(task.as_bytes());
    // Hashing cannot fail, and so neither can this write.
    let _ = hashed.write_fmt(name);
    let digest = hashed.0.finalize();

    let mut bytes = *task.as_bytes();
    bytes[6..].copy_from_slice(&digest[..10]);
    Uuid::new_v8(bytes)
}

/// The name of an agent: 1 to 40 of `a-z`, `0-9` and `-`, so that it fits a topic's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema, ToSchema)]
#[schema(value_type = String, pattern = "^[a-z0-9-]{1,40}$")]
pub struct AgentName(#[schemars(regex(pattern = r"^[a-z0-9-]{1,40}$"))] String);

impl AgentName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AgentName {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let fits = (1..=40).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        if fits { Ok(Self(text.to_owned())) } else { Err(IdError::NotAgentName(text.chars().take(64).collect())) }
    }
}

impl fmt::Display for AgentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for AgentName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for AgentName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for AgentName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(ParsedVisitor(std::marker::PhantomData))
    }
}

#[cfg(test)]
mod tests;
