//! What the stories that cross crates share: people at work, and the invariants read from the trail.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test that fails here shows where, and says what it did")]

pub mod infrastructure;
pub mod load;
pub mod ports;
pub mod tasks;
pub mod trail;
