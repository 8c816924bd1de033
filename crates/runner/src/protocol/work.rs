//! Works one try at a task: the agent in its sandbox, what it says, what it is told.
//!
//! Reports are gathered and written at most every `report_every`. An agent that has open hand-offs and says nothing for a while is taken to wait for
//! them, since it does not say so itself, and its task is parked.

mod handoffs;
mod letters;
mod questions;

use std::sync::Arc;

use fte_events::{ClaimId, ReleaseReason, ResultKind, TaskError};
use jiff::Timestamp;

use self::handoffs::Handoffs;
use self::questions::Question;
use super::admission::budget_end;
use super::admission::rejection;
use super::drive::{Drive, Lost};
use super::gathered::Gathered;
use crate::document::{End, OUTBOX_MAX, Report, TaskDoc};
use crate::ports::{Pending, Said, Session, Start, StartError, Tell};

/// Nothing more is read from an agent while so many bytes of its events are still to go out.
const UNSENT_BYTES_MAX: usize = 1024 * 1024;

/// Room in a session's ear that a message or a reply needs: its own, and that of a decision and a cancel, which do not wait.
const TELL_ROOM: usize = 3;

/// What woke the loop.
enum Woken {
    Said(Option<Said>),
    Poked,
    ReportDue,
    StayOver,
    TimedOut,
    Sent,
    /// There is room to tell the agent of a reply, or there never will be.
    Told(bool),
    /// There is room to tell the agent this message, or there never will be.
    Room(String, bool),
}

/// One try, while its agent lives.
struct Try {
    session: Session,
    gathered: Gathered,
    report_due: Option<Pending<()>>,
    /// The agent waits for an answer.
    asking: bool,
    /// The answers that it was given, by their questions' ordinals.
    given: Vec<u32>,
    /// The messages that it was told.
    read: Vec<String>,
    /// It listens no more, or has said its last word.
    over: bool,
    handoffs: Handoffs,
    stay: Option<Pending<()>>,
    timeout: Pending<()>,
    attempt: u32,
}

/// What came of starting an agent.
enum Begun {
    Started(Session),
    Failed(StartError),
    /// Not within the time for the whole try.
    Late,
    Over(End),
}

/// Works until the try is over in the document: ended, parked, or queued for another try.
pub(super) async fn work(drive: &mut Drive) -> Result<(), Lost> {
    let attempt = drive.doc.attempt;
    let world = Arc::clone(&drive.instance.ports.world);
    let limits = drive.instance.settings.agents.get(&drive.doc.agent);
    let mut timeout = world.sleep(limits.map_or(std::time::Duration::from_secs(900), |limits| limits.timeout));
    let session = match start(drive, &mut timeout).await? {
        Begun::Started(session) => session,
        Begun::Failed(error) => {
            drive.slot = None;
            let error = TaskError { retryable: error.retryable, ..TaskError::new("agent_start_failed", error.to_string()) };
            return failed(drive, attempt, error, |doc, now| doc.claim_failed(now, ReleaseReason::Failed)).await;
        }
        Begun::Late => {
            drive.slot = None;
            let late = drive.update(|doc, now| {
                doc.claim_failed(now, ReleaseReason::TimedOut);
                doc.end(now, timed_out());
                true
            });
            return late.await.map(drop);
        }
        Begun::Over(end) => {
            drive.slot = None;
            return drive.end(end).await;
        }
    };
    let gathered = Gathered::default();
    let mut this = Try {
        session,
        gathered,
        report_due: None,
        asking: false,
        given: Vec::new(),
        read: Vec::new(),
        over: false,
        handoffs: Handoffs::default(),
        stay: None,
        timeout,
        attempt,
    };
    let outcome = this.go(drive).await;
    // The agent is gone before its sandbox is given to another task.
    drop(this);
    drive.slot = None;
    outcome
}

async fn start(drive: &mut Drive, timeout: &mut Pending<()>) -> Result<Begun, Lost> {
    let doc = &drive.doc;
    let request = doc.request.as_ref();
    let start = Start {
        task_id: doc.task_id,
        attempt: doc.attempt,
        claim_id: doc.claim.as_ref().map_or_else(|| ClaimId::of(doc.task_id, doc.turn, doc.attempt), |claim| claim.claim_id),
        task: request.map(|request| request.task.clone()).unwrap_or_default(),
        context: request.map(|request| request.context.clone()).unwrap_or_default(),
        checkpoint: doc.checkpoint.clone(),
        handed_off: doc.parent.clone(),
    };
    let mut starting = drive.instance.ports.agents.start(&drive.doc.agent, start);
    loop {
        tokio::select! {
            biased;
            session = &mut starting => return Ok(session.map_or_else(Begun::Failed, Begun::Started)),
            () = drive.pump.step() => {}
            () = drive.news.next() => {
                drive.reload().await?;
                if let Some(end) = drive.not_to_start() {
                    return Ok(Begun::Over(end));
                }
            }
            () = &mut *timeout => return Ok(Begun::Late),
        }
    }
}

