//! The log's checkpoints as actions on `fte.audit.actions`: a second memory of what was signed, under the same operator.
//!
//! Once an hour, and only when something else was logged than the anchor before, or the log would feed itself.

use std::sync::Arc;
use std::time::Duration;

use fte_events::{ActionOutcome, ActionRecorded, Actor, ActorType};
use fte_service::{AuditTrail, ServiceError, chain};
use jiff::Timestamp;
use serde_json::Value;

use crate::engine::Published;
use crate::log::Log;

const EVERY: Duration = Duration::from_secs(3600);

/// The action that an anchor is.
pub const ACTION: &str = "checkpoint.anchored";

/// Publishes anchors for as long as the process lives.
pub async fn publish(log: Arc<dyn Log>, trail: AuditTrail) -> Result<(), ServiceError> {
    let mut last = None;
    loop {
        tokio::time::sleep(EVERY).await;
        let published = match log.checkpoint(None).await {
            Ok(published) => published,
            Err(error) => {
                tracing::warn!(error = %chain(&error), "no checkpoint to anchor");
                continue;
            }
        };
        if let Some(published) = published.filter(|published| is_due(last.as_ref(), published)) {
            trail.note(anchor(&published));
            last = Some(published);
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
mod tests {
    use fte_tlog::{Checkpoint, empty_root};

    use super::*;

    fn published(shard: u16, size: u64) -> Published {
        Published { shard, checkpoint: Checkpoint { origin: format!("log.test/{shard}"), size, root: empty_root() }, note: "note".into() }
    }

    #[test]
    fn a_log_that_got_only_its_own_anchor_is_not_anchored_again() {
        assert!(is_due(None, &published(2026, 1)));
        assert!(!is_due(Some(&published(2026, 10)), &published(2026, 10)));
        assert!(!is_due(Some(&published(2026, 10)), &published(2026, 11)));
        assert!(is_due(Some(&published(2026, 10)), &published(2026, 12)));
        assert!(is_due(Some(&published(2026, 10)), &published(2027, 1)));
        assert_eq!(anchor(&published(2026, 10)).data["size"], 10);
    }
}
