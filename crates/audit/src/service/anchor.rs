//! The log's checkpoints as actions on `fte.audit.actions`: a second memory of what was signed, under the same operator.
//!
//! A minute after the start, then once an hour, and only when something else was logged than the anchor before, or the log would feed itself. A start is something that was logged.

use std::sync::Arc;
use std::time::Duration;

use fte_events::{ActionOutcome, ActionRecorded, Actor, ActorType};
use fte_service::{AuditTrail, ServiceError, chain};
use jiff::Timestamp;
use serde_json::Value;

use crate::engine::Published;
use crate::log::Log;

/// Between two looks.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(3600);
/// From the start to the first one: an instance that is started anew every half hour is to have anchors, too.
const FIRST_LOOK: Duration = Duration::from_secs(60);

/// The action that an anchor is.
pub(crate) const ACTION: &str = "checkpoint.anchored";

/// What publishes anchors.
pub(crate) struct Anchors {
    log: Arc<dyn Log>,
    trail: AuditTrail,
    /// What was anchored last, by this process.
    last: Option<Published>,
}

impl Anchors {
    pub(crate) fn new(log: Arc<dyn Log>, trail: AuditTrail) -> Self {
        Self { log, trail, last: None }
    }

    /// Looks now and then, for as long as the process lives.
    pub(crate) async fn keep(mut self, look_every: Duration) -> Result<(), ServiceError> {
        tokio::time::sleep(look_every.min(FIRST_LOOK)).await;
        loop {
            self.look().await;
            tokio::time::sleep(look_every).await;
        }
    }

    /// Publishes the newest checkpoint, if it is due.
    async fn look(&mut self) {
        match self.log.checkpoint(None).await {
            Ok(Some(published)) if is_due(self.last.as_ref(), &published) => {
                self.trail.note(anchor(&published));
                self.last = Some(published);
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(error = %chain(&error), "no checkpoint to anchor"),
        }
    }
}

/// Whether there is more than the entry that the last anchor itself made.
fn is_due(last: Option<&Published>, now: &Published) -> bool {
    last.is_none_or(|last| last.shard != now.shard || now.checkpoint.size > last.checkpoint.size + 1)
}

fn anchor(published: &Published) -> ActionRecorded {
    let mut action = ActionRecorded::new(ACTION, Actor::new(ActorType::Service, crate::NAME), ActionOutcome::Success, Timestamp::now());
    action.resource = Some(published.checkpoint.origin.clone());
    action.data.insert("size".to_owned(), Value::from(published.checkpoint.size));
    action.data.insert("root".to_owned(), Value::from(published.checkpoint.root.to_string()));
    action.data.insert("checkpoint".to_owned(), Value::from(&*published.note));
    action
}

#[cfg(test)]
pub(crate) mod tests;
