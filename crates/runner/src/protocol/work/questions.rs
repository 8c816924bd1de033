//! An agent asks whether it may go on.
//!
//! The configuration answers what its rules speak about; a person the rest. A question, or the configuration's answer, is written down before the agent hears
//! anything; after a short stay the task is parked, never with an unread decision in the document.

use std::sync::Arc;

use serde_json::Value;

use super::super::admission::{rejected_end, rejection};
use super::super::drive::{Drive, Lost, called_off};
use super::super::timers::{self, Timer};
use super::{Try, timed_out};
use crate::document::{self, Ask, POLICY, question};
use crate::ports::Tell;
use fte_service::agents::Permission;

/// What an agent asks.
#[derive(Clone)]
pub(super) struct Question {
    pub(super) action: Option<String>,
    pub(super) reason: Option<String>,
    pub(super) data: Option<Value>,
}

impl Question {
    /// It, as it is asked now.
    fn ask(self, drive: &Drive, now: jiff::Timestamp) -> Ask {
        let (approvals, task) = (drive.instance.settings.approvals(&drive.doc.agent), drive.doc.task_id);
        let Self { action, reason, data } = self;
        let expires_at = now + approvals.expires.unwrap_or(drive.instance.settings.approval_ttl);
        let link = drive.instance.settings.link(task);
        Ask { action, reason, data, expires_at, approve_on_expiry: approvals.approve_on_expiry, link }
    }
}

impl Try {
    /// The agent asks; true when the try is over.
    pub(super) async fn ask(&mut self, drive: &mut Drive, asked: Question) -> Result<bool, Lost> {
        // Somebody may have decided since the last look.
        drive.reload().await?;
        if self.answer(drive).await? {
            return Ok(true);
        }
        let permission = drive.instance.settings.approvals(&drive.doc.agent).of(asked.action.as_deref());
        // What is forbidden now is forbidden, whatever was answered before.
        if permission == Permission::Deny {
            return self.deny(drive, asked).await.map(|()| false);
        }
        let digest = question(asked.action.as_deref(), asked.reason.as_deref(), asked.data.as_ref());
        let answered = drive.doc.answers.iter().find(|answer| answer.question == digest && !self.given.contains(&answer.ordinal));
        if let Some(answer) = answered.cloned() {
            // It was started again, and asks again what was answered before.
            self.tell_yes(drive, answer.ordinal, answer.reason, answer.edit.or(asked.data)).await?;
            return Ok(false);
        }
        let is_open =
            |open: &document::Approval| digest == document::question(open.action.as_deref(), open.reason.as_deref(), open.data.as_ref());
        if drive.doc.open_question().is_some_and(is_open) {
            self.repeat_question(drive).await?;
        } else {
            if permission == Permission::Allow {
                self.allow(drive, asked).await?;
                // Somebody may have said no to the question before.
                return if rejection(&drive.doc).is_some() { self.answer(drive).await } else { Ok(false) };
            }
            if self.write_question(drive, asked).await? {
                return Ok(true);
            }
        }
        self.asking = true;
        self.stay = Some(drive.instance.ports.world.sleep(drive.instance.settings.approval_stay));
        self.answer(drive).await
    }

    /// The configuration says yes.
    async fn allow(&mut self, drive: &mut Drive, asked: Question) -> Result<(), Lost> {
        let report = self.take_report();
        let ask = asked.clone().ask(drive, drive.instance.ports.world.now());
        drive
            .update(|doc, now| {
                doc.report(now, report.clone());
                // A no to the question before counts.
                if rejection(doc).is_none() {
                    doc.answer_by_policy(now, ask.clone());
                }
                true
            })
            .await?;
        if rejection(&drive.doc).is_some() {
            return Ok(());
        }
        self.given.extend(drive.doc.approval.as_ref().map(|approval| approval.ordinal));
        drop(self.session.tell.try_send(Tell::Decision { approved: true, reason: None, data: asked.data }));
        Ok(())
    }

    /// The configuration says no. That is no person's no: the agent goes on without.
    async fn deny(&mut self, drive: &mut Drive, asked: Question) -> Result<(), Lost> {
        let report = self.take_report();
        drive
            .update(|doc, now| {
                doc.report(now, report.clone());
                doc.refuse_by_policy(now, asked.action.as_deref(), asked.data.as_ref());
                true
            })
            .await?;
        let reason = Some(format!("the {POLICY} of this agent denies it"));
        drop(self.session.tell.try_send(Tell::Decision { approved: false, reason, data: None }));
        Ok(())
    }

    /// Writes the question down, its timers first; true when the try ended meanwhile.
    async fn write_question(&mut self, drive: &mut Drive, asked: Question) -> Result<bool, Lost> {
        let due = asked.clone().ask(drive, drive.instance.ports.world.now()).expires_at;
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
        // However long the timers took to be made: a person has all the time there is.
        let ask = asked.ask(drive, drive.instance.ports.world.now());
        let mut past = Vec::new();
        drive
            .update(|doc, now| {
                doc.report(now, report.clone());
                // A no to the question before counts, and nothing more is asked.
                if rejection(doc).is_some() {
                    return true;
                }
                doc.ask(now, ask.clone());
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
    pub(super) async fn answer(&mut self, drive: &mut Drive) -> Result<bool, Lost> {
        let Some(approval) = &drive.doc.approval else { return Ok(false) };
        let Some(decision) = approval.decision.clone() else { return Ok(false) };
        if !decision.approved {
            drop(self.session.tell.try_send(Tell::Decision { approved: false, reason: decision.reason.clone(), data: None }));
            return self.end(drive, rejected_end(decision.reason.as_deref(), &decision.approver)).await.map(|()| true);
        }
        if self.asking {
            let (ordinal, data) = (approval.ordinal, decision.edit.or_else(|| approval.data.clone()));
            self.tell_yes(drive, ordinal, decision.reason, data).await?;
        }
        Ok(false)
    }

    async fn tell_yes(&mut self, drive: &mut Drive, ordinal: u32, reason: Option<String>, data: Option<Value>) -> Result<(), Lost> {
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
        drop(self.session.tell.try_send(Tell::Decision { approved: true, reason, data }));
        Ok(())
    }

    /// Gives up the sandbox while a person decides, or others work; false when an answer, a message or an end is there after all.
    pub(super) async fn park(&mut self, drive: &mut Drive) -> Result<bool, Lost> {
        let report = self.take_report();
        let mut parked = false;
        drive
            .update(|doc, now| {
                doc.report(now, report.clone());
                // A message waits for the answer to a question, but not for others.
                let waits =
                    if self.asking { doc.open_question().is_some() } else { self.handoffs.waits() && (self.over || !doc.has_news()) };
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
