//! Peers: the list of instances, who among them is dead, and the takeover of what a dead one was responsible for.
//!
//! A takeover fences the dead instance's document first. From then on it can add nothing to its index, and each document its index names is
//! rewritten, so that what it may still be writing finds an old ETag. Any peer may continue a takeover that was cut short.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fte_events::TaskId;
use serde::{Deserialize, Serialize};

use super::admission::refused_end;
use super::index::{LeaseDoc, key as lease_key};
use super::instance::{Instance, RETRY};
use super::{erasure, outbox, timers};
use crate::document::{InstanceId, TaskDoc};
use crate::ports::{Document, ETag, Guard, PortError, Save, Saved};

/// The document that lists the instances.
const LIST_KEY: &str = "runners";
/// Documents taken over side by side.
const TAKEN_TOGETHER: usize = 16;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct List {
    stamp: String,
    instances: Vec<InstanceId>,
}

/// Puts this instance on the list; keeps trying.
pub(super) async fn enlist(instance: &Instance) {
    let add = |list: &mut Vec<InstanceId>| {
        let missing = !list.contains(&instance.id);
        if missing {
            list.push(instance.id.clone());
        }
        missing
    };
    while let Err(error) = change_list(instance, add).await {
        tracing::warn!(%error, "the list of runners could not be written; trying again");
        instance.ports.world.sleep(RETRY).await;
    }
}

/// Changes the list; `change` says whether it changed anything.
async fn change_list(instance: &Instance, change: impl Fn(&mut Vec<InstanceId>) -> bool) -> Result<(), PortError> {
    loop {
        let found = instance.ports.store.get(LIST_KEY.to_owned()).await?;
        let (mut list, guard) = match found {
            Some(found) => (serde_json::from_slice::<List>(&found.value).unwrap_or_default(), Guard::Unchanged(found.etag)),
            None => (List::default(), Guard::Absent),
        };
        if !change(&mut list.instances) {
            return Ok(());
        }
        list.stamp = format!("{}/{}", instance.id.0, instance.ports.world.random());
        let value = serde_json::to_vec(&list).map_err(|error| PortError::new("writing the list of runners", error.to_string()))?;
        let save = Save { key: LIST_KEY.to_owned(), value: value.into(), guard, ttl: None };
        if instance.ports.store.save(save).await? == Saved::Written {
            return Ok(());
        }
    }
}

/// Whether any instance, dead or alive, is responsible for a task. One whose index cannot be read may be.
pub(super) async fn is_listed(instance: &Instance, task: TaskId) -> Result<bool, PortError> {
    let Some(found) = instance.ports.store.get(LIST_KEY.to_owned()).await? else { return Ok(false) };
    let Ok(list) = serde_json::from_slice::<List>(&found.value) else { return Ok(true) };
    let leases = instance.ports.store.get_many(list.instances.iter().map(lease_key).collect()).await?;
    let lists = |lease: Document| serde_json::from_slice::<LeaseDoc>(&lease.value).map_or(true, |lease| lease.entries.contains(&task));
    Ok(leases.into_iter().flatten().any(lists))
}

/// Watches the peers for as long as this instance lives, and takes over those that are dead.
pub(super) async fn watch(instance: &Arc<Instance>, predecessor: Option<InstanceId>) {
    let mut seen: BTreeMap<InstanceId, (ETag, Duration)> = BTreeMap::new();
    loop {
        match look(instance, predecessor.as_ref(), &mut seen).await {
            Ok(dead) => {
                for (peer, last_seen) in dead {
                    take_over(instance, &peer, last_seen).await;
                    seen.remove(&peer);
                }
            }
            Err(error) => tracing::debug!(%error, "the peers could not be read"),
        }
        instance.ports.world.sleep(instance.settings.renew).await;
    }
}

/// The peers that are dead: this process's own former life, fenced, gone, sitting on this instance's seat, or unchanged for too long by this
/// observer's clock. The last comes with the version that did not change: one that beats after all, while others are being taken over, lives.
async fn look(
    instance: &Instance,
    predecessor: Option<&InstanceId>,
    seen: &mut BTreeMap<InstanceId, (ETag, Duration)>,
) -> Result<Vec<(InstanceId, Option<ETag>)>, PortError> {
    let Some(found) = instance.ports.store.get(LIST_KEY.to_owned()).await? else { return Ok(Vec::new()) };
    let mut peers = serde_json::from_slice::<List>(&found.value).unwrap_or_default().instances;
    peers.retain(|peer| *peer != instance.id);
    seen.retain(|peer, _| peers.contains(peer));
    if peers.is_empty() {
        return Ok(Vec::new());
    }
    // What is read now was current no later than now: an unchanged ETag proves no beat since the first look, at the earliest.
    let now = instance.ports.world.monotonic();
    let documents = instance.ports.store.get_many(peers.iter().map(lease_key).collect()).await?;
    let mut dead = Vec::new();
    for (peer, document) in peers.into_iter().zip(documents) {
        let Some(document) = document else {
            dead.push((peer, None));
            continue;
        };
        let lease = serde_json::from_slice::<LeaseDoc>(&document.value).ok();
        let over = lease.as_ref().is_none_or(|lease| {
            let same_seat = lease.seat.is_some() && lease.seat == instance.settings.seat;
            lease.fenced_by.is_some() || same_seat || predecessor == Some(&peer)
        });
        let since = match seen.get(&peer) {
            Some((etag, since)) if *etag == document.etag => *since,
            _ => {
                let now = instance.ports.world.monotonic();
                seen.insert(peer.clone(), (document.etag.clone(), now));
                now
            }
        };
        if over {
            dead.push((peer, None));
        } else if now.saturating_sub(since) >= instance.settings.stale {
            dead.push((peer, Some(document.etag)));
        }
    }
    Ok(dead)
}

