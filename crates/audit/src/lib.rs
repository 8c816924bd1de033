//! The audit service: it records every event of every topic exactly once, durably, before it acknowledges it, and answers who did what and when.
//!
//! Always true:
//! * An event is acknowledged to the sidecar only when it is durable and numbered. The service rejects nothing, drops nothing and has no
//!   dead-letter topic: what is no event is kept as evidence, and a full disk makes the topics wait.
//! * Each (`source`, `id`) is one entry, whatever comes twice, at the same time, after a restart, or in a replay from the first offset.
//! * The same identity with other content is an entry of its own, of kind `conflict`, and an alarm.
//! * Entries are numbered without a gap in the order in which they were logged, and no route changes or removes one.
//!
//! * What is in the log cannot be changed unnoticed by who cannot sign: entries are leaves of a Merkle tree whose root is signed twice a second, in the
//!   formats of C2SP (`entry::leaf`, `engine`).
//!
//! The way of an event: [`service::subscribe`] takes its bytes as they are on the topic, [`entry`] reads them and gives it its identity, [`engine`] writes it with
//! all that is waiting, and `service::routes` shows it; [`history`] says whether a task's is whole.
//!
//! | where | what |
//! |---|---|
//! | [`entry`] | what an entry is, in memory and in bytes; what makes two events the same; `notes`: what the service itself has to say |
//! | [`engine`], [`log`] | the log on a disk: one writer, its index, tiles and checkpoints; and the seam that everything else sees it through |
//! | [`subjects`] | the keys that seal what is personal, and their destruction: by an erasure, by age; what stops it |
//! | [`keys`] | the log's own keys, their succession, and which of them one believes |
//! | [`service`] | all of it at work: what arrives, what people ask for and decide, checkpoints shown to witnesses and said on a topic |
//! | [`verify`], [`export`] | the verifier, which shares no code with the writer; evidence for strangers |
//! | [`archive`], [`retention`] | a year's copy to write-once storage; its end after seven years |
//! | [`witness`] | somebody else's witness |

pub mod archive;
pub mod config;
pub mod engine;
pub mod entry;
pub mod export;
pub mod files;
pub mod history;
pub mod keys;
mod lock;
pub mod log;
mod metrics;
mod notes;
pub mod retention;
pub mod service;
pub mod subjects;
pub mod verify;
pub mod witness;

pub use self::config::Config;
pub use self::service::{Error, start};

/// Its name; its app id is `fte-audit`.
pub const NAME: &str = "audit";
