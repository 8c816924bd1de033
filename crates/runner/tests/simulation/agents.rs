//! Agents that act out a script in their runner's process. They die with their session, as real ones do.

use fte_events::{Artifact, json_sha256};
use fte_runner::document::{HandoffReply, State};
use fte_runner::ports::{Handoff, Said, Session, Start, StartError, Tell};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use crate::coverage::Met;
use crate::executor::Task;
use crate::people::edit_of;
use crate::ports::pause;
use crate::scenario::{DENIED, EVENT_BYTES_MAX, MS, S, Step, wall};
use crate::world::{Agent, Sim, World};

/// Ends the agent when dropped.
struct Guard {
    sim: Sim,
    agent: usize,
    handler: Task,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut world = self.sim.world();
        if world.agents[self.agent].alive {
            world.agents[self.agent].alive = false;
            world.met(Met::AgentKilled);
            let agent = self.agent;
            world.tell(|| format!("agent {agent} is ended"));
        }
        world.killed.push(self.handler);
    }
}

/// Starts the agent of a task, or fails to.
pub(crate) fn start(sim: &Sim, process: usize, agent: &str, start: Start) -> Result<Session, StartError> {
    let mut world = sim.world();
    let Some(task) = world.tasks.iter().position(|task| task.plan.id == start.task_id) else {
        return Err(StartError { agent: agent.to_owned(), reason: "there is no such task".to_owned(), retryable: false });
    };
    let fails = world.scenario.rates.agent_start;
    if !world.calm && world.rng.chance(fails) {
        world.tasks[task].agent_failures += 1;
        if world.rng.chance(200_000) {
            world.met(Met::DriverPanic);
            drop(world);
            // Without the noise of the panic hook.
            std::panic::resume_unwind(Box::new("the agents' adapter is broken"));
        }
        world.met(Met::StartFailed);
        world.tasks[task].failed_claims.insert(start.claim_id.to_string());
        return Err(StartError { agent: agent.to_owned(), reason: "no memory".to_owned(), retryable: true });
    }
    world.met(Met::AgentStarted);
    world.check_agent_start(process, task);
    world.check_input(task, &start.task);
    let instance = world.tasks[task].doc.as_ref().and_then(|doc| doc.owner.clone());
    let number = world.agents.len();
    let kept = start.checkpoint.as_ref().and_then(|kept| kept["heard"].as_array().cloned()).unwrap_or_default();
    let heard = kept.iter().filter_map(|id| id.as_str().map(str::to_owned)).collect();
    let owed = world.tasks[task].confirmed.clone();
    world.agents.push(Agent { task, process, instance, alive: true, parked: false, heard, owed });
    world.tell(|| format!("p{process} agent {number} starts on {}, try {}, from {:?}", start.task_id, start.attempt, start.checkpoint));
    let (said, hear) = mpsc::channel(4);
    let (tell, told) = mpsc::channel(4);
    let script = world.tasks[task].plan.script.clone();
    let actor = Actor { sim: sim.clone(), process, task, number, said, told, start, waiting: Vec::new() };
    let handler = world.spawn(process, Box::pin(actor.run(script)));
    Ok(Session { said: hear, tell, guard: Box::new(Guard { sim: sim.clone(), agent: number, handler }) })
}

struct Actor {
    sim: Sim,
    process: usize,
    task: usize,
    number: usize,
    said: mpsc::Sender<Said>,
    told: mpsc::Receiver<Tell>,
    start: Start,
    /// The steps whose hand-offs have not been answered.
    waiting: Vec<usize>,
}

/// A question, as an agent puts it.
fn asked(question: u8) -> Said {
    Said::Approval { action: Some(format!("question.{question}")), reason: Some(format!("question-{question}")), data: None }
}

/// The agent goes on with the next step, or is over.
enum Next {
    Step,
    Over,
}

impl Actor {
    async fn run(mut self, script: Vec<Step>) {
        let from = self.start.checkpoint.as_ref().and_then(|kept| kept["at"].as_u64()).unwrap_or(0);
        // What its checkpoint has no reply to it asks again.
        let open = self.start.checkpoint.as_ref().and_then(|kept| kept["open"].as_array().cloned()).unwrap_or_default();
        for at in open.iter().filter_map(Value::as_u64).filter_map(|at| usize::try_from(at).ok()) {
            if let Some(Step::HandOff(to)) = script.get(at)
                && matches!(self.hand_off(at, to).await, Next::Over)
            {
                return self.over();
            }
        }
        for (at, step) in script.iter().enumerate().skip(usize::try_from(from).unwrap_or(0)) {
            while let Ok(told) = self.told.try_recv() {
                self.hear(told);
            }
            if matches!(self.act(at, step).await, Next::Over) {
                self.over();
                return;
            }
        }
        // It does not finish before it has heard what was said before it began.
        while self.owes() {
            match self.told.recv().await {
                Some(told) => self.hear(told),
                None => return self.over(),
            }
        }
        let result = json!({ "task": self.task, "agent": self.number });
        self.say(Said::Result(result)).await;
        self.over();
    }

