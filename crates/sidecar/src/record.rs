//! How records lie in memory and on disk.
//!
//! A commit writes one row per topic: a [`Batch`] with the records of all partitions, those of one partition side by side
//! and in order. The batch's directory says for each partition where its bytes lie and which offset follows its last
//! record, also for partitions it holds nothing of: the last batch of a topic therefore knows every head. One row per
//! commit and topic keeps writes sequential; one row per record cost four times the pages.

use std::sync::Arc;

use bytes::Bytes;

/// The value is not a JSON object: it was published raw.
pub(crate) const FLAG_OPAQUE: u8 = 1;
/// The headers carry the place where the record first stood (a dead letter).
pub(crate) const FLAG_ORIGIN: u8 = 2;
/// The record has a key.
pub(crate) const FLAG_KEY: u8 = 4;

/// Bytes of the fixed part of a record: length, flags, time, expiry, lengths of key and headers.
const FIXED: usize = 4 + 1 + 8 + 8 + 4 + 4;

/// A record as it is read: borrowed from its batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record<'a> {
    pub(crate) flags: u8,
    /// When it was published, in Unix milliseconds.
    pub(crate) at_ms: i64,
    /// When it expires, in Unix milliseconds; 0 is never.
    pub(crate) expires_ms: i64,
    pub(crate) key: &'a [u8],
    /// Members of a JSON object of strings without its braces, `"a":"b","c":"d"`.
    pub(crate) headers: &'a [u8],
    pub(crate) value: &'a [u8],
}

/// Records on their way to the log, in the order they were published.
#[derive(Debug, Default)]
pub(crate) struct RecordBuf {
    pub(crate) bytes: Vec<u8>,
    pub(crate) spans: Vec<Span>,
}

/// One record of a [`RecordBuf`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub(crate) partition: u16,
    pub(crate) start: u32,
    pub(crate) end: u32,
}

/// What is known of a record before its value is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head<'a> {
    pub(crate) flags: u8,
    pub(crate) at_ms: i64,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) headers: &'a [u8],
}

impl RecordBuf {
    /// Appends a record whose value `write` appends. `write` returns the expiry, or an error that leaves no trace.
    pub(crate) fn push<E>(&mut self, partition: u16, head: Head<'_>, write: impl FnOnce(&mut Vec<u8>) -> Result<i64, E>) -> Result<(), E> {
        let start = self.bytes.len();
        let key = head.key.unwrap_or_default();
        let flags = head.flags | if head.key.is_some() { FLAG_KEY } else { 0 };
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.push(flags);
        self.bytes.extend_from_slice(&head.at_ms.to_le_bytes());
        self.bytes.extend_from_slice(&[0; 8]);
        self.bytes.extend_from_slice(&length(key.len()));
        self.bytes.extend_from_slice(&length(head.headers.len()));
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(head.headers);
        match write(&mut self.bytes) {
            Ok(expires_ms) => {
                let end = self.bytes.len();
                self.bytes[start..start + 4].copy_from_slice(&length(end - start));
                self.bytes[start + 13..start + 21].copy_from_slice(&expires_ms.to_le_bytes());
                self.spans.push(Span { partition, start: start as u32, end: end as u32 });
                Ok(())
            }
            Err(error) => {
                self.bytes.truncate(start);
                Err(error)
            }
        }
    }
}

/// Lengths are bounded far below 4 GiB by the body limit.
fn length(bytes: usize) -> [u8; 4] {
    (bytes as u32).to_le_bytes()
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    let mut raw = [0; 4];
    raw.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(raw) as usize
}

fn i64_at(bytes: &[u8], at: usize) -> i64 {
    let mut raw = [0; 8];
    raw.copy_from_slice(&bytes[at..at + 8]);
    i64::from_le_bytes(raw)
}

/// Reads one record. `bytes` is exactly what [`RecordBuf::push`] wrote.
pub(crate) fn decode(bytes: &[u8]) -> Record<'_> {
    let key_len = u32_at(bytes, 21);
    let headers_len = u32_at(bytes, 25);
    let (key, rest) = bytes[FIXED..].split_at(key_len);
    let (headers, value) = rest.split_at(headers_len);
    Record { flags: bytes[4], at_ms: i64_at(bytes, 5), expires_ms: i64_at(bytes, 13), key, headers, value }
}

