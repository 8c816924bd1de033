//! The log on a disk: one writer's state, without threads or timers, so that tests can crash it anywhere.
//!
//! The way of a group: recognise what is known → seal what is personal → number → index, in a transaction → frames, one sync → commit of the index → the
//! callers are answered. [`Core::seal`] follows at leisure: bundles, tiles, checkpoint.
//!
//! **What is synced.** A group: its frames, once. A checkpoint: itself, once. Bundles and tiles are not synced when they are written, since until
//! their segment of the write-ahead log goes they can be made again from it, and are, at every start; before it goes they are synced and
//! checked ([`super::settle`]). Syncing each at once was the other way: a dozen syncs for each checkpoint on a disk that others wait for.
//!
//! After any fault the core is thrown away and opened again from the disk; no sync is ever repeated.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use fte_tlog::{Checkpoint, Frontier, Hash, SignedNote, TILE_WIDTH, TileLevel, TilePath, leaf_hash, push_entry};
use jiff::Timestamp;
use jiff::tz::Offset;

use super::disk::{Disk, Durability, install, make_dir};
use super::fault::Fault;
use super::index::Index;
use super::own::OwnEntry;
use super::sealing::{Sealing, identified, sealed_header};
use super::settle::{Settled, Settling};
use super::signers::{Announced, Keys};
use super::standing::Wait;
use super::state::{Published, State};
use super::view::{Files, Layout, Shared, View};
use super::wal::Wal;
use crate::entry::leaf::{self, Flag, Header, Kind, LEAF_BYTES_MAX, LeafError};
use crate::entry::{Key, NewEntry, Position};
use crate::log::Appended;

/// What the core works with.
#[derive(Clone)]
pub(super) struct Means {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) root: PathBuf,
    pub(super) keys: Keys,
    pub(super) sealing: Arc<dyn Sealing>,
    pub(super) shared: Arc<Shared>,
    pub(super) cache_kib: u32,
    pub(super) segment_bytes: u64,
    /// How long a task that has ended must be quiet before it is closed, in milliseconds.
    pub(super) close_after_ms: i64,
    /// How long a missing number may be late, in milliseconds.
    pub(super) gap_grace_ms: i64,
    /// The shards that may be removed now if the log says that they are retired.
    pub(super) removable: Vec<u16>,
}

impl Means {
    pub(super) fn files(&self) -> Files {
        Files { disk: Arc::clone(&self.disk), layout: Layout { root: self.root.clone() }, shared: Arc::clone(&self.shared) }
    }
}

/// What a group did, told once it is durable.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) new: [u64; Kind::ALL.len()],
    pub(super) known: u64,
    pub(super) conflicts: Vec<(Position, NewEntry)>,
}

/// Most entries of its own that the log adds to a group.
const OWN_MAX: usize = 512;

pub(super) struct Core {
    pub(super) means: Means,
    pub(super) files: Files,
    pub(super) state: State,
    pub(super) index: Index,
    /// The shard that is written; none before the first entry.
    pub(super) shard: Option<Shard>,
    pub(super) last_ms: i64,
    pub(super) closing: Wait,
    pub(super) gaps: Wait,
    /// What the log says of who follows its present key.
    pub(super) announced: Option<Announced>,
}

/// The shard that is written.
pub(super) struct Shard {
    pub(super) year: u16,
    pub(super) wal: Wal,
    /// The tree as far as it is in a checkpoint.
    pub(super) frontier: Frontier,
    pub(super) size: u64,
    /// Bundles and tiles of so many entries are synced and checked.
    pub(super) settled: u64,
    /// Closed segments of the write-ahead log: first index, and the first of the next.
    pub(super) closed: Vec<(u64, u64)>,
    /// The partial tiles of the last checkpoints, the newest last.
    pub(super) partials: Vec<Vec<TilePath>>,
}

/// A group that is being made.
struct Group {
    wall_ms: i64,
    now_ms: i64,
    clock_back: bool,
    year: u16,
    first: u64,
    leaves: Vec<Bytes>,
    filled: Vec<OwnEntry>,
    tally: Tally,
}

