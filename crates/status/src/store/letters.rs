//! Dead letters, kept as the records that came, with what was decided about them.

use bytes::Bytes;
use fte_events::TaskId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::tenant::Tenant;

/// What was decided about a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LetterState {
    /// Nothing yet.
    Open,
    /// Its event was published again.
    Replayed,
    /// Nothing is to be done about it.
    Discarded,
}

/// A letter as it arrives.
#[derive(Debug, Clone)]
pub(crate) struct NewLetter {
    /// The id of the letter: the same for the same letter, however often it arrives.
    pub id: String,
    /// Whose its event was.
    pub tenant: Tenant,
    /// The task of its event, where that is known.
    pub task: Option<TaskId>,
    /// The dead-letter topic.
    pub topic: std::sync::Arc<str>,
    /// The record as it came.
    pub record: Bytes,
}

/// A letter as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LetterRow {
    /// Its place in the order of arrival.
    pub row: i64,
    /// Its id.
    pub id: String,
    /// Whose its event was.
    pub tenant: Tenant,
    /// What was decided.
    pub state: LetterState,
    /// When it was stored, in milliseconds since 1970.
    pub stored_ms: i64,
    /// When it was decided, in microseconds since 1970.
    pub decided_us: Option<i64>,
    /// The dead-letter topic.
    pub topic: String,
    /// The record as it came.
    pub record: Vec<u8>,
}

impl LetterState {
    /// As it is stored. Numbers are never reused.
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Open => 0,
            Self::Replayed => 1,
            Self::Discarded => 2,
        }
    }

    pub(super) fn of(code: u8) -> Option<Self> {
        [Self::Open, Self::Replayed, Self::Discarded].into_iter().find(|state| state.code() == code)
    }
}
