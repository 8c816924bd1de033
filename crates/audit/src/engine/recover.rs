//! Opening the log from what is on the disk.
//!
//! 1. Only one process: lock and epoch.
//! 2. The current shard's write-ahead log, whose last segment is made durable once more. What is in it is written into bundles and tiles again.
//! 3. The tree is compared with the last checkpoint that was signed, also with the published one: a log that is shorter or another refuses to start,
//!    since a restored copy must not sign.
//! 4. The index catches up from the last entry it knows; one that is missing, damaged or of another log is made again.
//!
//! 5. Shards that the log says are retired are removed, where that is not done and a command is about it ([`super::retiring`]).
//!
//! Steps 2 and 3 read the write-ahead log and a few hundred tiles, whatever the size of the log.

use std::path::Path;

use bytes::Bytes;
use fte_tlog::{Frontier, Hash, TILE_WIDTH, TileHashes, TileLevel, TilePath, leaf_hash, parse_tile, perfect_root, tree_root};

use super::core::{Core, Means, Shard, drop_segments, show};
use super::fault::Fault;
use super::index::Index;
use super::retiring;
use super::signers::Keys;
use super::standing::Wait;
use super::state::{Published, Signed, State, read_note};
use super::view::{Files, View};
use super::wal::Wal;
use crate::entry::Position;
use crate::entry::leaf;

/// Entries that the index takes in at a time when it catches up.
const CATCH_UP: usize = 4096;

impl Core {
    /// Opens the log, or makes it.
    pub(super) fn open(means: Means) -> Result<Self, Fault> {
        let files = means.files();
        means.keys.check()?;
        let (state, signed) = State::open(&*means.disk, &files.layout.state(), &means.keys)?;
        if let Some(signed) = &signed {
            signed.check_newest()?;
        }
        let signed = signed.map(|signed| signed.published);
        // Former keys that alone have signed what is believed.
        let mut relied = Vec::new();
        let years = years(&means, &files, signed.as_ref())?;
        let mut view = View::default();
        let mut shard = None;
        let mut last_ms = 0;
        if let Some((&current, ended)) = years.split_last() {
            let (retired, ended) = retiring::part(&*means.disk, &files.layout, ended)?;
            view.retired = retired;
            for year in &ended {
                let Signed { published, former } = read_published(&files, *year, &means.keys)?.ok_or_else(|| {
                    Fault::Refused(format!("shard {year} has ended and has no checkpoint of ours: restore it from a copy"))
                })?;
                relied.extend(former.map(|former| (*year, former)));
                if signed.as_ref().is_some_and(|signed| signed.shard == *year && signed.checkpoint.size > published.checkpoint.size) {
                    return Err(Fault::Refused(format!("shard {year} was signed at a larger size than it has: restore it from a copy")));
                }
                view.shards.insert(*year, published.checkpoint.size);
                view.published = Some(published);
            }
            let (recovered, leaves, from) = recover_shard(&means, &files, current, signed.as_ref())?;
            if recovered.size > 0 {
                view.shards.insert(current, recovered.size);
                drop_segments(&*means.disk, &files.layout, &ended)?;
            }
            // Without an entry in the current shard the last one before it is what readers see last, and all of that is in files.
            (view.tail_from, view.tail) = (if recovered.size > 0 { from } else { u64::MAX }, leaves.into());
            shard = Some(recovered);
        } else if let Some(signed) = &signed {
            return Err(Fault::Refused(format!(
                "nothing is there of {} entries that were signed: restore the log from a copy",
                signed.checkpoint.size
            )));
        }
        show(&means.shared, view);
        retiring::check_chain(&files)?;
        if let Some(at) = last_of(&means) {
            let leaf = files.leaves().leaf(at)?.ok_or_else(|| Fault::Refused(format!("the last entry {at} is not there")))?;
            last_ms = leaf::decode(&leaf)?.0.logged_time;
        }
        let index = caught_up(&means, &files)?;
        retiring::confirm(&files, &index)?;
        means.shared.set_missing(index.missing);
        let (closing, gaps) = (Wait::new(means.close_after_ms), Wait::new(means.gap_grace_ms));
        let mut core = Self { means, files, state, index, shard, last_ms, closing, gaps, announced: None };
        core.check_succession(&relied)?;
        // Another successor in the place of one that was lost: a checkpoint without either would count for nobody.
        if core.announced.is_some() && core.must_announce() {
            core.tick(core.last_ms)?;
        }
        // Whatever was not in a checkpoint is, before anything new is; and what was is there again, as a power cut may have left it half written.
        if core.shard.as_ref().is_some_and(|shard| shard.size > 0) {
            core.seal()?;
        }
        // Now that it is signed, too.
        let Self { means, files, state, index, shard, last_ms, closing, gaps, announced } = core;
        let index = retiring::carry_on(&means, &files, index)?;
        means.shared.set_missing(index.missing);
        Ok(Self { means, files, state, index, shard, last_ms, closing, gaps, announced })
    }
}

