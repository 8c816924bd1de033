//! What becomes of the claims that this process holds: one watch for each namespace, started with the first claim in it.
//!
//! A watch that breaks is resumed where it was, or begun anew when the server has forgotten that place (410 Gone); what vanished meanwhile is not told by
//! anybody, so that its holder is made to look. A watch per claim was turned down: at a hundred claims that is a hundred connections' worth of
//! streams for what one carries. A silent watch costs time, not truth: whoever waits also looks for himself now and then.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client, ResourceExt};
use tokio::task::JoinSet;

use crate::api::{FTE, HOLDER, MANAGED_BY, SandboxClaim};
use crate::held::{Held, Seen};
use crate::options::Options;

/// How many objects of a list come at once.
const PAGE: u32 = 500;

pub(crate) struct News {
    client: Client,
    held: Arc<Held>,
    selector: String,
    watches: Mutex<Watches>,
}

#[derive(Default)]
struct Watches {
    namespaces: HashSet<String>,
    /// Ended when dropped.
    tasks: JoinSet<()>,
}

impl News {
    pub(crate) fn new(client: Client, held: Arc<Held>, options: &Options) -> Self {
        let selector = format!("{MANAGED_BY}={FTE},{HOLDER}={}", options.holder);
        Self { client, held, selector, watches: Mutex::default() }
    }

    /// Sees to it that the namespace is watched from now on.
    pub(crate) fn watch(&self, namespace: &str) {
        let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        if watches.namespaces.insert(namespace.to_owned()) {
            let api = Api::namespaced(self.client.clone(), namespace);
            let config = watcher::Config::default().labels(&self.selector).page_size(PAGE);
            watches.tasks.spawn(follow(api, config, Arc::clone(&self.held), namespace.to_owned()));
        }
    }
}

async fn follow(api: Api<SandboxClaim>, config: watcher::Config, held: Arc<Held>, namespace: String) {
    let mut events = Box::pin(watch(api, config).default_backoff());
    let mut listed = HashSet::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(claim)) => {
                listed.insert(claim.name_any());
                held.tell(&namespace, &claim.name_any(), Seen::Claim(Box::new(claim)));
            }
            Ok(Event::InitDone) => held.doubt_all_but(&namespace, &std::mem::take(&mut listed)),
            Ok(Event::Apply(claim)) => held.tell(&namespace, &claim.name_any(), Seen::Claim(Box::new(claim))),
            Ok(Event::Delete(claim)) => held.tell(&namespace, &claim.name_any(), Seen::Gone { uid: claim.metadata.uid }),
            Err(error) => tracing::debug!(namespace, error = %fte_service::chain(&error), "the watch of sandbox claims broke; resuming"),
        }
    }
}
