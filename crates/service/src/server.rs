//! Serving a router on a listener: bounded connections, no Nagle, and an end in steps: leave, drain, close.
//!
//! Its own accept loop, because `axum::serve` leaves Nagle's algorithm on and has no limit on connections or on the time a header may take.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use http::HeaderValue;
use http::header::CONNECTION;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tower::Service as _;

use crate::metrics::HTTP_CONNECTIONS;

/// Largest header of a request, and how much of a body is read ahead.
const BUFFER_BYTES_MAX: usize = 64 * 1024;
/// Wait after an `accept` that failed for want of a resource, such as file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Between two looks whether anybody still has a connection.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Limits of a listener.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// `api` or `app`, for the metric.
    pub name: &'static str,
    /// Most connections at a time; more wait in the listener's backlog.
    pub connections_max: usize,
    /// A connection that does not send a request's header for this long is closed. None for the sidecar: a request that meets a closing
    /// connection would cost it a retry.
    pub header_timeout: Option<Duration>,
}

impl Limits {
    /// For the port that people call.
    pub fn api(connections_max: usize) -> Self {
        Self { name: "api", connections_max, header_timeout: Some(Duration::from_secs(90)) }
    }

    /// For the port that the sidecar calls; Dapr opens at most 1 024 connections.
    pub fn app() -> Self {
        Self { name: "app", connections_max: 2048, header_timeout: None }
    }
}

/// Where a listener's life stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// It accepts.
    Serving,
    /// It still answers, and closes each connection with its answer. A proxy that keeps connections would otherwise send a request on one that is being closed, and
    /// could not know whether it was heard.
    Leaving,
    /// No new connections; each open one ends after the request it works on.
    Draining,
    /// What is still open is cut.
    Closed,
}

/// A listener that is served.
#[derive(Debug)]
pub struct Serving {
    phase: watch::Sender<Phase>,
    accepting: JoinHandle<()>,
}

impl Serving {
    /// Lets those who keep connections go elsewhere with their next request: until nobody has one, or for this long.
    pub async fn leave(&self, patience: Duration) {
        self.advance(Phase::Leaving);
        let nobody = async {
            // The loop that accepts holds a receiver, and so does each connection.
            while self.phase.receiver_count() > 1 {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        drop(tokio::time::timeout(patience, nobody).await);
    }

    /// Stops accepting and lets the open requests end.
    pub fn drain(&self) {
        self.advance(Phase::Draining);
    }

    /// Waits until the last connection is closed.
    pub async fn drained(&mut self) {
        // The loop holds a receiver, and so does each connection.
        self.phase.closed().await;
    }

    /// Cuts what is still open.
    pub async fn close(self) {
        self.advance(Phase::Closed);
        self.phase.closed().await;
        drop(self.accepting.await);
    }

    fn advance(&self, to: Phase) {
        self.phase.send_if_modified(|phase| std::mem::replace(phase, (*phase).max(to)) < to);
    }
}

/// Serves `router` until told to drain and close.
pub fn serve(listener: TcpListener, router: Router, limits: Limits) -> Serving {
    let (phase, watched) = watch::channel(Phase::Serving);
    // Resolves handlers once instead of at each request.
    let router = router.with_state(());
    Serving { phase, accepting: tokio::spawn(accept(listener, router, limits, watched)) }
}

async fn accept(listener: TcpListener, router: Router, limits: Limits, mut phase: watch::Receiver<Phase>) {
    let places = std::sync::Arc::new(Semaphore::new(limits.connections_max));
    let mut connections = http1::Builder::new();
    connections.max_buf_size(BUFFER_BYTES_MAX).timer(TokioTimer::new()).header_read_timeout(limits.header_timeout);
    let open = metrics::gauge!(HTTP_CONNECTIONS, "listener" => limits.name);
    loop {
        let next = async {
            let place = std::sync::Arc::clone(&places).acquire_owned().await;
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            accepted = next => accepted,
            _ = phase.wait_for(|phase| *phase >= Phase::Draining) => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, listener = limits.name, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (connections, router, phase, open) = (connections.clone(), router.clone(), phase.clone(), open.clone());
        tokio::spawn(async move {
            open.increment(1.0);
            converse(stream, &connections, router, phase).await;
            open.decrement(1.0);
            drop(place);
        });
    }
}

async fn converse(stream: TcpStream, connections: &http1::Builder, router: Router, mut phase: watch::Receiver<Phase>) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    let asked = phase.clone();
    let service = service_fn(move |request| {
        let (answer, phase) = (router.clone().call(request), asked.clone());
        async move {
            let mut answer = answer.await?;
            if *phase.borrow() >= Phase::Leaving {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let mut connection = std::pin::pin!(connections.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        ended = connection.as_mut() => return log_end(ended),
        _ = phase.wait_for(|phase| *phase >= Phase::Draining) => {}
    }
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        ended = connection.as_mut() => log_end(ended),
        _ = phase.wait_for(|phase| *phase >= Phase::Closed) => {}
    }
}

fn log_end(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(error = %crate::chain(&error), "a connection ended early");
    }
}
