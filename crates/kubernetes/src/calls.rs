//! Calls to the API server: each has a time limit and keeps the wait that the server asked for. Whoever calls decides what an error means.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use kube::{Api, Client};
use tokio::time::{sleep, sleep_until, timeout};

use crate::api::{Sandbox, SandboxClaim};
use crate::error::CallError;
use crate::options::Options;
use crate::pause::Pause;

pub(crate) struct Calls {
    client: Client,
    pause: Arc<Pause>,
    timeout: Duration,
    retry_wait: Duration,
    retry_wait_max: Duration,
}

impl Calls {
    pub(crate) fn new(client: Client, pause: Arc<Pause>, options: &Options) -> Self {
        let Options { call_timeout, retry_wait, retry_wait_max, .. } = *options;
        Self { client, pause, timeout: call_timeout, retry_wait, retry_wait_max }
    }

    pub(crate) fn claims(&self, namespace: &str) -> Api<SandboxClaim> {
        Api::namespaced(self.client.clone(), namespace)
    }

    pub(crate) fn sandboxes(&self, namespace: &str) -> Api<Sandbox> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Makes one call, once.
    pub(crate) async fn once<T>(&self, what: &'static str, call: impl Future<Output = kube::Result<T>>) -> Result<T, CallError> {
        if let Some(until) = self.pause.until(self.retry_wait_max) {
            // Not everybody at the same moment.
            sleep_until(until).await;
            sleep(spread(self.retry_wait)).await;
        }
        match timeout(self.timeout, call).await {
            Ok(answer) => answer.map_err(|error| CallError::new(what, &error)),
            Err(_) => Err(CallError::timed_out(what, self.timeout)),
        }
    }

    /// The waits between tries.
    pub(crate) fn waits(&self) -> Waits {
        Waits { next: self.retry_wait, most: self.retry_wait_max }
    }
}

/// Waits that double, each spread at random between its half and its whole.
pub(crate) struct Waits {
    next: Duration,
    most: Duration,
}

impl Waits {
    pub(crate) fn next(&mut self) -> Duration {
        let wait = self.next;
        self.next = wait.saturating_mul(2).min(self.most);
        wait / 2 + spread(wait / 2)
    }
}

/// A random part of it.
pub(crate) fn spread(time: Duration) -> Duration {
    time.mul_f64(fastrand::f64())
}
