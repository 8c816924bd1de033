//! Waiting for a task: a bounded table of who waits for which task, woken right after each commit.
//!
//! The order is always: get a [`Waiter`], read the store, then wait. What is committed after the first step wakes the third, so nothing is missed and
//! nothing polls. A result comes along with the news, so that who waits for it need not read again. News of a task id is given to all who wait for
//! it: whether it is of their tenant's task they see by what they read.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use fte_events::TaskId;
use tokio::sync::watch;

use crate::metrics;
use crate::model::Change;
use crate::reading::Incoming;
use crate::tenant::Tenant;

/// Who waits for which task.
#[derive(Debug)]
pub(crate) struct Waiters {
    table: Mutex<Table>,
    waiters_max: usize,
}

#[derive(Debug, Default)]
struct Table {
    tasks: HashMap<TaskId, watch::Sender<News>>,
    count: usize,
}

/// What happened since the waiting began.
#[derive(Debug, Clone, Default)]
pub(crate) struct News {
    /// The result event and whose it is, if it was among it.
    pub result: Option<(Tenant, Bytes)>,
    /// Whether a result may be in the store that did not come along.
    pub look: bool,
    /// Whether the task was forgotten: there is nothing more to wait for.
    pub forgotten: bool,
}

/// A place in the table, given back when dropped.
#[derive(Debug)]
pub(crate) struct Waiter {
    task: TaskId,
    news: watch::Receiver<News>,
    waiters: Arc<Waiters>,
}

/// No more waiters are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} requests wait already, which is the limit: try again")]
pub(crate) struct TooMany(pub usize);

impl Waiters {
    /// A table for at most `waiters_max`.
    pub(crate) fn new(waiters_max: usize) -> Arc<Self> {
        Arc::new(Self { table: Mutex::default(), waiters_max })
    }

    /// Takes a place to wait for `task`.
    pub(crate) fn wait_for(self: &Arc<Self>, task: TaskId) -> Result<Waiter, TooMany> {
        let mut table = self.table();
        if table.count >= self.waiters_max {
            return Err(TooMany(self.waiters_max));
        }
        table.count += 1;
        metrics::waiters(table.count);
        let news = table.tasks.entry(task).or_default().subscribe();
        Ok(Waiter { task, news, waiters: Arc::clone(self) })
    }

    /// How many wait.
    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.table().count
    }

    /// Whether anybody waits for this task.
    pub(crate) fn is_awaited(&self, task: TaskId) -> bool {
        self.table().tasks.contains_key(&task)
    }

    /// Tells of events that were committed.
    pub(crate) fn wake(&self, stored: &[(i64, &Incoming)]) {
        let table = self.table();
        if table.tasks.is_empty() {
            return;
        }
        for (_, event) in stored {
            let Some(news) = event.task.and_then(|task| table.tasks.get(&task)) else { continue };
            news.send_modify(|news| {
                if matches!(event.change, Change::Ended { .. }) {
                    // Of several, which other tenants' tasks of this id may have, one comes along.
                    news.look |= news.result.is_some();
                    news.result.get_or_insert_with(|| (event.tenant.clone(), event.body.clone()));
                }
            });
        }
    }

    /// Tells that tasks were forgotten.
    pub(crate) fn forget(&self, tasks: &[TaskId]) {
        let table = self.table();
        for news in tasks.iter().filter_map(|task| table.tasks.get(task)) {
            news.send_modify(|news| *news = News { result: None, look: true, forgotten: true });
        }
    }

    /// Whether nobody waits.
    #[cfg(feature = "postgres")]
    pub(crate) fn is_empty(&self) -> bool {
        self.table().tasks.is_empty()
    }

    /// Tells of events that another process committed: their tasks and types.
    #[cfg(feature = "postgres")]
    pub(crate) fn wake_to_look<'a>(&self, events: impl Iterator<Item = (TaskId, &'a str)>) {
        let table = self.table();
        for (task, event_type) in events {
            if let Some(news) = table.tasks.get(&task) {
                let look = fte_events::ResultKind::from_event_type(event_type).is_some();
                news.send_modify(|news| news.look |= look);
            }
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiter {
    /// Waits until something is committed that this waiter has not been told of.
    pub(crate) async fn news(&mut self) -> News {
        // The sender lives in the table for as long as this waiter does.
        let _ = self.news.changed().await;
        self.news.borrow_and_update().clone()
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut table = self.waiters.table();
        table.count -= 1;
        metrics::waiters(table.count);
        // This waiter's own receiver still counts.
        if table.tasks.get(&self.task).is_some_and(|news| news.receiver_count() <= 1) {
            table.tasks.remove(&self.task);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_bounded_and_places_are_given_back() {
        let waiters = Waiters::new(2);
        let (one, two) = (TaskId::now(), TaskId::now());
        let first = waiters.wait_for(one).unwrap();
        let second = waiters.wait_for(one).unwrap();
        assert_eq!(waiters.wait_for(two).unwrap_err(), TooMany(2));
        drop(first);
        let third = waiters.wait_for(two).unwrap();
        assert_eq!(waiters.table().tasks.len(), 2);
        drop((second, third));
        let table = waiters.table();
        assert_eq!((table.tasks.len(), table.count), (0, 0));
    }
}
