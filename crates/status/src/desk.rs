//! Deciding about dead letters: replay and discard, each recorded in the audit trail before it takes effect.
//!
//! One decision at a time, so that two people who decide at once get one decision. A crash between publishing a replay and noting it leaves the letter
//! open. Repeating the replay publishes the same event again, which its consumer recognises, as long as it remembers: a new task that is known here was published, and is
//! kept here for longer than the letter, so it is only noted then.

use fte_bus::Publisher;
use fte_events::{ActionOutcome, ActionRecorded, Actor, ActorType};
use fte_service::AuditTrail;
use fte_service::keys::Caller;
use jiff::Timestamp;
use serde_json::Value;

use crate::dead_letters::{Letter, NotReplayable, Replay};
use crate::metrics;
use crate::store::{LetterRow, LetterState, Store, StoreError};

/// Decides about letters; cheap to clone.
#[derive(Clone)]
pub(crate) struct Desk {
    store: Store,
    publisher: Publisher,
    audit: AuditTrail,
}

/// Why nothing was decided.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DecideError {
    #[error("there is no such letter")]
    Unknown,
    #[error("the letter was decided otherwise")]
    Otherwise(LetterState),
    #[error("the letter cannot be replayed")]
    NotReplayable(#[source] NotReplayable),
    #[error("the decision could not be recorded in the audit trail")]
    NotRecorded,
    #[error("the event was not published")]
    NotPublished(#[source] fte_bus::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Desk {
    pub(crate) fn new(store: Store, publisher: Publisher, audit: AuditTrail) -> Self {
        Self { store, publisher, audit }
    }

    /// Publishes the letter's event again. A letter that was replayed already is only told about.
    pub(crate) async fn replay(&self, id: &str, caller: &Caller) -> Result<(LetterRow, Replay), DecideError> {
        let _alone = self.store.deciding_alone().await?;
        let row = self.store.letter(id.to_owned(), caller.scope().clone()).await?.ok_or(DecideError::Unknown)?;
        let letter = Letter::read(&row.topic, &row.record);
        if row.state == LetterState::Discarded {
            return Err(DecideError::Otherwise(row.state));
        }
        let replay = letter.replay(id, Timestamp::now()).map_err(DecideError::NotReplayable)?;
        if row.state == LetterState::Replayed {
            return Ok((row, replay));
        }
        if !self.is_out(&replay, caller).await? {
            self.record(caller, "deadletter.replayed", &row, &letter, Some(&replay)).await?;
            self.publisher.send(replay.message.clone()).await.map_err(DecideError::NotPublished)?;
        }
        let row = self.decide(id, LetterState::Replayed).await?;
        metrics::letters("replayed", 1);
        Ok((row, replay))
    }

    /// Whether the replay's task is there: an earlier decision was carried out, and a crash came before it was noted.
    async fn is_out(&self, replay: &Replay, caller: &Caller) -> Result<bool, StoreError> {
        match replay.starts {
            Some(task) => Ok(self.store.task(task, caller.scope().clone()).await?.is_some()),
            None => Ok(false),
        }
    }

    /// Puts the letter away.
    pub(crate) async fn discard(&self, id: &str, caller: &Caller) -> Result<LetterRow, DecideError> {
        let _alone = self.store.deciding_alone().await?;
        let row = self.store.letter(id.to_owned(), caller.scope().clone()).await?.ok_or(DecideError::Unknown)?;
        match row.state {
            LetterState::Open => {}
            LetterState::Discarded => return Ok(row),
            LetterState::Replayed => return Err(DecideError::Otherwise(row.state)),
        }
        self.record(caller, "deadletter.discarded", &row, &Letter::read(&row.topic, &row.record), None).await?;
        let row = self.decide(id, LetterState::Discarded).await?;
        metrics::letters("discarded", 1);
        Ok(row)
    }

    /// What was done with a letter is of the letter's tenant, as its task is.
    async fn record(
        &self,
        caller: &Caller,
        action: &str,
        row: &LetterRow,
        letter: &Letter,
        replay: Option<&Replay>,
    ) -> Result<(), DecideError> {
        let id = row.id.as_str();
        let actor = Actor::new(ActorType::User, caller.name().unwrap_or("unknown"));
        let mut action = ActionRecorded::new(action, actor, ActionOutcome::Success, Timestamp::now());
        action.resource = Some(format!("dead-letter/{id}"));
        action.task_id = replay.map_or(letter.task, |replay| replay.task);
        action.data.insert("letter_id".to_owned(), Value::from(id));
        action.data.insert("consumer".to_owned(), Value::from(letter.consumer.as_str()));
        if let Some(replay) = replay {
            action.data.insert("topic".to_owned(), Value::from(&*replay.message.topic));
            action.data.insert("event_id".to_owned(), Value::from(replay.event_id.as_str()));
        }
        self.audit.record(&row.tenant, action, Some(id)).await.map_err(|_| DecideError::NotRecorded)
    }

    async fn decide(&self, id: &str, state: LetterState) -> Result<LetterRow, DecideError> {
        let at_us = Timestamp::now().as_microsecond();
        self.store.decide(id.to_owned(), state, at_us).await?.ok_or(DecideError::Unknown)
    }
}
