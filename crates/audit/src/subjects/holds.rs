//! Legal holds: what must not be erased or retired, whatever else is asked.
//!
//! A hold covers a tenant, a task, a person or a span of time, until it is lifted. Holds stand beside the keys, so that an erasure looks for them in the
//! very transaction that would destroy a key: one that is placed at the same moment either stops it or comes after it.
//!
//! The log has an entry for each that was placed or lifted, with what it covers but for persons, whom it does not name, and without the reason, which is
//! free text. Those are sealed here.
//!
//! What stands here can be taken away by who writes files, or by putting an older copy back; the entry in the log cannot. So each start asks the log which
//! holds there are ([`Subjects::recall_hold`]).

use std::collections::HashSet;
use std::fmt;

use rusqlite::{OptionalExtension, Transaction, params};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::entry::Task;
use crate::subjects::cache::Name;
use crate::subjects::erasing::{What, tasks_of};
use crate::subjects::expiring::search_again;
use crate::subjects::keys::{Fault, Keys, Vault, open_alone, seal_alone, task_id as task_id_of};
use crate::subjects::{KeyError, Subject, Subjects};

/// Most holds at a time.
const HOLDS_MAX: i64 = 1000;

/// What a hold covers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", tag = "covers")]
pub enum Covers {
    /// Everything of a tenant.
    Tenant { tenant: String },
    /// A task.
    Task { task_id: Uuid },
    /// A person of a tenant, and their tasks.
    Subject { tenant: String, subject: String },
    /// What was logged from one moment on and before another, in milliseconds since 1970.
    Range { from_ms: i64, to_ms: i64 },
}

impl Covers {
    /// Whose records it covers, if of one tenant alone.
    pub(crate) fn tenant(&self) -> Option<&str> {
        match self {
            Self::Tenant { tenant } | Self::Subject { tenant, .. } => Some(tenant),
            Self::Task { .. } | Self::Range { .. } => None,
        }
    }
}

/// A legal hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Hold {
    /// Its id.
    pub id: Uuid,
    /// What it covers.
    #[serde(flatten)]
    pub covers: Covers,
    /// Why, for people.
    pub reason: String,
    /// Who placed it.
    pub placed_by: String,
    /// When, in milliseconds since 1970.
    pub placed_ms: i64,
}

/// A hold forbids it.
#[derive(Debug, thiserror::Error)]
#[error("the legal hold {} of {} forbids it: {}", .0.id, .0.placed_by, .0.reason)]
pub struct Blocked(pub Box<Hold>);

/// A hold that cannot be placed.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    #[error("there are {HOLDS_MAX} holds already: lift those that have had their time")]
    TooMany,
    #[error("the work on the keys was interrupted")]
    Interrupted,
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// A hold that was placed or lifted and is not in the log yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unlogged {
    pub hold: Hold,
    /// When it was lifted, if that is what is to be logged.
    pub lifted_ms: Option<i64>,
}

impl Subjects {
    /// Places a hold; one with the same id is that one.
    ///
    /// # Errors
    /// There are too many; the disk.
    pub fn place_hold(&self, hold: &Hold) -> Result<(), HoldError> {
        let mut keys = self.lock();
        let placed = keys.place_hold(hold);
        match placed.map_err(|fault| keys.fault(fault))? {
            true => Ok(()),
            false => Err(HoldError::TooMany),
        }
    }

    /// Places a hold that the log has the entry of, and no lifting, unless it is known; one whose row says that its lifting is in the log is in force again.
    /// Whether it was not known, or not in force.
    ///
    /// # Errors
    /// The disk; to repeat it is safe.
    pub fn recall_hold(&self, hold: &Hold) -> Result<bool, KeyError> {
        let keys = self.lock();
        let recalled = insert(&keys.connection, &keys.vault, hold, 1).and_then(|is_new| {
            let sql = "UPDATE hold SET lifted_ms = NULL, logged = 1 WHERE id = ?1 AND logged > 1";
            Ok(is_new || keys.connection.execute(sql, params![hold.id.as_bytes()])? > 0)
        });
        recalled.map_err(|fault| keys.fault(fault))
    }

    /// Lifts a hold that the log has the lifting of, where it is in force.
    ///
    /// # Errors
    /// The disk; to repeat it is safe.
    pub fn recall_lifting(&self, id: Uuid, lifted_ms: i64) -> Result<(), KeyError> {
        let mut keys = self.lock();
        let mut recall = || -> rusqlite::Result<()> {
            let transaction = keys.connection.transaction()?;
            let sql = "UPDATE hold SET lifted_ms = coalesce(lifted_ms, ?2), logged = 2 WHERE id = ?1 AND logged < 2";
            if transaction.execute(sql, params![id.as_bytes(), lifted_ms])? > 0 {
                search_again(&transaction)?;
            }
            transaction.commit()
        };
        let recalled = recall();
        recalled.map_err(|error| keys.explained(error))
    }

