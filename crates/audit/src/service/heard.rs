//! Whether anything reaches the log at all. A sidecar that is refused a topic or the group says so in its own log alone, and gives its app nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;

/// Within this time after its sidecar took what it publishes the log was given something, if only that it started: it records that itself, on a topic that it
/// subscribes to.
const GIVEN_WITHIN: Duration = Duration::from_secs(60);

/// What was heard since the start; cheap to clone.
#[derive(Clone)]
pub struct Heard {
    anything: Arc<AtomicBool>,
    since: Arc<OnceLock<Instant>>,
}

impl Heard {
    /// Nothing yet, and nothing is expected.
    pub fn nothing() -> Self {
        Self { anything: Arc::default(), since: Arc::default() }
    }

    /// From now on its own start is under way to it.
    pub fn expected(&self) {
        self.since.get_or_init(Instant::now);
    }

    /// Something was delivered.
    pub fn something(&self) {
        self.anything.store(true, Ordering::Relaxed);
    }

    /// What is amiss where nothing comes.
    pub fn check(&self) -> Result<(), String> {
        let silent_for = self.since.get().map_or(Duration::ZERO, Instant::elapsed);
        if self.anything.load(Ordering::Relaxed) || silent_for < GIVEN_WITHIN {
            return Ok(());
        }
        Err(format!(
            "nothing was delivered for {} s, not even that this service started; its sidecar's log says why: a topic that it subscribes to is missing \
             (`fte topics`), or the broker's access rules do not let fte-audit read one, or its group, or the broker is away",
            silent_for.as_secs()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn silence_is_amiss_once_its_own_start_should_have_come_back_and_until_something_comes() {
        let heard = Heard::nothing();
        tokio::time::advance(GIVEN_WITHIN).await;
        assert_eq!(heard.check(), Ok(()), "a sidecar that is not there yet takes nothing");
        heard.expected();
        assert_eq!(heard.check(), Ok(()));
        tokio::time::advance(GIVEN_WITHIN).await;
        let amiss = heard.check().unwrap_err();
        assert!(amiss.contains("60 s") && amiss.contains("access rules"), "{amiss}");
        heard.something();
        assert_eq!(heard.check(), Ok(()));
        tokio::time::advance(GIVEN_WITHIN).await;
        assert_eq!(heard.check(), Ok(()), "quiet times are none");
    }
}
