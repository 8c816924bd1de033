//! What must be true when everything has come to rest: every accepted task has ended once, and nothing is left over.

use std::collections::{BTreeMap, BTreeSet};

use fte_events::{EventName, ResultKind, TaskId, event_id};
use fte_runner::document::State;
use serde::Deserialize;
use serde_json::Value;

use super::TaskState;
use crate::coverage::Met;
use crate::letters;
use crate::world::World;

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    event_type: String,
    data: Value,
}

/// An event of a task: each once, in the order of their first publication.
pub(crate) struct Said {
    topic: String,
    event_type: String,
    pub(crate) data: Value,
}

impl World {
    /// What is still to come to rest, if anything.
    pub(crate) fn unrest(&self) -> Option<String> {
        for task in &self.tasks {
            let id = task.plan.id;
            match &task.doc {
                None => return Some(format!("task {id} has no document")),
                Some(doc) if task.erased && matches!(doc.state, State::Ended(_)) && !doc.is_stripped() => {
                    return Some(format!("task {id} was erased, and not all of it is forgotten: {doc:?}"));
                }
                Some(doc) if !matches!(doc.state, State::Ended(_)) => {
                    return Some(format!("task {id} is {:?} at turn {}, owner {:?}", doc.state, doc.turn, doc.owner));
                }
                Some(_) => {}
            }
        }
        for (n, delivery) in self.broker.deliveries.iter().enumerate() {
            if !delivery.done || !delivery.in_flight.is_empty() {
                return Some(format!("delivery {n} of task {} is not done", self.tasks[delivery.task].plan.id));
            }
        }
        if let Some(name) = self.jobs.names().next() {
            return Some(format!("job {name} is not over"));
        }
        for number in 0..self.processes.len() {
            let process = &self.processes[number];
            let Some(runner) = process.runner.as_ref().filter(|_| process.alive) else { continue };
            if runner.free_places() != self.scenario.settings.places {
                return Some(format!("p{number} has {} free places", runner.free_places()));
            }
            if let Some(usage) = runner.usage().into_iter().find(|usage| usage.in_use > 0 || usage.queued > 0) {
                return Some(format!("p{number} has sandboxes in use: {usage:?}"));
            }
            if !runner.is_live() && !process.stopping {
                return Some(format!("p{number} is not live"));
            }
            if self.agents.iter().any(|agent| agent.alive && agent.process == number) {
                return Some(format!("p{number} still runs an agent"));
            }
        }
        for (instance, lease) in &self.leases {
            if !lease.fenced && !lease.entries.is_empty() {
                return Some(format!("the index of {instance} at p{} is not empty: {:?}", lease.process, lease.entries));
            }
            if lease.fenced && !lease.struck {
                return Some(format!("the takeover of {instance} is not complete"));
            }
        }
        None
    }

    /// Puts the whole run to its checks, once it has come to rest.
    pub(crate) fn check_end(&mut self) {
        self.check_handoffs();
        for (task, said) in self.said().into_iter().enumerate() {
            if let Err(wrong) = judge(&self.tasks[task], &said, self.interfered()) {
                let id = self.tasks[task].plan.id;
                self.violate(|| format!("task {id}: {wrong}"));
            }
            let result = said.iter().find(|said| said.event_type == "fte.result.completed");
            let by = result.and_then(|said| said.data["result"]["agent"].as_u64()).and_then(|number| usize::try_from(number).ok());
            match letters::judge(&self.tasks[task], &said, by.map(|number| &self.agents[number])) {
                Ok((told, lost)) => {
                    told.then(|| self.met(Met::LetterTold));
                    lost.then(|| self.met(Met::LetterUndelivered));
                }
                Err(wrong) => {
                    let id = self.tasks[task].plan.id;
                    self.violate(|| format!("task {id}: {wrong}"));
                }
            }
            if let Some(State::Ended(kind)) = self.tasks[task].doc.as_ref().map(|doc| doc.state) {
                self.met(match kind {
                    ResultKind::Completed => Met::Completed,
                    ResultKind::Failed => Met::Failed,
                    ResultKind::Rejected => Met::Rejected,
                    ResultKind::Cancelled => Met::Cancelled,
                    ResultKind::TimedOut => Met::TimedOut,
                    ResultKind::BudgetExceeded => Met::BudgetExceeded,
                });
            }
        }
    }

