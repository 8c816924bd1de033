//! When everything is ready, and the file that says so.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fte_service::Check;
use serde::Serialize;

/// How often readiness is looked at during the start.
const POLL: Duration = Duration::from_millis(2);

/// Where a running instance is.
#[derive(Debug, Serialize)]
pub(super) struct Place {
    pub(super) api: String,
    pub(super) sidecar: String,
    pub(super) pid: u32,
    pub(super) data: PathBuf,
}

impl Place {
    /// Whether commands have to be told where it is.
    pub(super) fn is_elsewhere(&self) -> bool {
        !self.api.ends_with(":8080")
    }

    /// Writes the file whole or not at all: who sees it can read it.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.tmp", self.pid));
        let new = path.with_file_name(name);
        let mut file = fs::File::create(&new)?;
        serde_json::to_writer(&mut file, self)?;
        file.write_all(b"\n")?;
        fs::rename(&new, path)
    }
}

/// Waits until every check passes. They are the checks behind `/ready`, asked here so that a start leaves no refusals in the log.
pub(super) async fn wait(checks: &[Check]) {
    for check in checks {
        while check().await.is_err() {
            tokio::time::sleep(POLL).await;
        }
    }
}
