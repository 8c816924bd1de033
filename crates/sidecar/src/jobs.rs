//! Calls apps when their jobs are due.
//!
//! What is due is asked of the database, so that a million jobs cost no memory. A job whose app is away stays due and
//! costs no retry. A job called just before a crash is called again.

pub(crate) mod spec;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, StatusCode};
use http_body_util::Full;
use jiff::Timestamp;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::Context;
use crate::client::CallError;
use crate::metrics;
use crate::store::jobs::{After, JobRow};
use spec::Spec;

/// Longest sleep, so that a wall clock that was set is noticed.
const SLEEP_MAX_MS: i64 = 60_000;
/// Wait after the store failed, or a call found nobody.
const PAUSE: Duration = Duration::from_secs(1);
/// Due jobs taken from the database at a time.
const ROWS: usize = 128;

/// Names a job that is being called.
type Key = (String, String);

/// Wakes the scheduler when something becomes due earlier than it knows.
#[derive(Debug)]
pub(crate) struct Alarm {
    /// When the scheduler looks again by itself, in Unix milliseconds.
    next_ms: AtomicI64,
    earlier: Notify,
}

impl Alarm {
    pub(crate) fn new() -> Self {
        Self { next_ms: AtomicI64::new(i64::MIN), earlier: Notify::new() }
    }

    /// A job is due at `at_ms`.
    pub(crate) fn due(&self, at_ms: i64) {
        if at_ms < self.next_ms.load(Ordering::Acquire) {
            self.earlier.notify_one();
        }
    }
}

/// Runs until `stop` says true and the calls in flight have ended.
pub(crate) async fn run(context: Arc<Context>, mut stop: watch::Receiver<bool>) {
    let mut calls: JoinSet<(Key, Option<i64>)> = JoinSet::new();
    let mut called: HashSet<Key> = HashSet::new();
    let mut due: VecDeque<JobRow> = VecDeque::new();
    let mut changes = context.changes.subscribe();
    let calls_max = context.limits.job_calls_max;
    let (mut look, mut more) = (true, false);
    let mut next_ms = i64::MAX;
    loop {
        if look || (more && due.is_empty() && calls.len() < calls_max) {
            look = false;
            let now_ms = Timestamp::now().as_millisecond();
            // Before the question: what becomes due meanwhile rings, once too often at worst.
            context.alarm.next_ms.store(i64::MAX, Ordering::Release);
            let live = context.apps.values().filter(|app| app.live().is_some());
            let live: Vec<String> = live.map(|app| app.id.to_string()).collect();
            // Those being called are still due in the database.
            let rows_max = ROWS + called.len();
            match context.store.due_jobs(live, now_ms, rows_max).await {
                Ok((rows, next)) => {
                    more = rows.len() == rows_max;
                    due = rows.into_iter().filter(|job| !called.contains(&key_of(job))).collect();
                    next_ms = next.unwrap_or(i64::MAX).min(now_ms + SLEEP_MAX_MS);
                }
                Err(error) => {
                    tracing::error!(error = %crate::chain(&error), "jobs cannot be read; tried again");
                    next_ms = now_ms + PAUSE.as_millis() as i64;
                }
            }
        }
        context.alarm.next_ms.store(next_ms, Ordering::Release);
        while calls.len() < calls_max
            && let Some(job) = due.pop_front()
        {
            if called.insert(key_of(&job)) {
                calls.spawn(fire(context.clone(), job));
            }
        }
        let sleep_ms = (next_ms - Timestamp::now().as_millisecond()).max(0).cast_unsigned();
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(sleep_ms)) => look = true,
            () = context.alarm.earlier.notified() => look = true,
            _ = changes.changed() => look = true,
            Some(ended) = calls.join_next(), if !calls.is_empty() => match ended {
                Ok((key, again_ms)) => {
                    called.remove(&key);
                    next_ms = next_ms.min(again_ms.unwrap_or(i64::MAX));
                }
                Err(error) => {
                    // Which one it was is not known: once the others have ended, all are looked at again.
                    tracing::error!(error = %error, "a job's call panicked");
                    if calls.is_empty() {
                        called.clear();
                    }
                    look = true;
                }
            },
            () = crate::stopped(&mut stop) => break,
        }
    }
    while calls.join_next().await.is_some() {}
}

fn key_of(job: &JobRow) -> Key {
    (job.app.clone(), job.name.clone())
}

/// Calls one job and records how it ended. Returns when it is due again.
async fn fire(context: Arc<Context>, seen: JobRow) -> (Key, Option<i64>) {
    let key = key_of(&seen);
    // It may have been deleted or replaced since it was read with others.
    let job = match context.store.job(&seen.app, &seen.name).await {
        Ok(Some(job)) if job.version == seen.version => job,
        Ok(Some(job)) => return (key, Some(job.next_ms)),
        Ok(None) => return (key, None),
        Err(_) => seen,
    };
    let Some(after) = call(&context, &job).await else {
        // Nobody was there: it stays due.
        tokio::time::sleep(PAUSE).await;
        return (key, Some(job.next_ms));
    };
    if let Err(error) = context.store.finish_job(&job, after).await {
        tracing::error!(app = job.app, job = job.name, error = %crate::chain(&error), "end of a job was not written; it is called again");
        tokio::time::sleep(PAUSE).await;
        return (key, Some(job.next_ms));
    }
    match after {
        After::Over => (key, None),
        After::Next { next_ms, .. } => (key, Some(next_ms)),
    }
}

/// What becomes of the job; `None` when no instance could be reached.
async fn call(context: &Context, job: &JobRow) -> Option<After> {
    let spec = match Spec::read(&job.spec) {
        Ok(spec) => spec,
        Err(problem) => {
            tracing::error!(app = job.app, job = job.name, %problem, "stored job cannot be read; it is dropped");
            return Some(After::Over);
        }
    };
    let instance = context.apps.get(job.app.as_str())?.live()?.clone();
    let request = instance
        .request(Method::POST, &format!("/job/{}", path_segment(&job.name)))
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(spec.data(&job.spec))));
    let request = match request {
        Ok(request) => request,
        Err(error) => {
            tracing::error!(app = job.app, job = job.name, error = %error, "job cannot be called; it is dropped");
            return Some(After::Over);
        }
    };
    let failure = match context.client.call(request, Some(context.limits.job_call)).await {
        Ok(answer) if answer.status.is_success() => {
            metrics::job_fired(&job.app, "done");
            return Some(spec.after_success(job, Timestamp::now()));
        }
        Ok(answer) if answer.status == StatusCode::NOT_FOUND => {
            tracing::warn!(app = job.app, job = job.name, "app answered 404 to a job, which drops this call");
            metrics::job_fired(&job.app, "dropped");
            return Some(spec.after_success(job, Timestamp::now()));
        }
        Ok(answer) => format!("status {}", answer.status.as_u16()),
        Err(CallError::Refused { .. }) => {
            instance.refused();
            return None;
        }
        Err(CallError::Broken { .. }) if !instance.still_there().await => return None,
        Err(error) => crate::chain(&error),
    };
    tracing::debug!(app = job.app, job = job.name, failure, "job failed");
    metrics::job_fired(&job.app, "failed");
    Some(spec.after_failure(job, Timestamp::now()))
}

/// A name as one segment of a path.
fn path_segment(name: &str) -> String {
    let mut path = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte) {
            path.push(byte as char);
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
    }
    path
}
