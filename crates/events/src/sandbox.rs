//! `fte.sandbox.lifecycle`: who held which sandbox, and for how long. Each `claimed` has exactly one `released` or `expired`.
//!
//! The four types share one payload, [`SandboxClaim`]; [`SandboxChange`] is the payload with its type.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use crate::ids::{ClaimId, TaskId};
use crate::open::open_words;
use crate::payload::{Extra, Payload};

/// The topic.
pub const TOPIC: &str = "fte.sandbox.lifecycle";

/// What happened to a claim: the event's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SandboxKind {
    /// An agent has it.
    Claimed,
    /// It was given back.
    Released,
    /// Its holder died; a successor gave it back.
    Expired,
    /// It could not be had.
    ClaimFailed,
}

impl SandboxKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Claimed, Self::Released, Self::Expired, Self::ClaimFailed];

    /// The CloudEvents `type`.
    pub const fn event_type(self) -> &'static str {
        match self {
            Self::Claimed => "fte.sandbox.claimed",
            Self::Released => "fte.sandbox.released",
            Self::Expired => "fte.sandbox.expired",
            Self::ClaimFailed => "fte.sandbox.claim-failed",
        }
    }

    /// The kind that a CloudEvents `type` names.
    pub fn from_event_type(event_type: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.event_type() == event_type)
    }

    /// Whether it ends a claim.
    pub const fn ends_claim(self) -> bool {
        matches!(self, Self::Released | Self::Expired)
    }
}

open_words! {
    /// What a sandbox is made of.
    pub enum Runtime {
        /// Nothing: the agent runs inside the runner.
        None = "none",
        /// A process of its own.
        Process = "process",
        /// A pod.
        Kubernetes = "kubernetes",
    }
}

open_words! {
    /// Why a sandbox was given back.
    pub enum ReleaseReason {
        /// The work is done.
        Completed = "completed",
        /// The try failed.
        Failed = "failed",
        /// Somebody cancelled.
        Cancelled = "cancelled",
        /// Time ran out.
        TimedOut = "timed_out",
        /// The task waits for a person or for another agent.
        Parked = "parked",
        /// The holder died or was cut off.
        Takeover = "takeover",
    }
}

/// A claim of a sandbox, and the pool as it was then. The task is the event's `subject`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SandboxClaim {
    /// The sandbox: a slot, a process, a pod.
    pub sandbox_id: String,
    /// The claim.
    pub claim_id: ClaimId,
    /// The pool it belongs to.
    pub pool: String,
    /// The agent in it.
    pub agent: String,
    /// What it is made of.
    pub runtime: Runtime,
    /// Whether it stood ready.
    #[serde(default)]
    pub warm: bool,
    /// How long the task waited for it, in milliseconds.
    #[serde(default)]
    pub waited_ms: u64,
    /// How long it was held, in milliseconds; once it is given back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_ms: Option<u64>,
    /// Why it was given back, or could not be had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<ReleaseReason>,
    /// How many of the pool are in use after this.
    #[serde(default)]
    pub in_use: u32,
    /// How many the pool may have.
    #[serde(default)]
    pub capacity: u32,
    /// Fields this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// What happened to a claim. On the wire the kind is the event's type, and the rest is `data`.
#[derive(Debug, Clone, PartialEq)]
pub struct SandboxChange {
    /// What happened.
    pub kind: SandboxKind,
    /// To which claim.
    pub claim: SandboxClaim,
}

impl Serialize for SandboxChange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.claim.serialize(serializer)
    }
}

impl Payload for SandboxChange {
    fn topic(&self) -> Cow<'static, str> {
        Cow::Borrowed(TOPIC)
    }
    fn event_type(&self) -> &'static str {
        self.kind.event_type()
    }
    fn version(&self) -> u32 {
        1
    }
    fn task_id(&self) -> Option<TaskId> {
        None
    }
}
