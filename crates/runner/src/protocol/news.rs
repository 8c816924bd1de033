//! What makes a driver look at its task: somebody left a note in the document, or its deadline has come.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;

use crate::ports::{Pending, World};

/// The time of day may be set: it is looked at again after so long.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Where a driver hears of news.
pub(super) struct News {
    poke: Arc<Notify>,
    world: Arc<dyn World>,
    deadline: Option<Timestamp>,
    is_told: bool,
    /// Until the clock is looked at. Kept from one call to the next.
    look: Option<Pending<()>>,
}

impl News {
    pub(super) fn new(world: Arc<dyn World>, poke: Arc<Notify>, deadline: Option<Timestamp>) -> Self {
        Self { poke, world, deadline, is_told: false, look: None }
    }

    /// Until there is news. A deadline that has passed is told now and then. Nothing is lost when this is dropped before its end.
    pub(super) async fn next(&mut self) {
        let Some(deadline) = self.deadline else { return self.poke.notified().await };
        loop {
            let left = Duration::try_from(deadline.duration_since(self.world.now())).unwrap_or_default();
            if left.is_zero() && !self.is_told {
                (self.is_told, self.look) = (true, None);
                return;
            }
            let (world, wait) = (&self.world, if left.is_zero() { LOOK_EVERY } else { left.min(LOOK_EVERY) });
            let look = self.look.get_or_insert_with(|| world.sleep(wait));
            tokio::select! {
                biased;
                () = self.poke.notified() => return,
                () = look => (self.is_told, self.look) = (false, None),
            }
        }
    }
}
