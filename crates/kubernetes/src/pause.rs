//! What the API server asks all of us to wait: the `Retry-After` of an answer that says 429 or 503, taken by a layer below the client, since its errors do
//! not carry headers.
//!
//! One wait for everybody: whoever calls next would only be told the same.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, Request, Response, StatusCode, header};
use tokio::time::Instant;
use tower::{Layer, Service};

/// Until when nobody shall call.
#[derive(Debug, Default)]
pub(crate) struct Pause(Mutex<Option<Instant>>);

impl Pause {
    /// Until when, but not longer than `most` from now.
    pub(crate) fn until(&self, most: Duration) -> Option<Instant> {
        let now = Instant::now();
        let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        until.filter(|until| *until > now).map(|until| until.min(now + most))
    }

    fn heed(&self, status: StatusCode, headers: &HeaderMap) {
        if !matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            return;
        }
        // As a date, the other form, no API server says it.
        let seconds = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()).and_then(|text| text.trim().parse().ok());
        let Some(until) = seconds.and_then(|seconds| Instant::now().checked_add(Duration::from_secs(seconds))) else { return };
        let mut paused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *paused = Some(paused.map_or(until, |before| before.max(until)));
    }
}

/// Heeds what the answers of a service say.
#[derive(Clone)]
pub(crate) struct PauseLayer(pub(crate) Arc<Pause>);

impl<S> Layer<S> for PauseLayer {
    type Service = Pausing<S>;
    fn layer(&self, inner: S) -> Self::Service {
        Pausing { inner, pause: Arc::clone(&self.0) }
    }
}

/// A service whose answers are heeded.
pub(crate) struct Pausing<S> {
    inner: S,
    pause: Arc<Pause>,
}

impl<S, B, C> Service<Request<B>> for Pausing<S>
where
    S: Service<Request<B>, Response = Response<C>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let pause = Arc::clone(&self.pause);
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            pause.heed(answer.status(), answer.headers());
            Ok(answer)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_longest_wait_that_was_asked_for_counts_and_has_a_limit() {
        let pause = Pause::default();
        let now = Instant::now();
        let heed = |status: u16, value: &str| {
            let headers = HeaderMap::from_iter([(header::RETRY_AFTER, value.parse().unwrap())]);
            pause.heed(StatusCode::from_u16(status).unwrap(), &headers);
        };
        heed(200, "9");
        heed(429, "soon");
        heed(429, "18446744073709551615");
        assert_eq!(pause.until(Duration::from_secs(30)), None);
        heed(429, "5");
        heed(503, "2");
        assert_eq!(pause.until(Duration::from_secs(30)), Some(now + Duration::from_secs(5)));
        assert_eq!(pause.until(Duration::from_secs(1)), Some(now + Duration::from_secs(1)));
        tokio::time::advance(Duration::from_secs(6)).await;
        assert_eq!(pause.until(Duration::from_secs(30)), None);
    }
}