impl Group {
    fn next(&self) -> Position {
        Position { shard: self.year, index: self.first + self.leaves.len() as u64 }
    }
}

/// A record of a group, recognised.
#[derive(Clone, Copy)]
enum Verdict {
    Known,
    /// New, or a contradiction: the how manieth of the group's new ones.
    New(usize),
}

/// With how many of an event's contradictions, the newest ones, a further one is compared. One that comes again after so many others is logged again: a publisher
/// that gives all its events one id must not make each cost as much as all before it.
const CONTRADICTIONS_COMPARED: u64 = 16;

/// What became of each record, and the new ones with whether they contradict an earlier.
type Recognised<'a> = (Vec<Verdict>, Vec<(&'a NewEntry, bool)>);

impl Core {
    /// Appends the calls of a group in order, all or none, and says for each of their entries what became of it.
    pub(super) fn append(&mut self, calls: &[Vec<NewEntry>], now_ms: i64) -> Result<(Vec<Vec<Appended>>, Tally), Fault> {
        self.index.begin()?;
        let mut group = self.begin(now_ms)?;
        let calls = &*identified(&*self.means.sealing, calls)?;
        let (verdicts, fresh) = self.recognise(calls)?;
        let entries: Vec<&NewEntry> = fresh.iter().map(|(entry, _)| *entry).collect();
        let sealed = self.means.sealing.seal(&entries)?;
        let mut places = Vec::with_capacity(fresh.len());
        for ((entry, is_conflict), sealed) in fresh.iter().zip(&sealed) {
            let mut header = sealed_header(entry, sealed, group.now_ms);
            if *is_conflict {
                // The number was that of the first.
                (header.kind, header.sequence, header.epoch) = (Kind::Conflict, None, None);
            }
            let at = self.place(&mut group, header, &sealed.payload)?;
            places.push(if *is_conflict { Appended::Conflict(at) } else { Appended::New(at) });
            if *is_conflict {
                group.tally.conflicts.push((at, (*entry).clone()));
            }
        }
        self.add_own(&mut group, false)?;
        let tally = self.write(group)?;
        let mut outcomes = verdicts.into_iter().map(|verdict| match verdict {
            Verdict::Known => Appended::Known,
            Verdict::New(place) => places[place],
        });
        let outcomes = calls.iter().map(|call| outcomes.by_ref().take(call.len()).collect()).collect();
        Ok((outcomes, tally))
    }

    /// Writes what the log itself has to say by now, if anything. Gives whether it did.
    pub(super) fn tick(&mut self, now_ms: i64) -> Result<Tally, Fault> {
        self.index.begin()?;
        let mut group = self.begin(now_ms)?;
        self.add_own(&mut group, true)?;
        self.write(group)
    }

    /// When [`Core::tick`] has something to do, by the clock on the wall; `None` for never.
    pub(super) fn due_ms(&self) -> Result<Option<i64>, Fault> {
        let closing = self.index.closing_since()?.map(|since| self.closing.due(since));
        let gap = self.index.gap_since()?.map(|since| self.gaps.due(since));
        // At once, whatever the clock says.
        let rotation = self.must_announce().then_some(i64::MIN);
        Ok(closing.into_iter().chain(gap).chain(rotation).min())
    }

    /// Notes what the clock says.
    pub(super) fn observe(&mut self, wall_ms: i64) {
        self.closing.observe(wall_ms, self.last_ms);
        self.gaps.observe(wall_ms, self.last_ms);
        self.means.shared.set_clock_behind(self.last_ms.saturating_sub(wall_ms));
    }

