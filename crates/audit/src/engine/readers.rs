//! A few connections to the index for those who read, opened when they are needed and kept. Reading blocks, so it is done on threads that may.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::fault::Fault;
use super::index::schema;
use super::view::Files;
use crate::log::LogError;

/// Longest wait for a connection.
const WAIT_MAX: Duration = Duration::from_secs(10);

pub(super) struct Readers {
    files: Files,
    free: Arc<Semaphore>,
    idle: Arc<Idle>,
}

/// Connections that wait, each to the index of this number.
type Idle = Mutex<Vec<(u64, Connection)>>;

impl Readers {
    pub(super) fn new(files: Files, readers_max: usize) -> Self {
        Self { files, free: Arc::new(Semaphore::new(readers_max)), idle: Arc::default() }
    }

    /// Runs `read` with a connection to the index.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection, &Files) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, LogError> {
        let idle = Arc::clone(&self.idle);
        self.read_files(move |files| {
            let number = files.shared.index().ok_or(Fault::MakingIndex)?;
            let kept = {
                let mut idle = idle.lock().unwrap_or_else(PoisonError::into_inner);
                // Those to an index that is gone would read that one for ever.
                idle.retain(|(of, _)| *of == number);
                idle.pop()
            };
            let connection = kept.map_or_else(|| schema::reading(&files.layout.index()), |(_, kept)| Ok(kept))?;
            let result = read(&connection, files);
            if files.shared.index() != Some(number) {
                return Err(Fault::MakingIndex);
            }
            match &result {
                Ok(_) => idle.lock().unwrap_or_else(PoisonError::into_inner).push((number, connection)),
                Err(fault) if fault.is_damaged_index() => files.shared.damage_index(),
                Err(_) => {}
            }
            result
        })
        .await
    }

    /// Runs `read`, one of a few at a time.
    pub(super) async fn read_files<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Files) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, LogError> {
        let files = self.files.clone();
        let explain = |fault: Fault| fault.explained(&self.files.layout.root);
        let Ok(Ok(permit)) = tokio::time::timeout(WAIT_MAX, Arc::clone(&self.free).acquire_owned()).await else {
            let busy = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
            return Err(explain(Fault::Index(rusqlite::Error::SqliteFailure(busy, Some("too many read at the same time".to_owned())))));
        };
        // Who asked may go away; the work goes on, and counts until it is done.
        let work = move || {
            let _permit = permit;
            read(&files)
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(result) => result.map_err(explain),
            Err(_) => Err(LogError::Closed),
        }
    }
}
