//! From records to outcomes: parse, skip replays meant for others, run the handler guarded against panics and time-outs, dead-letter.
//!
//! A batch whose handler panics or hangs is worked again one by one, so that the fault counts against its own event alone.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;

use super::dead_letter::{DeadLetters, Rejected};
use super::delivery::{Delivery, Record};
use super::faults::{FAULTS_MAX, Faults};
use super::{Handling, LastWords, SubscribeOptions, Work};
use crate::error::chain;
use crate::event::RawEvent;
use crate::metrics;

/// How a handler ends with an event.
#[derive(Debug)]
pub enum Outcome {
    /// Its effect is durable, now or from an earlier delivery.
    Done,
    /// Something that will heal is in the way; deliver it again. Never counted.
    Retry(Box<dyn std::error::Error + Send + Sync>),
    /// It can never be handled: dead-letter it with this reason.
    Reject(Box<dyn std::error::Error + Send + Sync>),
}

impl Outcome {
    /// A `Retry` because of `error`.
    pub fn retry(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Retry(error.into())
    }

    /// A `Reject` because of `error`.
    pub fn reject(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Reject(error.into())
    }
}

/// What one topic's route needs to work its records.
pub(super) struct Worker {
    pub(super) consumer: Arc<str>,
    pub(super) topic: Arc<str>,
    pub(super) options: SubscribeOptions,
    pub(super) raw: bool,
    pub(super) work: Work,
    pub(super) dead_letters: Option<DeadLetters>,
    pub(super) last_words: Option<LastWords>,
    pub(super) faults: Faults,
}

/// How it ended with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Done,
    /// Its dead letter is published.
    Rejected,
    /// It will come again.
    Retried,
}

impl End {
    /// As the metric has it.
    fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Rejected => "reject",
            Self::Retried => "retry",
        }
    }

    /// Whether the record may be acknowledged.
    fn acknowledges(self) -> bool {
        self != Self::Retried
    }

    fn done(done: bool) -> Self {
        if done { Self::Done } else { Self::Retried }
    }
}

/// Why a handler gave no outcome.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("the handler panicked")]
    Panicked,
    #[error("the handler took longer than {0} ms")]
    TimedOut(u128),
}

impl Worker {
    /// For each record whether it may be acknowledged.
    pub(super) async fn work(&self, records: Vec<Record>) -> Vec<bool> {
        let count = records.len();
        let _in_flight = metrics::InFlight::start(&self.topic, count);
        let ends = match &self.work {
            Work::Records(handler) => {
                let handling = handler(records);
                let mut kept = self.guarded(handling).await.unwrap_or_default();
                kept.resize(count, false);
                kept.into_iter().map(End::done).collect()
            }
            Work::Events(_) => self.work_events(records).await,
        };
        for end in [End::Done, End::Rejected, End::Retried] {
            metrics::consumed(&self.topic, end.as_str(), ends.iter().filter(|ended| **ended == end).count());
        }
        ends.into_iter().map(End::acknowledges).collect()
    }

    async fn work_events(&self, records: Vec<Record>) -> Vec<End> {
        let mut ends = vec![End::Retried; records.len()];
        let mut places = Vec::with_capacity(records.len());
        let mut deliveries = Vec::with_capacity(records.len());
        for (place, record) in records.into_iter().enumerate() {
            match RawEvent::parse(&record.body) {
                Ok(event) if event.replayed_for().is_some_and(|consumer| consumer != &*self.consumer) => ends[place] = End::Done,
                Ok(event) => {
                    places.push(place);
                    deliveries.push(Delivery { event, record });
                }
                Err(error) => {
                    ends[place] = self.reject(&record, None, "unparsable", error.to_string(), 1).await;
                }
            }
        }
        for (place, end) in places.into_iter().zip(self.handle_once(deliveries).await) {
            ends[place] = end;
        }
        ends
    }

    /// Handles what was not done before, and marks what is done now.
    async fn handle_once(&self, deliveries: Vec<Delivery>) -> Vec<End> {
        let Some(dedupe) = &self.options.dedupe else {
            return self.handle(deliveries).await;
        };
        let mut ends: Vec<End> = match dedupe.seen(&self.consumer, deliveries.iter().map(|delivery| &delivery.event)).await {
            Ok(seen) => seen.into_iter().map(End::done).collect(),
            Err(error) => {
                tracing::warn!(topic = %self.topic, error = %chain(&error), "marks could not be read; the events will come again");
                return vec![End::Retried; deliveries.len()];
            }
        };
        let (places, fresh): (Vec<usize>, Vec<Delivery>) =
            deliveries.into_iter().enumerate().filter(|(place, _)| !ends[*place].acknowledges()).unzip();
        let events: Vec<RawEvent> = fresh.iter().map(|delivery| delivery.event.clone()).collect();
        for ((place, event), end) in places.into_iter().zip(events).zip(self.handle(fresh).await) {
            ends[place] = end;
            if end.acknowledges()
                && let Err(error) = dedupe.mark(&self.consumer, &event).await
            {
                // The effect is there and the event is acknowledged; only a redelivery would find no mark.
                tracing::warn!(topic = %self.topic, id = %event.id, error = %chain(&error), "event done, but not marked");
            }
        }
        ends
    }

