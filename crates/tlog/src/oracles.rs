//! What others say: two implementations that share no code with this one, on trees of many sizes. A disagreement is a failure of the build.
//!
//! `tlog_tiles` is a port of Go's `tlog`, `ct-merkle` was written for Certificate Transparency. Go itself is asked by `tests/audit`.

use std::collections::HashMap;

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use proptest::prelude::*;
use sha2::Sha256;
use tlog_tiles::{TileHashReader, TileReader, tile, tlog};

use super::*;

/// A tree in both forms.
struct Both {
    leaves: Vec<[u8; 8]>,
    frontier: Frontier,
    tiles: HashMap<TilePath, Vec<u8>>,
}

fn both(size: u64) -> Both {
    let leaves: Vec<[u8; 8]> = (0..size).map(u64::to_be_bytes).collect();
    let (mut frontier, mut tiles) = (Frontier::default(), HashMap::new());
    for leaf in &leaves {
        frontier.append(leaf_hash(leaf), |tile| drop(tiles.insert(tile.path, tile.bytes())));
    }
    tiles.extend(frontier.partial_tiles());
    Both { leaves, frontier, tiles }
}

/// Every stored hash of Go's layout.
struct Stored(Vec<tlog::Hash>);

impl tlog::HashReader for Stored {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<tlog::Hash>, tlog_tiles::Error> {
        Ok(indexes.iter().map(|index| self.0[usize::try_from(*index).unwrap()]).collect())
    }
}

impl Both {
    fn stored(&self) -> Stored {
        let mut stored = Stored(Vec::new());
        for (index, leaf) in (0..).zip(&self.leaves) {
            let more = tlog::stored_hashes(index, leaf, &stored).unwrap();
            stored.0.extend(more);
        }
        stored
    }

    fn reader(&self) -> TileHashes<impl FnMut(TilePath) -> Result<Vec<u8>, ()>> {
        TileHashes::new(self.leaves.len() as u64, |path| self.tiles.get(&path).cloned().ok_or(()))
    }
}

fn theirs(hash: Hash) -> tlog::Hash {
    tlog::Hash(hash.0)
}

/// Our tiles, read by their reader.
struct Tiles<'a>(&'a Both);

impl TileReader for Tiles<'_> {
    fn height(&self) -> u8 {
        8
    }

    fn read_tiles(&self, tiles: &[tile::Tile]) -> Result<Vec<Vec<u8>>, tlog_tiles::Error> {
        Ok(tiles.iter().map(|tile| self.0.tiles[&ours(tile)].clone()).collect())
    }

    fn save_tiles(&self, _: &[tile::Tile], _: &[Vec<u8>]) {}
}

/// `tile/8/0/x001/…` of Go is `tile/0/x001/…` of C2SP.
fn ours(tile: &tile::Tile) -> TilePath {
    tile.path().replacen("tile/8/", "tile/", 1).parse().unwrap()
}

#[test]
fn roots_and_tiles_of_every_size_are_those_of_the_port_of_go() {
    let (mut frontier, mut stored) = (Frontier::default(), Stored(Vec::new()));
    for size in 0..=1025_u64 {
        let root = tlog::tree_hash(size, &stored).unwrap();
        assert_eq!(theirs(frontier.root()), root, "{size}");
        let leaf = size.to_be_bytes();
        frontier.append(leaf_hash(&leaf), |_| {});
        let more = tlog::stored_hashes(size, &leaf, &stored).unwrap();
        stored.0.extend(more);
    }
}

#[test]
fn the_port_of_go_reads_and_proves_from_our_tiles() {
    for size in [1, 2, 255, 256, 257, 511, 512, 513, 65_535, 65_536, 65_537, 70_000] {
        let both = both(size);
        let root = both.frontier.root();
        let tiles = Tiles(&both);
        let reader = TileHashReader::new(size, theirs(root), &tiles);
        for index in [0, 1, size / 2, size.saturating_sub(1)].into_iter().filter(|index| *index < size) {
            let their_proof = tlog::prove_record(size, index, &reader).unwrap();
            let our_proof = prove_inclusion(&mut both.reader(), index, size).unwrap();
            assert_eq!(our_proof.iter().map(|hash| theirs(*hash)).collect::<Vec<_>>(), their_proof, "{index} of {size}");
            let leaf = leaf_hash(&both.leaves[usize::try_from(index).unwrap()]);
            tlog::check_record(&their_proof, size, theirs(root), index, theirs(leaf)).unwrap();
        }
        let mut written: Vec<TilePath> = tile::Tile::new_tiles(8, 0, size).iter().map(ours).collect();
        written.sort_unstable();
        assert_eq!(tiles_of_size(size).collect::<Vec<_>>(), written, "{size}");
    }
}

