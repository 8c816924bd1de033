//! What the runner says of its queues to the other services: whether they are full, and where a task stands. Asked by service invocation, remembered for a second,
//! and never waited for long: whoever gets no answer goes on without one.
//!
//! One runner answers, for itself alone. Where there are several, a queue is full when the one that was asked says so, and a task stands somewhere when the one that
//! was asked has it. Lost: asking all of them, which would need to know all of them; the state store, which would be written at each change.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fte_bus::{Invoker, Sidecar};
use fte_events::TaskId;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, watch};
use utoipa::ToSchema;

use crate::chain;

/// The runner's application.
const RUNNER: &str = "fte-runner";
/// Where it says which queues are full: [`FullQueues`].
pub const FULL_PATH: &str = "pool/full";
/// Where it says where a task stands, with the task's id behind it: [`Standing`].
pub const TASK_PATH: &str = "pool/tasks";

/// Longest wait for the runner's answer.
const LIMIT: Duration = Duration::from_millis(200);
/// For so long an answer is as good as new.
const FRESH: Duration = Duration::from_secs(1);
/// For so long it is used while a new one is on its way. So a busy service never waits for one.
const USABLE: Duration = Duration::from_secs(2);
/// Tasks whose standing is remembered.
const STANDINGS_MAX: usize = 1024;
/// Questions after tasks at a time; beyond that the standing is unknown.
const QUESTIONS_MAX: usize = 8;

/// The agents whose queues take no further task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FullQueues {
    /// By name: in how many seconds it may be worth a try, 1 to 300.
    pub full: BTreeMap<String, u64>,
}

/// Where a task stands that waits for a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Standing {
    /// How many tasks get a sandbox up to this one, if no other comes.
    pub position: u64,
    /// How many wait for one of its agent.
    pub waiting: u64,
    /// In how many seconds its turn may come, as far as the last starts show; absent where they show nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_s: Option<f64>,
}

/// Which queues are full, as far as the runner has said lately.
#[derive(Clone, Debug)]
pub struct Queues {
    asked: Arc<Asked>,
}

#[derive(Debug)]
struct Asked {
    runner: Invoker,
    limit: Duration,
    known: watch::Sender<Known>,
    is_asking: AtomicBool,
}

#[derive(Clone, Debug, Default)]
struct Known {
    at: Option<Instant>,
    queues: Arc<FullQueues>,
}

impl Queues {
    /// Of the runner behind this sidecar.
    pub fn new(sidecar: Sidecar) -> Self {
        Self::within(LIMIT, sidecar)
    }

    /// The same, which waits so long for an answer.
    fn within(limit: Duration, sidecar: Sidecar) -> Self {
        let runner = Invoker::new(sidecar, RUNNER, limit);
        Self { asked: Arc::new(Asked { runner, limit, known: watch::Sender::default(), is_asking: AtomicBool::new(false) }) }
    }

    /// When it may be worth a try, if this agent's queue is full. Waits for an answer only where none is known that is newer than two seconds, and
    /// then for 200 ms at most; a runner that does not answer has room.
    pub async fn is_full(&self, agent: &str) -> Option<Duration> {
        let age = self.asked.known.borrow().at.map(|at| at.elapsed());
        if age.is_none_or(|age| age >= FRESH) {
            let mut news = self.asked.known.subscribe();
            self.ask();
            if age.is_none_or(|age| age >= USABLE) {
                // The answer to this question, or to the one that is under way.
                let _in_time = tokio::time::timeout(self.asked.limit, news.changed()).await;
            }
        }
        let known = self.asked.known.borrow();
        known.queues.full.get(agent).map(|seconds| Duration::from_secs(*seconds))
    }

    fn ask(&self) {
        if self.asked.is_asking.swap(true, Ordering::AcqRel) {
            return;
        }
        let asked = Arc::clone(&self.asked);
        tokio::spawn(async move {
            let queues = asked.runner.get::<FullQueues>(FULL_PATH).await.unwrap_or_else(|error| {
                tracing::debug!(error = %chain(&error), "the runner did not say whether its queues are full");
                None
            });
            asked.is_asking.store(false, Ordering::Release);
            asked.known.send_replace(Known { at: Some(Instant::now()), queues: Arc::new(queues.unwrap_or_default()) });
        });
    }
}

/// What the runner said of tasks, and when.
type Remembered = BTreeMap<TaskId, (Instant, Option<Standing>)>;

/// Where tasks stand, as far as the runner has said lately; cheap to clone.
#[derive(Clone, Debug)]
pub struct Standings {
    runner: Invoker,
    known: Arc<Mutex<Remembered>>,
    questions: Arc<Semaphore>,
}

impl Standings {
    /// Of the runner behind this sidecar.
    pub fn new(sidecar: Sidecar) -> Self {
        Self::within(LIMIT, sidecar)
    }

    /// The same, which waits so long for an answer.
    fn within(limit: Duration, sidecar: Sidecar) -> Self {
        let runner = Invoker::new(sidecar, RUNNER, limit);
        Self { runner, known: Arc::default(), questions: Arc::new(Semaphore::new(QUESTIONS_MAX)) }
    }

    /// Where a task stands; none where the runner that was asked has it not waiting, or does not say so within 200 ms.
    pub async fn of(&self, task: TaskId) -> Option<Standing> {
        let known = self.known().get(&task).copied();
        if let Some((at, standing)) = known
            && at.elapsed() < FRESH
        {
            return standing;
        }
        let _question = self.questions.try_acquire().ok()?;
        let standing = self.runner.get(&format!("{TASK_PATH}/{task}")).await.unwrap_or_else(|error| {
            tracing::debug!(error = %chain(&error), "the runner did not say where a task stands");
            None
        });
        let mut known = self.known();
        if known.len() >= STANDINGS_MAX {
            known.retain(|_, (at, _)| at.elapsed() < FRESH);
        }
        if known.len() < STANDINGS_MAX {
            known.insert(task, (Instant::now(), standing));
        }
        standing
    }

    fn known(&self) -> MutexGuard<'_, Remembered> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
