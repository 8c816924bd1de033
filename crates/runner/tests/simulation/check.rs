//! What must be true of every write, at once.

mod end;

pub(crate) use end::Said;

use std::collections::{BTreeMap, BTreeSet};

use fte_events::{ClaimId, TaskId, json_sha256};
use fte_runner::document::State;
use fte_runner::ports::Save;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::broker::Envelope;
use crate::coverage::Met;
use crate::scenario::{ALLOWED_ACTION, Plan, S, wall};
use crate::world::World;

/// A task document, as far as the checks look.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Doc {
    pub(crate) state: State,
    turn: u32,
    pub(crate) owner: Option<String>,
    attempt: u32,
    sequence: u64,
    pub(crate) claim: Option<Claim>,
    approval: Option<Approval>,
    cancel_requested: Option<String>,
    #[serde(default)]
    handoffs: Vec<Handoff>,
    answer: Option<serde_json::Value>,
    #[serde(default)]
    messages: Vec<Named>,
    #[serde(default)]
    accepted: Vec<Named>,
    out: u64,
    #[serde(default)]
    outbox: Vec<OutEvent>,
    #[serde(default)]
    erased: bool,
    #[serde(default)]
    request: Option<Box<RawValue>>,
    #[serde(default)]
    checkpoint: Option<Box<RawValue>>,
}

