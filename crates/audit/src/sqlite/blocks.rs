//! Finding entries by agent, action, actor, outcome and tenant, without an index row for each entry.
//!
//! The log is divided into blocks of 256 entries, and `facet` says which values occur in which block. In a block the same few values come again and
//! again, so a block costs a dozen rows instead of a thousand, and a query for a rare value in years of entries reads only the blocks it is
//! in: at most 256 entries for each one found. The rejected choice, an index for each field, doubles the cost of writing.

use rusqlite::{CachedStatement, params};

use crate::entry::Facets;
use crate::log::Query;

/// Entries of a block, as a power of two.
pub(super) const BLOCK_BITS: u32 = 8;

/// Longer values are found by their beginning.
const VALUE_BYTES_MAX: usize = 128;

pub(super) const INSERT: &str = "INSERT OR IGNORE INTO facet (field, value, block) VALUES (?1, ?2, ?3)";

/// A field that is looked for. The numbers are those in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Agent = 1,
    Action = 2,
    Actor = 3,
    Outcome = 4,
    Tenant = 5,
}

/// The block that entry `n` is in.
pub(super) const fn block_of(n: i64) -> i64 {
    n >> BLOCK_BITS
}

/// As much of a value as `facet` holds.
pub(super) fn indexed(value: &str) -> &str {
    let mut end = value.len().min(VALUE_BYTES_MAX);
    while !value.is_char_boundary(end) {
        end -= 1;
    }
    &value[..end]
}

/// The values of the block that is being filled, so that each is written once.
#[derive(Default)]
pub(super) struct Filling {
    block: i64,
    seen: Vec<(Field, Box<str>)>,
}

impl Filling {
    pub(super) fn note(&mut self, insert: &mut CachedStatement<'_>, n: i64, facets: &Facets) -> rusqlite::Result<()> {
        if self.block != block_of(n) {
            self.block = block_of(n);
            self.seen.clear();
        }
        let [word, event_type] = &facets.action;
        let values = [
            (Field::Agent, &facets.agent),
            (Field::Action, word),
            (Field::Action, event_type),
            (Field::Actor, &facets.actor),
            (Field::Outcome, &facets.outcome),
            (Field::Tenant, &facets.tenant),
        ];
        for (field, value) in values {
            let Some(value) = value.as_deref().map(indexed) else {
                continue;
            };
            if !self.seen.iter().any(|(seen_field, seen)| *seen_field == field && **seen == *value) {
                insert.execute(params![field as i64, value, self.block])?;
                self.seen.push((field, value.into()));
            }
        }
        Ok(())
    }
}

/// The filters of a query, the likely rarest first.
pub(super) fn filters(query: &Query) -> Vec<(Field, &str)> {
    let filters = [
        (Field::Actor, &query.actor),
        (Field::Action, &query.action),
        (Field::Agent, &query.agent),
        (Field::Tenant, &query.tenant),
        (Field::Outcome, &query.outcome),
    ];
    filters.into_iter().filter_map(|(field, value)| Some((field, value.as_deref()?))).collect()
}
