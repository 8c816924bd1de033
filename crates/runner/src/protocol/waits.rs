//! What a task waits for before it is worked at: its time, or a person's word. Its owner makes the timer that will move it on, and parks it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::drive::{Drive, Lost, called_off};
use super::timers::Timer;
use crate::document::{Ask, End, State, TaskDoc};

/// How long after a timer could not be made it is tried again: whoever makes them is down for longer than a moment, and all who wait try.
const AGAIN: Duration = Duration::from_secs(1);

/// What a task waits for.
#[derive(Clone, Copy)]
pub(super) enum Wait {
    Time(Timestamp),
    Person,
    /// The person that it was handed to.
    Answer(Timestamp),
}

impl Wait {
    /// What it has not been parked for yet.
    pub(super) fn of(doc: &TaskDoc, now: Timestamp) -> Option<Self> {
        let request = doc.request.as_ref()?;
        if doc.is_for_a_person() {
            return request.deadline.map(Self::Answer);
        }
        let parked_before = || doc.timers.contains(&Timer::delay(doc.task_id).to_string());
        match request.not_before.filter(|due| *due > now && !parked_before()) {
            Some(due) => Some(Self::Time(due)),
            None => (request.require_approval && doc.approval.is_none()).then_some(Self::Person),
        }
    }
}

impl Drive {
    /// Parks the task for what it waits for; where its timer cannot be made, its owner waits with it until its time has come.
    pub(super) async fn park_for(&mut self, wait: Wait) -> Result<(), Lost> {
        // Who waits needs no place. One that goes on from here after all does so without, as one that is adopted.
        self.place = None;
        let world = Arc::clone(&self.instance.ports.world);
        let made = match wait {
            Wait::Time(due) => {
                let until_due = Duration::try_from(due.duration_since(world.now())).unwrap_or_default();
                tokio::select! {
                    biased;
                    made = self.make_timers(Timer::delay(self.doc.task_id), due) => made?,
                    () = world.sleep(until_due) => return Ok(()),
                }
            }
            Wait::Person => {
                let timer = Timer::approval(self.doc.task_id, self.doc.next_approval());
                self.make_timers(timer, self.leave_to_start(world.now()).expires_at).await?
            }
            Wait::Answer(due) => self.make_timers(Timer::deadline(self.doc.task_id), due).await?,
        };
        let made = match made {
            Ok(made) => made,
            Err(end) => return self.end(end).await,
        };
        let mut end = None;
        // However long the timer took to be made: a person has all the time there is.
        let ask = self.leave_to_start(world.now());
        self.update(|doc, now| {
            end = called_off(doc, now);
            if end.is_some() || doc.state != State::Queued {
                return false;
            }
            doc.timers.extend(made.iter().filter(|name| !doc.timers.contains(name)).cloned().collect::<Vec<_>>());
            match wait {
                Wait::Time(_) => doc.park_for_time(),
                Wait::Person => {
                    doc.ask(now, ask.clone());
                    doc.park(now);
                }
                Wait::Answer(_) => doc.await_person(now),
            }
            true
        })
        .await?;
        match end {
            Some(end) => self.end(end).await,
            None => Ok(()),
        }
    }

    /// The question whether it may start. What there is to look at is the request.
    fn leave_to_start(&self, now: Timestamp) -> Ask {
        let settings = &self.instance.settings;
        let approvals = settings.approvals(&self.doc.agent);
        Ask {
            action: Some("task.start".to_owned()),
            reason: Some("approval is required before the start".to_owned()),
            data: None,
            expires_at: now + approvals.expires.unwrap_or(settings.approval_ttl),
            approve_on_expiry: approvals.approve_on_expiry,
            link: settings.link(self.doc.task_id),
        }
    }

    /// Makes this timer, and that of the deadline if there is one: without an owner nobody else looks at the clock. Gives the names of those that the
    /// document does not know yet; or the task's end, if it is called off meanwhile.
    pub(super) async fn make_timers(&mut self, timer: Timer, due: Timestamp) -> Result<Result<Vec<String>, End>, Lost> {
        let deadline = self.doc.request.as_ref().and_then(|request| request.deadline);
        let deadline = deadline.map(|deadline| (Timer::deadline(self.doc.task_id).to_string(), deadline));
        let mut timers = vec![(timer.to_string(), due)];
        timers.extend(deadline.filter(|(name, _)| !self.doc.timers.contains(name) && *name != timers[0].0));
        let (ports, task) = (self.instance.ports.clone(), self.doc.task_id);
        let made = {
            let timers = timers.clone();
            async move {
                for (name, due) in timers {
                    while let Err(error) = ports.timers.schedule(name.clone(), due).await {
                        tracing::warn!(%task, timer = name, %error, "a timer could not be made, and its task waits for it; trying again");
                        ports.world.sleep(AGAIN).await;
                    }
                }
            }
        };
        let made = self.unless_called_off(made).await?;
        Ok(made.map(|()| timers.into_iter().map(|(name, _)| name).collect()))
    }
}
