//! The stories that cross crates, told against the real binary: real processes, real sockets, real databases.

#![allow(dead_code, reason = "the vocabulary is for stories still to be told, too")]
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test that fails here shows where, and says what it did")]

mod approvals;
mod closed_loop;
mod disk;
mod duplicates;
mod kill;
mod load;
mod outage;
mod parts;
mod poison;
mod pool;
mod stream;
mod trail;
mod world;
