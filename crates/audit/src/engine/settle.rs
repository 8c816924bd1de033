//! Bundles and tiles that are full, made durable and checked, so that the write-ahead log need not hold their entries any longer. It touches files alone
//! that nobody writes any more, so it may run beside the writer.

use std::collections::BTreeSet;
use std::path::Path;

use fte_tlog::{Bundle, TileLevel, TilePath, leaf_hash, parse_tile, tiles_of_growth};

use super::fault::Fault;
use super::view::Files;

pub(super) struct Settling {
    pub(super) files: Files,
    pub(super) shard: u16,
    /// From this size of the tree to that; partial tiles only where the shard ends.
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) is_last: bool,
}

/// So much of a shard is durable in bundles and tiles.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settled {
    pub(super) shard: u16,
    pub(super) to: u64,
}

impl Settling {
    /// Gives what is settled. After an error nothing is known of the files: they are to be written again.
    pub(super) fn run(&self) -> Result<Settled, Fault> {
        let disk = &*self.files.disk;
        let mut tiles: Vec<TilePath> = tiles_of_growth(self.from, self.to).filter(TilePath::is_full).collect();
        if self.is_last {
            let partial = |level: u8| {
                let index = self.to.checked_shr(8 * u32::from(level) + 8).unwrap_or(0);
                TilePath::in_tree(TileLevel::Hashes(level), index, self.to)
            };
            tiles.extend((0..8).filter_map(partial));
        }
        let mut directories = BTreeSet::new();
        for tile in &tiles {
            let bundle = (tile.level == TileLevel::Hashes(0)).then_some(TilePath { level: TileLevel::Entries, ..*tile });
            for path in [Some(*tile), bundle].into_iter().flatten().map(|tile| self.files.layout.tile(self.shard, tile)) {
                disk.open(&path).and_then(|mut file| file.sync()).map_err(Fault::io(&path))?;
                directories.extend(path.ancestors().skip(1).take_while(|parent| parent.starts_with(self.root())).map(Path::to_owned));
            }
        }
        if self.is_last {
            let path = self.root().join("checkpoint");
            disk.open(&path).and_then(|mut file| file.sync()).map_err(Fault::io(&path))?;
            directories.insert(self.root());
        }
        for directory in directories {
            disk.sync_dir(&directory).map_err(Fault::io(&directory))?;
        }
        for tile in tiles.iter().filter(|tile| tile.level == TileLevel::Hashes(0)) {
            self.check(*tile)?;
        }
        Ok(Settled { shard: self.shard, to: self.to })
    }

    fn root(&self) -> std::path::PathBuf {
        self.files.layout.log(self.shard)
    }

    /// Whether the bundle has the leaves that the tile says.
    fn check(&self, tile: TilePath) -> Result<(), Fault> {
        let read = |tile: TilePath| {
            let path = self.files.layout.tile(self.shard, tile);
            self.files.disk.read(&path).map_err(Fault::io(&path))
        };
        let (hashes, bundle) = (read(tile)?, read(TilePath { level: TileLevel::Entries, ..tile })?);
        let hashes = parse_tile(&hashes, tile.width).unwrap_or_default();
        let is_right = Bundle::parse(&bundle, tile.width).is_ok_and(|bundle| bundle.leaves().map(leaf_hash).eq(hashes));
        if is_right {
            Ok(())
        } else {
            Err(Fault::Refused(format!("{tile} of shard {} is not what was written: check the disk", self.shard)))
        }
    }
}
