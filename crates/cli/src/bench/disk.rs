//! How long the disk takes to make a small append durable: the floor under every durable acceptance.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::time::Instant;

use crate::error::Error;

const ROUNDS: usize = 200;
const BLOCK: [u8; 4096] = [0; 4096];

/// The median of 200 appends of 4 KiB, each with its fdatasync, in milliseconds.
pub(super) fn fdatasync_ms(dir: &Path) -> Result<f64, Error> {
    let path = dir.join(format!("fte-bench-{}.tmp", std::process::id()));
    let measured = measure(&path);
    // It may not have been made.
    let _ = fs::remove_file(&path);
    measured.map_err(|source| Error::Start {
        what: format!("the disk cannot be measured in {}", dir.display()),
        advice: "--disk names a directory that exists and can be written".to_owned(),
        source: Some(source.into()),
    })
}

fn measure(path: &Path) -> io::Result<f64> {
    let mut file = OpenOptions::new().append(true).create_new(true).open(path)?;
    let mut times = [0.0; ROUNDS];
    for time in &mut times {
        let started = Instant::now();
        file.write_all(&BLOCK)?;
        file.sync_data()?;
        *time = started.elapsed().as_secs_f64() * 1000.0;
    }
    times.sort_by(f64::total_cmp);
    Ok(times[ROUNDS / 2])
}
