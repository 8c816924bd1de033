//! The resident memory of the server while it is under load, from `/proc`.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use serde::Serialize;
use tokio::task::JoinHandle;

use super::tally::Tally;
use crate::error::Error;

const INTERVAL: Duration = Duration::from_millis(250);
/// By then whatever grows with the load alone has grown; what grows beyond grows with the number of tasks.
const EARLY_TASKS: u64 = 20_000;

/// In MiB.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Memory {
    pub(super) before: f64,
    /// At most, over the first 20 000 results.
    pub(super) early_peak: f64,
    pub(super) peak: f64,
    pub(super) after: f64,
}

#[derive(Debug)]
pub(super) struct Watch {
    pid: u32,
    before: f64,
    early_peak: Rc<Cell<f64>>,
    peak: Rc<Cell<f64>>,
    sampler: JoinHandle<()>,
}

pub(super) fn watch(pid: u32, tally: Rc<RefCell<Tally>>) -> Result<Watch, Error> {
    let before =
        resident_mib(pid).ok_or_else(|| Error::usage(format!("process {pid} cannot be read"), "--sample-memory needs the server's pid"))?;
    let (peak, early_peak) = (Rc::new(Cell::new(before)), Rc::new(Cell::new(before)));
    let (seen, seen_early) = (Rc::clone(&peak), Rc::clone(&early_peak));
    let sampler = tokio::task::spawn_local(async move {
        while let Some(now) = resident_mib(pid) {
            seen.set(seen.get().max(now));
            if tally.borrow().completed <= EARLY_TASKS {
                seen_early.set(seen.get());
            }
            tokio::time::sleep(INTERVAL).await;
        }
    });
    Ok(Watch { pid, before, early_peak, peak, sampler })
}

impl Watch {
    pub(super) fn end(self) -> Memory {
        self.sampler.abort();
        let peak = self.peak.get();
        let after = resident_mib(self.pid).unwrap_or(0.0);
        Memory { before: self.before, early_peak: self.early_peak.get(), peak: peak.max(after), after }
    }
}

fn resident_mib(pid: u32) -> Option<f64> {
    parse(&std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

fn parse(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_in_mib() {
        assert_eq!(parse("Name:\tfte\nVmRSS:\t   10240 kB\nThreads:\t1\n"), Some(10.0));
        assert_eq!(parse("Name:\tfte\n"), None);
        assert!(resident_mib(std::process::id()).is_some_and(|mib| mib > 0.1));
    }
}
