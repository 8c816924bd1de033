//! The claims that this process holds, is about to make, or gives back; and what was last heard of each.
//!
//! Always true: a claim is entered before it is asked for and leaves when its end is known, or when it is left to the sweeper. So whatever of this process's
//! is in the cluster and not here is nobody's.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

use crate::api::SandboxClaim;

/// Namespace and name.
type Key = (String, String);

/// What was last heard of a claim.
#[derive(Clone, Debug)]
pub(crate) enum Seen {
    Nothing,
    /// It is like this.
    Claim(Box<SandboxClaim>),
    /// The one with this uid is gone.
    Gone {
        uid: Option<String>,
    },
    /// It may have changed unseen: look.
    Perhaps,
}

#[derive(Default)]
pub(crate) struct Held {
    entries: Mutex<HashMap<Key, watch::Sender<Seen>>>,
    left: Notify,
}

/// A claim's place among the held, left when dropped.
pub(crate) struct Entry {
    held: Arc<Held>,
    key: Key,
    seen: watch::Receiver<Seen>,
}

impl Held {
    /// Enters a claim; nothing where it is entered already.
    pub(crate) fn enter(self: &Arc<Self>, namespace: &str, name: &str) -> Option<Entry> {
        let key = (namespace.to_owned(), name.to_owned());
        let mut entries = self.entries();
        if entries.contains_key(&key) {
            return None;
        }
        let (tell, seen) = watch::channel(Seen::Nothing);
        entries.insert(key.clone(), tell);
        Some(Entry { held: Arc::clone(self), key, seen })
    }

    pub(crate) fn holds(&self, namespace: &str, name: &str) -> bool {
        self.entries().contains_key(&(namespace.to_owned(), name.to_owned()))
    }

    /// Tells the holder of a claim what was seen of it, if there is one.
    pub(crate) fn tell(&self, namespace: &str, name: &str, seen: Seen) {
        if let Some(entry) = self.entries().get(&(namespace.to_owned(), name.to_owned())) {
            entry.send_replace(seen);
        }
    }

    /// Makes the holders of all other claims of a namespace look.
    pub(crate) fn doubt_all_but(&self, namespace: &str, seen: &HashSet<String>) {
        for ((of, name), entry) in self.entries().iter() {
            if of == namespace && !seen.contains(name) {
                entry.send_replace(Seen::Perhaps);
            }
        }
    }

    /// Ends when nothing is held.
    pub(crate) async fn empty(&self) {
        loop {
            let left = self.left.notified();
            tokio::pin!(left);
            // Listens before it looks.
            left.as_mut().enable();
            if self.entries().is_empty() {
                return;
            }
            left.await;
        }
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<Key, watch::Sender<Seen>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    pub(crate) fn namespace(&self) -> &str {
        &self.key.0
    }

    pub(crate) fn name(&self) -> &str {
        &self.key.1
    }

    /// What is heard next. May be dropped at any time.
    pub(crate) async fn next(&mut self) -> Seen {
        match self.seen.changed().await {
            Ok(()) => self.seen.borrow_and_update().clone(),
            // Its other end is in the table for as long as this is.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.held.entries().remove(&self.key);
        self.held.left.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_claim_is_held_once_and_hears_the_last_of_what_was_said() {
        let held = Arc::new(Held::default());
        let mut entry = held.enter("n", "a").unwrap();
        assert!(held.enter("n", "a").is_none() && held.enter("m", "a").is_some());
        assert!(entry.next().now_or_never().is_none());
        held.tell("n", "a", Seen::Perhaps);
        held.tell("n", "a", Seen::Gone { uid: Some("1".to_owned()) });
        held.tell("n", "b", Seen::Perhaps);
        assert!(matches!(entry.next().now_or_never(), Some(Seen::Gone { uid: Some(uid) }) if uid == "1"));
        held.doubt_all_but("n", &HashSet::from(["a".to_owned()]));
        assert!(entry.next().now_or_never().is_none());
        held.doubt_all_but("n", &HashSet::new());
        assert!(matches!(entry.next().now_or_never(), Some(Seen::Perhaps)));
        let mut empty = Box::pin(held.empty());
        assert!(held.holds("n", "a") && empty.as_mut().now_or_never().is_none());
        drop(entry);
        assert!(!held.holds("n", "a") && empty.as_mut().now_or_never().is_some());
    }
}