#[test]
fn consistency_proofs_are_those_of_the_port_of_go() {
    let both = both(600);
    let (stored, root) = (both.stored(), both.frontier.root());
    for old in 1..=600 {
        let their_proof = tlog::prove_tree(600, old, &stored).unwrap();
        let our_proof = prove_consistency(&mut both.reader(), old, 600).unwrap();
        assert_eq!(our_proof.iter().map(|hash| theirs(*hash)).collect::<Vec<_>>(), their_proof, "{old}");
        let old_root = tlog::tree_hash(old, &stored).unwrap();
        check_consistency(&our_proof, old, &Hash(old_root.0), 600, &root).unwrap();
        tlog::check_tree(&their_proof, 600, theirs(root), old, old_root).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn growths_write_the_tiles_of_the_port_of_go(old in 0u64..200_000, more in 0u64..3000) {
        let mut theirs: Vec<TilePath> = tile::Tile::new_tiles(8, old, old + more).iter().map(ours).collect();
        theirs.sort_unstable();
        prop_assert_eq!(tiles_of_growth(old, old + more).collect::<Vec<_>>(), theirs);
    }

    #[test]
    fn proofs_are_those_of_ct_merkle(leaves in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 2..600), index in any::<prop::sample::Index>(), old in any::<prop::sample::Index>()) {
        let (mut frontier, mut tiles, mut tree) = (Frontier::default(), HashMap::new(), MemoryBackedTree::<Sha256, Vec<u8>>::new());
        for leaf in &leaves {
            frontier.append(leaf_hash(leaf), |tile| drop(tiles.insert(tile.path, tile.bytes())));
            tree.push(leaf.clone());
        }
        tiles.extend(frontier.partial_tiles());
        let (size, index) = (leaves.len() as u64, index.index(leaves.len()));
        let mut reader = TileHashes::new(size, |path| tiles.get(&path).cloned().ok_or(()));
        let (ours, theirs) = (frontier.root(), tree.root());
        prop_assert_eq!(&ours.0[..], &theirs.as_bytes()[..]);

        let flat = |proof: &[Hash]| proof.iter().flat_map(|hash| hash.0).collect::<Vec<u8>>();
        let proof = prove_inclusion(&mut reader, index as u64, size).unwrap();
        let theirs = tree.prove_inclusion(index);
        prop_assert_eq!(flat(&proof), theirs.as_bytes());
        prop_assert!(check_inclusion(&proof, index as u64, &leaf_hash(&leaves[index]), size, &frontier.root()).is_ok());

        let old = 1 + old.index(leaves.len());
        let proof = prove_consistency(&mut reader, old as u64, size).unwrap();
        let theirs = tree.prove_consistency(leaves.len() - old);
        prop_assert_eq!(flat(&proof), theirs.as_bytes());
    }

    /// No bytes make a reader panic, and what it accepts it writes again as it was.
    #[test]
    fn readers_take_any_text(text in "(\\PC|\n){0,200}", bytes in prop::collection::vec(any::<u8>(), 0..200), width in 0u16..300) {
        let _ = (text.parse::<Policy>(), Bundle::parse(&bytes, width), SignedNote::parse(&bytes));
        if let Ok(note) = SignedNote::parse(text.as_bytes()) {
            prop_assert_eq!(note.to_string(), text.clone());
        }
        if let Ok(file) = ProofFile::parse(&text) {
            prop_assert_eq!(file.to_string(), text.clone());
        }
        if let Ok(path) = text.parse::<TilePath>() {
            prop_assert_eq!(path.to_string(), text);
        }
    }
}
