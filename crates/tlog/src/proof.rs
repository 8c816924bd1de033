//! Inclusion and consistency proofs, by RFC 6962 (2.1.1, 2.1.2).
//!
//! Making one reads the hashes of perfect subtrees through [`HashReader`]; [`TileHashes`] reads them from tiles. Checking one needs nothing but the
//! proof, in the iterative form of RFC 9162, which makes and checks share no code.

use std::collections::HashMap;

use crate::hash::{Hash, empty_root, node_hash, perfect_root};
use crate::tile::{TileLevel, TilePath, parse_tile};

/// Why a proof does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    #[error("the proof has {found} hashes, and {expected} are right for these sizes")]
    Length { found: usize, expected: usize },
    #[error("the index {index} is not in a tree of {size} leaves")]
    Index { index: u64, size: u64 },
    #[error("a tree of {old} leaves is not the beginning of one of {new}")]
    Sizes { old: u64, new: u64 },
    #[error("the proof does not lead to the root of the tree")]
    Root,
    #[error("the proof does not lead to the root of the earlier tree")]
    OldRoot,
}

/// Where hashes of a tree are read from.
pub trait HashReader {
    type Error;

    /// The hash of the perfect subtree of 2^`height` leaves that begins at leaf `index` · 2^`height`. It is asked only for what the tree has.
    fn subtree(&mut self, height: u32, index: u64) -> Result<Hash, Self::Error>;
}

/// The root of the leaves from `start` to `end`, which begin a subtree of the tree. By the definition of RFC 6962.
fn range_root<R: HashReader>(reader: &mut R, start: u64, end: u64) -> Result<Hash, R::Error> {
    let count = end - start;
    if count.is_power_of_two() && start.is_multiple_of(count) {
        return reader.subtree(count.trailing_zeros(), start >> count.trailing_zeros());
    }
    let split = start + split_of(count);
    let left = range_root(reader, start, split)?;
    Ok(node_hash(&left, &range_root(reader, split, end)?))
}

/// The largest power of two below `count`, which is 2 or more.
fn split_of(count: u64) -> u64 {
    1 << (63 - (count - 1).leading_zeros())
}

/// The root of a tree of `size` leaves.
pub fn tree_root<R: HashReader>(reader: &mut R, size: u64) -> Result<Hash, R::Error> {
    if size == 0 { Ok(empty_root()) } else { range_root(reader, 0, size) }
}

/// A proof that the leaf `index` is in the tree of `size` leaves, from the leaf's sibling up. The index must be below the size; the proof of another is empty.
pub fn prove_inclusion<R: HashReader>(reader: &mut R, index: u64, size: u64) -> Result<Vec<Hash>, R::Error> {
    let mut proof = Vec::new();
    let (mut start, mut end) = (0, size);
    while index < size && end - start > 1 {
        let split = start + split_of(end - start);
        if index < split {
            proof.push(range_root(reader, split, end)?);
            end = split;
        } else {
            proof.push(range_root(reader, start, split)?);
            start = split;
        }
    }
    proof.reverse();
    Ok(proof)
}

/// A proof that the tree of `old` leaves is the beginning of that of `new`. Empty for equal sizes, and from 0, where there is nothing to prove.
pub fn prove_consistency<R: HashReader>(reader: &mut R, old: u64, new: u64) -> Result<Vec<Hash>, R::Error> {
    let mut proof = Vec::new();
    if old == 0 || old >= new {
        return Ok(proof);
    }
    let (mut start, mut end) = (0, new);
    // Whether the subtree at hand begins the tree, so that who checks knows its old root already.
    let mut known = true;
    while end != old {
        let split = start + split_of(end - start);
        if old <= split {
            proof.push(range_root(reader, split, end)?);
            end = split;
        } else {
            proof.push(range_root(reader, start, split)?);
            start = split;
            known = false;
        }
    }
    if !known {
        proof.push(range_root(reader, start, end)?);
    }
    proof.reverse();
    Ok(proof)
}

/// Checks that the leaf with this hash is number `index` of the tree with this root.
pub fn check_inclusion(proof: &[Hash], index: u64, leaf: &Hash, size: u64, root: &Hash) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError::Index { index, size });
    }
    let (mut at, mut last, mut hash) = (index, size - 1, *leaf);
    let mut used = 0;
    while last > 0 {
        // A node without a right sibling, at the tree's edge, moves up as it is.
        if at % 2 == 1 || at < last {
            let sibling = proof.get(used).ok_or_else(|| length(proof, index, size))?;
            used += 1;
            hash = if at % 2 == 1 { node_hash(sibling, &hash) } else { node_hash(&hash, sibling) };
        }
        (at, last) = (at / 2, last / 2);
    }
    if used != proof.len() {
        return Err(length(proof, index, size));
    }
    if hash == *root { Ok(()) } else { Err(ProofError::Root) }
}

