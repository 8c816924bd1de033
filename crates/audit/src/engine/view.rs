//! What readers see: how far each shard goes, the entries that are not in full bundles yet, and the last checkpoint.
//!
//! An entry is in memory until the bundle of 256 that it belongs to is full and written, so what readers take from files never changes.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use fte_service::chain;
use fte_tlog::{Bundle, TILE_WIDTH, TileLevel, TilePath};

use super::disk::Disk;
use super::fault::Fault;
use super::retiring::{self, Retired};
use super::state::Published;
use crate::entry::Position;
use crate::entry::leaf::{self, Header};
use crate::log::LogError;
use crate::metrics;

/// A clock that is put right by less than this is nothing to tell of.
const CLOCK_BEHIND_SEC: u64 = 60;

/// Where the parts of the log are.
#[derive(Clone)]
pub(super) struct Layout {
    pub(super) root: PathBuf,
}

impl Layout {
    pub(super) fn shard(&self, shard: u16) -> PathBuf {
        self.root.join(shard.to_string())
    }
    pub(super) fn wal(&self, shard: u16) -> PathBuf {
        self.shard(shard).join("wal")
    }
    pub(super) fn log(&self, shard: u16) -> PathBuf {
        self.shard(shard).join("log")
    }
    pub(super) fn tile(&self, shard: u16, tile: TilePath) -> PathBuf {
        self.log(shard).join(tile.to_string())
    }
    pub(super) fn blob(&self, shard: u16, digest: &[u8; 32]) -> PathBuf {
        let name = fte_events::hex(digest);
        self.shard(shard).join("blobs").join(&name[..2]).join(name)
    }
    /// That a shard was retired: it is written before the first of its files is removed, and stays.
    pub(super) fn retired(&self, shard: u16) -> PathBuf {
        self.shard(shard).join(retiring::FILE)
    }
    pub(super) fn state(&self) -> PathBuf {
        self.root.join("state")
    }
    /// The name that files of the tree have until they are whole.
    pub(super) fn temporary(&self) -> PathBuf {
        self.state().join("new")
    }
    pub(super) fn index(&self) -> PathBuf {
        self.root.join("index.sqlite")
    }
}

#[derive(Default)]
pub(super) struct View {
    /// How many entries each shard has; the last is written to.
    pub(super) shards: BTreeMap<u16, u64>,
    /// Of these only the final checkpoint is left.
    pub(super) retired: BTreeMap<u16, Retired>,
    /// The index of the first entry in `tail`, in the last shard.
    pub(super) tail_from: u64,
    pub(super) tail: VecDeque<Bytes>,
    pub(super) published: Option<Published>,
}

impl View {
    pub(super) fn current(&self) -> Option<(u16, u64)> {
        self.shards.last_key_value().map(|(shard, size)| (*shard, *size))
    }

    /// Everything in memory from a place on; it is in the last shard.
    pub(super) fn tail_after(&self, after: Option<Position>) -> Vec<(Position, Bytes)> {
        let Some((shard, _)) = self.current() else { return Vec::new() };
        let placed = (self.tail_from..).zip(&self.tail).map(|(index, leaf)| (Position { shard, index }, leaf.clone()));
        placed.filter(|(at, _)| after.is_none_or(|after| *at > after)).collect()
    }
}

/// What the writer shares with readers.
#[derive(Default)]
pub(super) struct Shared {
    view: Mutex<View>,
    fault: Mutex<Option<LogError>>,
    actions_missing: AtomicU64,
    clock_behind_sec: AtomicU64,
    /// Which index it is; odd while it is being made again.
    index: AtomicU64,
    is_index_damaged: AtomicBool,
}

impl Shared {
    pub(super) fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a fault known; the first of a row is logged.
    pub(super) fn fail(&self, error: &LogError) {
        let before = self.fault.lock().unwrap_or_else(PoisonError::into_inner).replace(error.clone());
        if before.is_none() {
            tracing::error!(error = %chain(error), "nothing is recorded now; what is delivered will come again");
        }
    }

    pub(super) fn succeed(&self) {
        if self.fault.lock().unwrap_or_else(PoisonError::into_inner).take().is_some() {
            tracing::info!("the audit log records again");
        }
    }

    pub(super) fn fault(&self) -> Option<LogError> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Which index there is; none while it is being made again. Whoever reads it asks before and after: in between it may have been another.
    pub(super) fn index(&self) -> Option<u64> {
        Some(self.index.load(Ordering::SeqCst)).filter(|index| index.is_multiple_of(2))
    }

    /// The index goes, and another is made.
    pub(super) fn begin_index(&self) {
        self.index.fetch_or(1, Ordering::SeqCst);
    }

    /// There is an index with every entry, and nobody has met damage in it.
    pub(super) fn end_index(&self) {
        self.index.fetch_add(self.index.load(Ordering::SeqCst) % 2, Ordering::SeqCst);
        self.is_index_damaged.store(false, Ordering::SeqCst);
    }

