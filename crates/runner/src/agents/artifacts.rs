//! Artifacts: files that agents made, kept by their SHA-256 and named `artifact:sha256/<hex>`.
//!
//! Always true: a kept file is whole and durable before anybody hears its name (see `fte_artifacts`, which says where); what an agent names
//! is opened by [`super::inside`], so that no name and no race leads out of its workspace.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use fte_artifacts::{Artifacts, Away, KeepError};
use fte_events::{Artifact, Extra};

use super::inside;
use crate::ports::Said;

/// An artifact was not kept.
#[derive(Debug, thiserror::Error)]
pub(super) enum ArtifactError {
    #[error("{path}: an artifact is a file inside the workspace, named without .. and not through a symbolic link")]
    Outside { path: String },
    #[error("{path}: no such file in the workspace")]
    Missing { path: String },
    #[error("{path} cannot be opened: {source}")]
    Unreadable { path: String, source: io::Error },
    #[error("{name} could not be kept: {}", fte_service::chain(source))]
    NotKept { name: String, source: KeepError },
}

impl ArtifactError {
    /// As the agent's error.
    pub(super) fn said(&self) -> Said {
        let (code, retryable) = match self {
            Self::Outside { .. } => ("artifact_refused", false),
            Self::Missing { .. } => ("artifact_missing", false),
            Self::NotKept { source: KeepError::TooLarge { .. }, .. } => ("artifact_too_large", false),
            Self::Unreadable { .. } | Self::NotKept { source: KeepError::Local(_) | KeepError::Away(_), .. } => ("artifact_not_kept", true),
        };
        Said::Error { code: code.to_owned(), message: self.to_string(), retryable }
    }
}

/// Where artifacts are kept, and up to which size.
#[derive(Debug)]
pub(super) struct ArtifactStore {
    artifacts: Artifacts,
    bytes_max: u64,
}

impl ArtifactStore {
    pub(super) fn new(artifacts: Artifacts, bytes_max: u64) -> Self {
        Self { artifacts, bytes_max }
    }

    /// The store itself.
    pub(super) fn kept(&self) -> &Artifacts {
        &self.artifacts
    }

    /// Keeps the file that an agent named.
    pub(super) async fn keep_file(
        &self,
        workspace: PathBuf,
        path: String,
        name: Option<String>,
        media: Option<String>,
    ) -> Result<Artifact, ArtifactError> {
        let name =
            name.unwrap_or_else(|| Path::new(&path).file_name().map_or_else(|| path.clone(), |name| name.to_string_lossy().into_owned()));
        let opening = tokio::task::spawn_blocking(move || {
            inside::open(&workspace, Path::new(&path)).map_err(|error| match error {
                inside::Error::Outside => ArtifactError::Outside { path },
                inside::Error::Missing => ArtifactError::Missing { path },
                inside::Error::Io(source) => ArtifactError::Unreadable { path, source },
            })
        });
        let broken_off = |_| ArtifactError::NotKept { name: name.clone(), source: KeepError::Away(Away::Stopped) };
        let file = opening.await.map_err(broken_off)??;
        let media = media.unwrap_or_else(|| media_type(&name).to_owned());
        self.keep(&name, &media, file).await
    }

    /// Keeps what can be read.
    pub(super) async fn keep(
        &self,
        name: &str,
        content_type: &str,
        content: impl Read + Send + 'static,
    ) -> Result<Artifact, ArtifactError> {
        let kept = self.artifacts.keep(content, self.bytes_max).await;
        let kept = kept.map_err(|source| ArtifactError::NotKept { name: name.to_owned(), source })?;
        let sha256 = kept.digest.to_string();
        let uri = format!("artifact:sha256/{sha256}");
        Ok(Artifact {
            name: name.to_owned(),
            content_type: content_type.to_owned(),
            size_bytes: kept.size,
            sha256,
            uri,
            extra: Extra::default(),
        })
    }
}

/// The media type of the most common names; a better one is the agent's to say.
fn media_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "txt" | "log" => "text/plain",
        "md" => "text/markdown",
        "html" => "text/html",
        "csv" => "text/csv",
        "json" => "application/json",
        "pdf" => "application/pdf",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "svg" => "image/svg+xml",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests;
