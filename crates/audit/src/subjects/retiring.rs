//! Keys whose entries are all retired, and whether a legal hold covers a shard.
//!
//! A key is forgotten by removing its row, not by overwriting it as an erasure does: an overwritten one says that whoever it is of was erased, and what
//! comes of them after seven years is news. What is removed is overwritten on the disk all the same (`secure_delete`).
//!
//! A task that was handed on ties what is left of it to whom it was of: it stays listed until what it handed on is gone, too. A person's key stays for as
//! long as one of their tasks is listed. No entry need name a person whose task it is, as it is with a customer beside a requester: so persons are looked for
//! in the list as well, by the tasks whose keys go and by those that had handed these on.

use std::collections::{HashMap, HashSet};

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use uuid::Uuid;

use super::cache::Name;
use super::cipher::UnitKey;
use super::erasing::{What, tasks_of};
use super::keys::{Fault, Keys, key_of, key_text};
use super::{KeyError, Subject, Subjects};

/// A key may be made a little after the time that its first entry is logged at, and by another reading of the clock.
const CLOCKS_DIFFER_MS: i64 = 24 * 3600 * 1000;

impl Subjects {
    /// The values that persons are found by, each with its key's name: of those whose key or that of a task of theirs is among `keys`, and of those who are found
    /// by one of `values`.
    pub(crate) fn persons_of(&self, keys: &HashSet<String>, values: &HashSet<String>) -> Result<HashMap<String, String>, KeyError> {
        let opened = self.lock();
        opened.persons_of(keys, values).map_err(|fault| opened.fault(fault))
    }

    /// Removes the rows of keys that no entry needs any more. Gives how many.
    pub(crate) fn forget_keys(&self, keys: &HashSet<String>) -> Result<u64, KeyError> {
        let mut opened = self.lock();
        let forgotten = opened.forget(keys);
        opened.cache.clear();
        // A copy may be in the write-ahead log, whatever became of it.
        opened.unscrubbed = true;
        let forgotten = forgotten.map_err(|fault| opened.fault(fault))?;
        opened.scrub()?;
        Ok(forgotten)
    }

    /// Whether a hold was ever placed here.
    pub(crate) fn knows_hold(&self, id: Uuid) -> Result<bool, KeyError> {
        let opened = self.lock();
        let known = opened.connection.query_row("SELECT 1 FROM hold WHERE id = ?1", [id.as_bytes()], |_| Ok(())).optional();
        known.map(|known| known.is_some()).map_err(|error| opened.explained(error))
    }

    /// Whether a person may be in what was logged by a moment: not if all keys of theirs and of their tasks were made later. Who is not known may be.
    pub(crate) fn may_be_before(&self, tenant: &str, subject: &str, ms: i64) -> Result<bool, KeyError> {
        let mut opened = self.lock();
        let looked = opened.may_be_before(tenant, subject, ms);
        looked.map_err(|fault| opened.fault(fault))
    }
}

impl Keys {
    fn persons_of(&self, keys: &HashSet<String>, values: &HashSet<String>) -> Result<HashMap<String, String>, Fault> {
        let mut persons = HashMap::new();
        let owners = self.owners_of(keys)?;
        // Names of persons begin with this letter.
        let mut select = self.connection.prepare("SELECT n, life, wrapped FROM key WHERE unit >= ?1 AND unit < ?2")?;
        let mut rows = select.query(params![[b'p'; 1], [b'p' + 1; 1]])?;
        while let Some(row) = rows.next()? {
            let (n, life): (i64, u32) = (row.get(0)?, row.get(1)?);
            let Some(root) = self.vault.unwrap(n, life, &row.get::<_, Vec<u8>>(2)?)? else { continue };
            let (key, value) = (key_text(n, life), UnitKey::of(&root).search());
            if keys.contains(&key) || values.contains(&value) || owners.contains(&n) {
                persons.insert(value, key);
            }
        }
        Ok(persons)
    }

    /// Whose the tasks are that have a key among these, or that handed on one that has.
    fn owners_of(&self, keys: &HashSet<String>) -> rusqlite::Result<HashSet<i64>> {
        let mut select = self.connection.prepare("SELECT unit FROM key WHERE n = ?1 AND life = ?2")?;
        let mut parents = self.connection.prepare("SELECT parent FROM kin WHERE child = ?1")?;
        let (mut tasks, mut found) = (HashSet::new(), Vec::new());
        for (n, life) in keys.iter().filter_map(|key| key_of(key)) {
            found.extend(select.query_row(params![n, life], |row| row.get::<_, Name>(0)).optional()?);
        }
        while let Some(task) = found.pop() {
            if tasks.insert(task) {
                found.extend(parents.query_map([task], |row| row.get::<_, Name>(0))?.collect::<rusqlite::Result<Vec<_>>>()?);
            }
        }
        Ok(listed(&self.connection, &tasks)?.into_iter().map(|(n, _)| n).collect())
    }

