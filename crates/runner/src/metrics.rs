//! The names of this crate's metrics. Labels are bounded: agents of the configuration, never ids.

use std::time::Duration;

/// Admitted tasks that wait for a sandbox, by `agent`.
pub const QUEUE: &str = "fte_runner_queue_length";
/// Seconds that a task waited for its sandbox, by `agent`; a histogram.
pub const QUEUE_WAIT: &str = "fte_runner_queue_wait_seconds";

/// Gives the gauge of each agent a first value.
pub(crate) fn register<'a>(agents: impl Iterator<Item = &'a str>) {
    agents.for_each(|agent| queued(agent, 0));
}

pub(crate) fn queued(agent: &str, count: usize) {
    metrics::gauge!(QUEUE, "agent" => agent.to_owned()).set(count as f64);
}

pub(crate) fn waited(agent: &str, time: Duration) {
    metrics::histogram!(QUEUE_WAIT, "agent" => agent.to_owned()).record(time.as_secs_f64());
}
