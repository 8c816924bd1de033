//! The write-ahead log: where an entry is durable first. Frames of leaves in segments, each named by the index of its first.
//!
//! ```text
//! frame   length u32 · CRC-32C u32 · index u64 · group u64 · leaf      (little-endian; the CRC is over index, group and leaf)
//! ```
//!
//! `group` is the index of the first entry that was synced together with this one. It tells a torn end from corruption: of a group that was under way
//! when the power went, any part may be there, even a later frame without an earlier one, and nothing of it was acknowledged; so a bad frame may be cut
//! where only frames of its own group follow. A valid frame of a later group proves that the bad one was durable once: then the log must not start.
//!
//! Ahead of the frames a segment is filled with zeros, some at a time: a sync that only overwrites need not wait for the file system to note a new
//! size as well. A frame of length 0 is where the frames end.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest};

use super::disk::{Disk, DiskFile, Durability, install, make_dir};
use crate::entry::leaf::LEAF_BYTES_MAX;

const FRAME: usize = 24;
/// A segment that has so many bytes takes no further group. A 32nd of that is written ahead in zeros.
pub(super) const SEGMENT_BYTES: u64 = 8 * 1024 * 1024;

/// The log cannot go on from what is on the disk.
#[derive(Debug, thiserror::Error)]
pub(super) enum WalError {
    #[error("{} cannot be used", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "{} is damaged at byte {at}: entry {index} cannot be read, and entries that were written after it can. Restore the file from a copy",
        path.display()
    )]
    Corrupt { path: PathBuf, at: usize, index: u64 },
    #[error("{}: entry {expected} should follow, and entry {found} does. A segment is missing: restore it from a copy", path.display())]
    Missing { path: PathBuf, expected: u64, found: u64 },
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> WalError {
    let path = path.to_owned();
    move |source| WalError::Io { path, source }
}

/// A segment's name.
fn name(first: u64) -> String {
    format!("{first:020}.wal")
}

/// The segments of a directory, by their first index.
fn segments(disk: &dyn Disk, directory: &Path) -> io::Result<Vec<u64>> {
    let names = disk.list(directory)?;
    let mut firsts: Vec<u64> = names.iter().filter_map(|name| name.strip_suffix(".wal")?.parse().ok()).collect();
    firsts.sort_unstable();
    Ok(firsts)
}

/// How many zeros are written ahead.
fn ahead(segment_bytes: u64) -> usize {
    usize::try_from(segment_bytes / 32).unwrap_or(0)
}

fn checksum(index: u64, group: u64, leaf: &[u8]) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    digest.update(&index.to_le_bytes());
    digest.update(&group.to_le_bytes());
    digest.update(leaf);
    u32::try_from(digest.finalize() & u64::from(u32::MAX)).unwrap_or(0)
}

fn push_frame(frames: &mut Vec<u8>, index: u64, group: u64, leaf: &[u8]) {
    frames.extend_from_slice(&u32::try_from(leaf.len()).unwrap_or(u32::MAX).to_le_bytes());
    frames.extend_from_slice(&checksum(index, group, leaf).to_le_bytes());
    frames.extend_from_slice(&index.to_le_bytes());
    frames.extend_from_slice(&group.to_le_bytes());
    frames.extend_from_slice(leaf);
}

struct Frame<'a> {
    index: u64,
    group: u64,
    leaf: &'a [u8],
}

/// The frame that begins at a byte, if one does.
fn frame(bytes: &[u8], at: usize) -> Option<Frame<'_>> {
    let head = bytes.get(at..at + FRAME)?;
    let number = |range: std::ops::Range<usize>| head[range].iter().rev().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
    let length = usize::try_from(number(0..4)).ok().filter(|length| (1..=LEAF_BYTES_MAX).contains(length))?;
    let leaf = bytes.get(at + FRAME..at + FRAME + length)?;
    let (index, group) = (number(8..16), number(16..24));
    (u64::from(checksum(index, group, leaf)) == number(4..8)).then_some(Frame { index, group, leaf })
}

/// The leaves that follow each other from an index on, for who only reads.
pub(super) fn leaves_from(disk: &dyn Disk, directory: &Path, from: u64) -> io::Result<Vec<Bytes>> {
    let mut leaves = Vec::new();
    for first in segments(disk, directory)? {
        let bytes = match disk.read(&directory.join(name(first))) {
            // It has gone since, and so its entries are in bundles.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            read => Bytes::from(read?),
        };
        let mut at = 0;
        while let Some(frame) = frame(&bytes, at) {
            if frame.index == from + leaves.len() as u64 {
                leaves.push(bytes.slice_ref(frame.leaf));
            }
            at += FRAME + frame.leaf.len();
        }
    }
    Ok(leaves)
}

/// What the segments of a directory hold.
#[derive(Default)]
pub(super) struct Recovered {
    /// The index of the first leaf.
    pub(super) first: u64,
    pub(super) leaves: Vec<Bytes>,
    /// The first indexes of the segments, but for the last.
    pub(super) closed: Vec<u64>,
}

