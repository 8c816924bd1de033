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
    idle: Arc<Mutex<Vec<Connection>>>,
}

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
            let kept = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let connection = kept.map_or_else(|| schema::reading(&files.layout.index()), Ok)?;
            let result = read(&connection, files);
            if result.is_ok() {
                idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
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

    /// Forgets connections to an index that was made again.
    pub(super) fn forget(idle: &Mutex<Vec<Connection>>) {
        idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(super) fn idle(&self) -> Arc<Mutex<Vec<Connection>>> {
        Arc::clone(&self.idle)
    }
}
