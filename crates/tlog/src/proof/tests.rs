use std::collections::BTreeMap;

use super::*;
use crate::frontier::Frontier;
use crate::hash::leaf_hash;

/// A tree in memory: its tiles, and its root at each size.
struct Tree {
    tiles: BTreeMap<TilePath, Vec<u8>>,
    roots: Vec<Hash>,
}

fn leaf(index: u64) -> Hash {
    leaf_hash(&index.to_be_bytes())
}

impl Tree {
    fn of(size: u64) -> Self {
        let mut frontier = Frontier::default();
        let mut tiles = BTreeMap::new();
        let mut roots = vec![frontier.root()];
        for index in 0..size {
            frontier.append(leaf(index), |tile| drop(tiles.insert(tile.path, tile.bytes())));
            roots.push(frontier.root());
        }
        tiles.extend(frontier.partial_tiles());
        Self { tiles, roots }
    }

    fn size(&self) -> u64 {
        u64::try_from(self.roots.len() - 1).unwrap()
    }

    fn reader(&self) -> TileHashes<impl FnMut(TilePath) -> Result<Vec<u8>, ()>> {
        TileHashes::new(self.size(), |path| self.tiles.get(&path).cloned().ok_or(()))
    }

    fn root(&self, size: u64) -> &Hash {
        &self.roots[usize::try_from(size).unwrap()]
    }
}

#[test]
fn every_leaf_of_every_small_tree_is_proved() {
    let tree = Tree::of(130);
    for size in 1..=tree.size() {
        for index in 0..size {
            let proof = prove_inclusion(&mut tree.reader(), index, size).unwrap();
            assert_eq!(check_inclusion(&proof, index, &leaf(index), size, tree.root(size)), Ok(()), "{index} of {size}");
            assert_eq!(check_inclusion(&proof, index, &leaf(index + 1), size, tree.root(size)), Err(ProofError::Root));
            // How many hashes are right is said for each place.
            let longer = [&proof[..], &[leaf(0)]].concat();
            let told = ProofError::Length { found: longer.len(), expected: proof.len() };
            assert_eq!(check_inclusion(&longer, index, &leaf(index), size, tree.root(size)), Err(told), "{index} of {size}");
        }
    }
}

#[test]
fn every_two_sizes_of_a_small_tree_are_consistent() {
    let tree = Tree::of(130);
    for new in 0..=tree.size() {
        for old in 0..=new {
            let proof = prove_consistency(&mut tree.reader(), old, new).unwrap();
            assert_eq!(check_consistency(&proof, old, tree.root(old), new, tree.root(new)), Ok(()), "{old} to {new}");
            if old > 0 {
                assert!(check_consistency(&proof, old, &leaf(0x5eed), new, tree.root(new)).is_err(), "{old} to {new}");
                assert!(check_consistency(&proof, old, tree.root(old), new, &leaf(0x5eed)).is_err(), "{old} to {new}");
            }
        }
    }
}

#[test]
fn proofs_cross_tiles() {
    let tree = Tree::of(70_000);
    for index in [0, 255, 256, 257, 65_535, 65_536, 69_999] {
        let proof = prove_inclusion(&mut tree.reader(), index, 70_000).unwrap();
        check_inclusion(&proof, index, &leaf(index), 70_000, tree.root(70_000)).unwrap();
    }
    for old in [1, 255, 256, 257, 1000, 65_535, 65_536, 65_537, 69_999] {
        let proof = prove_consistency(&mut tree.reader(), old, 70_000).unwrap();
        check_consistency(&proof, old, tree.root(old), 70_000, tree.root(70_000)).unwrap();
    }
}

