//! What has waited long enough, also while the log's clock stands still.
//!
//! The log's time never goes back: where a clock that was ahead was put right, it stands until the clock has caught up, which may take years. Nothing would
//! ever have waited long enough then. So while it stands, waiting is told by steps: whenever the clock on the wall has gone on by so much as something has to
//! wait, all that waited at that moment is due. A task may then be closed sooner than it should, and is closed again if more comes of it.
//!
//! The other way was to keep beside the log's time another one for each entry that waits: it would be lost at every start, and the index would no longer be a
//! function of the log.

/// A wait, by the log's clock where that goes.
#[derive(Debug)]
pub(super) struct Wait {
    /// How long, in milliseconds.
    ms: i64,
    /// While the log's clock stands: when the step under way began, on the wall.
    step: Option<i64>,
}

impl Wait {
    pub(super) const fn new(ms: i64) -> Self {
        Self { ms, step: None }
    }

    /// Notes what the clock on the wall says, and what the log's newest entry does.
    pub(super) fn observe(&mut self, wall_ms: i64, log_ms: i64) {
        self.step = match self.step {
            _ if wall_ms >= log_ms => None,
            Some(step) if step <= wall_ms => Some(step),
            // It stands from now on, or the wall's went back once more.
            _ => Some(wall_ms),
        };
    }

    /// What began to wait by this moment of the log's time has waited for a `part` of the whole; `None` for nothing.
    pub(super) fn since(&self, wall_ms: i64, log_ms: i64, part: i64) -> Option<i64> {
        let wait = self.ms / part;
        match self.step {
            None => Some(log_ms.max(wall_ms) - wait),
            Some(step) => (wall_ms - step >= wait).then_some(log_ms),
        }
    }

    /// Something of what was due is done, or all of it: then the next step begins.
    pub(super) fn took(&mut self, wall_ms: i64, is_all: bool) {
        if is_all {
            self.step = self.step.map(|_| wall_ms);
        }
    }

    /// When what waits since a moment of the log's time is due, on the wall.
    pub(super) fn due(&self, since_ms: i64) -> i64 {
        self.step.unwrap_or(since_ms).saturating_add(self.ms)
    }
}
