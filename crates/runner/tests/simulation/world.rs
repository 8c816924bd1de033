//! The simulated world: virtual time and what is to happen in it, processes, calls on their way, and the parts they reach.
//!
//! Everything that can happen is an event at a virtual time; events of one instant come in random order. Nothing here polls a future: the run does,
//! between events, so that a future never finds the world locked.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use fte_events::TaskId;
use fte_runner::ports::Pending;
use fte_runner::protocol::Runner;
use jiff::Timestamp;

use crate::broker::Broker;
use crate::calls::{Call, Target};
use crate::check::{Lease, TaskState};
use crate::coverage::{Coverage, Met};
use crate::executor::Task;
use crate::jobs::Jobs;
use crate::rng::Rng;
use crate::scenario::{MS, Micros, Sabotage, Scenario, wall_signed};
use crate::store::Store;

/// Something that happens at its time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Happening {
    /// A call takes effect, or a part of it.
    Effect(usize, usize),
    /// A call is answered.
    Answer(usize),
    /// A sleep ends.
    Wake(usize),
    /// A delivery is made.
    Deliver(usize),
    /// An attempt at a delivery has taken too long: another one is made beside it.
    Overdue(usize, u32),
    /// The caller of a handler gives up.
    CallerGone(usize, u32, Task),
    /// A job fires.
    Fire(String, u64),
    /// A process starts, in the seat of a dead one if one is given.
    Start(Option<String>),
    /// A process that stood still goes on.
    Thaw(usize, Micros),
    /// Somebody decides, with an edit unless that is 0; how often it was tried.
    Decide(usize, bool, u8, Option<u32>, u32),
    /// Somebody says something to a task: which of the things they say; how often it was tried.
    Send(usize, usize, u32),
    /// Somebody calls a task off; how often it was tried.
    Cancel(usize, u32),
    /// A person answers what was handed to them; how often it was tried.
    Reply(usize, bool, u32),
    /// Faults end.
    Calm,
    /// Somebody looks whether everything is done.
    Look,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Scheduled {
    at: Micros,
    /// Orders the events of one instant by chance.
    tie: u64,
    happening: Happening,
}

pub(crate) struct Sleep {
    pub(crate) process: usize,
    /// On its process's monotonic clock.
    pub(crate) until: Micros,
    pub(crate) over: bool,
    pub(crate) waker: Option<Waker>,
}

pub(crate) struct Process {
    pub(crate) alive: bool,
    pub(crate) runner: Option<Arc<Runner>>,
    pub(crate) stopping: bool,
    pub(crate) seat: Option<String>,
    /// Since when it stands still, and whether its clock stands still as well.
    pub(crate) frozen: Option<(Micros, bool)>,
    /// How long its monotonic clock stood still in all.
    pub(crate) paused: Micros,
    pub(crate) clock_start: Micros,
    pub(crate) wall_offset: i64,
    /// Until then it may not have noticed that it stood still.
    pub(crate) unaware_until: Micros,
    pub(crate) rng: Rng,
}

/// A part of the world that fails for a while, for one process or for all.
pub(crate) struct Outage {
    pub(crate) target: Target,
    pub(crate) process: Option<usize>,
    pub(crate) until: Micros,
}

/// An agent that runs.
pub(crate) struct Agent {
    pub(crate) task: usize,
    pub(crate) process: usize,
    /// The instance that owned the task when the agent started.
    pub(crate) instance: Option<String>,
    pub(crate) alive: bool,
    /// Its owner has written that its task is parked, and has yet to hear that it has.
    pub(crate) parked: bool,
    /// The messages that it was told, or that the checkpoint includes that it started from.
    pub(crate) heard: Vec<String>,
    /// The messages that were accepted before it started.
    pub(crate) owed: Vec<String>,
}

pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) now: Micros,
    pub(crate) scenario: Scenario,
    pub(crate) sabotage: Option<Sabotage>,
    pub(crate) calm: bool,
    pub(crate) trace: bool,
    pub(crate) coverage: Coverage,
    pub(crate) violation: Option<String>,
    happenings: BinaryHeap<Reverse<Scheduled>>,
    pub(crate) processes: Vec<Process>,
    pub(crate) calls: Vec<Call>,
    pub(crate) sleeps: Vec<Sleep>,
    pub(crate) agents: Vec<Agent>,
    pub(crate) outages: Vec<Outage>,
    pub(crate) store: Store,
    pub(crate) broker: Broker,
    pub(crate) jobs: Jobs,
    pub(crate) tasks: Vec<TaskState>,
    /// By instance.
    pub(crate) leases: BTreeMap<String, Lease>,
    /// Which task is named at a key, and by which process.
    pub(crate) keys: BTreeMap<String, (TaskId, usize)>,
    spawned: Vec<(usize, Pending<()>)>,
    spawned_before: Task,
    /// Futures that are to be dropped.
    pub(crate) killed: Vec<Task>,
    /// Processes that have ended by themselves.
    pub(crate) exited: Vec<usize>,
}

/// A handle on the world.
#[derive(Clone)]
pub(crate) struct Sim(Arc<Mutex<World>>);