    /// A child that ended after its parent was called off, or had answered.
    fn check_handoffs(&mut self) {
        for child in 0..self.tasks.len() {
            let Some(parent) = self.tasks[child].plan.parent else { continue };
            let (id, of) = (self.tasks[child].plan.id, self.tasks[parent].plan.id);
            let result = |task: TaskId| event_id(task, EventName::Result).to_string();
            let place = |world: &Self, task: TaskId| world.broker.order.iter().position(|event| *event == result(task));
            let later = place(self, id) > place(self, of);
            let told = self.tasks[parent].told.contains_key(&id);
            if later && !told && !self.tasks[child].withdrawn && !self.reply_was_taken(parent, id) {
                self.violate(|| format!("child {id} was not called off when its parent {of} had ended"));
            }
        }
    }

    /// Whether faults have been about that may change how a task ends (its time may run out while nothing moves).
    pub(crate) fn interfered(&self) -> bool {
        let rates = &self.scenario.rates;
        [
            rates.slow,
            rates.fail,
            rates.lose_answer,
            rates.late_effect,
            rates.outage,
            rates.crash,
            rates.freeze,
            rates.stop,
            rates.clock_jump,
            rates.agent_start,
        ]
        .into_iter()
        .any(|rate| rate > 0)
    }

    fn said(&self) -> Vec<Vec<Said>> {
        let mut said: Vec<Vec<Said>> = self.tasks.iter().map(|_| Vec::new()).collect();
        for id in &self.broker.order {
            let published = &self.broker.published[id];
            let Ok(event) = serde_json::from_slice::<Event>(&published.body) else { continue };
            said[published.task].push(Said { topic: published.topic.clone(), event_type: event.event_type, data: event.data });
        }
        said
    }
}

fn judge(task: &TaskState, said: &[Said], interfered: bool) -> Result<(), String> {
    let result = judge_result(task, said)?;
    let kind = judge_status(said, result)?;
    judge_claims(task, said)?;
    judge_reports(said)?;
    judge_kind(task, kind, interfered)?;
    let attempts = result["attempt"].as_u64().unwrap_or(0);
    if attempts > u64::from(task.agent_failures) + 1 {
        return Err(format!("{attempts} tries were counted, and its agent failed {} times", task.agent_failures));
    }
    let cost = result["cost_usd"].as_f64().unwrap_or(0.0);
    if cost > task.cost_said + 1e-9 {
        return Err(format!("it is said to have cost {cost}, and its agent said {}", task.cost_said));
    }
    Ok(())
}

fn judge_result<'a>(task: &TaskState, said: &'a [Said]) -> Result<&'a Value, String> {
    let results: Vec<&Said> = said.iter().filter(|said| said.topic == "fte.results.completed").collect();
    let [result] = results.as_slice() else { return Err(format!("it has {} results", results.len())) };
    let ended = match task.doc.as_ref().map(|doc| doc.state) {
        Some(State::Ended(kind)) => kind,
        other => return Err(format!("it has a result, and its document says {other:?}")),
    };
    if result.event_type != ended.event_type() || result.data["status"].as_str() != Some(ended.status().as_str()) {
        return Err(format!("its document says {ended}, its result {}", result.event_type));
    }
    Ok(&result.data)
}

/// Statuses count up from 1 without a gap; the last one, and only that, is final.
fn judge_status(said: &[Said], result: &Value) -> Result<ResultKind, String> {
    let mut statuses = BTreeMap::new();
    for status in said.iter().filter(|said| said.event_type == "fte.status.changed") {
        let sequence = status.data["sequence"].as_u64().unwrap_or(0);
        if statuses.insert(sequence, status.data["status"].as_str().unwrap_or_default()).is_some() {
            return Err(format!("status sequence {sequence} was used twice"));
        }
    }
    if let Some((missing, _)) = (1..).zip(statuses.keys()).find(|(expected, sequence)| expected != *sequence) {
        return Err(format!("status sequence {missing} is missing, of {statuses:?}"));
    }
    let is_final = |status: &str| ResultKind::ALL.into_iter().find(|kind| kind.status().as_str() == status);
    let finals = statuses.values().filter(|status| is_final(status).is_some()).count();
    let last = statuses.values().next_back().and_then(|status| is_final(status));
    match last {
        Some(kind) if finals == 1 && result["status"].as_str() == Some(kind.status().as_str()) => Ok(kind),
        _ => Err(format!("{finals} final statuses, result {}, in {statuses:?}", result["status"])),
    }
}

