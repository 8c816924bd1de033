//! The state store: rows with ETags, guarded writes, and the checks that every write is put to.

use std::collections::BTreeMap;

use bytes::Bytes;
use fte_runner::ports::{Document, ETag, Guard, Save, Saved};

use crate::coverage::Met;
use crate::scenario::{Micros, S, Sabotage};
use crate::world::{Happening, World};

/// How the leases' keys begin.
const LEASE: &str = "runner/";
/// How long a fenced lease with a time to live is kept.
const KEPT: Micros = 5 * S;

/// Whether a lease is a dead one's.
fn fenced(lease: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Value>(lease).is_ok_and(|lease| !lease["fenced_by"].is_null())
}

#[derive(Default)]
pub(crate) struct Store {
    rows: BTreeMap<String, (Bytes, u64)>,
    writes: u64,
}

impl Store {
    pub(crate) fn get(&self, key: &str) -> Option<Document> {
        self.rows.get(key).map(|(value, etag)| Document { value: value.clone(), etag: ETag(etag.to_string()) })
    }

    /// As a store would that loses what tells which task has a key.
    pub(crate) fn get_sabotaged(&self, key: &str, sabotage: Option<Sabotage>) -> Option<Document> {
        let is_lost = sabotage == Some(Sabotage::LoseKeys) && key.starts_with("lock/");
        if is_lost { None } else { self.get(key) }
    }

    /// Forgets what nobody has written since.
    pub(crate) fn expire(&mut self, key: &str, write: u64) {
        if self.rows.get(key).is_some_and(|(_, etag)| *etag == write) {
            self.rows.remove(key);
        }
    }

    fn put(&mut self, key: &str, value: Bytes) {
        self.writes += 1;
        self.rows.insert(key.to_owned(), (value, self.writes));
    }
}

impl World {
    pub(crate) fn save(&mut self, process: usize, save: &Save) -> Saved {
        let holds = match (&save.guard, self.store.rows.get(&save.key)) {
            (Guard::Absent, found) => found.is_none() || (self.sabotage == Some(Sabotage::LoseKeys) && save.key.starts_with("lock/")),
            (Guard::Unchanged(etag), Some((_, found))) => etag.0 == found.to_string(),
            (Guard::Unchanged(_), None) => self.scenario.stale_inserts,
        };
        if !holds && self.sabotage != Some(Sabotage::IgnoreGuards) {
            self.met(Met::Conflict);
            return Saved::Conflict;
        }
        if self.sabotage == Some(Sabotage::ForgetWrites) && self.rng.chance(20_000) {
            return Saved::Written;
        }
        self.store.put(&save.key, save.value.clone());
        // Eight days are short here, where they are over before a takeover may be. A store that inserts what is gone gives life to who was forgotten.
        if save.ttl.is_some() && save.key.starts_with(LEASE) && fenced(&save.value) && !self.scenario.stale_inserts {
            let write = self.store.writes;
            self.after(KEPT, Happening::Expire(save.key.clone(), write));
        }
        self.check_write(process, &save.key, &save.value);
        Saved::Written
    }
}
