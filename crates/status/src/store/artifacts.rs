//! Which artifacts the tasks that are kept name, and which content lost a task that named it.
//!
//! Always true: whoever names a content has a row of its own, made in the transaction that stores the event that says so, and removed in the one that
//! removes the task; in which the content is also written down as one to look at. So a content that is looked at may be named; one that was named and is
//! not any more is looked at, whatever crashed in between. A content that no task ever named here is nobody's to remove: the read model may have been
//! lost and be filled anew.

use fte_artifacts::Digest;

/// How long a content that is too young to be removed is left alone, in milliseconds.
pub(crate) const LATER_MS: i64 = 24 * 3600 * 1000;

/// A content to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unnamed {
    /// Which.
    pub digest: Digest,
    /// Whether a task names it all the same.
    pub is_named: bool,
}

/// What is to be done with contents that were looked at.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Settled {
    /// Nothing more.
    pub done: Vec<Digest>,
    /// To be looked at again, a day later.
    pub later: Vec<Digest>,
}
