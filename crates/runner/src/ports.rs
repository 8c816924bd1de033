//! What the protocol needs of the world, as traits: the state store, the outlet for events, timers, the clock, a place to run tasks, and agents.
//!
//! The protocol uses nothing else: no wall clock, no runtime, no random numbers of its own. That is what lets the same code run in the service and,
//! crash by crash and delay by delay, in the simulation.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

pub use fte_bus::{Document, ETag, Guard, Message, Save, Saved};
use fte_events::{ClaimId, EscalationLevel, TaskId};
use jiff::Timestamp;
use serde_json::{Map, Value};
use tokio::sync::mpsc;

/// A future of a port.
pub type Pending<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A port could not do what was asked, or does not know whether it did.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{what} failed: {reason}")]
pub struct PortError {
    /// What was tried.
    pub what: &'static str,
    /// Why it failed, with causes.
    pub reason: String,
    /// It did not happen, and never will as it was asked: what was to be written is too large.
    pub refused: bool,
}

impl PortError {
    /// An error that may heal; what was tried may have happened.
    pub fn new(what: &'static str, reason: impl Into<String>) -> Self {
        Self { what, reason: reason.into(), refused: false }
    }
}

/// Documents with optimistic concurrency.
pub trait Store: Send + Sync {
    /// Reads a document.
    fn get(&self, key: String) -> Pending<Result<Option<Document>, PortError>>;
    /// Reads several, in the order of the keys.
    fn get_many(&self, keys: Vec<String>) -> Pending<Result<Vec<Option<Document>>, PortError>>;
    /// Writes a document if its guard holds. After an error the write may have happened, or may still happen.
    fn save(&self, save: Save) -> Pending<Result<Saved, PortError>>;
}

/// Where events go.
pub trait Outlet: Send + Sync {
    /// Publishes all of them; after an error any of them may have been published.
    fn send(&self, messages: Vec<Message>) -> Pending<Result<(), PortError>>;
}

/// Durable timers, by name.
pub trait Timers: Send + Sync {
    /// Fires at `due` and then every 30 s until deleted, or made again. The same name replaces.
    fn schedule(&self, name: String, due: Timestamp) -> Pending<Result<(), PortError>>;
    /// Ends a timer; one that is not there is ended already.
    fn delete(&self, name: String) -> Pending<Result<(), PortError>>;
}

/// Time, chance and concurrency.
pub trait World: Send + Sync {
    /// The wall clock, which may jump.
    fn now(&self) -> Timestamp;
    /// A clock that only goes forward, from an arbitrary start; it may run on while the process is frozen.
    fn monotonic(&self) -> Duration;
    /// Waits.
    fn sleep(&self, time: Duration) -> Pending<()>;
    /// Random bits.
    fn random(&self) -> u64;
    /// Runs a future beside the caller until it ends.
    fn spawn(&self, future: Pending<()>);
}

/// Starts agents.
pub trait Agents: Send + Sync {
    /// Starts the agent for one try at a task. Everything it runs is gone when the session is dropped.
    fn start(&self, agent: &str, start: Start) -> Pending<Result<Session, StartError>>;
    /// Whether a sandbox of this agent stands ready.
    fn is_warm(&self, _agent: &str) -> bool {
        false
    }
}

/// What an agent is told at its start.
#[derive(Clone, Debug)]
pub struct Start {
    /// The task.
    pub task_id: TaskId,
    /// Which try, from 1.
    pub attempt: u32,
    /// The claim of its sandbox, as it stands in the task's document.
    pub claim_id: ClaimId,
    /// What to do.
    pub task: String,
    /// What it should know.
    pub context: Map<String, Value>,
    /// What it last asked to keep, from an earlier try or before it was parked.
    pub checkpoint: Option<Value>,
    /// Who handed it off, if somebody did, and what came with it.
    pub handed_off: Option<Box<crate::document::Parent>>,
}

/// Work that an agent gives to another one, or to people.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Handoff {
    /// What the agent calls it, to know the reply again.
    pub id: Option<String>,
    /// Who is asked.
    pub to: String,
    /// What to do.
    pub task: String,
    /// What the receiver should know.
    pub context: Map<String, Value>,
    /// Artifacts to hand over, by name.
    pub artifacts: Vec<String>,
    /// Why.
    pub reason: Option<String>,
    /// Too late after this.
    pub deadline: Option<Timestamp>,
    /// What it may cost, of what the one who asks may.
    pub budget: crate::document::Budget,
    /// What people want to know besides.
    pub escalation: Escalation,
}

