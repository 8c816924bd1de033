//! The right edge of a growing tree: all that is needed to append leaves, to write tiles and to know the root.
//!
//! It holds the partial tile of each level, at most 8 × 255 hashes (64 KiB), rather than the one hash per bit of the size that a root needs: the
//! partial tiles must be written with each checkpoint anyway, and they are where it is read back from. Nothing of its own is stored.

use crate::hash::{Hash, empty_root, node_hash, perfect_root};
use crate::tile::{TILE_WIDTH, TileLevel, TilePath, parse_tile};

/// The partial tiles at the right edge of a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    /// By level, from the leaves' hashes up; each has less than 256.
    levels: Vec<Vec<Hash>>,
}

/// A tile that has become full, and is never written again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FullTile {
    pub path: TilePath,
    /// 256 of them.
    pub hashes: Vec<Hash>,
}

impl FullTile {
    /// The tile's file: 8 192 bytes.
    pub fn bytes(&self) -> Vec<u8> {
        tile_bytes(&self.hashes)
    }
}

fn tile_bytes(hashes: &[Hash]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| hash.0).collect()
}

/// Why a right edge cannot be read back.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError<E> {
    #[error("the tile {path} of the log's right edge cannot be read")]
    Read { path: TilePath, source: E },
    #[error("the tile {path} of the log's right edge has {bytes} bytes, and {expected} are right")]
    Length { path: TilePath, bytes: usize, expected: usize },
}

impl Frontier {
    /// The number of leaves.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Appends the hash of a leaf. Each tile that it fills is handed to `full`, from the leaves' level up.
    pub fn append(&mut self, leaf: Hash, mut full: impl FnMut(FullTile)) {
        self.size += 1;
        let mut carried = leaf;
        for level in 0_u8.. {
            let at = usize::from(level);
            if self.levels.len() == at {
                self.levels.push(Vec::with_capacity(usize::from(TILE_WIDTH)));
            }
            self.levels[at].push(carried);
            if self.levels[at].len() < usize::from(TILE_WIDTH) {
                return;
            }
            let hashes = std::mem::replace(&mut self.levels[at], Vec::with_capacity(usize::from(TILE_WIDTH)));
            let Some(root) = perfect_root(&hashes) else { return };
            // The tile's last hash is that of the leaves up to the size.
            let index = (self.size >> (8 * u32::from(level) + 8)) - 1;
            full(FullTile { path: TilePath::full(TileLevel::Hashes(level), index), hashes });
            carried = root;
        }
    }

    /// The root of the tree.
    pub fn root(&self) -> Hash {
        // From the right: the smaller subtrees are the later ones, and each joins what is to its right.
        let mut root: Option<Hash> = None;
        for tile in &self.levels {
            let mut rest = tile.as_slice();
            while !rest.is_empty() {
                let (before, subtree) = rest.split_at(rest.len() - (1 << rest.len().trailing_zeros()));
                rest = before;
                let left = perfect_root(subtree);
                root = match (left, root) {
                    (Some(left), Some(right)) => Some(node_hash(&left, &right)),
                    (left, right) => left.or(right),
                };
            }
        }
        root.unwrap_or_else(empty_root)
    }

    /// The partial tiles that a checkpoint of this size needs, with their bytes.
    pub fn partial_tiles(&self) -> impl Iterator<Item = (TilePath, Vec<u8>)> + '_ {
        (0_u8..).zip(&self.levels).filter_map(|(level, hashes)| {
            let width = u16::try_from(hashes.len()).ok().filter(|width| *width > 0)?;
            let index = self.size.checked_shr(8 * u32::from(level) + 8).unwrap_or(0);
            Some((TilePath { level: TileLevel::Hashes(level), index, width }, tile_bytes(hashes)))
        })
    }

    /// Reads the right edge of a tree of `size` leaves back from its partial tiles. `read` returns a tile's bytes; those of the full tile do as well, for
    /// a partial one that is gone. Whether the tiles are right shows in [`root`](Self::root): compare it with the checkpoint's.
    pub fn restore<E>(size: u64, mut read: impl FnMut(TilePath) -> Result<Vec<u8>, E>) -> Result<Self, RestoreError<E>> {
        let mut levels = Vec::new();
        for level in 0_u8..8 {
            let width = u16::try_from((size >> (8 * u32::from(level))) % u64::from(TILE_WIDTH)).unwrap_or(0);
            let index = size.checked_shr(8 * u32::from(level) + 8).unwrap_or(0);
            let mut hashes = Vec::with_capacity(usize::from(TILE_WIDTH));
            if width > 0 {
                let path = TilePath { level: TileLevel::Hashes(level), index, width };
                let bytes = read(path).map_err(|source| RestoreError::Read { path, source })?;
                let read = parse_tile(&bytes, width).or_else(|| parse_tile(&bytes, TILE_WIDTH));
                let expected = usize::from(width) * 32;
                hashes.extend(read.ok_or(RestoreError::Length { path, bytes: bytes.len(), expected })?);
                hashes.truncate(usize::from(width));
            }
            levels.push(hashes);
        }
        while levels.last().is_some_and(Vec::is_empty) {
            levels.pop();
        }
        Ok(Self { size, levels })
    }
}

#[cfg(test)]
mod tests;
