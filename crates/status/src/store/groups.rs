//! Which commands share a transaction: what arrives while one is under way forms the next.
//!
//! Where deliveries are quick, a group stays open for a moment when there is little to do: the few events of a task then cost one commit instead of one each, and their fsyncs are not
//! in the way of those that move the task on. It closes at once when somebody waits for what is in it, or when there is much.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::model::Change;
use crate::reading::Incoming;
use crate::wake::Waiters;

/// How long a group usually stays open where deliveries are quick, unless it has so many events.
pub(crate) const OPEN: Duration = Duration::from_millis(8);
const EVENTS_ENOUGH: usize = 16;
/// Most events in one transaction, and most bytes of theirs: bounds the time to the next answer and what the database keeps of it.
const EVENTS_MAX: usize = 4096;
const BYTES_MAX: usize = 8 * 1024 * 1024;

/// What a store's writer is asked for.
pub(super) trait Grouped {
    /// The events that it stores; none where a caller waits for what it does.
    fn events(&self) -> Option<&Arc<Vec<Incoming>>>;
}

/// The commands that wait, group by group.
pub(super) struct Groups<C> {
    queue: mpsc::Receiver<C>,
    waiters: Arc<Waiters>,
    open: Duration,
    /// What did not fit into the group before.
    held: Option<C>,
}

impl<C: Grouped> Groups<C> {
    pub(super) fn new(queue: mpsc::Receiver<C>, waiters: Arc<Waiters>, open: Duration) -> Self {
        Self { queue, waiters, open, held: None }
    }

    /// The next group, in order; none once all senders are gone.
    pub(super) async fn next(&mut self) -> Option<Vec<C>> {
        let first = match self.held.take() {
            Some(first) => first,
            None => self.queue.recv().await?,
        };
        let closes = Instant::now() + self.open;
        let (mut events, mut bytes) = size(&first);
        let mut urgent = self.is_urgent(&first);
        let mut group = vec![first];
        loop {
            let next = match self.queue.try_recv() {
                Ok(next) => next,
                Err(_) if urgent || events >= EVENTS_ENOUGH => break,
                Err(_) => match timeout_at(closes, self.queue.recv()).await {
                    Ok(Some(next)) => next,
                    Ok(None) | Err(_) => break,
                },
            };
            let (more_events, more_bytes) = size(&next);
            if events + more_events > EVENTS_MAX || bytes + more_bytes > BYTES_MAX {
                self.held = Some(next);
                break;
            }
            urgent |= self.is_urgent(&next);
            (events, bytes) = (events + more_events, bytes + more_bytes);
            group.push(next);
        }
        Some(group)
    }

    /// Whether somebody waits for what it does, or for a result that it has.
    fn is_urgent(&self, command: &C) -> bool {
        let awaited =
            |event: &Incoming| matches!(event.change, Change::Ended { .. }) && event.task.is_some_and(|task| self.waiters.is_awaited(task));
        command.events().is_none_or(|events| events.iter().any(awaited))
    }
}

fn size(command: &impl Grouped) -> (usize, usize) {
    command.events().map_or((1, 0), |events| (events.len(), events.iter().map(|event| event.body.len()).sum()))
}

#[cfg(test)]
mod tests {
    use fte_events::{ResultKind, Status, TaskId};

    use super::*;
    use crate::test_support::{History, incoming};

    /// Some events, or something whose answer is waited for.
    struct Some(Option<Arc<Vec<Incoming>>>);

    impl Grouped for Some {
        fn events(&self) -> Option<&Arc<Vec<Incoming>>> {
            self.0.as_ref()
        }
    }

    fn events(history: &History) -> Some {
        Some(Option::Some(Arc::new(incoming(history.events.iter().cloned()))))
    }

    /// The next group's size, and how long it was open.
    async fn next(groups: &mut Groups<Some>) -> (usize, Duration) {
        let began = Instant::now();
        let group = groups.next().await.unwrap();
        (group.len(), began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_waits_for_is_gathered_for_a_moment() {
        let (sender, queue) = mpsc::channel(8);
        let mut groups = Groups::new(queue, Waiters::new(8), OPEN);
        let task = History::of(TaskId::now()).requested("x").claimed();
        sender.send(events(&task)).await.unwrap();
        let later = tokio::spawn(async move {
            tokio::time::sleep(OPEN / 2).await;
            sender.send(events(&task)).await.unwrap();
            tokio::time::sleep(OPEN).await;
            sender.send(events(&task)).await.unwrap();
            sender
        });
        assert_eq!(next(&mut groups).await, (2, OPEN));
        assert_eq!(next(&mut groups).await.0, 1);
        drop(later.await.unwrap());
        assert!(groups.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn an_awaited_result_an_awaited_answer_and_many_events_close_a_group_at_once() {
        let (sender, queue) = mpsc::channel(64);
        let waiters = Waiters::new(8);
        let mut groups = Groups::new(queue, Arc::clone(&waiters), OPEN);
        let ended = History::of(TaskId::now()).requested("x").ended(ResultKind::Completed);
        sender.send(events(&ended)).await.unwrap();
        assert_eq!(next(&mut groups).await, (1, OPEN), "nobody waits for it yet");
        let waiter = waiters.wait_for(ended.task).unwrap();
        sender.send(events(&ended)).await.unwrap();
        assert_eq!(next(&mut groups).await, (1, Duration::ZERO));
        drop(waiter);
        sender.send(Some(None)).await.unwrap();
        assert_eq!(next(&mut groups).await, (1, Duration::ZERO));
        let step = History::of(TaskId::now()).step(Status::Running);
        for _ in 0..EVENTS_ENOUGH {
            sender.send(events(&step)).await.unwrap();
        }
        assert_eq!(next(&mut groups).await, (EVENTS_ENOUGH, Duration::ZERO));
    }
}
