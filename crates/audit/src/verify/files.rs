//! Which files a log of this size has: no other may be there, and what is left of earlier sizes must agree with it.

use std::io;

use fte_tlog::{Bundle, TileLevel, TilePath};

use super::report::Finding;
use super::source::{Source, WITNESSED};
use super::tiles::{Stop, first_leaf, read};

/// Looks at every file. Sources that cannot list theirs are not looked at.
pub(super) fn check(source: &dyn Source, size: u64) -> Result<(), Stop> {
    let mut stop = None;
    let listed = source.list("", &mut |name| match check_file(source, name, size) {
        Ok(()) => Ok(()),
        Err(found) => {
            stop = Some(found);
            Err(io::Error::other("found"))
        }
    });
    match (stop, listed) {
        (Some(stop), _) => Err(stop),
        (None, Err(error)) => Err(Stop::Io("tile".to_owned(), error)),
        (None, Ok(_)) => Ok(()),
    }
}

fn check_file(source: &dyn Source, name: &str, size: u64) -> Result<(), Stop> {
    // What is checked elsewhere, and what a killed process leaves behind; no reader of a log ever looks at it.
    if name == "checkpoint" || name == WITNESSED || name.starts_with("blobs/") || name.ends_with(".tmp") {
        return Ok(());
    }
    let Ok(path) = name.parse::<TilePath>() else { return found(Finding::tampered(name, "a log has no such file")) };
    match TilePath::in_tree(path.level, path.index, size) {
        Some(now) if now == path => Ok(()),
        Some(now) if path.width < now.width => check_earlier(source, path, now),
        _ => {
            let what = format!("it goes beyond the {size} entries of the signed checkpoint");
            found(Finding::tampered(name, what).at(size.max(first_leaf(path)), None))
        }
    }
}

fn found(finding: Finding) -> Result<(), Stop> {
    Err(Stop::Found(finding))
}

/// A partial tile of an earlier checkpoint is the beginning of the present one.
fn check_earlier(source: &dyn Source, path: TilePath, now: TilePath) -> Result<(), Stop> {
    let name = path.to_string();
    let Some(earlier) = source.read(&name).map_err(|error| Stop::Io(name.clone(), error))? else { return Ok(()) };
    let (_, present) = read(source, now)?;
    let right = match path.level {
        TileLevel::Entries => Bundle::parse(&earlier, path.width).is_ok(),
        TileLevel::Hashes(_) => earlier.len() == 32 * usize::from(path.width),
    };
    if right && present.starts_with(&earlier) {
        return Ok(());
    }
    let byte = earlier.iter().zip(&present).position(|(a, b)| a != b).unwrap_or_else(|| earlier.len().min(present.len()));
    let what = "it is not the beginning of the tile or bundle that took its place";
    found(Finding::tampered(name, what).at(first_leaf(path), byte as u64))
}
