//! The names of this crate's metrics. Labels are bounded: words of ours, never ids.

use std::time::Duration;

/// Events taken by the store, by `outcome`: `stored`, or `doubled` when they were there already.
pub const EVENTS: &str = "fte_status_events_total";
/// Seconds from the start of a transaction to its durable end; a histogram.
pub const COMMIT: &str = "fte_status_commit_seconds";
/// Transactions that failed.
pub const COMMITS_FAILED: &str = "fte_status_commits_failed_total";
/// Requests and streams that wait for a task.
pub const WAITERS: &str = "fte_status_waiters";
/// Open streams of events, by `stream`: `task`, `all`.
pub const STREAMS: &str = "fte_status_sse_clients";
/// Dead letters received and decided, by `what`: `received`, `replayed`, `discarded`.
pub const LETTERS: &str = "fte_status_dead_letters_total";
/// Rows removed because they were too old, by `what`: `task`, `event`, `letter`; and contents of artifacts: `artifact`.
pub const SWEPT: &str = "fte_status_swept_total";

/// Gives every series a first value, so that an alert has something to look at before anything has happened.
pub(crate) fn register() {
    for outcome in ["stored", "doubled"] {
        metrics::counter!(EVENTS, "outcome" => outcome).increment(0);
    }
    metrics::counter!(COMMITS_FAILED).increment(0);
    for what in ["received", "replayed", "discarded"] {
        letters(what, 0);
    }
    for what in ["task", "event", "letter", "artifact"] {
        metrics::counter!(SWEPT, "what" => what).increment(0);
    }
    for stream in ["task", "all"] {
        metrics::gauge!(STREAMS, "stream" => stream).increment(0.0);
    }
    metrics::gauge!(WAITERS).increment(0.0);
}

pub(crate) fn committed(took: Duration, stored: usize, doubled: usize) {
    metrics::histogram!(COMMIT).record(took.as_secs_f64());
    metrics::counter!(EVENTS, "outcome" => "stored").increment(stored as u64);
    if doubled > 0 {
        metrics::counter!(EVENTS, "outcome" => "doubled").increment(doubled as u64);
    }
}

pub(crate) fn commit_failed() {
    metrics::counter!(COMMITS_FAILED).increment(1);
}

pub(crate) fn waiters(count: usize) {
    metrics::gauge!(WAITERS).set(count as f64);
}

pub(crate) fn letters(what: &'static str, count: usize) {
    metrics::counter!(LETTERS, "what" => what).increment(count as u64);
}

pub(crate) fn swept(what: &'static str, count: usize) {
    if count > 0 {
        metrics::counter!(SWEPT, "what" => what).increment(count as u64);
    }
}

/// Counts a stream as open until dropped.
#[derive(Debug)]
pub(crate) struct OpenStream(&'static str);

impl OpenStream {
    pub(crate) fn start(stream: &'static str) -> Self {
        metrics::gauge!(STREAMS, "stream" => stream).increment(1.0);
        Self(stream)
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        metrics::gauge!(STREAMS, "stream" => self.0).decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_is_there_before_anything_has_happened() {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, register);
        let text = recorder.handle().render();
        for series in [
            "fte_status_events_total{outcome=\"stored\"} 0",
            "fte_status_events_total{outcome=\"doubled\"} 0",
            "fte_status_commits_failed_total 0",
            "fte_status_dead_letters_total{what=\"received\"} 0",
            "fte_status_swept_total{what=\"letter\"} 0",
            "fte_status_sse_clients{stream=\"all\"} 0",
            "fte_status_waiters 0",
        ] {
            assert!(text.lines().any(|line| line == series), "{series} is not in\n{text}");
        }
    }
}
