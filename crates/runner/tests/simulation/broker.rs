//! The broker: what was published, and the deliveries of triggers, at least once: again after a `Retry`, after the death of the process that had it,
//! and sometimes for no reason, late, and at the same time.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use fte_runner::ports::Message;
use fte_runner::protocol::{Admitted, Incoming};
use serde::Deserialize;

use crate::coverage::Met;
use crate::handoffs::Cargo;
use crate::scenario::{MS, S, Sabotage};
use crate::world::{Happening, Sim, World};

const TRIGGERS: &str = "fte.triggers.inbound";

pub(crate) struct Published {
    pub(crate) task: usize,
    pub(crate) topic: String,
    pub(crate) body: Bytes,
    pub(crate) copies: u32,
}

pub(crate) struct Delivery {
    pub(crate) task: usize,
    pub(crate) cargo: Cargo,
    pub(crate) done: bool,
    attempts: u32,
    /// Attempts that have not ended, and the processes that make them.
    pub(crate) in_flight: BTreeMap<u32, usize>,
    /// How often it may still come again for no reason.
    repeats: u32,
}

#[derive(Default)]
pub(crate) struct Broker {
    /// By event id, in the order of their first publication.
    pub(crate) published: BTreeMap<String, Published>,
    pub(crate) order: Vec<String>,
    /// Ids of events that a durable document has had in its outbox.
    pub(crate) durable: BTreeSet<String>,
    pub(crate) deliveries: Vec<Delivery>,
}

impl Broker {
    /// Whether the task's trigger is still to be acknowledged.
    pub(crate) fn awaits_trigger(&self, task: usize) -> bool {
        self.deliveries.iter().any(|delivery| delivery.task == task && delivery.cargo.turn() == Some(0) && !delivery.done)
    }
}

#[derive(Deserialize)]
pub(crate) struct Envelope<'a> {
    pub(crate) id: &'a str,
    #[serde(rename = "type")]
    pub(crate) event_type: &'a str,
    pub(crate) subject: &'a str,
}

#[derive(Deserialize)]
struct Resumption {
    data: ResumptionData,
}

#[derive(Deserialize)]
struct ResumptionData {
    turn: u32,
}

impl World {
    /// Publishes the events of a send; of one that fails, perhaps not all.
    pub(crate) fn publish_all(&mut self, process: usize, messages: &[Message], fails: bool) {
        let forgets = self.sabotage == Some(Sabotage::ForgetEvents);
        for message in messages {
            if (fails && self.rng.chance(300_000)) || (forgets && self.rng.chance(20_000)) {
                continue;
            }
            self.publish(process, message);
        }
    }

