//! Works one try at a task: the agent in its sandbox, what it says, what it is told.
//!
//! Reports are gathered and written at most every `report_every`. A question is written before the agent waits for its answer; after a short
//! stay the task is parked, never with an unread decision in the document.

use std::sync::Arc;

use fte_events::{ResultKind, TaskError};

use super::admission::rejected_end;
use super::drive::{Drive, Lost};
use super::instance::RETRY;
use crate::document::{End, OUTBOX_MAX, Report, State, TaskDoc};
use crate::ports::{Pending, Said, Session, Start, Tell};

/// Log lines kept for one write.
const LOG_LINES_MAX: usize = 100;

/// What woke the loop.
enum Woken {
    Said(Option<Said>),
    Poked,
    ReportDue,
    StayOver,
    TimedOut,
    Sent,
}

/// One try, while its agent lives.
struct Try {
    session: Session,
    report: Report,
    report_due: Option<Pending<()>>,
    stay: Option<Pending<()>>,
    timeout: Pending<()>,
    attempt: u32,
}

/// Works until the try is over in the document: ended, parked, or queued for another try.
pub(super) async fn work(drive: &mut Drive) -> Result<(), Lost> {
    let attempt = drive.doc.attempt;
    let session = match start(drive).await {
        Ok(session) => session,
        Err(error) => {
            drive.slot = None;
            return failed(
                drive,
                Report::default(),
                attempt,
                TaskError { retryable: error.retryable, ..TaskError::new("agent_start_failed", error.to_string()) },
            )
            .await;
        }
    };
    let world = Arc::clone(&drive.instance.ports.world);
    let timeout = drive.instance.settings.agents.get(&drive.doc.agent).map_or(std::time::Duration::from_secs(900), |limits| limits.timeout);
    let mut this = Try { session, report: Report::default(), report_due: None, stay: None, timeout: world.sleep(timeout), attempt };
    let outcome = this.go(drive).await;
    // The agent is gone before its sandbox is given to another task.
    drop(this);
    drive.slot = None;
    outcome
}

async fn start(drive: &mut Drive) -> Result<Session, crate::ports::StartError> {
    let doc = &drive.doc;
    let request = doc.request.as_ref();
    let start = Start {
        task_id: doc.task_id,
        attempt: doc.attempt,
        task: request.map(|request| request.task.clone()).unwrap_or_default(),
        context: request.map(|request| request.context.clone()).unwrap_or_default(),
        checkpoint: doc.checkpoint.clone(),
    };
    let mut starting = drive.instance.ports.agents.start(&drive.doc.agent, start);
    loop {
        tokio::select! {
            biased;
            () = drive.pump.step() => {}
            session = &mut starting => return session,
        }
    }
}

/// Whether an agent with this document is to be told its decision.
fn untold_yes(doc: &TaskDoc) -> bool {
    doc.approval.as_ref().is_some_and(|approval| {
        !approval.before_start && !approval.told && approval.decision.as_ref().is_some_and(|decision| decision.approved)
    })
}

impl Try {
    async fn go(&mut self, drive: &mut Drive) -> Result<(), Lost> {
        // With a checkpoint it goes on behind its question; without one it will ask again.
        if untold_yes(&drive.doc) && drive.doc.checkpoint.is_some() {
            self.tell_yes(drive).await?;
        }
        loop {
            let woken = self.next(drive).await;
            match woken {
                Woken::Sent => {}
                Woken::Said(Some(said)) => {
                    if self.hear(drive, said).await? {
                        return Ok(());
                    }
                }
                Woken::Said(None) => {
                    let error = TaskError { retryable: true, ..TaskError::new("agent_crashed", "the agent ended without a result") };
                    return failed(drive, std::mem::take(&mut self.report), self.attempt, error).await;
                }
                Woken::ReportDue => {
                    self.report_due = None;
                    self.write_report(drive).await?;
                }
                Woken::Poked => {
                    drive.reload().await?;
                    if let Some(end) = drive.called_off() {
                        if drive.doc.cancel_requested.is_some() {
                            drop(self.session.tell.try_send(Tell::Cancel));
                        }
                        return self.end(drive, end).await;
                    }
                    if self.stay.is_some() && self.answer(drive).await? {
                        return Ok(());
                    }
                }
                Woken::StayOver => {
                    self.stay = None;
                    if self.park(drive).await? {
                        return Ok(());
                    }
                    if self.answer(drive).await? {
                        return Ok(());
                    }
                }
                Woken::TimedOut => {
                    let end = End::error(ResultKind::TimedOut, "agent_timeout", "the agent took longer than its time limit");
                    return self.end(drive, end).await;
                }
            }
        }
    }

