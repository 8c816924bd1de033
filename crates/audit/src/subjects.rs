//! Personal data in the log: which key seals an event, and how a person's keys are destroyed, so that the log forgets without being changed.
//!
//! Always true:
//! * What is logged of a task or a person is ciphertext from its first byte on the disk. In the clear are only events of FTE's own services about no
//!   task and no person.
//! * A key is durable before the entry that it seals is written.
//! * Once the keys of somebody are destroyed, no byte in the log's directory tells what was sealed with them, and nothing that comes later of what was
//!   erased can be read either.
//!
//! **The unit of a key is the task.** A task's status says nothing about who asked for it, and may arrive before the request that does; so what belongs
//! to a task is sealed with the task's key, and a table says which person's tasks there are, filled in whatever order events come. Erasing a person
//! destroys the person's own key and those of all their tasks and of what these handed on. One key for each person was the other way: it needs to know
//! whose an event is before it can be written down.
//! What has no task is sealed with the key of the person that it names, and what has neither with a key of its own. On `fte.audit.actions` what a person
//! did is sealed with that person's key even where it belongs to a task, so that a decision lasts as long as who made it and not as long as who asked.
//! That topic is to carry no personal data; it is sealed all the same, since anybody may be wrong about that.
//!
//! **Contents that have had their time** lose their keys by age, which is no erasure: see `expiring`, and [`crate::service::contents`] for what the time is.
//!
//! **What arrives late.** A destroyed key leaves its place empty: an event for it is sealed with a key that nobody keeps. An event that names an erased
//! person and happened before the erasure takes its task along, which is then erased everywhere, as those that were known ([`Subjects::unfinished`]).
//!
//! The parts: [`about`] says whom an event is about, `cipher` seals, `master` wraps the keys, `keys` finds and makes them, `erasing` and `expiring` destroy them, and
//! this file puts them together.

mod about;
pub(crate) mod cache;
mod cipher;
pub(crate) mod erasing;
mod error;
pub(crate) mod expiring;
pub(crate) mod holds;
pub(crate) mod keys;
mod master;
mod retiring;
mod rewrap;
mod schema;
mod sealing;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) use self::about::ERASURE;
pub use self::about::{About, Person};
#[cfg(test)]
pub(crate) use self::cipher::nonce_text;
pub use self::cipher::{ALG, ALG_WITHOUT_DIGEST, Context};
pub(crate) use self::cipher::{nonce_of, sealed_digest};
pub use self::erasing::{EraseError, Erasure, Step, Subject, SubjectError};
pub use self::error::KeyError;
use self::keys::Keys;
pub use self::rewrap::rewrap;

/// A clock in milliseconds since 1970.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// Where the keys are.
#[derive(Clone)]
pub struct SubjectsOptions {
    /// The directory of the keys: the database `subjects.sqlite`, and the master key `master.key` unless another file is named.
    pub directory: PathBuf,
    /// The file of the master key. It is made where there are no keys yet, and never otherwise.
    pub master_key: PathBuf,
    /// The master key itself, in place of its file.
    pub master_secret: Option<fte_service::Secret>,
    /// Keys that are held ready, unwrapped. One takes about 200 bytes.
    pub cached_max: usize,
    /// When keys are made and destroyed.
    pub clock: Clock,
}

impl SubjectsOptions {
    /// The usual limits in a directory.
    pub fn at(directory: impl Into<PathBuf>) -> Self {
        let directory = directory.into();
        let clock: Clock = Arc::new(|| jiff::Timestamp::now().as_millisecond());
        Self { master_key: directory.join("master.key"), master_secret: None, directory, cached_max: 32_768, clock }
    }
}

/// An event that is to be logged.
#[derive(Clone, Copy, Debug)]
pub struct Unsealed<'a> {
    /// Whom it is about.
    pub about: &'a About,
    /// What it is bound to: its ciphertext opens nowhere else.
    pub context: Context<'a>,
    /// It, to the byte.
    pub bytes: &'a [u8],
    /// Their SHA-256.
    pub sha256: [u8; 32],
}

/// What is logged of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// The payload to store: ciphertext, or nothing where the event itself is stored as it is.
    pub ciphertext: Option<Vec<u8>>,
    /// How it was sealed; none where it was not.
    pub enc: Option<Enc>,
    /// Under what the actor or requester is found: a keyed hash for a person, the name itself for an agent or a service.
    pub actor: Option<Box<str>>,
}

/// How a payload was sealed, in the words of an entry's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enc {
    /// [`ALG`].
    pub alg: &'static str,
    /// Names the key, and says nothing about whose it is.
    pub key: String,
    /// 24 bytes, base64url: a keyed digest of the event ([`Subjects::digest_key`]).
    pub nonce: String,
}

/// A payload that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// The event as it came.
    Bytes(Vec<u8>),
    /// Its key was destroyed.
    Erased,
}

/// The keys of all tasks and persons. One for a directory; every method may be called from any thread, and blocks while it works on the disk.
pub struct Subjects {
    keys: Mutex<Keys>,
}

impl Subjects {
    /// Opens the keys, or makes a master key and an empty table where there is neither.
    ///
    /// # Errors
    /// The master key is missing or not the one of these keys; the disk.
    pub fn open(options: SubjectsOptions) -> Result<Self, KeyError> {
        Ok(Self { keys: Mutex::new(Keys::open(options)?) })
    }

    /// Seals a group of events. The keys that it made are durable on return; events may be logged then. Repeating a group after any error is safe.
    ///
    /// # Errors
    /// The keys cannot be written or read now: nothing of the group may be logged.
    pub fn seal(&self, group: &[Unsealed<'_>]) -> Result<Vec<Sealed>, KeyError> {
        self.lock().seal(group)
    }

    /// Opens a payload by the `alg`, `key` and `nonce` of its entry.
    ///
    /// # Errors
    /// The key is not there (a restored, older copy of the keys), it does not open the payload, or the disk.
    pub fn open_payload(&self, (alg, key, nonce): (&str, &str, &str), context: Context<'_>, payload: &[u8]) -> Result<Opened, KeyError> {
        self.lock().open_payload((alg, key, nonce), context, payload)
    }

    /// The key of one entry's digest, by which whoever is shown an event can check that it is what was sealed: the first 24 bytes of HMAC-SHA256 under this key
    /// over the event to the byte are the entry's `nonce`. `None` once the key that seals it was destroyed.
    ///
    /// # Errors
    /// The key is not there, or the disk.
    pub fn digest_key(&self, key: &str, context: Context<'_>) -> Result<Option<[u8; 32]>, KeyError> {
        Ok(self.lock().digest_key(key, context)?.map(|key| *key))
    }

    /// Under what entries of this actor or requester are found: of `ada` or `user:ada`. At most 64 values; the name itself is among them, since an
    /// agent or a service is found by it.
    ///
    /// # Errors
    /// The disk.
    pub fn search_values(&self, actor: &str) -> Result<Vec<String>, KeyError> {
        self.lock().search_values(actor)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Keys> {
        // A panic leaves no half-done state behind: everything durable is in transactions, and the cache is only filled after they end.
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
