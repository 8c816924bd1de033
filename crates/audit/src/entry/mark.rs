//! What an entry is in the life of its task: one rule for all who judge whether a task is whole.

use fte_events::{ResultKind, SandboxKind, triggers};

use crate::entry::leaf::{Header, Kind};

/// What an entry is in the life of its task. The numbers are those in the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    Other = 0,
    Trigger = 1,
    Status = 2,
    Result = 3,
    Claimed = 4,
    Ended = 5,
    Closed = 6,
}

impl Mark {
    /// By its header alone: so it can be told of what is sealed, too.
    pub(crate) fn of(header: &Header<'_>) -> Self {
        match header.kind {
            Kind::TaskClosed => return Self::Closed,
            Kind::Event => {}
            _ => return Self::Other,
        }
        let (event_type, topic) = (header.event_type.as_deref().unwrap_or_default(), header.topic.as_deref().unwrap_or_default());
        if event_type == "fte.status.changed" {
            Self::Status
        } else if ResultKind::from_event_type(event_type).is_some() {
            Self::Result
        } else if let Some(kind) = SandboxKind::from_event_type(event_type) {
            match kind {
                SandboxKind::ClaimFailed => Self::Other,
                kind if kind.ends_claim() => Self::Ended,
                _ => Self::Claimed,
            }
        } else if (topic == triggers::TOPIC
            && !matches!(event_type, "fte.task.resumed" | "fte.erasure.requested" | "fte.handoff.withdrawn"))
            || event_type == "fte.handoff.requested"
        {
            Self::Trigger
        } else {
            Self::Other
        }
    }

    pub(crate) const fn from_number(number: i64) -> Self {
        match number {
            1 => Self::Trigger,
            2 => Self::Status,
            3 => Self::Result,
            4 => Self::Claimed,
            5 => Self::Ended,
            6 => Self::Closed,
            _ => Self::Other,
        }
    }
}
