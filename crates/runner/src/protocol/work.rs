//! Works one try at a task: the agent in its sandbox, what it says, what it is told.
//!
//! Reports are gathered and written at most every `report_every`. A question is written before the agent waits for its answer; after a short
//! stay the task is parked, never with an unread decision in the document. So it is with hand-offs: an agent that has open ones and says nothing for
//! that long is taken to wait for them, since it does not say so itself.

mod handoffs;

use std::sync::Arc;

use fte_events::{ClaimId, ResultKind, TaskError};

use self::handoffs::Handoffs;
use super::admission::{budget_end, rejected_end};
use super::drive::{Drive, Lost, called_off};
use super::gathered::Gathered;
use super::timers::{self, Timer};
use crate::document::{self, End, OUTBOX_MAX, Report, question};
use crate::ports::{Pending, Said, Session, Start, StartError, Tell};

/// Nothing more is read from an agent while so many bytes of its events are still to go out.
const UNSENT_BYTES_MAX: usize = 1024 * 1024;

/// What woke the loop.
enum Woken {
    Said(Option<Said>),
    Poked,
    ReportDue,
    StayOver,
    TimedOut,
    Sent,
    Told,
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
    handoffs: Handoffs,
    stay: Option<Pending<()>>,
    timeout: Pending<()>,
    attempt: u32,
}

/// What came of starting an agent.
enum Begun {
    Started(Session),
    Failed(StartError),
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
            return failed(drive, Report::default(), attempt, error).await;
        }
        Begun::Over(end) => {
            drive.slot = None;
            return drive.end(end).await;
        }
    };
    let gathered = Gathered::default();
    let handoffs = Handoffs::default();
    let mut this = Try { session, gathered, report_due: None, asking: false, given: Vec::new(), handoffs, stay: None, timeout, attempt };
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
                if let Some(end) = drive.called_off() {
                    return Ok(Begun::Over(end));
                }
            }
            () = &mut *timeout => return Ok(Begun::Over(timed_out())),
        }
    }
}

fn timed_out() -> End {
    End::error(ResultKind::TimedOut, "agent_timeout", "the agent took longer than its time limit")
}

