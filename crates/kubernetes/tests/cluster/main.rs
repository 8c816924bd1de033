//! Claims in a cluster whose API server is a fake: the real client of Kubernetes against lists and watches with versions, bookmarks and forgetting, answers that
//! come late or never, refusals, conflicts, finalizers, and a controller that makes sandboxes ready, or does not. No cluster is needed, and none was used.

#![expect(clippy::unwrap_used, reason = "what a test does not expect ends it")]

mod claims;
mod controller;
mod errors;
mod server;
mod storm;
mod support;
mod sweeping;
mod watching;
