//! The stories that cross crates, told against the real binary: real processes, real sockets, real databases.

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
