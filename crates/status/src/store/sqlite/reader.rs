//! Reading connections, a bounded number of them, each used by one blocking task at a time. Opened when first needed.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::schema;
use crate::store::StoreError;

/// Longest wait for a free connection.
const WAIT_MAX: Duration = Duration::from_secs(5);

pub(super) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    places: Arc<Semaphore>,
}

impl Readers {
    pub(super) fn new(path: PathBuf, readers_max: usize) -> Self {
        Self { path, idle: Mutex::default(), places: Arc::new(Semaphore::new(readers_max)) }
    }

    pub(super) async fn read<T, F>(self: &Arc<Self>, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let place = Arc::clone(&self.places).acquire_owned();
        let place = tokio::time::timeout(WAIT_MAX, place).await.map_err(|_| StoreError::Busy)?.map_err(|_| StoreError::Closed)?;
        let readers = Arc::clone(self);
        let reading = tokio::task::spawn_blocking(move || {
            // The place is given back when the work has ended, also if its caller went away.
            let _place = place;
            readers.run(work)
        });
        reading.await.map_err(|_| StoreError::Closed)?
    }

    fn run<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => schema::open_to_read(&self.path)?,
        };
        // After an error the connection is not used again: it may hold what the disk no longer has.
        let value = work(&connection)?;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        Ok(value)
    }
}
