//! How much a workspace holds, looked at from time to time: a directory has no limit of its own on most file systems.
//!
//! What it may hold can be passed between two looks; a single file cannot grow past it, by a limit of the kernel. A look at many files takes long, so the next
//! one comes the later: at most a tenth of the time is spent with looking.
//!
//! Rejected: a file system of its own for each workspace (a loop device needs root), quotas of projects (need root, and a file system that has them).

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

/// From one look to the next at least.
const EVERY: Duration = Duration::from_secs(1);
/// Each file and directory takes at least so much, so that a million empty ones count.
const ENTRY_BYTES: u64 = 4096;

/// Looks from time to time.
#[derive(Debug)]
pub(super) struct Measured {
    next: Instant,
    look: Option<(Instant, JoinHandle<u64>)>,
}

impl Default for Measured {
    fn default() -> Self {
        Self { next: Instant::now() + EVERY, look: None }
    }
}

impl Measured {
    /// The bytes of the next look. Safe to drop in between.
    pub(super) async fn next(&mut self, directory: Option<&Path>) -> u64 {
        let Some(directory) = directory else { return std::future::pending().await };
        let (started, look) = match &mut self.look {
            Some(look) => look,
            None => {
                sleep_until(self.next).await;
                let directory: PathBuf = directory.to_owned();
                self.look.insert((Instant::now(), tokio::task::spawn_blocking(move || bytes_in(&directory))))
            }
        };
        let bytes = look.await.unwrap_or(0);
        self.next = Instant::now() + EVERY.max(started.elapsed() * 9);
        self.look = None;
        bytes
    }
}

/// What a directory takes on the disk with all that is in it; links are not followed. What cannot be read, because it was just removed or closed, counts
/// for nothing.
fn bytes_in(directory: &Path) -> u64 {
    let mut bytes = 0u64;
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            bytes = bytes.saturating_add((metadata.blocks() * 512).max(ENTRY_BYTES));
            if metadata.is_dir() {
                open.push(entry.path());
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_inside_counts_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let (inside, outside) = (root.path().join("inside"), root.path().join("outside"));
        for directory in [&inside, &outside] {
            fs::create_dir_all(directory.join("deep/deeper")).unwrap();
            fs::write(directory.join("deep/deeper/file"), vec![7; 1 << 20]).unwrap();
        }
        let alone = bytes_in(&inside);
        assert!((1 << 20..(1 << 20) + 20 * ENTRY_BYTES).contains(&alone), "{alone}");
        std::os::unix::fs::symlink(&outside, inside.join("link")).unwrap();
        assert_eq!(bytes_in(&inside), alone + ENTRY_BYTES);
        for number in 0..100 {
            fs::write(inside.join(number.to_string()), "").unwrap();
        }
        assert_eq!(bytes_in(&inside), alone + 101 * ENTRY_BYTES);
        assert_eq!(bytes_in(&root.path().join("nothing")), 0);
    }
}
