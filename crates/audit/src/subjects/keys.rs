//! The keys at work: one connection, the master key, and a cache. What a group of events needs is found or made in one transaction, and cached only when
//! that is durable.

use std::collections::HashMap;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use fte_service::SteadyClock;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::about::{self, Actor, Person};
use super::cache::{Cache, Name, Unit};
use super::cipher::{ALG, Context, Key, NONCE_BYTES, TAG_BYTES, UnitKey, mac, nonce_of, nonce_text, open, random, random_key, seal};
use super::expiring::has_expired;
use super::{Enc, KeyError, Opened, Sealed, SubjectsOptions, Unsealed, master, schema};
use crate::entry::Task;
use crate::lock::DirectoryLock;

/// A key, wrapped: its nonce, itself, its tag.
const WRAPPED_BYTES: usize = NONCE_BYTES + 32 + TAG_BYTES;
/// What stands in its place once it was destroyed.
pub(crate) const DESTROYED: [u8; WRAPPED_BYTES] = [0; WRAPPED_BYTES];
/// Most values that an actor is looked for by.
const SEARCH_VALUES_MAX: u32 = 64;
pub(crate) const NAMING: &str = "naming";

pub(crate) type Result<T, E = KeyError> = std::result::Result<T, E>;

pub(crate) struct Keys {
    pub(crate) options: SubjectsOptions,
    pub(crate) connection: Connection,
    pub(crate) vault: Vault,
    pub(crate) cache: Cache,
    /// Persons who were erased lately.
    pub(crate) gone: HashMap<Name, Gone>,
    /// By which that was long ago.
    pub(crate) ages: SteadyClock,
    /// Held for as long as these keys are: two who work with them would not know of each other's master key, nor of whom the other has erased.
    _lock: DirectoryLock,
    /// A key was destroyed, and the write-ahead log may still have a copy.
    pub(crate) unscrubbed: bool,
}

/// What keys are wrapped and named with.
pub(crate) struct Vault {
    pub(crate) master: Key,
    pub(crate) naming: Key,
    /// Seals what is no event: whom an erasure or a hold is about.
    pub(crate) desk: Key,
    /// New for each opening, so that a number given twice, before and after a restored copy, is not one key.
    life: u32,
}

/// When a person was erased, and the place that their key had.
#[derive(Clone, Copy)]
pub(crate) struct Gone {
    pub(crate) n: i64,
    pub(crate) life: u32,
    pub(crate) at_ms: i64,
    pub(crate) erasure: [u8; 16],
}

impl Gone {
    /// Whether what happened then was erased. What does not say when it happened is taken for news.
    fn covers(&self, at_ms: Option<i64>) -> bool {
        at_ms.is_some_and(|at_ms| at_ms <= self.at_ms)
    }
}

