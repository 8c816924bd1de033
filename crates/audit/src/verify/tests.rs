//! Logs that are built here, tampered with in every way that is known, and verified.

mod building;
mod decisions;
mod directory;
mod honest;
mod mutations;
mod reports;
mod retired;
mod tampered;
mod witnessed;

use self::building::{Files, Log};
use super::*;

/// Verifies one shard with its key, one thread, and no anchor.
fn verified(files: &Files, options: &Options) -> Report {
    let mut reports = verify(&[files], options, &mut |_| {}).unwrap();
    reports.pop().unwrap()
}

/// What is known from elsewhere is the log's key alone.
fn options(log: &Log) -> Options {
    Options { threads: NonZero::<usize>::MIN, ..Options::new(Policy::of_logs([log.key.verifier()])) }
}