impl Sim {
    pub(crate) fn new(seed: u64, scenario: Scenario, sabotage: Option<Sabotage>, trace: bool) -> Self {
        let tasks = scenario.tasks.iter().map(TaskState::new).collect();
        Self(Arc::new(Mutex::new(World {
            rng: Rng::new(seed.rotate_left(32)),
            now: 0,
            scenario,
            sabotage,
            calm: false,
            trace,
            coverage: Coverage::default(),
            violation: None,
            happenings: BinaryHeap::new(),
            processes: Vec::new(),
            calls: Vec::new(),
            sleeps: Vec::new(),
            agents: Vec::new(),
            outages: Vec::new(),
            store: Store::default(),
            broker: Broker::default(),
            jobs: Jobs::default(),
            tasks,
            leases: BTreeMap::new(),
            keys: BTreeMap::new(),
            spawned: Vec::new(),
            spawned_before: 0,
            killed: Vec::new(),
            exited: Vec::new(),
        })))
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl World {
    pub(crate) fn met(&mut self, what: Met) {
        self.coverage.met(what);
    }

    /// One line of the trace, made only when somebody reads it.
    pub(crate) fn tell(&self, line: impl FnOnce() -> String) {
        if self.trace {
            crate::print(&format!("{:>12.6}  {}", self.now as f64 / 1e6, line()));
        }
    }

    pub(crate) fn violate(&mut self, what: impl FnOnce() -> String) {
        if self.violation.is_none() {
            let what = what();
            self.tell(|| format!("VIOLATION: {what}"));
            self.violation = Some(what);
        }
    }

    pub(crate) fn at(&mut self, at: Micros, happening: Happening) {
        let tie = self.rng.next();
        self.happenings.push(Reverse(Scheduled { at: at.max(self.now), tie, happening }));
    }

    pub(crate) fn after(&mut self, time: Micros, happening: Happening) {
        self.at(self.now + time, happening);
    }

    /// Goes on to the next event, and to its time.
    pub(crate) fn advance(&mut self) -> Option<Happening> {
        let Reverse(next) = self.happenings.pop()?;
        self.now = self.now.max(next.at);
        Some(next.happening)
    }

    pub(crate) fn spawn(&mut self, process: usize, future: Pending<()>) -> Task {
        self.spawned.push((process, future));
        self.spawned_before += 1;
        self.spawned_before - 1
    }

    pub(crate) fn take_spawned(&mut self) -> Vec<(usize, Pending<()>)> {
        std::mem::take(&mut self.spawned)
    }

    pub(crate) fn is_frozen(&self, process: usize) -> bool {
        self.processes[process].frozen.is_some()
    }

    /// Whether it runs, and has had time to notice if it stood still.
    pub(crate) fn is_aware(&self, process: usize) -> bool {
        let process = &self.processes[process];
        process.alive && process.frozen.is_none() && self.now >= process.unaware_until
    }

    pub(crate) fn living(&self) -> Vec<usize> {
        (0..self.processes.len()).filter(|process| self.processes[*process].alive).collect()
    }

    /// A process that takes calls, by chance.
    pub(crate) fn somebody(&mut self) -> Option<(usize, Arc<Runner>)> {
        let living = self.living();
        if living.is_empty() {
            return None;
        }
        let process = *self.rng.pick(&living);
        self.processes[process].runner.clone().map(|runner| (process, runner))
    }

    pub(crate) fn monotonic(&self, process: usize) -> Micros {
        let it = &self.processes[process];
        let standing = match it.frozen {
            Some((since, true)) => self.now - since,
            _ => 0,
        };
        it.clock_start + self.now - it.paused - standing
    }

    pub(crate) fn wall(&self, process: usize) -> Timestamp {
        wall_signed(i64::try_from(self.now).unwrap_or(i64::MAX) + self.processes[process].wall_offset)
    }

    pub(crate) fn sleep(&mut self, process: usize, time: Micros, waker: Waker) -> usize {
        let until = self.monotonic(process) + time;
        self.sleeps.push(Sleep { process, until, over: false, waker: Some(waker) });
        self.after(time, Happening::Wake(self.sleeps.len() - 1));
        self.sleeps.len() - 1
    }

    pub(crate) fn wake(&mut self, sleep: usize) {
        let process = self.sleeps[sleep].process;
        if !self.processes[process].alive || self.sleeps[sleep].waker.is_none() {
            return;
        }
        let left = self.sleeps[sleep].until.saturating_sub(self.monotonic(process));
        if left > 0 {
            // Its clock stood still, and may do so for long.
            self.after(left.max(MS), Happening::Wake(sleep));
            return;
        }
        let it = &mut self.sleeps[sleep];
        it.over = true;
        if let Some(waker) = it.waker.take() {
            waker.wake();
        }
    }

    pub(crate) fn is_out(&self, target: Target, process: usize) -> bool {
        let hits =
            |outage: &Outage| outage.target == target && outage.process.is_none_or(|only| only == process) && outage.until > self.now;
        self.outages.iter().any(hits)
    }
}