impl Doc {
    /// Whether nothing is left to forget.
    pub(crate) fn is_stripped(&self) -> bool {
        self.erased && self.outbox.is_empty() && self.request.is_none() && self.checkpoint.is_none() && self.approval.is_none()
    }
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct Claim {
    claim_id: ClaimId,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Approval {
    ordinal: u32,
    action: Option<String>,
    reason: Option<String>,
    expires_at: Timestamp,
    #[serde(default)]
    approve_on_expiry: bool,
    decision: Option<Decision>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Decision {
    approved: bool,
    #[serde(default)]
    by_policy: bool,
    edit_sha256: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Named {
    id: String,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Handoff {
    ordinal: u32,
    question: String,
    reply: Option<serde_json::Value>,
}

#[derive(Clone, Debug, Deserialize)]
struct OutEvent {
    n: u64,
    body: Box<RawValue>,
}

impl OutEvent {
    fn id(&self) -> String {
        serde_json::from_str::<Envelope<'_>>(self.body.get()).map(|envelope| envelope.id.to_owned()).unwrap_or_default()
    }
}

/// A question that was asked, as the documents had it.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    ordinal: u32,
    reason: Option<String>,
    pub(crate) decision: Option<bool>,
    /// The digest of what the decider made of it.
    pub(crate) edit: Option<String>,
    /// Nobody answered it in time, and that counts as a yes.
    pub(crate) expired: bool,
}

/// What somebody said.
pub(crate) struct Answered {
    /// To which question, if they named one.
    pub(crate) question: Option<u32>,
    pub(crate) approved: bool,
    pub(crate) edit: Option<String>,
}

/// What is known of a task.
pub(crate) struct TaskState {
    pub(crate) plan: Plan,
    pub(crate) doc: Option<Doc>,
    pub(crate) asked: Vec<Asked>,
    pub(crate) answered: Vec<Answered>,
    /// Messages whose senders were told that they are accepted.
    pub(crate) confirmed: Vec<String>,
    /// Messages that some checkpoint includes, as an agent says.
    pub(crate) in_checkpoint: Vec<String>,
    pub(crate) submitted: bool,
    pub(crate) cancel_tried: bool,
    /// An erasure of it was confirmed.
    pub(crate) erased: bool,
    pub(crate) meddled: bool,
    pub(crate) agent_failures: u32,
    /// Claims whose agents did not start.
    pub(crate) failed_claims: BTreeSet<String>,
    pub(crate) cost_said: f64,
    /// Its document was refused by the store.
    pub(crate) refused: bool,
    /// When its document said so first.
    pub(crate) ended_at: Option<u64>,
    /// Nobody waits for it any more.
    pub(crate) withdrawn: bool,
    /// What people answered that it was handed to.
    pub(crate) replied: Vec<bool>,
    /// Its children whose replies were in its document.
    pub(crate) answered_children: Vec<TaskId>,
    /// A person's answer was in its document.
    pub(crate) was_answered: bool,
    /// What its agents were told of its children.
    pub(crate) told: BTreeMap<TaskId, fte_events::ResultKind>,
}

impl TaskState {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self {
            plan: plan.clone(),
            doc: None,
            asked: Vec::new(),
            answered: Vec::new(),
            confirmed: Vec::new(),
            in_checkpoint: Vec::new(),
            submitted: false,
            cancel_tried: false,
            erased: false,
            meddled: false,
            agent_failures: 0,
            failed_claims: BTreeSet::new(),
            cost_said: 0.0,
            refused: false,
            ended_at: None,
            withdrawn: false,
            replied: Vec::new(),
            answered_children: Vec::new(),
            was_answered: false,
            told: BTreeMap::new(),
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.doc.as_ref().is_some_and(|doc| matches!(doc.state, State::Ended(_)))
    }

    pub(crate) fn was_decided(&self, approved: bool) -> bool {
        self.asked.iter().any(|asked| asked.decision == Some(approved))
    }

    /// How many children it may have: one for each time that its script asks for one.
    fn children_max(&self) -> usize {
        self.plan.script.iter().filter(|step| matches!(step, crate::scenario::Step::HandOff(to) if *to != "nobody")).count()
    }

    pub(crate) fn was_decided_so(&self, approved: bool, edit: Option<&str>) -> bool {
        self.asked.iter().any(|asked| asked.decision == Some(approved) && asked.edit.as_deref() == edit)
    }

    pub(crate) fn has_accepted(&self, id: &str) -> bool {
        self.doc.as_ref().is_some_and(|doc| doc.accepted.iter().any(|accepted| accepted.id == id))
    }

    /// A confirmed cancel is in the document.
    pub(crate) fn cancel_is_kept(&self) -> bool {
        self.has_ended() || self.doc.as_ref().is_some_and(|doc| doc.cancel_requested.is_some())
    }
}

/// An instance's document.
#[derive(Clone, Debug, Deserialize)]
struct LeaseDoc {
    instance: String,
    fenced_by: Option<String>,
    entries: Vec<TaskId>,
}

/// A key's document.
#[derive(Clone, Debug, Deserialize)]
struct LockDoc {
    task_id: TaskId,
}

/// What is known of an instance.
pub(crate) struct Lease {
    pub(crate) process: usize,
    pub(crate) entries: Vec<TaskId>,
    pub(crate) fenced: bool,
    /// Its takeover is complete: it left the list.
    struck: bool,
}

#[derive(Deserialize)]
struct List {
    instances: Vec<String>,
}

impl World {
    /// Whether the store has no room for the document of this write, and never will.
    pub(crate) fn is_refused(&mut self, save: &Save) -> bool {
        let Some(task) = save.key.strip_prefix("task/").and_then(|id| self.task_named(id)) else { return false };
        let it = &mut self.tasks[task];
        let Some(events_max) = it.plan.events_max else { return false };
        let refused =
            serde_json::from_slice::<Doc>(&save.value).is_ok_and(|doc| doc.out > events_max && !matches!(doc.state, State::Ended(_)));
        it.refused |= refused;
        refused
    }

    pub(crate) fn task_named(&self, id: &str) -> Option<usize> {
        let id: TaskId = id.parse().ok()?;
        self.task_of(id)
    }

    fn task_of(&self, id: TaskId) -> Option<usize> {
        self.tasks.iter().position(|task| task.plan.id == id)
    }

    /// Puts a write that has just taken effect to its checks.
    pub(crate) fn check_write(&mut self, process: usize, key: &str, value: &[u8]) {
        let checked = if let Some(id) = key.strip_prefix("task/") {
            serde_json::from_slice(value).map(|doc| self.check_task(process, id, doc))
        } else if key.starts_with("lock/") {
            serde_json::from_slice(value).map(|lock| self.check_lock(process, key, &lock))
        } else if key.starts_with("runner/") {
            serde_json::from_slice(value).map(|lease| self.check_lease(process, lease))
        } else {
            serde_json::from_slice(value).map(|list| self.check_list(&list))
        };
        if let Err(error) = checked {
            self.violate(|| format!("{key} cannot be read: {error}"));
        }
    }

    fn check_task(&mut self, process: usize, id: &str, doc: Doc) {
        let Some(task) = self.task_named(id) else {
            self.violate(|| format!("a document of task {id}, which nobody asked for"));
            return;
        };
        let before = self.tasks[task].doc.take();
        self.meddle(task);
        if let Err(wrong) = self.judge_move(process, before.as_ref(), &doc) {
            self.violate(|| format!("task {id}, written by p{process}: {wrong}"));
        }
        if let Err(wrong) = self.judge_owner(task, id, &doc) {
            self.violate(|| format!("task {id}, written by p{process}: {wrong}"));
        }
        // By whatever clock: they differ by little, unless they jump.
        let now = (self.scenario.rates.clock_jump == 0).then(|| wall(self.now + S));
        if let Some(made) = doc.approval.as_ref().and_then(|approval| approval.decision.as_ref()).filter(|made| made.by_policy) {
            let before = before.as_ref().and_then(|before| before.approval.as_ref()).filter(|before| before.decision.is_none());
            let expired = before.is_some() && made.approved;
            self.met(if expired { Met::ExpiryApproved } else { Met::PolicyAllowed });
        }
        if let Err(wrong) = self.judge_letters(task, before.as_ref(), &doc) {
            self.violate(|| format!("task {id}, written by p{process}: {wrong}"));
        }
        let it = &mut self.tasks[task];
        if let Err(wrong) = judge_questions(&mut it.asked, &it.answered, &doc, now) {
            self.violate(|| format!("task {id}, written by p{process}: {wrong}"));
        }
        if doc.state == State::Running
            && let Some(other) = self.runs_with_key_of(task)
        {
            let other = self.tasks[other].plan.id;
            self.violate(|| format!("task {id}, written by p{process}, runs beside {other}, which has the same key"));
        }
        if let Err(wrong) = self.judge_handoffs(task, before.as_ref(), &doc) {
            self.violate(|| format!("task {id}, written by p{process}: {wrong}"));
        }
        if doc.turn >= 1 {
            self.met(Met::SecondTurn);
        }
        self.tasks[task].was_answered |= doc.answer.is_some();
        if doc.answer.is_none() && !doc.erased && before.as_ref().is_some_and(|before| before.answer.is_some()) {
            self.violate(|| format!("task {id}, written by p{process}: a person's answer was forgotten"));
        }
        let parks = matches!(doc.state, State::ParkedForApproval | State::ParkedForReply);
        if parks && before.as_ref().is_some_and(|before| before.state == State::Running) {
            for agent in self.agents.iter_mut().filter(|agent| agent.alive && agent.task == task && agent.process == process) {
                agent.parked = true;
            }
        }
        if matches!(doc.state, State::Ended(_)) {
            self.tasks[task].ended_at.get_or_insert(self.now);
        }
        self.tasks[task].doc = Some(doc);
    }

    /// A hand-off is made once, in order, and answered once; who is parked for an answer waits for one.
    fn judge_handoffs(&mut self, task: usize, before: Option<&Doc>, doc: &Doc) -> Result<(), String> {
        let is_person = self.tasks[task].plan.request.agent.as_deref() == Some(crate::handoffs::HUMAN);
        if doc.state == State::ParkedForReply {
            self.met(Met::ParkedForReply);
            if !is_person && doc.handoffs.iter().all(|handoff| handoff.reply.is_some()) {
                return Err("it is parked without an open hand-off".to_owned());
            }
        }
        if matches!(doc.state, State::Ended(_)) {
            return Ok(());
        }
        if doc.handoffs.len() > self.tasks[task].children_max() {
            return Err(format!("it has {} children, and asked for {}", doc.handoffs.len(), self.tasks[task].children_max()));
        }
        let blank = Vec::new();
        let before_them = before.map_or(&blank, |before| &before.handoffs);
        for (n, handoff) in doc.handoffs.iter().enumerate() {
            if handoff.reply.is_some() {
                let child = TaskId::of_handoff(self.tasks[task].plan.id, handoff.ordinal);
                self.tasks[task].answered_children.push(child);
            }
            if handoff.ordinal as usize != n + 1 || doc.handoffs[..n].iter().any(|other| other.question == handoff.question) {
                return Err(format!("hand-off {} is there twice, or out of order", handoff.ordinal));
            }
            match before_them.get(n) {
                Some(known) if known.question != handoff.question => {
                    return Err(format!("hand-off {} is another one now", handoff.ordinal));
                }
                Some(known) if known.reply.is_some() && known.reply != handoff.reply => {
                    return Err(format!("the reply to hand-off {} changed", handoff.ordinal));
                }
                Some(known) if known.reply.is_none() && handoff.reply.is_some() => match (&doc.owner, before.map(|before| before.state)) {
                    (Some(_), _) => self.met(Met::NotedReply),
                    (None, Some(State::Queued)) => self.met(Met::ReplyToQueued),
                    // Taken over before its time, by a clock that went back: its timer wakes it.
                    (None, Some(State::ParkedForTime)) if doc.state == State::ParkedForTime => {}
                    (None, _) if doc.state == State::Queued => self.met(Met::WokenByReply),
                    (None, _) => return Err("it has a reply, and stays parked".to_owned()),
                },
                _ => {}
            }
        }
        if before_them.len() > doc.handoffs.len() {
            return Err("a hand-off was forgotten".to_owned());
        }
        Ok(())
    }

    /// Whether a child's reply, or the end of its time, was in its parent's document.
    pub(crate) fn reply_was_taken(&self, parent: usize, child: TaskId) -> bool {
        self.tasks[parent].answered_children.contains(&child)
    }

    /// The agent of a task, and the key that it shares with others of it, if any.
    fn key_of(&self, task: usize) -> Option<(&str, String)> {
        let (settings, request) = (&self.scenario.settings, &self.tasks[task].plan.request);
        let agent = request.agent.as_deref().unwrap_or(&settings.default_agent);
        let path = settings.agents.get(agent)?.concurrency_key.as_ref()?;
        Some((agent, path.value(request)?))
    }

    /// Another task with the same key, according to whose document it runs.
    fn runs_with_key_of(&self, task: usize) -> Option<usize> {
        let key = self.key_of(task)?;
        let runs = |other: &usize| self.tasks[*other].doc.as_ref().is_some_and(|doc| doc.state == State::Running);
        (0..self.tasks.len()).filter(|other| *other != task).filter(runs).find(|other| self.key_of(*other).as_ref() == Some(&key))
    }

    fn check_lock(&mut self, process: usize, key: &str, lock: &LockDoc) {
        let Some((before, by)) = self.keys.insert(key.to_owned(), (lock.task_id, process)) else { return };
        if before == lock.task_id {
            return;
        }
        self.met(Met::KeyPassedOn);
        if by != process {
            self.met(Met::KeyPassedAcross);
        }
    }

    fn judge_move(&mut self, process: usize, before: Option<&Doc>, doc: &Doc) -> Result<(), String> {
        let blank;
        let before = match before {
            Some(before) => before,
            None => {
                blank = Doc {
                    state: State::Queued,
                    turn: 0,
                    owner: None,
                    attempt: 1,
                    sequence: 0,
                    claim: None,
                    approval: None,
                    cancel_requested: None,
                    handoffs: Vec::new(),
                    answer: None,
                    messages: Vec::new(),
                    accepted: Vec::new(),
                    out: 0,
                    outbox: Vec::new(),
                    erased: false,
                    request: None,
                    checkpoint: None,
                };
                &blank
            }
        };
        self.judge_outbox(before, doc)?;
        if matches!(before.state, State::Ended(_)) && (doc.state != before.state || doc.out != before.out || doc.owner.is_some()) {
            return Err(format!("an ended document was changed, from {before:?} to {doc:?}"));
        }
        if doc.turn < before.turn || doc.turn > before.turn + 1 || doc.attempt < before.attempt || doc.attempt > before.attempt + 1 {
            return Err(format!("turn {} try {} after turn {} try {}", doc.turn, doc.attempt, before.turn, before.attempt));
        }
        let at = |instance: &String| self.leases.get(instance).map(|lease| lease.process);
        let fenced = |instance: &String| self.leases.get(instance).is_some_and(|lease| lease.fenced);
        match (&before.owner, &doc.owner) {
            (None, None) => {}
            (None, Some(new)) if at(new) == Some(process) => {}
            (Some(old), None) if at(old) == Some(process) => {}
            (Some(old), None) if fenced(old) => self.met(Met::TakenOver),
            (Some(old), Some(new)) if old == new && at(old) == Some(process) => {}
            (Some(old), Some(new)) if old == new => {
                let same = doc.state == before.state
                    && doc.turn == before.turn
                    && doc.attempt == before.attempt
                    && doc.sequence == before.sequence
                    && doc.claim == before.claim;
                if !same {
                    return Err(format!("a note to owner {old} changed more than it may"));
                }
                self.met(Met::NoteToOwner);
            }
            (old, new) => return Err(format!("the owner changed from {old:?} to {new:?}")),
        }
        match (before.state, doc.state) {
            (State::Running | State::Queued, State::ParkedForApproval) => self.met(Met::Park),
            (State::ParkedForApproval | State::ParkedForReply | State::ParkedForTime, State::Queued) => self.met(Met::Wake),
            _ => {}
        }
        Ok(())
    }

    /// Nothing leaves an outbox unsent, and nothing in it changes.
    fn judge_outbox(&mut self, before: &Doc, doc: &Doc) -> Result<(), String> {
        if doc.out < before.out || doc.sequence < before.sequence {
            return Err(format!("{} events after {}, sequence {} after {}", doc.out, before.out, doc.sequence, before.sequence));
        }
        let mut next = BTreeMap::new();
        for event in &doc.outbox {
            next.insert(event.n, event);
        }
        if let Some(n) = (before.out + 1..=doc.out).find(|n| !next.contains_key(n)) {
            return Err(format!("event {n} was never in an outbox"));
        }
        for event in &before.outbox {
            match next.get(&event.n) {
                Some(kept) if kept.body.get() == event.body.get() => {}
                Some(_) => return Err(format!("event {} in the outbox was changed", event.n)),
                None if self.broker.published.contains_key(&event.id()) => {}
                None => return Err(format!("event {} left the outbox without having been published: {}", event.n, event.body)),
            }
        }
        for event in doc.outbox.iter().filter(|event| event.n > before.out) {
            if !self.broker.durable.insert(event.id()) {
                return Err(format!("event {} has the id of another one: {}", event.n, event.body));
            }
        }
        Ok(())
    }

    /// What was accepted stays, until an agent has kept it or the task has ended.
    fn judge_letters(&mut self, task: usize, before: Option<&Doc>, doc: &Doc) -> Result<(), String> {
        let Some(before) = before else { return Ok(()) };
        // Of a task that was erased nothing is left.
        if matches!(doc.state, State::Ended(_)) {
            return Ok(());
        }
        let has = |named: &[Named], id: &str| named.iter().any(|named| named.id == id);
        if let Some(forgotten) = before.accepted.iter().find(|named| !has(&doc.accepted, &named.id)) {
            return Err(format!("{} was accepted and is forgotten", forgotten.id));
        }
        let gone: Vec<String> =
            before.messages.iter().filter(|named| !has(&doc.messages, &named.id)).map(|named| named.id.clone()).collect();
        if let Some(lost) = gone.iter().find(|id| !self.tasks[task].in_checkpoint.contains(id)) {
            return Err(format!("{lost} is gone, and no checkpoint includes it"));
        }
        if !gone.is_empty() {
            self.met(Met::LetterKept);
        }
        if before.owner.is_none() && doc.owner.is_none() && doc.messages.len() > before.messages.len() {
            self.met(Met::LetterToResting);
        }
        Ok(())
    }

    /// Who owns a task can be found with it.
    fn judge_owner(&self, task: usize, id: &str, doc: &Doc) -> Result<(), String> {
        if doc.state == State::ParkedForApproval && doc.approval.as_ref().is_none_or(|approval| approval.decision.is_some()) {
            return Err("it is parked without an open question".to_owned());
        }
        let Some(owner) = &doc.owner else { return Ok(()) };
        let Some(lease) = self.leases.get(owner) else { return Err(format!("owner {owner} has no lease")) };
        if doc.turn == 0 && self.broker.awaits_trigger(task) {
            return Ok(());
        }
        if lease.struck {
            return Err(format!("owner {owner} has been taken over already"));
        }
        if !lease.entries.iter().any(|entry| entry.to_string() == id) {
            return Err(format!("it is not in the index of its owner {owner}"));
        }
        Ok(())
    }

    /// A trigger was acknowledged: its task can be found without it.
    pub(crate) fn check_acknowledged(&mut self, task: usize) {
        let id = self.tasks[task].plan.id;
        let Some(doc) = &self.tasks[task].doc else {
            self.violate(|| format!("the trigger of task {id} was acknowledged, and there is no document"));
            return;
        };
        if let Some(owner) = doc.owner.clone() {
            let listed = self.leases.get(&owner).is_some_and(|lease| !lease.struck && lease.entries.contains(&id));
            if !listed {
                self.violate(|| format!("the trigger of task {id} was acknowledged, and its owner {owner} does not list it"));
            }
        } else if doc.outbox.iter().any(|event| !self.broker.published.contains_key(&event.id())) && !self.is_reachable(task) {
            self.violate(|| format!("the trigger of task {id} was acknowledged, and nobody is responsible for what it has to say"));
        }
    }

    fn check_lease(&mut self, process: usize, lease: LeaseDoc) {
        let fenced = lease.fenced_by.is_some();
        let instance = lease.instance;
        let Some(before) = self.leases.get(&instance) else {
            self.leases.insert(instance, Lease { process, entries: lease.entries, fenced, struck: false });
            return;
        };
        let (owner, was_fenced, struck) = (before.process, before.fenced, before.struck);
        let gone: Vec<TaskId> = before.entries.iter().filter(|entry| !lease.entries.contains(entry)).copied().collect();
        if was_fenced {
            if !fenced || lease.entries != before.entries {
                self.violate(|| format!("instance {instance} was changed after it was fenced"));
            }
            return;
        }
        if !fenced && owner != process {
            self.violate(|| format!("p{process} wrote the lease of p{owner}"));
        }
        if fenced && !was_fenced {
            self.met(if owner == process { Met::FencedItself } else { Met::Fenced });
            let agents = self.agents_of(&instance);
            if !agents.is_empty() {
                self.violate(|| format!("instance {instance} was fenced while its agents {agents:?} run"));
            }
        }
        self.leases.insert(instance.clone(), Lease { process: owner, entries: lease.entries, fenced, struck });
        for id in gone {
            self.check_let_go(&instance, id);
        }
    }

    /// An entry left an index: its task is not owned there, and has nothing unsent that nobody else is responsible for.
    fn check_let_go(&mut self, instance: &str, id: TaskId) {
        let Some(task) = self.task_of(id) else { return };
        let Some(doc) = &self.tasks[task].doc else { return };
        if doc.owner.as_deref() == Some(instance) {
            self.violate(|| format!("task {id} left the index of its owner {instance}"));
            return;
        }
        let unsent: Vec<String> = doc.outbox.iter().map(OutEvent::id).filter(|id| !self.broker.published.contains_key(id)).collect();
        if !unsent.is_empty() && !self.is_reachable(task) {
            self.violate(|| format!("events {unsent:?} of task {id} are unsent, and nobody is responsible for them"));
        }
    }

    fn is_reachable(&self, task: usize) -> bool {
        let id = self.tasks[task].plan.id;
        // Its delivery finds an owner that never listed it.
        let owned_at_first = self.tasks[task].doc.as_ref().is_some_and(|doc| doc.turn == 0 && doc.owner.is_some());
        if owned_at_first && self.broker.awaits_trigger(task) {
            return true;
        }
        self.leases.values().any(|lease| !lease.struck && lease.entries.contains(&id))
    }

    fn check_list(&mut self, list: &List) {
        // One whose first entry on the list was slow may come back, fenced and empty, until a peer looks again.
        let struck: Vec<String> = self
            .leases
            .iter()
            .filter(|(id, lease)| !lease.struck && lease.fenced && !list.instances.contains(id))
            .map(|(id, _)| id.clone())
            .collect();
        for instance in struck {
            self.check_given_up(&instance);
        }
    }

    /// What was written goes by itself after a time, however long everybody is away: a dead instance's document only when nothing hangs on it.
    pub(crate) fn check_expiring(&mut self, value: &[u8]) {
        if let Ok(LeaseDoc { instance, fenced_by: Some(_), .. }) = serde_json::from_slice(value) {
            self.check_given_up(&instance);
        }
    }

    /// Nobody looks after a dead instance's tasks any more.
    fn check_given_up(&mut self, instance: &str) {
        let Some(lease) = self.leases.get_mut(instance) else { return };
        lease.struck = true;
        let entries = lease.entries.clone();
        let owns = |task: &usize| self.tasks[*task].doc.as_ref().is_some_and(|doc| doc.owner.as_deref() == Some(instance));
        let owned = (0..self.tasks.len()).filter(owns).find(|task| !self.broker.awaits_trigger(*task));
        if let Some(id) = owned.map(|task| self.tasks[task].plan.id) {
            self.violate(|| format!("instance {instance} was given up and still owns task {id}"));
        }
        for id in entries {
            self.check_let_go(instance, id);
        }
    }

    /// An agent was told yes: so often was that question answered yes as the agent has asked it, counting neither its repetitions after a restart
    /// nor the answers to them.
    pub(crate) fn check_told_yes(&mut self, task: usize, at: usize, question: u8, data: Option<&Value>) {
        let it = &self.tasks[task];
        let reason = format!("question-{question}");
        let reason = reason.as_str();
        let edit = data.map(json_sha256);
        if !it.asked.iter().any(|asked| asked.reason.as_deref() == Some(reason) && asked.decision == Some(true) && asked.edit == edit) {
            let id = it.plan.id;
            self.violate(|| format!("the agent of {id} was told yes to {reason}, with {edit:?}, and nobody has said so"));
            return;
        }
        let asks = it.plan.script[..=at].iter().filter(|step| step.asks() == Some(question)).count();
        let yes = it.asked.iter().filter(|asked| asked.reason.as_deref() == Some(reason) && asked.decision == Some(true)).count();
        if yes < asks {
            let id = it.plan.id;
            self.violate(|| format!("the agent of {id} was told yes to its {asks}. asking of {reason}, and somebody said so {yes} times"));
        }
    }
}

/// A question is answered once, by what somebody said to it and not to another; and a no is the end, whatever the agent does meanwhile.
fn judge_questions(asked: &mut Vec<Asked>, answered: &[Answered], doc: &Doc, now: Option<Timestamp>) -> Result<(), String> {
    let Some(approval) = &doc.approval else {
        return if asked.is_empty() || doc.is_stripped() { Ok(()) } else { Err("a question was forgotten".to_owned()) };
    };
    let decision = approval.decision.as_ref().map(|decision| decision.approved);
    let edit = approval.decision.as_ref().and_then(|decision| decision.edit_sha256.clone());
    let said = |made: &Decision| {
        answered.iter().any(|said| {
            let named = said.question.is_none_or(|named| named == approval.ordinal);
            named && said.approved == made.approved && said.edit == made.edit_sha256
        })
    };
    let by_policy = || {
        let allowed = approval.action.as_deref() == Some(ALLOWED_ACTION);
        allowed || (approval.approve_on_expiry && now.is_none_or(|now| approval.expires_at <= now))
    };
    let rightly = |made: &Decision| if made.by_policy { made.approved && by_policy() } else { said(made) };
    if approval.decision.as_ref().is_some_and(|made| !rightly(made)) {
        return Err(format!("question {} was decided {:?}, and nobody has said that to it", approval.ordinal, approval.decision));
    }
    if decision == Some(false) && doc.state == State::Ended(fte_events::ResultKind::Completed) {
        return Err(format!("the task is completed, and question {} was answered with a no", approval.ordinal));
    }
    let expired = approval.decision.as_ref().is_some_and(|made| made.by_policy) && approval.action.as_deref() != Some(ALLOWED_ACTION);
    match asked.last_mut() {
        Some(last) if last.ordinal == approval.ordinal => {
            if last.decision.is_some() && (last.decision != decision || last.edit != edit) {
                return Err(format!("the decision on question {} changed from {:?} to {decision:?}", last.ordinal, last.decision));
            }
            last.decision = decision;
            last.edit = edit;
            last.expired = expired;
        }
        last => {
            let ordinal = last.as_ref().map_or(0, |last| last.ordinal);
            if approval.ordinal != ordinal + 1 {
                return Err(format!("question {} after {ordinal}", approval.ordinal));
            }
            if last.is_some_and(|last| last.decision == Some(false)) {
                return Err("something is asked after a no".to_owned());
            }
            asked.push(Asked { ordinal: approval.ordinal, reason: approval.reason.clone(), decision, edit, expired });
        }
    }
    Ok(())
}
