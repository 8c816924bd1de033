//! Brings what is published to the apps.
//!
//! One task per group and topic owns that pair's [`Group`] state machine and all its calls. A commit wakes it at once; it
//! never waits to fill a batch: when an instance has room for a call, what is there goes out.

mod call;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::Context;
use crate::apps::{App, Instance, Subscription};
use crate::broker::{Action, Bounds, Call, DeadLetter, Group, InstanceId, Mode, Verdict};
use crate::metrics::Deliveries;
use crate::record::{Records, Want};
use crate::store::StoreError;
use crate::store::log::{Cursor, CursorCell};
use crate::topics::{Recent, Topic};

/// Wait before a store that failed is asked again.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// An instance that takes part in a subscription.
#[derive(Debug, Clone)]
struct Member {
    instance: Arc<Instance>,
    subscription: Arc<Subscription>,
}

/// Runs the subscriptions of one app until `stop` says true and the last call has ended.
pub(crate) async fn supervise(context: Arc<Context>, app: Arc<App>, stop: watch::Receiver<bool>) {
    let mut changes = context.changes.subscribe();
    let mut running: BTreeMap<String, watch::Sender<Vec<Member>>> = BTreeMap::new();
    let mut tasks = JoinSet::new();
    let mut stopping = stop.clone();
    loop {
        changes.mark_unchanged();
        let mut wanted: BTreeMap<String, Vec<Member>> = BTreeMap::new();
        for instance in &app.instances {
            let Some(listed) = instance.listed() else {
                continue;
            };
            for subscription in &listed.subscriptions {
                wanted
                    .entry(subscription.topic.clone())
                    .or_default()
                    .push(Member { instance: instance.clone(), subscription: subscription.clone() });
            }
        }
        for (topic, members) in &running {
            members.send_replace(wanted.remove(topic).unwrap_or_default());
        }
        for (topic, members) in wanted {
            let (sender, receiver) = watch::channel(members);
            running.insert(topic.clone(), sender);
            tasks.spawn(run(context.clone(), app.id.clone(), topic, receiver, stop.clone()));
        }
        tokio::select! {
            _ = changes.changed() => {}
            () = crate::stopped(&mut stopping) => break,
        }
    }
    while tasks.join_next().await.is_some() {}
}

/// Ends the use of a position when the task ends, however it ends.
struct InUse(Arc<CursorCell>, Arc<Topic>, Arc<Notify>);

impl InUse {
    fn new(cell: &Arc<CursorCell>, topic: &Arc<Topic>, wake: &Arc<Notify>) -> Self {
        cell.users.fetch_add(1, Ordering::AcqRel);
        topic.add_reader(wake.clone());
        Self(cell.clone(), topic.clone(), wake.clone())
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.users.fetch_sub(1, Ordering::AcqRel);
        self.1.remove_reader(&self.2);
    }
}

/// How a call ended.
enum Done {
    Call(Call, CallEnd),
    DeadLetter(DeadLetter, bool),
}

enum CallEnd {
    /// Each record that was read and what becomes of it, and the batch that held the last one.
    Answered(Vec<(u64, Verdict)>, u64),
    Unreachable,
    /// The records could not be read.
    Unread,
}

/// Finds topic and position, however long that takes.
async fn open(context: &Context, app: &str, topic: &str) -> (Arc<Topic>, Arc<CursorCell>) {
    loop {
        let opened = async {
            let topic = context.store.ensure_topic(topic).await?;
            let cell = context.store.join(app, &topic).await?;
            Ok::<_, StoreError>((topic, cell))
        };
        match opened.await {
            Ok(opened) => return opened,
            Err(error) => {
                tracing::error!(app, topic, error = %crate::chain(&error), "subscription cannot begin; tried again");
                tokio::time::sleep(STORE_PAUSE).await;
            }
        }
    }
}

