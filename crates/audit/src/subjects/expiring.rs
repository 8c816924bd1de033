//! Keys of contents that have had their time: destroyed by age, when nobody asked for it and nobody is to be told.
//!
//! They are overwritten as those of an erasure are, but with another mark than an erasure's id: a task whose contents have had their time may still be erased,
//! and what belongs to it later is not taken along. What a legal hold covers is passed over; when a hold is lifted the search begins again at the beginning.
//!
//! One transaction destroys keys and says how far the search has come, so a crash repeats nothing and leaves nothing out.

use std::collections::HashSet;

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::cache::Name;
use super::erasing::{EXPIRED, begin_expiry, finish};
use super::keys::{DESTROYED, Fault, Keys, Result};
use super::{KeyError, Subjects};
use crate::entry::{Position, Task};

/// How far the search among closed tasks has come, and that among keys.
const TASKS: &str = "expired_tasks";
const OTHERS: &str = "expired_others";
/// Keys that are looked at in one transaction.
const KEYS_MAX: i64 = 1000;

impl Subjects {
    /// After which entry the search for tasks that have had their time goes on.
    pub(crate) fn expired_to(&self) -> Result<Option<Position>, KeyError> {
        let keys = self.lock();
        let place = mark(&keys.connection, TASKS).map_err(|error| keys.explained(error))?;
        // What cannot be read is no reason not to begin again.
        Ok(place.and_then(|text| text.parse().ok()))
    }

    /// Destroys the keys of these tasks but for those that are held, and moves the search on from where it was, unless it begins again since. Gives how many keys.
    pub(crate) fn expire_tasks(&self, due: &[(String, Task)], after: Option<Position>, upto: Position) -> Result<u64, KeyError> {
        let expired = self.expire(|keys, transaction| {
            let mut units = Vec::new();
            for (tenant, task) in due {
                let own = keys.vault.task(tenant, task);
                let Some((first, last)) = of_any_tenant(task) else {
                    units.push((Some(tenant.clone()), own));
                    continue;
                };
                // The log knows a task by its id alone, and its first entry may not have named the tenant.
                let mut select = transaction.prepare_cached("SELECT unit FROM key WHERE unit BETWEEN ?1 AND ?2")?;
                for unit in select.query_map(params![first, last], |row| row.get::<_, Name>(0))? {
                    let unit = unit?;
                    units.push(((unit == own).then(|| tenant.clone()), unit));
                }
            }
            let place = mark(transaction, TASKS)?.and_then(|text| text.parse().ok());
            Ok((units, (place == after).then(|| (TASKS, upto.to_string()))))
        });
        expired.map(|(destroyed, _)| destroyed)
    }

    /// Destroys keys of what belongs to no task and no person, of those that were made before a moment. Gives how many, and whether there may be more.
    pub(crate) fn expire_others(&self, before_ms: i64) -> Result<(u64, bool), KeyError> {
        self.expire(|_, transaction| {
            let from: i64 = mark(transaction, OTHERS)?.and_then(|text| text.parse().ok()).unwrap_or(0);
            let mut select = transaction.prepare_cached("SELECT n, unit, created_ms FROM key WHERE n > ?1 ORDER BY n LIMIT ?2")?;
            let rows = select.query_map(params![from, KEYS_MAX], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
            let (mut units, mut upto) = (Vec::new(), None);
            for row in rows {
                let (n, unit, created_ms): (i64, Name, i64) = row?;
                // Keys are made in order of time, as far as clocks go.
                if created_ms >= before_ms {
                    break;
                }
                upto = Some((OTHERS, n.to_string()));
                units.extend((unit[0] == b'e').then_some((None, unit)));
            }
            Ok((units, upto))
        })
    }

    /// Gives how many keys were destroyed, and whether the search went on.
    fn expire(&self, choose: impl FnOnce(&Keys, &Transaction<'_>) -> Result<Chosen, Fault>) -> Result<(u64, bool), KeyError> {
        let mut keys = self.lock();
        let now_ms = keys.now_ms();
        let done = keys.expire(choose, now_ms);
        let (destroyed, has_moved) = done.map_err(|fault| keys.fault(fault))?;
        keys.scrub()?;
        Ok((destroyed, has_moved))
    }
}

/// Units with their tenants, where these are known, and how far the search has come with them.
type Chosen = (Vec<(Option<String>, Name)>, Option<(&'static str, String)>);

impl Keys {
    fn expire(&mut self, choose: impl FnOnce(&Self, &Transaction<'_>) -> Result<Chosen, Fault>, now_ms: i64) -> Result<(u64, bool), Fault> {
        // Who has the keys is locked: nobody else begins one.
        let transaction = Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate)?;
        let (units, upto) = choose(self, &transaction)?;
        let held: HashSet<Name> = crate::subjects::holds::held(&transaction, &self.vault, &units)?;
        let mut destroyed = Vec::new();
        {
            let mut destroy = transaction.prepare_cached("UPDATE key SET wrapped = ?2, erasure = ?3 WHERE unit = ?1 AND wrapped <> ?2")?;
            for (_, unit) in units.iter().filter(|(_, unit)| !held.contains(unit)) {
                if destroy.execute(params![unit, DESTROYED, EXPIRED])? > 0 {
                    destroyed.push(*unit);
                }
            }
        }
        if !destroyed.is_empty() {
            let expiry = begin_expiry(&transaction, now_ms)?;
            let tasks = destroyed.iter().filter(|unit| unit[0] != b'e').count();
            finish(&transaction, expiry, destroyed.len(), tasks)?;
        }
        let has_moved = upto.is_some();
        if let Some((name, place)) = upto {
            transaction.execute("INSERT OR REPLACE INTO meta (name, value) VALUES (?1, ?2)", params![name, place.into_bytes()])?;
        }
        let committed = transaction.commit();
        // Whatever the commit says: a copy may be in the write-ahead log, and the keys may be gone.
        self.unscrubbed |= !destroyed.is_empty();
        for unit in &destroyed {
            self.cache.remove(unit);
        }
        committed?;
        Ok((destroyed.len() as u64, has_moved))
    }
}

/// The first and the last name that a task with an id can have, whosever it is.
fn of_any_tenant(task: &Task) -> Option<(Name, Name)> {
    let Task::Id(id) = task else { return None };
    let name = |rest: u8| {
        let mut name = [rest; 25];
        name[0] = b't';
        name[1..17].copy_from_slice(id.as_bytes());
        name
    };
    Some((name(0), name(u8::MAX)))
}

fn mark(connection: &Connection, name: &str) -> rusqlite::Result<Option<String>> {
    let value = connection.query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get::<_, Vec<u8>>(0)).optional()?;
    Ok(value.and_then(|value| String::from_utf8(value).ok()))
}

/// The searches begin again: what was passed over may not be held any more.
pub(crate) fn search_again(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute("DELETE FROM meta WHERE name IN (?1, ?2)", [TASKS, OTHERS]).map(drop)
}

/// Whether a unit's key was destroyed by age, and not by an erasure.
pub(super) fn has_expired(transaction: &Transaction<'_>, unit: &Name) -> rusqlite::Result<bool> {
    transaction.prepare_cached("SELECT 1 FROM key WHERE unit = ?1 AND erasure = ?2")?.exists(params![unit, EXPIRED])
}
