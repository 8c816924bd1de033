//! Eight days, counted since 1970: how old a copy is, by its name.
//!
//! A copy is named after the epoch it was made in, and that name is never made again later. So who removes copies of long gone epochs cannot hit one that
//! somebody relies on from now on, whatever comes late: a removal that was repeated, a process that froze between a look and a removal.
//!
//! Times of change were the other way. They are the server's to give, a copy in place does not renew them everywhere, and between looking at one and
//! removing its object it can be renewed.

/// How long one lasts, in seconds. Longer than an event can take to be read: a trigger is redelivered for 7 days.
pub const EPOCH_SECONDS: u64 = 8 * 24 * 3600;
/// What an artifact's keeper makes sure of: a copy of this epoch or of the one before.
const FRESH: u64 = 1;
/// A copy is old when so many epochs have begun since its own. So whoever relied on it did that a whole epoch ago, and what they said of it has been read.
const OLD: u64 = 3;

/// One of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Epoch(pub(crate) u64);

impl Epoch {
    pub(crate) fn at(unix_seconds: u64) -> Self {
        Self(unix_seconds / EPOCH_SECONDS)
    }

    /// Whether a copy of this epoch may be relied on from now on.
    pub(crate) fn is_fresh(self, now: Self) -> bool {
        self.0 + FRESH >= now.0
    }

    /// Whether a copy of this epoch may be removed if nobody names it.
    pub(crate) fn is_old(self, now: Self) -> bool {
        self.0 + OLD <= now.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_relied_on_an_old_copy_did_that_a_whole_epoch_ago() {
        for copy in 0..10 {
            for relied in copy..=copy + FRESH {
                assert!(Epoch(copy).is_fresh(Epoch(relied)));
                for removed in 0..30 {
                    let (relied_last_second, removed_first_second) = ((relied + 1) * EPOCH_SECONDS - 1, removed * EPOCH_SECONDS);
                    if Epoch(copy).is_old(Epoch(removed)) {
                        assert!(removed_first_second - relied_last_second > EPOCH_SECONDS);
                    }
                }
            }
        }
    }
}
