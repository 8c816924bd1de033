//! Hand-offs: children that come to be when they are asked for, the people among them, and what must be true of what comes back.

use bytes::Bytes;
use fte_events::{HandoffRequested, HandoffWithdrawn, Origin, ResultKind, TaskId, TaskRequested, TaskResult};
use fte_runner::document::{Parent, PersonAnswer};
use fte_runner::ports::Message;
use fte_runner::protocol::{Admitted, AnswerError, Decided, Incoming, Replied, Runner};
use serde::Deserialize;
use serde_json::json;

use crate::check::TaskState;
use crate::coverage::Met;
use crate::rng::Rng;
use crate::scenario::{Answers, MS, Plan, S, expected, script, virtual_time, wall};
use crate::world::{Happening, Sim, World};

/// The people's name.
pub(crate) const HUMAN: &str = "human";

/// What is delivered to a runner.
#[derive(Clone, Debug)]
pub(crate) enum Cargo {
    /// A request to run, or a resumption.
    Run(Incoming),
    /// The result of a task.
    Reply(Box<TaskResult>),
    /// A hand-off that nobody waits for any more.
    Withdrawn(Box<HandoffWithdrawn>),
}

impl Cargo {
    /// The turn that it starts.
    pub(crate) fn turn(&self) -> Option<u32> {
        match self {
            Self::Run(incoming) => Some(incoming.turn),
            Self::Reply(_) | Self::Withdrawn(_) => None,
        }
    }

    pub(crate) async fn deliver(self, sim: &Sim, runner: &Runner) -> Admitted {
        let retry = |error: fte_runner::ports::PortError| Admitted::Retry(error.to_string());
        match self {
            Self::Run(incoming) => runner.deliver(incoming).await,
            Self::Reply(result) => match runner.replied(*result).await {
                Ok(Replied::Taken) => Admitted::Done,
                Ok(Replied::Ignored) => {
                    sim.world().met(Met::ReplyIgnored);
                    Admitted::Done
                }
                Err(error) => retry(error),
            },
            Self::Withdrawn(event) => runner.withdrawn(*event, "default".to_owned()).await.map_or_else(retry, |()| Admitted::Done),
        }
    }
}

#[derive(Deserialize)]
struct Event<T> {
    data: T,
}

fn data<T: for<'de> Deserialize<'de>>(body: &Bytes) -> Option<T> {
    serde_json::from_slice::<Event<T>>(body).ok().map(|event| event.data)
}

impl World {
    /// What becomes of an event that is published, besides being read: a child comes to be, or somebody is told.
    pub(crate) fn carry(&mut self, message: &Message) {
        if message.topic.starts_with("fte.handoffs.") {
            if let Some(handoff) = data::<HandoffRequested>(&message.body) {
                let task = self.child(handoff.task_id, handoff.parent_task_id, handoff.to_agent.as_str());
                let it = &mut self.tasks[task];
                it.submitted = true;
                it.plan.request.context.clone_from(&handoff.context);
                it.plan.request.deadline = handoff.deadline;
                it.plan.request.budget_usd = handoff.budget_usd;
                it.plan.request.budget_tokens = handoff.budget_tokens;
                let incoming = incoming(&handoff, &self.tasks[task].plan.request);
                self.accept(task, Cargo::Run(incoming));
            } else if let Some(handoff) = data::<HandoffWithdrawn>(&message.body) {
                // Of events that are sent together any may be published, and others not yet.
                let task = self.child(handoff.task_id, handoff.parent_task_id, handoff.to_agent.as_str());
                self.met(Met::Withdrawn);
                self.tasks[task].withdrawn = true;
                self.accept(task, Cargo::Withdrawn(Box::new(handoff)));
            } else {
                self.violate(|| "something else on a topic of hand-offs".to_owned());
            }
        } else if &*message.topic == "fte.results.completed"
            && let Some(result) = data::<TaskResult>(&message.body)
            && let Some(task) = self.task_named(&result.task_id.to_string())
        {
            self.accept(task, Cargo::Reply(Box::new(result)));
        }
    }

    /// A child, which comes to be when it is first heard of.
    fn child(&mut self, id: TaskId, parent: TaskId, agent: &str) -> usize {
        if let Some(known) = self.task_named(&id.to_string()) {
            return known;
        }
        self.met(Met::HandedOff);
        let parent = self.task_named(&parent.to_string());
        if parent.is_none_or(|parent| (1..=64).all(|ordinal| TaskId::of_handoff(self.tasks[parent].plan.id, ordinal) != id)) {
            self.violate(|| format!("child {id} is not derived from its parent"));
        }
        let bytes = *id.as_bytes();
        let mut rng = Rng::new(u64::from_be_bytes(bytes[8..].try_into().unwrap_or_default()));
        let mut request = TaskRequested::new(id, "a part".to_owned(), Origin::Handoff, wall(self.now));
        request.agent = Some(agent.to_owned());
        let depth = 1 + std::iter::successors(parent, |parent| self.tasks[*parent].plan.parent).skip(1).count();
        let script = if agent == HUMAN { Vec::new() } else { script(&mut rng, agent, depth) };
        let answers =
            *rng.pick(&[Answers::Approve, Answers::Approve, Answers::ApproveTwice, Answers::Disagree, Answers::Reject, Answers::Ignore]);
        let expected = match (agent, answers) {
            (HUMAN, Answers::Reject) => ResultKind::Failed,
            (HUMAN, Answers::Ignore) => ResultKind::TimedOut,
            (HUMAN, _) => ResultKind::Completed,
            _ => {
                let expires_approved = self.scenario.settings.approvals(agent).approve_on_expiry;
                expected(&script, (answers, expires_approved), false)
            }
        };
        let cancels = if rng.chance(100_000) { vec![self.now + rng.below(10 * S)] } else { Vec::new() };
        let plan = Plan {
            id,
            request,
            refusal: false,
            script,
            submitted: self.now,
            answers,
            cancels,
            stray_decisions: Vec::new(),
            letters: Vec::new(),
            expected,
            events_max: None,
            parent,
        };
        let task = self.tasks.len();
        self.tasks.push(TaskState::new(&plan));
        for at in plan.cancels {
            self.at(at, Happening::Cancel(task, 0));
        }
        task
    }

