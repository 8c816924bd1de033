//! P1 to P3: what was acknowledged is there, once and numbered, after a kill, a power cut, a failing call or a full disk at any moment.
//!
//! `FTE_AUDIT_SEED=n` runs one seed alone, the one that a failure has printed; `FTE_AUDIT_SEEDS=n` runs so many.

use std::collections::BTreeMap;

use fte_service::{Env, ProcessEnv};
use fte_tlog::{TileHashes, TilePath, tree_root};

use super::super::sim::SimDisk;
use super::super::view::Shared;
use super::*;
use crate::entry::leaf;

/// How a run of the log ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum End {
    Kill,
    PowerCut,
    Fails,
    Full,
}

struct World {
    disk: SimDisk,
    random: fastrand::Rng,
    /// The index is a real file; after a power cut it is an older one, or none.
    directory: tempfile::TempDir,
    now_ms: i64,
    /// What was acknowledged: the place and the bytes of each identity.
    acknowledged: BTreeMap<usize, Position>,
    /// The last checkpoint that was published: a size and its root.
    published: Option<fte_tlog::Checkpoint>,
    next: usize,
}

impl World {
    fn means(&self) -> Means {
        let mut options = EngineOptions::at(self.directory.path(), test_key());
        options.disk = Arc::new(self.disk.clone());
        // Small, so that segments end often.
        options.segment_bytes = 16 * 1024;
        options.means(&Arc::new(Shared::default()))
    }

    /// Lives until the disk ends it, or for a while.
    fn live(&mut self, end: End) -> Option<Core> {
        let mut core = match Core::open(self.means()) {
            Ok(core) => core,
            Err(_) if self.disk.has_failed() => return None,
            Err(fault) => panic!("it does not start again before {end:?}: {}", fte_service::chain(&fault)),
        };
        self.check_calmly(&core, end);
        for _ in 0..self.random.usize(1..60) {
            self.now_ms += self.random.i64(-5..100);
            if self.random.u32(..200) == 0 {
                self.now_ms += 366 * 24 * 3600 * 1000;
            }
            let step = self.random.u32(..100);
            let done = if step < 70 {
                self.append(&mut core)
            } else if step < 90 {
                self.seal(&mut core)
            } else {
                settle(&mut core)
            };
            if let Err(fault) = done {
                assert!(self.disk.has_failed(), "the disk is well: {}", fte_service::chain(&fault));
                return None;
            }
        }
        Some(core)
    }

    /// Checks everything, on a disk that does not fail meanwhile.
    fn check_calmly(&self, core: &Core, end: End) {
        let calm = self.disk.calm();
        self.check(core, end);
        self.disk.resume(calm);
    }

    fn append(&mut self, core: &mut Core) -> Result<(), Fault> {
        let mut numbers: Vec<usize> = (self.next..self.next + self.random.usize(1..40)).collect();
        // Some come again.
        numbers.extend((0..self.random.usize(..5)).map(|_| self.random.usize(..self.next.max(1) + 10)));
        self.random.shuffle(&mut numbers);
        let entries: Vec<_> = numbers.iter().map(|number| event(&numbered(*number))).collect();
        let (outcomes, _) = core.append(&[entries], self.now_ms)?;
        self.next = numbers.iter().map(|number| number + 1).max().unwrap_or(0).max(self.next);
        for (number, outcome) in numbers.into_iter().zip(outcomes.concat()) {
            match outcome {
                Appended::New(at) => {
                    let before = self.acknowledged.insert(number, at);
                    assert_eq!(before, None, "{number} took effect twice");
                }
                // It may be known without having been acknowledged: then it is now, and must stay.
                Appended::Known => {
                    if let std::collections::btree_map::Entry::Vacant(vacant) = self.acknowledged.entry(number) {
                        let found = core.index.find(&event(&numbered(number)).key).unwrap().unwrap();
                        vacant.insert(found);
                    }
                }
                Appended::Conflict(at) => panic!("{number} contradicts itself at {at}"),
            }
        }
        Ok(())
    }

    fn seal(&mut self, core: &mut Core) -> Result<(), Fault> {
        if core.unsealed() {
            core.seal()?;
            self.published = core.means.shared.view().published.clone().map(|published| published.checkpoint);
        }
        Ok(())
    }

    /// Everything that was acknowledged is there, at its place.
    fn check(&self, core: &Core, end: End) {
        let found = found_in(core, self.published.as_ref(), &format!("{end:?}"));
        for (number, at) in &self.acknowledged {
            let id = numbered(*number)["id"].as_str().unwrap().to_owned();
            assert_eq!(found.get(&id), Some(at), "{number} was acknowledged, and after {end:?} it is not where it was");
        }
    }
}

