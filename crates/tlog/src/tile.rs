//! Where the hashes of a tree stand: tiles of 256 hashes, by C2SP `tlog-tiles`.
//!
//! Hash i of tile n on level l covers the 256^l leaves from (256·n + i)·256^l on. A tree has, on each level, full tiles and at most one partial tile
//! at its right edge; only full tiles are hashed into the level above.

use std::fmt;
use std::str::FromStr;

use crate::decimal;
use crate::hash::Hash;

/// The hashes of a full tile.
pub const TILE_WIDTH: u16 = 256;

/// Which row of tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TileLevel {
    /// The leaves themselves: entry bundles.
    Entries,
    /// Hashes; level 0 are those of the leaves. From 0 to 63.
    Hashes(u8),
}

/// The place of a tile or an entry bundle, below the log's prefix: `tile/0/x001/x234/067` or `tile/entries/000.p/17`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TilePath {
    pub level: TileLevel,
    pub index: u64,
    /// How many hashes or entries it has, from 1 to 256; below 256 it is a partial one.
    pub width: u16,
}

/// A text that is no place of a tile.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no path of a tile, which looks like tile/0/x001/x234/067, tile/entries/000 or tile/1/000.p/17")]
pub struct TilePathError(String);

impl TilePath {
    /// A full tile.
    pub const fn full(level: TileLevel, index: u64) -> Self {
        Self { level, index, width: TILE_WIDTH }
    }

    /// The tile at this place in a tree of `size` leaves: full, partial, or `None` where the tree does not reach.
    pub fn in_tree(level: TileLevel, index: u64, size: u64) -> Option<Self> {
        let hashes = hashes_on(level, size);
        let start = index.checked_mul(u64::from(TILE_WIDTH))?;
        let width = hashes.checked_sub(start)?.min(u64::from(TILE_WIDTH));
        let width = u16::try_from(width).ok().filter(|width| *width > 0)?;
        Some(Self { level, index, width })
    }

    pub const fn is_full(&self) -> bool {
        self.width == TILE_WIDTH
    }

    /// The full tile that takes the place of a partial one.
    pub const fn filled(self) -> Self {
        Self::full(self.level, self.index)
    }
}

/// How many hashes a tree of `size` leaves has on a level.
fn hashes_on(level: TileLevel, size: u64) -> u64 {
    match level {
        TileLevel::Entries => size,
        TileLevel::Hashes(level) => size.checked_shr(8 * u32::from(level)).unwrap_or(0),
    }
}

impl fmt::Display for TilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.level {
            TileLevel::Entries => f.write_str("tile/entries/")?,
            TileLevel::Hashes(level) => write!(f, "tile/{level}/")?,
        }
        let digits = format!("{:03}", self.index);
        let digits = format!("{}{digits}", "0".repeat((3 - digits.len() % 3) % 3));
        for at in (0..digits.len()).step_by(3) {
            let last = at + 3 == digits.len();
            write!(f, "{}{}{}", if last { "" } else { "x" }, &digits[at..at + 3], if last { "" } else { "/" })?;
        }
        if self.is_full() { Ok(()) } else { write!(f, ".p/{}", self.width) }
    }
}

impl FromStr for TilePath {
    type Err = TilePathError;
    fn from_str(text: &str) -> Result<Self, TilePathError> {
        // Whatever is read leniently here must come out as it went in: each place has one path.
        read_path(text).filter(|path| path.to_string() == text).ok_or_else(|| TilePathError(text.chars().take(100).collect()))
    }
}

fn read_path(text: &str) -> Option<TilePath> {
    let (level, rest) = text.strip_prefix("tile/")?.split_once('/')?;
    let level = match level {
        "entries" => TileLevel::Entries,
        level => TileLevel::Hashes(u8::try_from(decimal(level)?).ok().filter(|level| *level <= 63)?),
    };
    let (index, width) = match rest.split_once(".p/") {
        Some((index, width)) => (index, u16::try_from(decimal(width)?).ok().filter(|width| (1..TILE_WIDTH).contains(width))?),
        None => (rest, TILE_WIDTH),
    };
    let digits: String = index.split('/').map(|group| group.strip_prefix('x').unwrap_or(group)).collect();
    Some(TilePath { level, index: digits.parse().ok()?, width })
}

/// The hashes of a tile of this width; `None` when the bytes are not exactly as many.
pub fn parse_tile(bytes: &[u8], width: u16) -> Option<Vec<Hash>> {
    let (hashes, rest) = bytes.as_chunks::<32>();
    (rest.is_empty() && hashes.len() == usize::from(width)).then(|| hashes.iter().map(|hash| Hash(*hash)).collect())
}

/// Every hash tile of a tree of `size` leaves, full and partial, by level and then by index.
pub fn tiles_of_size(size: u64) -> impl Iterator<Item = TilePath> {
    tiles_of_growth(0, size)
}

/// The hash tiles that a tree writes when it grows from `old` to `new` leaves: those that become full, and the partial ones at the new right edge. By
/// level and then by index; none where nothing grew. Entry bundles are at the places of level 0.
pub fn tiles_of_growth(old: u64, new: u64) -> impl Iterator<Item = TilePath> {
    let levels = (0..8).map(TileLevel::Hashes).filter(move |level| hashes_on(*level, new) > hashes_on(*level, old));
    levels.flat_map(move |level| {
        let width = u64::from(TILE_WIDTH);
        let first = hashes_on(level, old) / width;
        (first..hashes_on(level, new).div_ceil(width)).filter_map(move |index| TilePath::in_tree(level, index, new))
    })
}

#[cfg(test)]
mod tests;
