//! What other processes commit, told to who waits and listens here.
//!
//! Commits of this process are told at once. When the head of the feed is not where such a commit began, others have committed in between; then, and when
//! `NOTIFY` says so, and every second in case its notices are lost, the rows behind the feed's head are read and told in their order. So the feed has no
//! hole: it is taken further only from where it stands.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::apply::{event_id_of, task_of};
use super::connection::{Connector, Session};
use crate::feed::Feed;
use crate::model::Change;
use crate::reading::Incoming;
use crate::store::StoreError;
use crate::tenant::tenant;
use crate::wake::Waiters;

/// Rows read at once.
const ROWS_MAX: i64 = 128;
/// Before the server is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// The task that reads on; it ends with this.
pub(super) struct Tail {
    handle: TailHandle,
    task: JoinHandle<()>,
}

/// Tells of commits; cheap to clone.
#[derive(Clone)]
pub(super) struct TailHandle {
    feed: Arc<Feed>,
    /// Held while the feed is taken further.
    turn: Arc<Mutex<()>>,
    news: Arc<Notify>,
}

impl Tail {
    pub(super) fn start(connector: Arc<Connector>, waiters: Arc<Waiters>, feed: Arc<Feed>, look_every: Duration) -> Self {
        let handle = TailHandle { feed, turn: Arc::default(), news: Arc::default() };
        let task = tokio::spawn(run(connector, waiters, handle.clone(), look_every));
        Self { handle, task }
    }

    pub(super) fn handle(&self) -> TailHandle {
        self.handle.clone()
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl TailHandle {
    /// A commit of this process took the rows from behind `before` to `upto`.
    pub(super) fn committed(&self, before: i64, upto: i64, stored: &[(i64, &Incoming)]) {
        if upto > before && !self.publish(before, upto, stored) {
            self.news.notify_one();
        }
    }

    /// Takes the feed from `after` to `upto`; false if it does not stand there.
    fn publish(&self, after: i64, upto: i64, stored: &[(i64, &Incoming)]) -> bool {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let stands_there = self.feed.head() == after;
        if stands_there {
            self.feed.publish(upto, stored);
        }
        stands_there
    }

    /// The same without its events, unless somebody wants them.
    fn pass_over(&self, after: i64, upto: i64) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if self.feed.head() == after {
            self.feed.pass_over(upto);
        }
    }
}

async fn run(connector: Arc<Connector>, waiters: Arc<Waiters>, tail: TailHandle, look_every: Duration) {
    let mut is_known = false;
    loop {
        let Err(error) = follow(&connector, &waiters, &tail, look_every, &mut is_known).await;
        if !is_known {
            tracing::warn!(error = %fte_service::chain(&error), "what other replicas write is not heard of until the status database is back");
            is_known = true;
        }
        tokio::time::sleep(RETRY_AFTER).await;
    }
}

async fn follow(
    connector: &Connector,
    waiters: &Waiters,
    tail: &TailHandle,
    look_every: Duration,
    is_known: &mut bool,
) -> Result<std::convert::Infallible, StoreError> {
    let session = connector.session_that_hears(Arc::clone(&tail.news)).await?;
    session.batch("LISTEN fte_status").await?;
    loop {
        catch_up(&session, waiters, tail).await?;
        *is_known = false;
        // Heard or not: it looks.
        let _heard = tokio::time::timeout(look_every, tail.news.notified()).await;
    }
}

async fn catch_up(session: &Session, waiters: &Waiters, tail: &TailHandle) -> Result<(), StoreError> {
    loop {
        let after = tail.feed.head();
        // What is behind this number is visible, since it was committed with it.
        let head: i64 = session.query_one("SELECT seq FROM fte_status.head", &[]).await?.get(0);
        if head <= after {
            return Ok(());
        }
        let is_listened_to = tail.feed.is_listened_to();
        // Who begins to wait from here on reads the store after this.
        if !is_listened_to && waiters.is_empty() {
            tail.pass_over(after, head);
            if tail.feed.head() > after {
                continue;
            }
        }
        let rows = session
            .query(
                "SELECT seq, task, tenant, id, source, type, CASE WHEN $4 THEN body ELSE ''::bytea END
                 FROM fte_status.event WHERE seq > $1 AND seq <= $2 ORDER BY seq LIMIT $3",
                &[&after, &head, &ROWS_MAX, &is_listened_to],
            )
            .await?;
        let upto = if (rows.len() as i64) < ROWS_MAX { head } else { rows.last().map_or(head, |row| row.get(0)) };
        let mut events = Vec::with_capacity(rows.len());
        for row in &rows {
            let event = Incoming {
                task: row.get::<_, Option<&[u8]>>(1).map(task_of).transpose()?,
                tenant: tenant(Some(row.get(2))),
                id: event_id_of(row.get(3)),
                source: row.get::<_, &str>(4).into(),
                event_type: row.get::<_, &str>(5).into(),
                at_us: None,
                body: Bytes::copy_from_slice(row.get(6)),
                change: Change::Nothing,
                artifacts: Vec::new(),
            };
            events.push((row.get::<_, i64>(0), event));
        }
        if is_listened_to {
            let stored: Vec<(i64, &Incoming)> = events.iter().map(|(row, event)| (*row, event)).collect();
            tail.publish(after, upto, &stored);
        } else {
            // Somebody may have begun to listen meanwhile: then this changes nothing, and the rows are read again with their bytes.
            tail.pass_over(after, upto);
        }
        waiters.wake_to_look(events.iter().filter_map(|(_, event)| Some((event.task?, &*event.event_type))));
    }
}
