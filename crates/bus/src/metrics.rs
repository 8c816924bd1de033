//! The names of this crate's metrics. Labels are bounded: topics and outcomes, never ids.

use std::time::Duration;

/// Events acknowledged by the broker, by `topic`.
pub const PRODUCED: &str = "kf_messages_produced_total";
/// Events handled, by `topic` and `outcome` (`done`, `retry`, `reject`).
pub const CONSUMED: &str = "kf_messages_consumed_total";
/// Seconds one publish call took, by `topic`; a histogram.
pub const PRODUCE_LATENCY: &str = "kf_produce_latency_sec";
/// Events whose publish was tried again, by `topic`.
pub const PUBLISH_RETRIES: &str = "kf_publish_retries_total";
/// Dead letters published, by `topic` of the event.
pub const DEAD_LETTERS: &str = "kf_dead_letters_total";
/// Events being handled now, by `topic`.
pub const IN_FLIGHT: &str = "kf_messages_in_flight";

/// Gives the series of a subscription a first value, so that an alert has something to look at before anything was delivered.
pub(crate) fn subscribed(topic: &str) {
    for outcome in ["done", "retry", "reject"] {
        consumed(topic, outcome, 0);
    }
    metrics::counter!(DEAD_LETTERS, "topic" => topic.to_owned()).increment(0);
    drop(InFlight::start(topic, 0));
}

/// Likewise those of a topic that is published on: where no event arrives from the start on, the share of repeats has something to be a share of.
pub(crate) fn publishes(topic: &str) {
    produced(topic, 0);
    publish_retries(topic, 0);
}

pub(crate) fn produced(topic: &str, count: usize) {
    metrics::counter!(PRODUCED, "topic" => topic.to_owned()).increment(count as u64);
}

pub(crate) fn consumed(topic: &str, outcome: &'static str, count: usize) {
    metrics::counter!(CONSUMED, "topic" => topic.to_owned(), "outcome" => outcome).increment(count as u64);
}

pub(crate) fn publish_latency(topic: &str, took: Duration) {
    metrics::histogram!(PRODUCE_LATENCY, "topic" => topic.to_owned()).record(took.as_secs_f64());
}

pub(crate) fn publish_retries(topic: &str, count: usize) {
    metrics::counter!(PUBLISH_RETRIES, "topic" => topic.to_owned()).increment(count as u64);
}

pub(crate) fn dead_letter(topic: &str) {
    metrics::counter!(DEAD_LETTERS, "topic" => topic.to_owned()).increment(1);
}

/// Counts events as in flight until dropped.
pub(crate) struct InFlight {
    topic: String,
    count: f64,
}

impl InFlight {
    pub(crate) fn start(topic: &str, count: usize) -> Self {
        let count = count as f64;
        metrics::gauge!(IN_FLIGHT, "topic" => topic.to_owned()).increment(count);
        Self { topic: topic.to_owned(), count }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        metrics::gauge!(IN_FLIGHT, "topic" => self.topic.clone()).decrement(self.count);
    }
}

#[cfg(test)]
mod tests {
    use std::future::{Future as _, poll_fn};
    use std::pin::pin;
    use std::task::Poll;

    use crate::{Message, Outcome, PublishOptions, Publisher, Sidecar, SidecarConfig, SubscribeOptions, Subscriptions};

    #[test]
    fn a_topic_is_counted_from_0_when_the_first_event_is_on_its_way() {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        metrics::with_local_recorder(&recorder, || {
            runtime.block_on(async {
                let sidecar = Sidecar::new(SidecarConfig::at_port(9)).unwrap();
                let publisher = Publisher::new(sidecar, "/shop", PublishOptions::default());
                let mut sent = pin!(publisher.send(Message { topic: "orders".into(), key: None, body: "{}".into() }));
                assert!(poll_fn(|context| Poll::Ready(sent.as_mut().poll(context).is_pending())).await);
            });
        });
        let text = recorder.handle().render();
        for series in ["kf_messages_produced_total{topic=\"orders\"} 0", "kf_publish_retries_total{topic=\"orders\"} 0"] {
            assert!(text.lines().any(|line| line == series), "{series} is not in\n{text}");
        }
    }

    #[test]
    fn a_subscription_is_counted_from_0_before_anything_is_delivered() {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            drop(Subscriptions::new("pubsub", "shop").each("orders", SubscribeOptions::default(), async |_| Outcome::Done).router());
        });
        let text = recorder.handle().render();
        for series in [
            "kf_messages_consumed_total{topic=\"orders\",outcome=\"reject\"} 0",
            "kf_dead_letters_total{topic=\"orders\"} 0",
            "kf_messages_in_flight{topic=\"orders\"} 0",
        ] {
            assert!(text.lines().any(|line| line == series), "{series} is not in\n{text}");
        }
    }
}
