//! Drives one task that this instance owns, from admission until it has no owner any more and its outbox is out.
//!
//! Only the driver writes an owned document, except for flags and decisions that others leave in it. Each write re-reads first, so what
//! others left is seen before it is overwritten, and a driver that lost its task finds out. A driver is dropped, agents and all, when its instance is fenced.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use fte_events::{ResultKind, TaskId, Tokens};
use futures_util::FutureExt as _;
use jiff::Timestamp;

use super::change::{Plan, change};
use super::index::Purpose;
use super::instance::{Hold, Instance, RETRY};
use super::locks::{self, Asked};
use super::news::News;
use super::outbox::Pump;
use super::pool::{Place, Slot};
use super::waits::Wait;
use super::{admission, erasure, timers, work};
use crate::document::{Budget, End, State, TaskDoc};
use crate::ports::{ETag, Guard, PortError, Saved};

/// The task is no longer this instance's: somebody else moved it on, or an own write whose answer was lost did happen and gave it up. Either
/// way the driver has read the document as it is, and sends out what is in it before it lets go.
#[derive(Debug)]
pub(super) struct Lost;

pub(super) struct Drive {
    pub(super) instance: Arc<Instance>,
    pub(super) doc: TaskDoc,
    etag: Option<ETag>,
    pub(super) pump: Pump,
    pub(super) news: News,
    pub(super) slot: Option<Slot>,
    /// The turn it was taken up at: the same task at a later one is another driver's.
    turn: u32,
    hold: Option<Hold>,
    pub(super) place: Option<Place>,
}

/// Takes up a task that is owned by this instance but not driven: a write whose answer was lost had made it so. The caller's hold on the index
/// entry becomes the driver's.
///
/// It takes no place: it is this instance's already, and in a rush the places all have somebody who waits for them.
pub(super) fn adopt(instance: &Arc<Instance>, doc: TaskDoc, hold: Hold) {
    // What ran, if anything, did so without a driver: the sandbox of the lost write never came to be here.
    Drive::begin(instance, doc, None, None, hold);
}

/// Sends out a document's outbox and then lets go of its index entry.
pub(super) fn settle(instance: &Arc<Instance>, doc: TaskDoc, purpose: Purpose) {
    timers::fire_overdue(instance, &doc);
    let mut pump = Pump::new(instance.ports.clone(), doc.task_id);
    pump.offer(&doc);
    let this = Arc::clone(instance);
    instance.spawn(async move {
        pump.drain().await;
        erasure::strip_if_erased(&this, &doc).await;
        this.index.remove(doc.task_id, purpose);
        finish_timers(&this, &doc).await;
    });
}

/// After the task has left the index: nothing of it hangs on its timers any more, and whoever keeps them may be away.
async fn finish_timers(instance: &Instance, doc: &TaskDoc) {
    if doc.ended() && !doc.timers.is_empty() {
        instance.ports.world.sleep(timers::ANSWERED).await;
        timers::end(instance, &doc.timers).await;
    }
}

/// Ends a task whose driver panicked: who waits for it must hear of it, and the next driver would panic as well.
async fn write_off(instance: &Arc<Instance>, task: TaskId, turn: u32) {
    tracing::error!(%task, "the task's driver panicked; the task ends");
    let end = || End::error(ResultKind::Failed, "runner_failed", "the runner failed while it worked on the task; its log says where");
    let ended = |doc: Option<TaskDoc>, now| match doc {
        Some(mut doc) if doc.owner.as_ref() == Some(&instance.id) && doc.turn == turn => {
            doc.end(now, end());
            Plan::Move(Box::new(doc), ())
        }
        _ => Plan::Leave(()),
    };
    while let Err(error) = change(instance, task, ended).await {
        tracing::warn!(%task, %error, "the task's end could not be written; trying again");
        instance.ports.world.sleep(RETRY).await;
    }
    instance.index.remove(task, Purpose::Run);
}

impl Drive {
    /// Starts driving a task whose document this instance has just written.
    pub(super) fn begin(instance: &Arc<Instance>, doc: TaskDoc, place: Option<Place>, slot: Option<Slot>, hold: Hold) {
        let task = doc.task_id;
        let mut pump = Pump::new(instance.ports.clone(), task);
        pump.offer(&doc);
        hold.drive();
        let deadline = doc.request.as_ref().and_then(|request| request.deadline);
        let news = News::new(Arc::clone(&instance.ports.world), hold.poke(), deadline);
        let turn = doc.turn;
        let drive = Self { instance: Arc::clone(instance), doc, etag: None, pump, news, slot, turn, hold: Some(hold), place };
        let this = Arc::clone(instance);
        instance.spawn(async move {
            if AssertUnwindSafe(drive.run()).catch_unwind().await.is_err() {
                write_off(&this, task, turn).await;
            }
        });
    }

