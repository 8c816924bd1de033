//! From every topic into the log. The sidecar hands over the records as they are on the topic, and each is acknowledged when it is durable.

use std::sync::Arc;

use fte_bus::{Record, SubscribeOptions, Subscriptions};
use fte_events::AgentName;
use fte_service::{Secret, Settings, chain};
use futures_util::future::join_all;

use crate::entry::NewEntry;
use crate::log::{Log, LogError};
use crate::metrics;

/// Nobody waits for an entry: the longer a batch gathers, the less each costs.
const GATHER_MS: u32 = 500;

/// Subscriptions to all topics that are in use.
pub fn subscriptions(settings: &Settings, log: &Arc<dyn Log>) -> Subscriptions {
    let token = settings.app_token.as_ref().map(Secret::expose).map(str::to_owned);
    let subscriptions = Subscriptions::new(&settings.pubsub, "fte-audit").app_token(token);
    let agents: Vec<AgentName> = settings.agents.agents.keys().cloned().collect();
    fte_events::subscribed_by("audit", &agents).iter().fold(subscriptions, |subscriptions, topic| {
        let log = Arc::clone(log);
        // No dead-letter topic: what cannot be recorded now must wait, not go elsewhere.
        let options = SubscribeOptions { bulk: settings.patient(512, GATHER_MS), ..SubscribeOptions::default() };
        subscriptions.records(&topic.name, options, move |records| record(Arc::clone(&log), records))
    })
}

/// A delivery is acknowledged as a whole. Only when the log refuses one of its entries is each recorded alone: that one must wait, its neighbours need
/// not. Any other failure the log itself tells of.
async fn record(log: Arc<dyn Log>, records: Vec<Record>) -> Vec<bool> {
    let count = records.len();
    let entries = records.iter().cloned().map(NewEntry::read).collect();
    match log.append(entries).await {
        Ok(_) => vec![true; count],
        Err(LogError::Refused { .. }) => join_all(records.into_iter().map(|record| record_alone(&*log, record))).await,
        Err(_) => vec![false; count],
    }
}

async fn record_alone(log: &dyn Log, record: Record) -> bool {
    let (topic, partition, offset) = (Arc::clone(&record.topic), record.partition, record.offset);
    match log.append(vec![NewEntry::read(record)]).await {
        Ok(_) => true,
        Err(error) => {
            if matches!(error, LogError::Refused { .. }) {
                metrics::refused();
                tracing::error!(%topic, partition, offset, error = %chain(&error), "an event cannot be recorded; it is tried again and again");
            }
            false
        }
    }
}
