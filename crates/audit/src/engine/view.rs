//! What readers see: how far each shard goes, the entries that are not in full bundles yet, and the last checkpoint.
//!
//! An entry is in memory until the bundle of 256 that it belongs to is full and written, so what readers take from files never changes.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use fte_service::chain;
use fte_tlog::{Bundle, TILE_WIDTH, TileLevel, TilePath};

use super::disk::Disk;
use super::fault::Fault;
use super::state::Published;
use crate::entry::Position;
use crate::leaf::{self, Header};
use crate::log::LogError;
use crate::metrics;

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
        let name = leaf::hex(digest);
        self.shard(shard).join("blobs").join(&name[..2]).join(name)
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

    pub(super) fn set_missing(&self, count: i64) {
        let count = u64::try_from(count).unwrap_or(0);
        if self.actions_missing.swap(count, Ordering::Relaxed) != count {
            metrics::actions_missing(count);
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
