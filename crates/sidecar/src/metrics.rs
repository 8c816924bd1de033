//! The metrics of a sidecar. Labels are topics and app ids, both bounded.

use std::time::{Duration, Instant};

use metrics::{Counter, Gauge, counter, gauge, histogram};

const PUBLISHED: &str = "sidecar_published_total";
const DELIVERED: &str = "sidecar_delivered_total";
const REDELIVERED: &str = "sidecar_redelivered_total";
const DEAD_LETTERED: &str = "sidecar_dead_lettered_total";
const DROPPED: &str = "sidecar_dropped_total";
const IN_FLIGHT: &str = "sidecar_deliveries_in_flight";
const LAG: &str = "sidecar_consumer_lag";
const COMMIT_BYTES: &str = "sidecar_commit_bytes";
const COMMIT_SECONDS: &str = "sidecar_commit_seconds";
const COMMITS_FAILED: &str = "sidecar_commits_failed_total";
const JOBS_FIRED: &str = "sidecar_jobs_fired_total";

/// Gives what an alert looks at a first value.
pub(crate) fn register() {
    counter!(COMMITS_FAILED).increment(0);
}

/// A transaction is durable.
pub(crate) fn committed(began: Instant, ended: Instant, bytes: usize) {
    histogram!(COMMIT_SECONDS).record(ended - began);
    histogram!(COMMIT_BYTES).record(bytes as f64);
}

/// A transaction was rolled back.
pub(crate) fn commit_failed() {
    counter!(COMMITS_FAILED).increment(1);
}

/// Records were accepted on a topic.
pub(crate) fn published(topic: &str, records: usize) {
    counter!(PUBLISHED, "topic" => topic.to_owned()).increment(records as u64);
}

/// A job was called; `outcome` is one of done, dropped, failed.
pub(crate) fn job_fired(app: &str, outcome: &'static str) {
    counter!(JOBS_FIRED, "app" => app.to_owned(), "outcome" => outcome).increment(1);
}

/// What one group does with one topic. Made once, so that counting costs nothing.
pub(crate) struct Deliveries {
    pub(crate) delivered: Counter,
    pub(crate) redelivered: Counter,
    pub(crate) dead_lettered: Counter,
    pub(crate) dropped: Counter,
    pub(crate) in_flight: Gauge,
    lag: Gauge,
    lag_at: Instant,
}

impl Deliveries {
    pub(crate) fn new(app: &str, topic: &str) -> Self {
        let labels = [("app", app.to_owned()), ("topic", topic.to_owned())];
        Self {
            delivered: counter!(DELIVERED, &labels),
            redelivered: counter!(REDELIVERED, &labels),
            dead_lettered: counter!(DEAD_LETTERED, &labels),
            dropped: counter!(DROPPED, &labels),
            in_flight: gauge!(IN_FLIGHT, &labels),
            lag: gauge!(LAG, &labels),
            lag_at: Instant::now(),
        }
    }

    /// Records how far behind the group is, a few times a second at most.
    pub(crate) fn lag(&mut self, now: Instant, lag: impl FnOnce() -> u64) {
        if now - self.lag_at > Duration::from_millis(250) {
            self.lag_at = now;
            self.lag.set(lag() as f64);
        }
    }
}