    /// Somebody was asked to do what was handed to people.
    pub(crate) fn person_is_asked(&mut self, task: usize) {
        if self.tasks[task].plan.request.agent.as_deref() != Some(HUMAN) {
            return;
        }
        let most = *self.rng.pick(&[5 * MS, S, 12 * S]);
        let later = self.rng.below(most);
        let answers: &[bool] = match self.tasks[task].plan.answers {
            Answers::Approve | Answers::Edit | Answers::EditDifferently => &[true],
            Answers::Reject => &[false],
            Answers::ApproveTwice => &[true, true],
            Answers::Disagree => &[true, false],
            Answers::Ignore => &[],
        };
        for done in answers {
            let at = later + self.rng.below(5 * MS);
            self.after(at, Happening::Reply(task, *done, 0));
        }
    }

    pub(crate) fn reply_of_person(&mut self, sim: &Sim, task: usize, done: bool, tries: u32) {
        let again = move |world: &mut Self| {
            if tries < 20 {
                world.after(S, Happening::Reply(task, done, tries + 1));
            }
        };
        let Some((process, runner)) = self.somebody() else { return again(self) };
        let id = self.tasks[task].plan.id;
        self.tell(|| format!("p{process} is told a person's answer to {id}: {done}"));
        self.tasks[task].replied.push(done);
        let sim = sim.clone();
        self.spawn(
            process,
            Box::pin(async move {
                let said = if done { Ok(json!("done")) } else { Err("no time".to_owned()) };
                let outcome = runner.answer(id, PersonAnswer::new(format!("person-{done}"), said), None).await;
                let mut world = sim.world();
                world.tell(|| format!("p{process} answer {done} to {id}: {outcome:?}"));
                match outcome {
                    Ok(Decided::Now) => {
                        world.met(Met::PersonAnswered);
                        if !world.tasks[task].was_answered {
                            world.violate(|| format!("the answer to {id} was confirmed and is in no document"));
                        }
                    }
                    Ok(Decided::Before) => world.met(Met::AnsweredAgain),
                    Err(AnswerError::Otherwise { .. } | AnswerError::NotAwaiting(_) | AnswerError::Unknown(_)) => {
                        world.met(Met::AnswerRefused)
                    }
                    Err(AnswerError::Unavailable(_)) => again(&mut world),
                }
            }),
        );
    }

    /// An agent was told what came of a hand-off: the same as ever, and what the child's end says.
    pub(crate) fn check_told_reply(&mut self, task: usize, child: Option<TaskId>, status: ResultKind, code: Option<&str>) {
        let id = self.tasks[task].plan.id;
        let Some(child) = child else {
            self.met(Met::HandoffRefused);
            if !matches!(code, Some("agent_unknown" | "handoff_cycle" | "handoffs_too_many")) {
                self.violate(|| format!("the agent of {id} was refused a hand-off: {code:?}"));
            }
            return;
        };
        self.met(Met::ReplyTold);
        let before = self.tasks[task].told.insert(child, status);
        if before.is_some_and(|before| before != status) {
            self.violate(|| format!("the agent of {id} was told {status} of {child}, and {before:?} before"));
        }
        if before.is_some() {
            self.met(Met::ReplyToldAgain);
        }
        let known = self.task_named(&child.to_string());
        if code == Some("handoff_timed_out") {
            self.met(Met::HandoffExpired);
            let it = known.map(|child| &self.tasks[child]);
            let due = it.and_then(|it| it.plan.request.deadline).map(virtual_time);
            let in_time = it.and_then(|it| it.ended_at).zip(due).is_some_and(|(ended_at, due)| ended_at + 3 * S < due);
            if in_time && !self.interfered() {
                self.violate(|| format!("the agent of {id} was told that {child} did not answer in time, and it did"));
            }
            return;
        }
        let ended = known.and_then(|child| self.tasks[child].doc.as_ref()).map(|doc| doc.state);
        if ended != Some(fte_runner::document::State::Ended(status)) {
            self.violate(|| format!("the agent of {id} was told {status} of {child}, which is {ended:?}"));
        }
    }
}

/// A hand-off as the runner's service takes it in.
fn incoming(handoff: &HandoffRequested, request: &TaskRequested) -> Incoming {
    let parent = Parent {
        task_id: handoff.parent_task_id,
        handoff_id: handoff.handoff_id,
        from: handoff.from_agent.clone(),
        ancestors: handoff.ancestors.clone(),
        depth: handoff.depth,
        reason: None,
        artifacts: Vec::new(),
    };
    Incoming {
        task_id: handoff.task_id,
        turn: 0,
        request: Some(Box::new(request.clone())),
        parent: Some(Box::new(parent)),
        refusal: None,
        tenant: "default".to_owned(),
        event_id: handoff.handoff_id.to_string(),
        traceparent: None,
    }
}
