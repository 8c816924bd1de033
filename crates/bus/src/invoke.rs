//! Service invocation: asking another application, through both its sidecar and this one.

use std::time::Duration;

use http::{Method, StatusCode};
use serde::de::DeserializeOwned;

use crate::error::Error;
use crate::sidecar::{Sidecar, encode};

/// What another application answers to `GET`; cheap to clone.
///
/// It is one instance of it that answers, whichever the sidecar finds. A question changes nothing and may be asked again; it is for what can do without an
/// answer, since that application may be away while its topics are not.
#[derive(Clone, Debug)]
pub struct Invoker {
    sidecar: Sidecar,
    app_id: String,
    limit: Duration,
}

impl Invoker {
    /// Asks the application `app_id`, and waits for an answer no longer than `limit`.
    pub fn new(sidecar: Sidecar, app_id: &str, limit: Duration) -> Self {
        Self { sidecar, app_id: app_id.to_owned(), limit }
    }

    /// The JSON at `path`, which has no slash at its beginning; none where the application says that there is nothing (404).
    ///
    /// # Errors
    /// Neither: the application cannot be found or does not answer in time, answers with an error, or with something else than was expected.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, Error> {
        let what = "a question to another application";
        let path = format!("/v1.0/invoke/{}/method/{path}", encode(&self.app_id));
        let asked = tokio::time::timeout(self.limit, self.sidecar.call(what, Method::GET, &path, None)).await;
        let timeout_ms = u64::try_from(self.limit.as_millis()).unwrap_or(u64::MAX);
        let answer = asked.map_err(|_| Error::TimedOut { what, timeout_ms })??;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        answer.success()?.json(what).map(Some)
    }
}
