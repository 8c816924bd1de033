//! Makes the index of a stopped log again, by hand: for who does not trust the one that is there, and does not want the next start to wait for it.
//!
//! It takes in what the published checkpoints cover. The entries behind the last one are in the write-ahead log alone, and the next start takes them in as
//! it does after any crash; so no key is needed, and nothing of the log is written. The index is made beside the one that is there and put in its
//! place when it is whole: who ends this early has lost nothing.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use fte_tlog::{Checkpoint, SignedNote};

use super::disk::{Disk, RealDisk};
use super::fault::Fault;
use super::index::Index;
use super::recover::{catch_up, remove_index};
use super::retiring::{self, Retired};
use super::state::lock;
use super::view::{Files, Layout, Shared};
use crate::log::LogError;

/// Memory for pages of the index, in KiB.
const CACHE_KIB: u32 = 64 * 1024;

/// Makes the index of the log in a directory again. `progress` is told how many entries are taken in, of how many. Gives how many there are.
///
/// # Errors
/// When a process writes the log, or a file of it cannot be read.
pub fn reindex(directory: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<u64, LogError> {
    make(directory, progress).map_err(|fault| fault.explained(directory))
}

fn make(directory: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<u64, Fault> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let layout = Layout { root: directory.to_owned() };
    let (retired, shards) = standing(&*disk, &layout)?;
    if shards.is_empty() {
        return Err(Fault::Refused("there is no shard with a checkpoint in it: name the data directory of an instance".to_owned()));
    }
    let _lock = lock(&*disk, &layout.state())?;
    let shared = Shared::default();
    let all = shards.iter().map(|(_, size)| size).sum();
    {
        let mut view = shared.view();
        view.shards.extend(shards);
        view.retired = retired;
        view.tail_from = u64::MAX;
    }
    let files = Files { disk, layout, shared: Arc::new(shared) };
    let (path, new) = (files.layout.index(), directory.join("index.new.sqlite"));
    // What an earlier one left that was ended.
    remove_index(&new)?;
    let mut taken = |taken| progress(taken, all);
    let index = catch_up(Index::open(&new, CACHE_KIB)?, &files, &mut taken)?;
    let index = index.ok_or_else(|| Fault::Refused("a new index is of another log".to_owned()))?;
    retiring::confirm(&files, &index)?;
    index.close()?;
    remove_index(&path)?;
    std::fs::rename(&new, &path).map_err(Fault::io(&path))?;
    progress(all, all);
    Ok(all)
}

/// A shard, and how many entries it has.
type Sized = (u16, u64);

/// The shards that are retired as far as their files tell, and the others with how many entries each has in its checkpoint.
pub(super) fn standing(disk: &dyn Disk, layout: &Layout) -> Result<(BTreeMap<u16, Retired>, Vec<Sized>), Fault> {
    let mut shards = shards(disk, layout)?;
    let ended: Vec<u16> = shards.iter().rev().skip(1).rev().map(|(shard, _)| *shard).collect();
    let (retired, _) = retiring::part(disk, layout, &ended)?;
    shards.retain(|(shard, _)| !retired.contains_key(shard));
    Ok((retired, shards))
}

/// The shards and how many entries each has in its checkpoint. Who signed that is the business of the next start, which compares the index with what it
/// has verified.
fn shards(disk: &dyn Disk, layout: &Layout) -> Result<Vec<Sized>, Fault> {
    let mut shards = Vec::new();
    let years = disk.list(&layout.root).map_err(Fault::io(&layout.root))?;
    for year in years.iter().filter_map(|name| name.parse().ok()) {
        let path = layout.log(year).join("checkpoint");
        let note = match disk.read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            read => read.map_err(Fault::io(&path))?,
        };
        let checkpoint = SignedNote::parse(&note).ok().and_then(|note| Checkpoint::parse(note.text()).ok());
        let checkpoint =
            checkpoint.ok_or_else(|| Fault::Refused(format!("{} is no checkpoint: restore it from a copy", path.display())))?;
        shards.push((year, checkpoint.size));
    }
    shards.sort_unstable();
    Ok(shards)
}
