//! From every topic into the log. The sidecar hands over the records as they are on the topic, and each is acknowledged when it is durable.

use std::sync::Arc;

use fte_bus::{Record, SubscribeOptions, Subscriptions};
use fte_events::AgentName;
use fte_service::{Secret, Settings};

use crate::entry::NewEntry;
use crate::log::Log;
use crate::service::heard::Heard;

/// Nobody waits for an entry: the longer a batch gathers, the less each costs.
const GATHER_MS: u32 = 500;

/// Subscriptions to all topics that are in use.
pub fn subscriptions(settings: &Settings, log: &Arc<dyn Log>, heard: &Heard) -> Subscriptions {
    let token = settings.app_token.as_ref().map(Secret::expose).map(str::to_owned);
    let subscriptions = Subscriptions::new(&settings.pubsub, "fte-audit").app_token(token);
    let agents: Vec<AgentName> = settings.agents.agents.keys().cloned().collect();
    fte_events::subscribed_by("audit", &agents).iter().fold(subscriptions, |subscriptions, topic| {
        let (log, heard) = (Arc::clone(log), heard.clone());
        // No dead-letter topic: what cannot be recorded now must wait, not go elsewhere.
        let options = SubscribeOptions { bulk: settings.batches(512, GATHER_MS), ..SubscribeOptions::default() };
        subscriptions.records(&topic.name, options, move |records| {
            heard.something();
            record(Arc::clone(&log), records)
        })
    })
}

/// A delivery is acknowledged as a whole: what the log cannot write now waits, and it takes whatever comes.
async fn record(log: Arc<dyn Log>, records: Vec<Record>) -> Vec<bool> {
    let count = records.len();
    // The log itself tells of its faults.
    let recorded = log.append(records.into_iter().map(NewEntry::read).collect()).await.is_ok();
    vec![recorded; count]
}