    async fn run(mut self) {
        while self.is_owned() {
            let step = match self.doc.state {
                State::Queued => match Wait::of(&self.doc, self.instance.ports.world.now()) {
                    Some(wait) => self.park_for(wait).await,
                    None => self.wait_for_sandbox().await,
                },
                State::Running if self.slot.is_none() => self.restart().await,
                State::Running => work::work(&mut self).await,
                State::ParkedForApproval | State::ParkedForReply | State::ParkedForTime | State::Ended(_) => break,
            };
            if step.is_err() {
                break;
            }
        }
        self.slot = None;
        self.hold = None;
        timers::fire_overdue(&self.instance, &self.doc);
        self.pump.drain().await;
        erasure::strip_if_erased(&self.instance, &self.doc).await;
        self.instance.index.remove(self.doc.task_id, Purpose::Run);
        self.place = None;
        finish_timers(&self.instance, &self.doc).await;
    }

    fn is_owned(&self) -> bool {
        self.doc.owner.as_ref() == Some(&self.instance.id) && self.doc.turn == self.turn
    }

    /// An adopted task that is `running` has no sandbox here: its claim is written off and it is queued again.
    async fn restart(&mut self) -> Result<(), Lost> {
        self.update(|doc, now| {
            doc.cut_off(now);
            true
        })
        .await
        .map(drop)
    }

    async fn wait_for_sandbox(&mut self) -> Result<(), Lost> {
        let world = Arc::clone(&self.instance.ports.world);
        let began = world.monotonic();
        let slot = match self.slot().await? {
            Ok(slot) => slot,
            Err(end) => return self.end(end).await,
        };
        let waited = world.monotonic().saturating_sub(began);
        let instance = Arc::clone(&self.instance);
        let mut end = None;
        self.update(|doc, now| {
            end = not_to_start(doc, now);
            if end.is_some() || doc.state != State::Queued {
                return false;
            }
            let claim = admission::claim(&instance, doc, &slot, waited);
            doc.start(now, claim);
            true
        })
        .await?;
        match end {
            Some(end) => {
                drop(slot.give_back());
                self.end(end).await
            }
            None => {
                self.slot = Some(slot);
                Ok(())
            }
        }
    }

    /// A sandbox, and the task's key if it has one; or its end, if it is called off meanwhile.
    async fn slot(&mut self) -> Result<Result<Slot, End>, Lost> {
        let world = Arc::clone(&self.instance.ports.world);
        let since = world.monotonic();
        let mut pause = self.back_off();
        let mut held = None;
        loop {
            let (instance, agent) = (Arc::clone(&self.instance), self.doc.agent.clone());
            let ask = admission::ask(&instance, (self.doc.task_id, &agent, &self.doc.tenant), self.doc.request.as_deref(), since);
            let slot = {
                let world = Arc::clone(&world);
                let ask = ask.clone();
                async move {
                    if !pause.is_zero() {
                        world.sleep(pause).await;
                    }
                    instance.pool.slot(&agent, ask, held).await
                }
            };
            let slot = match self.unless_called_off(slot).await? {
                Ok(Some(slot)) => slot,
                Ok(None) => return Ok(Err(End::error(ResultKind::Failed, "agent_unknown", "the agent is not configured any more"))),
                Err(end) => return Ok(Err(end)),
            };
            let Some(key) = ask.key else { return Ok(Ok(slot)) };
            let asking = locks::ask(&self.instance, &self.doc, &key);
            match self.unless_called_off(asking).await? {
                Ok(Asked::Named) => return Ok(Ok(slot)),
                Ok(Asked::Busy) => {
                    // Here nobody else needs to ask for this key meanwhile; the sandbox is for others.
                    held = slot.give_back();
                    pause = locks::LOOK_EVERY;
                }
                Err(end) => {
                    drop(slot.give_back());
                    return Ok(Err(end));
                }
            }
        }
    }

    /// What comes of `work`; or the task's end, if it is called off meanwhile. Events go out beside it.
    pub(super) async fn unless_called_off<T>(&mut self, work: impl Future<Output = T> + Send) -> Result<Result<T, End>, Lost> {
        let mut work = Box::pin(work);
        loop {
            let look = tokio::select! {
                biased;
                () = self.pump.step() => false,
                done = &mut work => return Ok(Ok(done)),
                () = self.news.next() => true,
            };
            if look {
                self.reload().await?;
                if let Some(end) = self.not_to_start() {
                    return Ok(Err(end));
                }
            }
        }
    }