/// Where the records of one partition lie in a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// The offset after the partition's last record in this or an earlier batch.
    pub(crate) next: u64,
    pub(crate) count: u32,
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl Place {
    /// Offset of the first record here.
    pub(crate) fn first(&self) -> u64 {
        self.next - u64::from(self.count)
    }
}

/// The records of one topic in one commit.
#[derive(Debug)]
pub(crate) struct Batch {
    /// Counts the batches of a topic from 1, without gaps.
    pub(crate) seq: u64,
    pub(crate) places: Box<[Place]>,
    pub(crate) data: Bytes,
}

impl Batch {
    /// Puts `parts` together behind `heads` (the next offset of each partition).
    pub(crate) fn build<'a>(seq: u64, heads: &[u64], parts: impl Iterator<Item = &'a RecordBuf> + Clone) -> Self {
        let mut places: Box<[Place]> = heads.iter().map(|next| Place { next: *next, count: 0, start: 0, end: 0 }).collect();
        // Two passes: lengths first, so that every record is copied once, to its final place.
        for span in parts.clone().flat_map(|part| &part.spans) {
            let place = &mut places[usize::from(span.partition)];
            place.count += 1;
            place.next += 1;
            place.end += span.end - span.start;
        }
        let mut at = 0;
        let mut cursors: Vec<usize> = Vec::with_capacity(places.len());
        for place in &mut places {
            place.start = at;
            cursors.push(at as usize);
            at += place.end;
            place.end = at;
        }
        let mut data = vec![0; at as usize];
        for part in parts {
            for span in &part.spans {
                let bytes = &part.bytes[span.start as usize..span.end as usize];
                let cursor = &mut cursors[usize::from(span.partition)];
                data[*cursor..*cursor + bytes.len()].copy_from_slice(bytes);
                *cursor += bytes.len();
            }
        }
        Self { seq, places, data: data.into() }
    }

    /// The directory as it is stored: 16 bytes a partition.
    pub(crate) fn directory(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.places.len() * 16);
        for place in &self.places {
            bytes.extend_from_slice(&place.next.to_le_bytes());
            bytes.extend_from_slice(&place.count.to_le_bytes());
            bytes.extend_from_slice(&(place.end - place.start).to_le_bytes());
        }
        bytes
    }

    /// Reads a stored directory.
    pub(crate) fn places(directory: &[u8]) -> Box<[Place]> {
        let mut at = 0;
        directory
            .chunks_exact(16)
            .map(|chunk| {
                let start = at;
                at += u32_at(chunk, 12) as u32;
                Place { next: i64_at(chunk, 0).cast_unsigned(), count: u32_at(chunk, 8) as u32, start, end: at }
            })
            .collect()
    }

    /// What the batch costs in memory, in bytes.
    pub(crate) fn memory(&self) -> usize {
        self.data.len() + self.places.len() * size_of::<Place>() + 128
    }
}

/// Which records of a partition are wanted.
#[derive(Debug, Clone)]
pub(crate) struct Want {
    pub(crate) partition: u16,
    /// The first offset.
    pub(crate) from: u64,
    /// On a retry the offsets that are still open, ascending; nothing else is read.
    pub(crate) only: Option<Arc<[u64]>>,
    pub(crate) records_max: usize,
    /// At least one record is read, whatever its size.
    pub(crate) bytes_max: usize,
}

/// Records of one partition, in order, kept alive by their batches.
#[derive(Debug, Default)]
pub(crate) struct Records {
    batches: Vec<Arc<Batch>>,
    items: Vec<Item>,
    bytes: usize,
}

#[derive(Debug, Clone, Copy)]
struct Item {
    offset: u64,
    batch: u32,
    start: u32,
    end: u32,
}

impl Records {
    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Bytes of all records.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Number of the batch that holds the last record.
    pub(crate) fn last_seq(&self) -> Option<u64> {
        self.batches.last().map(|batch| batch.seq)
    }

    #[cfg(test)]
    pub(crate) fn offsets(&self) -> impl Iterator<Item = u64> + '_ {
        self.items.iter().map(|item| item.offset)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, Record<'_>)> + '_ {
        self.items.iter().map(|item| {
            let data = &self.batches[item.batch as usize].data;
            (item.offset, decode(&data[item.start as usize..item.end as usize]))
        })
    }

    /// The value of the record at `index`, sharing its batch's memory.
    pub(crate) fn value(&self, index: usize) -> Bytes {
        let item = self.items[index];
        let data = &self.batches[item.batch as usize].data;
        let record = decode(&data[item.start as usize..item.end as usize]);
        data.slice_ref(record.value)
    }

