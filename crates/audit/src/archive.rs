//! Copies of years that have ended, where nobody can change or remove them before their time.
//!
//! A copy has the files of the year's log as they are, so whoever can check the log can check the copy, with the same means. It holds nothing that an erasure
//! would have to take back: what is personal is ciphertext there, and the keys are no part of it.
//!
//! Always true:
//! * Nothing in a copy is written over. What is there already and is the same counts as copied; something else stops the copy.
//! * `<year>.json` is written last, when the copy was verified as it stands in its place. Without it a copy is not whole, and is carried on.
//!
//! | file | is |
//! |---|---|
//! | `<year>/log/checkpoint`, `<year>/log/tile/…` | the log of the year, in C2SP `tlog-tiles`, at its final size only |
//! | `<year>/blobs/…` | payloads that do not fit into their entries |
//! | `<year>/witnessed` | the final checkpoint with the signatures of witnesses, if they had signed by then |
//! | `<year>.json` | the [`Record`] of the copy |
//!
//! Each file is one object. To pack a year into one was the other way: it could not be carried on after a cut, nor read by an auditor's own program where it lies.

mod bucket;
mod directory;
mod files;

use std::io;
use std::num::NonZero;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use fte_tlog::{Bundle, Checkpoint, SignedNote, TileLevel, TilePath};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::bucket::{BucketShelf, BucketSource, years_in};
pub use self::directory::DirectoryShelf;
use self::files::Files;
use crate::entry::leaf;
use crate::retention::KEPT_MS;
use crate::verify::{Options, Progress, Report, Source, VerifyError, verify};

/// A place for the copy of one year, which keeps what it is given until a time.
pub trait Shelf: Sync {
    /// Keeps a file under a name that nothing has yet, durably. `false`: something has that name, and is not touched.
    fn put_new(&self, name: &str, bytes: &[u8]) -> io::Result<bool>;

    /// Reads a file back; `None` where there is none.
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>>;

    /// Makes sure that a file is kept, as the place itself says.
    fn check_kept(&self, name: &str) -> io::Result<()>;

    /// The log of a year that was put here.
    fn log(&self, year: u16) -> Box<dyn Source + Send + '_>;

    /// How many files are put at a time.
    fn lanes(&self) -> usize;
}

/// Why there is no copy, or none that is whole.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("{file} of the log cannot be read")]
    Read { file: String, source: io::Error },
    #[error("{file} is not in the log")]
    Absent { file: String },
    #[error("the last entry of the year cannot be read: {what}")]
    LastEntry { what: String },
    #[error("{name} cannot be written to the copy, or read back")]
    Shelf { name: String, source: io::Error },
    #[error("{name} is not kept as it should be")]
    NotKept { name: String, source: io::Error },
    #[error("the place put {name} over itself: a store for copies must know `If-None-Match`")]
    Replaces { name: String },
    #[error("the copy has another {name} than the log: nothing in a copy is written over")]
    Differs { name: String },
    #[error("the copy cannot be verified")]
    Unverifiable(#[from] VerifyError),
    #[error("the copy is not what the log is: {what}")]
    Bad { what: String },
    #[error("{name} is there, and is no record of a copy")]
    Record { name: String, source: serde_json::Error },
}

/// What `<year>.json` says of a copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// [`FORMAT`].
    pub format: String,
    pub origin: String,
    pub shard: u16,
    /// So many entries.
    pub size: u64,
    /// Their root, base64.
    pub root: String,
    /// So many files, this one not counted, of so many bytes.
    pub files: u64,
    pub bytes: u64,
    /// The public keys that the log was verified by.
    pub public_keys: Vec<String>,
    /// Until when the copy is to be kept: seven years after the last entry.
    #[serde(serialize_with = "fte_bus::time::serialize")]
    pub kept_until: Timestamp,
    #[serde(serialize_with = "fte_bus::time::serialize")]
    pub archived_at: Timestamp,
}

/// How often a file that could not be put is put again.
const PUTS_MAX: usize = 3;

/// The `format` of a record.
pub const FORMAT: &str = "fte archive v1";

/// A year that has ended, in a log that was verified.
pub struct Year<'a> {
    pub shard: u16,
    /// All shards of the log, and which of them it is.
    log: &'a [&'a dyn Source],
    at: usize,
    report: &'a Report,
    /// When its last entry was logged.
    last: Timestamp,
}