    /// Opens a group, in a new shard where a year has begun.
    fn begin(&mut self, now_ms: i64) -> Result<Group, Fault> {
        let clock_back = now_ms < self.last_ms;
        self.observe(now_ms);
        // The clock may go back; the log's time does not.
        self.last_ms = self.last_ms.max(now_ms);
        let year = Timestamp::from_millisecond(self.last_ms).map_or(0, |time| Offset::UTC.to_datetime(time).year());
        let year = u16::try_from(year).unwrap_or(0);
        let year = self.shard.as_ref().map_or(year, |shard| shard.year.max(year));
        if self.shard.as_ref().is_none_or(|shard| year > shard.year) {
            self.finish()?;
            self.shard = Some(self.create_shard(year)?);
        }
        let Some(shard) = &self.shard else { return Err(Fault::Refused("there is no shard".to_owned())) };
        let (year, first) = (shard.year, shard.size);
        let mut group = Group {
            wall_ms: now_ms,
            now_ms: self.last_ms,
            clock_back,
            year,
            first,
            leaves: Vec::new(),
            filled: Vec::new(),
            tally: Tally::default(),
        };
        if first == 0 {
            let previous = self.means.shared.view().published.clone();
            let own = OwnEntry::shard_open(year, previous.as_ref());
            self.place(&mut group, own.header(self.last_ms), &own.payload)?;
        }
        if let Some((own, announced)) = self.announcement(year)? {
            let at = self.place(&mut group, own.header(self.last_ms), &own.payload)?;
            self.announced = Some(announced);
            tracing::info!(entry = %at, "the log names the key that is to sign it next; from the next checkpoint on both sign");
        }
        Ok(group)
    }

    fn create_shard(&self, year: u16) -> Result<Shard, Fault> {
        let layout = &self.files.layout;
        for directory in [layout.log(year), layout.shard(year).join("blobs")] {
            make_dir(&*self.means.disk, &directory).map_err(Fault::io(&directory))?;
        }
        let wal = Wal::create(&*self.means.disk, &layout.wal(year), 0, self.means.segment_bytes)?;
        Ok(Shard { year, wal, frontier: Frontier::default(), size: 0, settled: 0, closed: Vec::new(), partials: Vec::new() })
    }

    /// Seals the shard that ends, for good.
    fn finish(&mut self) -> Result<(), Fault> {
        let Some(size) = self.shard.as_ref().map(|shard| shard.size) else { return Ok(()) };
        self.seal()?;
        // Its segments stay until the next shard has an entry: without one, this shard is the last and is written on.
        if let Some(settling) = self.settling(true) {
            settling.run()?;
        }
        // Its last entries are in a partial bundle on the disk now.
        let mut view = self.means.shared.view();
        view.tail.clear();
        view.tail_from = size;
        Ok(())
    }

