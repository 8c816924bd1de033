//! One run: a seed's scenario from its first event until everything has come to rest, with faults in between.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use fte_runner::protocol::{Incoming, Runner};

use crate::calls::Target;
use crate::coverage::{Coverage, Met};
use crate::executor::Executor;
use crate::handoffs::Cargo;
use crate::ports::ports;
use crate::rng::Rng;
use crate::scenario::{MS, Micros, S, Sabotage, Scenario, Without};
use crate::world::{Happening, Outage, Process, Sim, World};

/// Everything must have come to rest this long after the last fault.
const REST_MAX: Micros = 300 * S;
/// And after at most this many polls and events in all.
const STEPS_MAX: u64 = 2_000_000;

/// How a run ended.
pub(crate) struct Outcome {
    pub(crate) violation: Option<String>,
    pub(crate) coverage: Coverage,
    pub(crate) steps: u64,
}

/// Runs a seed.
pub(crate) fn run(seed: u64, without: &Without, sabotage: Option<Sabotage>, trace: bool) -> Outcome {
    let scenario = Scenario::of(seed, without);
    let sim = Sim::new(seed, scenario, sabotage, trace);
    let mut run = Run { sim: sim.clone(), executor: Executor::default(), steps: 0 };
    let ended = catch_unwind(AssertUnwindSafe(|| run.go()));
    let steps = run.steps;
    // The world and what runs in it hold each other.
    drop(run);
    let (processes, spawned) = {
        let mut world = sim.world();
        (std::mem::take(&mut world.processes), world.take_spawned())
    };
    drop((processes, spawned));
    let mut world = sim.world();
    if ended.is_err() {
        world.violate(|| "it panicked".to_owned());
    }
    Outcome { violation: world.violation.take(), coverage: std::mem::take(&mut world.coverage), steps }
}

struct Run {
    sim: Sim,
    executor: Executor,
    steps: u64,
}

impl Run {
    fn go(&mut self) {
        self.set_up();
        loop {
            self.steps += 1;
            self.settle();
            if self.sim.world().violation.is_some() {
                return;
            }
            if self.steps > STEPS_MAX {
                self.sim.world().violate(|| "it does not come to rest: too many steps".to_owned());
                return;
            }
            if self.poll_one() {
                continue;
            }
            let next = self.sim.world().advance();
            match next {
                Some(Happening::Look) => {
                    if self.look() {
                        return;
                    }
                }
                Some(happening) => self.happen(happening),
                None => {
                    self.sim.world().violate(|| "nothing is left to happen".to_owned());
                    return;
                }
            }
        }
    }

    fn set_up(&mut self) {
        let mut world = self.sim.world();
        world.tell(|| format!("{:#?}", world.scenario));
        for n in 0..world.scenario.processes {
            let seat = world.scenario.seats.then(|| format!("seat-{n}"));
            let late = if n == 0 { 0 } else { world.rng.below(5 * S) };
            world.at(late, Happening::Start(seat));
        }
        for task in 0..world.tasks.len() {
            let plan = world.tasks[task].plan.clone();
            world.at(plan.submitted, Happening::Deliver(usize::MAX - task));
            for at in plan.cancels {
                world.at(at, Happening::Cancel(task, 0));
            }
            for (n, (at, twice)) in plan.letters.iter().enumerate() {
                world.at(*at, Happening::Send(task, n, 0));
                if *twice {
                    world.at(*at + MS, Happening::Send(task, n, 0));
                }
            }
            for (at, approved) in plan.stray_decisions {
                world.at(at, Happening::Decide(task, approved, 0, None, 0));
            }
        }
        let calm = world.scenario.faulty;
        world.at(calm, Happening::Calm);
    }

    /// Takes in what was spawned, and drops what is over.
    fn settle(&mut self) {
        loop {
            let (spawned, killed, exited) = {
                let mut world = self.sim.world();
                (world.take_spawned(), std::mem::take(&mut world.killed), std::mem::take(&mut world.exited))
            };
            if spawned.is_empty() && killed.is_empty() && exited.is_empty() {
                return;
            }
            for (process, future) in spawned {
                self.executor.spawn(process, future);
            }
            for task in killed {
                self.executor.kill(task);
            }
            for process in exited {
                self.end_process(process);
            }
        }
    }

