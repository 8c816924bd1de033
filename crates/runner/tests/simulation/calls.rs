//! Calls on their way: each is issued, takes effect, and is answered, in this order or not, or some of it never.

use std::task::{Poll, Waker};

use fte_runner::ports::{Document, Guard, Message, PortError, Save, Saved};
use jiff::Timestamp;

use crate::coverage::Met;
use crate::scenario::{EVENT_BYTES_MAX, MS, Micros, S};
use crate::world::{Happening, World};

/// What is asked of the world.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    Get(String),
    GetMany(Vec<String>),
    Save(Save),
    Send(Vec<Message>),
    Schedule(String, Timestamp),
    Delete(String),
}

/// Whom it is asked of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Store,
    Outlet,
    Jobs,
}

impl Request {
    fn target(&self) -> Target {
        match self {
            Self::Get(_) | Self::GetMany(_) | Self::Save(_) => Target::Store,
            Self::Send(_) => Target::Outlet,
            Self::Schedule(..) | Self::Delete(_) => Target::Jobs,
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::Get(key) => format!("get {key}"),
            Self::GetMany(keys) => format!("get {}", keys.join(" ")),
            Self::Save(save) => format!("save {} if {:?}: {}", save.key, save.guard, String::from_utf8_lossy(&save.value)),
            Self::Send(messages) => format!("send {} events", messages.len()),
            Self::Schedule(name, due) => format!("schedule {name} at {due}"),
            Self::Delete(name) => format!("delete {name}"),
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Document(Option<Document>),
    Documents(Vec<Option<Document>>),
    Saved(Saved),
    Done,
}

pub(crate) struct Call {
    pub(crate) process: usize,
    request: Option<Request>,
    effect: Option<Answer>,
    /// Its answer is an error, whatever its effect.
    fails: bool,
    /// That error says that it will never be otherwise.
    refused: bool,
    effects_left: usize,
    reply: Option<Result<Answer, PortError>>,
    waker: Option<Waker>,
}

impl World {
    fn latency(&mut self) -> Micros {
        if self.calm {
            return self.rng.between(MS / 5, 3 * MS);
        }
        let slow = self.scenario.rates.slow;
        if self.rng.chance(slow) {
            let most = *self.rng.pick(&[500 * MS, 5 * S, 30 * S]);
            return self.rng.below(most);
        }
        let most = self.scenario.latency_max;
        self.rng.between(MS / 5, most)
    }

    /// Sends a call on its way; what becomes of it is drawn here.
    pub(crate) fn issue(&mut self, process: usize, request: Request, waker: Waker) -> usize {
        let call = self.calls.len();
        self.tell(|| format!("p{process} #{call} {}", request.shown()));
        let (there, back) = (self.latency(), self.latency());
        let out = self.is_out(request.target(), process);
        let rates = &self.scenario.rates;
        let (fail, lose, late) = if self.calm { (0, 0, 0) } else { (rates.fail, rates.lose_answer, rates.late_effect) };
        let refused = matches!(&request, Request::Save(save) if self.is_refused(save));
        if let Request::Send(messages) = &request
            && let Some(too_long) = messages.iter().find(|message| message.body.len() > EVENT_BYTES_MAX)
        {
            self.violate(|| format!("an event of {} bytes is sent, which no broker takes", too_long.body.len()));
        }
        let parts = if matches!(&request, Request::GetMany(keys) if keys.len() > 1) { 2 } else { 1 };
        let mut fails = true;
        let mut effects_left = parts;
        if refused {
            self.met(Met::Refused);
            effects_left = 0;
            self.after(there + back, Happening::Answer(call));
        } else if out || self.rng.chance(fail) {
            self.met(Met::FailedCall);
            effects_left = 0;
            let patience = *self.rng.pick(&[0, 0, 5 * S]);
            self.after(there + patience, Happening::Answer(call));
        } else if self.rng.chance(late) {
            self.met(Met::LateWrite);
            self.after(there, Happening::Answer(call));
            let most = *self.rng.pick(&[100 * MS, 3 * S, 20 * S, 60 * S]);
            for part in 0..parts {
                let later = self.rng.below(most);
                self.after(there + later, Happening::Effect(call, part));
            }
        } else {
            fails = self.rng.chance(lose);
            if fails {
                self.met(Met::LostAnswer);
            }
            let mut last = there;
            for part in 0..parts {
                let at = if part == 0 { there } else { self.latency() };
                last = last.max(at);
                self.after(at, Happening::Effect(call, part));
            }
            let patience = if fails { *self.rng.pick(&[0, 0, 5 * S]) } else { 0 };
            self.after(last + back + patience, Happening::Answer(call));
        }
        self.calls.push(Call {
            process,
            request: Some(request),
            effect: None,
            fails,
            refused,
            effects_left,
            reply: None,
            waker: Some(waker),
        });
        call
    }

    pub(crate) fn reply(&mut self, call: usize, waker: &Waker) -> Poll<Result<Answer, PortError>> {
        let it = &mut self.calls[call];
        match it.reply.take() {
            Some(reply) => Poll::Ready(reply),
            None => {
                it.waker = Some(waker.clone());
                Poll::Pending
            }
        }
    }

    /// Nobody waits for it any more: it may not even have been sent.
    pub(crate) fn abandon(&mut self, call: usize, gone: u64) {
        self.calls[call].waker = None;
        if self.calls[call].reply.is_none() && self.rng.chance(gone) {
            self.calls[call].request = None;
        }
    }

    pub(crate) fn take_effect(&mut self, call: usize, part: usize) {
        let it = &mut self.calls[call];
        let process = it.process;
        let Some(request) = it.request.take() else { return };
        it.effects_left = it.effects_left.saturating_sub(1);
        let done = it.effects_left == 0 && it.waker.is_none();
        let answer = match &request {
            Request::Get(key) => Answer::Document(self.store.get_sabotaged(key, self.sabotage)),
            Request::GetMany(keys) => {
                let mut documents = match self.calls[call].effect.take() {
                    Some(Answer::Documents(documents)) => documents,
                    _ => vec![None; keys.len()],
                };
                for (n, key) in keys.iter().enumerate() {
                    if keys.len() == 1 || n % 2 == part {
                        documents[n] = self.store.get_sabotaged(key, self.sabotage);
                    }
                }
                Answer::Documents(documents)
            }
            Request::Save(save) => Answer::Saved(self.save(process, save)),
            Request::Send(messages) => {
                self.publish_all(process, messages, self.calls[call].fails);
                Answer::Done
            }
            Request::Schedule(name, due) => {
                self.schedule(name, *due);
                Answer::Done
            }
            Request::Delete(name) if self.jobs.is_firing(name) => {
                // It waits for the handler, and its caller's patience ends.
                self.met(Met::EndedWhileFiring);
                self.calls[call].fails = true;
                Answer::Done
            }
            Request::Delete(name) => {
                if self.jobs.delete(name) {
                    self.met(Met::FiredTimerEnded);
                }
                Answer::Done
            }
        };
        self.tell(|| match &answer {
            Answer::Saved(saved) => format!("p{process} #{call} takes effect: {saved:?}"),
            _ => format!("p{process} #{call} takes effect"),
        });
        let it = &mut self.calls[call];
        it.effect = Some(answer);
        if !done {
            it.request = Some(request);
        }
    }

    pub(crate) fn answer(&mut self, call: usize) {
        let process = self.calls[call].process;
        if !self.processes[process].alive {
            return;
        }
        let reply = if self.calls[call].refused {
            Err(PortError { refused: true, ..failed("a write", "it is too large") })
        } else if self.calls[call].fails {
            self.read_back(call)
        } else {
            // A call whose caller went away may have been dropped before it was sent.
            self.calls[call].effect.take().ok_or_else(|| failed("a call", "it was never sent"))
        };
        if let Err(error) = &reply {
            self.tell(|| format!("p{process} #{call} {error}"));
        }
        let it = &mut self.calls[call];
        it.reply = Some(reply);
        if it.effects_left == 0 {
            it.request = None;
        }
        if let Some(waker) = it.waker.take() {
            waker.wake();
        }
    }

    /// What the adapter of the state store makes of a failed write: it reads back what became of it, if it can.
    fn read_back(&mut self, call: usize) -> Result<Answer, PortError> {
        let unknown = Err(failed("a call", "the answer was lost"));
        let Some(Request::Save(save)) = self.calls[call].request.clone() else { return unknown };
        if self.is_out(Target::Store, self.calls[call].process) || !self.rng.chance(self.scenario.reads_back) {
            return unknown;
        }
        self.met(Met::ReadBack);
        let found = self.store.get(&save.key);
        let saved = match (&save.guard, &found) {
            (_, Some(found)) if found.value == save.value => Saved::Written,
            (Guard::Absent, None) => return unknown,
            (Guard::Unchanged(etag), Some(found)) if found.etag == *etag => return unknown,
            _ => Saved::Conflict,
        };
        self.tell(|| format!("#{call} read back: {saved:?}"));
        Ok(Answer::Saved(saved))
    }

    /// The process is dead: what it sent may still arrive.
    pub(crate) fn orphan_calls(&mut self, process: usize) {
        for call in 0..self.calls.len() {
            if self.calls[call].process == process {
                self.abandon(call, 500_000);
            }
        }
    }
}

pub(crate) fn failed(what: &'static str, reason: &str) -> PortError {
    PortError::new(what, reason)
}