/// What was said of one claim.
#[derive(Default)]
struct Claimed<'a> {
    claimed: u32,
    failed: u32,
    /// How it was given back, and why.
    ended: Vec<(&'a str, &'a str)>,
}

/// Each claim is given back once; and one whose agent did not start is said to have failed, once, unless its holder was cut off before it could.
fn judge_claims(task: &TaskState, said: &[Said]) -> Result<(), String> {
    let mut claims: BTreeMap<&str, Claimed<'_>> = BTreeMap::new();
    for change in said.iter().filter(|said| said.topic == "fte.sandbox.lifecycle") {
        let of = claims.entry(change.data["claim_id"].as_str().unwrap_or_default()).or_default();
        match change.event_type.as_str() {
            "fte.sandbox.claimed" => of.claimed += 1,
            "fte.sandbox.claim-failed" => of.failed += 1,
            kind @ ("fte.sandbox.released" | "fte.sandbox.expired") => {
                of.ended.push((kind, change.data["reason"].as_str().unwrap_or_default()))
            }
            other => return Err(format!("unexpected {other}")),
        }
    }
    for (claim, Claimed { claimed, failed, ended }) in claims {
        if (claimed, ended.len()) != (1, 1) {
            return Err(format!("claim {claim} was claimed {claimed} times and given back {} times", ended.len()));
        }
        // The end of a task whose document the store does not take any more says nothing else.
        let must = task.failed_claims.contains(claim) && ended == [("fte.sandbox.released", "failed")] && !task.refused;
        let may = task.failed_claims.contains(claim);
        if failed > u32::from(may) || failed < u32::from(must) {
            return Err(format!(
                "claim {claim} is said to have failed {failed} times, and ended by {ended:?}; a start in it failed: {may}"
            ));
        }
    }
    Ok(())
}

/// What an agent did once is reported once, to people and to the audit.
fn judge_reports(said: &[Said]) -> Result<(), String> {
    let mut actions = BTreeSet::new();
    let mut artifacts = BTreeSet::new();
    let mut digests = BTreeSet::new();
    for event in said {
        let details = &event.data["details"];
        if let Some(unique) = details["data"]["unique"].as_str()
            && !actions.insert(unique)
        {
            return Err(format!("action {unique} was reported twice"));
        }
        if let Some(name) = details["artifact"]["name"].as_str()
            && !artifacts.insert(name)
        {
            return Err(format!("artifact {name} was reported twice"));
        }
        if event.data["action"].as_str() == Some("tool.called")
            && let Some(digest) = event.data["input_sha256"].as_str()
            && !digests.insert(digest)
        {
            return Err(format!("the action with the digest {digest} was recorded twice"));
        }
    }
    if actions.len() == digests.len() {
        Ok(())
    } else {
        Err(format!("{} actions were reported, {} recorded", actions.len(), digests.len()))
    }
}

/// It ended as its script says, or as those who interfered say.
fn judge_kind(task: &TaskState, kind: ResultKind, interfered: bool) -> Result<(), String> {
    let plan = &task.plan;
    if kind == ResultKind::Completed && task.asked.iter().any(|asked| asked.decision == Some(false)) {
        return Err("it was completed after a person had said no".to_owned());
    }
    let decided_astray = (task.meddled || !plan.stray_decisions.is_empty()) && !task.asked.is_empty();
    // Where time jumps, a question may run out before somebody answers.
    let expired = interfered && task.asked.iter().any(|asked| asked.expired);
    let allowed = kind == plan.expected
        || decided_astray
        || expired
        || match kind {
            ResultKind::Cancelled => task.cancel_tried || task.withdrawn,
            ResultKind::Rejected => task.was_decided(false),
            // A try that is repeated asks again, and may find nobody who answers; it fails, or is too late.
            ResultKind::TimedOut => plan.request.deadline.is_some() || interfered,
            ResultKind::Failed => task.refused || task.replied.contains(&false) || (interfered && task.agent_failures > 0),
            // A try that is started again spends again.
            ResultKind::BudgetExceeded => plan.request.budget_usd.is_some_and(|budget| task.cost_said > budget),
            ResultKind::Completed => task.replied.contains(&true),
        };
    if allowed { Ok(()) } else { Err(format!("it ended {kind}, and should have ended {}", plan.expected)) }
}
