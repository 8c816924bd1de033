//! Removes the contents that no kept task names any more, in small steps.
//!
//! Safe in whatever is cut short: the store of the read model says what to look at until it has been seen to be gone, and the store of the artifacts removes
//! only copies that nobody has relied on for eight days and that nobody will rely on (see `fte_artifacts`). So what remains to be asked is whether an
//! event that names the content can have been on its way for longer: not while this service reads, therefore the first pass waits until it has been up
//! for an hour.
//!
//! One process at a time, as with the sweep of the tasks: the same right covers both, so that nothing becomes unnamed while this looks.

use std::time::Duration;

use fte_artifacts::{Artifacts, Away, Removed};
use jiff::Timestamp;

use crate::metrics;
use crate::store::{Settled, Store, StoreError};

/// What a service that was away has read again by then.
pub(crate) const SETTLED_AFTER: Duration = Duration::from_secs(3600);
/// Contents looked at before what was found is written down, and in one pass.
const STEP_MAX: usize = 64;
const PASS_MAX: usize = 10_000;
/// Between two steps.
const PAUSE: Duration = Duration::from_millis(50);

/// A pass that was broken off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Away(#[from] Away),
}

/// One pass. The caller holds the right to sweep.
pub(crate) async fn remove(store: &Store, artifacts: &Artifacts, now: Timestamp) -> Result<(), Error> {
    let due_ms = now.as_millisecond();
    let mut looked_at = 0;
    while looked_at < PASS_MAX {
        let unnamed = store.unnamed(due_ms, STEP_MAX).await?;
        if unnamed.is_empty() {
            break;
        }
        looked_at += unnamed.len();
        let mut settled = Settled::default();
        let mut failed = None;
        for content in unnamed {
            let outcome = match content.is_named {
                true => artifacts.trim(content.digest).await.map(|()| None),
                false => artifacts.remove(content.digest).await.map(Some),
            };
            match outcome {
                Ok(Some(Removed::TooYoung)) => settled.later.push(content.digest),
                Ok(done) => {
                    metrics::swept("artifact", usize::from(done.is_some()));
                    settled.done.push(content.digest);
                }
                Err(away) => {
                    failed = Some(away);
                    break;
                }
            }
        }
        // Later than the pass, so that it does not come to them again.
        store.settle(settled, due_ms.saturating_add(1)).await?;
        if let Some(away) = failed {
            return Err(away.into());
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