impl<'a> Year<'a> {
    /// Of a verified log.
    ///
    /// # Errors
    /// Its last entry cannot be read.
    pub fn of(shard: u16, log: &'a [&'a dyn Source], at: usize, report: &'a Report) -> Result<Self, ArchiveError> {
        let source = *log.get(at).ok_or_else(|| ArchiveError::Absent { file: shard.to_string() })?;
        let bad = |what: &dyn std::fmt::Display| ArchiveError::LastEntry { what: what.to_string() };
        let index = report.size.checked_sub(1).ok_or_else(|| bad(&"there is none"))?;
        let path = TilePath::in_tree(TileLevel::Entries, index / 256, report.size).ok_or_else(|| bad(&"there is none"))?;
        let bytes = read(source, &path.to_string())?;
        let bundle = Bundle::parse(&bytes, path.width).map_err(|error| bad(&error))?;
        let leaf = bundle.leaf(usize::try_from(index % 256).unwrap_or(usize::MAX)).ok_or_else(|| bad(&"its bundle ends before"))?;
        let (header, _) = leaf::read(leaf).map_err(|error| bad(&error))?;
        let last = Timestamp::from_millisecond(header.logged_time).map_err(|error| bad(&error))?;
        Ok(Self { shard, log, at, report, last })
    }

    /// Until when it is to be kept.
    pub fn kept_until(&self) -> Timestamp {
        Timestamp::from_millisecond(self.last.as_millisecond().saturating_add(KEPT_MS)).unwrap_or(Timestamp::MAX)
    }

    fn source(&self) -> &'a dyn Source {
        self.log[self.at]
    }

    fn record_name(&self) -> String {
        format!("{}.json", self.shard)
    }

    /// What the copy says of itself, where it is whole already: the checkpoint is that of the log, and both are kept as the place keeps files.
    ///
    /// # Errors
    /// It is a copy of something else, or not kept; it cannot be read.
    pub fn recorded(&self, shelf: &dyn Shelf) -> Result<Option<Record>, ArchiveError> {
        let name = self.record_name();
        let Some(bytes) = shelf.read(&name).map_err(shelf_error(&name))? else { return Ok(None) };
        let record: Record = serde_json::from_slice(&bytes).map_err(|source| ArchiveError::Record { name: name.clone(), source })?;
        if (&*record.origin, record.size, &*record.root) != (&*self.report.origin, self.report.size, &*self.report.root) {
            return Err(ArchiveError::Differs { name });
        }
        check_kept(shelf, &name)?;
        // Anybody could put a record there; that the files are there, and locked, is told by the first of them.
        let checkpoint = format!("{}/log/checkpoint", self.shard);
        let there = shelf.read(&checkpoint).map_err(shelf_error(&checkpoint))?;
        if there.and_then(|note| checkpoint_in(&note)) != checkpoint_in(self.report.checkpoint.as_bytes()) {
            return Err(ArchiveError::Differs { name: checkpoint });
        }
        check_kept(shelf, &checkpoint)?;
        Ok(Some(record))
    }

    /// Copies all files, several at a time. Gives how many there are, and how many bytes they have.
    fn copy(&self, shelf: &dyn Shelf, progress: &(dyn Fn(Step) + Sync)) -> Result<(u64, u64), ArchiveError> {
        let files = Files::of(self.source(), self.report)?;
        let (next, done, bytes) = (AtomicU64::new(1), AtomicU64::new(0), AtomicU64::new(0));
        let (stop, failed) = (AtomicBool::new(false), Mutex::new(None));
        let (shard, all) = (self.shard, files.len());
        let put = |index: u64| -> Result<(), ArchiveError> {
            let Some(file) = files.get(index) else { return Ok(()) };
            let (name, content) = (format!("{shard}/{}", file.name()), file.read(self.source())?);
            put_or_compare(shelf, &name, &content)?;
            if index == 0 {
                // One alone at first, before all go where nothing keeps them, or keeps them apart.
                check_kept(shelf, &name)?;
                if shelf.put_new(&name, &content).map_err(shelf_error(&name))? {
                    return Err(ArchiveError::Replaces { name });
                }
            }
            bytes.fetch_add(content.len() as u64, Ordering::Relaxed);
            progress(Step::Copied { shard, done: done.fetch_add(1, Ordering::Relaxed) + 1, all });
            Ok(())
        };
        put(0)?;
        thread::scope(|scope| {
            for _ in 0..shelf.lanes() {
                scope.spawn(|| {
                    loop {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        if index >= all || stop.load(Ordering::Relaxed) {
                            return;
                        }
                        if let Err(error) = put(index) {
                            stop.store(true, Ordering::Relaxed);
                            failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                        }
                    }
                });
            }
        });
        match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok((all, bytes.into_inner())),
        }
    }

    /// Says that the copy is whole.
    fn record(&self, shelf: &dyn Shelf, record: Record) -> Result<Record, ArchiveError> {
        let name = self.record_name();
        let mut text = serde_json::to_vec_pretty(&record).map_err(|source| ArchiveError::Record { name: name.clone(), source })?;
        text.push(b'\n');
        if !shelf.put_new(&name, &text).map_err(shelf_error(&name))? {
            // Another command was at it, too, and was first.
            return self.recorded(shelf)?.ok_or(ArchiveError::Differs { name });
        }
        check_kept(shelf, &name)?;
        Ok(record)
    }
}