    /// Lifts a hold; false where there is none with this id. To repeat it is safe.
    ///
    /// # Errors
    /// The disk.
    pub fn lift_hold(&self, id: Uuid) -> Result<bool, KeyError> {
        let mut keys = self.lock();
        let lifted = keys.lift_hold(id);
        lifted.map_err(|error| keys.explained(error))
    }

    /// The holds in force.
    ///
    /// # Errors
    /// The disk.
    pub fn holds(&self) -> Result<Vec<Hold>, KeyError> {
        let keys = self.lock();
        in_force(&keys.connection, &keys.vault).map_err(|fault| keys.fault(fault))
    }

    /// Holds whose placing or lifting is not in the log yet.
    ///
    /// # Errors
    /// The disk.
    pub fn unlogged_holds(&self) -> Result<Vec<Unlogged>, KeyError> {
        let keys = self.lock();
        let read = || -> Result<Vec<Unlogged>, Fault> {
            let sql = "SELECT id, sealed, lifted_ms, logged FROM hold WHERE logged < 1 + (lifted_ms IS NOT NULL) ORDER BY n LIMIT 100";
            let mut select = keys.connection.prepare_cached(sql)?;
            let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get::<_, i64>(3)?)))?;
            let mut unlogged = Vec::new();
            for row in rows {
                let (id, sealed, lifted_ms, logged): ([u8; 16], Vec<u8>, Option<i64>, i64) = row?;
                let hold = opened(&keys.vault, Uuid::from_bytes(id), &sealed)?;
                unlogged.push(Unlogged { hold, lifted_ms: lifted_ms.filter(|_| logged == 1) });
            }
            Ok(unlogged)
        };
        read().map_err(|fault| keys.fault(fault))
    }

    /// The log has the entry of this placing or lifting.
    ///
    /// # Errors
    /// The disk; to repeat it is safe.
    pub fn set_hold_logged(&self, unlogged: &Unlogged) -> Result<(), KeyError> {
        let keys = self.lock();
        let step = if unlogged.lifted_ms.is_some() { 2 } else { 1 };
        let sql = "UPDATE hold SET logged = max(logged, ?2) WHERE id = ?1";
        keys.connection.execute(sql, params![unlogged.hold.id.as_bytes(), step]).map(drop).map_err(|error| keys.explained(error))
    }
}

impl Keys {
    fn place_hold(&mut self, hold: &Hold) -> Result<bool, Fault> {
        let transaction = self.connection.transaction()?;
        let known = transaction.query_row("SELECT 1 FROM hold WHERE id = ?1", [hold.id.as_bytes()], |_| Ok(())).optional()?;
        if known.is_some() {
            return Ok(true);
        }
        let count: i64 = transaction.query_row("SELECT count(*) FROM hold WHERE lifted_ms IS NULL", [], |row| row.get(0))?;
        if count >= HOLDS_MAX {
            return Ok(false);
        }
        insert(&transaction, &self.vault, hold, 0)?;
        transaction.commit()?;
        Ok(true)
    }
}

impl Keys {
    fn lift_hold(&mut self, id: Uuid) -> rusqlite::Result<bool> {
        let now_ms = self.now_ms();
        let transaction = self.connection.transaction()?;
        let is_lifted =
            transaction.execute("UPDATE hold SET lifted_ms = ?2 WHERE id = ?1 AND lifted_ms IS NULL", params![id.as_bytes(), now_ms])?;
        if is_lifted > 0 {
            search_again(&transaction)?;
        }
        let is_known = transaction.prepare_cached("SELECT 1 FROM hold WHERE id = ?1")?.exists([id.as_bytes()])?;
        transaction.commit()?;
        Ok(is_known)
    }
}

/// Whether it was not there.
fn insert(connection: &rusqlite::Connection, vault: &Vault, hold: &Hold, logged: i64) -> Result<bool, Fault> {
    let text = serde_json::to_vec(hold).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    let sealed = seal_alone(&vault.desk, hold.id.as_bytes(), &text)?;
    let sql = "INSERT INTO hold (id, sealed, placed_ms, logged) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (id) DO NOTHING";
    Ok(connection.execute(sql, params![hold.id.as_bytes(), sealed, hold.placed_ms, logged])? > 0)
}

fn in_force(connection: &rusqlite::Connection, vault: &Vault) -> Result<Vec<Hold>, Fault> {
    let mut select = connection.prepare_cached("SELECT id, sealed FROM hold WHERE lifted_ms IS NULL ORDER BY n")?;
    let rows = select.query_map([], |row| Ok((row.get::<_, [u8; 16]>(0)?, row.get::<_, Vec<u8>>(1)?)))?;
    let mut holds = Vec::new();
    for row in rows {
        let (id, sealed) = row?;
        holds.push(opened(vault, Uuid::from_bytes(id), &sealed)?);
    }
    Ok(holds)
}

