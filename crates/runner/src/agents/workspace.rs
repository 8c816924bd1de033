//! A private directory per task and attempt, `<data>/workspaces/<task>/<attempt>.<n>`: the agent's working directory and its `HOME`. Removed when dropped.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use fte_events::TaskId;

/// The same attempt may start again after a takeover, and its predecessor's directory may still be there.
const SAME_ATTEMPT_MAX: u32 = 1000;

/// A directory that is there as long as this is.
#[derive(Debug)]
pub(super) struct Workspace {
    path: PathBuf,
}

impl Workspace {
    /// For a task that is not known yet, `<data>/workspaces/ahead/<number>`.
    pub(super) fn ahead(workspaces: &Path) -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Self::in_directory(&workspaces.join("ahead"), NEXT.fetch_add(1, Ordering::Relaxed))
    }

    pub(super) fn create(workspaces: &Path, task: TaskId, attempt: u32) -> io::Result<Self> {
        Self::in_directory(&workspaces.join(task.to_string()), attempt)
    }

    fn in_directory(of_task: &Path, attempt: u32) -> io::Result<Self> {
        for n in 0..SAME_ATTEMPT_MAX {
            std::fs::create_dir_all(of_task)?;
            let path = of_task.join(format!("{attempt}.{n}"));
            match DirBuilder::new().mode(0o700).create(&path) {
                // Without symbolic links on the way, so that the names an agent sees and ours are the same.
                Ok(()) => return Ok(Self { path: path.canonicalize()? }),
                // Somebody else has it, or removed the task's directory just now.
                Err(error) if matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other(format!("{} holds too many workspaces of one attempt", of_task.display())))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.path) {
            tracing::warn!(workspace = %self.path.display(), %error, "a workspace was not removed");
        }
        // The task's directory goes with its last workspace; until then this fails, as it should.
        drop(self.path.parent().map(std::fs::remove_dir));
    }
}

/// Removes everything in `workspaces`.
pub(super) fn sweep(workspaces: &Path) -> io::Result<()> {
    let of_tasks = match std::fs::read_dir(workspaces) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        of_tasks => of_tasks?,
    };
    for of_task in of_tasks {
        remove(&of_task?.path())?;
    }
    Ok(())
}

/// Removes a directory with all that is in it. Directories that their maker closed to us are opened first, and what a dying process still wrote in
/// between is removed by another try.
fn remove(directory: &Path) -> io::Result<()> {
    let mut last = Ok(());
    for _ in 0..5 {
        last = match std::fs::remove_dir_all(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                open_up(directory)?;
                Err(error)
            }
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Err(error),
            other => return other,
        };
    }
    last
}

fn open_up(directory: &Path) -> io::Result<()> {
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o700))?;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        // The type is that of the entry itself: a symbolic link to a directory is not followed.
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_start_gets_its_own_directory_and_leaves_none() {
        let root = tempfile::tempdir().unwrap();
        let workspaces = root.path().join("workspaces");
        let task = TaskId::now();
        let first = Workspace::create(&workspaces, task, 1).unwrap();
        let again = Workspace::create(&workspaces, task, 1).unwrap();
        assert_ne!(first.path(), again.path());
        assert_eq!(first.path().metadata().unwrap().permissions().mode() & 0o777, 0o700);
        let closed = first.path().join("closed/inner");
        std::fs::create_dir_all(&closed).unwrap();
        std::fs::write(closed.join("file"), "text").unwrap();
        std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o500)).unwrap();
        drop(first);
        assert!(again.path().exists());
        drop(again);
        assert_eq!(std::fs::read_dir(&workspaces).unwrap().count(), 0);
    }

    #[test]
    fn a_sweep_follows_no_link() {
        let root = tempfile::tempdir().unwrap();
        let outside = root.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("file"), "text").unwrap();
        let workspaces = root.path().join("workspaces");
        sweep(&workspaces).unwrap();
        let workspace = Workspace::create(&workspaces, TaskId::now(), 1).unwrap();
        std::os::unix::fs::symlink(&outside, workspace.path().join("link")).unwrap();
        sweep(&workspaces).unwrap();
        assert_eq!(std::fs::read_dir(&workspaces).unwrap().count(), 0);
        assert!(outside.join("file").exists());
    }
}
