//! Sends the tasks: each caller has a connection, takes the next number, waits for its start, posts.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::future::{join_all, try_join_all};
use tokio::sync::Semaphore;

use super::Bench;
use super::connection::{Broken, Connection, Id, Requests, find_id};
use super::pace::Pace;
use super::tally::Tally;
use crate::error::Error;

/// A caller pauses after a refusal, as a polite client does.
const REFUSED_PAUSE: Duration = Duration::from_millis(20);
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);

struct Load {
    requests: Rc<Requests>,
    tally: Rc<RefCell<Tally>>,
    next: Cell<u64>,
    tasks_max: u64,
    until: Option<Instant>,
    pace: Option<Pace>,
    room: Option<Rc<Semaphore>>,
    waits: bool,
    grace: Duration,
}

/// Sends all tasks and returns when the last one is answered.
pub(super) async fn send(bench: &Bench, requests: &Rc<Requests>, tally: &Rc<RefCell<Tally>>) -> Result<(), Error> {
    // Connections are open before the clock starts.
    let callers = u64::from(bench.concurrency).min(bench.tasks_max());
    let open = || Connection::open(&requests.authority);
    let connections =
        try_join_all((0..callers).map(|_| open())).await.map_err(|source| Error::Unreachable { url: requests.base.clone(), source })?;

    let tasks_max = bench.tasks_max();
    let room = bench.in_flight.map(|most| Rc::new(Semaphore::new(most as usize)));
    tally.borrow_mut().on_result.clone_from(&room);
    let now = Instant::now();
    tally.borrow_mut().first_start = Some(now);
    let load = Rc::new(Load {
        requests: Rc::clone(requests),
        tally: Rc::clone(tally),
        next: Cell::new(0),
        tasks_max,
        // In an open loop the number of tasks says when it ends.
        until: bench.duration.filter(|_| bench.rate.is_none()).map(|duration| now + duration),
        pace: bench.rate.map(|rate| Pace::start(rate, tasks_max)).transpose()?,
        room,
        waits: bench.waits(),
        grace: bench.grace,
    });
    let callers = connections.into_iter().map(|connection| tokio::task::spawn_local(Rc::clone(&load).caller(connection)));
    for ended in join_all(callers).await {
        ended.map_err(|error| Error::Failed(format!("a caller stopped: {error}")))??;
    }
    Ok(())
}

impl Load {
    async fn caller(self: Rc<Self>, connection: Connection) -> Result<(), Error> {
        let mut connection = Some(connection);
        let mut failing_since: Option<Instant> = None;
        while let Some(started) = self.next_start().await {
            match self.post(&mut connection, started).await {
                Ok(Some(id)) => {
                    failing_since = None;
                    if self.waits {
                        self.wait_for_result(&mut connection, id, started).await?;
                    }
                }
                Ok(None) => {
                    self.make_room();
                    tokio::time::sleep(REFUSED_PAUSE).await;
                }
                Err(_) => {
                    connection = None;
                    self.make_room();
                    self.tally.borrow_mut().broken += 1;
                    if failing_since.get_or_insert_with(Instant::now).elapsed() > self.grace {
                        return Ok(());
                    }
                    tokio::time::sleep(RECONNECT_PAUSE).await;
                }
            }
        }
        Ok(())
    }

    /// When the next task starts; `None` when there is none.
    async fn next_start(&self) -> Option<Instant> {
        let number = self.next.get();
        if number >= self.tasks_max || self.until.is_some_and(|until| Instant::now() >= until) {
            return None;
        }
        self.next.set(number + 1);
        if let Some(pace) = &self.pace {
            return Some(pace.start_of(number).await);
        }
        if let Some(room) = &self.room {
            // Results that never come must not hold the callers for ever.
            if let Ok(Ok(permit)) = tokio::time::timeout(self.grace, room.acquire()).await {
                permit.forget();
            } else {
                return None;
            }
        }
        Some(Instant::now())
    }

    /// Nothing will come of a task that was not accepted.
    fn make_room(&self) {
        if let Some(room) = &self.room {
            room.add_permits(1);
        }
    }

    async fn connect<'a>(&self, connection: &'a mut Option<Connection>) -> Result<&'a mut Connection, Broken> {
        match connection {
            Some(connection) => Ok(connection),
            empty => Ok(empty.insert(Connection::open(&self.requests.authority).await?)),
        }
    }

    async fn post(&self, connection: &mut Option<Connection>, started: Instant) -> Result<Option<Id>, Broken> {
        let connection = self.connect(connection).await?;
        let (status, answer) = connection.call(self.requests.post()).await?;
        let at = Instant::now();
        let mut tally = self.tally.borrow_mut();
        if !status.is_success() {
            tally.refused(status, answer);
            return Ok(None);
        }
        let id = find_id(answer, br#""task_id":""#).ok_or("the answer has no task_id")?;
        tally.accepted(id, started, at);
        Ok(Some(id))
    }

    /// What a client sees that waits for the result of its own task.
    async fn wait_for_result(&self, connection: &mut Option<Connection>, id: Id, started: Instant) -> Result<(), Error> {
        let deadline = Instant::now() + self.grace;
        while Instant::now() < deadline {
            let answered = match self.connect(connection).await {
                Ok(open) => open.call(self.requests.result(id)?).await.map(|(status, _)| status.as_u16()),
                Err(broken) => Err(broken),
            };
            match answered {
                Ok(200) => {
                    self.tally.borrow_mut().waited(started, Instant::now());
                    return Ok(());
                }
                Ok(202) => {}
                Ok(_) => tokio::time::sleep(REFUSED_PAUSE).await,
                Err(_) => {
                    *connection = None;
                    tokio::time::sleep(RECONNECT_PAUSE).await;
                }
            }
        }
        Ok(())
    }
}
