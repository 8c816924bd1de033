//! SIGINT and SIGTERM: the first asks for a clean end, the second ends the process at once. Only this binary listens to signals.

use tokio::signal::unix::{SignalKind, signal};
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
        let (asked, shutdown) = watch::channel(false);
        tokio::spawn(async move {
            for is_first in [true, false] {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
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
