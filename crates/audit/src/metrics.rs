//! The names of this crate's metrics. Labels are bounded: kinds and configured witnesses, never ids.

use std::time::Duration;

use crate::engine::Counts;
use crate::entry::leaf::Kind;

/// Entries written, by `kind` ([`Kind`]).
pub(crate) const ENTRIES: &str = "fte_audit_entries_total";
/// Records that were in the log before.
pub(crate) const DUPLICATES: &str = "fte_audit_duplicates_total";
/// Seconds from the begin of a group to its being durable; a histogram.
pub(crate) const COMMIT_SECONDS: &str = "fte_audit_commit_sec";
/// Seconds that a checkpoint takes: bundles, tiles, signature; a histogram.
pub(crate) const CHECKPOINT_SECONDS: &str = "fte_audit_checkpoint_sec";
/// Entries in the last checkpoint of the current shard.
pub(crate) const CHECKPOINT_SIZE: &str = "fte_audit_checkpoint_size";
/// Numbers of the publishers' counters on the actions topic that have not arrived.
pub(crate) const ACTIONS_MISSING: &str = "fte_audit_actions_missing";
/// Seconds by which the clock is behind the newest entry. While it is not 0, the log's time stands still.
pub(crate) const CLOCK_BEHIND_SECONDS: &str = "fte_audit_clock_behind_sec";

/// Entries in the last checkpoint that witnesses have signed.
pub(crate) const WITNESSED_SIZE: &str = "fte_audit_witnessed_size";
/// Times that a witness was asked, by `witness` and `outcome` (`signed`, `failed`).
pub(crate) const WITNESS_ASKED: &str = "fte_audit_witness_asked_total";

/// Gives every series a first value, so that an alert has something to look at before anything has happened.
pub(crate) fn register() {
    for kind in Kind::ALL {
        metrics::counter!(ENTRIES, "kind" => kind.as_str()).increment(0);
    }
    metrics::counter!(DUPLICATES).increment(0);
    actions_missing(0);
    clock_behind(0);
}

pub(crate) fn sealed(took: Duration, size: u64) {
    metrics::histogram!(CHECKPOINT_SECONDS).record(took.as_secs_f64());
    metrics::gauge!(CHECKPOINT_SIZE).set(size as f64);
}

pub(crate) fn committed(took: Duration, new: &Counts, known: u64) {
    for (kind, count) in Kind::ALL.into_iter().zip(new) {
        if *count > 0 {
            metrics::counter!(ENTRIES, "kind" => kind.as_str()).increment(*count);
        }
    }
    if known > 0 {
        metrics::counter!(DUPLICATES).increment(known);
    }
    metrics::histogram!(COMMIT_SECONDS).record(took.as_secs_f64());
}

pub(crate) fn witnessed<'a>(witnesses: impl Iterator<Item = &'a str>, has_failed: impl Fn(&str) -> bool) {
    for witness in witnesses {
        let outcome = if has_failed(witness) { "failed" } else { "signed" };
        metrics::counter!(WITNESS_ASKED, "witness" => witness.to_owned(), "outcome" => outcome).increment(1);
    }
}

pub(crate) fn witnessed_size(size: u64) {
    metrics::gauge!(WITNESSED_SIZE).set(size as f64);
}

pub(crate) fn actions_missing(count: u64) {
    metrics::gauge!(ACTIONS_MISSING).set(count as f64);
}

pub(crate) fn clock_behind(seconds: u64) {
    metrics::gauge!(CLOCK_BEHIND_SECONDS).set(seconds as f64);
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
            "fte_audit_actions_missing 0",
            "fte_audit_clock_behind_sec 0",
            "fte_audit_entries_total{kind=\"conflict\"} 0",
            "fte_audit_entries_total{kind=\"unparsed\"} 0",
            "fte_audit_duplicates_total 0",
            "fte_audit_entries_total{kind=\"gap\"} 0",
        ] {
            assert!(text.lines().any(|line| line == series), "{series} is not in\n{text}");
        }
    }
}