impl Try {
    async fn go(&mut self, drive: &mut Drive) -> Result<(), Lost> {
        // What it says at once goes out together with its start.
        if let Ok(said) = self.session.said.try_recv()
            && self.hear(drive, said).await?
        {
            return Ok(());
        }
        self.rest(drive);
        loop {
            let woken = self.next(drive).await;
            match woken {
                Woken::Sent => {}
                Woken::Told => self.rest(drive),
                Woken::Said(Some(said)) => {
                    if self.hear(drive, said).await? {
                        return Ok(());
                    }
                    self.rest(drive);
                }
                Woken::Said(None) => {
                    let error = TaskError { retryable: true, ..TaskError::new("agent_crashed", "the agent ended without a result") };
                    return failed(drive, self.take_report(), self.attempt, error).await;
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
                    if self.answer(drive).await? {
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
        if !self.asking {
            let waits = self.handoffs.waits() && !self.handoffs.has_untold();
            self.stay = waits.then(|| drive.instance.ports.world.sleep(drive.instance.settings.handoff_stay));
        }
    }

    async fn next(&mut self, drive: &mut Drive) -> Woken {
        // A full outbox or report slows the agent down: nothing is read from it until events are out, or the report is written.
        let has_room = drive.pump.unsent() < OUTBOX_MAX && drive.pump.unsent_bytes() < UNSENT_BYTES_MAX;
        let listens = has_room && !self.gathered.is_full() && !self.handoffs.is_full();
        tokio::select! {
            biased;
            () = drive.pump.step() => Woken::Sent,
            () = drive.news.next() => Woken::Poked,
            permit = self.session.tell.reserve(), if self.handoffs.has_untold() => {
                // One that has gone is heard of by its silence.
                if let (Ok(permit), Some(tell)) = (permit, self.handoffs.pop()) {
                    permit.send(tell);
                }
                Woken::Told
            }
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
            Said::Checkpoint(data) => self.gathered.checkpoint(data, self.given.clone()),
            Said::Artifact(artifact) => self.gathered.artifact(*artifact),
            Said::Cost(usd) => {
                self.gathered.cost(usd);
                if let Some(budget) = drive.doc.over_budget(self.gathered.cost_usd()) {
                    self.tell_over();
                    return self.end(drive, budget_end(budget)).await.map(|()| true);
                }
            }
            Said::Handoff(asked) => {
                if self.hand_off(drive, *asked).await? {
                    return Ok(true);
                }
            }
            Said::Approval { reason, data } => return self.ask(drive, reason, data).await,
            Said::Result(result) => {
                let end = End { kind: ResultKind::Completed, result: Some(result), error: None };
                return self.end(drive, end).await.map(|()| true);
            }
            Said::Error { code, message, retryable } => {
                let error = TaskError { retryable, ..TaskError::new(code, message) };
                return failed(drive, self.take_report(), self.attempt, error).await.map(|()| true);
            }
        }
        if self.report_due.is_none() && self.gathered.is_news() {
            let world = &drive.instance.ports.world;
            self.report_due = Some(world.sleep(drive.instance.settings.report_every));
        }
        Ok(false)
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

    async fn end(&mut self, drive: &mut Drive, end: End) -> Result<(), Lost> {
        let report = self.take_report();
        drive
            .update(|doc, now| {
                doc.report(now, report.clone());
                doc.end(now, end.clone());
                true
            })
            .await
            .map(drop)
    }

    /// The agent asks a person; true when the try is over.
    async fn ask(&mut self, drive: &mut Drive, reason: Option<String>, data: Option<serde_json::Value>) -> Result<bool, Lost> {
        // Somebody may have decided since the last look.
        drive.reload().await?;
        if self.answer(drive).await? {
            return Ok(true);
        }
        let question = question(reason.as_deref(), data.as_ref());
        let answered = drive.doc.answers.iter().find(|answer| answer.question == question && !self.given.contains(&answer.ordinal));
        if let Some(answer) = answered.cloned() {
            // It was started again, and asks again what was answered before.
            self.tell_yes(drive, answer.ordinal, answer.reason).await?;
            return Ok(false);
        }
        if drive.doc.open_question().is_some_and(|open| question == document::question(open.reason.as_deref(), open.data.as_ref())) {
            self.repeat_question(drive).await?;
        } else {
            if self.write_question(drive, reason, data).await? {
                return Ok(true);
            }
        }
        self.asking = true;
        self.stay = Some(drive.instance.ports.world.sleep(drive.instance.settings.approval_stay));
        self.answer(drive).await
    }

    /// Writes the question down, its timers first; true when the try ended meanwhile.
    async fn write_question(&mut self, drive: &mut Drive, reason: Option<String>, data: Option<serde_json::Value>) -> Result<bool, Lost> {
        let ttl = drive.instance.settings.approval_ttl;
        let due = drive.instance.ports.world.now() + ttl;
        let timer = Timer::approval(drive.doc.task_id, drive.doc.next_approval());
        let made = tokio::select! {
            biased;
            made = drive.make_timers(timer, due) => made?,
            () = &mut self.timeout => Err(timed_out()),
        };
        let made = match made {
            Ok(made) => made,
            Err(end) => return self.end(drive, end).await.map(|()| true),
        };
        let report = self.take_report();
        let mut past = Vec::new();
        drive
            .update(|doc, now| {
                doc.report(now, report.clone());
                doc.ask(now, reason.clone(), data.clone(), now + ttl);
                past = doc.timers.extract_if(.., |timer| Timer::is_approval(timer)).collect();
                doc.timers.extend(made.iter().cloned());
                true
            })
            .await?;
        let instance = Arc::clone(&drive.instance);
        drive.instance.spawn(async move { timers::end(&instance, &past).await });
        Ok(false)
    }

    async fn repeat_question(&mut self, drive: &mut Drive) -> Result<(), Lost> {
        let report = self.take_report();
        drive
            .update(|doc, now| {
                doc.report(now, report.clone());
                if doc.open_question().is_some() {
                    doc.ask_again(now);
                }
                true
            })
            .await
            .map(drop)
    }

    /// Acts on a decision if there is one; true when the try is over. A no ends it whether or not the agent waits for it; a yes that it does
    /// not wait for is there when it asks.
    async fn answer(&mut self, drive: &mut Drive) -> Result<bool, Lost> {
        let Some(approval) = &drive.doc.approval else { return Ok(false) };
        let Some(decision) = approval.decision.clone() else { return Ok(false) };
        if !decision.approved {
            drop(self.session.tell.try_send(Tell::Decision { approved: false, reason: decision.reason.clone() }));
            return self.end(drive, rejected_end(decision.reason.as_deref(), &decision.approver)).await.map(|()| true);
        }
        if self.asking {
            let ordinal = approval.ordinal;
            self.tell_yes(drive, ordinal, decision.reason).await?;
        }
        Ok(false)
    }

    async fn tell_yes(&mut self, drive: &mut Drive, ordinal: u32, reason: Option<String>) -> Result<(), Lost> {
        drive
            .update(|doc, now| {
                let untold = doc.approval.as_ref().is_some_and(|approval| approval.ordinal == ordinal && !approval.told);
                if untold {
                    doc.told(now);
                }
                untold
            })
            .await?;
        self.asking = false;
        self.stay = None;
        self.given.push(ordinal);
        // A full channel means an agent that does not read; its time limit ends it.
        drop(self.session.tell.try_send(Tell::Decision { approved: true, reason }));
        Ok(())
    }

    /// Gives up the sandbox while a person decides, or others work; false when an answer or an end is there after all.
    async fn park(&mut self, drive: &mut Drive) -> Result<bool, Lost> {
        let report = self.take_report();
        let mut parked = false;
        drive
            .update(|doc, now| {
                doc.report(now, report.clone());
                let waits = if self.asking { doc.open_question().is_some() } else { self.handoffs.waits() };
                parked = waits && !self.handoffs.has_news(doc) && called_off(doc, now).is_none();
                if parked {
                    doc.park(now);
                }
                parked || report.is_news()
            })
            .await?;
        Ok(parked)
    }
}

/// The try failed: another one follows, or the task ends.
async fn failed(drive: &mut Drive, report: Report, attempt: u32, error: TaskError) -> Result<(), Lost> {
    let attempts_max = drive.instance.settings.agents.get(&drive.doc.agent).map_or(1, |limits| limits.attempts_max);
    let again = error.retryable && attempt < attempts_max;
    drive
        .update(|doc, now| {
            if doc.attempt != attempt {
                return false;
            }
            doc.report(now, report.clone());
            if again {
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
