//! One task of a key at a time, whichever runner has it: a document per agent and key, which names the try at a task that may run.
//!
//! The name is a claim, and the task's own document says what it is worth. A try whose task has ended, was parked, or is at a later try or turn is over for good:
//! it never runs again, and whoever finds it named may put their own name there. One that is queued is about to run, and one that is running runs: both are waited
//! for. So a task runs only while its try is named, and the name changes only when that try is over; nothing has to be given back, and nothing can leak: what
//! ends a task's try (its end, its parking, the takeover of its owner) gives the key free by that very write. A document that nobody uses any more goes by itself.
//!
//! | a crash after | leaves |
//! |---|---|
//! | naming the try, before its task is running | a queued task of a dead owner, which the takeover moves to its next turn: the try is over |
//! | the write that makes it running | a running task of a dead owner: likewise |
//! | the write that ends it | a name of no worth |
//!
//! A write of the name whose answer was lost is looked for. One that arrives late finds another version, or names a try that is over; or it names one that
//! still waits, which then finds that it has the key.
//!
//! Lost: a lease of its own on the key, which a runner that stands still would outlive; giving the key back, which a crash can leave undone.

use std::sync::Arc;
use std::time::Duration;

use fte_events::{TaskId, TaskRequested, sha256_hex};
use serde::{Deserialize, Serialize};

use super::instance::{Instance, RETRY};
use super::pool::Key;
use crate::document::{State, TaskDoc};
use crate::ports::{Guard, PortError, Save, Saved};

/// A name stays for so long beyond the longest run of its agent: longer than any owner is about to run a task.
const SPARE: Duration = Duration::from_secs(24 * 3600);
/// How often it is looked whether a key that another runner's task has is free.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The document `lock/{agent}/{key}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct LockDoc {
    task_id: TaskId,
    turn: u32,
    attempt: u32,
}

/// What came of asking for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// The try is named, and may run.
    Named,
    /// Another task has it.
    Busy,
}

impl Key {
    /// The key of a task, if its agent's tasks have one and its request says which.
    pub(super) fn of(instance: &Instance, doc: &TaskDoc) -> Option<Self> {
        Self::of_request(instance, &doc.agent, &doc.tenant, doc.request.as_ref()?)
    }

    /// The key that a task with this request has.
    pub(super) fn of_request(instance: &Instance, agent: &str, tenant: &str, request: &TaskRequested) -> Option<Self> {
        let value = instance.settings.agents.get(agent)?.concurrency_key.as_ref()?.value(request)?;
        // The same customer number of two tenants is two customers.
        Some(Self(sha256_hex(serde_json::json!([tenant, value]).to_string().as_bytes())))
    }
}

/// Asks for the key on behalf of a task that this instance owns and that is about to run. Keeps trying while the store fails.
pub(super) fn ask(instance: &Arc<Instance>, doc: &TaskDoc, key: &Key) -> impl Future<Output = Asked> + Send + use<> {
    let me = LockDoc { task_id: doc.task_id, turn: doc.turn, attempt: doc.attempt };
    let longest_run = instance.settings.agents.get(&doc.agent).map_or(Duration::ZERO, |limits| limits.timeout);
    let (name, ttl) = (format!("lock/{}/{}", doc.agent, key.0), longest_run.saturating_add(SPARE));
    let instance = Arc::clone(instance);
    async move {
        loop {
            match try_ask(&instance, &name, &me, ttl).await {
                Ok(Some(asked)) => return asked,
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(task = %me.task_id, %error, "the key that the task needs could not be asked for; trying again");
                    instance.ports.world.sleep(RETRY).await;
                }
            }
        }
    }
}

/// One round; none when somebody else was faster.
async fn try_ask(instance: &Instance, name: &str, me: &LockDoc, ttl: Duration) -> Result<Option<Asked>, PortError> {
    let malformed = |error: serde_json::Error| PortError::new("reading a key's document", error.to_string());
    let guard = match instance.ports.store.get(name.to_owned()).await? {
        None => Guard::Absent,
        Some(found) => {
            let named: LockDoc = serde_json::from_slice(&found.value).map_err(malformed)?;
            if named == *me {
                return Ok(Some(Asked::Named));
            }
            let doc = instance.load(named.task_id).await?.map(|(doc, _)| doc);
            if doc.is_some_and(|doc| !named.is_over(&doc)) {
                return Ok(Some(Asked::Busy));
            }
            Guard::Unchanged(found.etag)
        }
    };
    let value = serde_json::to_vec(me).map_err(malformed)?.into();
    let saved = instance.ports.store.save(Save { key: name.to_owned(), value, guard, ttl: Some(ttl) }).await?;
    Ok((saved == Saved::Written).then_some(Asked::Named))
}

impl LockDoc {
    /// Whether this try never runs again.
    fn is_over(&self, doc: &TaskDoc) -> bool {
        doc.turn > self.turn || doc.attempt > self.attempt || !matches!(doc.state, State::Queued | State::Running)
    }
}
