//! What one try of an agent may use of the runner, in one place.

use std::time::Duration;

use super::http::HttpLimits;

/// Limits of one agent's session.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Longest line of the JSON-lines protocol. Default 1 MiB.
    pub line_bytes_max: usize,
    /// Longest message of the Agent Client Protocol, which carries whole files. Default 8 MiB.
    pub message_bytes_max: usize,
    /// Most output of an agent that speaks it, which tells of every file it reads. Default 512 MiB.
    pub conversation_bytes_max: u64,
    /// Most text of a file that it reads or writes at a time through the runner, and most output that is kept of a terminal. Default 1 MiB.
    pub file_bytes_max: usize,
    /// Most terminals that it holds at a time. Default 16.
    pub terminals_max: usize,
    /// Most output, standard output and standard error together. Default 64 MiB.
    pub output_bytes_max: u64,
    /// Largest result, checkpoint, or data of an action or approval. Default 256 KiB; what is larger travels as an artifact.
    pub data_bytes_max: usize,
    /// Largest artifact. Default 64 MiB.
    pub artifact_bytes_max: u64,
    /// Most artifacts. Default 100.
    pub artifacts_max: u32,
    /// How long an agent may take to leave after its last word, and what it left open to close after it. Default 1 s.
    pub leave: Duration,
    /// How long a cancelled agent has before it gets SIGTERM, and again before it gets SIGKILL. Default 2 s.
    pub grace: Duration,
    /// Calls to agents that run elsewhere.
    pub http: HttpLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            line_bytes_max: 1 << 20,
            message_bytes_max: 8 << 20,
            conversation_bytes_max: 512 << 20,
            file_bytes_max: 1 << 20,
            terminals_max: 16,
            output_bytes_max: 64 << 20,
            data_bytes_max: 256 << 10,
            artifact_bytes_max: 64 << 20,
            artifacts_max: 100,
            leave: Duration::from_secs(1),
            grace: Duration::from_secs(2),
            http: HttpLimits::default(),
        }
    }
}

/// Messages that wait between an agent and the runner, in each direction. A full channel makes the agent wait.
pub(super) const CHANNEL: usize = 64;
/// Longest text of a stage or of an action's name, in bytes; what is longer is cut.
pub(super) const NAME_BYTES_MAX: usize = 128;
/// Longest text of a progress message or log line, in bytes; what is longer is cut.
pub(super) const TEXT_BYTES_MAX: usize = 4096;

/// The text, cut to at most `bytes_max` at a character.
pub(super) fn clip(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max.saturating_sub('…'.len_utf8())));
        text.push('…');
    }
    text
}
