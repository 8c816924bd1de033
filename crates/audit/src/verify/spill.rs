//! Records sorted outside memory: what a log's entries must not have in common, or must have without a hole, is found by sorting, whatever their number.
//!
//! Records are 32 bytes, a key and two numbers. They are divided by the first byte of their key into 256 parts, each written in blocks to one nameless
//! file, and each part is sorted by itself in the end. So 2 MiB are in use while records come, and a 256th of all afterwards: a hash set of the
//! identities of ten million entries would take half a gigabyte, and a merge of sorted runs more code.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

/// What is sorted: by key, then by the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Record {
    pub(super) key: [u8; 16],
    pub(super) first: u64,
    pub(super) second: u64,
}

const RECORD_BYTES: usize = 32;
const BLOCK_RECORDS: usize = 256;
const BLOCK_BYTES: usize = RECORD_BYTES * BLOCK_RECORDS;

/// The parts and their file.
pub(super) struct Spill {
    file: File,
    end: u64,
    parts: Vec<Part>,
}

#[derive(Default)]
struct Part {
    /// What waits for its block to be full.
    open: Vec<Record>,
    /// Where its full blocks begin.
    blocks: Vec<u64>,
}

impl Spill {
    /// In the system's directory for temporary files, under no name.
    pub(super) fn new() -> io::Result<Self> {
        let mut parts = Vec::new();
        parts.resize_with(256, Part::default);
        Ok(Self { file: tempfile::tempfile()?, end: 0, parts })
    }

    pub(super) fn push(&mut self, record: Record) -> io::Result<()> {
        let part = &mut self.parts[usize::from(record.key[0])];
        part.open.push(record);
        if part.open.len() < BLOCK_RECORDS {
            return Ok(());
        }
        let mut block = Vec::with_capacity(BLOCK_BYTES);
        for record in part.open.drain(..) {
            block.extend_from_slice(&record.key);
            block.extend_from_slice(&record.first.to_le_bytes());
            block.extend_from_slice(&record.second.to_le_bytes());
        }
        self.file.write_all_at(&block, self.end)?;
        part.blocks.push(self.end);
        self.end += block.len() as u64;
        Ok(())
    }

    /// Hands out all records in order, and is empty afterwards.
    pub(super) fn drain_sorted(&mut self, mut each: impl FnMut(Record)) -> io::Result<()> {
        let mut block = vec![0; BLOCK_BYTES];
        for part in &mut self.parts {
            let mut records = std::mem::take(&mut part.open);
            records.reserve(part.blocks.len() * BLOCK_RECORDS);
            for at in part.blocks.drain(..) {
                self.file.read_exact_at(&mut block, at)?;
                let (chunks, _) = block.as_chunks::<RECORD_BYTES>();
                records.extend(chunks.iter().map(record));
            }
            records.sort_unstable();
            records.into_iter().for_each(&mut each);
        }
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.end = 0;
        Ok(())
    }
}

fn record(bytes: &[u8; RECORD_BYTES]) -> Record {
    let number = |from: usize| bytes[from..from + 8].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
    let mut key = [0; 16];
    key.copy_from_slice(&bytes[..16]);
    Record { key, first: number(16), second: number(24) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_out_sorted_however_many() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut records: Vec<_> = (0..100_000)
            .map(|_| {
                let mut key = [0; 16];
                random.fill(&mut key);
                key[1] = 0;
                Record { key, first: random.u64(..), second: random.u64(..) }
            })
            .collect();
        let mut spill = Spill::new().unwrap();
        // A part that is much larger than its siblings.
        records.iter_mut().take(30_000).for_each(|record| record.key[0] = 9);
        records.iter().for_each(|record| spill.push(*record).unwrap());
        let mut sorted = Vec::new();
        spill.drain_sorted(|record| sorted.push(record)).unwrap();
        records.sort_unstable();
        assert!(sorted == records);
        spill.drain_sorted(|record| panic!("{record:?}")).unwrap();
    }
}
