//! Files that the agent made: what it wrote by `fs/write_text_file`, and what a call of a tool shows as changed. They become artifacts at the end of its last
//! turn, and before it waits for a person, as they are then.
//!
//! To keep each file of the workspace lost: it is the agent's `HOME`, too, and full of caches and settings that nobody asked for. To keep a file with each of
//! its changes lost as well: agents write a file many times before they are done with it.

use std::path::{Path, PathBuf};

use agent_client_protocol_schema::v1::{SessionUpdate, ToolCallContent};

use super::super::artifacts::ArtifactError;
use super::super::limits::{TEXT_BYTES_MAX, clip};
use super::{Client, Stop};
use crate::ports::Said;

impl Client<'_> {
    /// A file was written.
    pub(super) fn wrote(&mut self, path: &Path) {
        let path = match self.workspace() {
            Ok(workspace) => path.strip_prefix(&workspace).unwrap_or(path).to_owned(),
            Err(_) => return,
        };
        if !self.made.contains(&path) {
            self.made.push(path);
        }
        // One more than may be kept shows that there are too many.
        self.made.truncate(self.most() + 1);
    }

    /// Files that an update shows as changed.
    pub(super) fn saw_changes(&mut self, update: &SessionUpdate) {
        let content = match update {
            SessionUpdate::ToolCall(call) => call.content.as_slice(),
            SessionUpdate::ToolCallUpdate(update) => update.fields.content.as_deref().unwrap_or_default(),
            _ => return,
        };
        for changed in content {
            if let ToolCallContent::Diff(diff) = changed {
                self.wrote(&diff.path);
            }
        }
    }

    /// Keeps what was made. What is gone again, or was never there, is passed over; what the store cannot take now may be kept by another attempt.
    pub(super) async fn keep_made(&mut self) -> Result<(), Stop> {
        let mut made = std::mem::take(&mut self.made);
        if made.len() > self.most() {
            made.truncate(self.most());
            self.say([Said::Log(format!("warning: of the files that the agent made, {} are kept", self.most()))]).await?;
        }
        for path in made {
            let kept = self.keep_file(path).await;
            match kept {
                Ok(artifact) => self.say([Said::Artifact(Box::new(artifact))]).await?,
                Err(ArtifactError::Missing { .. } | ArtifactError::Outside { .. }) => {}
                Err(failed) => match failed.said() {
                    Said::Error { retryable: false, message, .. } => {
                        self.say([Said::Log(clip(format!("warning: {message}"), TEXT_BYTES_MAX))]).await?;
                    }
                    said => return Err(Stop::Wrong(said)),
                },
            }
        }
        Ok(())
    }

    async fn keep_file(&self, path: PathBuf) -> Result<fte_events::Artifact, ArtifactError> {
        let path = path.to_string_lossy().into_owned();
        let Ok(workspace) = self.workspace() else { return Err(ArtifactError::Missing { path }) };
        self.conversation.shared.artifacts.keep_file(workspace, path, None, None).await
    }

    /// Most files that are kept.
    fn most(&self) -> usize {
        self.conversation.shared.limits.artifacts_max as usize
    }
}