/// What people want to know of what is handed to them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Escalation {
    /// The ticket.
    pub ticket_id: Option<String>,
    /// How high it goes.
    pub level: Option<EscalationLevel>,
    /// The customer's mood, from -1 to 1.
    pub sentiment: Option<f64>,
    /// What was said so far.
    pub history: Vec<Value>,
    /// What the agent would do.
    pub suggested_action: Option<String>,
}

/// A started agent.
pub struct Session {
    /// What it says. A closed channel without a [`Said::Result`] or [`Said::Error`] before is a crash.
    pub said: mpsc::Receiver<Said>,
    /// What it is told.
    pub tell: mpsc::Sender<Tell>,
    /// Ends the agent, all of it, when dropped.
    pub guard: Box<dyn Send + Sync>,
}

/// What the runner tells a started agent.
#[derive(Clone, Debug, PartialEq)]
pub enum Tell {
    /// Its approval was decided.
    Decision {
        /// Yes or no.
        approved: bool,
        /// The decider's words.
        reason: Option<String>,
        /// With a yes: what was approved, as the decider has it; else what was asked about.
        data: Option<Value>,
    },
    /// What somebody said to its task.
    Message {
        /// The message's id: it comes again to a session that starts over, unless a checkpoint names it.
        id: String,
        /// In words.
        text: String,
        /// And as data.
        data: Option<Value>,
        /// What it does now is to wait.
        interrupt: bool,
    },
    /// What came of a hand-off.
    Reply {
        /// What the agent called it; else which of this start's hand-offs it is, from 1.
        handoff: String,
        /// The task that was to do it, if there was one.
        task_id: Option<TaskId>,
        /// How it ended.
        reply: Box<crate::document::HandoffReply>,
    },
    /// It should stop; it is ended shortly after in any case.
    Cancel,
}

/// What an agent says.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// It enters a stage.
    Stage(String),
    /// It got on.
    Progress {
        /// From 0 to 100.
        pct: Option<u8>,
        /// For people.
        message: Option<String>,
    },
    /// A line for people.
    Log(String),
    /// It did something worth recording.
    Action {
        /// What, as `tool.called`.
        action: String,
        /// About it.
        data: Map<String, Value>,
    },
    /// What it wished was answered by the configuration, and it was told so.
    ByPolicy {
        /// Yes or no.
        allowed: bool,
        /// What it wished to do.
        action: String,
        /// About it.
        data: Map<String, Value>,
    },
    /// Give this back at the next start.
    Checkpoint(Value),
    /// What it asked to keep before this includes these messages, by their ids: they need not be told again.
    Heard(Vec<String>),
    /// It made a file, which is kept already.
    Artifact(Box<fte_events::Artifact>),
    /// Somebody has to decide before it goes on.
    Approval {
        /// What it is about, as a policy names it: `mail.send`.
        action: Option<String>,
        /// Why.
        reason: Option<String>,
        /// What to look at.
        data: Option<Value>,
    },
    /// Somebody else shall do a part of it.
    Handoff(Box<Handoff>),
    /// It cost this much since it last said, in dollars.
    Cost(f64),
    /// It took so many tokens since it last said.
    Tokens(fte_events::Tokens),
    /// It is done.
    Result(Value),
    /// It could not do it.
    Error {
        /// For programs.
        code: String,
        /// For people.
        message: String,
        /// Whether another try may help.
        retryable: bool,
    },
}

/// An agent did not start.
#[derive(Clone, Debug, thiserror::Error)]
#[error("agent {agent} did not start: {reason}")]
pub struct StartError {
    /// Its name.
    pub agent: String,
    /// Why, with causes.
    pub reason: String,
    /// Whether another try may help.
    pub retryable: bool,
}

/// Everything the protocol needs, together.
#[derive(Clone)]
pub struct Ports {
    /// Documents.
    pub store: Arc<dyn Store>,
    /// Events out.
    pub outlet: Arc<dyn Outlet>,
    /// Durable timers.
    pub timers: Arc<dyn Timers>,
    /// Time, chance, concurrency.
    pub world: Arc<dyn World>,
    /// Agents.
    pub agents: Arc<dyn Agents>,
}