fn length(proof: &[Hash], index: u64, size: u64) -> ProofError {
    let (mut at, mut last, mut expected) = (index, size - 1, 0);
    while last > 0 {
        expected += usize::from(at % 2 == 1 || at < last);
        (at, last) = (at / 2, last / 2);
    }
    ProofError::Length { found: proof.len(), expected }
}

/// Checks that the tree of `old` leaves with its root is the beginning of that of `new` leaves with its root.
pub fn check_consistency(proof: &[Hash], old: u64, old_root: &Hash, new: u64, new_root: &Hash) -> Result<(), ProofError> {
    if old > new {
        return Err(ProofError::Sizes { old, new });
    }
    if old == 0 || old == new {
        let expected_root = if old == 0 { &empty_root() } else { new_root };
        return match (proof, old_root == expected_root) {
            ([], true) => Ok(()),
            ([], false) => Err(ProofError::OldRoot),
            (proof, _) => Err(ProofError::Length { found: proof.len(), expected: 0 }),
        };
    }
    let (mut at, mut last) = (old - 1, new - 1);
    while at % 2 == 1 {
        (at, last) = (at / 2, last / 2);
    }
    let mut hashes = proof.iter();
    // Where the old tree is one perfect subtree, its root begins the proof and is left out of it.
    let first = if at > 0 { hashes.next().copied() } else { Some(*old_root) };
    let too_short = ProofError::Length { found: proof.len(), expected: proof.len() + 1 };
    let mut before = first.ok_or(too_short)?;
    let mut after = before;
    while last > 0 {
        if at % 2 == 1 {
            let sibling = hashes.next().ok_or(too_short)?;
            before = node_hash(sibling, &before);
            after = node_hash(sibling, &after);
        } else if at < last {
            after = node_hash(&after, hashes.next().ok_or(too_short)?);
        }
        (at, last) = (at / 2, last / 2);
    }
    match hashes.len() {
        0 if before != *old_root => Err(ProofError::OldRoot),
        0 if after != *new_root => Err(ProofError::Root),
        0 => Ok(()),
        left => Err(ProofError::Length { found: proof.len(), expected: proof.len() - left }),
    }
}

/// Reads hashes from the tiles of a tree. `read` gives a tile's bytes, the tile's own or, for a partial one, those of the full one.
pub struct TileHashes<F> {
    size: u64,
    read: F,
    /// The tiles read so far, within one proof at most two for each level.
    tiles: HashMap<TilePath, Vec<Hash>>,
}

impl<F> TileHashes<F> {
    /// Of a tree of `size` leaves.
    pub fn new(size: u64, read: F) -> Self {
        Self { size, read, tiles: HashMap::new() }
    }
}

/// A tile that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TileError<E> {
    #[error("the tile {path} cannot be read")]
    Read { path: TilePath, source: E },
    #[error("the tile {path} has {bytes} bytes, which is not its length")]
    Length { path: TilePath, bytes: usize },
    #[error("the tree of {size} leaves has no subtree of height {height} at {index}")]
    NotInTree { height: u32, index: u64, size: u64 },
}

impl<E, F: FnMut(TilePath) -> Result<Vec<u8>, E>> HashReader for TileHashes<F> {
    type Error = TileError<E>;

    fn subtree(&mut self, height: u32, index: u64) -> Result<Hash, TileError<E>> {
        let size = self.size;
        let outside = TileError::NotInTree { height, index, size };
        let (level, within) = (height / 8, height % 8);
        // The subtree is 2^within neighbouring hashes of this level, all in one tile.
        let Some((first, level)) = index.checked_mul(1 << within).zip(u8::try_from(level).ok()) else { return Err(outside) };
        let Some(path) = TilePath::in_tree(TileLevel::Hashes(level), first / 256, size) else { return Err(outside) };
        if !self.tiles.contains_key(&path) {
            let bytes = (self.read)(path).map_err(|source| TileError::Read { path, source })?;
            let hashes = parse_tile(&bytes, path.width).or_else(|| parse_tile(&bytes, path.filled().width));
            self.tiles.insert(path, hashes.ok_or(TileError::Length { path, bytes: bytes.len() })?);
        }
        let start = usize::try_from(first % 256).unwrap_or(usize::MAX);
        let hashes = self.tiles.get(&path).filter(|_| start + (1 << within) <= usize::from(path.width));
        hashes.and_then(|hashes| hashes.get(start..start + (1 << within))).and_then(perfect_root).ok_or(outside)
    }
}

#[cfg(test)]
mod tests;
