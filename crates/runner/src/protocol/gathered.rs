//! What an agent has said since the last write of its task's document.
//!
//! It is bounded: log lines past the limits are dropped, for they are only for people; what must be kept can make it full, and then nothing more is
//! heard before it is written, in its time. So an agent that chatters causes no more writes than another, and none makes a document that
//! does not fit into the state store. (Writing a full report at once lost: a flood of actions was then a flood of writes.)

use fte_events::limits::json_bytes;
use fte_events::{Artifact, Tokens};
use serde_json::{Map, Value};

use crate::document::{OUTBOX_MAX, Report, sum_usd};

/// Log lines kept for one write.
const LOG_LINES_MAX: usize = 100;
/// Bytes of actions and log lines for one write, so that a document always fits into the state store.
const BYTES_MAX: usize = 256 * 1024;
/// Events for one write besides its own status.
const EVENTS_MAX: usize = OUTBOX_MAX / 2;
/// Messages that are said to be heard, for one write.
const HEARD_MAX: usize = 1000;

/// A report in the making.
#[derive(Default)]
pub(super) struct Gathered {
    report: Report,
    bytes: usize,
}

impl Gathered {
    pub(super) fn stage(&mut self, stage: String) {
        self.report.stage = Some(stage);
    }

    pub(super) fn progress(&mut self, pct: Option<u8>, message: Option<String>) {
        self.report.progress_pct = pct.map(|pct| pct.min(100)).or(self.report.progress_pct);
        self.report.message = message.or_else(|| self.report.message.take());
    }

    pub(super) fn log(&mut self, line: String) {
        let bytes = json_bytes(&line);
        if self.report.log.len() < LOG_LINES_MAX && self.bytes + bytes <= BYTES_MAX {
            self.bytes += bytes;
            self.report.log.push(line);
        }
    }

    pub(super) fn action(&mut self, action: String, data: Map<String, Value>) {
        self.bytes += json_bytes(&data);
        self.report.actions.push((action, data));
    }

    pub(super) fn by_policy(&mut self, allowed: bool, action: String, data: Map<String, Value>) {
        self.bytes += json_bytes(&data);
        self.report.by_policy.push((allowed, action, data));
    }

    /// `given` are the ordinals of the answers that it includes.
    pub(super) fn checkpoint(&mut self, data: Value, given: Vec<u32>) {
        self.report.checkpoint = Some((data, given));
    }

    /// Whether it holds an artifact of this name.
    pub(super) fn has_artifact(&self, name: &str) -> bool {
        self.report.artifacts.iter().any(|artifact| artifact.name == name)
    }

    /// What was kept before includes these messages.
    pub(super) fn heard(&mut self, messages: Vec<String>) {
        self.report.heard.extend(messages);
    }

    pub(super) fn artifact(&mut self, artifact: Artifact) {
        self.report.artifacts.push(artifact);
    }

    pub(super) fn spend(&mut self, usd: f64) {
        self.report.cost_usd = sum_usd(self.report.cost_usd, usd.max(0.0));
    }

    pub(super) fn tokens(&mut self, tokens: Tokens) {
        self.report.tokens = self.report.tokens.plus(tokens);
    }

    /// What it cost since the last write.
    pub(super) fn cost(&self) -> (f64, Tokens) {
        (self.report.cost_usd, self.report.tokens)
    }

    /// Whether there is anything to write.
    pub(super) fn is_news(&self) -> bool {
        self.report.is_news()
    }

    /// Whether it has to be written before more is heard.
    pub(super) fn is_full(&self) -> bool {
        let actions = self.report.actions.len() + self.report.by_policy.len();
        (self.bytes >= BYTES_MAX && actions > 0)
            || actions + self.report.artifacts.len() >= EVENTS_MAX
            || self.report.heard.len() >= HEARD_MAX
    }

    /// Everything since the last write; `asking` tells whether the agent waits for an answer.
    pub(super) fn take(&mut self, asking: bool) -> Report {
        self.bytes = 0;
        Report { asking, ..std::mem::take(&mut self.report) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn data(bytes: usize) -> Map<String, Value> {
        Map::from_iter([("data".to_owned(), json!("x".repeat(bytes)))])
    }

    #[test]
    fn a_flood_of_log_lines_never_fills_a_report() {
        let mut gathered = Gathered::default();
        for line in 0..1_000 {
            gathered.log(format!("{line} {}", "x".repeat(10_000)));
            assert!(!gathered.is_full(), "full at line {line}");
        }
        let report = gathered.take(false);
        let bytes: usize = report.log.iter().map(String::len).sum();
        assert!((1..=LOG_LINES_MAX).contains(&report.log.len()) && bytes <= BYTES_MAX, "{} lines, {bytes} bytes", report.log.len());
    }

    #[test]
    fn many_small_log_lines_are_cut_at_their_number() {
        let mut gathered = Gathered::default();
        (0..1_000).for_each(|line| gathered.log(format!("line {line}")));
        let report = gathered.take(false);
        assert_eq!((report.log.len(), report.log[99].as_str()), (LOG_LINES_MAX, "line 99"));
    }

    #[test]
    fn actions_are_all_kept_and_fill_a_report_by_their_bytes() {
        let mut gathered = Gathered::default();
        gathered.action("tool.called".to_owned(), data(200 * 1024));
        assert!(!gathered.is_full());
        gathered.action("tool.called".to_owned(), data(200 * 1024));
        assert!(gathered.is_full());
        assert_eq!(gathered.take(false).actions.len(), 2);
        gathered.action("tool.called".to_owned(), data(10));
        assert!(!gathered.is_full(), "the bytes were counted on");
    }

    #[test]
    fn actions_fill_a_report_by_their_number() {
        let mut gathered = Gathered::default();
        for _ in 1..EVENTS_MAX {
            gathered.action("tool.called".to_owned(), Map::new());
            assert!(!gathered.is_full());
        }
        gathered.action("tool.called".to_owned(), Map::new());
        assert!(gathered.is_full());
    }

    #[test]
    fn checkpoints_replace_each_other_and_fill_nothing() {
        let mut gathered = Gathered::default();
        for step in 0..10 {
            gathered.checkpoint(json!({"step": step, "data": "x".repeat(200 * 1024)}), vec![step]);
            assert!(!gathered.is_full());
        }
        let (checkpoint, given) = gathered.take(false).checkpoint.expect("the last checkpoint");
        assert_eq!((&checkpoint["step"], given), (&json!(9), vec![9]));
    }
}
