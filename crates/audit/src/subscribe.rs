//! From every topic into the log. The sidecar hands over the records as they are on the topic, and each is acknowledged when it is durable.

use std::sync::Arc;

use fte_bus::{Bulk, Record, SubscribeOptions, Subscriptions};
use fte_events::AgentName;
use fte_service::{Secret, Settings};

use crate::entry::NewEntry;
use crate::log::Log;

/// The sidecar's batches: large, and not waited for long.
const BULK: Bulk = Bulk { max_count: 512, max_await_ms: 20 };

/// Subscriptions to all topics there are with these settings; each agent has one for what is handed to it.
pub fn subscriptions(settings: &Settings, log: &Arc<dyn Log>) -> Subscriptions {
    let token = settings.app_token.as_ref().map(Secret::expose).map(str::to_owned);
    let subscriptions = Subscriptions::new(&settings.pubsub, "fte-audit").app_token(token);
    let agents: Vec<AgentName> = settings.agents.agents.keys().cloned().collect();
    fte_events::topics(&agents).iter().fold(subscriptions, |subscriptions, topic| {
        let log = Arc::clone(log);
        // No dead-letter topic: what cannot be recorded now must wait, not go elsewhere.
        let options = SubscribeOptions { bulk: Some(BULK), ..SubscribeOptions::default() };
        subscriptions.records(&topic.name, options, move |records| record(Arc::clone(&log), records))
    })
}

/// All or none of a delivery is acknowledged; the log itself says why not.
async fn record(log: Arc<dyn Log>, records: Vec<Record>) -> Vec<bool> {
    let count = records.len();
    let entries = records.into_iter().map(NewEntry::read).collect();
    let durable = log.append(entries).await.is_ok();
    vec![durable; count]
}
