//! What tests are made of: events, a fake application, a fake sidecar, an HTTP client, the real `fte` process, and patience with a limit.
//!
//! For our own tests that cross crates, and for yours. Everything here is bounded: a wait has a deadline, and when it passes the panic
//! says what was last seen. Failures panic, as tests want it.

mod app;
mod client;
mod daemon;
mod dir;
mod events;
mod eventually;
mod listen;
mod process;
mod s3;
mod sidecar;
mod sse;
mod tls;

pub use app::{Answer, FakeApp, Received};
pub use client::{Client, ClientError, Response};
pub use daemon::Daemon;
pub use dir::Dir;
pub use events::{bare, cloud_event, request, request_for};
pub use eventually::{PATIENCE, eventually, eventually_within, in_time};
pub use fte_events::sample;
pub use listen::listen;
pub use process::{FteProcess, Ready, built_binary};
pub use s3::S3Server;
pub use sidecar::{Call, Careless, FakeSidecar, Fault, Held, Published};
pub use sse::{SseEvent, SseStream};
pub use tls::TlsServer;