async fn run(
    context: Arc<Context>,
    app: Arc<str>,
    topic: String,
    mut members: watch::Receiver<Vec<Member>>,
    mut stop: watch::Receiver<bool>,
) {
    let (topic, cell) = tokio::select! {
        opened = open(&context, &app, &topic) => opened,
        () = crate::stopped(&mut stop) => return,
    };
    let wake = Arc::new(Notify::new());
    let _in_use = InUse::new(&cell, &topic, &wake);
    let positions: Vec<u64> = cell.get().iter().map(|cursor| cursor.next).collect();
    let policy = context.resiliency.inbound(&app, &context.pubsub);
    let bounds = Bounds { bulk_calls_max: context.limits.bulk_calls_max, young: context.limits.bulk_call_young };
    let mut pump = Pump {
        metrics: Deliveries::new(&app, &topic.name),
        group: Group::new(&positions, policy, bounds),
        reader: Reader { context, app, topic, cell },
        members: Vec::new(),
    };
    members.mark_changed();
    let mut heads = Vec::new();
    let mut calls: FuturesUnordered<Pin<Box<dyn Future<Output = Done> + Send>>> = FuturesUnordered::new();
    let mut stopping = false;
    loop {
        let last_seq = pump.reader.topic.heads(&mut heads);
        pump.group.published(&heads);
        pump.reader.cell.caught_up(last_seq, |partition| pump.group.caught_up(partition));
        let now = Instant::now();
        while let Some(action) = pump.group.next(now) {
            if let Some(call) = pump.begin(action) {
                calls.push(call);
            }
        }
        pump.metrics.in_flight.set(calls.len() as f64);
        pump.metrics.lag(now, || pump.group.lag());
        if stopping && calls.is_empty() {
            return;
        }
        let wake_at = pump.group.wake_at(now);
        tokio::select! {
            biased;
            Some(done) = calls.next(), if !calls.is_empty() => pump.ended(done),
            () = wake.notified() => {}
            changed = members.changed(), if !stopping => {
                if changed.is_err() {
                    stopping = true;
                    pump.group.stop();
                }
                pump.members = members.borrow_and_update().clone();
                pump.use_members();
            }
            () = crate::stopped(&mut stop), if !stopping => {
                stopping = true;
                pump.group.stop();
            }
            () = sleep_until(wake_at), if wake_at.is_some() => {}
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// One group and topic, with all it needs to act.
struct Pump {
    group: Group,
    reader: Reader,
    members: Vec<Member>,
    metrics: Deliveries,
}

/// What a call needs beside its member. Cheap to clone.
#[derive(Clone)]
struct Reader {
    context: Arc<Context>,
    app: Arc<str>,
    topic: Arc<Topic>,
    cell: Arc<CursorCell>,
}

impl Pump {
    /// Tells the state machine which members are up now.
    fn use_members(&mut self) {
        let bulk_records_max = self.reader.context.limits.bulk_records_max;
        self.group.instances(
            self.members
                .iter()
                .filter(|member| member.instance.listed().is_some())
                .map(|member| {
                    let mode = Mode {
                        bulk: member.subscription.bulk.map(|count| count.min(bulk_records_max)),
                        dead_letter: member.subscription.dead_letter.is_some(),
                    };
                    (member.instance.id, mode)
                })
                .collect(),
        );
    }

    fn member(&self, instance: InstanceId) -> Option<&Member> {
        self.members.iter().find(|member| member.instance.id == instance)
    }

    fn begin(&mut self, action: Action) -> Option<Pin<Box<dyn Future<Output = Done> + Send>>> {
        match action {
            Action::Call(call) => {
                let Some(member) = self.member(call.instance).cloned() else {
                    self.group.unreachable(&call);
                    return None;
                };
                if let Some(only) = &call.only {
                    self.metrics.redelivered.increment(only.len() as u64);
                }
                Some(Box::pin(self.reader.clone().deliver(member, call)))
            }
            Action::DeadLetter(letter) => {
                let topic = self.member(letter.instance).and_then(|member| member.subscription.dead_letter.clone());
                let Some(topic) = topic else {
                    self.group.dead_lettered(&letter, false, Instant::now());
                    return None;
                };
                Some(Box::pin(self.reader.clone().dead_letter(topic, letter)))
            }
        }
    }

    fn ended(&mut self, done: Done) {
        let now = Instant::now();
        let (partition, last_seq) = match done {
            Done::Call(call, CallEnd::Answered(verdicts, last_seq)) => {
                let settled = self.group.answered(&call, &verdicts, now, fastrand::f64());
                self.metrics.delivered.increment(settled.succeeded as u64);
                self.metrics.dropped.increment(settled.dropped as u64);
                (call.partition, Some(last_seq))
            }
            Done::Call(call, CallEnd::Unread) => {
                self.group.answered(&call, &[], now, 0.0);
                return;
            }
            Done::Call(call, CallEnd::Unreachable) => {
                self.group.unreachable(&call);
                // At once, not when the supervisor comes by: the next call must not go there again.
                self.use_members();
                return;
            }
            Done::DeadLetter(letter, durable) => {
                if durable {
                    self.metrics.dead_lettered.increment(letter.only.len() as u64);
                }
                self.group.dead_lettered(&letter, durable, now);
                (letter.partition, None)
            }
        };
        let next = self.group.position(partition);
        let cursor = self.reader.cell.cursor(partition);
        if next > cursor.next {
            // Only when nothing is left open do the batches before the last one hold nothing any more.
            let hint = match last_seq {
                Some(last_seq) if !self.group.open(partition) => cursor.hint.max(last_seq.saturating_sub(1)),
                _ => cursor.hint,
            };
            self.reader.cell.advance(partition, Cursor { next, hint });
            self.reader.context.store.cursors_moved();
        }
    }
}

impl Reader {
    /// Reads records from memory, or from disk when the group is behind what memory holds.
    async fn read(&self, want: Want) -> Result<Records, StoreError> {
        if let Recent::Records(records) = self.topic.read(&want) {
            return Ok(records);
        }
        let mut hint = self.cell.cursor(want.partition).hint;
        loop {
            let (records, scanned) = self.context.store.read_log(&self.topic, hint, want.clone()).await?;
            if !records.is_empty() || scanned == hint {
                return Ok(records);
            }
            hint = scanned;
        }
    }

    async fn deliver(self, member: Member, call: Call) -> Done {
        let want = Want {
            partition: call.partition,
            from: call.from,
            only: call.only.clone(),
            records_max: call.records_max,
            bytes_max: self.context.limits.bulk_bytes_max,
        };
        let records = match self.read(want).await {
            Ok(records) => records,
            Err(error) => {
                tracing::error!(topic = %self.topic.name, error = %crate::chain(&error), "records cannot be read");
                return Done::Call(call, CallEnd::Unread);
            }
        };
        let Some(last_seq) = records.last_seq() else {
            return Done::Call(call, CallEnd::Unread);
        };
        let end = match self.send(&member, &call, records).await {
            Some(verdicts) => CallEnd::Answered(verdicts, last_seq),
            None => CallEnd::Unreachable,
        };
        Done::Call(call, end)
    }

    async fn dead_letter(self, topic: String, letter: DeadLetter) -> Done {
        let want = Want {
            partition: letter.partition,
            from: letter.only.first().copied().unwrap_or_default(),
            only: Some(letter.only.clone()),
            records_max: letter.only.len(),
            bytes_max: usize::MAX,
        };
        let published = async {
            let records = self.read(want).await?;
            let topic = self.context.store.ensure_topic(&topic).await?;
            let letters = call::dead_letters(&records, &self.topic, &topic, letter.partition, &self.context.pubsub);
            self.context.store.publish(topic, letters).await
        };
        match published.await {
            Ok(()) => {
                tracing::warn!(
                    app = %self.app, topic = %self.topic.name, dead_letter_topic = topic, records = letter.only.len(),
                    "records went to the dead-letter topic"
                );
                Done::DeadLetter(letter, true)
            }
            Err(error) => {
                tracing::error!(
                    app = %self.app, topic = %self.topic.name, dead_letter_topic = topic, error = %crate::chain(&error),
                    "dead letters could not be published; tried again"
                );
                Done::DeadLetter(letter, false)
            }
        }
    }
}
