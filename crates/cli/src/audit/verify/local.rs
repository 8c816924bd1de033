//! The shards in a directory.

use std::path::{Path, PathBuf};

use fte_audit::verify::{Directory, Source};

use crate::error::Error;

/// What was found behind a name.
pub(in crate::audit) struct Found {
    /// The oldest first.
    pub(in crate::audit) shards: Vec<Box<dyn Source + Send>>,
    /// Where the log's public key may be: `keys/log.pub`.
    pub(in crate::audit) key_files: Vec<PathBuf>,
    /// The index of all these shards, if there is one.
    pub(in crate::audit) index: Option<PathBuf>,
    /// Whether these are all shards of an installation.
    pub(in crate::audit) is_whole: bool,
}

/// Finds the shards in a data directory, in its `audit`, or the one that the directory itself is.
pub(in crate::audit) fn shards(target: &str) -> Result<Found, Error> {
    let given = PathBuf::from(target);
    if !given.is_dir() {
        let what = if given.exists() { format!("{target} is a file, and no directory") } else { format!("there is no directory {target}") };
        return Err(Error::usage(what, "name a data directory, a shard of its audit log, or a URL"));
    }
    let top = if given.join("audit").is_dir() { given.join("audit") } else { given };
    let key_files = [".", "..", "../.."].map(|up| top.join(up).join("keys/log.pub")).to_vec();
    let one = |log: PathBuf| Found {
        shards: vec![Box::new(Directory::new(log)) as Box<dyn Source + Send>],
        key_files: key_files.clone(),
        index: None,
        is_whole: false,
    };
    if top.join("checkpoint").is_file() || top.join("tile").is_dir() {
        return Ok(one(top));
    }
    if top.join("log").is_dir() {
        return Ok(one(top.join("log")));
    }
    let years =
        years(&top).map_err(|error| Error::usage(format!("{} cannot be listed: {error}", top.display()), "check the rights on it"))?;
    if years.is_empty() {
        let advice = "a data directory has audit/<year>/log; one shard is the directory with `checkpoint` and `tile`";
        return Err(Error::usage(format!("{target} has no audit log in it"), advice));
    }
    // A copy may begin later than the log, and have years of it alone.
    let is_whole = !years.iter().any(|year| top.join(format!("{year}.json")).is_file());
    let shards = years.into_iter().map(|year| Box::new(Directory::new(top.join(year).join("log"))) as Box<dyn Source + Send>).collect();
    let index = Some(top.join("index.sqlite")).filter(|index| index.is_file());
    Ok(Found { shards, key_files, index, is_whole })
}

fn years(top: &Path) -> std::io::Result<Vec<String>> {
    let mut years = Vec::new();
    for entry in std::fs::read_dir(top)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.len() == 4 && name.bytes().all(|byte| byte.is_ascii_digit()) && top.join(&name).join("log").is_dir() {
            years.push(name);
        }
    }
    years.sort_unstable();
    Ok(years)
}

/// One shard of a data directory.
pub(in crate::audit) fn shard(target: &str, year: u16) -> Result<Found, Error> {
    let given = PathBuf::from(target);
    let top = if given.join("audit").is_dir() { given.join("audit") } else { given };
    let there = years(&top).unwrap_or_default();
    if !there.is_empty() && !there.contains(&year.to_string()) {
        return Err(Error::usage(format!("there is no log of the year {year} in {target}"), format!("there are: {}", there.join(", "))));
    }
    if there.is_empty() {
        // It says what is wrong.
        return shards(target);
    }
    shards(&top.join(year.to_string()).to_string_lossy())
}