fn opened(vault: &Vault, id: Uuid, sealed: &[u8]) -> Result<Hold, Fault> {
    let text = open_alone(&vault.desk, id.as_bytes(), sealed);
    let hold = text.and_then(|text| serde_json::from_slice(&text).ok());
    hold.ok_or_else(|| KeyError::Sealed { key: format!("hold {id}") }.into())
}

/// The hold that forbids to erase a subject with these units, if there is one.
pub(crate) fn blocking(
    transaction: &Transaction<'_>,
    vault: &Vault,
    subject: &Subject,
    person: Option<&Name>,
    units: &[Name],
) -> Result<Option<Blocked>, Fault> {
    for hold in in_force(transaction, vault)? {
        let blocks = match &hold.covers {
            Covers::Tenant { tenant } => *tenant == subject.tenant,
            Covers::Task { task_id } => units.contains(&vault.task(&subject.tenant, &Task::Id(*task_id))),
            Covers::Subject { tenant, subject } => match Subject::parse(tenant, subject).map(|held| held.what) {
                Ok(What::Person(held)) => {
                    let held = vault.person(tenant, &held);
                    person == Some(&held) || has_task_among(transaction, &held, units)?
                }
                _ => false,
            },
            Covers::Range { to_ms, .. } => is_older(transaction, person, units, *to_ms)?,
        };
        if blocks {
            return Ok(Some(Blocked(Box::new(hold))));
        }
    }
    Ok(None)
}

/// Those of some units, with their tenants where these are known, that a hold covers. Where it is not certain that one is free of a hold, it is held.
pub(crate) fn held(transaction: &Transaction<'_>, vault: &Vault, units: &[(Option<String>, Name)]) -> Result<HashSet<Name>, Fault> {
    let mut held = HashSet::new();
    for hold in in_force(transaction, vault)? {
        match &hold.covers {
            Covers::Tenant { tenant } => {
                held.extend(units.iter().filter(|(of, _)| of.as_ref().is_none_or(|of| of == tenant)).map(|(_, unit)| *unit));
            }
            Covers::Task { task_id } => held.extend(units.iter().map(|(_, unit)| *unit).filter(|unit| task_id_of(unit) == Some(*task_id))),
            Covers::Subject { tenant, subject } => {
                let Ok(What::Person(person)) = Subject::parse(tenant, subject).map(|held| held.what) else {
                    // What cannot be read may be about any of them.
                    held.extend(units.iter().map(|(_, unit)| *unit));
                    continue;
                };
                let person = vault.person(tenant, &person);
                for (_, unit) in units {
                    if is_task_of(transaction, unit, &person)? {
                        held.insert(*unit);
                    }
                }
            }
            Covers::Range { to_ms, .. } => {
                for (_, unit) in units {
                    if is_older(transaction, None, std::slice::from_ref(unit), *to_ms)? {
                        held.insert(*unit);
                    }
                }
            }
        }
    }
    Ok(held)
}

fn has_task_among(transaction: &Transaction<'_>, person: &Name, units: &[Name]) -> Result<bool, Fault> {
    let n: Option<i64> = transaction.query_row("SELECT n FROM key WHERE unit = ?1", [person], |row| row.get(0)).optional()?;
    let Some(n) = n else { return Ok(false) };
    Ok(tasks_of(transaction, n)?.iter().any(|task| units.contains(task)))
}

/// Whether a task, or one that it was handed on by, is a person's. It looks upwards: somebody may have a million tasks, and a task has few above it.
fn is_task_of(transaction: &Transaction<'_>, unit: &Name, person: &Name) -> Result<bool, Fault> {
    let sql = "WITH RECURSIVE above (task) AS (SELECT ?1 UNION SELECT parent FROM kin JOIN above ON child = above.task)
        SELECT 1 FROM key JOIN owner ON owner.n = key.n WHERE key.unit = ?2 AND owner.task IN (SELECT task FROM above) LIMIT 1";
    Ok(transaction.prepare_cached(sql)?.exists(params![unit, person])?)
}

/// Whether one of the keys was made before a moment, and so may have sealed what was logged before it.
fn is_older(transaction: &Transaction<'_>, person: Option<&Name>, units: &[Name], ms: i64) -> Result<bool, Fault> {
    let mut select = transaction.prepare_cached("SELECT created_ms FROM key WHERE unit = ?1")?;
    for unit in units.iter().chain(person) {
        let created_ms: Option<i64> = select.query_row([unit], |row| row.get(0)).optional()?;
        if created_ms.is_some_and(|created_ms| created_ms < ms) {
            return Ok(true);
        }
    }
    Ok(false)
}

impl fmt::Display for Covers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tenant { tenant } => write!(f, "tenant {tenant}"),
            Self::Task { task_id } => write!(f, "task {task_id}"),
            Self::Subject { tenant, subject } => write!(f, "{subject} of tenant {tenant}"),
            Self::Range { from_ms, to_ms } => write!(f, "what was logged from {} to {}", time(*from_ms), time(*to_ms)),
        }
    }
}

fn time(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), fte_bus::time::text)
}
