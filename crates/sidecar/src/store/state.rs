//! State rows: conditional writes and reads.
//!
//! An expired row is as good as none. Every write gives the row a new random ETag, so that one never comes back after a
//! delete. A write that fails its condition changes nothing, so that it spoils no other in the same transaction.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension as _, params};

/// One conditional write.
#[derive(Debug)]
pub(crate) struct StateWrite {
    pub(crate) key: String,
    pub(crate) change: Change,
    pub(crate) condition: Condition,
}

#[derive(Debug)]
pub(crate) enum Change {
    Put { value: Vec<u8>, expires_ms: Option<i64> },
    Delete,
}

/// When a write is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    Always,
    /// There is no row.
    Absent,
    /// The row has this ETag. `None` is a text that never was one.
    Etag(Option<i64>),
}

/// The condition of a write did not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Conflict;

/// A row that was read.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) etag: i64,
    pub(crate) expires_ms: Option<i64>,
    pub(crate) value: Vec<u8>,
}

/// The ETag as clients see it.
pub(crate) fn etag_text(etag: i64) -> String {
    format!("{:016x}", etag.cast_unsigned())
}

/// Reads an ETag; `None` when it never was one.
pub(crate) fn etag_of(text: &str) -> Option<i64> {
    let text = text.trim_matches('"');
    (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok()).flatten().map(u64::cast_signed)
}

fn new_etag() -> i64 {
    fastrand::i64(..)
}

/// Does each write on its own.
pub(crate) fn write_each(db: &Connection, writes: &[StateWrite], now_ms: i64) -> rusqlite::Result<Vec<Result<(), Conflict>>> {
    writes.iter().map(|write| Ok(if apply(db, write, now_ms)? { Ok(()) } else { Err(Conflict) })).collect()
}

/// Does all writes or none. Conditions see the writes before them.
pub(crate) fn write_all(db: &Connection, writes: &[StateWrite], now_ms: i64) -> rusqlite::Result<Vec<Result<(), Conflict>>> {
    let mut ahead: HashMap<&str, bool> = HashMap::new();
    let mut conflict = false;
    let mut outcomes = Vec::with_capacity(writes.len());
    for write in writes {
        let holds = match (write.condition, ahead.get(write.key.as_str())) {
            (Condition::Always, _) => true,
            (Condition::Absent, Some(present)) => !present,
            // An ETag given out in this very transaction is not known to anyone yet.
            (Condition::Etag(_), Some(_)) => false,
            (Condition::Absent, None) => current(db, &write.key, now_ms)?.is_none(),
            (Condition::Etag(etag), None) => etag.is_some() && current(db, &write.key, now_ms)? == etag,
        };
        ahead.insert(&write.key, matches!(write.change, Change::Put { .. }));
        conflict |= !holds;
        outcomes.push(if holds { Ok(()) } else { Err(Conflict) });
    }
    if !conflict {
        for write in writes {
            put_or_delete(db, write)?;
        }
    }
    Ok(outcomes)
}

fn current(db: &Connection, key: &str, now_ms: i64) -> rusqlite::Result<Option<i64>> {
    db.prepare_cached("SELECT etag FROM state WHERE key = ?1 AND (expires_ms IS NULL OR expires_ms > ?2)")?
        .query_row(params![key, now_ms], |row| row.get(0))
        .optional()
}

fn put_or_delete(db: &Connection, write: &StateWrite) -> rusqlite::Result<usize> {
    match &write.change {
        Change::Put { value, expires_ms } => db
            .prepare_cached(
                "INSERT INTO state(key, etag, expires_ms, value) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT(key) DO UPDATE SET etag = excluded.etag, expires_ms = excluded.expires_ms, value = excluded.value",
            )?
            .execute(params![write.key, new_etag(), expires_ms, value]),
        Change::Delete => db.prepare_cached("DELETE FROM state WHERE key = ?1")?.execute(params![write.key]),
    }
}

/// Returns whether the condition held.
fn apply(db: &Connection, write: &StateWrite, now_ms: i64) -> rusqlite::Result<bool> {
    let changed = match (write.condition, &write.change) {
        (Condition::Always, _) => {
            put_or_delete(db, write)?;
            return Ok(true);
        }
        // Nothing to delete, nothing in the way.
        (Condition::Absent, Change::Delete) => return Ok(current(db, &write.key, now_ms)?.is_none()),
        (Condition::Absent, Change::Put { value, expires_ms }) => db
            .prepare_cached(
                "INSERT INTO state(key, etag, expires_ms, value) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT(key) DO UPDATE SET etag = excluded.etag, expires_ms = excluded.expires_ms, value = excluded.value
                 WHERE state.expires_ms <= ?5",
            )?
            .execute(params![write.key, new_etag(), expires_ms, value, now_ms])?,
        (Condition::Etag(None), _) => 0,
        (Condition::Etag(Some(etag)), Change::Put { value, expires_ms }) => db
            .prepare_cached(
                "UPDATE state SET etag = ?2, expires_ms = ?3, value = ?4
                 WHERE key = ?1 AND etag = ?5 AND (expires_ms IS NULL OR expires_ms > ?6)",
            )?
            .execute(params![write.key, new_etag(), expires_ms, value, etag, now_ms])?,
        (Condition::Etag(Some(etag)), Change::Delete) => db
            .prepare_cached("DELETE FROM state WHERE key = ?1 AND etag = ?2 AND (expires_ms IS NULL OR expires_ms > ?3)")?
            .execute(params![write.key, etag, now_ms])?,
    };
    Ok(changed > 0)
}

/// Reads the rows of `keys`.
pub(crate) fn read(db: &Connection, keys: &[String], now_ms: i64) -> rusqlite::Result<Vec<Option<Found>>> {
    let mut statement =
        db.prepare_cached("SELECT etag, expires_ms, value FROM state WHERE key = ?1 AND (expires_ms IS NULL OR expires_ms > ?2)")?;
    keys.iter()
        .map(|key| {
            statement
                .query_row(params![key, now_ms], |row| Ok(Found { etag: row.get(0)?, expires_ms: row.get(1)?, value: row.get(2)? }))
                .optional()
        })
        .collect()
}

/// Deletes up to `rows_max` expired rows; returns how many.
pub(crate) fn expire(db: &Connection, now_ms: i64, rows_max: usize) -> rusqlite::Result<usize> {
    db.prepare_cached("DELETE FROM state WHERE id IN (SELECT id FROM state WHERE expires_ms <= ?1 ORDER BY expires_ms LIMIT ?2)")?
        .execute(params![now_ms, rows_max as i64])
}
