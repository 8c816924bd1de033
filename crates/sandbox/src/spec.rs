//! What the stage is told: the runner writes it to the standard input of the sandbox before anything else, and the program inside reads what follows.
//!
//! Not as arguments or variables: those can be read by others. Its length is an argument, so that the stage takes not a byte that is the program's.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::limits::Limits;

/// Longest that the stage reads.
pub const BYTES_MAX: usize = 1 << 20;

/// What to run, and behind which walls.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The program, by its path in the sandbox.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Directories and files that it may read, and run what is in them.
    pub readable: Vec<PathBuf>,
    /// Directories in which it may do anything.
    pub writable: Vec<PathBuf>,
    /// What each process may use.
    pub limits: Limits,
    /// Whether landlock has to hold.
    pub landlock: bool,
    /// Where the way out is handed over, if there is one: see [`crate::way_out`].
    pub way_out: Option<PathBuf>,
}