    /// Tells what is new among the records, in order, and which of them are contradictions.
    fn recognise<'a>(&mut self, calls: &'a [Vec<NewEntry>]) -> Result<Recognised<'a>, Fault> {
        let mut verdicts = Vec::new();
        let mut fresh: Vec<(&NewEntry, bool)> = Vec::new();
        // What this very group brings: by key.
        let mut here: HashMap<Key, usize> = HashMap::new();
        // How many contradictions of an event there are, with those of the group.
        let mut contradictions: HashMap<Key, u64> = HashMap::new();
        for entry in calls.iter().flatten() {
            let like = |core: &Self, key: &Key| match here.get(key) {
                Some(place) => Ok(Some(is_like(fresh[*place].0, entry))),
                None => core.index.find(key)?.map(|at| core.is_stored_like(at, entry)).transpose(),
            };
            let known = match (like(self, &entry.key)?, &entry.earlier_key) {
                (None, Some(earlier)) => like(self, earlier)?,
                (known, _) => known,
            };
            let new = match (known, entry.source.as_deref()) {
                (None, _) => Some(entry.key),
                (Some(true), _) | (Some(false), None) => None,
                (Some(false), Some(source)) => {
                    let count = match contradictions.get(&entry.key) {
                        Some(count) => *count,
                        None => self.index.contradictions(source, &entry.id)?,
                    };
                    // Another content: one of the newest contradictions that are there, or a new one.
                    let mut is_known = false;
                    for ordinal in (count.saturating_sub(CONTRADICTIONS_COMPARED)..count).rev() {
                        is_known = is_known || like(self, &Key::of_conflict(source, &entry.id, ordinal))? == Some(true);
                    }
                    (!is_known).then(|| {
                        contradictions.insert(entry.key, count + 1);
                        Key::of_conflict(source, &entry.id, count)
                    })
                }
            };
            verdicts.push(new.map_or(Verdict::Known, |key| {
                here.insert(key, fresh.len());
                fresh.push((entry, key != entry.key));
                Verdict::New(fresh.len() - 1)
            }));
        }
        Ok((verdicts, fresh))
    }

    fn is_stored_like(&self, at: Position, entry: &NewEntry) -> Result<bool, Fault> {
        let mut leaves = self.files.leaves();
        let stored = leaves.leaf(at)?.ok_or(Fault::Astray(at))?;
        let (header, held) = leaf::decode(&stored)?;
        let payload = leaves.payload(at.shard, &header, held)?;
        Ok(self.means.sealing.is_same(&header, &payload, entry)?)
    }

    /// Gives an entry its place, in the group and in the index.
    fn place(&mut self, group: &mut Group, mut header: Header<'_>, payload: &[u8]) -> Result<Position, Fault> {
        let at = group.next();
        if group.clock_back {
            header.flags.push(Flag::ClockBack);
        }
        if header.kind != Kind::Conflict
            && self.index.is_behind(header.topic.as_deref().unwrap_or_default(), header.partition, header.offset)
        {
            header.flags.push(Flag::OffsetRegression);
        }
        if let Some(task) = header.task.as_deref() {
            header.task_seq = Some(self.index.next_seq(&task.into())?);
        }
        let encoded = match leaf::encode(&header, payload) {
            Err(LeafError::TooLong(_)) if payload.len() > LEAF_BYTES_MAX / 4 => {
                header.payload_ref = Some(header.payload_sha256);
                let path = self.files.layout.blob(at.shard, &header.payload_sha256);
                let directory = path.parent().map(PathBuf::from).unwrap_or_default();
                make_dir(&*self.means.disk, &directory).map_err(Fault::io(&directory))?;
                install(&*self.means.disk, &self.files.layout.temporary(), &path, payload, Durability::Synced).map_err(Fault::io(&path))?;
                leaf::encode(&header, payload)
            }
            encoded => encoded,
        }?;
        if let Some(missing) = self.index.apply(&header, at)? {
            group.filled.push(OwnEntry::gap_filled(missing));
        }
        group.tally.new[header.kind as usize] += 1;
        group.leaves.push(Bytes::from(encoded));
        Ok(at)
    }

    /// Adds what the log itself has to say. Tasks are closed when they have been quiet for a while; where a group is written anyway, sooner.
    fn add_own(&mut self, group: &mut Group, is_due: bool) -> Result<(), Fault> {
        let mut own = std::mem::take(&mut group.filled);
        let (wall_ms, log_ms) = (group.wall_ms, group.now_ms);
        let mut closing = Vec::new();
        if let Some(since_ms) = self.closing.since(wall_ms, log_ms, if is_due { 1 } else { 10 }) {
            closing = self.index.closing(since_ms, OWN_MAX)?;
            self.closing.took(wall_ms, closing.len() < OWN_MAX);
        }
        for task in closing {
            let entries = self.index.next_seq(&task)?;
            let life = self.index.life(&task)?;
            let tenant = self.tenant_of(&task, group)?;
            own.push(OwnEntry::task_closed(task, tenant, entries, &life));
        }
        let mut gaps = Vec::new();
        if let Some(since_ms) = self.gaps.since(wall_ms, log_ms, 1) {
            gaps = self.index.gaps_due(since_ms, OWN_MAX)?;
            self.gaps.took(wall_ms, gaps.len() < OWN_MAX);
        }
        for missing in gaps {
            tracing::warn!(source = %missing.source, first = missing.first, last = missing.last, "recorded actions have not arrived");
            own.push(OwnEntry::gap(missing));
        }
        for own in own {
            self.place(group, own.header(self.last_ms), &own.payload)?;
        }
        Ok(())
    }

    /// Whose a task is, by its first entry. Of most tasks that is remembered: to read it, a bundle of 256 entries has to be read.
    fn tenant_of(&self, task: &crate::entry::Task, group: &Group) -> Result<String, Fault> {
        if let Some(tenant) = self.index.tenant(task) {
            return Ok(tenant.to_owned());
        }
        let Some(at) = self.index.first_of(task)? else { return Ok(fte_events::TENANT.to_owned()) };
        let leaf = if at.shard == group.year && at.index >= group.first {
            group.leaves.get(usize::try_from(at.index - group.first).unwrap_or(usize::MAX)).cloned()
        } else {
            self.files.leaves().leaf(at)?
        };
        let Some(leaf) = leaf else { return Ok(fte_events::TENANT.to_owned()) };
        let (header, _) = leaf::decode(&leaf)?;
        Ok(header.tenant.as_deref().unwrap_or(fte_events::TENANT).to_owned())
    }

    /// Makes the group durable and shows it.
    fn write(&mut self, group: Group) -> Result<Tally, Fault> {
        let Some(shard) = &mut self.shard else { return Err(Fault::Refused("there is no shard".to_owned())) };
        let last = group.leaves.last().map(|leaf| {
            let index = group.first + group.leaves.len() as u64 - 1;
            (Position { shard: group.year, index }, leaf_hash(leaf).0)
        });
        if last.is_some() {
            shard.wal.append(&group.leaves)?;
        }
        // Whoever took over since the last group has not seen what was synced just now.
        self.state.check_epoch(&*self.means.disk)?;
        shard.size += group.leaves.len() as u64;
        let mut view = self.means.shared.view();
        let ended: Vec<u16> = view.shards.keys().copied().filter(|year| *year < shard.year).collect();
        if view.shards.insert(shard.year, shard.size).is_none() {
            view.tail_from = 0;
            // The new shard holds the last word on them.
            drop_segments(&*self.means.disk, &self.files.layout, &ended)?;
        }
        view.tail.extend(group.leaves);
        drop(view);
        // After the entries are shown: whoever reads the index finds what it names.
        self.index.commit(last)?;
        if shard.wal.is_full() {
            let closed = shard.wal.rotate(&*self.means.disk)?;
            shard.closed.push((closed, shard.size));
        }
        Ok(group.tally)
    }

    /// Whether entries wait for a checkpoint, and their bytes in memory.
    pub(super) fn unsealed(&self) -> bool {
        self.shard.as_ref().is_some_and(|shard| shard.frontier.size() < shard.size)
    }

    /// Puts all entries into bundles and tiles, and signs and publishes a checkpoint of them.
    pub(super) fn seal(&mut self) -> Result<(), Fault> {
        let Some(shard) = &mut self.shard else { return Ok(()) };
        let (disk, files) = (&*self.means.disk, &self.files);
        let temporary = files.layout.temporary();
        let write = |path: PathBuf, bytes: &[u8]| install(disk, &temporary, &path, bytes, Durability::Derived).map_err(Fault::io(&path));
        let (from, leaves) = {
            let view = self.means.shared.view();
            (view.tail_from, view.tail.iter().cloned().collect::<Vec<_>>())
        };
        let sealed = shard.frontier.size();
        let mut full = Vec::new();
        let mut bundle = Vec::new();
        for (index, leaf) in (from..).zip(&leaves) {
            push_entry(&mut bundle, leaf).map_err(|error| Fault::Refused(error.to_string()))?;
            if index >= sealed {
                shard.frontier.append(leaf_hash(leaf), |tile| full.push(tile));
            }
            if (index + 1).is_multiple_of(u64::from(TILE_WIDTH)) {
                write(files.layout.tile(shard.year, TilePath::full(TileLevel::Entries, index / u64::from(TILE_WIDTH))), &bundle)?;
                bundle.clear();
            }
        }
        for tile in full {
            write(files.layout.tile(shard.year, tile.path), &tile.bytes())?;
        }
        let mut partials = Vec::new();
        if let Some(tile) = TilePath::in_tree(TileLevel::Entries, shard.size / u64::from(TILE_WIDTH), shard.size) {
            write(files.layout.tile(shard.year, tile), &bundle)?;
            partials.push(tile);
        }
        for (tile, bytes) in shard.frontier.partial_tiles() {
            write(files.layout.tile(shard.year, tile), &bytes)?;
            partials.push(tile);
        }
        let root: Hash = shard.frontier.root();
        let origin = format!("{}/{}", self.means.keys.present.name(), shard.year);
        let checkpoint = Checkpoint { origin, size: shard.size, root };
        let text = checkpoint.to_string();
        let note = SignedNote::new(text.as_str()).map_err(|error| Fault::Refused(error.to_string()))?;
        let note = self.means.keys.sign(shard.year, &text, self.announced)?.into_iter().fold(note, SignedNote::with).to_string();
        self.state.save(disk, &note)?;
        write(files.layout.log(shard.year).join("checkpoint"), note.as_bytes())?;
        let whole = shard.size / u64::from(TILE_WIDTH) * u64::from(TILE_WIDTH);
        let mut view = self.means.shared.view();
        view.published = Some(Published { shard: shard.year, checkpoint, note: note.into() });
        let settled = usize::try_from(whole.saturating_sub(view.tail_from)).unwrap_or(0).min(view.tail.len());
        view.tail.drain(..settled);
        view.tail_from = whole;
        drop(view);
        shard.collect(disk, files, partials)
    }

    /// The work that lets segments of the write-ahead log go, if there is any. Of a shard that ends, all of it.
    pub(super) fn settling(&self, is_last: bool) -> Option<Settling> {
        let shard = self.shard.as_ref()?;
        let sealed = shard.frontier.size();
        let to = if is_last { sealed } else { sealed / u64::from(TILE_WIDTH) * u64::from(TILE_WIDTH) };
        let is_wanted = is_last || shard.closed.first().is_some_and(|(_, end)| *end <= to);
        is_wanted.then(|| Settling { files: self.files.clone(), shard: shard.year, from: shard.settled, to, is_last })
    }

    /// Lets the segments go whose entries are in bundles that are synced and checked.
    pub(super) fn settled(&mut self, Settled { shard: year, to }: Settled) -> Result<(), Fault> {
        // A year may have ended meanwhile: sizes of one shard say nothing of another.
        let Some(shard) = self.shard.as_mut().filter(|shard| shard.year == year) else { return Ok(()) };
        shard.settled = shard.settled.max(to);
        let directory = self.files.layout.wal(shard.year);
        let done = shard.closed.iter().take_while(|(_, end)| *end <= to).count();
        for (first, _) in shard.closed.drain(..done) {
            Wal::remove(&*self.means.disk, &directory, first)?;
        }
        Ok(())
    }
}

