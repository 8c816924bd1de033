use std::collections::BTreeMap;

use super::*;

#[test]
fn paths_are_those_of_the_specification() {
    let check = |path: TilePath, text: &str| {
        assert_eq!((path.to_string().as_str(), text.parse::<TilePath>().unwrap()), (text, path));
    };
    check(TilePath::full(TileLevel::Hashes(0), 1_234_067), "tile/0/x001/x234/067");
    check(TilePath::full(TileLevel::Hashes(63), 0), "tile/63/000");
    check(TilePath::full(TileLevel::Entries, 999), "tile/entries/999");
    check(TilePath::full(TileLevel::Entries, 1000), "tile/entries/x001/000");
    check(TilePath { level: TileLevel::Hashes(2), index: 5, width: 255 }, "tile/2/005.p/255");
    check(TilePath::full(TileLevel::Hashes(0), u64::MAX), "tile/0/x018/x446/x744/x073/x709/x551/615");
}

#[test]
fn a_place_has_one_path() {
    for text in [
        "",
        "tile/0/",
        "tile/0/0",
        "tile/0/00",
        "tile/00/000",
        "tile/64/000",
        "tile/0/000/",
        "/tile/0/000",
        "tile/0/x000/000",
        "tile/0/x001",
        "tile/0/001/000",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/017",
        "tile/0/000.p/17/",
        "tile/0/000.p/+7",
        "tile/entries/0000",
        "tile/0/x018/x446/x744/x073/x709/x551/616",
        "tile/data/000",
        "tile/0/x01/000",
        "tile/0/000.p",
        "tile/-1/000",
        "tile/0/ 00",
    ] {
        assert!(text.parse::<TilePath>().is_err(), "{text:?}");
    }
}

#[test]
fn a_tree_of_70_000_has_the_tiles_of_the_specification() {
    let mut counts = BTreeMap::new();
    for path in tiles_of_size(70_000) {
        *counts.entry((path.level, path.width)).or_insert(0) += 1;
    }
    let expected = [((0, 256), 273), ((0, 112), 1), ((1, 256), 1), ((1, 17), 1), ((2, 1), 1)];
    assert_eq!(counts, expected.into_iter().map(|((level, width), count)| ((TileLevel::Hashes(level), width), count)).collect());
    let of_256: Vec<_> = tiles_of_size(256).map(|path| path.to_string()).collect();
    assert_eq!(of_256, ["tile/0/000", "tile/1/000.p/1"]);
    assert_eq!(tiles_of_size(0).count(), 0);
}

#[test]
fn a_growth_writes_what_it_fills_and_its_right_edge() {
    let growth = |old, new| tiles_of_growth(old, new).map(|path| path.to_string()).collect::<Vec<_>>();
    assert_eq!(growth(5, 5), Vec::<String>::new());
    assert_eq!(growth(255, 257), ["tile/0/000", "tile/0/001.p/1", "tile/1/000.p/1"]);
    assert_eq!(growth(256, 257), ["tile/0/001.p/1"]);
    assert_eq!(growth(65_535, 65_536), ["tile/0/255", "tile/1/000", "tile/2/000.p/1"]);
}

#[test]
fn the_largest_trees_have_tiles_too() {
    let last = TilePath::in_tree(TileLevel::Hashes(7), 0, u64::MAX).unwrap();
    assert_eq!(last.width, 255);
    assert_eq!(TilePath::in_tree(TileLevel::Hashes(8), 0, u64::MAX), None);
    assert_eq!(TilePath::in_tree(TileLevel::Hashes(0), u64::MAX, u64::MAX), None);
}

#[test]
fn a_tile_has_exactly_its_bytes() {
    assert_eq!(parse_tile(&[1; 64], 2), Some(vec![Hash([1; 32]); 2]));
    assert!(parse_tile(&[1; 65], 2).is_none() && parse_tile(&[1; 32], 2).is_none() && parse_tile(&[1; 96], 2).is_none());
}
