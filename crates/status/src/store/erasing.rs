//! Forgetting tasks: all that is kept of them goes, and a mark stays for a while, so that nothing of them that arrives late is kept either.
//!
//! What they made goes with the sweep of contents that nobody names (see `removing`), since another task may have made the same.

use fte_events::TaskId;

use crate::tenant::Tenant;

/// Tasks that are forgotten in one transaction.
pub(super) const TOGETHER: usize = 16;
/// How long the mark stays: longer than any topic keeps an event of a task, which is 90 days.
pub(super) const MARK_MS: i64 = 100 * 24 * 3600 * 1000;

/// Tasks of a tenant that are to be forgotten.
#[derive(Debug, Clone)]
pub(crate) struct Forgotten {
    pub(crate) tenant: Tenant,
    pub(crate) tasks: Vec<TaskId>,
}
