//! The stored hashes, from the signed root down.
//!
//! The tiles at the right edge give the root, which is signed; so they are right. Each full tile's root is a hash in the tile above; so it is right if that
//! is. A tile or a bundle that does not agree with what is above it is therefore itself what was changed, and can be named. From the leaves up one would
//! learn only that two files disagree.

use std::collections::HashMap;
use std::io;

use fte_tlog::{Frontier, Hash, RestoreError, TileLevel, TilePath, parse_tile, perfect_root};

use super::report::Finding;
use super::source::Source;

/// Why the walk ends: something was found, or a file could not be read.
#[derive(Debug)]
pub(super) enum Stop {
    Found(Finding),
    Io(String, io::Error),
}

/// The tile's or bundle's bytes, of its own file or of the full one that replaced it (then longer than asked for).
pub(super) fn read(source: &dyn Source, path: TilePath) -> Result<(String, Vec<u8>), Stop> {
    let mut names = vec![path.to_string()];
    if !path.is_full() {
        names.push(path.filled().to_string());
    }
    for name in &names {
        if let Some(bytes) = source.read(name).map_err(|error| Stop::Io(name.clone(), error))? {
            return Ok((name.clone(), bytes));
        }
    }
    Err(Stop::Found(Finding::incomplete(&names[0], "the file is not there").at(first_leaf(path), None)))
}

/// The first leaf that a tile is about.
pub(super) fn first_leaf(path: TilePath) -> u64 {
    let level = match path.level {
        TileLevel::Entries => 0,
        TileLevel::Hashes(level) => u32::from(level),
    };
    let leaves = 256_u64.checked_pow(level + 1).and_then(|leaves| leaves.checked_mul(path.index));
    leaves.unwrap_or(if path.index == 0 { 0 } else { u64::MAX })
}

/// A tile's hashes. A file of its own has them exactly; of a full one in its place the first count.
pub(super) fn hashes(source: &dyn Source, path: TilePath) -> Result<(String, Vec<Hash>), Stop> {
    let (name, bytes) = read(source, path)?;
    let own = if name == path.to_string() { path.width } else { path.filled().width };
    let Some(mut hashes) = parse_tile(&bytes, own) else {
        let expected = u64::from(own) * 32;
        let byte = expected.min(bytes.len() as u64);
        let what = format!("{} bytes instead of {expected}", bytes.len());
        return Err(Stop::Found(Finding::tampered(name, what).at(first_leaf(path), byte)));
    };
    hashes.truncate(usize::from(path.width));
    Ok((name, hashes))
}

/// The root that the tiles at the right edge give.
pub(super) fn edge_root(source: &dyn Source, size: u64) -> Result<Hash, Stop> {
    let edge = Frontier::restore(size, |path| hashes(source, path).map(|(_, hashes)| hashes.iter().flat_map(|hash| hash.0).collect()));
    match edge {
        Ok(edge) => Ok(edge.root()),
        Err(RestoreError::Read { source, .. }) => Err(source),
        Err(RestoreError::Length { path, .. }) => Err(Stop::Found(Finding::tampered(path, "not of its length"))),
    }
}

/// Reads tiles of a tree whose right edge is known to be right, each checked against the one above. Holds one tile of each level.
pub(super) struct Tiles<'s> {
    source: &'s dyn Source,
    size: u64,
    held: HashMap<u8, (u64, Vec<Hash>)>,
}

impl<'s> Tiles<'s> {
    pub(super) fn new(source: &'s dyn Source, size: u64) -> Self {
        Self { source, size, held: HashMap::new() }
    }

    /// The hashes of a tile.
    pub(super) fn tile(&mut self, level: u8, index: u64) -> Result<&[Hash], Stop> {
        if self.held.get(&level).is_none_or(|(held, _)| *held != index) {
            let outside = || Stop::Found(Finding::tampered("checkpoint", "the size is not that of the tiles"));
            let path = TilePath::in_tree(TileLevel::Hashes(level), index, self.size).ok_or_else(outside)?;
            let (name, read) = hashes(self.source, path)?;
            if path.is_full() {
                let above = self.tile(level + 1, index / 256)?;
                let expected = above.get(usize::try_from(index % 256).unwrap_or(0)).copied();
                if expected.is_none() || perfect_root(&read) != expected {
                    let what = "its hashes do not give the hash that stands for it in the tile above";
                    return Err(Stop::Found(Finding::tampered(name, what).at(first_leaf(path), None)));
                }
            }
            self.held.insert(level, (index, read));
        }
        Ok(self.held.get(&level).map_or(&[], |(_, hashes)| hashes))
    }
}