#[test]
fn a_proof_with_a_hash_more_less_or_other_does_not_hold() {
    let tree = Tree::of(77);
    let inclusion = prove_inclusion(&mut tree.reader(), 70, 77).unwrap();
    let consistency = prove_consistency(&mut tree.reader(), 70, 77).unwrap();
    let included = |proof: &[Hash]| check_inclusion(proof, 70, &leaf(70), 77, tree.root(77));
    let consistent = |proof: &[Hash]| check_consistency(proof, 70, tree.root(70), 77, tree.root(77));
    let check = |proof: &[Hash], holds: &dyn Fn(&[Hash]) -> Result<(), ProofError>| {
        assert_eq!(holds(proof), Ok(()));
        assert!(matches!(holds(&proof[1..]), Err(ProofError::Length { .. })));
        assert!(matches!(holds(&[proof, &[leaf(0)]].concat()), Err(ProofError::Length { .. })));
        for at in 0..proof.len() {
            let mut wrong = proof.to_vec();
            wrong[at].0[0] ^= 1;
            assert!(holds(&wrong).is_err(), "hash {at}");
        }
    };
    check(&inclusion, &included);
    check(&consistency, &consistent);
    let length = |found: usize, expected: usize| Err(ProofError::Length { found, expected });
    let (short, right, long) = (consistency.len() - 1, consistency.len(), consistency.len() + 1);
    assert_eq!(consistent(&consistency[..short]), length(short, right));
    assert_eq!(consistent(&[&consistency[..], &[leaf(0)]].concat()), length(long, right));
    assert_eq!(included(&inclusion[1..]), Err(ProofError::Length { found: inclusion.len() - 1, expected: inclusion.len() }));
}

#[test]
fn sizes_that_make_no_sense_are_refused() {
    let root = leaf(0);
    assert_eq!(check_inclusion(&[], 0, &root, 0, &root), Err(ProofError::Index { index: 0, size: 0 }));
    assert_eq!(check_inclusion(&[], 1, &root, 1, &root), Err(ProofError::Index { index: 1, size: 1 }));
    assert_eq!(check_consistency(&[], 2, &root, 1, &root), Err(ProofError::Sizes { old: 2, new: 1 }));
    assert_eq!(check_consistency(&[root], 0, &empty_root(), 1, &root), Err(ProofError::Length { found: 1, expected: 0 }));
    assert_eq!(check_consistency(&[], 0, &root, 1, &root), Err(ProofError::OldRoot));
    assert_eq!(check_consistency(&[], 1, &root, 1, &leaf(1)), Err(ProofError::OldRoot));
    assert_eq!(prove_inclusion(&mut Tree::of(3).reader(), 3, 3).unwrap(), []);
}

#[test]
fn tiles_that_cannot_be_used_are_told_apart() {
    let mut gone = TileHashes::new(300, |_| Err::<Vec<u8>, _>("gone"));
    assert!(matches!(gone.subtree(0, 299), Err(TileError::Read { path, source: "gone" }) if path.width == 44));
    let mut short = TileHashes::new(300, |_| Ok::<_, ()>(vec![0; 31]));
    assert!(matches!(short.subtree(0, 0), Err(TileError::Length { bytes: 31, .. })));
    let mut tree = TileHashes::new(300, |path: TilePath| Ok::<_, ()>(vec![0; usize::from(path.width) * 32]));
    for (height, index) in [(0, 300), (1, 150), (8, 1), (9, 0), (64, 0), (2048, 0), (7, u64::MAX)] {
        assert!(matches!(tree.subtree(height, index), Err(TileError::NotInTree { .. })), "{height} {index}");
    }
}

#[test]
fn a_full_tile_stands_for_a_partial_one_and_shows_no_more_than_that() {
    let (whole, tree) = (Tree::of(512), Tree::of(300));
    let mut reader =
        TileHashes::new(300, |path: TilePath| whole.tiles.get(&path.filled()).or_else(|| tree.tiles.get(&path)).cloned().ok_or(()));
    assert_eq!(reader.subtree(0, 299).unwrap(), leaf(299));
    assert_eq!(tree_root(&mut reader, 300).unwrap(), *tree.root(300));
    for (height, index) in [(0, 300), (1, 150), (2, 75), (0, 511)] {
        assert!(matches!(reader.subtree(height, index), Err(TileError::NotInTree { .. })), "{height} {index}");
    }
}