/// Each event that is there, by its id, once; the tree is that of the entries, and extends what was published last.
pub(super) fn found_in(core: &Core, published: Option<&fte_tlog::Checkpoint>, when: &str) -> BTreeMap<String, Position> {
    let view = core.means.shared.view();
    let shards: Vec<(u16, u64)> = view.shards.iter().map(|(shard, size)| (*shard, *size)).collect();
    let shown = view.published.clone();
    drop(view);
    let mut leaves = core.files.leaves();
    let mut found: BTreeMap<String, Position> = BTreeMap::new();
    let mut last_ms = 0;
    for (shard, size) in &shards {
        let mut tree = fte_tlog::Frontier::default();
        for index in 0..*size {
            let at = Position { shard: *shard, index };
            let leaf = leaves.leaf(at).unwrap().unwrap_or_else(|| panic!("{at} is missing after {when}"));
            let (header, payload) = leaf::decode(&leaf).unwrap();
            match header.payload_ref {
                Some(_) => drop(leaves.payload(*shard, &header, payload).unwrap()),
                None => leaf::check_payload(&header, payload).unwrap(),
            }
            assert!(header.logged_time >= last_ms);
            last_ms = header.logged_time;
            assert_eq!(header.kind == Kind::ShardOpen, index == 0, "{at}");
            if let Some(id) = header.id.as_deref().filter(|_| header.kind == Kind::Event) {
                assert_eq!(found.insert(id.to_owned(), at), None, "{id} is there twice after {when}");
            }
            tree.append(fte_tlog::leaf_hash(&leaf), |_| {});
            if let Some(checkpoint) = published.filter(|checkpoint| checkpoint.origin.ends_with(&format!("/{shard}"))) {
                assert!(*size >= checkpoint.size, "{size} entries, and {} were published", checkpoint.size);
                if index + 1 == checkpoint.size {
                    assert_eq!(tree.root(), checkpoint.root, "the tree is another one");
                }
            }
        }
        // What is published now is the tree, and its tiles are there.
        let checkpoint = core.files.checkpoint(Some(*shard)).unwrap().unwrap().checkpoint;
        assert_eq!((checkpoint.size, checkpoint.root), (*size, tree.root()), "shard {shard} of {shown:?} after {when}");
        let read = |tile: TilePath| core.disk_read(*shard, tile);
        assert_eq!(tree_root(&mut TileHashes::new(*size, read), *size).unwrap(), tree.root());
    }
    found
}

impl Core {
    fn disk_read(&self, shard: u16, tile: TilePath) -> std::io::Result<Vec<u8>> {
        self.means.disk.read(&self.files.layout.tile(shard, tile))
    }
}

pub(super) fn settle(core: &mut Core) -> Result<(), Fault> {
    if let Some(settling) = core.settling(false) {
        let settled = settling.run()?;
        core.settled(settled)?;
    }
    Ok(())
}

fn run(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut world = World {
        disk: SimDisk::new(seed),
        directory: tempfile::tempdir().unwrap(),
        now_ms: JULY_2026,
        acknowledged: BTreeMap::new(),
        published: None,
        next: 0,
        random: random.fork(),
    };
    for _ in 0..random.usize(2..6) {
        let end = [End::Kill, End::PowerCut, End::PowerCut, End::Fails, End::Full][random.usize(..5)];
        match end {
            End::Kill | End::PowerCut => world.disk.cut_in(random.u64(..400)),
            End::Fails => world.disk.fail_in(random.u64(..400)),
            End::Full => world.disk.set_room(Some(random.u64(..400_000))),
        }
        let core = world.live(end);
        // Without a last checkpoint.
        drop(core);
        match end {
            End::PowerCut => {
                world.disk.power_cut();
                if random.bool() {
                    super::super::recover::remove_index(&world.directory.path().join("index.sqlite")).unwrap();
                }
            }
            End::Kill | End::Fails => world.disk.killed(),
            End::Full => world.disk.set_room(None),
        }
    }
    let mut core = Core::open(world.means()).unwrap_or_else(|fault| panic!("it does not start again: {}", fte_service::chain(&fault)));
    world.check(&core, End::Kill);
    // And it goes on: a replay from the first offset adds nothing.
    let all: Vec<_> = world.acknowledged.keys().map(|number| event(&numbered(*number))).collect();
    let (outcomes, _) = core.append(&[all], world.now_ms).unwrap();
    assert!(outcomes.concat().iter().all(|outcome| *outcome == Appended::Known));
}

fn seeds(from: u64, count: u64) {
    // A failing seed is run alone, and many are run at leisure.
    let number = |name: &str| ProcessEnv.get(name).and_then(|number| number.parse::<u64>().ok());
    let (only, count) = (number("FTE_AUDIT_SEED"), number("FTE_AUDIT_SEEDS").unwrap_or(count));
    for seed in only.map_or(from..from + count, |seed| seed..seed + 1) {
        let ran = std::panic::catch_unwind(|| run(seed));
        assert!(ran.is_ok(), "seed {seed} fails: run it alone with FTE_AUDIT_SEED={seed}");
    }
}

#[test]
fn p01_p02_p03_acknowledged_entries_survive_kills_power_cuts_failing_calls_and_full_disks() {
    seeds(0, 120);
}

#[test]
fn p01_p02_p03_the_same_with_other_seeds() {
    seeds(1_000_000, 120);
}