/// Checkpoints whose partial tiles are kept: whoever has read one can still read its tree while the next is published.
const PARTIALS_KEPT: usize = 2;

impl Shard {
    /// Removes partial tiles that nobody needs any more.
    fn collect(&mut self, disk: &dyn Disk, files: &Files, newest: Vec<TilePath>) -> Result<(), Fault> {
        self.partials.push(newest);
        while self.partials.len() > PARTIALS_KEPT {
            for tile in self.partials.remove(0) {
                if self.partials.iter().flatten().any(|kept| *kept == tile) {
                    continue;
                }
                let path = files.layout.tile(self.year, tile);
                match disk.remove(&path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    removed => removed.map_err(Fault::io(&path))?,
                }
            }
        }
        Ok(())
    }
}

/// Removes the write-ahead logs of shards that have ended.
pub(super) fn drop_segments(disk: &dyn Disk, layout: &Layout, shards: &[u16]) -> Result<(), Fault> {
    for shard in shards {
        let directory = layout.wal(*shard);
        for name in disk.list(&directory).map_err(Fault::io(&directory))? {
            let path = directory.join(name);
            disk.remove(&path).map_err(Fault::io(&path))?;
        }
    }
    Ok(())
}

fn is_like(one: &NewEntry, other: &NewEntry) -> bool {
    crate::entry::canonical::is_same_content(&one.bytes, &other.bytes)
}

/// Makes a view of what was recovered, in the place of the one before.
pub(super) fn show(shared: &Shared, view: View) {
    *shared.view() = view;
}
