//! Moving the WAL into the database file, beside the writer instead of in it: half a second of writes takes tens of milliseconds to move.
//!
//! A passive checkpoint never makes the writer wait, but under steady load it never catches up with it either, and only a caught-up WAL begins anew. So the
//! writer's own checkpoint stays, at a size of the WAL that is reached under such load alone; little is then left to move.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::schema;

/// Commits, and bytes of events, after which the WAL is moved.
const COMMITS: usize = 256;
const BYTES: usize = 4 * 1024 * 1024;

/// Counts what the writer commits and wakes the thread that moves it. The thread ends with it.
pub(super) struct Checkpointer {
    wake: SyncSender<()>,
    commits: usize,
    bytes: usize,
}

impl Checkpointer {
    pub(super) fn start(path: PathBuf) -> std::io::Result<Self> {
        let (wake, woken) = sync_channel(1);
        std::thread::Builder::new().name("status-checkpoint".to_owned()).spawn(move || run(path, woken))?;
        Ok(Self { wake, commits: 0, bytes: 0 })
    }

    pub(super) fn committed(&mut self, bytes: usize) {
        self.commits += 1;
        self.bytes += bytes;
        if self.commits >= COMMITS || self.bytes >= BYTES {
            (self.commits, self.bytes) = (0, 0);
            // A full channel has woken it already.
            let _ = self.wake.try_send(());
        }
    }
}

fn run(path: PathBuf, woken: Receiver<()>) {
    let mut connection = None;
    while woken.recv().is_ok() {
        let outcome = connection.take().map_or_else(|| schema::open_to_checkpoint(&path), Ok).and_then(|open| {
            open.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
            Ok(open)
        });
        match outcome {
            Ok(open) => connection = Some(open),
            // The writer meets the same trouble soon, and tells of it.
            Err(error) => tracing::debug!(%error, "the status database was not checkpointed"),
        }
    }
}
