//! Finds what was changed when the right edge of the tree does not have the signed root: everything is computed anew from the entries up.

use fte_tlog::{Bundle, Frontier, Hash, TileLevel, TilePath, leaf_hash};

use super::report::Finding;
use super::source::Source;
use super::tiles::{Stop, first_leaf, hashes, read};

/// The finding that explains why the tree does not have the `signed` root.
pub(super) fn blame(source: &dyn Source, size: u64, signed: Hash) -> Result<Finding, Stop> {
    let mut frontier = Frontier::default();
    let (mut bad_entry, mut bad_tile) = (None, None);
    for index in 0..size.div_ceil(256) {
        let Some(path) = TilePath::in_tree(TileLevel::Entries, index, size) else { break };
        let (name, bytes) = read(source, path)?;
        let own = if name == path.to_string() { path.width } else { path.filled().width };
        let bundle = match Bundle::parse(&bytes, own) {
            Ok(bundle) => bundle,
            Err(error) => return Ok(torn(source, path, &name, &bytes, &error.to_string())),
        };
        let (_, stored) = hashes(source, TilePath { level: TileLevel::Hashes(0), ..path })?;
        let mut full = Vec::new();
        for (at, (leaf, stored)) in bundle.leaves().zip(&stored).enumerate() {
            let hash = leaf_hash(leaf);
            if hash != *stored && bad_entry.is_none() {
                let byte = bundle.offset(at).map(|byte| byte as u64 - 2);
                let what = "the entry is not the one that was logged";
                bad_entry = Some(Finding::tampered(&name, what).at(first_leaf(path) + at as u64, byte));
            }
            frontier.append(hash, |tile| full.push((tile.path, tile.hashes)));
        }
        for (path, computed) in full {
            compare(source, path, &computed, &mut bad_tile)?;
        }
    }
    for (path, bytes) in frontier.partial_tiles() {
        let computed: Vec<Hash> = bytes.as_chunks::<32>().0.iter().map(|hash| Hash(*hash)).collect();
        compare(source, path, &computed, &mut bad_tile)?;
    }
    let found = if frontier.root() == signed { bad_tile } else { bad_entry.or(bad_tile) };
    Ok(found.unwrap_or_else(|| {
        let what = "entries and tiles agree with each other and do not have the signed root: all of them were replaced, or the checkpoint is that of another log";
        Finding::tampered("checkpoint", what)
    }))
}

/// The first entry of a bundle that is not as its stored hash says, where the bundle cannot be taken apart.
fn torn(source: &dyn Source, path: TilePath, name: &str, bytes: &[u8], why: &str) -> Finding {
    let stored = hashes(source, TilePath { level: TileLevel::Hashes(0), ..path }).map(|(_, hashes)| hashes).unwrap_or_default();
    let (mut at, mut entry) = (0, first_leaf(path));
    for hash in &stored {
        let Some(length) = bytes.get(at..at + 2) else { break };
        let end = at + 2 + usize::from(u16::from_be_bytes([length[0], length[1]]));
        if bytes.get(at + 2..end).is_none_or(|leaf| leaf_hash(leaf) != *hash) {
            break;
        }
        (at, entry) = (end, entry + 1);
    }
    let last = first_leaf(path) + u64::from(path.width) - 1;
    Finding::tampered(name, why).at(entry.min(last), at as u64)
}

fn compare(source: &dyn Source, path: TilePath, computed: &[Hash], bad: &mut Option<Finding>) -> Result<(), Stop> {
    if bad.is_some() {
        return Ok(());
    }
    let (name, stored) = hashes(source, path)?;
    if let Some(at) = stored.iter().zip(computed).position(|(stored, computed)| stored != computed) {
        let level = if let TileLevel::Hashes(level) = path.level { u32::from(level) } else { 0 };
        let entry = first_leaf(path) + ((at as u64) << (8 * level));
        *bad = Some(Finding::tampered(name, "this hash is not that of the entries below it").at(entry, at as u64 * 32));
    }
    Ok(())
}