/// Takes over everything `dead` was responsible for. Stops half-way when the store fails; the next look goes on with it.
pub(super) async fn take_over(instance: &Arc<Instance>, dead: &InstanceId, last_seen: Option<ETag>) {
    match try_take_over(instance, dead, last_seen).await {
        Ok(Some(count)) => tracing::info!(instance = %dead.0, tasks = count, "took over a runner that is gone"),
        Ok(None) => tracing::info!(instance = %dead.0, "the runner is alive after all"),
        Err(error) => tracing::warn!(instance = %dead.0, %error, "takeover interrupted; it will be continued"),
    }
}

async fn try_take_over(instance: &Arc<Instance>, dead: &InstanceId, last_seen: Option<ETag>) -> Result<Option<usize>, PortError> {
    let Some(entries) = fence(instance, dead, last_seen).await? else { return Ok(None) };
    // One that cannot be taken over now must not keep the others waiting; the dead instance stays listed for its sake.
    let mut failure = None;
    for tasks in entries.chunks(TAKEN_TOGETHER) {
        let taken = futures_util::future::join_all(tasks.iter().map(|task| take_task(instance, dead, *task))).await;
        for (task, taken) in tasks.iter().zip(taken) {
            if let Err(error) = taken {
                tracing::error!(%task, instance = %dead.0, %error, "a task could not be taken over; it is tried again");
                failure = Some(error);
            }
        }
    }
    if let Some(error) = failure {
        return Err(error);
    }
    let_go(instance, dead).await?;
    let strike = |list: &mut Vec<InstanceId>| {
        let before = list.len();
        list.retain(|listed| listed != dead);
        list.len() != before
    };
    change_list(instance, strike).await?;
    Ok(Some(entries.len()))
}

/// Marks the dead instance's document; gives its entries, or none when it was not dead.
async fn fence(instance: &Instance, dead: &InstanceId, last_seen: Option<ETag>) -> Result<Option<Vec<TaskId>>, PortError> {
    let Some(found) = instance.ports.store.get(lease_key(dead)).await? else { return Ok(Some(Vec::new())) };
    let parse = |error: serde_json::Error| PortError::new("reading a runner's index", error.to_string());
    let mut lease: LeaseDoc = serde_json::from_slice(&found.value).map_err(parse)?;
    if lease.fenced_by.is_some() {
        return Ok(Some(lease.entries));
    }
    if last_seen.is_some_and(|etag| etag != found.etag) {
        return Ok(None);
    }
    lease.fenced_by = Some(instance.id.clone());
    lease.beat += 1;
    let value = serde_json::to_vec(&lease).map_err(parse)?;
    // For good: what its index names may take longer to move than anything else is kept.
    let save = Save { key: lease_key(dead), value: value.into(), guard: Guard::Unchanged(found.etag), ttl: None };
    match instance.ports.store.save(save).await? {
        Saved::Written => Ok(Some(lease.entries)),
        // Its own last beat may still have been on its way.
        Saved::Conflict if *dead == instance.id => Box::pin(fence(instance, dead, None)).await,
        Saved::Conflict => Ok(None),
    }
}

/// Once nothing hangs on the dead instance's document any more it goes by itself, late enough for one that was frozen to find that it is fenced.
async fn let_go(instance: &Instance, dead: &InstanceId) -> Result<(), PortError> {
    let Some(found) = instance.ports.store.get(lease_key(dead)).await? else { return Ok(()) };
    let ttl = Some(instance.settings.keep_ended);
    let save = Save { key: lease_key(dead), value: found.value, guard: Guard::Unchanged(found.etag), ttl };
    // A conflict is another peer's, which has come to the same end.
    instance.ports.store.save(save).await.map(drop)
}

/// One task of the dead instance: written so that its last owner can write no more, and sent on its way.
async fn take_task(instance: &Arc<Instance>, dead: &InstanceId, task: TaskId) -> Result<(), PortError> {
    let mut refused: Option<PortError> = None;
    loop {
        let (mut doc, guard) = match instance.load(task).await? {
            Some((doc, guard)) => (doc, guard),
            None => {
                // Listed before it was written, as a rule; or away for longer than an ended task is kept.
                tracing::info!(%task, instance = %dead.0, "a task that a dead runner was responsible for has no document");
                (TaskDoc::blank(task), Guard::Absent)
            }
        };
        let now = instance.ports.world.now();
        match &doc.owner {
            Some(owner) if owner == dead => match &refused {
                Some(error) => doc.end(now, refused_end(error)),
                None => doc.cut_off(now),
            },
            // It may have been about to move a task on whose owner never listed it: written unchanged, so that this write fails.
            Some(_) => match instance.save(doc, guard).await.0? {
                Saved::Written => return Ok(()),
                Saved::Conflict => continue,
            },
            None if doc.ended() => {
                send(instance, &doc).await?;
                erasure::strip_if_erased(instance, &doc).await;
                return Ok(());
            }
            None => {}
        }
        match instance.save(doc, guard).await {
            (Ok(Saved::Written), doc) => {
                timers::fire_overdue(instance, &doc);
                send(instance, &doc).await?;
                // It has ended here if it could not be moved on.
                erasure::strip_if_erased(instance, &doc).await;
                return Ok(());
            }
            (Ok(Saved::Conflict), _) => {}
            (Err(error), _) if error.refused && refused.is_none() => refused = Some(error),
            (Err(error), _) => return Err(error),
        }
    }
}

async fn send(instance: &Instance, doc: &TaskDoc) -> Result<(), PortError> {
    outbox::send(&instance.ports, doc).await
}
