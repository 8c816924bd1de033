//! The verbs on tasks.

pub(crate) mod approve;
pub(crate) mod artifacts;
pub(crate) mod cancel;
mod follow;
pub(crate) mod lines;
pub(crate) mod list;
pub(crate) mod reply;
pub(crate) mod result;
pub(crate) mod send;
mod standing;
pub(crate) mod submit;
mod teller;
pub(crate) mod tree;
pub(crate) mod watch;

use serde::Deserialize;

/// A task as the commands read it; `--json` shows the whole answer instead.
#[derive(Debug, Deserialize)]
struct Task {
    #[serde(default)]
    task_id: String,
    #[serde(default)]
    status: String,
    /// A text, unless somebody published something else.
    #[serde(default)]
    task: serde_json::Value,
    #[serde(default)]
    agent: Option<String>,
    #[serde(default)]
    stage: Option<String>,
    #[serde(default)]
    progress_pct: Option<u8>,
    #[serde(default)]
    updated_at: Option<String>,
    #[serde(default)]
    queue: Option<fte_service::pools::Standing>,
    #[serde(default)]
    message: Option<String>,
}
