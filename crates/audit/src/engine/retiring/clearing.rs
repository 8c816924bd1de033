//! Removing a retired shard's files. It may be cut off anywhere and is done by doing it again: what is to go is what is there and is not to stay.

use std::io;
use std::path::{Path, PathBuf};

use super::super::disk::Disk;
use super::super::fault::Fault;
use super::super::view::Layout;
use super::note_checkpoint;
use crate::files::WITNESSED;

/// Removes everything of a shard but its final checkpoint, what witnesses signed of that, and the file that says that it was retired.
pub(super) fn clear(disk: &dyn Disk, layout: &Layout, shard: u16) -> Result<(), Fault> {
    let checkpoint = layout.log(shard).join("checkpoint");
    let mut kept = vec![layout.log(shard), checkpoint.clone(), layout.retired(shard)];
    // Their signatures of an earlier size prove nothing without the tree.
    let witnessed = layout.shard(shard).join(WITNESSED);
    if disk.read(&witnessed).ok().is_some_and(|note| {
        let of = note_checkpoint(&note);
        of.is_some() && of == disk.read(&checkpoint).ok().and_then(|note| note_checkpoint(&note))
    }) {
        kept.push(witnessed);
    }
    for directory in [layout.log(shard), layout.shard(shard)] {
        clear_in(disk, &directory, &kept)?;
    }
    Ok(())
}

/// Removes what is in a directory. Names that are gone are gone for good before the directory itself is.
fn clear_in(disk: &dyn Disk, directory: &Path, kept: &[PathBuf]) -> Result<(), Fault> {
    let mut has_gone = false;
    for name in disk.list(directory).map_err(Fault::io(directory))? {
        let path = directory.join(name);
        if kept.contains(&path) {
            continue;
        }
        has_gone = true;
        match disk.remove(&path) {
            Ok(()) => {}
            // What is no file is a directory, or has gone already.
            Err(error) if matches!(error.kind(), io::ErrorKind::IsADirectory | io::ErrorKind::NotFound) => {
                clear_in(disk, &path, &[])?;
                disk.remove_dir(&path).map_err(Fault::io(&path))?;
            }
            Err(error) => return Err(Fault::io(&path)(error)),
        }
    }
    if has_gone { disk.sync_dir(directory).map_err(Fault::io(directory)) } else { Ok(()) }
}