/// The segment that is written.
pub(super) struct Wal {
    directory: PathBuf,
    file: Box<dyn DiskFile>,
    path: PathBuf,
    first: u64,
    next: u64,
    end: u64,
    zeroed: u64,
    frames: Vec<u8>,
    segment_bytes: u64,
}

impl Wal {
    /// Begins a log whose next entry is `next`.
    pub(super) fn create(disk: &dyn Disk, directory: &Path, next: u64, segment_bytes: u64) -> Result<Self, WalError> {
        make_dir(disk, directory).map_err(io_error(directory))?;
        let path = directory.join(name(next));
        install(disk, &directory.join("new"), &path, &vec![0; ahead(segment_bytes)], Durability::Synced).map_err(io_error(&path))?;
        Self::at(disk, directory, next, next, 0, segment_bytes)
    }

    fn at(disk: &dyn Disk, directory: &Path, first: u64, next: u64, end: u64, segment_bytes: u64) -> Result<Self, WalError> {
        let path = directory.join(name(first));
        let file = disk.open(&path).map_err(io_error(&path))?;
        let zeroed = end + ahead(segment_bytes) as u64;
        Ok(Self { directory: directory.to_owned(), file, path, first, next, end, zeroed, frames: Vec::new(), segment_bytes })
    }

    /// Reads what is there and makes it durable. `None` if there is nothing.
    ///
    /// The last segment is written anew: what a failed sync or a killed process left may be in memory alone, and it will be recognised and
    /// acknowledged when it is delivered again.
    pub(super) fn recover(disk: &dyn Disk, directory: &Path, segment_bytes: u64) -> Result<Option<(Self, Recovered)>, WalError> {
        let firsts = segments(disk, directory).map_err(io_error(directory))?;
        let Some((&last, closed)) = firsts.split_last() else { return Ok(None) };
        let mut recovered = Recovered { first: firsts[0], leaves: Vec::new(), closed: closed.to_vec() };
        let mut next = recovered.first;
        let mut end = 0;
        for &first in &firsts {
            let path = directory.join(name(first));
            if first != next {
                return Err(WalError::Missing { path, expected: next, found: first });
            }
            let bytes = Bytes::from(disk.read(&path).map_err(io_error(&path))?);
            let mut at = 0;
            while let Some(frame) = frame(&bytes, at).filter(|frame| frame.index == next) {
                recovered.leaves.push(bytes.slice_ref(frame.leaf));
                next += 1;
                at += FRAME + frame.leaf.len();
            }
            // Whatever of a later group stands behind a bad frame; in a segment that is followed by another there is no bad frame.
            let mut behind = (at..bytes.len()).filter_map(|at| frame(&bytes, at));
            let is_corrupt = behind.any(|frame| frame.group > next);
            if is_corrupt {
                return Err(WalError::Corrupt { path, at, index: next });
            }
            if first == last {
                let mut again = bytes[..at].to_vec();
                again.resize(at + ahead(segment_bytes), 0);
                install(disk, &directory.join("new"), &path, &again, Durability::Synced).map_err(io_error(&path))?;
                end = at as u64;
            }
        }
        Ok(Some((Self::at(disk, directory, last, next, end, segment_bytes)?, recovered)))
    }

    /// Writes leaves as one group and makes them durable. After an error nothing is known of the file: recover, and never write on.
    pub(super) fn append(&mut self, leaves: &[Bytes]) -> Result<(), WalError> {
        let group = self.next;
        self.frames.clear();
        for (index, leaf) in (group..).zip(leaves) {
            push_frame(&mut self.frames, index, group, leaf);
        }
        let end = self.end + self.frames.len() as u64;
        if end + FRAME as u64 > self.zeroed {
            let ahead = ahead(self.segment_bytes);
            self.frames.resize(self.frames.len() + ahead, 0);
            self.zeroed = end + ahead as u64;
        }
        let written = self.file.write_at(self.end, &self.frames).and_then(|()| self.file.sync());
        written.map_err(io_error(&self.path))?;
        (self.end, self.next) = (end, group + leaves.len() as u64);
        // A large group's buffer is not kept for the small ones that follow.
        if self.frames.capacity() > 4 * 1024 * 1024 {
            self.frames = Vec::new();
        }
        Ok(())
    }

    /// The index of the segment's first entry.
    pub(super) const fn first(&self) -> u64 {
        self.first
    }

    /// Whether the segment is as large as one should be.
    pub(super) fn is_full(&self) -> bool {
        self.end >= self.segment_bytes
    }

    /// Begins the next segment; gives the first index of the one that is closed with it.
    pub(super) fn rotate(&mut self, disk: &dyn Disk) -> Result<u64, WalError> {
        let closed = self.first;
        let directory = self.directory.clone();
        *self = Self::create(disk, &directory, self.next, self.segment_bytes)?;
        Ok(closed)
    }

    /// Removes a closed segment, durably: were the next one gone before it, what remains would have a hole.
    pub(super) fn remove(disk: &dyn Disk, directory: &Path, first: u64) -> Result<(), WalError> {
        let path = directory.join(name(first));
        disk.remove(&path).and_then(|()| disk.sync_dir(directory)).map_err(io_error(&path))
    }
}
