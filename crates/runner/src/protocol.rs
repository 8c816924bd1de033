//! The protocol: how tasks are taken up, worked, parked, woken, ended and taken over, so that each gets exactly one result whatever crashes.
//!
//! Always true, whoever runs this:
//! * A document changes only by a guarded write with the ETag just read. Whoever wants to become responsible reads the document, writes its own index,
//!   then writes the document: a process that froze in between finds its index fenced, or its ETag old. (A write that only makes the document needs
//!   no read, and goes out together with that of the index: see `admission`.)
//! * An event is published only out of the outbox of a durable document.
//! * Every unfinished task and every unsent event is reachable from an unacknowledged delivery, an instance's index, or a timer.
//!
//! `Instance` is one life under one instance id; when it is cut off from its lease it is over, and [`Runner`] goes on under a new one.

mod admission;
mod change;
mod decisions;
mod doubts;
mod drive;
mod erasure;
mod gathered;
mod handoffs;
mod index;
mod instance;
mod locks;
mod messages;
mod news;
mod outbox;
mod pace;
mod peers;
mod pool;
mod queue;
mod runner;
mod timers;
mod waits;
mod work;

pub use admission::{Admitted, Incoming};
pub use decisions::{Answer, CancelError, DecideError, Decided, Made};
pub use handoffs::{AnswerError, Replied};
pub use messages::{Letter, SendError};
pub use runner::{AgentUse, Runner, Standing};