    async fn handle(&self, deliveries: Vec<Delivery>) -> Vec<End> {
        let Work::Events(handler) = &self.work else {
            return vec![End::Retried; deliveries.len()];
        };
        if deliveries.is_empty() {
            return Vec::new();
        }
        // Records are cheap to keep (their bytes are shared); an event is parsed again in the rare case that it is needed.
        let records: Vec<Record> = deliveries.iter().map(|delivery| delivery.record.clone()).collect();
        match self.guarded(handler(deliveries)).await {
            Ok(outcomes) => {
                let mut ends = Vec::with_capacity(records.len());
                let mut outcomes = outcomes.into_iter();
                for record in &records {
                    ends.push(self.conclude(record, outcomes.next()).await);
                }
                ends
            }
            Err(fault) => match records.as_slice() {
                [one] => vec![self.fault(one, &fault).await],
                many => {
                    let mut ends = Vec::with_capacity(many.len());
                    for record in many {
                        ends.push(self.handle_alone(record).await);
                    }
                    ends
                }
            },
        }
    }

    async fn handle_alone(&self, record: &Record) -> End {
        let (Work::Events(handler), Ok(event)) = (&self.work, RawEvent::parse(&record.body)) else {
            return End::Retried;
        };
        match self.guarded(handler(vec![Delivery { event, record: record.clone() }])).await {
            Ok(outcomes) => self.conclude(record, outcomes.into_iter().next()).await,
            Err(fault) => self.fault(record, &fault).await,
        }
    }

    async fn conclude(&self, record: &Record, outcome: Option<Outcome>) -> End {
        match outcome {
            Some(Outcome::Done) => End::Done,
            Some(Outcome::Reject(error)) => {
                let (source, id) = identity(record);
                self.reject(record, Some((&source, &id)), "rejected", chain(&*error), 1).await
            }
            Some(Outcome::Retry(error)) => {
                tracing::debug!(topic = %self.topic, offset = record.offset, reason = %chain(&*error), "event will be delivered again");
                End::Retried
            }
            None => End::Retried,
        }
    }

    async fn fault(&self, record: &Record, fault: &Fault) -> End {
        let (source, id) = identity(record);
        let attempts = self.faults.note(&source, &id);
        tracing::error!(topic = %self.topic, id, attempts, %fault, "handler failed");
        if attempts < FAULTS_MAX || !self.last_words_said(record, fault, attempts).await {
            return End::Retried;
        }
        self.reject(record, Some((&source, &id)), "handler_failed", fault.to_string(), attempts).await
    }

    /// Whether nothing is left to be done before the event is put aside.
    async fn last_words_said(&self, record: &Record, fault: &Fault, attempts: u32) -> bool {
        let (Some(last_words), Ok(event)) = (&self.last_words, RawEvent::parse(&record.body)) else { return true };
        match self.guarded(last_words(Delivery { event, record: record.clone() }, fault.to_string())).await {
            Ok(Outcome::Done | Outcome::Reject(_)) => true,
            Ok(Outcome::Retry(error)) => {
                tracing::warn!(topic = %self.topic, reason = %chain(&*error), "poison is not put aside yet; it will come again");
                false
            }
            // The next event has to flow on, whatever is broken here.
            Err(_) => attempts >= 2 * FAULTS_MAX,
        }
    }

    async fn reject(&self, record: &Record, identity: Option<(&str, &str)>, code: &'static str, reason: String, attempts: u32) -> End {
        let rejected = Rejected { record, identity, consumer: &self.consumer, code, reason, attempts };
        let Some(dead_letters) = &self.dead_letters else {
            tracing::error!(topic = %self.topic, reason = %rejected.reason, "event rejected, but there is no dead-letter topic: it will come again");
            return End::Retried;
        };
        match dead_letters.publish(&rejected).await {
            Ok(()) => End::Rejected,
            Err(error) => {
                tracing::warn!(topic = %self.topic, error = %chain(&error), "dead letter was not published; the event will come again");
                End::Retried
            }
        }
    }

    async fn guarded<T>(&self, handling: Handling<T>) -> Result<T, Fault> {
        let limit = self.options.handler_timeout;
        match tokio::time::timeout(limit, AssertUnwindSafe(handling).catch_unwind()).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(_panic)) => Err(Fault::Panicked),
            Err(_) => Err(Fault::TimedOut(limit.as_millis())),
        }
    }
}

/// The `source` and `id` of a record that is an event.
fn identity(record: &Record) -> (String, String) {
    RawEvent::parse(&record.body).map(|event| (event.source, event.id)).unwrap_or_default()
}
