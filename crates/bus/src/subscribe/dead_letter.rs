//! Dead letters: a rejected event is published with its reason before it is acknowledged.

use std::sync::Arc;

use crate::error::Error;
use crate::metrics;
use crate::publish::{Message, Publisher};
use crate::subscribe::delivery::Record;

/// An event that can never be handled, and why. The service makes its own dead-letter event of it.
#[derive(Debug)]
pub struct Rejected<'a> {
    /// The record as it arrived.
    pub record: &'a Record,
    /// The event's `source` and `id`, when it could be read that far.
    pub identity: Option<(&'a str, &'a str)>,
    /// The consumer that rejects it.
    pub consumer: &'a str,
    /// A stable word: `unparsable`, `rejected`, `handler_failed`.
    pub code: &'static str,
    /// What happened, with causes.
    pub reason: String,
    /// How often it was tried.
    pub attempts: u32,
}

type Letter = dyn Fn(&Rejected<'_>) -> Message + Send + Sync;

/// Publishes dead letters for a service.
#[derive(Clone)]
pub struct DeadLetters {
    publisher: Publisher,
    letter: Arc<Letter>,
}

impl DeadLetters {
    pub(super) fn new(publisher: Publisher, letter: impl Fn(&Rejected<'_>) -> Message + Send + Sync + 'static) -> Self {
        Self { publisher, letter: Arc::new(letter) }
    }

    pub(super) async fn publish(&self, rejected: &Rejected<'_>) -> Result<(), Error> {
        self.publisher.send((self.letter)(rejected)).await?;
        metrics::dead_letter(&rejected.record.topic);
        tracing::warn!(
            topic = %rejected.record.topic, consumer = rejected.consumer, code = rejected.code, reason = %rejected.reason,
            "event dead-lettered"
        );
        Ok(())
    }
}
