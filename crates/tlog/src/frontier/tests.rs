use std::collections::BTreeMap;

use super::*;
use crate::hash::leaf_hash;
use crate::proof::{TileHashes, tree_root};
use crate::tile::{tiles_of_growth, tiles_of_size};

/// By the definition of RFC 6962, which shares nothing with the frontier.
fn defined_root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => empty_root(),
        [leaf] => *leaf,
        leaves => {
            let mut split = 1;
            while split * 2 < leaves.len() {
                split *= 2;
            }
            node_hash(&defined_root(&leaves[..split]), &defined_root(&leaves[split..]))
        }
    }
}

fn leaf(index: u64) -> Hash {
    leaf_hash(&index.to_be_bytes())
}

#[test]
fn the_root_is_that_of_the_definition_at_every_size() {
    let mut frontier = Frontier::default();
    let mut leaves = Vec::new();
    for index in 0..=1025 {
        assert_eq!((frontier.size(), frontier.root()), (index, defined_root(&leaves)), "{index} leaves");
        frontier.append(leaf(index), |_| {});
        leaves.push(leaf(index));
    }
}

#[test]
fn it_writes_the_tiles_that_the_specification_wants_and_is_read_back_from_them() {
    let mut frontier = Frontier::default();
    let mut written: BTreeMap<TilePath, Vec<u8>> = BTreeMap::new();
    let mut before = 0;
    for size in [0, 1, 2, 255, 256, 257, 511, 512, 65_535, 65_536, 65_537, 70_000] {
        let mut now = BTreeMap::new();
        for index in before..size {
            frontier.append(leaf(index), |tile| drop(now.insert(tile.path, tile.bytes())));
        }
        now.extend(frontier.partial_tiles());
        // The right edge may be named again although it did not change.
        let expected: Vec<_> = tiles_of_growth(before, size).collect();
        assert!(expected.iter().all(|path| now.contains_key(path)), "{before} to {size}");
        assert!(now.iter().all(|(path, bytes)| expected.contains(path) || written.get(path) == Some(bytes)), "{before} to {size}");
        written.extend(now);
        before = size;

        let restored = Frontier::restore(size, |path| written.get(&path).cloned().ok_or(())).unwrap();
        assert_eq!(restored, frontier);
        assert!(tiles_of_size(size).all(|path| written[&path].len() == usize::from(path.width) * 32));
        let mut hashes = TileHashes::new(size, |path| written.get(&path).cloned().ok_or(()));
        assert_eq!(tree_root(&mut hashes, size).unwrap(), frontier.root());
    }
    // The full tile stands in for a partial one that is gone.
    written.retain(|path, _| path.is_full() || path.level != TileLevel::Hashes(0));
    let restored = Frontier::restore(300, |path| written.get(&path).or_else(|| written.get(&path.filled())).cloned().ok_or(())).unwrap();
    assert_eq!(restored.root(), defined_root(&(0..300).map(leaf).collect::<Vec<_>>()));
}

#[test]
fn a_tile_that_is_missing_or_too_short_is_named() {
    let restored = Frontier::restore(300, |_| Err::<Vec<u8>, _>("gone"));
    assert!(matches!(restored, Err(RestoreError::Read { path, source: "gone" }) if path.to_string() == "tile/0/001.p/44"));
    let restored = Frontier::restore(300, |_| Ok::<_, ()>(vec![0; 43 * 32]));
    assert!(matches!(restored, Err(RestoreError::Length { bytes: 1376, expected: 1408, .. })));
}
