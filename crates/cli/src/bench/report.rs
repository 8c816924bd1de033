//! What a run found, for programs and for people.

use std::fmt::Write as _;
use std::time::Instant;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::Bench;
use super::check::Found;
use super::memory::Memory;
use super::tally::Tally;
use crate::error::Error;

/// `fte bench --json`. The first eight fields are what scripts rely on.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    accepted: u64,
    completed: u64,
    lost: u64,
    duplicates: u64,
    accepted_per_s: f64,
    completed_per_s: f64,
    post_ms: Latency,
    /// At the caller that waits for it, where callers wait; else on the event stream.
    result_ms: Latency,
    /// Tasks that had not ended when there was no more waiting for them.
    unfinished: u64,
    /// Tasks whose end was another than `completed`.
    unsuccessful: u64,
    /// Tasks that were not accepted.
    refused: u64,
    /// Calls without an answer.
    broken: u64,
    /// Results that only the read model had.
    unseen: u64,
    /// Tasks that were looked up in the read model.
    checked: u64,
    /// Looked-up tasks about which the read model gave no answer.
    unknown: u64,
    stream_resumed: u64,
    seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_ms: Option<Latency>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fdatasync_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_memory_mib: Option<Memory>,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Latency {
    p50: f64,
    p99: f64,
    max: f64,
}

impl Latency {
    fn of(us: &Histogram<u64>) -> Self {
        let ms = |us: u64| us as f64 / 1000.0;
        Self { p50: ms(us.value_at_quantile(0.5)), p99: ms(us.value_at_quantile(0.99)), max: ms(us.max()) }
    }
}

impl Report {
    pub(super) fn new(tally: &Tally, found: &Found, memory: Option<Memory>) -> Self {
        let seconds = |end: Option<Instant>| match (tally.first_start, end) {
            (Some(start), Some(end)) => end.saturating_duration_since(start).as_secs_f64(),
            _ => 0.0,
        };
        let rate = |count: u64, seconds: f64| if seconds > 0.0 { (count as f64 / seconds * 10.0).round() / 10.0 } else { 0.0 };
        let (accepting, completing) = (seconds(tally.last_accepted), seconds(tally.last_result));
        let stream = Latency::of(&tally.result_us);
        let waited = (!tally.waited_us.is_empty()).then(|| Latency::of(&tally.waited_us));
        Self {
            accepted: tally.accepted,
            completed: tally.completed + found.unseen,
            lost: found.lost,
            duplicates: tally.duplicates + found.doubled,
            accepted_per_s: rate(tally.accepted, accepting),
            completed_per_s: rate(tally.completed, completing),
            post_ms: Latency::of(&tally.post_us),
            result_ms: waited.unwrap_or(stream),
            unfinished: found.unfinished,
            unsuccessful: tally.unsuccessful,
            refused: tally.refused.values().sum(),
            broken: tally.broken,
            unseen: found.unseen,
            checked: found.checked,
            unknown: found.unknown,
            stream_resumed: tally.resumed,
            seconds: accepting.max(completing),
            stream_ms: waited.map(|_| stream),
            fdatasync_ms: None,
            server_memory_mib: memory,
        }
    }

    pub(super) fn text(&self, bench: &Bench) -> String {
        let mut text = String::new();
        let how = match bench.rate {
            Some(rate) => format!("open loop, {rate} tasks/s, up to {} connections", bench.concurrency),
            None => format!("closed loop, {} connections", bench.concurrency),
        };
        let mut line = |name: &str, words: String| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{name:<10} {words}");
        };
        let latency = |it: &Latency| format!("p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms", it.p50, it.p99, it.max);
        line("load", format!("{how}, agent {}, {} bytes, {:.1} s", bench.agent, bench.payload_bytes, self.seconds));
        line("accepted", format!("{} ({}/s)", self.accepted, self.accepted_per_s));
        line("completed", format!("{} ({}/s)", self.completed, self.completed_per_s));
        line("POST", latency(&self.post_ms));
        let view = if self.stream_ms.is_some() { "at a waiting client" } else { "on the event stream" };
        line("result", format!("{}, {view}", latency(&self.result_ms)));
        if let Some(stream) = &self.stream_ms {
            line("", format!("{}, on the event stream", latency(stream)));
        }
        line("lost", format!("{}, duplicates {} ({} looked up in the read model)", self.lost, self.duplicates, self.checked));
        let oddities = [
            (self.unfinished, "unfinished when no more results came"),
            (self.unsuccessful, "ended otherwise than completed"),
            (self.refused, "refused"),
            (self.broken, "calls without an answer"),
            (self.unseen, "results that the event stream did not bring"),
            (self.unknown, "could not be looked up"),
            (self.stream_resumed, "times the event stream was cut and resumed"),
        ];
        for (count, what) in oddities.into_iter().filter(|(count, _)| *count > 0) {
            line("note", format!("{count} {what}"));
        }
        if let Some(ms) = self.fdatasync_ms {
            line("disk", format!("fdatasync {ms:.3} ms, median of 200 appends of 4 KiB"));
        }
        if let Some(memory) = &self.server_memory_mib {
            let Memory { before, early_peak, peak, after } = memory;
            line(
                "memory",
                format!("{before:.0} MiB before, {early_peak:.0} at most over the first 20 000, {peak:.0} at most, {after:.0} after"),
            );
        }
        text.truncate(text.trim_end().len());
        text
    }

    /// Fails when a promise is broken: a task without a result, with two, or a result that the stream left out. Nothing is known as long as tasks are under way.
    pub(super) fn verdict(&self) -> Result<(), Error> {
        let Self { lost, unfinished, duplicates, unseen, .. } = self;
        let counted = |count: u64, one: &str, many: &str| match count {
            0 => None,
            1 => Some(format!("1 {one}")),
            count => Some(format!("{count} {many}")),
        };
        let left = counted(*unfinished, "task unfinished", "tasks unfinished");
        if lost + duplicates + unseen == 0 {
            return left.map_or(Ok(()), |left| {
                Err(Error::Incomplete {
                    what: format!("{left}, and nothing lost or doubled as far as that shows"),
                    advice: "a longer --grace; `fte tasks` shows where they stand, and `fte agents` how many of them can be done at once"
                        .to_owned(),
                })
            });
        }
        let why = [
            counted(*lost, "task lost", "tasks lost"),
            counted(*duplicates, "result doubled", "results doubled"),
            counted(*unseen, "result missing from the event stream", "results missing from the event stream"),
            left,
        ];
        Err(Error::Broken {
            what: "a promise is broken".to_owned(),
            why: why.into_iter().flatten().collect::<Vec<_>>().join(", "),
            advice: "a longer --grace where the instance is slow or was restarted; else keep its data and its log, and report it"
                .to_owned(),
        })
    }
}
