//! The runner as its service sees it: it lives under one instance after another, and passes on what is delivered, fired and said.

use std::future::Future;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use fte_events::{Actor, ActorType, HandoffWithdrawn, TaskId, TaskResult};
use futures_util::FutureExt as _;
use futures_util::future::{Either, select};
use tokio::sync::{oneshot, watch};

use super::admission::{Admitted, Incoming};
use super::decisions::{Answer, CancelError, DecideError, Decided, Made};
use super::handoffs::{AnswerError, Replied};
use super::instance::Instance;
use super::messages::{Letter, SendError};
use super::pool::Pool;
use super::{admission, decisions, erasure, handoffs, messages, peers, timers};
use crate::document::{PersonAnswer, TaskDoc};
use crate::ports::{PortError, Ports};
use crate::settings::Settings;

/// Longest answer to a delivery: within the time limit of the handlers, which counts against the event.
const DELIVERY_MAX: Duration = Duration::from_secs(45);

/// How an agent's pool is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentUse {
    /// The agent.
    pub agent: String,
    /// Sandboxes it may have.
    pub capacity: u32,
    /// Sandboxes in use.
    pub in_use: u32,
    /// Admitted tasks that wait for one.
    pub queued: u32,
    /// How many may.
    pub queue: u32,
}

/// Where a task stands that waits for a sandbox.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standing {
    /// How many get one up to this task, if no other comes.
    pub position: usize,
    /// How many wait.
    pub waiting: usize,
    /// When its turn may come, as far as the last starts show.
    pub estimate: Option<Duration>,
}

/// Runs tasks until it is told to stop, under one instance id after another.
pub struct Runner {
    ports: Ports,
    settings: Arc<Settings>,
    pool: Pool,
    current: watch::Sender<Option<Arc<Instance>>>,
    stopping: Stopping,
}

/// Whether the runner has been told to stop.
#[derive(Clone)]
pub(super) struct Stopping(Arc<watch::Sender<bool>>);

impl Stopping {
    fn is_on(&self) -> bool {
        *self.0.borrow()
    }

    /// Resolves once the runner has been told to stop.
    pub(super) async fn on(&self) {
        // The sender lives in `self`: waiting cannot fail.
        drop(self.0.subscribe().wait_for(|stopping| *stopping).await);
    }
}

impl Runner {
    /// A runner that does nothing before [`Runner::run`].
    pub fn new(ports: Ports, settings: Settings) -> Arc<Self> {
        let pool = Pool::new(&settings, &ports.world);
        let settings = Arc::new(settings);
        Arc::new(Self { ports, settings, pool, current: watch::Sender::new(None), stopping: Stopping(Arc::new(watch::Sender::new(false))) })
    }

    /// Works until [`Runner::stop`].
    pub async fn run(self: Arc<Self>) {
        let mut predecessor = None;
        while !self.stopping.is_on() {
            let instance = Instance::new(self.ports.clone(), Arc::clone(&self.settings), self.pool.clone(), self.stopping.clone());
            select(Box::pin(instance.begin()), Box::pin(self.stopping.on())).await;
            if self.stopping.is_on() {
                break;
            }
            self.current.send_replace(Some(Arc::clone(&instance)));
            if self.stopping.is_on() {
                // `stop` may have looked just before; what this instance has written so far is an empty index.
                instance.index.fence();
            }
            instance.live(predecessor.take()).await;
            self.current.send_replace(None);
            if self.stopping.is_on() {
                break;
            }
            tracing::warn!(instance = %instance.id.0, "cut off from the lease; going on under a new instance");
            predecessor = Some(instance.id.clone());
        }
    }

