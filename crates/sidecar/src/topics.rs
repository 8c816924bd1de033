//! The topics of this process: heads of their partitions, the recent batches in memory, and who is woken by a new one.
//!
//! Only the writer appends and evicts, after its commit; what can be seen here is durable.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::record::{Batch, Records, Want};

/// A topic. Its number of partitions never changes.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) id: u32,
    pub(crate) name: Arc<str>,
    pub(crate) partitions: u16,
    tail: Mutex<Tail>,
    readers: Mutex<Vec<Arc<Notify>>>,
}

#[derive(Debug)]
struct Tail {
    /// The last batch ever.
    last_seq: u64,
    /// Next offset of each partition.
    heads: Vec<u64>,
    /// The most recent batches, without gaps, up to `last_seq`.
    batches: VecDeque<Arc<Batch>>,
}

/// What the tail has of a wanted piece.
#[derive(Debug)]
pub(crate) enum Recent {
    Records(Records),
    /// Older than the tail: to be read from disk.
    Evicted,
}

impl Topic {
    pub(crate) fn new(id: u32, name: Arc<str>, last_seq: u64, heads: Vec<u64>) -> Self {
        Self {
            id,
            name,
            partitions: heads.len() as u16,
            tail: Mutex::new(Tail { last_seq, heads, batches: VecDeque::new() }),
            readers: Mutex::new(Vec::new()),
        }
    }

    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn readers(&self) -> MutexGuard<'_, Vec<Arc<Notify>>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a durable batch visible.
    pub(crate) fn append(&self, batch: Arc<Batch>) {
        let mut tail = self.tail();
        tail.last_seq = batch.seq;
        for (head, place) in tail.heads.iter_mut().zip(&batch.places) {
            *head = place.next;
        }
        tail.batches.push_back(batch);
    }

    /// Wakes the subscriptions of this topic.
    pub(crate) fn wake(&self) {
        for reader in self.readers().iter() {
            reader.notify_one();
        }
    }

    /// Registers a subscription to be woken.
    pub(crate) fn add_reader(&self, reader: Arc<Notify>) {
        self.readers().push(reader);
    }

    pub(crate) fn remove_reader(&self, reader: &Arc<Notify>) {
        self.readers().retain(|other| !Arc::ptr_eq(other, reader));
    }

    /// Drops the oldest batch from memory; returns the bytes that were freed.
    pub(crate) fn evict(&self) -> usize {
        self.tail().batches.pop_front().map_or(0, |batch| batch.memory())
    }

    /// Copies the heads and returns the number of the last batch: whatever lies below the heads is in batches up to it.
    pub(crate) fn heads(&self, heads: &mut Vec<u64>) -> u64 {
        let tail = self.tail();
        heads.clear();
        heads.extend_from_slice(&tail.heads);
        tail.last_seq
    }

    /// Reads recent records.
    pub(crate) fn read(&self, want: &Want) -> Recent {
        let partition = usize::from(want.partition);
        let tail = self.tail();
        let from = tail.batches.partition_point(|batch| batch.places[partition].next <= want.from);
        match tail.batches.get(from) {
            None if tail.heads[partition] <= want.from => Recent::Records(Records::default()),
            None => Recent::Evicted,
            Some(batch) if batch.places[partition].first() > want.from => Recent::Evicted,
            Some(_) => {
                let mut records = Records::default();
                for batch in tail.batches.range(from..) {
                    if !records.take(batch, want) {
                        break;
                    }
                }
                Recent::Records(records)
            }
        }
    }
}

/// The partition of a key: FNV-1a as Dapr's Kafka client does it.
pub(crate) fn partition_of(key: &[u8], partitions: u16) -> u16 {
    let mut hash: u32 = 0x811c_9dc5;
    for byte in key {
        hash ^= u32::from(*byte);
        hash = hash.wrapping_mul(0x0100_0193);
    }
    let partition = hash.cast_signed() % i32::from(partitions);
    partition.unsigned_abs() as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Head, RecordBuf};

    fn batch(seq: u64, heads: &[u64], partitions: &[u16]) -> Arc<Batch> {
        let mut buf = RecordBuf::default();
        for partition in partitions {
            let head = Head { flags: 0, at_ms: 0, key: None, headers: b"" };
            buf.push::<()>(*partition, head, |out| {
                out.push(b'x');
                Ok(0)
            })
            .unwrap();
        }
        Arc::new(Batch::build(seq, heads, [&buf].into_iter()))
    }

    #[test]
    fn the_tail_knows_what_it_no_longer_has() {
        let topic = Topic::new(1, "t".into(), 0, vec![0, 0]);
        topic.append(batch(1, &[0, 0], &[0, 0]));
        topic.append(batch(2, &[2, 0], &[1]));
        topic.append(batch(3, &[2, 1], &[0]));
        let read = |partition, from| {
            let want = Want { partition, from, only: None, records_max: 10, bytes_max: 1000 };
            match topic.read(&want) {
                Recent::Evicted => None,
                Recent::Records(records) => Some(records.offsets().collect::<Vec<_>>()),
            }
        };
        assert_eq!(read(0, 0), Some(vec![0, 1, 2]));
        assert_eq!(read(0, 1), Some(vec![1, 2]));
        assert_eq!(read(0, 3), Some(vec![]));
        topic.evict();
        assert_eq!(read(0, 1), None);
        assert_eq!(read(0, 2), Some(vec![2]));
        assert_eq!(read(1, 0), Some(vec![0]));
        topic.evict();
        topic.evict();
        assert_eq!(read(1, 0), None);
        assert_eq!(read(1, 1), Some(vec![]));
    }

    #[test]
    fn keys_land_where_dapr_puts_them() {
        // FNV-1a of "a" is 0xe40c292c, negative as a signed number.
        assert_eq!(partition_of(b"a", 12), (0xe40c_292c_u32.cast_signed() % 12).unsigned_abs() as u16);
        assert_eq!(partition_of(b"", 1), 0);
    }
}