    fn hear(&mut self, told: Tell) {
        match told {
            Tell::Message { id, .. } => self.sim.world().hears(self.number, id),
            Tell::Reply { handoff, task_id, reply } => self.replied(&handoff, task_id, &reply),
            Tell::Decision { .. } | Tell::Cancel => {}
        }
    }

    fn owes(&self) -> bool {
        let world = self.sim.world();
        let me = &world.agents[self.number];
        me.owed.iter().any(|id| !me.heard.contains(id))
    }

    async fn checkpoint(&self, at: usize) -> Next {
        let heard = self.sim.world().agents[self.number].heard.clone();
        if matches!(self.say(Said::Checkpoint(json!({ "at": at + 1, "open": self.waiting, "heard": heard }))).await, Next::Over)
            || heard.is_empty()
        {
            return Next::Step;
        }
        {
            let mut world = self.sim.world();
            world.tasks[self.task].in_checkpoint.extend(heard.iter().cloned());
        }
        self.say(Said::Heard(heard)).await
    }

    fn over(&self) {
        self.sim.world().agents[self.number].alive = false;
    }

    async fn say(&self, said: Said) -> Next {
        match self.said.send(said).await {
            Ok(()) => Next::Step,
            Err(_) => Next::Over,
        }
    }

    async fn act(&mut self, at: usize, step: &Step) -> Next {
        match step {
            Step::Stage(n) => self.say(Said::Stage(format!("stage-{n}"))).await,
            Step::Progress(pct) => self.say(Said::Progress { pct: Some(*pct), message: None }).await,
            Step::Log => self.say(Said::Log(format!("line {at}"))).await,
            Step::Action => self.action(at, 0).await,
            Step::Artifact => {
                let artifact = Artifact {
                    name: format!("{}-{at}", self.number),
                    content_type: "text/plain".to_owned(),
                    size_bytes: 1,
                    sha256: String::new(),
                    uri: String::new(),
                    extra: Map::new(),
                };
                self.say(Said::Artifact(Box::new(artifact))).await
            }
            Step::Checkpoint => self.checkpoint(at).await,
            Step::HandOff(to) => self.hand_off(at, to).await,
            Step::Await => {
                while !self.waiting.is_empty() {
                    match self.told.recv().await {
                        Some(told @ (Tell::Message { .. } | Tell::Reply { .. })) => self.hear(told),
                        // It waits for its end.
                        Some(_) | None => std::future::pending().await,
                    }
                }
                Next::Step
            }
            Step::Cost(usd) => {
                self.sim.world().count_cost(self.task, *usd);
                self.say(Said::Cost(*usd)).await
            }
            Step::Sleep(time) => {
                pause(&self.sim, self.process, *time).await;
                Next::Step
            }
            Step::Ask(question) => self.ask(at, *question).await,
            Step::AskAndCrash(question, until) if self.start.attempt <= *until => {
                self.say(asked(*question)).await;
                pause(&self.sim, self.process, 300 * MS).await;
                self.sim.world().tasks[self.task].agent_failures += 1;
                Next::Over
            }
            Step::AskAndCrash(question, _) => self.ask(at, *question).await,
            Step::FailUntil(until, retryable) if self.start.attempt <= *until => {
                self.sim.world().tasks[self.task].agent_failures += 1;
                self.say(Said::Error { code: "no_luck".to_owned(), message: "no luck".to_owned(), retryable: *retryable }).await;
                Next::Over
            }
            Step::CrashUntil(until) if self.start.attempt <= *until => {
                self.sim.world().tasks[self.task].agent_failures += 1;
                Next::Over
            }
            Step::FailUntil(..) | Step::CrashUntil(_) => Next::Step,
            Step::Hang => std::future::pending().await,
            Step::TooMuch => {
                self.say(Said::Result(Value::from("x".repeat(EVENT_BYTES_MAX)))).await;
                Next::Over
            }
            Step::Chatter(count) => {
                for n in 0..*count {
                    if matches!(self.action(at, n).await, Next::Over) {
                        return Next::Over;
                    }
                }
                Next::Step
            }
        }
    }

    async fn action(&self, at: usize, n: u32) -> Next {
        let mut data = Map::new();
        data.insert("unique".to_owned(), Value::from(format!("{}/{at}/{n}", self.number)));
        self.say(Said::Action { action: "tool.called".to_owned(), data }).await
    }

    async fn hand_off(&mut self, at: usize, to: &str) -> Next {
        let context = self.start.context.get("customer").map(|customer| ("customer".to_owned(), customer.clone()));
        let handoff = Handoff {
            id: Some(at.to_string()),
            to: to.to_owned(),
            task: format!("part {at}"),
            context: context.into_iter().collect(),
            ..Handoff::default()
        };
        self.waiting.push(at);
        self.say(Said::Handoff(Box::new(handoff))).await
    }

