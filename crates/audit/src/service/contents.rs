//! How long what events say can be read, where that is shorter than their entries are kept: the keys of tasks that were closed long enough ago are destroyed.
//! What the log says of them in the clear stays, and proves what it proved.
//!
//! | class | kept |
//! |---|---|
//! | headers: who published what when, of which task, agent, action and outcome | until the year is retired, seven years after its last entry |
//! | what a person did (`fte.audit.actions`) | as long, sealed with that person's key |
//! | contents of tasks: requests, results, questions, messages | the days that are set, after the task was closed; by default as long as their entries |
//! | contents of no task and no person | the same days, after they came |
//!
//! A task counts from the first `task_closed` after its last event: one that waits for a person or for a time to come is not over, and keeps its contents. The search goes along the
//! log, and where it has come to is durable together with the keys that it destroyed.

use std::sync::Arc;
use std::time::Duration;

use fte_service::{ServiceError, SteadyClock, chain};

use crate::entry::leaf::Kind;
use crate::entry::{Entry, Position, Task};
use crate::log::{Log, Query};
use crate::service::desk::{Desk, Unfinished};
use crate::subjects::Subjects;

pub(crate) const DAY_MS: i64 = 24 * 3600 * 1000;
/// Between two searches.
const LOOK_EVERY: Duration = Duration::from_secs(15 * 60);
/// Closed tasks of one transaction.
const TASKS_MAX: usize = 500;
/// Entries after the end of a task that are read at a time.
const LATER_MAX: usize = 10;

/// Destroys the keys of contents that have had their time.
pub(crate) struct Contents {
    pub(crate) log: Arc<dyn Log>,
    pub(crate) subjects: Arc<Subjects>,
    /// Who puts it on record.
    pub(crate) desk: Desk,
    pub(crate) kept_ms: i64,
    /// What is destroyed does not come back, and a clock that was wrong does.
    pub(crate) clock: SteadyClock,
}

impl Contents {
    /// Looks now and then, for as long as the service lives.
    pub(crate) async fn keep(self) -> Result<(), ServiceError> {
        // Not at once: a machine that has just started may not know the time yet, and what is destroyed does not come back.
        let mut looks = tokio::time::interval_at(tokio::time::Instant::now() + LOOK_EVERY, LOOK_EVERY);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            match self.expire().await {
                Ok(0) => {}
                Ok(keys) => tracing::info!(keys, "contents have had their time: their keys are destroyed"),
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "some contents that have had their time can still be read; it is tried again")
                }
            }
        }
    }

    /// Destroys what has had its time by now. Gives how many keys.
    pub(crate) async fn expire(&self) -> Result<u64, Unfinished> {
        let before_ms = self.clock.now_ms().saturating_sub(self.kept_ms);
        // Neither keeps the other from its work.
        let (tasks, others) = (self.expire_tasks(before_ms).await, self.expire_others(before_ms).await);
        if let Err(error) = self.desk.see_through().await {
            tracing::debug!(error = %chain(&error), "what was destroyed is not on record yet; the keeper of the desk goes on with it");
        }
        Ok(tasks? + others?)
    }

    async fn expire_tasks(&self, before_ms: i64) -> Result<u64, Unfinished> {
        let mut destroyed = 0;
        loop {
            let after = self.on_keys(Subjects::expired_to).await??;
            let closed = Query {
                action: Some(Kind::TaskClosed.as_str().to_owned()),
                to_ms: Some(before_ms),
                after,
                limit: TASKS_MAX,
                headers_only: true,
                ..Query::default()
            };
            let page = self.log.entries(closed).await?;
            let Some(upto) = page.next.or_else(|| page.entries.last().map(|entry| entry.position)) else { return Ok(destroyed) };
            let mut due = Vec::new();
            // Anybody may give an action such a name.
            for entry in page.entries.iter().filter(|entry| entry.header.kind == Kind::TaskClosed) {
                due.extend(self.over(entry).await?.map(|task| (entry.tenant().to_owned(), task)));
            }
            destroyed += self.on_keys(move |subjects| subjects.expire_tasks(&due, after, upto)).await??;
            if page.next.is_none() {
                return Ok(destroyed);
            }
        }
    }

    async fn expire_others(&self, before_ms: i64) -> Result<u64, Unfinished> {
        let mut destroyed = 0;
        loop {
            let (keys, has_moved) = self.on_keys(move |subjects| subjects.expire_others(before_ms)).await??;
            destroyed += keys;
            if !has_moved {
                return Ok(destroyed);
            }
        }
    }

    /// The task that an entry closes, if no event of it came after that: else it is closed again later. What the log itself says of it, as of a hold, is none.
    async fn over(&self, closed: &Entry) -> Result<Option<Task>, Unfinished> {
        let Some(task) = closed.task() else { return Ok(None) };
        let mut after: Option<Position> = Some(closed.position);
        while after.is_some() {
            let later = Query { task: Some(task.clone()), after, limit: LATER_MAX, headers_only: true, ..Query::default() };
            let page = self.log.entries(later).await?;
            if page.entries.iter().any(|entry| entry.header.kind.is_received()) {
                return Ok(None);
            }
            after = page.next;
        }
        Ok(Some(task))
    }

    async fn on_keys<T: Send + 'static>(&self, work: impl FnOnce(&Subjects) -> T + Send + 'static) -> Result<T, Unfinished> {
        let subjects = Arc::clone(&self.subjects);
        tokio::task::spawn_blocking(move || work(&subjects)).await.map_err(|_| Unfinished::Ended)
    }
}

#[cfg(test)]
mod tests;