/// Copies years of a log, verifies the log with the copies in place of its years, as it was verified before, and records them. What was copied before is
/// compared.
///
/// # Errors
/// See [`ArchiveError`]; what is copied by then stays, and the next attempt goes on from there.
pub fn archive(
    years: &[(Year<'_>, Box<dyn Shelf>)],
    options: &Options,
    now: Timestamp,
    progress: &(dyn Fn(Step) + Sync),
) -> Result<Vec<Record>, ArchiveError> {
    let copied = years.iter().map(|(year, shelf)| year.copy(&**shelf, progress)).collect::<Result<Vec<_>, _>>()?;
    check_copies(years, options, progress)?;
    let public_keys: Vec<String> = options.policy.logs.iter().map(|log| log.key.to_string()).collect();
    let mut records = Vec::new();
    for ((year, shelf), (files, bytes)) in years.iter().zip(copied) {
        let Report { origin, size, root, .. } = year.report.clone();
        let (format, public_keys, kept_until) = (FORMAT.to_owned(), public_keys.clone(), year.kept_until());
        let record = Record { format, origin, shard: year.shard, size, root, files, bytes, public_keys, kept_until, archived_at: now };
        records.push(year.record(&**shelf, record)?);
    }
    Ok(records)
}

/// Verifies the copies as they stand: the log has to be what it was with them in place of its years. By itself a year would be too little, since it may be
/// signed by a key that only the next year answers for.
fn check_copies(years: &[(Year<'_>, Box<dyn Shelf>)], options: &Options, progress: &(dyn Fn(Step) + Sync)) -> Result<(), ArchiveError> {
    let Some((first, shelf)) = years.first() else { return Ok(()) };
    let copies: Vec<_> = years.iter().map(|(year, shelf)| (year.at, shelf.log(year.shard))).collect();
    let mut log = first.log.to_vec();
    for (at, copy) in &copies {
        log[*at] = &**copy;
    }
    // What is read from afar takes its time, and no processor.
    let threads = options.threads.max(NonZero::new(shelf.lanes()).unwrap_or(NonZero::<usize>::MIN));
    let options = Options { index: None, range: None, threads, ..options.clone() };
    let reports = verify(&log, &options, &mut |progressed| progress(Step::Verified(progressed)))?;
    for (year, _) in years {
        let bad = |what: String| Err(ArchiveError::Bad { what: format!("{}: {what}", year.shard) });
        let Some(report) = reports.get(year.at) else { return bad("there is nothing".to_owned()) };
        if let Some(finding) = report.first_bad() {
            return bad(finding.to_string());
        }
        if (report.size, &report.root, report.entries.good) != (year.report.size, &year.report.root, year.report.size) {
            return bad(format!("it has {} of {} entries", report.entries.good, year.report.size));
        }
    }
    Ok(())
}

/// What has been done so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Files of the copy of a year.
    Copied { shard: u16, done: u64, all: u64 },
    /// Entries that were verified again, those of copies as they were read back.
    Verified(Progress),
}

fn read(source: &dyn Source, name: &str) -> Result<Vec<u8>, ArchiveError> {
    let read = source.read(name).map_err(|source| ArchiveError::Read { file: name.to_owned(), source })?;
    read.ok_or_else(|| ArchiveError::Absent { file: name.to_owned() })
}

fn put_or_compare(shelf: &dyn Shelf, name: &str, bytes: &[u8]) -> Result<(), ArchiveError> {
    let mut tries = 0;
    let is_new = loop {
        match shelf.put_new(name, bytes) {
            Ok(is_new) => break is_new,
            // To put it again is safe: one that arrived after all is compared. Only who puts knows that, so the client itself does not.
            Err(_) if tries < PUTS_MAX => tries += 1,
            Err(error) => return Err(shelf_error(name)(error)),
        }
    };
    if is_new {
        return Ok(());
    }
    match shelf.read(name).map_err(shelf_error(name))? {
        Some(there) if there == bytes => check_kept(shelf, name),
        Some(_) => Err(ArchiveError::Differs { name: name.to_owned() }),
        None => Err(shelf_error(name)(io::Error::other("it is there, and not to be read yet: another command may be at work"))),
    }
}

fn check_kept(shelf: &dyn Shelf, name: &str) -> Result<(), ArchiveError> {
    shelf.check_kept(name).map_err(|source| ArchiveError::NotKept { name: name.to_owned(), source })
}

fn shelf_error(name: &str) -> impl FnOnce(io::Error) -> ArchiveError + use<'_> {
    move |source| ArchiveError::Shelf { name: name.to_owned(), source }
}

/// The checkpoint in a note, whoever signed it.
fn checkpoint_in(note: &[u8]) -> Option<Checkpoint> {
    SignedNote::parse(note).ok().and_then(|note| Checkpoint::parse(note.text()).ok())
}