    async fn next(&mut self, drive: &mut Drive) -> Woken {
        // A full outbox slows the agent down: nothing is read from it until events are out.
        let listens = drive.doc.outbox.len() < OUTBOX_MAX && self.report.actions.len() + self.report.artifacts.len() < OUTBOX_MAX / 2;
        tokio::select! {
            biased;
            () = drive.pump.step() => Woken::Sent,
            () = drive.poke.notified() => Woken::Poked,
            said = self.session.said.recv(), if listens => Woken::Said(said),
            () = due(&mut self.report_due) => Woken::ReportDue,
            () = due(&mut self.stay) => Woken::StayOver,
            () = &mut self.timeout => Woken::TimedOut,
        }
    }

    /// Takes in what the agent said; true when the try is over.
    async fn hear(&mut self, drive: &mut Drive, said: Said) -> Result<bool, Lost> {
        match said {
            Said::Stage(stage) => self.report.stage = Some(stage),
            Said::Progress { pct, message } => {
                self.report.progress_pct = pct.map(|pct| pct.min(100)).or(self.report.progress_pct);
                self.report.message = message.or_else(|| self.report.message.take());
            }
            Said::Log(line) => {
                if self.report.log.len() < LOG_LINES_MAX {
                    self.report.log.push(line);
                }
            }
            Said::Action { action, data } => self.report.actions.push((action, data)),
            Said::Checkpoint(data) => self.report.checkpoint = Some(data),
            Said::Artifact(artifact) => self.report.artifacts.push(*artifact),
            Said::Cost(usd) => {
                self.report.cost_usd += usd.max(0.0);
                if let Some(budget) = over_budget(&drive.doc, &self.report) {
                    let end = End::error(
                        ResultKind::BudgetExceeded,
                        "budget_exceeded",
                        format!("the task cost more than its budget of {budget} USD"),
                    );
                    return self.end(drive, end).await.map(|()| true);
                }
            }
            Said::Approval { reason, data } => return self.ask(drive, reason, data).await,
            Said::Result(result) => {
                let end = End { kind: ResultKind::Completed, result: Some(result), error: None };
                return self.end(drive, end).await.map(|()| true);
            }
            Said::Error { code, message, retryable } => {
                let error = TaskError { retryable, ..TaskError::new(code, message) };
                return failed(drive, std::mem::take(&mut self.report), self.attempt, error).await.map(|()| true);
            }
        }
        if self.report_due.is_none() && self.report != Report::default() {
            let world = &drive.instance.ports.world;
            self.report_due = Some(world.sleep(drive.instance.settings.report_every));
        }
        Ok(false)
    }

    async fn write_report(&mut self, drive: &mut Drive) -> Result<(), Lost> {
        let report = std::mem::take(&mut self.report);
        if report == Report::default() {
            return Ok(());
        }
        drive
            .update(|doc, now| {
                doc.report(now, report.clone());
                true
            })
            .await
            .map(drop)
    }

    async fn end(&mut self, drive: &mut Drive, end: End) -> Result<(), Lost> {
        let report = std::mem::take(&mut self.report);
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
        let asked = drive.doc.approval.as_ref().filter(|approval| approval.reason == reason && approval.data == data);
        match asked {
            // A restarted agent asks again what was answered or is being asked.
            Some(approval) if approval.decision.is_none() => self.repeat_question(drive).await?,
            Some(_) if untold_yes(&drive.doc) => {
                self.tell_yes(drive).await?;
                return Ok(false);
            }
            _ => self.write_question(drive, reason, data).await?,
        }
        self.stay = Some(drive.instance.ports.world.sleep(drive.instance.settings.approval_stay));
        self.answer(drive).await
    }

