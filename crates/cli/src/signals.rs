//! SIGINT, SIGTERM and SIGHUP: the first asks for a clean end, a second SIGINT or SIGTERM ends the process at once. Only this binary listens to signals.
//!
//! A hang-up is no sign of a person in a hurry: a shell and its terminal both send it. Where it is ignored from the start, as by `nohup`, it stays ignored.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::error::Error;
use crate::output::Output;

/// By convention 128 and the number of SIGINT.
const EXIT_AT_ONCE: i32 = 130;

/// A wish to end, which any number of parts can wait for.
#[derive(Debug, Clone)]
pub(crate) struct Shutdown(watch::Receiver<bool>);

impl Shutdown {
    /// From now on signals no longer kill the process by themselves.
    pub(crate) fn on_signals(output: Output) -> Result<Self, Error> {
        let install = |kind| signal(kind).map_err(|error| Error::Failed(format!("signals cannot be listened to: {error}")));
        let (mut interrupt, mut terminate) = (install(SignalKind::interrupt())?, install(SignalKind::terminate())?);
        let mut hang_up = if is_ignored(SignalKind::hangup()) { None } else { Some(install(SignalKind::hangup())?) };
        let (asked, shutdown) = watch::channel(false);
        tokio::spawn(async move {
            for is_first in [true, false] {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    () = received(&mut hang_up), if is_first => {}
                }
                if !is_first {
                    output.note("stopping at once; what was accepted is safe, and goes on at the next start");
                    std::process::exit(EXIT_AT_ONCE);
                }
                output.note("finishing what is under way; once more stops at once");
                asked.send_replace(true);
            }
        });
        Ok(Self(shutdown))
    }

    /// Resolves when the end is asked for.
    pub(crate) async fn asked(mut self) {
        // Without a sender nobody will ask any more; the process is ending as it is.
        let _ = self.0.wait_for(|asked| *asked).await;
    }
}

async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// Whether who started this process wants it to ignore the signal. Without `/proc` nobody says so.
fn is_ignored(signal: SignalKind) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal.as_raw_value() - 1) & 1 == 1)
}
