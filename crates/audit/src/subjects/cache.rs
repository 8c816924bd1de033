//! Keys that are held ready, in two generations: what was used lately moves to the young one; when that is full, the old one is dropped. That bounds the
//! memory and costs no list of who was used when.

use std::collections::HashMap;
use std::sync::Arc;

use super::cipher::UnitKey;

/// What names a unit or a person: a letter, then 24 bytes.
pub(crate) type Name = [u8; 25];

/// A unit as far as sealing goes.
#[derive(Clone)]
pub(crate) struct Unit {
    /// The number of its key, and the life of the store that gave it.
    pub(crate) n: i64,
    pub(crate) life: u32,
    /// Absent once it was destroyed.
    pub(crate) key: Option<Arc<UnitKey>>,
    /// Whose task it is known to be, and for which it works: what need not be written again.
    pub(crate) links: Vec<Name>,
}

pub(crate) struct Cache {
    young: HashMap<Name, Unit>,
    old: HashMap<Name, Unit>,
    generation_max: usize,
}

impl Cache {
    pub(crate) fn new(max: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), generation_max: (max / 2).max(1) }
    }

    pub(crate) fn get(&mut self, name: &Name) -> Option<&mut Unit> {
        if !self.young.contains_key(name) {
            let unit = self.old.remove(name)?;
            self.put(*name, unit);
        }
        self.young.get_mut(name)
    }

    pub(crate) fn put(&mut self, name: Name, unit: Unit) {
        if self.young.len() >= self.generation_max {
            self.old = std::mem::take(&mut self.young);
        }
        self.old.remove(&name);
        self.young.insert(name, unit);
    }

    pub(crate) fn remove(&mut self, name: &Name) {
        self.young.remove(name);
        self.old.remove(name);
    }

    /// Lets go of everything.
    pub(crate) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }
}