    async fn write_question(&mut self, drive: &mut Drive, reason: Option<String>, data: Option<serde_json::Value>) -> Result<(), Lost> {
        let ports = drive.instance.ports.clone();
        let expires_at = ports.world.now() + drive.instance.settings.approval_ttl;
        let ordinal = drive.doc.next_approval();
        let name = format!("approval-{}-{ordinal}", drive.doc.task_id);
        while let Err(error) = ports.timers.schedule(name.clone(), expires_at).await {
            tracing::warn!(task = %drive.doc.task_id, %error, "the approval's timer could not be made; trying again");
            ports.world.sleep(RETRY).await;
        }
        let report = std::mem::take(&mut self.report);
        self.report_due = None;
        drive
            .update(|doc, now| {
                if doc.next_approval() != ordinal {
                    // The write whose answer was lost did happen.
                    return false;
                }
                doc.report(now, report.clone());
                doc.ask(now, reason.clone(), data.clone(), expires_at);
                doc.timers.push(name.clone());
                true
            })
            .await
            .map(drop)
    }

    async fn repeat_question(&mut self, drive: &mut Drive) -> Result<(), Lost> {
        let report = std::mem::take(&mut self.report);
        drive
            .update(|doc, now| {
                let open = doc.approval.as_ref().is_some_and(|approval| approval.decision.is_none());
                if open {
                    doc.report(now, report.clone());
                    doc.ask_again(now);
                }
                open
            })
            .await
            .map(drop)
    }

    /// Acts on a decision if there is one; true when the try is over.
    async fn answer(&mut self, drive: &mut Drive) -> Result<bool, Lost> {
        let Some(decision) = drive.doc.approval.as_ref().and_then(|approval| approval.decision.clone()) else { return Ok(false) };
        if decision.approved {
            self.stay = None;
            self.tell_yes(drive).await?;
            return Ok(false);
        }
        drop(self.session.tell.try_send(Tell::Decision { approved: false, reason: decision.reason.clone() }));
        self.end(drive, rejected_end(decision.reason.as_deref(), &decision.approver)).await.map(|()| true)
    }

    async fn tell_yes(&mut self, drive: &mut Drive) -> Result<(), Lost> {
        let reason =
            drive.doc.approval.as_ref().and_then(|approval| approval.decision.as_ref()).and_then(|decision| decision.reason.clone());
        drive
            .update(|doc, now| {
                let untold = untold_yes(doc);
                if untold {
                    doc.told(now);
                }
                untold
            })
            .await?;
        // A full channel means an agent that does not read; its time limit ends it.
        drop(self.session.tell.try_send(Tell::Decision { approved: true, reason }));
        Ok(())
    }

    /// Gives up the sandbox while a person decides; false when a decision or an end is there after all.
    async fn park(&mut self, drive: &mut Drive) -> Result<bool, Lost> {
        let report = std::mem::take(&mut self.report);
        drive
            .update(|doc, now| {
                if !doc.awaits_decision() || doc.cancel_requested.is_some() || doc.deadline_passed || doc.state != State::Running {
                    return false;
                }
                doc.report(now, report.clone());
                doc.park(now);
                true
            })
            .await
    }
}

/// The try failed: another one follows, or the task ends.
async fn failed(drive: &mut Drive, report: Report, attempt: u32, error: TaskError) -> Result<(), Lost> {
    let again = error.retryable && attempt < drive.instance.settings.attempts_max;
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

fn over_budget(doc: &TaskDoc, report: &Report) -> Option<f64> {
    let budget = doc.request.as_ref()?.budget_usd?;
    (doc.cost_usd.unwrap_or(0.0) + report.cost_usd > budget).then_some(budget)
}

async fn due(timer: &mut Option<Pending<()>>) {
    match timer {
        Some(timer) => timer.await,
        None => std::future::pending().await,
    }
}