/// The years that there are. The newest that was signed must be among them; a newer one that holds nothing is none yet, whoever made its directory: what is
/// logged belongs to the year that it is logged in.
fn years(means: &Means, files: &Files, signed: Option<&Published>) -> Result<Vec<u16>, Fault> {
    let list = |directory: &Path| means.disk.list(directory).map_err(Fault::io(directory));
    let is_year = |name: &String| name.len() == 4 && name.bytes().all(|byte| byte.is_ascii_digit());
    let mut years: Vec<u16> = list(&means.root)?.iter().filter(|name| is_year(name)).filter_map(|name| name.parse().ok()).collect();
    years.sort_unstable();
    if let Some(signed) = signed.filter(|signed| !years.is_empty() && !years.contains(&signed.shard)) {
        let (shard, size) = (signed.shard, signed.checkpoint.size);
        return Err(Fault::Refused(format!(
            "nothing is there of shard {shard}, which was signed with {size} entries: restore it from a copy"
        )));
    }
    while let Some(newest) = years.last().copied().filter(|newest| signed.is_none_or(|signed| signed.shard < *newest)) {
        if !list(&files.layout.wal(newest))?.is_empty() || !list(&files.layout.log(newest))?.is_empty() {
            break;
        }
        years.pop();
    }
    Ok(years)
}

/// The last entry of the log.
fn last_of(means: &Means) -> Option<Position> {
    let view = means.shared.view();
    let (shard, size) = view.shards.iter().rev().find(|(_, size)| **size > 0)?;
    Some(Position { shard: *shard, index: size - 1 })
}

/// The published checkpoint of a shard, if it is ours.
fn read_published(files: &Files, year: u16, keys: &Keys) -> Result<Option<Signed>, Fault> {
    let path = files.layout.log(year).join("checkpoint");
    match files.disk.read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        read => match read_note(&path, &read.map_err(Fault::io(&path))?, keys)? {
            Some(signed) if signed.published.shard != year => Err(Fault::Refused(format!(
                "{} is the checkpoint of shard {}: that directory stands under the name of another year",
                path.display(),
                signed.published.shard
            ))),
            signed => Ok(signed),
        },
    }
}

