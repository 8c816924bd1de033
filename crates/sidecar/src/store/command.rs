//! What the writer can be asked to do, and how each is answered.
//!
//! A reply is sent after the commit. A reply that is dropped is an answer, too: the store is closed.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::StoreError;
use super::jobs::{After, JobRow};
use super::log::CursorCell;
use super::state::{Change, Conflict, StateWrite};
use crate::record::RecordBuf;
use crate::topics::Topic;

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// What the writer is asked to do.
#[derive(Debug)]
pub(crate) enum Command {
    Publish {
        topic: Arc<Topic>,
        records: RecordBuf,
        reply: Reply<()>,
    },
    State {
        writes: Vec<StateWrite>,
        atomic: bool,
        reply: Reply<Vec<Result<(), Conflict>>>,
    },
    /// The answer is false when the job exists and was not to be replaced.
    PutJob {
        job: JobRow,
        overwrite: bool,
        reply: Reply<bool>,
    },
    DeleteJob {
        app: String,
        name: String,
        reply: Reply<bool>,
    },
    FinishJob {
        app: String,
        name: String,
        version: i64,
        after: After,
        reply: Reply<bool>,
    },
    EnsureTopic {
        name: String,
        partitions: u16,
        retention: Duration,
        reply: Reply<Arc<Topic>>,
    },
    Join {
        app: String,
        topic: u32,
        reply: Reply<Arc<CursorCell>>,
    },
    Flush,
    Sweep,
    Checkpoint,
    Stop {
        reply: Reply<()>,
    },
    Die,
}

impl Command {
    /// Commands that share a transaction.
    pub(super) fn shares(&self) -> bool {
        matches!(self, Self::Publish { .. } | Self::State { .. } | Self::PutJob { .. } | Self::DeleteJob { .. } | Self::FinishJob { .. })
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Publish { records, .. } => records.bytes.len(),
            Self::State { writes, .. } => writes
                .iter()
                .map(|write| match &write.change {
                    Change::Put { value, .. } => value.len() + 4096,
                    Change::Delete => 4096,
                })
                .sum(),
            _ => 4096,
        }
    }

    pub(super) fn answer(self, outcome: Outcome) {
        match (self, outcome) {
            (Self::Publish { reply, .. }, Outcome::Failed(error)) => drop(reply.send(Err(error))),
            (Self::Publish { reply, .. }, _) => drop(reply.send(Ok(()))),
            (Self::State { reply, .. }, Outcome::State(each)) => drop(reply.send(Ok(each))),
            (Self::State { reply, .. }, Outcome::Failed(error)) => drop(reply.send(Err(error))),
            (Self::PutJob { reply, .. } | Self::DeleteJob { reply, .. } | Self::FinishJob { reply, .. }, outcome) => {
                drop(reply.send(match outcome {
                    Outcome::Failed(error) => Err(error),
                    Outcome::Changed(changed) => Ok(changed > 0),
                    Outcome::Done | Outcome::State(_) => Ok(true),
                }))
            }
            // Dropping a reply is an answer, too: closed.
            _ => {}
        }
    }
}

/// How a command that shares a transaction went.
#[derive(Debug)]
pub(super) enum Outcome {
    Done,
    State(Vec<Result<(), Conflict>>),
    Changed(usize),
    Failed(StoreError),
}