    /// Polls a task that can run, picked by chance; or lets a fault happen instead.
    fn poll_one(&mut self) -> bool {
        let mut world = self.sim.world();
        let mut able = Vec::new();
        let mut position = 0;
        while let Some(task) = self.executor.ready().get(position).copied() {
            match self.executor.process_of(task) {
                None => self.executor.drop_ready(position),
                Some(process) => {
                    if !world.is_frozen(process) {
                        able.push((position, process));
                    }
                    position += 1;
                }
            }
        }
        if able.is_empty() {
            return false;
        }
        let (position, process) = *world.rng.pick(&able);
        let strikes = !world.calm && strike(&mut world, &self.sim, process);
        drop(world);
        match strikes {
            true if self.sim.world().is_frozen(process) => {}
            true => self.crash(process),
            false => self.executor.poll(position),
        }
        true
    }

    fn happen(&mut self, happening: Happening) {
        let sim = self.sim.clone();
        let mut world = sim.world();
        match happening {
            Happening::Effect(call, part) => world.take_effect(call, part),
            Happening::Answer(call) => world.answer(call),
            Happening::Wake(sleep) => world.wake(sleep),
            Happening::Deliver(delivery) if delivery > usize::MAX / 2 => submit(&mut world, usize::MAX - delivery),
            Happening::Deliver(delivery) => world.deliver(&sim, delivery),
            Happening::Overdue(delivery, attempt) => world.overdue(delivery, attempt),
            Happening::CallerGone(delivery, attempt, handler) => world.caller_gone(delivery, attempt, handler),
            Happening::Fire(name, making) => world.fire(&sim, name, making),
            Happening::Start(seat) => start(&mut world, &sim, seat),
            Happening::Thaw(process, since) => thaw(&mut world, process, since),
            Happening::Decide(task, approved, edit, question, tries) => world.decide(&sim, task, (approved, edit), question, tries),
            Happening::Send(task, n, tries) => world.send(&sim, task, n, tries),
            Happening::Cancel(task, tries) => world.cancel(&sim, task, tries),
            Happening::Reply(task, done, tries) => world.reply_of_person(&sim, task, done, tries),
            Happening::Calm => calm(&mut world),
            Happening::Look => {}
        }
    }

    /// Whether everything has come to rest, or never will.
    fn look(&mut self) -> bool {
        let mut world = self.sim.world();
        let Some(unrest) = world.unrest() else {
            world.check_end();
            return true;
        };
        if world.now > world.scenario.faulty + REST_MAX {
            world.violate(|| format!("it does not come to rest: {unrest}"));
            return true;
        }
        world.tell(|| format!("not at rest: {unrest}"));
        world.after(S, Happening::Look);
        false
    }

    /// A process dies where it stands.
    fn crash(&mut self, process: usize) {
        let mut world = self.sim.world();
        world.tell(|| format!("p{process} dies"));
        world.met(Met::Crash);
        drop(world);
        self.end_process(process);
    }

    fn end_process(&mut self, process: usize) {
        {
            let mut world = self.sim.world();
            if !world.processes[process].alive {
                return;
            }
            world.processes[process].alive = false;
        }
        self.executor.kill_process(process);
        let mut world = self.sim.world();
        let runner = world.processes[process].runner.take();
        world.orphan_calls(process);
        for agent in world.agents.iter_mut().filter(|agent| agent.process == process) {
            agent.alive = false;
        }
        world.deliver_again_what_had(process);
        if world.calm && world.living().is_empty() || !world.calm && world.living().len() < 3 {
            let seat = world.processes[process].seat.clone();
            let most = *world.rng.pick(&[10 * MS, S, 20 * S]);
            let later = world.rng.below(most);
            world.after(later, Happening::Start(seat));
        }
        drop(world);
        drop(runner);
    }
}

fn submit(world: &mut World, task: usize) {
    let plan = world.tasks[task].plan.clone();
    world.tasks[task].submitted = true;
    world.tell(|| format!("task {} is submitted", plan.id));
    let incoming = Incoming {
        task_id: plan.id,
        turn: 0,
        request: Some(Box::new(plan.request)),
        parent: None,
        refusal: plan.refusal.then(|| ("request_unreadable", "it could not be read".to_owned())),
        tenant: "default".to_owned(),
        event_id: format!("trigger-{task}"),
        traceparent: None,
    };
    world.accept(task, Cargo::Run(incoming));
}

