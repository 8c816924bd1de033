//! The state store: rows with ETags, guarded writes, and the checks that every write is put to.

use std::collections::BTreeMap;

use bytes::Bytes;
use fte_runner::ports::{Document, ETag, Guard, Save, Saved};

use crate::coverage::Met;
use crate::scenario::Sabotage;
use crate::world::World;

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
        self.check_write(process, &save.key, &save.value);
        if save.ttl.is_some() {
            self.check_expiring(&save.value);
        }
        Saved::Written
    }
}