    fn back_off(&self) -> std::time::Duration {
        let settings = &self.instance.settings;
        match self.doc.attempt {
            0 | 1 => std::time::Duration::ZERO,
            attempt => settings.retry_wait.saturating_mul(1 << (attempt - 2).min(16)).min(settings.retry_wait_max),
        }
    }

    /// Whether somebody called the task off, as far as the last read shows, or its time is over.
    pub(super) fn called_off(&self) -> Option<End> {
        called_off(&self.doc, self.instance.ports.world.now())
    }

    /// The same while no agent is at work: then a no ends it, too. An agent that is at work is told of that first.
    pub(super) fn not_to_start(&self) -> Option<End> {
        not_to_start(&self.doc, self.instance.ports.world.now())
    }

    /// Writes the task's end.
    pub(super) async fn end(&mut self, end: End) -> Result<(), Lost> {
        self.update(|doc, now| {
            doc.end(now, end.clone());
            true
        })
        .await
        .map(drop)
    }

    /// Changes the document by a guarded write; `change` sees the document as it is now and says whether to write. It may be called several
    /// times, but is written once: only its driver counts a document's revisions, so one that has the revision of a write that failed is that
    /// write, whatever others have noted upon it since. Gives back whether a write was made. When the store refuses it for good, the task ends and is lost.
    pub(super) async fn update(&mut self, mut change: impl FnMut(&mut TaskDoc, Timestamp) -> bool) -> Result<bool, Lost> {
        self.refresh().await?;
        let revision = self.doc.revision + 1;
        let mut refused: Option<PortError> = None;
        loop {
            self.refresh().await?;
            if self.doc.revision >= revision {
                return if refused.is_some() { Err(Lost) } else { Ok(true) };
            }
            let Some(etag) = self.etag.clone() else { continue };
            let mut next = self.doc.clone();
            self.pump.forget_sent(&mut next);
            let now = self.instance.ports.world.now();
            if let Some(error) = &refused {
                next.end(now, admission::refused_end(error));
            } else if !change(&mut next, now) {
                return Ok(false);
            }
            next.revision = revision;
            self.etag = None;
            match self.instance.save(next, Guard::Unchanged(etag)).await {
                (Ok(Saved::Written), doc) => {
                    self.doc = doc;
                    self.pump.offer(&self.doc);
                    return if refused.is_some() { Err(Lost) } else { Ok(true) };
                }
                (Ok(Saved::Conflict), _) => {}
                (Err(error), _) if error.refused && refused.is_none() => refused = Some(error),
                (Err(error), _) => {
                    tracing::warn!(task = %self.doc.task_id, %error, "the task's document could not be written; trying again");
                    self.instance.ports.world.sleep(RETRY).await;
                }
            }
        }
    }

    /// Reads the document again.
    pub(super) async fn reload(&mut self) -> Result<(), Lost> {
        self.etag = None;
        self.refresh().await
    }

    async fn refresh(&mut self) -> Result<(), Lost> {
        while self.etag.is_none() {
            match self.instance.load(self.doc.task_id).await {
                Ok(Some((doc, Guard::Unchanged(etag)))) => {
                    self.doc = doc;
                    self.pump.offer(&self.doc);
                    if !self.is_owned() {
                        return Err(Lost);
                    }
                    self.etag = Some(etag);
                }
                Ok(_) => return Err(Lost),
                Err(error) => {
                    tracing::warn!(task = %self.doc.task_id, %error, "the task's document could not be read; trying again");
                    self.instance.ports.world.sleep(RETRY).await;
                }
            }
        }
        Ok(())
    }
}

fn not_to_start(doc: &TaskDoc, now: Timestamp) -> Option<End> {
    called_off(doc, now).or_else(|| admission::rejection(doc))
}

pub(super) fn called_off(doc: &TaskDoc, now: Timestamp) -> Option<End> {
    if let Some(answer) = &doc.answer {
        return Some(answer.end());
    }
    if let Some(by) = &doc.cancel_requested {
        return Some(End::error(ResultKind::Cancelled, "cancelled", format!("cancelled by {by}")));
    }
    // What its agent may cost at all is looked at while that is at work.
    if let Some(why) = doc.over_budget(0.0, Tokens::default(), Budget::default()) {
        return Some(admission::budget_end(why));
    }
    doc.is_overdue(now).then(admission::deadline_end)
}