fn start(world: &mut World, sim: &Sim, seat: Option<String>) {
    let number = world.processes.len();
    // A seat is held by one process at a time.
    let taken = world.processes.iter().any(|process| process.alive && process.seat == seat);
    let seat = seat.filter(|_| !taken);
    let mut settings = world.scenario.settings.clone();
    settings.seat.clone_from(&seat);
    let runner = Runner::new(ports(sim, number), settings);
    let rng = Rng::new(world.rng.next());
    let clock_start = world.rng.below(1_000 * S);
    let wall_offset = i64::try_from(world.rng.below(200 * MS)).unwrap_or(0) - 100_000;
    world.tell(|| format!("p{number} starts, in {seat:?}"));
    world.met(Met::Start);
    world.processes.push(Process {
        alive: true,
        runner: Some(Arc::clone(&runner)),
        stopping: false,
        seat,
        frozen: None,
        paused: 0,
        clock_start,
        wall_offset,
        unaware_until: 0,
        rng,
    });
    world.spawn(number, Box::pin(runner.run()));
}

fn thaw(world: &mut World, process: usize, since: Micros) {
    let now = world.now;
    let unaware = now + 12 * S;
    let it = &mut world.processes[process];
    let Some((frozen, pauses)) = it.frozen.filter(|(frozen, _)| *frozen == since) else { return };
    if pauses {
        it.paused += now - frozen;
    }
    it.frozen = None;
    it.unaware_until = unaware;
    world.tell(|| format!("p{process} goes on"));
}

/// Perhaps something happens to a process that is about to run: true when it must not.
fn strike(world: &mut World, sim: &Sim, process: usize) -> bool {
    let rates = world.scenario.rates.clone();
    if world.rng.chance(rates.crash) {
        return true;
    }
    if world.rng.chance(rates.freeze) {
        let most = *world.rng.pick(&[20 * MS, 2 * S, 14 * S, 60 * S]);
        let time = world.rng.below(most);
        let pauses = world.rng.chance(300_000);
        let since = world.now;
        world.processes[process].frozen = Some((since, pauses));
        world.tell(|| format!("p{process} stands still for {} ms", time / MS));
        world.met(Met::Freeze);
        world.after(time, Happening::Thaw(process, since));
        return true;
    }
    if world.rng.chance(rates.stop) && !world.processes[process].stopping {
        world.processes[process].stopping = true;
        world.tell(|| format!("p{process} is told to stop"));
        world.met(Met::Stop);
        let patience = Duration::from_millis(*world.rng.pick(&[0, 1_000, 10_000]));
        let (sim, runner) = (sim.clone(), world.processes[process].runner.clone());
        world.spawn(
            process,
            Box::pin(async move {
                if let Some(runner) = runner {
                    runner.stop(patience).await;
                }
                sim.world().exited.push(process);
            }),
        );
    }
    if world.rng.chance(rates.outage) {
        let target = *world.rng.pick(&[Target::Store, Target::Outlet, Target::Jobs]);
        let only = if world.rng.chance(500_000) { Some(process) } else { None };
        let most = *world.rng.pick(&[S, 20 * S]);
        let until = world.now + world.rng.below(most);
        world.tell(|| format!("{target:?} is out for {only:?} until {until}"));
        world.met(Met::Outage);
        world.outages.push(Outage { target, process: only, until });
    }
    if world.rng.chance(rates.clock_jump) {
        let by = i64::try_from(world.rng.below(120 * S)).unwrap_or(0) - 60_000_000;
        world.tell(|| format!("the wall clock of p{process} jumps by {by} µs"));
        world.met(Met::ClockJump);
        world.processes[process].wall_offset += by;
    }
    false
}

/// Faults end. What is on its way still arrives.
fn calm(world: &mut World) {
    world.tell(|| "faults end".to_owned());
    world.calm = true;
    world.outages.clear();
    for process in 0..world.processes.len() {
        if let Some((since, _)) = world.processes[process].frozen {
            world.after(0, Happening::Thaw(process, since));
        }
        world.processes[process].wall_offset = 0;
    }
    if world.living().is_empty() {
        world.after(0, Happening::Start(None));
    }
    world.after(S, Happening::Look);
}
