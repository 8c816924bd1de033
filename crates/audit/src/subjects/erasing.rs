//! Destroying keys, and seeing an erasure through.
//!
//! One transaction writes down that the erasure is wanted, destroys the keys, and remembers the person (as a keyed hash) for what arrives late. So there
//! is no crash between wish and deed. What follows can be repeated and is, from the row of the erasure, until it is done:
//!
//! | step | what is durable | what follows, again after a crash |
//! |---|---|---|
//! | 0 | the keys are destroyed | the write-ahead log is cut (also by every start); the log gets its `key_destroyed` entry, whose identity is the erasure's |
//! | 1 | the entry is in the log | `fte.erasure.requested` is published, in events whose ids are made of the erasure's |
//! | 2 | the broker has all of them | nothing: whom it was about is overwritten, and the list of tasks is gone |

use std::fmt;

use rusqlite::{OptionalExtension, Transaction, TransactionBehavior, params};
use uuid::Uuid;

use super::about::{Person, person_of};
use super::cache::Name;
use super::keys::{DESTROYED, Fault, Gone, Keys, Result, Vault, insert, key_of, open_alone, random_id, seal_alone, task_id};
use super::{KeyError, Subjects};
use crate::entry::Task;
use crate::subjects::holds::Blocked;

/// How long a person who was erased is remembered: longer than any topic but that of the actions keeps an event, which is 90 days.
pub(crate) const GONE_KEPT_MS: i64 = 100 * 24 * 3600 * 1000;
const SUBJECT_CHARS_MAX: usize = 512;
/// In place of an erasure's id: the key was destroyed since its contents have had their time.
pub(super) const EXPIRED: [u8; 16] = [0xff; 16];

/// Whom or what to erase, in a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    pub tenant: String,
    pub(crate) what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// `user:ada`: a person, all their tasks, and all that these handed on.
    Person(Person),
    /// `task:<id>`: a task, and what it handed on.
    Task(Uuid),
    /// `key:<key>`: what one key seals, as the entry names it.
    Key(String),
}

/// A text that names nobody.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0:?} names nobody: expected a person as kind and id (user:ada, customer:c-17), a task (task:ID), or a key as an entry names it (key:17-0a1b2c3d)"
)]
pub struct SubjectError(String);

impl Subject {
    /// Reads a reference.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(tenant: &str, text: &str) -> Result<Self, SubjectError> {
        let error = || SubjectError(text.chars().take(64).collect());
        if text.len() > SUBJECT_CHARS_MAX {
            return Err(error());
        }
        let what = match text.split_once(':') {
            Some(("task", id)) => What::Task(Uuid::try_parse(id).map_err(|_| error())?),
            Some(("key", key)) => What::Key(key_of(key).map(|_| key.to_owned()).ok_or_else(error)?),
            _ => What::Person(person_of(text).ok_or_else(error)?),
        };
        Ok(Self { tenant: tenant.to_owned(), what })
    }
}

impl Subject {
    pub(crate) fn is_person(&self) -> bool {
        matches!(self.what, What::Person(_))
    }

    /// Whether it is of its tenant alone. A key does not say whose it is.
    pub(crate) fn is_of_tenant(&self) -> bool {
        !matches!(self.what, What::Key(_))
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::Person(person) => person.fmt(f),
            What::Task(id) => write!(f, "task:{id}"),
            What::Key(key) => write!(f, "key:{key}"),
        }
    }
}

/// How far an erasure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Destroyed,
    Logged,
    Told,
}

/// An erasure; or that contents have had their time, which is about nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Erasure {
    pub id: Uuid,
    /// Whom it is about, until all have been told.
    pub subject: Option<Subject>,
    pub at_ms: i64,
    /// How many keys were destroyed, and how many tasks they took along.
    pub keys: u64,
    pub tasks: u64,
    pub step: Step,
    /// Whether it is about nobody: keys were destroyed since contents have had their time.
    pub is_expiry: bool,
}

