//! Jobs: the sidecar calls the application back at a time, repeatedly if asked.
//!
//! What a job is about belongs into its name and into state: Dapr 1.14 loses plain JSON data.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use jiff::Timestamp;
use serde_json::json;

use crate::error::Error;
use crate::sidecar::{Moved, Sidecar, encode};

/// When a job fires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// First firing.
    pub due: Timestamp,
    /// Fires again each time this has passed, until deleted or past `ttl`.
    pub every: Option<Duration>,
    /// The sidecar forgets the job this long after it was made.
    pub ttl: Option<Duration>,
}

/// The jobs of this application; cheap to clone.
#[derive(Clone, Debug)]
pub struct Jobs {
    sidecar: Sidecar,
}

impl Jobs {
    /// The jobs behind this sidecar.
    pub fn new(sidecar: Sidecar) -> Self {
        Self { sidecar }
    }

    /// Creates a job, or replaces the one of this name.
    pub async fn schedule(&self, name: &str, job: &Job) -> Result<(), Error> {
        let mut body = json!({ "dueTime": job.due.to_string(), "overwrite": true });
        if let Some(every) = job.every {
            body["schedule"] = json!(format!("@every {}s", every.as_secs().max(1)));
        }
        if let Some(ttl) = job.ttl {
            body["ttl"] = json!(format!("{}s", ttl.as_secs().max(1)));
        }
        let body = Some((Bytes::from(body.to_string()), "application/json"));
        let answer = self.sidecar.call_moved("a job", Moved::Jobs, Method::POST, &format!("jobs/{}", encode(name)), body).await?;
        answer.success().map(drop)
    }

    /// Deletes a job; one that does not exist is deleted already.
    pub async fn delete(&self, name: &str) -> Result<(), Error> {
        let answer = self.sidecar.call_moved("a job's end", Moved::Jobs, Method::DELETE, &format!("jobs/{}", encode(name)), None).await?;
        if answer.status == http::StatusCode::NOT_FOUND {
            return Ok(());
        }
        match answer.success() {
            Ok(_) => Ok(()),
            // Some versions answer 500 for a job that is not there.
            Err(Error::Answered { message, .. }) if message.to_lowercase().contains("not found") => Ok(()),
            Err(error) => Err(error),
        }
    }
}
