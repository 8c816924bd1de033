//! The protocol's limits and intervals, in one place.

use std::collections::BTreeMap;
use std::time::Duration;

use fte_events::{Runtime, TaskId};
use fte_service::agents::{Approvals, KeyPath, Rate};

use crate::document::Budget;

/// What the protocol needs to know of one agent.
#[derive(Clone, Debug)]
pub struct AgentLimits {
    /// Sandboxes it may have at once.
    pub max: u32,
    /// Tasks that may be admitted beyond those, and wait.
    pub queue: u32,
    /// Most starts in a time.
    pub rate: Option<Rate>,
    /// Tasks with the same value there run one at a time.
    pub concurrency_key: Option<KeyPath>,
    /// What its sandboxes are made of.
    pub runtime: Runtime,
    /// Longest time of one try.
    pub timeout: Duration,
    /// Tries per task.
    pub attempts_max: u32,
    /// Who answers its questions.
    pub approvals: Approvals,
    /// What a task of it may cost at all, and what one may cost that says nothing of it.
    pub budget: Budget,
    /// Whether it listens to what people say to its tasks.
    pub takes_messages: bool,
    /// Whether it takes other data for what it asked about; before its start every agent does.
    pub takes_edits: bool,
}

/// Limits and intervals of one runner.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The agents that can be asked for.
    pub agents: BTreeMap<String, AgentLimits>,
    /// Who does a task that names no agent.
    pub default_agent: String,
    /// Tasks this process may be responsible for at once; more than sandboxes, so that one busy agent does not block the others.
    pub places: usize,
    /// Index entries kept free for waking tasks beyond `places`.
    pub wake_reserve: usize,
    /// Who has waited for a sandbox so long counts as one step more urgent.
    pub ageing: Duration,
    /// A sandbox that may be free within so long, by the last starts, is waited for before a task is written down; twice as long at most.
    pub soon: Duration,
    /// Longest time a delivery is held for a place.
    pub hold: Duration,
    /// The lease is renewed this often.
    pub renew: Duration,
    /// An owner that could not renew for this long stops itself.
    pub self_fence: Duration,
    /// An instance whose lease did not change for this long is taken over.
    pub stale: Duration,
    /// Owned documents are read again this often.
    pub sweep: Duration,
    /// How long a task keeps its sandbox while a person decides.
    pub approval_stay: Duration,
    /// How long a question waits for its answer, where its agent has no time of its own.
    pub approval_ttl: Duration,
    /// How long a task keeps its sandbox while its agent waits for the replies to its hand-offs.
    pub handoff_stay: Duration,
    /// How long a hand-off waits for its reply, unless the agent says less.
    pub handoff_ttl: Duration,
    /// Where people reach the public API: the start of the links to questions.
    pub public_url: Option<String>,
    /// Wait before the second try; doubled for each further one.
    pub retry_wait: Duration,
    /// Longest wait before a try.
    pub retry_wait_max: Duration,
    /// Least time between two writes of an agent's reports.
    pub report_every: Duration,
    /// Longest event that can be published: what a broker takes by default, less what a sidecar adds to it.
    pub event_bytes_max: usize,
    /// How long a task's document stays after its end: longer than a trigger can be redelivered.
    pub keep_ended: Duration,
    /// Names what only one process can hold at a time (a locked data directory, a pod's name): a predecessor of the same name is dead.
    pub seat: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            agents: BTreeMap::new(),
            default_agent: "echo".to_owned(),
            places: 640,
            wake_reserve: 256,
            ageing: Duration::from_secs(60),
            soon: Duration::from_millis(500),
            hold: Duration::from_secs(20),
            renew: Duration::from_secs(3),
            self_fence: Duration::from_secs(10),
            stale: Duration::from_secs(15),
            sweep: Duration::from_millis(500),
            approval_stay: Duration::from_secs(10),
            approval_ttl: Duration::from_secs(24 * 3600),
            handoff_stay: Duration::from_secs(10),
            handoff_ttl: Duration::from_secs(24 * 3600),
            public_url: None,
            retry_wait: Duration::from_secs(1),
            retry_wait_max: Duration::from_secs(30),
            report_every: Duration::from_millis(250),
            event_bytes_max: 1_000_000,
            keep_ended: Duration::from_secs(8 * 24 * 3600),
            seat: None,
        }
    }
}

impl Settings {
    /// Who answers an agent's questions.
    pub fn approvals(&self, agent: &str) -> Approvals {
        self.agents.get(agent).map(|limits| limits.approvals.clone()).unwrap_or_default()
    }

    /// Where a person can answer what a task asks.
    pub fn link(&self, task: TaskId) -> Option<String> {
        self.public_url.as_ref().map(|url| format!("{url}/v1/approvals/{task}"))
    }
}

#[cfg(test)]
mod tests {
    use fte_events::topics;

    use super::*;

    /// A broker deletes whole files, and looks every few minutes.
    #[test]
    fn an_ended_task_is_remembered_for_longer_than_its_request_can_come_again() {
        let topics = topics(&["writer".parse().unwrap()]);
        let longest = topics
            .iter()
            .filter(|topic| topic.begins_tasks())
            .map(|topic| Duration::from_millis(topic.retention_ms + topic.segment_ms))
            .max()
            .unwrap();
        assert!(longest + Duration::from_secs(3600) < Settings::default().keep_ended, "{longest:?}");
    }
}