    /// Has the index made again when the log is opened next.
    pub(super) fn damage_index(&self) {
        self.is_index_damaged.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_index_damaged(&self) -> bool {
        self.is_index_damaged.load(Ordering::SeqCst)
    }

    pub(super) fn set_missing(&self, count: i64) {
        let count = u64::try_from(count).unwrap_or(0);
        if self.actions_missing.swap(count, Ordering::Relaxed) != count {
            metrics::actions_missing(count);
        }
    }

    /// Tells by how much the clock is behind the log's newest entry.
    pub(super) fn set_clock_behind(&self, behind_ms: i64) {
        let behind = u64::try_from(behind_ms / 1000).unwrap_or(0);
        let before = self.clock_behind_sec.swap(behind, Ordering::Relaxed);
        if behind == before {
            return;
        }
        metrics::clock_behind(behind);
        if behind >= CLOCK_BEHIND_SEC && before < CLOCK_BEHIND_SEC {
            tracing::warn!(
                behind_sec = behind,
                "this machine's clock is behind the newest entry of the audit log, whose time stands still until it has caught up: check the clock"
            );
        } else if behind < CLOCK_BEHIND_SEC && before >= CLOCK_BEHIND_SEC {
            tracing::info!("this machine's clock has caught up with the audit log");
        }
    }

    pub(super) fn missing(&self) -> u64 {
        self.actions_missing.load(Ordering::Relaxed)
    }
}

/// Reads leaves, one bundle at a time.
pub(super) struct Leaves<'a> {
    disk: &'a dyn Disk,
    layout: &'a Layout,
    shared: &'a Shared,
    /// The bundle that was read last: its shard, its number, and where in it the leaves are.
    bundle: Option<Held>,
}

impl<'a> Leaves<'a> {
    pub(super) fn new(disk: &'a dyn Disk, layout: &'a Layout, shared: &'a Shared) -> Self {
        Self { disk, layout, shared, bundle: None }
    }

    pub(super) fn leaf(&mut self, at: Position) -> Result<Option<Bytes>, Fault> {
        let (number, place) = (at.index / u64::from(TILE_WIDTH), usize::try_from(at.index % u64::from(TILE_WIDTH)).unwrap_or(0));
        if self.bundle.as_ref().is_none_or(|(shard, held, ..)| (*shard, *held) != (at.shard, number)) {
            let size = {
                let view = self.shared.view();
                let Some(size) = view.shards.get(&at.shard).copied().filter(|size| at.index < *size) else { return Ok(None) };
                if view.current().is_some_and(|(shard, _)| shard == at.shard) && at.index >= view.tail_from {
                    let place = usize::try_from(at.index - view.tail_from).unwrap_or(usize::MAX);
                    return Ok(view.tail.get(place).cloned());
                }
                size
            };
            self.bundle = Some(read_bundle(self.disk, self.layout, at.shard, number, size)?);
        }
        let leaf = self.bundle.as_ref().and_then(|(_, _, bytes, leaves)| leaves.get(place).map(|(from, to)| bytes.slice(*from..*to)));
        Ok(leaf)
    }

    /// The payload of a leaf, which may be a blob.
    pub(super) fn payload(&self, shard: u16, header: &Header<'_>, held: &[u8]) -> Result<Vec<u8>, Fault> {
        read_payload(self.disk, self.layout, shard, header, held)
    }
}

pub(super) fn read_payload(disk: &dyn Disk, layout: &Layout, shard: u16, header: &Header<'_>, held: &[u8]) -> Result<Vec<u8>, Fault> {
    let Some(digest) = &header.payload_ref else { return Ok(held.to_vec()) };
    let path = layout.blob(shard, digest);
    let payload = disk.read(&path).map_err(Fault::io(&path))?;
    leaf::check_payload(header, &payload)?;
    Ok(payload)
}

type Held = (u16, u64, Bytes, Vec<(usize, usize)>);

/// A bundle of a shard of `size` entries.
pub(super) fn read_bundle(disk: &dyn Disk, layout: &Layout, shard: u16, number: u64, size: u64) -> Result<Held, Fault> {
    let missing = || Fault::Refused(format!("shard {shard} has no bundle {number}"));
    let tile = TilePath::in_tree(TileLevel::Entries, number, size).ok_or_else(missing)?;
    let path = layout.tile(shard, tile);
    let bytes = Bytes::from(disk.read(&path).map_err(Fault::io(&path))?);
    let leaves = places(&path, &bytes, tile.width)?;
    Ok((shard, number, bytes, leaves))
}

fn places(path: &Path, bytes: &Bytes, width: u16) -> Result<Vec<(usize, usize)>, Fault> {
    let bundle = Bundle::parse(bytes, width).map_err(|error| Fault::Refused(format!("{}: {error}", path.display())))?;
    let start = bytes.as_ptr() as usize;
    Ok(bundle.leaves().map(|leaf| (leaf.as_ptr() as usize - start, leaf.as_ptr() as usize - start + leaf.len())).collect())
}

/// A read-only disk and the places on it, for those who read.
#[derive(Clone)]
pub(super) struct Files {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) layout: Layout,
    pub(super) shared: Arc<Shared>,
}

impl Files {
    pub(super) fn leaves(&self) -> Leaves<'_> {
        Leaves::new(&*self.disk, &self.layout, &self.shared)
    }
}
