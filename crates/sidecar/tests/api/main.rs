//! The sidecar as an app sees it: real HTTP over loopback, a real database, a small app as subscriber.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod away;
mod delivery;
mod durability;
mod failures;
mod groups;
mod jobs;
mod platform;
mod publish;
mod state;
mod support;