impl Keys {
    pub(crate) fn open(options: SubjectsOptions) -> Result<Self> {
        let path = schema::path_in(&options.directory);
        let create = |source| KeyError::File {
            path: options.directory.clone(),
            what: "cannot be made: it is for the keys of the audit log",
            source,
        };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&options.directory).map_err(create)?;
        let lock = lock(&options.directory)?;
        let mut connection = schema::open(&path).map_err(|error| schema::explain(&path, error))?;
        let vault = Vault::open(&options, &path, &mut connection)?;
        let mut keys = Self {
            cache: Cache::new(options.cached_max),
            gone: HashMap::new(),
            unscrubbed: false,
            _lock: lock,
            ages: SteadyClock::over("marks of persons who were erased", {
                let clock = Arc::clone(&options.clock);
                move || clock()
            }),
            options,
            connection,
            vault,
        };
        keys.gone = keys.read_gone().map_err(|error| keys.explained(error))?;
        Ok(keys)
    }

    pub(crate) fn explained(&self, error: rusqlite::Error) -> KeyError {
        schema::explain(&schema::path_in(&self.options.directory), error)
    }

    pub(crate) fn fault(&self, fault: Fault) -> KeyError {
        fault.explained(&schema::path_in(&self.options.directory))
    }

    pub(crate) fn now_ms(&self) -> i64 {
        (self.options.clock)()
    }

    fn read_gone(&self) -> rusqlite::Result<HashMap<Name, Gone>> {
        let mut select = self
            .connection
            .prepare("SELECT gone.person, gone.n, key.life, gone.at_ms, gone.erasure FROM gone JOIN key ON key.n = gone.n")?;
        let row = |row: &rusqlite::Row<'_>| {
            Ok((row.get(0)?, Gone { n: row.get(1)?, life: row.get(2)?, at_ms: row.get(3)?, erasure: row.get(4)? }))
        };
        select.query_map([], row)?.collect()
    }

    pub(crate) fn seal(&mut self, group: &[Unsealed<'_>]) -> Result<Vec<Sealed>> {
        self.scrub()?;
        let units = self.units(group)?;
        // What an event that came late took along.
        self.scrub()?;
        let throwaway = UnitKey::of(&random_key()?);
        let sealed = group.iter().zip(units).map(|(event, Place { unit, actor })| {
            let Some(unit) = unit else {
                return Sealed { ciphertext: None, enc: None, actor };
            };
            // The place of a destroyed key is empty: nobody will ever open what is sealed for it.
            let key = unit.key.as_deref().unwrap_or(&throwaway);
            let (nonce, ciphertext) = key.seal(event.context, event.bytes);
            let enc = Enc { alg: ALG, key: key_text(unit.n, unit.life), nonce: nonce_text(&nonce) };
            Sealed { ciphertext: Some(ciphertext), enc: Some(enc), actor }
        });
        Ok(sealed.collect())
    }

    /// Each event's unit, if it has one, and under what its actor is found.
    fn units(&mut self, group: &[Unsealed<'_>]) -> Result<Vec<Place>> {
        let now_ms = self.now_ms();
        let path = schema::path_in(&self.options.directory);
        let mut work = Work {
            connection: &self.connection,
            transaction: None,
            vault: &self.vault,
            cache: &mut self.cache,
            gone: &self.gone,
            fresh: HashMap::new(),
            now_ms,
            destroyed: false,
        };
        let units: Done<Vec<_>> = group.iter().map(|event| work.place(event)).collect();
        let finished = units.and_then(|units| work.finish().map(|destroyed| (units, destroyed)));
        match finished {
            Ok((units, destroyed)) => {
                self.unscrubbed |= destroyed;
                Ok(units)
            }
            Err(fault) => Err(fault.explained(&path)),
        }
    }

    /// After a key was destroyed: sees to it that no older page is left. Tried again until it succeeds.
    pub(crate) fn scrub(&mut self) -> Result<()> {
        if self.unscrubbed {
            schema::scrub(&self.connection).map_err(|error| self.explained(error))?;
            self.unscrubbed = false;
        }
        Ok(())
    }

    pub(crate) fn open_payload(&self, (alg, key, nonce): (&str, &str, &str), context: Context<'_>, payload: &[u8]) -> Result<Opened> {
        let Some(unit_key) = self.unit_key(key)? else { return Ok(Opened::Erased) };
        let sealed = || KeyError::Sealed { key: key.to_owned() };
        let nonce = nonce_of(nonce).ok_or_else(sealed)?;
        unit_key.open(alg, &nonce, context, payload).map(Opened::Bytes).ok_or_else(sealed)
    }

    pub(crate) fn digest_key(&self, key: &str, context: Context<'_>) -> Result<Option<Key>> {
        Ok(self.unit_key(key)?.map(|unit_key| unit_key.digest_key(context)))
    }

    /// A key by its name in an entry; none once it was destroyed.
    fn unit_key(&self, text: &str) -> Result<Option<UnitKey>> {
        let unknown = || KeyError::Unknown { key: text.chars().take(64).collect() };
        let (n, life) = key_of(text).ok_or_else(unknown)?;
        let mut select =
            self.connection.prepare_cached("SELECT life, wrapped FROM key WHERE n = ?1").map_err(|error| self.explained(error))?;
        let row = select.query_row([n], |row| Ok((row.get::<_, u32>(0)?, row.get::<_, Vec<u8>>(1)?))).optional();
        match row.map_err(|error| self.explained(error))? {
            Some((known, wrapped)) if known == life => match self.vault.unwrap(n, life, &wrapped)? {
                Some(root) => Ok(Some(UnitKey::of(&root))),
                None => Ok(None),
            },
            _ => Err(unknown()),
        }
    }

    pub(crate) fn search_values(&self, actor: &str) -> Result<Vec<String>> {
        let mut values = vec![actor.to_owned()];
        for key in self.keys_by_alias(actor).map_err(|error| self.explained(error))? {
            if let Some(key) = self.unit_key(&key)? {
                values.push(key.search());
            }
        }
        Ok(values)
    }

    fn keys_by_alias(&self, actor: &str) -> rusqlite::Result<Vec<String>> {
        let sql = "SELECT key.n, key.life FROM alias JOIN key ON key.n = alias.n WHERE alias.name = ?1 LIMIT ?2";
        let mut select = self.connection.prepare_cached(sql)?;
        let found =
            select.query_map(params![self.vault.alias(actor), SEARCH_VALUES_MAX - 1], |row| Ok(key_text(row.get(0)?, row.get(1)?)))?;
        found.collect()
    }
}

/// The right to work with the keys of a directory, which one process has at a time.
fn lock(directory: &Path) -> Result<DirectoryLock> {
    let path = directory.join("lock");
    let what = "cannot be opened: who works with the keys of the audit log locks it";
    let taken = DirectoryLock::take(&path).map_err(|source| KeyError::File { path, what, source })?;
    taken.ok_or_else(|| KeyError::InUse { directory: directory.to_owned() })
}

/// With what an event is sealed, if it is, and under what its actor is found.
struct Place {
    unit: Option<Unit>,
    actor: Option<Box<str>>,
}

/// What a transaction can end with.
pub(crate) enum Fault {
    Database(rusqlite::Error),
    Key(KeyError),
}

impl Fault {
    pub(crate) fn explained(self, path: &std::path::Path) -> KeyError {
        match self {
            Self::Database(error) => schema::explain(path, error),
            Self::Key(error) => error,
        }
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

impl From<KeyError> for Fault {
    fn from(error: KeyError) -> Self {
        Self::Key(error)
    }
}

type Done<T> = std::result::Result<T, Fault>;

/// One group's work. It begins a transaction when it first misses something.
struct Work<'a> {
    connection: &'a Connection,
    transaction: Option<Transaction<'a>>,
    vault: &'a Vault,
    cache: &'a mut Cache,
    gone: &'a HashMap<Name, Gone>,
    /// What the transaction found or made.
    fresh: HashMap<Name, Unit>,
    now_ms: i64,
    destroyed: bool,
}

impl Work<'_> {
    fn place(&mut self, event: &Unsealed<'_>) -> Done<Place> {
        let (about, tenant) = (event.about, event.context.tenant);
        let task_name = about.task.as_ref().map(|task| self.vault.task(tenant, task));
        if let Some(task) = task_name {
            for owner in &about.owners {
                self.link_owner(task, tenant, owner, about.at_ms)?;
            }
            if let Some(parent) = &about.parent {
                self.link_parent(task, self.vault.task(tenant, parent), tenant)?;
            }
        }
        let actor = match &about.actor {
            None => None,
            Some(Actor::Other(name)) => Some(name.clone()),
            Some(Actor::Person(person)) => self.person(tenant, person, about.at_ms)?.key.map(|key| key.search().into()),
        };
        let unit = match &about.unit {
            about::Unit::Nobody => None,
            about::Unit::Task(task) => {
                // Nearly always the same, and its name costs a keyed hash.
                let name = task_name.filter(|_| about.task.as_ref() == Some(task)).unwrap_or_else(|| self.vault.task(tenant, task));
                Some(self.find(name)?)
            }
            about::Unit::Person(person) => Some(self.person(tenant, person, about.at_ms)?),
            about::Unit::Itself => {
                Some(self.find(self.vault.name(b'e', &[event.context.source.as_bytes(), event.context.id.as_bytes(), &event.sha256]))?)
            }
        };
        Ok(Place { unit, actor })
    }

    /// A person's unit; the empty place where the event tells of what was erased.
    fn person(&mut self, tenant: &str, person: &Person, at_ms: Option<i64>) -> Done<Unit> {
        let name = self.vault.person(tenant, person);
        if let Some(gone) = self.gone.get(&name).filter(|gone| gone.covers(at_ms)) {
            return Ok(Unit { n: gone.n, life: gone.life, key: None, links: Vec::new() });
        }
        if let Some(unit) = self.known(&name) {
            return Ok(unit.clone());
        }
        let unit = self.find(name)?;
        for alias in [&*person.id, &person.to_string()] {
            let alias = self.vault.alias(alias);
            self.begun()?.prepare_cached("INSERT OR IGNORE INTO alias (name, n) VALUES (?1, ?2)")?.execute(params![alias, unit.n])?;
        }
        Ok(unit)
    }

    fn known(&mut self, name: &Name) -> Option<&mut Unit> {
        // What this transaction changed counts before what was cached.
        if self.fresh.contains_key(name) { self.fresh.get_mut(name) } else { self.cache.get(name) }
    }

    /// A unit by its name, which is made where there is none.
    fn find(&mut self, name: Name) -> Done<Unit> {
        if let Some(unit) = self.known(&name) {
            return Ok(unit.clone());
        }
        let (vault, now_ms) = (self.vault, self.now_ms);
        let unit = find_or_make(self.begun()?, vault, &name, now_ms)?;
        self.fresh.insert(name, unit.clone());
        Ok(unit)
    }

    fn link_owner(&mut self, task: Name, tenant: &str, owner: &Person, at_ms: Option<i64>) -> Done<()> {
        let person = self.vault.person(tenant, owner);
        if self.known(&task).is_some_and(|unit| unit.links.contains(&person)) {
            return Ok(());
        }
        if let Some(gone) = self.gone.get(&person).copied().filter(|gone| gone.covers(at_ms)) {
            self.erase_late(task, tenant)?;
            tracing::info!(erasure = %Uuid::from_bytes(gone.erasure), "a task of a person who was erased has come to light, and is erased too");
            return Ok(());
        }
        let n = self.person(tenant, owner, at_ms)?.n;
        self.find(task)?;
        self.begun()?.prepare_cached("INSERT OR IGNORE INTO owner (n, task) VALUES (?1, ?2)")?.execute(params![n, task])?;
        self.linked(task, person);
        Ok(())
    }

    fn link_parent(&mut self, task: Name, parent: Name, tenant: &str) -> Done<()> {
        if task == parent || self.known(&task).is_some_and(|unit| unit.links.contains(&parent)) {
            return Ok(());
        }
        let parent_key = self.find(parent)?.key;
        self.find(task)?;
        self.begun()?.prepare_cached("INSERT OR IGNORE INTO kin (parent, child) VALUES (?1, ?2)")?.execute(params![parent, task])?;
        if parent_key.is_none() && !has_expired(self.begun()?, &parent)? {
            self.erase_late(task, tenant)?;
        }
        self.linked(task, parent);
        Ok(())
    }

    fn linked(&mut self, task: Name, to: Name) {
        if let Some(unit) = self.known(&task) {
            unit.links.push(to);
            let unit = unit.clone();
            // Into what counts only when all of this is durable.
            self.fresh.insert(task, unit);
        }
    }

    /// The task belongs to what was erased.
    fn erase_late(&mut self, task: Name, tenant: &str) -> Done<()> {
        if self.find(task)?.key.is_none() && !has_expired(self.begun()?, &task)? {
            return Ok(());
        }
        let (vault, now_ms) = (self.vault, self.now_ms);
        let erased = super::erasing::erase_task(self.begun()?, vault, &task, tenant, now_ms)?;
        for name in erased {
            let mut unit = self.find(name)?;
            unit.key = None;
            self.fresh.insert(name, unit);
        }
        self.destroyed = true;
        Ok(())
    }

    fn begun(&mut self) -> Done<&Transaction<'_>> {
        if self.transaction.is_none() {
            // The owner of the connection is locked: nobody else begins one.
            let transaction = Transaction::new_unchecked(self.connection, TransactionBehavior::Immediate)?;
            self.transaction = Some(transaction);
        }
        #[expect(clippy::expect_used, reason = "it was just put there")]
        Ok(self.transaction.as_ref().expect("a transaction"))
    }

    /// Makes everything durable, then known. Says whether a key was destroyed.
    fn finish(self) -> Done<bool> {
        if let Some(transaction) = self.transaction {
            transaction.commit()?;
        }
        for (name, unit) in self.fresh {
            self.cache.put(name, unit);
        }
        Ok(self.destroyed)
    }
}

