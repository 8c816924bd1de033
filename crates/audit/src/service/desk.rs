//! Sees erasures and legal holds through: what [`crate::subjects`] has made durable gets its entry in the log, and the others are told.
//!
//! Always true: nothing of this is held in memory alone. Whatever a crash cuts short is found again in the rows of [`crate::subjects`], and every step
//! may be taken twice: an entry of the log has an identity made of the erasure's or the hold's, and so has each event. A keeper looks at the start, when
//! there is news, and now and then, since a task that arrives late may be an erasure too.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fte_bus::{Message, Publisher, json};
use fte_events::{ActionOutcome, ActionRecorded, Actor, ActorType, ErasureRequested, EventName, Outgoing, TENANT, TaskId, event_id};
use fte_service::{AuditTrail, ServiceError, chain};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::{Mutex, Notify};
use uuid::Uuid;

use crate::NAME;
use crate::entry::Position;
use crate::entry::leaf::Kind;
use crate::log::{Log, LogError, Query};
use crate::notes::{Note, Notes};
use crate::service::exports::Exports;
use crate::subjects::holds::{Covers, Hold, HoldError, Unlogged};
use crate::subjects::{EraseError, Erasure, KeyError, Step, Subject, Subjects};

/// Tasks that one event names: it stays well below the size that any event may have.
const TASKS_TOLD_MAX: u32 = 500;
/// Erasures seen through in one look.
const ERASURES_MAX: u32 = 100;
/// Entries about holds that are read at a time.
const HOLDS_READ: usize = 500;
/// As late as a time can be: the end of the year 9999, in milliseconds since 1970.
const EVER_MS: i64 = 253_402_207_200_000;
/// Between two looks that nobody asked for, and after a failure.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// What cannot be done now. It is done later, by itself.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unfinished {
    #[error(transparent)]
    Keys(#[from] KeyError),
    #[error("the log did not take an entry")]
    Log(#[from] LogError),
    #[error("exports could not be removed")]
    Exports(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("an event could not be published")]
    Publish(#[source] fte_bus::Error),
    #[error("the entry {0} of the log about a legal hold cannot be read")]
    Entry(Position),
    #[error("the thread that works on the keys has ended")]
    Ended,
}

/// The desk; cheap to clone.
#[derive(Clone)]
pub(crate) struct Desk {
    subjects: Arc<Subjects>,
    notes: Arc<dyn Notes>,
    publisher: Publisher,
    audit: AuditTrail,
    /// What may hold in the clear what is to be forgotten.
    exports: Option<Exports>,
    news: Arc<Notify>,
    /// One at a time sees things through.
    turn: Arc<Mutex<()>>,
}

impl Desk {
    pub(crate) fn new(subjects: Arc<Subjects>, notes: Arc<dyn Notes>, publisher: Publisher, audit: AuditTrail) -> Self {
        Self { subjects, notes, publisher, audit, exports: None, news: Arc::default(), turn: Arc::default() }
    }

    /// With the exports that an erasure removes.
    pub(crate) fn with_exports(self, exports: Exports) -> Self {
        Self { exports: Some(exports), ..self }
    }

    /// Erases a subject: on return its keys are gone. What follows is done now if it can be, and else later by itself.
    pub(crate) async fn erase(&self, subject: Subject, by: &str) -> Result<Erasure, EraseError> {
        let tenant = subject.tenant.clone();
        let erased = self.on_keys(move |subjects| subjects.erase(&subject)).await;
        let erasure = match erased {
            Ok(erasure) => erasure?,
            Err(Unfinished::Keys(error)) => return Err(error.into()),
            Err(_) => return Err(EraseError::Interrupted),
        };
        // If it fails, the erasure is not seen through before it has succeeded.
        if let Err(error) = self.forget_exports().await {
            tracing::warn!(error = %chain(&error), "exports are not removed yet after an erasure; it is tried again");
        }
        self.note_action("personal-data.erased", Some(&tenant), by, format!("erasure/{}", erasure.id));
        self.see_through_now().await;
        let id = erasure.id;
        Ok(self.on_keys(move |subjects| subjects.erasure(id)).await.ok().and_then(Result::ok).flatten().unwrap_or(erasure))
    }

    /// Places a hold. It is in force on return.
    pub(crate) async fn place(&self, hold: Hold) -> Result<(), HoldError> {
        let (by, resource, tenant) = (hold.placed_by.clone(), format!("hold/{}", hold.id), hold.covers.tenant().map(str::to_owned));
        match self.on_keys(move |subjects| subjects.place_hold(&hold)).await {
            Ok(placed) => placed?,
            Err(_) => return Err(HoldError::Interrupted),
        }
        self.note_action("legal-hold.placed", tenant.as_deref(), &by, resource);
        self.see_through_now().await;
        Ok(())
    }

    /// Lifts a hold; false where there is none.
    pub(crate) async fn lift(&self, id: Uuid, by: &str) -> Result<bool, Unfinished> {
        let hold = self.holds().await?.into_iter().find(|hold| hold.id == id);
        let lifted = self.on_keys(move |subjects| subjects.lift_hold(id)).await??;
        if lifted {
            let tenant = hold.as_ref().and_then(|hold| hold.covers.tenant());
            self.note_action("legal-hold.lifted", tenant, by, format!("hold/{id}"));
            self.see_through_now().await;
        }
        Ok(lifted)
    }

    /// Places again what the log says is held and the keys do not know, or know as lifted: the row was taken away or changed, or an older copy of the keys was
    /// put back. One that is not known covers everything, since the log does not say all of what it covered. Lifting it is somebody's decision, which goes on
    /// record. What was lifted since such a copy was made is lifted.
    pub(crate) async fn recall_holds(&self, log: &dyn Log) -> Result<(), Unfinished> {
        let (placed, lifted) = (logged_holds(log, Kind::HoldPlaced).await?, logged_holds(log, Kind::HoldLifted).await?);
        for (&id, &lifted_ms) in &lifted {
            self.on_keys(move |subjects| subjects.recall_lifting(id, lifted_ms)).await??;
        }
        for (id, placed_ms) in placed.into_iter().filter(|(id, _)| !lifted.contains_key(id)) {
            let reason = "the log has this hold and the keys of personal data did not: it covers everything until it is lifted".to_owned();
            let covers = Covers::Range { from_ms: 0, to_ms: EVER_MS };
            let hold = Hold { id, covers, reason, placed_by: NAME.to_owned(), placed_ms };
            if self.on_keys(move |subjects| subjects.recall_hold(&hold)).await?? {
                tracing::error!(hold = %id, "the audit log has a legal hold that the keys of personal data did not have in force: it is again, until it is lifted");
            }
        }
        Ok(())
    }

    pub(crate) async fn holds(&self) -> Result<Vec<Hold>, Unfinished> {
        Ok(self.on_keys(Subjects::holds).await??)
    }

    /// Looks after what is unfinished, for as long as the service lives.
    pub(crate) async fn keep(self) -> Result<(), ServiceError> {
        loop {
            if let Err(error) = self.see_through().await {
                tracing::warn!(error = %chain(&error), "an erasure or a legal hold is not seen through yet; it is tried again");
            }
            let _news_or_time = tokio::time::timeout(LOOK_EVERY, self.news.notified()).await;
        }
    }

    /// What was just done is seen through while its caller waits a little; the keeper goes on after that.
    async fn see_through_now(&self) {
        const PATIENCE: Duration = Duration::from_secs(3);
        match tokio::time::timeout(PATIENCE, self.see_through()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => self.news.notify_one(),
        }
    }

    /// Takes every step that is still to be taken.
    pub(crate) async fn see_through(&self) -> Result<(), Unfinished> {
        let _turn = self.turn.lock().await;
        self.on_keys(Subjects::forget_gone).await??;
        for unlogged in self.on_keys(Subjects::unlogged_holds).await?? {
            self.notes.note(hold_note(&unlogged)).await?;
            self.on_keys(move |subjects| subjects.set_hold_logged(&unlogged)).await??;
        }
        for erasure in self.on_keys(|subjects| subjects.unfinished(ERASURES_MAX)).await?? {
            if erasure.step == Step::Destroyed {
                // An export is kept for a day, which contents that have had their time may be, too.
                if !erasure.is_expiry {
                    self.forget_exports().await?;
                }
                self.notes.note(erasure_note(&erasure)).await?;
                self.on_keys(move |subjects| subjects.set_logged(erasure.id)).await??;
            }
            self.tell(&erasure).await?;
            self.on_keys(move |subjects| subjects.set_told(erasure.id)).await??;
        }
        Ok(())
    }

    async fn forget_exports(&self) -> Result<(), Unfinished> {
        match &self.exports {
            Some(exports) => exports.forget().await.map_err(|error| Unfinished::Exports(error.into())),
            None => Ok(()),
        }
    }

    /// Publishes whom to forget, the tasks in the order of their ids, so that each part is the same event whenever it is made.
    async fn tell(&self, erasure: &Erasure) -> Result<(), Unfinished> {
        // One without a subject was told before, or is about nobody.
        let Some(subject) = &erasure.subject else { return Ok(()) };
        let at = Timestamp::from_millisecond(erasure.at_ms).unwrap_or_default();
        let (mut part, mut after) = (0, None);
        loop {
            let id = erasure.id;
            let tasks = self.on_keys(move |subjects| subjects.erased_tasks(id, after, TASKS_TOLD_MAX)).await??;
            if tasks.is_empty() && part > 0 {
                return Ok(());
            }
            after = tasks.last().copied();
            let payload = ErasureRequested {
                subject: subject.to_string(),
                tasks: tasks.iter().copied().map(TaskId::from_uuid).collect(),
                extra: serde_json::Map::new(),
            };
            let event = event_id(TaskId::from_uuid(erasure.id), EventName::Erasure { part });
            let event = Outgoing::new(NAME, event, at, &payload).tenant(&subject.tenant);
            let message = Message { topic: event.topic().into(), key: None, body: event.to_bytes() };
            self.publisher.send(message).await.map_err(Unfinished::Publish)?;
            if after.is_none() {
                return Ok(());
            }
            part += 1;
        }
    }

    /// Who did it. The topic of actions tells of no person but the one who acted.
    fn note_action(&self, name: &str, tenant: Option<&str>, by: &str, resource: String) {
        let mut action = ActionRecorded::new(name, Actor::new(ActorType::User, by), ActionOutcome::Success, Timestamp::now());
        action.resource = Some(resource);
        self.audit.note_of(tenant.unwrap_or(TENANT), action);
    }

    async fn on_keys<T: Send + 'static>(&self, work: impl FnOnce(&Subjects) -> T + Send + 'static) -> Result<T, Unfinished> {
        let subjects = Arc::clone(&self.subjects);
        tokio::task::spawn_blocking(move || work(&subjects)).await.map_err(|_| Unfinished::Ended)
    }
}

/// The holds that entries of this kind are about, and when they were logged.
async fn logged_holds(log: &dyn Log, kind: Kind) -> Result<BTreeMap<Uuid, i64>, Unfinished> {
    #[derive(serde::Deserialize)]
    struct Event {
        data: Data,
    }
    #[derive(serde::Deserialize)]
    struct Data {
        hold_id: Uuid,
    }
    let (mut holds, mut after) = (BTreeMap::new(), None);
    loop {
        let query = Query { action: Some(kind.as_str().to_owned()), after, limit: HOLDS_READ, ..Query::default() };
        let page = log.entries(query).await?;
        // Anybody may give an action such a name.
        for entry in page.entries.iter().filter(|entry| entry.header.kind == kind) {
            let event = entry.bytes.as_deref().and_then(|bytes| json::from_slice::<Event>(bytes, json::EVENT_DEPTH_MAX).ok());
            let hold = event.ok_or_else(|| Unfinished::Entry(entry.position))?.data.hold_id;
            holds.insert(hold, entry.header.logged_time);
        }
        after = page.next;
        if after.is_none() {
            return Ok(holds);
        }
    }
}

fn erasure_note(erasure: &Erasure) -> Note {
    let mut payload = json!({
        "erasure_id": erasure.id,
        "keys": erasure.keys,
        "tasks": erasure.tasks,
        "destroyed_at": Timestamp::from_millisecond(erasure.at_ms).unwrap_or_default(),
    });
    if erasure.is_expiry {
        payload["reason"] = "retention".into();
    }
    let tenant = erasure.subject.as_ref().map(|subject| subject.tenant.clone());
    Note { kind: Kind::KeyDestroyed, id: format!("key-destroyed/{}", erasure.id), tenant, payload }
}

fn hold_note(Unlogged { hold, lifted_ms }: &Unlogged) -> Note {
    let at = Timestamp::from_millisecond(lifted_ms.unwrap_or(hold.placed_ms)).unwrap_or_default();
    let (kind, word) = if lifted_ms.is_some() { (Kind::HoldLifted, "lifted") } else { (Kind::HoldPlaced, "placed") };
    let mut payload = json!({"hold_id": hold.id, "at": at});
    // A person is not named where it cannot be taken back.
    let (covers, more) = match &hold.covers {
        Covers::Tenant { .. } => ("tenant", Value::Null),
        Covers::Task { task_id } => ("task", json!({"task_id": task_id})),
        Covers::Subject { .. } => ("subject", Value::Null),
        Covers::Range { from_ms, to_ms } => ("range", json!({"from_ms": from_ms, "to_ms": to_ms})),
    };
    let tenant = hold.covers.tenant().map(str::to_owned);
    payload["covers"] = covers.into();
    if let (Value::Object(more), Value::Object(payload)) = (more, &mut payload) {
        payload.extend(more);
    }
    Note { kind, id: format!("hold-{word}/{}", hold.id), tenant, payload }
}

#[cfg(test)]
pub(crate) mod tests;