/// The shard that is written, and its leaves from the first bundle on that is not known to be durable.
fn recover_shard(means: &Means, files: &Files, year: u16, signed: Option<&Published>) -> Result<(Shard, Vec<Bytes>, u64), Fault> {
    let disk = &*means.disk;
    let directory = files.layout.wal(year);
    let signed = signed.filter(|signed| signed.shard == year);
    // What was published without being durable may be half there after a power cut; what is whole and ours binds as what is remembered does.
    let published = read_published(files, year, &means.keys)?;
    if let Some(published) = published.as_ref().filter(|published| signed.is_none_or(|signed| signed.checkpoint.size < published.place().1))
    {
        published.check_newest()?;
    }
    let published = published.map(|signed| signed.published);
    let mut witnessed: Vec<&Published> = signed.into_iter().chain(&published).collect();
    witnessed.sort_by_key(|published| published.checkpoint.size);
    let promised = witnessed.last().map_or(0, |published| published.checkpoint.size);

    let (wal, recovered) = match Wal::recover(disk, &directory, means.segment_bytes)? {
        Some((wal, recovered)) => (wal, recovered),
        None if promised == 0 => (Wal::create(disk, &directory, 0, means.segment_bytes)?, super::wal::Recovered::default()),
        None => {
            return Err(Fault::Refused(format!(
                "{} is empty, and {promised} entries were signed: restore it from a copy",
                directory.display()
            )));
        }
    };
    let width = u64::from(TILE_WIDTH);
    let size = recovered.first + recovered.leaves.len() as u64;
    // The bundle in which the write-ahead log begins is durable, or its first segments would be there still. It must stay as it is: some of its entries are
    // nowhere else.
    let base = recovered.first.div_ceil(width) * width;
    if size < promised.max(base) {
        return Err(Fault::Refused(format!(
            "shard {year} has {size} entries, and {} were signed: it is an older copy, or was cut. Restore the newer one",
            promised.max(base)
        )));
    }
    let mut leaves = recovered.leaves;
    drop(leaves.drain(..usize::try_from(base - recovered.first).unwrap_or(0)));

    let frontier = restore(files, year, base)?;
    let mut growing = frontier.clone();
    for published in witnessed {
        let checkpoint = &published.checkpoint;
        let root = if checkpoint.size < base {
            let read = |tile| read_tile(files, year, base, tile);
            tree_root(&mut TileHashes::new(checkpoint.size, read), checkpoint.size).map_err(|error| Fault::Refused(error.to_string()))?
        } else {
            let (from, to) = (usize::try_from(growing.size() - base).unwrap_or(0), usize::try_from(checkpoint.size - base).unwrap_or(0));
            leaves[from..to].iter().for_each(|leaf| growing.append(leaf_hash(leaf), |_| {}));
            growing.root()
        };
        if root != checkpoint.root {
            return Err(Fault::Refused(format!(
                "shard {year} is not what was signed for its first {} entries: it was changed, or is another log's. Restore it from a copy",
                checkpoint.size
            )));
        }
    }
    let mut closed: Vec<(u64, u64)> = recovered.closed.windows(2).map(|pair| (pair[0], pair[1])).collect();
    if let Some(last) = recovered.closed.last() {
        closed.push((*last, wal.first()));
    }
    let partials = vec![stale_partials(files, year, [promised, size])?];
    Ok((Shard { year, wal, frontier, size, settled: base, closed, partials }, leaves, base))
}

/// Partial tiles that an earlier process left at the right edges of trees of these sizes.
fn stale_partials(files: &Files, year: u16, sizes: [u64; 2]) -> Result<Vec<TilePath>, Fault> {
    let mut stale = Vec::new();
    let levels = (0..8).map(TileLevel::Hashes).chain([TileLevel::Entries]);
    for (level, size) in levels.flat_map(|level| sizes.map(|size| (level, size))) {
        let shift = if let TileLevel::Hashes(level) = level { 8 * u32::from(level) + 8 } else { 8 };
        let index = size.checked_shr(shift).unwrap_or(0);
        let path = files.layout.tile(year, TilePath { level, index, width: 1 });
        let directory = path.parent().unwrap_or(&path);
        let names = files.disk.list(directory).map_err(Fault::io(directory))?;
        stale.extend(names.iter().filter_map(|name| name.parse().ok()).map(|width| TilePath { level, index, width }));
    }
    Ok(stale)
}

/// The right edge of a tree of `size` leaves, all of them in full tiles of the lowest level.
fn restore(files: &Files, year: u16, size: u64) -> Result<Frontier, Fault> {
    Frontier::restore(size, |tile| read_tile(files, year, size, tile)).map_err(|error| match error {
        fte_tlog::RestoreError::Read { source, .. } => source,
        error @ fte_tlog::RestoreError::Length { .. } => Fault::Refused(error.to_string()),
    })
}

/// A tile of a tree of `size` leaves, whose partial tiles are made from the full ones below them.
fn read_tile(files: &Files, year: u16, size: u64, tile: TilePath) -> Result<Vec<u8>, Fault> {
    let read = |tile: TilePath| {
        let path = files.layout.tile(year, tile);
        files.disk.read(&path).map_err(Fault::io(&path))
    };
    let below = match tile.level {
        TileLevel::Hashes(level) if level > 0 => TileLevel::Hashes(level - 1),
        _ => return read(TilePath::full(tile.level, tile.index)),
    };
    let is_full = TilePath::in_tree(tile.level, tile.index, size).is_some_and(|tile| tile.is_full());
    if is_full {
        return read(TilePath::full(tile.level, tile.index));
    }
    let mut bytes = Vec::with_capacity(usize::from(tile.width) * 32);
    for child in 0..u64::from(tile.width) {
        let child = TilePath::full(below, tile.index * u64::from(TILE_WIDTH) + child);
        let hashes = parse_tile(&read(child)?, TILE_WIDTH);
        let root: Option<Hash> = hashes.as_deref().and_then(perfect_root);
        let root = root.ok_or_else(|| {
            Fault::Refused(format!("{} is no full tile: restore it from a copy", files.layout.tile(year, child).display()))
        })?;
        bytes.extend_from_slice(&root.0);
    }
    Ok(bytes)
}