/// A unit's row, or a new one with a new key.
fn find_or_make(transaction: &Transaction<'_>, vault: &Vault, name: &Name, now_ms: i64) -> Done<Unit> {
    let mut select = transaction.prepare_cached("SELECT n, life, wrapped FROM key WHERE unit = ?1")?;
    let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, u32>(1)?, row.get::<_, Vec<u8>>(2)?));
    if let Some((n, life, wrapped)) = select.query_row([name], row).optional()? {
        let key = vault.unwrap(n, life, &wrapped)?.map(|root| Arc::new(UnitKey::of(&root)));
        return Ok(Unit { n, life, key, links: Vec::new() });
    }
    let root = random_key()?;
    let n = insert(transaction, vault, name, Some(&root), now_ms, &[0; 16])?;
    Ok(Unit { n, life: vault.life, key: Some(Arc::new(UnitKey::of(&root))), links: Vec::new() })
}

/// Writes a unit's row; without a key, as one that was destroyed. Gives its number.
pub(crate) fn insert(
    transaction: &Transaction<'_>,
    vault: &Vault,
    name: &Name,
    root: Option<&Key>,
    now_ms: i64,
    erasure: &[u8; 16],
) -> Done<i64> {
    let n: i64 = transaction.prepare_cached("SELECT coalesce(max(n), 0) + 1 FROM key")?.query_row([], |row| row.get(0))?;
    let wrapped = match root {
        Some(root) => vault.wrap(n, root)?,
        None => DESTROYED.to_vec(),
    };
    transaction
        .prepare_cached("INSERT INTO key (n, life, created_ms, unit, wrapped, erasure) VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
        .execute(params![n, vault.life, now_ms, name, wrapped, erasure])?;
    Ok(n)
}

/// A key's name in an entry.
pub(crate) fn key_text(n: i64, life: u32) -> String {
    format!("{n}-{life:08x}")
}

pub(crate) fn key_of(text: &str) -> Option<(i64, u32)> {
    let (n, life) = text.split_once('-')?;
    Some((n.parse().ok()?, u32::from_str_radix(life, 16).ok()?))
}

impl Vault {
    fn new(master: Key, naming: Key, life: u32) -> Self {
        let desk = Zeroizing::new(mac(&naming, &[b"desk"]));
        Self { master, naming, desk, life }
    }

    fn open(options: &SubjectsOptions, path: &Path, connection: &mut Connection) -> Result<Self> {
        let explained = |error| schema::explain(path, error);
        let stored = connection.query_row("SELECT value FROM meta WHERE name = ?1", [NAMING], |row| row.get::<_, Vec<u8>>(0));
        let stored = stored.optional().map_err(explained)?;
        let mut life = [0; 4];
        random(&mut life)?;
        let life = u32::from_be_bytes(life);
        let candidates = master::candidates(&options.master_key, options.master_secret.as_ref())?;
        let Some(stored) = stored else {
            // Nothing is wrapped yet.
            let master = match candidates.into_iter().next() {
                Some((_, master)) => master,
                None => master::make(&options.master_key)?,
            };
            let naming = random_key()?;
            connection
                .execute("INSERT INTO meta (name, value) VALUES (?1, ?2)", params![NAMING, wrap(&master, NAMING.as_bytes(), &naming)?])
                .map_err(explained)?;
            return Ok(Self::new(master, naming, life));
        };
        // It may be in the secret store, and then in no file.
        let Some(place) = candidates.first().map(|(place, _)| place.clone()) else {
            return Err(KeyError::MasterMissing { database: path.to_owned(), master: options.master_key.clone() });
        };
        let next = master::next_path(&options.master_key);
        let has_next = candidates.iter().any(|(path, _)| *path == next);
        for (from, master) in candidates {
            if let Some(naming) = unwrap(&master, NAMING.as_bytes(), &stored) {
                match (from == next, has_next) {
                    (true, _) => master::promote(&options.master_key)?,
                    (false, true) => master::discard_next(&options.master_key)?,
                    (false, false) => {}
                }
                return Ok(Self::new(master, naming, life));
            }
        }
        Err(KeyError::MasterWrong { database: path.to_owned(), master: place })
    }

    /// A task's name: its id and a keyed hash of the tenant, or a keyed hash of what an outside system calls it. The same id under two tenants is two tasks.
    pub(crate) fn task(&self, tenant: &str, task: &Task) -> Name {
        match task {
            Task::Id(id) => {
                let mut bytes = [0; 24];
                bytes[..16].copy_from_slice(id.as_bytes());
                bytes[16..].copy_from_slice(&mac(&self.naming, &[b"tenant", tenant.as_bytes()])[..8]);
                prefixed(b't', &bytes)
            }
            Task::Named(name) => self.name(b'n', &[tenant.as_bytes(), name.as_bytes()]),
        }
    }

    pub(crate) fn person(&self, tenant: &str, person: &Person) -> Name {
        self.name(b'p', &[tenant.as_bytes(), person.kind.as_bytes(), person.id.as_bytes()])
    }

    /// What stands in the log for bytes that are no event. Their own digest could be guessed from, once they are erased.
    pub(crate) fn unparsed(&self, sha256: &[u8; 32]) -> [u8; 32] {
        mac(&self.naming, &[b"unparsed", sha256])
    }

    pub(crate) fn alias(&self, text: &str) -> Name {
        self.name(b'a', &[text.as_bytes()])
    }

    fn name(&self, kind: u8, parts: &[&[u8]]) -> Name {
        let mut all = vec![std::slice::from_ref(&kind)];
        all.extend_from_slice(parts);
        prefixed(kind, &mac(&self.naming, &all)[..24])
    }

    pub(crate) fn wrap(&self, n: i64, key: &Key) -> Result<Vec<u8>> {
        wrap(&self.master, &wrapped_for(n, self.life), key)
    }

    /// A wrapped key; none where it was destroyed.
    pub(crate) fn unwrap(&self, n: i64, life: u32, wrapped: &[u8]) -> Result<Option<Key>> {
        if wrapped == DESTROYED {
            return Ok(None);
        }
        unwrap(&self.master, &wrapped_for(n, life), wrapped).map(Some).ok_or_else(|| KeyError::Sealed { key: key_text(n, life) })
    }
}

/// A name that stands for nothing.
pub(crate) fn random_id(kind: u8) -> Result<Name> {
    let mut name = [kind; 25];
    random(&mut name[1..])?;
    Ok(name)
}

/// The task's id in its unit's name.
pub(crate) fn task_id(name: &Name) -> Option<Uuid> {
    let (kind, rest) = name.split_first()?;
    (*kind == b't').then(|| Uuid::from_slice(&rest[..16]).ok()).flatten()
}

fn prefixed(kind: u8, bytes: &[u8]) -> Name {
    let mut name = [kind; 25];
    name[1..].copy_from_slice(bytes);
    name
}

pub(crate) fn wrapped_for(n: i64, life: u32) -> Vec<u8> {
    key_text(n, life).into_bytes()
}

pub(crate) fn wrap(master: &Key, aad: &[u8], key: &Key) -> Result<Vec<u8>> {
    seal_alone(master, aad, &**key)
}

/// Seals what is no event, its nonce before it.
pub(crate) fn seal_alone(key: &Key, aad: &[u8], bytes: &[u8]) -> Result<Vec<u8>> {
    let mut nonce = [0; NONCE_BYTES];
    random(&mut nonce)?;
    let mut sealed = nonce.to_vec();
    sealed.extend(seal(key, &nonce, aad, bytes));
    Ok(sealed)
}

pub(crate) fn open_alone(key: &Key, aad: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (nonce, sealed) = sealed.split_first_chunk::<NONCE_BYTES>()?;
    open(key, nonce, aad, sealed).map(Zeroizing::new)
}

pub(crate) fn unwrap(master: &Key, aad: &[u8], wrapped: &[u8]) -> Option<Key> {
    let root = open_alone(master, aad, wrapped)?;
    Some(Zeroizing::new(root.as_slice().try_into().ok()?))
}
