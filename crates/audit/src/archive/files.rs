//! Which files a copy has: those of the log at its final size, and what its entries refer to.

use std::io;

use fte_events::{hex, unhex};
use fte_tlog::{TileLevel, TilePath};

use super::{ArchiveError, checkpoint_in};
use crate::files::WITNESSED;
use crate::verify::{Report, Source, blob_name};

const CHECKPOINT: &str = "checkpoint";
/// Levels of hashes that a tree can have, and the bundles.
const LEVELS: u8 = 8;

/// The files of a year, in order. Tiles are told by their number, since a year may have millions.
pub(super) struct Files {
    size: u64,
    /// The checkpoint that was verified; then, where witnesses have signed that very one, the same with their signatures. Either may be replaced in the log.
    notes: Vec<(&'static str, Vec<u8>)>,
    blobs: Vec<[u8; 32]>,
}

/// A file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum File<'f> {
    /// One that is copied as it was when the log was verified.
    Note(&'static str, &'f [u8]),
    /// A tile or a bundle of the log.
    Tile(TilePath),
    /// A payload.
    Blob([u8; 32]),
}

impl Files {
    pub(super) fn of(source: &dyn Source, report: &Report) -> Result<Self, ArchiveError> {
        let read_error = |file: &'static str| move |source: io::Error| ArchiveError::Read { file: file.to_owned(), source };
        let mut notes = vec![(CHECKPOINT, report.checkpoint.clone().into_bytes())];
        // What witnesses have signed of it at an earlier size says nothing more than the final checkpoint does.
        let witnessed = source.read(WITNESSED).map_err(read_error(WITNESSED))?;
        let is_final =
            |note: &Vec<u8>| checkpoint_in(note).is_some_and(|signed| Some(signed) == checkpoint_in(report.checkpoint.as_bytes()));
        notes.extend(witnessed.filter(is_final).map(|note| (WITNESSED, note)));
        let mut blobs = Vec::new();
        let mut blob = |name: &str| {
            // What a killed process left behind is nobody's.
            let digest = name.rsplit_once('/').and_then(|(_, digest)| unhex(digest));
            blobs.extend(digest.filter(|digest| blob_name(&hex(digest)) == name));
            Ok(())
        };
        source.list("blobs", &mut blob).map_err(read_error("blobs"))?;
        Ok(Self { size: report.size, notes, blobs })
    }

    pub(super) fn len(&self) -> u64 {
        let tiles: u64 = levels().map(|level| self.tiles_on(level)).sum();
        self.notes.len() as u64 + tiles + self.blobs.len() as u64
    }

    pub(super) fn get(&self, index: u64) -> Option<File<'_>> {
        let mut rest = index;
        if let Some((name, note)) = usize::try_from(rest).ok().and_then(|at| self.notes.get(at)) {
            return Some(File::Note(name, note));
        }
        rest -= self.notes.len() as u64;
        for level in levels() {
            let tiles = self.tiles_on(level);
            if rest < tiles {
                return TilePath::in_tree(level, rest, self.size).map(File::Tile);
            }
            rest -= tiles;
        }
        self.blobs.get(usize::try_from(rest).ok()?).map(|digest| File::Blob(*digest))
    }

    fn tiles_on(&self, level: TileLevel) -> u64 {
        let hashes = match level {
            TileLevel::Entries => self.size,
            TileLevel::Hashes(level) => self.size >> (8 * u32::from(level)),
        };
        hashes.div_ceil(256)
    }
}

fn levels() -> impl Iterator<Item = TileLevel> {
    [TileLevel::Entries].into_iter().chain((0..LEVELS).map(TileLevel::Hashes))
}

impl File<'_> {
    /// Its name in the year's folder of a copy.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Note(CHECKPOINT, _) => format!("log/{CHECKPOINT}"),
            Self::Note(name, _) => (*name).to_owned(),
            Self::Tile(path) => format!("log/{path}"),
            Self::Blob(digest) => blob_name(&hex(digest)),
        }
    }

    pub(super) fn read(&self, source: &dyn Source) -> Result<Vec<u8>, ArchiveError> {
        match self {
            Self::Note(_, note) => Ok(note.to_vec()),
            Self::Tile(path) => super::read(source, &path.to_string()),
            Self::Blob(digest) => super::read(source, &blob_name(&hex(digest))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use fte_tlog::tiles_of_size;

    use super::*;

    #[test]
    fn every_tile_of_a_tree_is_told_by_its_number_once() {
        for size in [1, 2, 255, 256, 257, 511, 65_535, 65_536, 65_537, 200_000] {
            let files = Files { size, notes: vec![(CHECKPOINT, vec![1])], blobs: vec![[7; 32]] };
            let names: Vec<String> = (0..files.len()).map(|index| files.get(index).unwrap().name()).collect();
            assert_eq!(files.get(files.len()), None);
            let bundles = (0..size.div_ceil(256)).filter_map(|index| TilePath::in_tree(TileLevel::Entries, index, size));
            let expected: BTreeSet<String> = bundles.chain(tiles_of_size(size)).map(|path| format!("log/{path}")).collect();
            let blob = format!("blobs/07/{}", "07".repeat(32));
            assert_eq!((names.first().map(String::as_str), names.last()), (Some("log/checkpoint"), Some(&blob)), "{size}");
            assert_eq!(names.len(), expected.len() + 2, "{size}");
            assert_eq!(names[1..names.len() - 1].iter().cloned().collect::<BTreeSet<_>>(), expected, "{size}");
        }
    }
}