    fn publish(&mut self, process: usize, message: &Message) {
        let Ok(envelope) = serde_json::from_slice::<Envelope<'_>>(&message.body) else {
            self.violate(|| "an event is no CloudEvent".to_owned());
            return;
        };
        let id = envelope.id.to_owned();
        if !self.broker.published.contains_key(&id) {
            self.carry(message);
        }
        let Some(task) = self.task_named(envelope.subject) else {
            self.violate(|| format!("event {id} is about no task"));
            return;
        };
        self.tell(|| format!("p{process} publishes {}: {}", message.topic, String::from_utf8_lossy(&message.body)));
        if !self.broker.durable.contains(&id) {
            self.violate(|| format!("event {id} ({}) was published without having been durable in a document", envelope.event_type));
        }
        if message.key.as_deref() != Some(envelope.subject) {
            self.violate(|| format!("event {id} is not keyed by its task"));
        }
        match self.broker.published.get_mut(&id) {
            Some(before) => {
                before.copies += 1;
                let same = before.body == message.body && *before.topic == *message.topic;
                self.met(Met::RepeatedEvent);
                if !same {
                    self.violate(|| format!("event {id} ({}) was published with two contents", envelope.event_type));
                }
            }
            None => {
                let published = Published { task, topic: message.topic.as_ref().to_owned(), body: message.body.clone(), copies: 1 };
                self.broker.published.insert(id.clone(), published);
                self.broker.order.push(id.clone());
                self.people_react(task, envelope.event_type, &message.body);
            }
        }
        if &*message.topic == TRIGGERS {
            match serde_json::from_slice::<Resumption>(&message.body) {
                Ok(Resumption { data }) => {
                    let task_id = self.tasks[task].plan.id;
                    let incoming = Incoming {
                        task_id,
                        turn: data.turn,
                        request: None,
                        parent: None,
                        refusal: None,
                        tenant: "default".to_owned(),
                        event_id: id,
                        traceparent: None,
                    };
                    self.accept(task, Cargo::Run(incoming));
                }
                Err(error) => self.violate(|| format!("a resumption without a turn: {error}")),
            }
        }
    }

    /// Takes a trigger in, to be delivered.
    pub(crate) fn accept(&mut self, task: usize, cargo: Cargo) {
        self.broker.deliveries.push(Delivery { task, cargo, done: false, attempts: 0, in_flight: BTreeMap::new(), repeats: 2 });
        let delivery = self.broker.deliveries.len() - 1;
        let soon = self.rng.below(5 * MS);
        self.after(soon, Happening::Deliver(delivery));
        self.perhaps_again(delivery);
    }

    fn perhaps_again(&mut self, delivery: usize) {
        if self.broker.deliveries[delivery].repeats > 0 && !self.calm && self.rng.chance(self.scenario.rates.duplicate) {
            self.broker.deliveries[delivery].repeats -= 1;
            let most = *self.rng.pick(&[3 * MS, 500 * MS, 30 * S]);
            let later = self.rng.below(most);
            self.met(Met::DuplicateDelivery);
            self.after(later, Happening::Deliver(delivery));
        }
    }

    pub(crate) fn deliver(&mut self, sim: &Sim, delivery: usize) {
        let Some((process, runner)) = self.somebody() else {
            self.after(S, Happening::Deliver(delivery));
            return;
        };
        let it = &mut self.broker.deliveries[delivery];
        it.attempts += 1;
        let attempt = it.attempts;
        let beside = !it.in_flight.is_empty();
        it.in_flight.insert(attempt, process);
        let cargo = it.cargo.clone();
        if beside {
            self.met(Met::ConcurrentDelivery);
        }
        self.tell(|| format!("p{process} is delivered {delivery}.{attempt}: {cargo:?}"));
        let sim = sim.clone();
        let handler = self.spawn(
            process,
            Box::pin(async move {
                let outcome = cargo.deliver(&sim, &runner).await;
                sim.world().delivered(delivery, attempt, &outcome);
            }),
        );
        self.after(45 * S, Happening::Overdue(delivery, attempt));
        if !self.calm && self.rng.chance(self.scenario.rates.caller_gone) {
            let most = *self.rng.pick(&[5 * MS, 500 * MS, 10 * S]);
            let later = self.rng.below(most);
            self.after(later, Happening::CallerGone(delivery, attempt, handler));
        }
    }

    fn delivered(&mut self, delivery: usize, attempt: u32, outcome: &Admitted) {
        self.tell(|| format!("delivery {delivery}.{attempt}: {outcome:?}"));
        let it = &mut self.broker.deliveries[delivery];
        it.in_flight.remove(&attempt);
        match outcome {
            Admitted::Done => {
                it.done = true;
                let (task, turn) = (it.task, it.cargo.turn());
                if turn == Some(0) {
                    self.check_acknowledged(task);
                }
                self.perhaps_again(delivery);
            }
            Admitted::Retry(reason) => {
                match reason.as_str() {
                    "no place is free" => self.met(Met::HeldDelivery),
                    "the agent's queue is full" => self.met(Met::QueueFull),
                    _ => {}
                }
                self.met(Met::Retried);
                if self.sabotage == Some(Sabotage::DropRetries) && self.rng.chance(200_000) {
                    self.broker.deliveries[delivery].done = true;
                } else {
                    self.redeliver(delivery);
                }
            }
        }
    }

    fn redeliver(&mut self, delivery: usize) {
        if !self.broker.deliveries[delivery].done {
            let wait = self.rng.between(100 * MS, 3 * S);
            self.after(wait, Happening::Deliver(delivery));
        }
    }

    pub(crate) fn overdue(&mut self, delivery: usize, attempt: u32) {
        if self.broker.deliveries[delivery].in_flight.contains_key(&attempt) {
            self.redeliver(delivery);
        }
    }

    pub(crate) fn caller_gone(&mut self, delivery: usize, attempt: u32, handler: usize) {
        if self.broker.deliveries[delivery].in_flight.remove(&attempt).is_some() {
            self.tell(|| format!("the caller of {delivery}.{attempt} gives up"));
            self.met(Met::CallerGone);
            self.killed.push(handler);
            self.redeliver(delivery);
        }
    }

    /// A process is gone: what it had not acknowledged comes again.
    pub(crate) fn deliver_again_what_had(&mut self, process: usize) {
        for delivery in 0..self.broker.deliveries.len() {
            let in_flight = &mut self.broker.deliveries[delivery].in_flight;
            let before = in_flight.len();
            in_flight.retain(|_, had| *had != process);
            if in_flight.len() != before {
                self.redeliver(delivery);
            }
        }
    }
}
