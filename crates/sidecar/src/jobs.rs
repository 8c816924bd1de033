//! Calls apps when their jobs are due.
//!
//! What is due is asked of the database, so that a million jobs cost no memory. A job whose app is away stays due and
//! costs no retry. A job called just before a crash is called again.

pub(crate) mod spec;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, StatusCode};
use http_body_util::Full;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::Context;
use crate::client::CallError;
use crate::metrics;
use crate::store::jobs::{After, JobRow};
use spec::Spec;

/// Longest sleep, so that a wall clock that was set is noticed.
const SLEEP_MAX: Duration = Duration::from_secs(60);
/// Wait after the store failed, or a call found nobody.
const PAUSE: Duration = Duration::from_secs(1);

/// Names a job that is being called.
type Key = (String, String);

/// Runs until `stop` says true and the calls in flight have ended.
pub(crate) async fn run(context: Arc<Context>, mut stop: watch::Receiver<bool>) {
    let mut calls: JoinSet<Key> = JoinSet::new();
    let mut called: HashSet<Key> = HashSet::new();
    let mut changes = context.changes.subscribe();
    loop {
        let live: Vec<String> = context.apps.values().filter(|app| app.live().is_some()).map(|app| app.id.to_string()).collect();
        let calls_max = context.limits.job_calls_max;
        let now_ms = Timestamp::now().as_millisecond();
        let mut sleep = SLEEP_MAX;
        if !live.is_empty() && calls.len() < calls_max {
            // Those being called are still due in the database.
            match context.store.due_jobs(live, now_ms, calls_max + called.len()).await {
                Ok((rows, next_ms)) => {
                    if let Some(next_ms) = next_ms {
                        sleep = Duration::from_millis((next_ms - now_ms).max(0).cast_unsigned()).min(SLEEP_MAX);
                    }
                    for job in rows {
                        let key = (job.app.clone(), job.name.clone());
                        if calls.len() < calls_max && called.insert(key) {
                            calls.spawn(fire(context.clone(), job));
                        }
                    }
                }
                Err(error) => {
                    tracing::error!(error = %crate::chain(&error), "jobs cannot be read; tried again");
                    sleep = PAUSE;
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(sleep) => {}
            () = context.jobs_changed.notified() => {}
            _ = changes.changed() => {}
            Some(ended) = calls.join_next(), if !calls.is_empty() => match ended {
                Ok(key) => {
                    called.remove(&key);
                }
                // Which one it was is not known: let all be looked at again once the others have ended.
                Err(_) if calls.is_empty() => called.clear(),
                Err(_) => {}
            },
            () = crate::stopped(&mut stop) => break,
        }
    }
    while calls.join_next().await.is_some() {}
}

/// Calls one job and records how it ended.
async fn fire(context: Arc<Context>, job: JobRow) -> Key {
    let key = (job.app.clone(), job.name.clone());
    let Some(after) = call(&context, &job).await else {
        // Nobody was there: it stays due.
        tokio::time::sleep(PAUSE).await;
        return key;
    };
    if let Err(error) = context.store.finish_job(&job, after).await {
        tracing::error!(app = job.app, job = job.name, error = %crate::chain(&error), "end of a job was not written; it is called again");
        tokio::time::sleep(PAUSE).await;
    }
    key
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
    let failure = match context.client.call(request, None).await {
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
