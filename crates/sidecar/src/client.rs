//! The HTTP client towards apps: keep-alive connections without Nagle, no time-out unless a policy sets one, and an
//! error that says whether the app was reached at all.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

/// How long a connection may take to be made. Not the time-out of a call: those may take minutes.
const CONNECT: Duration = Duration::from_secs(5);
/// Unused connections are kept this long. Shorter than what servers commonly allow.
const IDLE: Duration = Duration::from_secs(20);
/// Unused connections kept for one app.
const IDLE_MAX: usize = 128;

/// A pool of connections. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct AppClient {
    client: Client<HttpConnector, Full<Bytes>>,
    answer_bytes_max: usize,
}

/// What an app answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// Nothing listens: the app is away.
    #[error("app cannot be reached")]
    Refused { source: hyper_util::client::legacy::Error },
    /// The connection ended before the answer.
    #[error("app broke off the call")]
    Broken { source: Box<dyn std::error::Error + Send + Sync> },
    #[error("app did not answer within {} ms", limit.as_millis())]
    TimedOut { limit: Duration },
    #[error("answer of the app is longer than {bytes_max} bytes")]
    TooLong { bytes_max: usize },
}

impl AppClient {
    pub(crate) fn new(answer_bytes_max: usize) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_MAX)
            .build(connector);
        Self { client, answer_bytes_max }
    }

    /// Makes one call and reads its answer.
    pub(crate) async fn call(&self, request: Request<Full<Bytes>>, timeout: Option<Duration>) -> Result<Answer, CallError> {
        let call = self.untimed(request);
        match timeout {
            None => call.await,
            Some(limit) => tokio::time::timeout(limit, call).await.unwrap_or(Err(CallError::TimedOut { limit })),
        }
    }

    async fn untimed(&self, request: Request<Full<Bytes>>) -> Result<Answer, CallError> {
        let response = self.client.request(request).await.map_err(|source| {
            if source.is_connect() { CallError::Refused { source } } else { CallError::Broken { source: Box::new(source) } }
        })?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, self.answer_bytes_max).collect().await.map_err(|source| {
            if source.is::<LengthLimitError>() {
                CallError::TooLong { bytes_max: self.answer_bytes_max }
            } else {
                CallError::Broken { source }
            }
        })?;
        Ok(Answer { status: parts.status, headers: parts.headers, body: body.to_bytes() })
    }
}
