//! Rows of the event log: batches, and how far each group has read.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use crate::record::Batch;

/// Bits of a row id that count the batches of a topic.
const SEQ_BITS: u32 = 40;

/// Row id of a batch.
pub(crate) fn row_id(topic: u32, seq: u64) -> i64 {
    ((u64::from(topic) << SEQ_BITS) | seq).cast_signed()
}

/// Number of the batch in a row.
pub(crate) fn seq_of(row_id: i64) -> u64 {
    row_id.cast_unsigned() & ((1 << SEQ_BITS) - 1)
}

/// How far a group has come in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// The first offset not yet dealt with.
    pub(crate) next: u64,
    /// Batches up to this one hold nothing from `next` on.
    pub(crate) hint: u64,
}

/// The positions of one group in one topic: moved by its deliveries, made durable by the writer.
#[derive(Debug)]
pub(crate) struct CursorCell {
    pub(crate) app: Arc<str>,
    pub(crate) topic: u32,
    positions: Mutex<Vec<Cursor>>,
    dirty: AtomicBool,
    /// Subscriptions that use it now.
    pub(crate) users: AtomicUsize,
}

impl CursorCell {
    pub(crate) fn new(app: Arc<str>, topic: u32, positions: Vec<Cursor>) -> Self {
        Self { app, topic, positions: Mutex::new(positions), dirty: AtomicBool::new(false), users: AtomicUsize::new(0) }
    }

    pub(crate) fn get(&self) -> Vec<Cursor> {
        self.positions.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Moves one partition forward.
    pub(crate) fn advance(&self, partition: u16, cursor: Cursor) {
        let mut positions = self.positions.lock().unwrap_or_else(PoisonError::into_inner);
        positions[usize::from(partition)] = cursor;
        self.dirty.store(true, Ordering::Release);
    }

    /// Notes that partitions that are read to their heads have nothing up to `hint`. Not worth a write of its own.
    pub(crate) fn caught_up(&self, hint: u64, which: impl Fn(u16) -> bool) {
        let mut positions = self.positions.lock().unwrap_or_else(PoisonError::into_inner);
        for (partition, position) in positions.iter_mut().enumerate() {
            if position.hint < hint && which(partition as u16) {
                position.hint = hint;
            }
        }
    }

    pub(crate) fn cursor(&self, partition: u16) -> Cursor {
        self.positions.lock().unwrap_or_else(PoisonError::into_inner)[usize::from(partition)]
    }

    pub(crate) fn mark(&self) {
        self.dirty.store(true, Ordering::Release);
    }

    /// The positions, if they moved since the last call.
    pub(crate) fn take_dirty(&self) -> Option<Vec<Cursor>> {
        self.dirty.swap(false, Ordering::AcqRel).then(|| self.get())
    }
}

/// A topic as stored.
#[derive(Debug)]
pub(crate) struct TopicRow {
    pub(crate) id: u32,
    pub(crate) name: String,
    pub(crate) partitions: u16,
    pub(crate) retention_ms: i64,
}

/// The ends of a topic's log.
#[derive(Debug, Clone)]
pub(crate) struct Ends {
    /// The oldest batch kept; `last_seq + 1` when none is.
    pub(crate) first_seq: u64,
    pub(crate) first_at_ms: i64,
    /// Offsets at which the oldest batch starts.
    pub(crate) lows: Vec<u64>,
    /// `total` before the oldest batch.
    pub(crate) base: u64,
    pub(crate) last_seq: u64,
    pub(crate) heads: Vec<u64>,
    /// `total` of the last batch.
    pub(crate) total: u64,
}

pub(crate) fn topics(db: &Connection) -> rusqlite::Result<Vec<TopicRow>> {
    db.prepare("SELECT id, name, partitions, retention_ms FROM topics ORDER BY id")?
        .query_map([], |row| Ok(TopicRow { id: row.get(0)?, name: row.get(1)?, partitions: row.get(2)?, retention_ms: row.get(3)? }))?
        .collect()
}

/// Writes a topic; its number of partitions stays once set.
pub(crate) fn put_topic(db: &Connection, name: &str, partitions: u16, retention_ms: i64) -> rusqlite::Result<TopicRow> {
    db.query_row(
        "INSERT INTO topics(name, partitions, retention_ms) VALUES (?1, ?2, ?3)
         ON CONFLICT(name) DO UPDATE SET retention_ms = excluded.retention_ms
         RETURNING id, partitions, retention_ms",
        params![name, partitions, retention_ms],
        |row| Ok(TopicRow { id: row.get(0)?, name: name.to_owned(), partitions: row.get(1)?, retention_ms: row.get(2)? }),
    )
}

/// Finds the ends of a topic's log.
pub(crate) fn ends(db: &Connection, topic: &TopicRow) -> rusqlite::Result<Ends> {
    let end = |order: &str| {
        db.query_row(
            &format!("SELECT id, at_ms, total, places, length(data) FROM batches WHERE id BETWEEN ?1 AND ?2 ORDER BY id {order} LIMIT 1"),
            params![row_id(topic.id, 0), row_id(topic.id + 1, 0) - 1],
            |row| {
                let places: Vec<u8> = row.get(3)?;
                Ok((
                    seq_of(row.get(0)?),
                    row.get::<_, i64>(1)?,
                    row.get::<_, i64>(2)?.cast_unsigned(),
                    Batch::places(&places),
                    row.get::<_, i64>(4)?.cast_unsigned(),
                ))
            },
        )
        .optional()
    };
    let empty = vec![0; usize::from(topic.partitions)];
    Ok(match (end("ASC")?, end("DESC")?) {
        (Some(first), Some(last)) => Ends {
            first_seq: first.0,
            first_at_ms: first.1,
            lows: first.3.iter().map(|place| place.first()).collect(),
            base: first.2 - first.4,
            last_seq: last.0,
            heads: last.3.iter().map(|place| place.next).collect(),
            total: last.2,
        },
        _ => Ends { first_seq: 1, first_at_ms: i64::MAX, lows: empty.clone(), base: 0, last_seq: 0, heads: empty, total: 0 },
    })
}

pub(crate) fn put_batch(db: &Connection, topic: u32, batch: &Batch, at_ms: i64, total: u64) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT INTO batches(id, at_ms, total, places, data) VALUES (?1, ?2, ?3, ?4, ?5)")?.execute(params![
        row_id(topic, batch.seq),
        at_ms,
        total.cast_signed(),
        batch.directory(),
        &batch.data[..]
    ])?;
    Ok(())
}

