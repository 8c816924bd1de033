//! The stories that cross crates, told against the real binary: real processes, real sockets, real databases.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test that fails here shows where, and says what it did")]

mod acp;
mod approvals;
mod artifacts;
mod attempts;
mod between;
mod budgets;
mod claims;
mod closed_loop;
mod cluster;
mod concurrency;
mod deadlines;
mod decisions;
mod denials;
mod disk;
mod duplicates;
mod elsewhere;
mod erasure;
mod far;
mod faults;
mod frozen;
mod handoffs;
mod keys;
mod kill;
mod messages;
mod occasions;
mod outage;
mod page;
mod parts;
mod poison;
mod pool;
mod protocol;
mod queue;
mod silence;
mod steps;
mod stopping;
mod stream;
mod tenants;
mod times;
mod walls;
mod world;

use fte_tests::{load, trail};