/// Why nothing was erased.
#[derive(Debug, thiserror::Error)]
pub enum EraseError {
    #[error(transparent)]
    Held(#[from] Blocked),
    #[error("the key {0:?} is a person's own: name the person, so that their tasks are erased too")]
    PersonsKey(String),
    #[error("the work on the keys was interrupted")]
    Interrupted,
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl Subjects {
    /// Destroys the keys of a subject. On return they are gone from the disk; the rest is done from [`Subjects::unfinished`]. An erasure of what was
    /// erased already, and has not come back since, is that erasure.
    ///
    /// # Errors
    /// A legal hold forbids it; the disk.
    pub fn erase(&self, subject: &Subject) -> Result<Erasure, EraseError> {
        let mut keys = self.lock();
        let erased = keys.erase(subject);
        keys.cache.clear();
        let id = erased?;
        keys.scrub()?;
        let erasure = keys.erasure(id)?;
        erasure.ok_or_else(|| KeyError::Unknown { key: id.to_string() }.into())
    }

    /// An erasure by its id.
    ///
    /// # Errors
    /// The disk.
    pub fn erasure(&self, id: Uuid) -> Result<Option<Erasure>> {
        self.lock().erasure(id)
    }

    /// Erasures that are not done, at most `limit`: those of somebody first, and the oldest of them.
    ///
    /// # Errors
    /// The disk.
    pub fn unfinished(&self, limit: u32) -> Result<Vec<Erasure>> {
        self.lock().unfinished(limit)
    }

    /// Tasks that an erasure took along, after one of them, in the order of their ids, at most `limit`.
    ///
    /// # Errors
    /// The disk.
    pub fn erased_tasks(&self, erasure: Uuid, after: Option<Uuid>, limit: u32) -> Result<Vec<Uuid>> {
        self.lock().erased_tasks(erasure, after, limit)
    }

    /// The entry is in the log.
    ///
    /// # Errors
    /// The disk; to repeat it is safe.
    pub fn set_logged(&self, erasure: Uuid) -> Result<()> {
        let keys = self.lock();
        let sql = "UPDATE erasure SET step = max(step, 1) WHERE id = ?1";
        keys.connection.execute(sql, [erasure.as_bytes()]).map(drop).map_err(|error| keys.explained(error))
    }

    /// All have been told: whom it was about is forgotten.
    ///
    /// # Errors
    /// The disk; to repeat it is safe.
    pub fn set_told(&self, erasure: Uuid) -> Result<()> {
        let mut keys = self.lock();
        keys.set_told(erasure).map_err(|error| keys.explained(error))?;
        keys.unscrubbed = true;
        keys.scrub()
    }

    /// Forgets persons who were erased so long ago that nothing of theirs can still arrive.
    ///
    /// # Errors
    /// The disk.
    pub fn forget_gone(&self) -> Result<usize> {
        let mut keys = self.lock();
        let before = keys.ages.now_ms().saturating_sub(GONE_KEPT_MS);
        let count = keys.connection.execute("DELETE FROM gone WHERE at_ms < ?1", [before]).map_err(|error| keys.explained(error))?;
        keys.gone.retain(|_, gone| gone.at_ms >= before);
        Ok(count)
    }
}

impl Keys {
    fn erase(&mut self, subject: &Subject) -> Result<Uuid, EraseError> {
        let now_ms = self.now_ms();
        let path = super::schema::path_in(&self.options.directory);
        let explained = |error| super::schema::explain(&path, error);
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(explained)?;
        let result = erase_in(&transaction, &self.vault, &self.gone, subject, now_ms).map_err(|fault| fault.explained(&path))?;
        let (id, gone) = match result {
            Outcome::Before(id) => return Ok(id),
            Outcome::Refused(error) => return Err(error),
            Outcome::Erased(id, gone) => (id, gone),
        };
        // From here on a copy may be in the write-ahead log, whatever the commit says.
        self.unscrubbed = true;
        transaction.commit().map_err(explained)?;
        if let Some((person, gone)) = gone {
            self.gone.insert(person, gone);
        }
        Ok(id)
    }

    fn erasure(&self, id: Uuid) -> Result<Option<Erasure>> {
        let sql = "SELECT id, subject, at_ms, keys, tasks, step FROM erasure WHERE id = ?1";
        let row = self.connection.query_row(sql, [id.as_bytes()], |row| self.read_erasure(row));
        row.optional().map_err(|error| self.explained(error))
    }

    fn unfinished(&self, limit: u32) -> Result<Vec<Erasure>> {
        let read = || {
            let sql = "SELECT id, subject, at_ms, keys, tasks, step FROM erasure WHERE step < 2 ORDER BY length(subject) = 0, n LIMIT ?1";
            self.connection.prepare_cached(sql)?.query_map([limit], |row| self.read_erasure(row))?.collect::<rusqlite::Result<_>>()
        };
        read().map_err(|error| self.explained(error))
    }

    fn read_erasure(&self, row: &rusqlite::Row<'_>) -> rusqlite::Result<Erasure> {
        let sealed: Vec<u8> = row.get(1)?;
        let step = match row.get(5)? {
            0 => Step::Destroyed,
            1 => Step::Logged,
            _ => Step::Told,
        };
        let (keys, tasks): (i64, i64) = (row.get(3)?, row.get(4)?);
        let id = Uuid::from_bytes(row.get(0)?);
        let subject = self.vault.open_subject(id, &sealed);
        let is_expiry = sealed.is_empty();
        Ok(Erasure { id, subject, is_expiry, at_ms: row.get(2)?, keys: keys.unsigned_abs(), tasks: tasks.unsigned_abs(), step })
    }

    fn erased_tasks(&self, erasure: Uuid, after: Option<Uuid>, limit: u32) -> Result<Vec<Uuid>> {
        let after = after.map_or([0; 25], |id| {
            // Behind every name that begins with this id.
            let mut name = [u8::MAX; 25];
            name[0] = b't';
            name[1..17].copy_from_slice(id.as_bytes());
            name
        });
        let read = || {
            let sql = "SELECT task FROM erased_task WHERE erasure = (SELECT n FROM erasure WHERE id = ?1) AND task > ?2 AND task < ?3 ORDER BY task LIMIT ?4";
            let mut select = self.connection.prepare_cached(sql)?;
            let names = select.query_map(params![erasure.as_bytes(), after, [b't' + 1; 1], limit], |row| row.get::<_, Name>(0))?;
            names.map(|name| name.map(|name| task_id(&name))).filter_map(Result::transpose).collect::<rusqlite::Result<_>>()
        };
        read().map_err(|error| self.explained(error))
    }

    fn set_told(&mut self, erasure: Uuid) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute("DELETE FROM erased_task WHERE erasure = (SELECT n FROM erasure WHERE id = ?1)", [erasure.as_bytes()])?;
        transaction.execute("UPDATE erasure SET step = 2, subject = zeroblob(length(subject)) WHERE id = ?1", [erasure.as_bytes()])?;
        transaction.commit()
    }
}

enum Outcome {
    Before(Uuid),
    Refused(EraseError),
    Erased(Uuid, Option<(Name, Gone)>),
}

fn erase_in(
    transaction: &Transaction<'_>,
    vault: &Vault,
    gone: &std::collections::HashMap<Name, Gone>,
    subject: &Subject,
    now_ms: i64,
) -> Result<Outcome, Fault> {
    match &subject.what {
        What::Person(person) => {
            let name = vault.person(&subject.tenant, person);
            let n = number_of(transaction, &name)?;
            let before = gone.get(&name);
            if let (None, Some(before)) = (n, before) {
                return Ok(Outcome::Before(Uuid::from_bytes(before.erasure)));
            }
            let tasks = n.map_or(Ok(Vec::new()), |n| tasks_of(transaction, n))?;
            if let Some(blocked) = crate::subjects::holds::blocking(transaction, vault, subject, Some(&name), &tasks)? {
                return Ok(Outcome::Refused(blocked.into()));
            }
            let (erasure, id) = begin(transaction, vault, subject, now_ms)?;
            let destroyed = destroy_tasks(transaction, erasure, &id, &tasks)?;
            let n = match n {
                Some(n) => n,
                None => insert(transaction, vault, &random_id(b'x')?, None, now_ms, id.as_bytes())?,
            };
            let destroyed = destroyed + destroy_person(transaction, n, &id)?;
            finish(transaction, erasure, destroyed, tasks.len())?;
            transaction.execute(
                "INSERT OR REPLACE INTO gone (person, n, at_ms, erasure) VALUES (?1, ?2, ?3, ?4)",
                params![name, n, now_ms, id.as_bytes()],
            )?;
            let life = transaction.query_row("SELECT life FROM key WHERE n = ?1", [n], |row| row.get(0))?;
            Ok(Outcome::Erased(id, Some((name, Gone { n, life, at_ms: now_ms, erasure: *id.as_bytes() }))))
        }
        What::Task(task) => {
            let name = vault.task(&subject.tenant, &Task::Id(*task));
            erase_unit(transaction, vault, subject, &name, now_ms)
        }
        What::Key(key) => {
            // The whole name counts: a number may have been given twice, before and after a restored copy.
            let (n, life) = key_of(key).unwrap_or_default();
            let sql = "SELECT unit FROM key WHERE n = ?1 AND life = ?2";
            let unit: Option<Name> = transaction.query_row(sql, params![n, life], |row| row.get(0)).optional()?;
            match unit {
                None => Err(KeyError::Unknown { key: key.clone() }.into()),
                Some([b'p', ..]) => Ok(Outcome::Refused(EraseError::PersonsKey(key.clone()))),
                Some(name) => erase_unit(transaction, vault, subject, &name, now_ms),
            }
        }
    }
}

/// Erases a task with what it handed on, or what has a key of its own.
fn erase_unit(transaction: &Transaction<'_>, vault: &Vault, subject: &Subject, name: &Name, now_ms: i64) -> Result<Outcome, Fault> {
    if let Some(before) = erasure_of(transaction, name)? {
        return Ok(Outcome::Before(before));
    }
    let units = with_kin(transaction, name)?;
    if let Some(blocked) = crate::subjects::holds::blocking(transaction, vault, subject, None, &units)? {
        return Ok(Outcome::Refused(blocked.into()));
    }
    let (erasure, id) = begin(transaction, vault, subject, now_ms)?;
    if number_of(transaction, name)?.is_none() {
        // Nothing of it has arrived yet; its place is taken, and empty.
        insert(transaction, vault, name, None, now_ms, id.as_bytes())?;
    }
    let destroyed = destroy_tasks(transaction, erasure, &id, &units)?;
    finish(transaction, erasure, destroyed, units.iter().filter(|name| task_id(name).is_some()).count())?;
    Ok(Outcome::Erased(id, None))
}

/// A task has come to light that belongs to what was erased: an erasure of its own, so that it is seen through as any other. Gives the names of all units
/// that it took along. A legal hold does not bind it: what is held was known when the hold was placed or the person erased, and this was neither.
pub(super) fn erase_task(transaction: &Transaction<'_>, vault: &Vault, name: &Name, tenant: &str, now_ms: i64) -> Result<Vec<Name>, Fault> {
    let units = with_kin(transaction, name)?;
    let what = match task_id(name) {
        Some(id) => What::Task(id),
        None => What::Key(key_name(transaction, name)?),
    };
    let subject = Subject { tenant: tenant.to_owned(), what };
    let (erasure, id) = begin(transaction, vault, &subject, now_ms)?;
    let destroyed = destroy_tasks(transaction, erasure, &id, &units)?;
    finish(transaction, erasure, destroyed, units.len())?;
    Ok(units)
}

fn key_name(transaction: &Transaction<'_>, name: &Name) -> rusqlite::Result<String> {
    transaction.query_row("SELECT n, life FROM key WHERE unit = ?1", [name], |row| Ok(super::keys::key_text(row.get(0)?, row.get(1)?)))
}

fn number_of(transaction: &Transaction<'_>, name: &Name) -> rusqlite::Result<Option<i64>> {
    transaction.query_row("SELECT n FROM key WHERE unit = ?1", [name], |row| row.get(0)).optional()
}

/// The erasure that destroyed a unit's key.
fn erasure_of(transaction: &Transaction<'_>, name: &Name) -> rusqlite::Result<Option<Uuid>> {
    let sql = "SELECT erasure FROM key WHERE unit = ?1 AND wrapped = ?2 AND erasure <> ?3";
    transaction.query_row(sql, params![name, DESTROYED, EXPIRED], |row| row.get(0).map(Uuid::from_bytes)).optional()
}

/// The tasks of a person, and all that these handed on.
pub(crate) fn tasks_of(transaction: &Transaction<'_>, n: i64) -> rusqlite::Result<Vec<Name>> {
    let sql = "WITH RECURSIVE theirs (task) AS
        (SELECT task FROM owner WHERE n = ?1 UNION SELECT child FROM kin JOIN theirs ON parent = theirs.task) SELECT task FROM theirs";
    transaction.prepare_cached(sql)?.query_map([n], |row| row.get(0))?.collect()
}

fn with_kin(transaction: &Transaction<'_>, name: &Name) -> rusqlite::Result<Vec<Name>> {
    let sql = "WITH RECURSIVE its (task) AS (SELECT ?1 UNION SELECT child FROM kin JOIN its ON parent = its.task) SELECT task FROM its";
    transaction.prepare_cached(sql)?.query_map([name], |row| row.get(0))?.collect()
}

fn begin(transaction: &Transaction<'_>, vault: &Vault, subject: &Subject, now_ms: i64) -> Result<(i64, Uuid), Fault> {
    let id = erasure_id(now_ms)?;
    let sealed = vault.seal_subject(id, subject)?;
    Ok((insert_erasure(transaction, id, &sealed, now_ms)?, id))
}

/// Its time first, so that the events that are made of it are in order too.
fn erasure_id(now_ms: i64) -> Result<Uuid> {
    let mut random = [0; 10];
    super::cipher::random(&mut random)?;
    Ok(uuid::Builder::from_unix_timestamp_millis(u64::try_from(now_ms).unwrap_or(0), &random).into_uuid())
}

fn insert_erasure(transaction: &Transaction<'_>, id: Uuid, subject: &[u8], now_ms: i64) -> Result<i64, Fault> {
    transaction.execute(
        "INSERT INTO erasure (id, subject, at_ms, keys, tasks, step) VALUES (?1, ?2, ?3, 0, 0, 0)",
        params![id.as_bytes(), subject, now_ms],
    )?;
    Ok(transaction.last_insert_rowid())
}

/// A row as that of an erasure, about nobody.
pub(super) fn begin_expiry(transaction: &Transaction<'_>, now_ms: i64) -> Result<i64, Fault> {
    insert_erasure(transaction, erasure_id(now_ms)?, &[], now_ms)
}

pub(super) fn finish(transaction: &Transaction<'_>, erasure: i64, keys: usize, tasks: usize) -> rusqlite::Result<()> {
    transaction.execute("UPDATE erasure SET keys = ?2, tasks = ?3 WHERE n = ?1", params![erasure, keys as i64, tasks as i64]).map(drop)
}

/// Overwrites the keys of tasks where they stand, and notes the tasks for those who are to be told.
fn destroy_tasks(transaction: &Transaction<'_>, erasure: i64, id: &Uuid, tasks: &[Name]) -> rusqlite::Result<usize> {
    let mut note = transaction.prepare_cached("INSERT OR IGNORE INTO erased_task (erasure, task) VALUES (?1, ?2)")?;
    let mut destroy = transaction.prepare_cached("UPDATE key SET wrapped = ?3, erasure = ?2 WHERE unit = ?1 AND wrapped <> ?3")?;
    let mut claim = transaction.prepare_cached("UPDATE key SET erasure = ?2 WHERE unit = ?1 AND erasure = ?3")?;
    let mut destroyed = 0;
    for task in tasks {
        note.execute(params![erasure, task])?;
        destroyed += destroy.execute(params![task, id.as_bytes(), DESTROYED])?;
        // One that was destroyed by age is this erasure's from now on.
        claim.execute(params![task, id.as_bytes(), EXPIRED])?;
    }
    Ok(destroyed)
}

/// Overwrites a person's key and all that told who they are.
fn destroy_person(transaction: &Transaction<'_>, n: i64, id: &Uuid) -> Result<usize, Fault> {
    transaction.execute("DELETE FROM alias WHERE n = ?1", [n])?;
    transaction.execute("DELETE FROM owner WHERE n = ?1", [n])?;
    transaction.execute("UPDATE key SET unit = ?2 WHERE n = ?1", params![n, random_id(b'x')?])?;
    let sql = "UPDATE key SET wrapped = ?3, erasure = ?2 WHERE n = ?1 AND wrapped <> ?3";
    Ok(transaction.execute(sql, params![n, id.as_bytes(), DESTROYED])?)
}

impl Vault {
    fn seal_subject(&self, id: Uuid, subject: &Subject) -> Result<Vec<u8>> {
        let text = format!("{}\n{subject}", subject.tenant);
        seal_alone(&self.desk, id.as_bytes(), text.as_bytes())
    }

    fn open_subject(&self, id: Uuid, sealed: &[u8]) -> Option<Subject> {
        let text = open_alone(&self.desk, id.as_bytes(), sealed)?;
        let (tenant, subject) = std::str::from_utf8(&text).ok()?.split_once('\n')?;
        Subject::parse(tenant, subject).ok()
    }
}