/// Refuses where the index has entries and of the log there is nothing: a new one would stand in its place, under its key.
fn check_not_alone(index: &Index, files: &Files) -> Result<(), Fault> {
    let view = files.shared.view();
    match index.done()?.filter(|_| view.shards.is_empty() && view.retired.is_empty()) {
        Some((last, _)) => Err(Fault::Refused(format!(
            "{} has entries up to {last}, and nothing of the log is there: restore it from a copy. To begin another log, move all of this directory away",
            files.layout.index().display()
        ))),
        None => Ok(()),
    }
}

/// The index, with every entry of the log.
pub(super) fn caught_up(means: &Means, files: &Files) -> Result<Index, Fault> {
    let path = files.layout.index();
    let open = || Index::open(&path, means.cache_kib).map_err(Fault::from);
    // Someone met damage in it, which opening it need not meet.
    let found = if files.shared.is_index_damaged() {
        Ok(None)
    } else {
        open().and_then(|index| {
            check_not_alone(&index, files)?;
            catch_up(index, files, &mut |_| {})
        })
    };
    let index = match found {
        Ok(Some(index)) => index,
        Err(error) if !error.is_damaged_index() => return Err(error),
        unusable => {
            if let Err(error) = unusable {
                tracing::warn!(%error, path = %path.display(), "the index of the audit log is damaged");
            }
            tracing::warn!(path = %path.display(), "the index of the audit log is made again from the log");
            files.shared.begin_index();
            remove_index(&path)?;
            catch_up(open()?, files, &mut |_| {})?.ok_or_else(|| Fault::Refused("a new index is of another log".to_owned()))?
        }
    };
    files.shared.end_index();
    Ok(index)
}

/// Removes the index; it is made again at the next start.
pub(super) fn remove_index(path: &Path) -> Result<(), Fault> {
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        match std::fs::remove_file(Path::new(&name)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            removed => removed.map_err(Fault::io(Path::new(&name)))?,
        }
    }
    Ok(())
}

/// Takes in what the index does not have, and tells how many entries that are so far. `None` if it is of another log.
pub(super) fn catch_up(mut index: Index, files: &Files, progress: &mut dyn FnMut(u64)) -> Result<Option<Index>, Fault> {
    let (shards, retired) = {
        let view = files.shared.view();
        let shards: Vec<(u16, u64)> = view.shards.iter().map(|(shard, size)| (*shard, *size)).collect();
        (shards, view.retired.keys().next_back().copied())
    };
    let done = index.done()?;
    if let (Some((first, _)), Some(before)) = (shards.first(), retired) {
        // It has rows of what is retired.
        if index.begins_before(*first)? {
            return Ok(None);
        }
        if !retiring::is_recorded_in(files, &index, *first)? {
            index.begin_behind(*first, before);
        }
    }
    let mut leaves = files.leaves();
    if let Some((at, hash)) = done {
        match leaves.leaf(at)? {
            Some(leaf) if leaf_hash(&leaf).0 == hash => {}
            _ => return Ok(None),
        }
    }
    let mut in_group = 0;
    let mut taken = 0;
    let mut last = None;
    for (shard, size) in shards {
        let from = match done {
            Some((at, _)) if at.shard > shard => continue,
            Some((at, _)) if at.shard == shard => at.index + 1,
            _ => 0,
        };
        for entry in from..size {
            let at = Position { shard, index: entry };
            let leaf = leaves.leaf(at)?.ok_or_else(|| Fault::Refused(format!("the entry {at} is not there")))?;
            if in_group == 0 {
                index.begin()?;
            }
            index.apply(&leaf::decode(&leaf)?.0, at)?;
            last = Some((at, leaf_hash(&leaf).0));
            in_group += 1;
            if in_group == CATCH_UP {
                index.commit(last)?;
                taken += u64::try_from(in_group).unwrap_or(0);
                in_group = 0;
                progress(taken);
            }
        }
    }
    if in_group > 0 {
        index.commit(last)?;
    }
    Ok(Some(index))
}