    /// Takes nothing new, waits at most `patience` for what runs, then ends its agents and hands everything it was responsible for over, which may
    /// take as long again.
    pub async fn stop(&self, patience: Duration) {
        self.stopping.0.send_replace(true);
        let instance = self.current.borrow().clone();
        if let Some(instance) = instance {
            let quiet = Box::pin(async {
                while !instance.held_tasks().is_empty() {
                    instance.ports.world.sleep(Duration::from_millis(20)).await;
                }
            });
            select(quiet, self.ports.world.sleep(patience)).await;
            instance.index.fence();
            // What is left is handed over at once rather than after the lease has run out. Failing that, a peer does it.
            let handover = Box::pin(peers::take_over(&instance, &instance.id, None));
            select(handover, self.ports.world.sleep(patience)).await;
        }
    }

    /// Handles a delivered request to run, or a resumption.
    pub async fn deliver(&self, incoming: Incoming) -> Admitted {
        if self.stopping.is_on() {
            return Admitted::Retry("the runner is stopping".to_owned());
        }
        let admitted = self.delivered("taking the task", async move |instance| Ok(admission::admit(&instance, incoming).await)).await;
        admitted.unwrap_or_else(|error| Admitted::Retry(error.to_string()))
    }

    /// Handles what was delivered, or fired: by the instance that lives, or the next one, and answered in time. What is not done by then goes on, and is
    /// done by when it is delivered again.
    async fn delivered<T: Send + 'static, F>(
        &self,
        what: &'static str,
        handle: impl FnOnce(Arc<Instance>) -> F + Send,
    ) -> Result<T, PortError>
    where
        F: Future<Output = Result<T, PortError>> + Send + 'static,
    {
        let handled = async {
            let starting = || PortError::new(what, "the runner is starting, or stopping");
            let instance = self.live_instance().await.ok_or_else(starting)?;
            self.to_its_end(handle(instance)).await.ok_or_else(|| PortError::new(what, "the runner is gone"))?
        };
        match select(Box::pin(handled), self.ports.world.sleep(DELIVERY_MAX)).await {
            Either::Left((handled, _)) => handled,
            Either::Right(_) => Err(PortError::new(what, "the sidecar takes too long")),
        }
    }

    /// The current instance; while there is none, the delivery is held for the next one.
    async fn live_instance(&self) -> Option<Arc<Instance>> {
        let mut current = self.current.subscribe();
        let live = Box::pin(async move { current.wait_for(Option::is_some).await.ok().and_then(|current| current.clone()) });
        let over = select(self.ports.world.sleep(self.settings.hold), Box::pin(self.stopping.on()));
        match select(live, over).await {
            Either::Left((instance, _)) => instance,
            Either::Right(_) => None,
        }
    }

    /// A timer fired. While the runner starts it is held: whoever fires tries only a few times, and comes again late after that.
    pub async fn timer(&self, name: &str) -> Result<(), PortError> {
        let name = name.to_owned();
        self.delivered("firing a timer", async move |instance| timers::timer_fired(&instance, &name).await).await
    }

    /// A person decides.
    pub async fn decide(&self, task: TaskId, answer: Answer) -> Result<(Decided, Made), DecideError> {
        let instance = self.ready()?;
        let decided = self.to_its_end(async move { decisions::decide(&instance, task, answer).await }).await;
        decided.ok_or_else(gone)?
    }

    /// Somebody calls a task off who may see this tenant's tasks; none: every tenant's.
    pub async fn cancel(&self, task: TaskId, by: String, tenant: Option<String>) -> Result<(), CancelError> {
        let instance = self.ready()?;
        let by = Actor::new(ActorType::User, by);
        self.to_its_end(async move { decisions::cancel(&instance, task, by, tenant).await }).await.ok_or_else(gone)?
    }

    /// Forgets a task of a tenant: it is called off unless it has ended, and then nothing of it is kept. To repeat it is safe.
    pub async fn erase(&self, task: TaskId, tenant: String) -> Result<(), PortError> {
        self.delivered("forgetting a task", async move |instance| erasure::erase(&instance, task, &tenant).await).await
    }

    /// A task has ended that may have been handed off.
    pub async fn replied(&self, result: TaskResult) -> Result<Replied, PortError> {
        if result.parent_task_id.is_none() {
            return Ok(Replied::Ignored);
        }
        self.delivered("taking a reply", async move |instance| handoffs::replied(&instance, result).await).await
    }

    /// Nobody waits any more for what was handed off.
    pub async fn withdrawn(&self, event: HandoffWithdrawn, tenant: String) -> Result<(), PortError> {
        self.delivered("taking a hand-off back", async move |instance| handoffs::withdrawn(&instance, &event, tenant).await).await
    }

    /// A person answers what was handed to them.
    pub async fn answer(&self, task: TaskId, answer: PersonAnswer, tenant: Option<String>) -> Result<Decided, AnswerError> {
        let instance = self.ready()?;
        self.to_its_end(async move { handoffs::answered(&instance, task, answer, tenant).await }).await.ok_or_else(gone)?
    }

    /// Somebody says something to a task; true if they had said it before.
    pub async fn send(&self, task: TaskId, letter: Letter) -> Result<bool, SendError> {
        let instance = self.ready()?;
        self.to_its_end(async move { messages::send(&instance, task, letter).await }).await.ok_or_else(gone)?
    }

    /// The document of a task that was met, as it is, for who may see this tenant's tasks; none: every tenant's.
    pub async fn look(&self, task: TaskId, tenant: Option<&str>) -> Result<Option<TaskDoc>, PortError> {
        let found = self.ready()?.load(task).await?;
        Ok(found.map(|(doc, _)| doc).filter(|doc| doc.is_met_by(tenant)))
    }

    /// The settings it runs under.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Runs a handler to its end even if its caller stops waiting, as a server does whose client went away: one that was dropped between its
    /// writes would leave behind an index entry, or an owned task, that nothing in this process knows of.
    async fn to_its_end<T: Send + 'static>(&self, handler: impl Future<Output = T> + Send + 'static) -> Option<T> {
        let (sender, receiver) = oneshot::channel();
        self.ports.world.spawn(Box::pin(async move {
            let _caller_gone = sender.send(AssertUnwindSafe(handler).catch_unwind().await);
        }));
        match receiver.await {
            Ok(Ok(value)) => Some(value),
            // The caller counts the panics of its handlers.
            Ok(Err(panic)) => resume_unwind(panic),
            Err(_) => None,
        }
    }

    /// How the pools are used.
    pub fn usage(&self) -> Vec<AgentUse> {
        let agents = self.settings.agents.iter().map(|(agent, limits)| {
            let usage = self.pool.usage(agent);
            AgentUse { agent: agent.clone(), capacity: limits.max, in_use: usage.in_use, queued: usage.waiting, queue: limits.queue }
        });
        agents.collect()
    }

    /// Whether no further task of this agent is admitted, nor will be in a moment.
    pub fn is_full(&self, agent: &str) -> bool {
        self.pool.is_full(agent)
    }

    /// When all that waits for this agent now will have had its turn, as far as the last starts show.
    pub fn drained_in(&self, agent: &str) -> Option<Duration> {
        self.pool.drained_in(agent)
    }

    /// Where a task stands, if it waits for a sandbox here.
    pub fn standing(&self, task: TaskId) -> Option<Standing> {
        self.pool.position(task)
    }

    /// Places that are free.
    pub fn free_places(&self) -> usize {
        self.pool.free_places()
    }

    /// Whether it holds a lease and takes tasks.
    pub fn is_live(&self) -> bool {
        self.current.borrow().is_some()
    }

    fn instance(&self) -> Option<Arc<Instance>> {
        self.current.borrow().clone()
    }

    fn ready(&self) -> Result<Arc<Instance>, PortError> {
        self.instance().ok_or_else(|| PortError::new("taking the change", "the runner is starting"))
    }
}

fn gone() -> PortError {
    PortError::new("taking the change", "the runner is gone")
}