    fn forget(&mut self, keys: &HashSet<String>) -> Result<u64, Fault> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let (mut forgotten, mut persons, mut units) = (0, Vec::new(), Vec::new());
        for (n, life) in keys.iter().filter_map(|key| key_of(key)) {
            let sql = "SELECT unit FROM key WHERE n = ?1 AND life = ?2 AND NOT EXISTS (SELECT 1 FROM gone WHERE gone.n = key.n)";
            let unit: Option<Name> = transaction.prepare_cached(sql)?.query_row(params![n, life], |row| row.get(0)).optional()?;
            match unit {
                Some([b'p', ..]) => persons.push(n),
                Some(unit) => {
                    forgotten += transaction.prepare_cached("DELETE FROM key WHERE n = ?1")?.execute([n])?;
                    units.push(unit);
                }
                None => {}
            }
        }
        unlist(&transaction, units)?;
        for n in persons {
            let lists = transaction.prepare_cached("SELECT 1 FROM owner WHERE n = ?1 LIMIT 1")?.exists([n])?;
            if !lists {
                transaction.prepare_cached("DELETE FROM alias WHERE n = ?1")?.execute([n])?;
                forgotten += transaction.prepare_cached("DELETE FROM key WHERE n = ?1")?.execute([n])?;
            }
        }
        transaction.commit()?;
        Ok(forgotten as u64)
    }

    fn may_be_before(&mut self, tenant: &str, subject: &str, ms: i64) -> Result<bool, Fault> {
        let Ok(What::Person(person)) = Subject::parse(tenant, subject).map(|subject| subject.what) else { return Ok(true) };
        let name = self.vault.person(tenant, &person);
        let transaction = self.connection.transaction()?;
        let before = ms.saturating_add(CLOCKS_DIFFER_MS);
        let own = transaction.query_row("SELECT n, created_ms FROM key WHERE unit = ?1", [name], |row| Ok((row.get(0)?, row.get(1)?)));
        let Some((n, created_ms)) = own.optional()?.map(|row: (i64, i64)| row) else { return Ok(true) };
        if created_ms <= before {
            return Ok(true);
        }
        let mut select = transaction.prepare("SELECT 1 FROM key WHERE unit = ?1 AND created_ms <= ?2")?;
        for task in tasks_of(&transaction, n)? {
            if select.exists(params![task, before])? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The rows of these tasks in the list of whose they are. That is in the order of persons: so it is gone through once, and not for each task.
fn listed(connection: &Connection, tasks: &HashSet<Name>) -> rusqlite::Result<Vec<(i64, Name)>> {
    let mut select = connection.prepare("SELECT n, task FROM owner")?;
    let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let is_of_them = |row: &rusqlite::Result<(i64, Name)>| row.as_ref().map_or(true, |(_, task)| tasks.contains(task));
    rows.filter(is_of_them).collect()
}

/// Takes units without a key from the lists of whose they are, from those that handed nothing on upwards.
fn unlist(transaction: &Transaction<'_>, mut units: Vec<Name>) -> rusqlite::Result<()> {
    let mut hands_on = transaction.prepare_cached("SELECT 1 FROM kin WHERE parent = ?1 LIMIT 1")?;
    let mut has_key = transaction.prepare_cached("SELECT 1 FROM key WHERE unit = ?1")?;
    let mut parents = transaction.prepare_cached("SELECT parent FROM kin WHERE child = ?1")?;
    let mut orphan = transaction.prepare_cached("DELETE FROM kin WHERE child = ?1")?;
    let mut gone = HashSet::new();
    while let Some(unit) = units.pop() {
        // Its turn comes with that of the last one that it handed on, at the latest when that one's entries are retired.
        if hands_on.exists([unit])? || has_key.exists([unit])? {
            continue;
        }
        units.extend(parents.query_map([unit], |row| row.get::<_, Name>(0))?.collect::<rusqlite::Result<Vec<_>>>()?);
        orphan.execute([unit])?;
        gone.insert(unit);
    }
    let mut disown = transaction.prepare_cached("DELETE FROM owner WHERE n = ?1 AND task = ?2")?;
    for (n, task) in listed(transaction, &gone)? {
        disown.execute(params![n, task])?;
    }
    Ok(())
}
