//! The stories that cross crates, told against the real binary: real processes, real sockets, real databases.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test that fails here shows where, and says what it did")]

mod approvals;
mod closed_loop;
mod duplicates;
mod kill;
mod outage;
mod poison;
mod pool;
mod stream;
mod trail;
mod world;