/// Reads batches after `seq`, in order, until `enough` says so.
pub(crate) fn read_batches(db: &Connection, topic: u32, seq: u64, mut enough: impl FnMut(Arc<Batch>) -> bool) -> rusqlite::Result<()> {
    let mut statement = db.prepare_cached("SELECT id, places, data FROM batches WHERE id > ?1 AND id < ?2 ORDER BY id")?;
    let mut rows = statement.query(params![row_id(topic, seq), row_id(topic + 1, 0)])?;
    while let Some(row) = rows.next()? {
        let places = Batch::places(row.get_ref(1)?.as_blob().unwrap_or_default());
        let data = Bytes::copy_from_slice(row.get_ref(2)?.as_blob().unwrap_or_default());
        let batch = Arc::new(Batch { seq: seq_of(row.get(0)?), places, data });
        if enough(batch) {
            break;
        }
    }
    Ok(())
}

/// One of the oldest batches of a topic.
pub(crate) struct Oldest {
    pub(crate) seq: u64,
    pub(crate) at_ms: i64,
    pub(crate) total: u64,
    /// Offsets at which it starts.
    pub(crate) lows: Vec<u64>,
}

/// The oldest batches of a topic.
pub(crate) fn oldest(db: &Connection, topic: u32, rows_max: usize) -> rusqlite::Result<Vec<Oldest>> {
    db.prepare_cached("SELECT id, at_ms, total, places FROM batches WHERE id > ?1 AND id < ?2 ORDER BY id LIMIT ?3")?
        .query_map(params![row_id(topic, 0), row_id(topic + 1, 0), rows_max as i64], read_oldest)?
        .collect()
}

/// The oldest batch of a topic that is of `at_ms` or later.
pub(crate) fn since(db: &Connection, topic: u32, at_ms: i64) -> rusqlite::Result<Option<Oldest>> {
    db.prepare_cached("SELECT id, at_ms, total, places FROM batches WHERE id > ?1 AND id < ?2 AND at_ms >= ?3 ORDER BY id LIMIT 1")?
        .query_row(params![row_id(topic, 0), row_id(topic + 1, 0), at_ms], read_oldest)
        .optional()
}

fn read_oldest(row: &Row<'_>) -> rusqlite::Result<Oldest> {
    let places = Batch::places(row.get_ref(3)?.as_blob().unwrap_or_default());
    Ok(Oldest {
        seq: seq_of(row.get(0)?),
        at_ms: row.get(1)?,
        total: row.get::<_, i64>(2)?.cast_unsigned(),
        lows: places.iter().map(|place| place.first()).collect(),
    })
}

/// Deletes the batches of a topic up to `seq`.
pub(crate) fn delete_up_to(db: &Connection, topic: u32, seq: u64) -> rusqlite::Result<usize> {
    db.prepare_cached("DELETE FROM batches WHERE id > ?1 AND id <= ?2")?.execute(params![row_id(topic, 0), row_id(topic, seq)])
}

pub(crate) fn put_cursors(db: &Connection, app: &str, topic: u32, seen_ms: i64, positions: &[Cursor]) -> rusqlite::Result<()> {
    let mut bytes = Vec::with_capacity(positions.len() * 16);
    for cursor in positions {
        bytes.extend_from_slice(&cursor.next.to_le_bytes());
        bytes.extend_from_slice(&cursor.hint.to_le_bytes());
    }
    db.prepare_cached(
        "INSERT INTO cursors(app, topic, seen_ms, positions) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT(app, topic) DO UPDATE SET seen_ms = excluded.seen_ms, positions = excluded.positions",
    )?
    .execute(params![app, topic, seen_ms, bytes])?;
    Ok(())
}

/// A group as stored.
pub(crate) struct GroupRow {
    pub(crate) app: String,
    pub(crate) topic: u32,
    /// When it was last in use.
    pub(crate) seen_ms: i64,
    pub(crate) positions: Vec<Cursor>,
}

/// All groups.
pub(crate) fn groups(db: &Connection) -> rusqlite::Result<Vec<GroupRow>> {
    db.prepare("SELECT app, topic, seen_ms, positions FROM cursors")?
        .query_map([], |row| {
            let bytes: Vec<u8> = row.get(3)?;
            let positions = bytes
                .chunks_exact(16)
                .map(|chunk| {
                    let (next, hint) = chunk.split_at(8);
                    Cursor {
                        next: u64::from_le_bytes(next.try_into().unwrap_or_default()),
                        hint: u64::from_le_bytes(hint.try_into().unwrap_or_default()),
                    }
                })
                .collect();
            Ok(GroupRow { app: row.get(0)?, topic: row.get(1)?, seen_ms: row.get(2)?, positions })
        })?
        .collect()
}

pub(crate) fn delete_cursors(db: &Connection, app: &str, topic: u32) -> rusqlite::Result<usize> {
    db.execute("DELETE FROM cursors WHERE app = ?1 AND topic = ?2", params![app, topic])
}