    fn replied(&mut self, handoff: &str, child: Option<fte_events::TaskId>, reply: &HandoffReply) {
        let mut world = self.sim.world();
        let code = reply.error.as_ref().map(|error| error.code.as_str());
        world.check_told_reply(self.task, child, reply.status, code);
        match self.waiting.iter().position(|at| at.to_string() == handoff) {
            Some(at) => drop(self.waiting.remove(at)),
            None => world.violate(|| format!("an agent was told of hand-off {handoff}, for which it does not wait")),
        }
    }

    async fn ask(&mut self, at: usize, question: u8) -> Next {
        if matches!(self.say(asked(question)).await, Next::Over) {
            return Next::Over;
        }
        let told = loop {
            match self.told.recv().await {
                Some(told @ (Tell::Message { .. } | Tell::Reply { .. })) => self.hear(told),
                told => break told,
            }
        };
        match told {
            Some(Tell::Decision { approved: true, data, .. }) => {
                self.sim.world().check_told_yes(self.task, at, question, data.as_ref());
                Next::Step
            }
            Some(Tell::Decision { approved: false, .. }) if question == DENIED => {
                self.sim.world().met(Met::PolicyDenied);
                Next::Step
            }
            Some(_) | None => {
                // It waits for its end.
                std::future::pending().await
            }
        }
    }
}

impl World {
    /// A child's cost is its parent's, too.
    fn count_cost(&mut self, task: usize, usd: f64) {
        let mut counted = Some(task);
        while let Some(task) = counted {
            self.tasks[task].cost_said += usd;
            counted = self.tasks[task].plan.parent;
        }
    }

    /// Whether agents run for an instance, in processes that have had time to notice that they should not.
    pub(crate) fn agents_of(&self, instance: &str) -> Vec<usize> {
        let runs = |agent: &Agent| agent.alive && agent.instance.as_deref() == Some(instance) && self.is_aware(agent.process);
        (0..self.agents.len()).filter(|number| runs(&self.agents[*number])).collect()
    }

    /// Whether it is time, with leave, in a sandbox that is free.
    fn judge_agent_start(&self, process: usize, task: usize) -> Result<(), String> {
        let it = &self.tasks[task];
        let settings = &self.scenario.settings;
        let doc = it.doc.as_ref().ok_or("there is no document")?;
        if doc.state != State::Running || doc.claim.is_none() {
            return Err(format!("it is {:?}, with {:?}", doc.state, doc.claim));
        }
        if it.plan.request.require_approval && it.asked.first().is_none_or(|asked| asked.decision != Some(true)) {
            return Err("nobody has approved it".to_owned());
        }
        let early = it.plan.request.not_before.is_some_and(|due| due > wall(self.now + S));
        if early && self.scenario.rates.clock_jump == 0 {
            return Err("it is too early".to_owned());
        }
        let name = |task: usize| self.tasks[task].plan.request.agent.clone().unwrap_or_else(|| settings.default_agent.clone());
        let mine = name(task);
        let running = self.agents.iter().filter(|agent| agent.alive && agent.process == process && name(agent.task) == mine).count();
        if settings.agents.get(&mine).is_none_or(|limits| running >= limits.max as usize) {
            return Err(format!("{running} agents run already"));
        }
        Ok(())
    }

    /// What runs is what was approved, as it was edited.
    fn check_input(&mut self, task: usize, text: &str) {
        let it = &self.tasks[task];
        let first = it.asked.first().filter(|_| it.plan.request.require_approval);
        let edit = first.and_then(|asked| asked.edit.clone());
        let expected = match edit {
            Some(digest) => [1, 2].map(|n| edit_of(n, true)).into_iter().find(|edit| json_sha256(edit) == digest),
            None => None,
        };
        let expected = expected.map_or_else(|| it.plan.request.task.clone(), |edit| edit["task"].as_str().unwrap_or_default().to_owned());
        if text != expected {
            let id = it.plan.id;
            self.violate(|| format!("an agent starts on {id} with {text:?}, and approved was {expected:?}"));
        }
    }

    fn check_agent_start(&mut self, process: usize, task: usize) {
        let id = self.tasks[task].plan.id;
        if !self.is_aware(process) {
            self.met(Met::ZombieAgent);
            return;
        }
        if let Err(wrong) = self.judge_agent_start(process, task) {
            self.violate(|| format!("an agent starts on {id} at p{process}: {wrong}"));
        }
        let owner = self.tasks[task].doc.as_ref().and_then(|doc| doc.owner.clone());
        let owns = owner.as_ref().and_then(|owner| self.leases.get(owner)).is_some_and(|lease| lease.process == process);
        if !owns {
            self.violate(|| format!("an agent starts on {id} at p{process}, which does not own it: {owner:?} does"));
        }
        // One whose task was parked may outlive that write by as long as its answer takes.
        let beside = self.agents.iter().any(|agent| agent.alive && !agent.parked && agent.task == task && self.is_aware(agent.process));
        if beside {
            self.violate(|| format!("a second agent starts on {id} beside the first"));
        }
    }
}