fn timed_out() -> End {
    End::error(ResultKind::TimedOut, "agent_timeout", "the agent took longer than its time limit")
}

impl Try {
    async fn go(&mut self, drive: &mut Drive) -> Result<(), Lost> {
        // What it says at once goes out together with its start, unless it has to hear something first.
        if self.next_letter(drive).is_none()
            && let Ok(said) = self.session.said.try_recv()
            && self.hear(drive, said).await?
        {
            return Ok(());
        }
        self.rest(drive);
        loop {
            let woken = self.next(drive).await;
            match woken {
                Woken::Sent => {}
                Woken::Room(id, has_room) => {
                    self.tell_letter(drive, id, has_room).await?;
                    self.rest(drive);
                }
                Woken::Told(has_room) => {
                    // One that has gone is heard of by its silence.
                    if let Some(tell) = self.handoffs.pop().filter(|_| has_room) {
                        drop(self.session.tell.try_send(tell));
                    }
                    self.rest(drive);
                }
                Woken::Said(Some(said)) => {
                    if self.hear(drive, said).await? {
                        return Ok(());
                    }
                    self.rest(drive);
                }
                Woken::Said(None) => {
                    let error = TaskError { retryable: true, ..TaskError::new("agent_crashed", "the agent ended without a result") };
                    return self.failed(drive, error).await;
                }
                Woken::ReportDue => {
                    self.report_due = None;
                    self.write_report(drive).await?;
                }
                Woken::Poked => {
                    drive.reload().await?;
                    if let Some(end) = drive.called_off() {
                        self.tell_over();
                        return self.end(drive, end).await;
                    }
                    if self.stop_over_budget(drive).await? || self.answer(drive).await? {
                        return Ok(());
                    }
                    self.tell_replies(drive).await?;
                    if self.stay.is_none() {
                        self.rest(drive);
                    }
                }
                Woken::StayOver => {
                    self.stay = None;
                    if self.park(drive).await? {
                        return Ok(());
                    }
                    if let Some(end) = drive.called_off() {
                        self.tell_over();
                        return self.end(drive, end).await;
                    }
                    if self.answer(drive).await? {
                        return Ok(());
                    }
                    self.tell_replies(drive).await?;
                    self.rest(drive);
                }
                Woken::TimedOut => {
                    self.tell_over();
                    return self.end(drive, timed_out()).await;
                }
            }
        }
    }

    /// The task is over for the agent too. One that runs elsewhere does not end with its session: this is how it hears of it.
    fn tell_over(&self) {
        drop(self.session.tell.try_send(Tell::Cancel));
    }

    /// What it waits for besides a person is replies, as far as anybody can tell: the stay begins anew whenever it was heard or told something.
    fn rest(&mut self, drive: &Drive) {
        if self.asking {
            // It was not parked because something had come that it is told first: later, then.
            let stay = || drive.instance.ports.world.sleep(drive.instance.settings.approval_stay);
            self.stay.get_or_insert_with(stay);
        } else {
            let waits = self.handoffs.waits() && !self.handoffs.has_untold() && self.next_letter(drive).is_none();
            self.stay = waits.then(|| drive.instance.ports.world.sleep(drive.instance.settings.handoff_stay));
        }
    }

    async fn next(&mut self, drive: &mut Drive) -> Woken {
        // A full outbox or report slows the agent down: nothing is read from it until events are out, or the report is written.
        let can_send = drive.pump.unsent() < OUTBOX_MAX && drive.pump.unsent_bytes() < UNSENT_BYTES_MAX;
        let listens = can_send && !self.gathered.is_full() && !self.handoffs.is_full();
        let letter = self.next_letter(drive);
        let tell = self.session.tell.clone();
        let room = async { tell.reserve_many(TELL_ROOM).await.is_ok() };
        tokio::select! {
            biased;
            () = drive.pump.step() => Woken::Sent,
            () = drive.news.next() => Woken::Poked,
            has_room = async { tell.reserve_many(TELL_ROOM).await.is_ok() }, if self.handoffs.has_untold() => Woken::Told(has_room),
            has_room = room, if letter.is_some() => Woken::Room(letter.unwrap_or_default(), has_room),
            said = self.session.said.recv(), if listens => Woken::Said(said),
            () = due(&mut self.report_due) => Woken::ReportDue,
            () = due(&mut self.stay) => Woken::StayOver,
            () = &mut self.timeout => Woken::TimedOut,
        }
    }

