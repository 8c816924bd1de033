//! The language of the system: every `fte.*` topic, event type, payload and id, typed. No I/O.
//!
//! The catalogue ([`catalogue::TOPICS`]) is the one source. Topic manifests, JSON Schemas (`schemas/`), golden examples
//! (`golden/`) and test fixtures are made from it, and tests fail when one of them disagrees.
//!
//! What is always true:
//! * The same happening has the same event id, whoever says it and how often ([`ids::event_id`]).
//! * Fields this version does not know are kept in `extra` and passed on, in a payload as in the objects inside it.
//! * An event type this version does not know is [`None`] from [`decode()`], never an error.
//! * Words that only describe ([`Origin`], [`Runtime`], [`ReleaseReason`], …) are *open*: a newer writer's word is kept as
//!   `Other`. Words that decide ([`Status`], [`ResultKind`], [`Priority`]) are *closed*: a reader that does not know one cannot
//!   act rightly, so a new one is a new version of the payload and an error to an old reader.
//! * Times are RFC 3339 in UTC, durations whole milliseconds, absent fields are left out.
//!
//! # Writing an event
//! ```
//! use fte_events::{EventName, Outgoing, StatusChanged, Status, TaskId, event_id};
//! let now = jiff::Timestamp::UNIX_EPOCH;
//! let task = TaskId::mint(now, 7);
//! let change = StatusChanged::new(task, Status::Running, 2, 1);
//! let id = event_id(task, EventName::Status { sequence: change.sequence });
//! let bytes = Outgoing::new("runner", id, now, &change).cause("…").to_bytes();
//! assert!(bytes.starts_with(b"{\"specversion\":\"1.0\""));
//! ```
//!
//! # Reading one
//! ```
//! use fte_events::{Decoded, decode};
//! let data = r#"{"task_id":"01980000-0000-7000-8000-000000000001","turn":1,"reason":"timer"}"#;
//! let Some(Decoded::TaskResumed(resumed)) = decode("fte.task.resumed", data)? else { panic!() };
//! assert_eq!(resumed.turn, 1);
//! assert!(decode("fte.task.invented-later", data)?.is_none());
//! # Ok::<(), fte_events::DecodeError>(())
//! ```
//!
//! # Adding an event type
//! 1. Write its payload in its topic's file, with `extra`, and give it its type with `event!`.
//! 2. Name it in the topic's `types` in [`catalogue`], in [`Decoded`] and `decode`.
//! 3. Add a sample of it to [`sample::all`], with every field set.
//! 4. `FTE_UPDATE_GOLDEN=1 cargo test -p fte-events` writes its schema and its golden example; read both before committing.
//!
//! Adding an optional field needs only steps 3 and 4. Anything that an old reader or an old writer cannot live with is a new
//! version: a new payload type, with the old one kept for as long as its events are retained.

#![warn(missing_docs)]

mod open;
#[macro_use]
mod payload;

pub mod audit;
pub mod catalogue;
pub mod dead_letters;
pub mod decode;
pub mod digest;
pub mod envelope;
pub mod handoffs;
pub mod ids;
pub mod limits;
pub mod manifests;
pub mod results;
pub mod sample;
pub mod sandbox;
pub mod status;
pub mod triggers;

pub use audit::{ActionOutcome, ActionRecorded, Actor, ActorType};
pub use catalogue::{EventType, TOPICS, Topic, subscribed_by, topics};
pub use dead_letters::{DeadLettered, Failure, letter_id};
pub use decode::{DecodeError, Decoded, Trigger, TriggerError, decode, parse_trigger, task_of};
pub use digest::{hex, json_object_sha256, json_sha256, push_hex, sha256_hex, unhex};
pub use envelope::{Outgoing, TENANT};
pub use handoffs::{EscalationLevel, HandoffRequested, HandoffWithdrawn};
pub use ids::{AgentName, ClaimId, EventName, TaskId, event_id};
pub use payload::{Extra, Payload};
pub use results::{Artifact, Reply, ResultKind, TaskResult, Tokens, TokensUsed};
pub use sandbox::{ReleaseReason, Runtime, SandboxChange, SandboxClaim, SandboxKind};
pub use status::{ApprovalRequest, ExpiryDefault, Status, StatusChanged, TaskError};
pub use triggers::{
    Channel, Customer, DailyTaskDue, DeadlinePassed, ErasureRequested, MessageReceived, Origin, Priority, Requester, ResumeReason,
    ScheduleFired, TaskRequested, TaskResumed,
};

#[cfg(test)]
mod tests;