    /// Takes what is wanted from `batch`; `false` when no more is wanted.
    pub(crate) fn take(&mut self, batch: &Arc<Batch>, want: &Want) -> bool {
        let place = batch.places[usize::from(want.partition)];
        if place.count == 0 || place.next <= want.from {
            return true;
        }
        let mut offset = place.first();
        let mut at = place.start as usize;
        let mut used = false;
        let mut more = true;
        while at < place.end as usize {
            let len = u32_at(&batch.data, at);
            let wanted = offset >= want.from && want.only.as_ref().is_none_or(|only| only.binary_search(&offset).is_ok());
            if wanted {
                let full = !self.items.is_empty() && (self.items.len() >= want.records_max || self.bytes + len > want.bytes_max);
                if full {
                    more = false;
                    break;
                }
                if !used {
                    used = true;
                    self.batches.push(batch.clone());
                }
                self.bytes += len;
                self.items.push(Item { offset, batch: self.batches.len() as u32 - 1, start: at as u32, end: (at + len) as u32 });
            }
            at += len;
            offset += 1;
        }
        let past_last = want.only.as_ref().and_then(|only| only.last()).is_some_and(|last| offset > *last);
        more && !past_last && self.items.len() < want.records_max && self.bytes < want.bytes_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn buf(records: &[(u16, Vec<u8>)]) -> RecordBuf {
        let mut buf = RecordBuf::default();
        for (partition, value) in records {
            let head = Head { flags: 0, at_ms: 7, key: Some(b"k"), headers: b"\"a\":\"b\"" };
            buf.push::<()>(*partition, head, |out| {
                out.extend_from_slice(value);
                Ok(9)
            })
            .unwrap();
        }
        buf
    }

    proptest! {
        #[test]
        fn what_was_published_is_read_again_in_order(
            parts in prop::collection::vec(
                prop::collection::vec((0..3_u16, prop::collection::vec(any::<u8>(), 0..20)), 0..8), 1..4),
            skip in 0..4_u64,
        ) {
            let bufs: Vec<RecordBuf> = parts.iter().map(|part| buf(part)).collect();
            let heads = [5, 0, 100];
            let batch = Batch::build(1, &heads, bufs.iter());
            prop_assert_eq!(&Batch::places(&batch.directory()), &batch.places);
            let batch = Arc::new(batch);
            for partition in 0..3_u16 {
                let expected: Vec<(u64, Vec<u8>)> = parts.iter().flatten()
                    .filter(|(p, _)| *p == partition)
                    .enumerate()
                    .map(|(i, (_, value))| (heads[usize::from(partition)] + i as u64, value.clone()))
                    .filter(|(offset, _)| *offset >= heads[usize::from(partition)] + skip)
                    .collect();
                let mut records = Records::default();
                records.take(&batch, &Want {
                    partition,
                    from: heads[usize::from(partition)] + skip,
                    only: None,
                    records_max: 1000,
                    bytes_max: usize::MAX,
                });
                let read: Vec<(u64, Vec<u8>)> = records.iter().map(|(offset, r)| {
                    assert_eq!((r.key, r.headers, r.at_ms, r.expires_ms), (&b"k"[..], &b"\"a\":\"b\""[..], 7, 9));
                    (offset, r.value.to_vec())
                }).collect();
                prop_assert_eq!(read, expected);
            }
        }
    }

    #[test]
    fn a_limit_in_bytes_still_gives_one_record() {
        let batch = Arc::new(Batch::build(1, &[0], [&buf(&[(0, vec![1; 50]), (0, vec![2; 50])])].into_iter()));
        let mut records = Records::default();
        let want = Want { partition: 0, from: 0, only: None, records_max: 10, bytes_max: 1 };
        assert!(!records.take(&batch, &want));
        assert_eq!(records.len(), 1);
    }

    #[test]
    fn a_retry_reads_only_what_is_open() {
        let values: Vec<(u16, Vec<u8>)> = (0..5).map(|i| (0, vec![i])).collect();
        let batch = Arc::new(Batch::build(1, &[10], [&buf(&values)].into_iter()));
        let mut records = Records::default();
        let want = Want { partition: 0, from: 11, only: Some([11, 13].into()), records_max: 10, bytes_max: usize::MAX };
        assert!(!records.take(&batch, &want));
        assert_eq!(records.offsets().collect::<Vec<_>>(), [11, 13]);
    }
}