    /// Takes in what the agent said; true when the try is over.
    async fn hear(&mut self, drive: &mut Drive, said: Said) -> Result<bool, Lost> {
        match said {
            Said::Stage(stage) => self.gathered.stage(stage),
            Said::Progress { pct, message } => self.gathered.progress(pct, message),
            Said::Log(line) => self.gathered.log(line),
            Said::Action { action, data } => self.gathered.action(action, data),
            Said::ByPolicy { allowed, action, data } => self.gathered.by_policy(allowed, action, data),
            Said::Checkpoint(data) => self.gathered.checkpoint(data, self.given.clone()),
            Said::Heard(messages) => self.gathered.heard(messages),
            Said::Artifact(artifact) => self.gathered.artifact(*artifact),
            Said::Cost(usd) => {
                self.gathered.spend(usd);
                if self.stop_over_budget(drive).await? {
                    return Ok(true);
                }
            }
            Said::Tokens(tokens) => {
                self.gathered.tokens(tokens);
                if self.stop_over_budget(drive).await? {
                    return Ok(true);
                }
            }
            Said::Handoff(asked) => {
                if self.hand_off(drive, *asked).await? {
                    return Ok(true);
                }
            }
            Said::Approval { action, reason, data } => return self.ask(drive, Question { action, reason, data }).await,
            Said::Result(result) => {
                let end = End { kind: ResultKind::Completed, result: Some(result), error: None };
                return self.end(drive, end).await.map(|()| true);
            }
            Said::Error { code, message, retryable } => {
                let error = TaskError { retryable, ..TaskError::new(code, message) };
                return self.failed(drive, error).await.map(|()| true);
            }
        }
        if self.report_due.is_none() && self.gathered.is_news() {
            let world = &drive.instance.ports.world;
            self.report_due = Some(world.sleep(drive.instance.settings.report_every));
        }
        Ok(false)
    }

    /// Ends a task that costs more than it may; whether it does.
    async fn stop_over_budget(&mut self, drive: &mut Drive) -> Result<bool, Lost> {
        let most = drive.instance.settings.agents.get(&drive.doc.agent).map(|limits| limits.budget).unwrap_or_default();
        let (usd, tokens) = self.gathered.cost();
        let Some(why) = drive.doc.over_budget(usd, tokens, most) else { return Ok(false) };
        self.tell_over();
        self.end(drive, budget_end(why)).await.map(|()| true)
    }

    fn take_report(&mut self) -> Report {
        self.report_due = None;
        self.gathered.take(self.asking)
    }

    async fn write_report(&mut self, drive: &mut Drive) -> Result<(), Lost> {
        if !self.gathered.is_news() {
            return Ok(());
        }
        let report = self.take_report();
        drive
            .update(|doc, now| {
                doc.report(now, report.clone());
                true
            })
            .await
            .map(drop)
    }

    async fn failed(&mut self, drive: &mut Drive, error: TaskError) -> Result<(), Lost> {
        let report = self.take_report();
        failed(drive, self.attempt, error, |doc, now| doc.report(now, report.clone())).await
    }

    async fn end(&mut self, drive: &mut Drive, end: End) -> Result<(), Lost> {
        let report = self.take_report();
        drive
            .update(|doc, now| {
                doc.report(now, report.clone());
                // Whoever said no was told that it counts.
                let is_the_agents = matches!(end.kind, ResultKind::Completed | ResultKind::Failed);
                let no = if is_the_agents { rejection(doc) } else { None };
                doc.end(now, no.unwrap_or_else(|| end.clone()));
                true
            })
            .await
            .map(drop)
    }
}

/// The try failed: another one follows, or the task ends. `before` says what comes before that.
async fn failed(drive: &mut Drive, attempt: u32, error: TaskError, before: impl Fn(&mut TaskDoc, Timestamp)) -> Result<(), Lost> {
    let attempts_max = drive.instance.settings.agents.get(&drive.doc.agent).map_or(1, |limits| limits.attempts_max);
    let again = error.retryable && attempt < attempts_max;
    drive
        .update(|doc, now| {
            if doc.attempt != attempt {
                return false;
            }
            before(doc, now);
            if let Some(no) = rejection(doc) {
                doc.end(now, no);
            } else if again {
                doc.retry(now, error.clone());
            } else {
                doc.end(now, End { kind: ResultKind::Failed, result: None, error: Some(error.clone()) });
            }
            true
        })
        .await
        .map(drop)
}

async fn due(timer: &mut Option<Pending<()>>) {
    match timer {
        Some(timer) => timer.await,
        None => std::future::pending().await,
    }
}
