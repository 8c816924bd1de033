//! Programs that are started ahead of their tasks (`min_warm`): behind their walls, with their interpreter loaded, waiting for the start message; one that speaks
//! the Agent Client Protocol was told `initialize`, too, and its session begins with the task.
//!
//! Always true: a warm program serves one task and no second one; there are never more programs of an agent than `max`, warm ones included, but for the moment in which
//! one replaces another; what dies while it waits, or has waited for too long, is replaced, the slower the more often it dies.
//!
//! A `command` cannot wait: it gets its task with its start.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::program::Program;

/// One that has waited for so long is replaced: secrets may have changed, and connections grow stale.
const AGE_MAX: Duration = Duration::from_secs(15 * 60);
/// How often those that wait are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How often it is looked whether those at work are gone.
const GONE_EVERY: Duration = Duration::from_millis(10);
const BACKOFF: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// The programs of one agent that wait.
#[derive(Debug, Default)]
pub(super) struct Warm {
    ready: Mutex<VecDeque<(Instant, Program)>>,
    /// Nobody waits any more.
    closed: AtomicBool,
    /// Programs at work.
    working: AtomicU32,
    changed: Notify,
}

/// A program is at work as long as this is there.
#[derive(Debug)]
pub(super) struct Working(Arc<Warm>);

impl Drop for Working {
    fn drop(&mut self) {
        self.0.working.fetch_sub(1, Ordering::Relaxed);
        self.0.changed.notify_one();
    }
}

impl Warm {
    /// Whether one waits.
    pub(super) fn is_ready(&self) -> bool {
        !self.ready().is_empty()
    }

    /// One that waits and still lives.
    pub(super) fn take(&self) -> Option<Program> {
        loop {
            let (_, mut program) = self.ready().pop_front()?;
            self.changed.notify_one();
            if program.lives() {
                return Some(program);
            }
            dispose(program);
        }
    }

    /// Counts a program that begins to work.
    pub(super) fn work(self: &Arc<Self>) -> Working {
        self.working.fetch_add(1, Ordering::Relaxed);
        Working(Arc::clone(self))
    }

    /// Keeps so many ready, started by `start`, for as long as it is polled.
    pub(super) async fn keep<F>(&self, min: u32, max: u32, start: impl Fn() -> F) -> std::convert::Infallible
    where
        F: Future<Output = Option<Program>>,
    {
        let mut backoff = BACKOFF;
        loop {
            if self.is_closed() {
                return std::future::pending().await;
            }
            let died = self.clear();
            let wanted = min.min(max.saturating_sub(self.working.load(Ordering::Relaxed))) as usize;
            if self.ready().len() >= wanted {
                // Woken by whoever takes one or ends; those that die are found by looking.
                drop(timeout(LOOK_EVERY, self.changed.notified()).await);
                continue;
            }
            if died > 0 {
                sleep(backoff).await;
                backoff = (backoff * 2).min(BACKOFF_MAX);
            }
            match start().await {
                Some(program) => {
                    self.put(program);
                    if died == 0 {
                        backoff = BACKOFF;
                    }
                }
                None => {
                    sleep(backoff).await;
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
            }
        }
    }

    fn put(&self, program: Program) {
        let mut ready = self.ready();
        if self.is_closed() {
            dispose(program);
        } else {
            ready.push_back((Instant::now(), program));
        }
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Ends those that wait, and waits until they and those at work, which others end, are gone.
    pub(super) async fn close(&self) {
        let waiting = {
            let mut ready = self.ready();
            self.closed.store(true, Ordering::Relaxed);
            std::mem::take(&mut *ready)
        };
        join_all(waiting.into_iter().map(|(_, program)| program.finish())).await;
        while self.working.load(Ordering::Relaxed) > 0 {
            sleep(GONE_EVERY).await;
        }
    }

    /// Puts away those that have ended or waited too long; how many had ended.
    fn clear(&self) -> usize {
        let mut died = 0;
        let mut ready = self.ready();
        for _ in 0..ready.len() {
            let Some((since, mut program)) = ready.pop_front() else { break };
            let lives = program.lives();
            died += usize::from(!lives);
            if lives && since.elapsed() < AGE_MAX {
                ready.push_back((since, program));
            } else {
                dispose(program);
            }
        }
        died
    }

    fn ready(&self) -> std::sync::MutexGuard<'_, VecDeque<(Instant, Program)>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends it and removes its workspace, behind the caller.
fn dispose(program: Program) {
    drop(tokio::spawn(program.finish()));
}
