//! P1 to P3 at every call that the writer makes of its disk, one after the other: there the process is killed, the power goes, that call fails, or the disk is
//! full from then on.
//!
//! One history has all that the writer does: it opens, appends what is new and what comes again, writes a blob, ends segments, seals, settles bundles, says what
//! it has to say by itself, goes over into another year, announces its next key, signs with both and then with that one alone. `crash.rs` makes up others, and
//! ends them at random.

use std::collections::BTreeMap;
use std::ops::Range;

use fte_service::{Env, ProcessEnv};
use fte_tlog::Policy;

use super::super::sim::SimDisk;
use super::super::view::Shared;
use super::crash::{End, found_in, settle};
use super::rotation::{Keys, OnDisk, key, signers_of};
use super::*;
use crate::verify::{self, Source, verify};

const YEAR: i64 = 366 * 24 * 3600 * 1000;
/// The history, life by life; each begins with a start of what the one before has left.
const LIVES: usize = 4;

/// What comes of so many ends is verified of one.
const VERIFIED_EVERY: u64 = 16;

/// The log, and what it owes.
struct World {
    directory: tempfile::TempDir,
    disk: SimDisk,
    now_ms: i64,
    acknowledged: BTreeMap<String, Position>,
    published: Option<fte_tlog::Checkpoint>,
}

/// How everything stood when a life began.
struct Stand {
    disk: SimDisk,
    /// The index is a real file.
    index: Option<Vec<u8>>,
    acknowledged: BTreeMap<String, Position>,
    published: Option<fte_tlog::Checkpoint>,
}

fn keys(life: usize) -> Keys {
    match life {
        0 | 1 => Keys::of(1, None, &[]),
        2 => Keys::of(1, Some(2), &[]),
        _ => Keys::of(2, None, &[1]),
    }
}

/// Of a task that begins and ends, so that the log has to say that it is closed; and a number of a publisher that is missing, and comes.
fn others(number: u64) -> NewEntry {
    let task = TaskId::mint(jiff::Timestamp::from_millisecond(JULY_2026).unwrap(), 1 << 70);
    let action = |number: u64| json!({"type": "fte.action.recorded", "sequence": number.to_string(), "fteepoch": "e"});
    let mut body = match number {
        0 => json!({"type": "fte.task.requested", "subject": task}),
        1 => json!({"type": "fte.result.completed", "subject": task}),
        number => action(number),
    };
    body["id"] = format!("other-{number}").into();
    body["source"] = "/fte/runner".into();
    record(if number < 2 { TOPIC } else { fte_events::audit::TOPIC }, body.to_string())
}

fn numbers(range: Range<usize>) -> Vec<NewEntry> {
    range.map(|number| event(&numbered(number))).collect()
}

impl World {
    fn new() -> Self {
        let (directory, disk) = (tempfile::tempdir().unwrap(), SimDisk::new(11));
        Self { directory, disk, now_ms: JULY_2026, acknowledged: BTreeMap::new(), published: None }
    }

    fn means(&self, life: usize) -> Means {
        let options = EngineOptions {
            disk: Arc::new(self.disk.clone()),
            // Small, so that segments end often.
            segment_bytes: 16 * 1024,
            close_after: Duration::ZERO,
            gap_grace: Duration::from_millis(1),
            ..EngineOptions::at(self.directory.path(), test_key())
        };
        keys(life).options(options).means(&Arc::new(Shared::default()))
    }

    fn index_path(&self) -> std::path::PathBuf {
        self.directory.path().join("index.sqlite")
    }

    fn stand(&self) -> Stand {
        let (acknowledged, published) = (self.acknowledged.clone(), self.published.clone());
        Stand { disk: self.disk.copied(), index: std::fs::read(self.index_path()).ok(), acknowledged, published }
    }

    fn put_index(&self, index: Option<&[u8]>) {
        super::super::recover::remove_index(&self.index_path()).unwrap();
        if let Some(index) = index {
            std::fs::write(self.index_path(), index).unwrap();
        }
    }

    fn put_back(&mut self, stand: &Stand) {
        self.put_index(stand.index.as_deref());
        self.disk = stand.disk.copied();
        (self.acknowledged, self.published) = (stand.acknowledged.clone(), stand.published.clone());
    }

    /// One life, to its end or to that of its disk. Once more is as if it had been once.
    fn live(&mut self, life: usize) -> Result<(), Fault> {
        let began_ms = JULY_2026 + i64::try_from(life).unwrap() * 1000;
        self.now_ms = if life == 0 { began_ms } else { began_ms + YEAR };
        let mut core = Core::open(self.means(life))?;
        match life {
            0 => {
                self.append(&mut core, numbers(0..150))?;
                self.append(&mut core, (0..4).filter(|number| *number != 2).map(others).collect())?;
                self.seal(&mut core)?;
                let mut large = numbered(1000);
                large["data"]["text"] = "x".repeat(70_000).into();
                // Some of them come again.
                self.append(&mut core, [numbers(140..280), vec![event(&large)]].concat())?;
                self.seal(&mut core)?;
                settle(&mut core)?;
                self.now_ms += 100;
                core.tick(self.now_ms)?;
                // Left as it was acknowledged.
                self.append(&mut core, vec![others(2)])
            }
            1 => {
                self.append(&mut core, numbers(280..300))?;
                self.seal(&mut core)
            }
            _ => {
                core.tick(self.now_ms)?;
                self.seal(&mut core)?;
                let from = 280 + life * 10;
                self.append(&mut core, numbers(from..from + 20))?;
                self.seal(&mut core)
            }
        }
    }

    fn append(&mut self, core: &mut Core, entries: Vec<NewEntry>) -> Result<(), Fault> {
        self.now_ms += 1;
        let (outcomes, _) = core.append(std::slice::from_ref(&entries), self.now_ms)?;
        for (entry, outcome) in entries.iter().zip(outcomes.concat()) {
            let at = match outcome {
                Appended::New(at) => at,
                Appended::Known => core.index.find(&entry.key).unwrap().unwrap(),
                Appended::Conflict(at) => panic!("{} contradicts itself at {at}", entry.id),
            };
            let before = self.acknowledged.insert(entry.id.to_string(), at);
            assert!(before.is_none_or(|before| before == at), "{} was at {before:?}, and is at {at}", entry.id);
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

    /// It starts, and owes nobody anything: each entry that was acknowledged is where it was, in a tree that continues the one that was published.
    fn check(&self, life: usize, when: &str) {
        let core = Core::open(self.means(life)).unwrap_or_else(|fault| panic!("{when}: it does not start: {}", fte_service::chain(&fault)));
        let found = found_in(&core, self.published.as_ref(), when);
        for (id, at) in &self.acknowledged {
            assert_eq!(found.get(id), Some(at), "{id} was acknowledged, and is not where it was after {when}");
        }
    }

    /// Whoever knows the keys finds nothing wrong with the files.
    fn verify(&self, life: usize, when: &str) {
        let core = Core::open(self.means(life)).unwrap();
        let years: Vec<u16> = core.means.shared.view().shards.keys().copied().collect();
        let sources: Vec<_> = years.iter().map(|year| OnDisk { disk: &self.disk, log: core.files.layout.log(*year) }).collect();
        let sources: Vec<&dyn Source> = sources.iter().map(|source| source as &dyn Source).collect();
        let policy = Policy::of_logs((1..3).map(|seed| key(seed).verifier()));
        for report in verify(&sources, &verify::Options::new(policy), &mut |_| {}).unwrap() {
            assert_eq!(report.findings, [], "{when}: {report}");
        }
    }

    /// A life that the disk ends at this call, and the one after it.
    fn end_at(&mut self, stand: &Stand, life: usize, end: End, call: u64) {
        let when = format!("{end:?} at call {call} of life {life}");
        self.put_back(stand);
        match end {
            End::Kill | End::PowerCut => self.disk.cut_in(call),
            End::Fails => self.disk.fail_in(call),
            End::Full => self.disk.full_in(call),
        }
        let lived = self.live(life);
        let is_well = !self.disk.has_failed();
        assert!(is_well == lived.is_ok() || end == End::Fails && lived.is_ok(), "{when}: {lived:?}");
        // Who ended it may do so again, while it starts.
        let restart = |this: &Self| match Core::open(this.means(life)) {
            Err(fault) => assert!(this.disk.has_failed(), "{when}: the disk is well: {}", fte_service::chain(&fault)),
            Ok(core) => drop(core),
        };
        match end {
            End::Kill => {
                self.disk.killed();
                self.disk.cut_in(call % 17);
                restart(self);
                self.disk.killed();
            }
            End::PowerCut => {
                self.disk.power_cut();
                // The index is a derived thing: it may be as it was, an older one, or none.
                match call % 3 {
                    0 => {}
                    1 => self.put_index(None),
                    _ => self.put_index(stand.index.as_deref()),
                }
                self.disk.cut_in(call % 17);
                restart(self);
                self.disk.power_cut();
            }
            End::Fails => {
                self.disk.killed();
                self.disk.fail_in(call % 17);
                restart(self);
                self.disk.killed();
            }
            // There is no room for a start either.
            End::Full => {
                restart(self);
                self.disk.set_room(None);
            }
        }
        self.check(life, &when);
        // It goes on as if nothing had been.
        self.live(life).unwrap_or_else(|fault| panic!("{when}: it does not go on: {}", fte_service::chain(&fault)));
        // What costs more than all the rest is done for some of them, and for all at leisure: FTE_AUDIT_SEEDS is how many runs of the other tests are made.
        if call.is_multiple_of(VERIFIED_EVERY) || ProcessEnv.get("FTE_AUDIT_SEEDS").is_some() {
            self.check(life, &when);
            self.verify(life, &when);
        }
    }
}

/// The history, ended so at each of its calls.
fn every_call(end: End) {
    let mut world = World::new();
    let mut calls_made = 0;
    for life in 0..LIVES {
        let stand = world.stand();
        world.live(life).unwrap();
        let calls = world.disk.calls() - stand.disk.calls();
        world.verify(life, "a life without trouble");
        let after = world.stand();
        for call in 0..calls {
            world.end_at(&stand, life, end, call);
        }
        world.put_back(&after);
        calls_made += calls;
    }
    // It was what it says that it is.
    let core = Core::open(world.means(LIVES - 1)).unwrap();
    let sizes: Vec<u64> = core.means.shared.view().shards.values().copied().collect();
    assert!(calls_made > 150 && sizes.len() == 2 && sizes[0] > 256, "{calls_made} calls, {sizes:?}");
    let published = core.means.shared.view().published.clone().unwrap();
    assert_eq!(signers_of(&published), [2]);
    for kind in [Kind::TaskClosed, Kind::Gap, Kind::GapFilled, Kind::KeyRotated] {
        assert_eq!(of_kind(&core, kind), 1, "{kind:?}");
    }
}

fn of_kind(core: &Core, kind: Kind) -> usize {
    let shards = core.means.shared.view().shards.clone();
    let mut leaves = core.files.leaves();
    let places = shards.into_iter().flat_map(|(shard, size)| (0..size).map(move |index| Position { shard, index }));
    places.filter(|at| crate::entry::leaf::decode(&leaves.leaf(*at).unwrap().unwrap()).unwrap().0.kind == kind).count()
}

#[test]
fn p01_p02_p03_killed_at_any_call_the_log_keeps_what_it_acknowledged() {
    every_call(End::Kill);
}

#[test]
fn p01_p02_p03_without_power_at_any_call_the_log_keeps_what_it_acknowledged() {
    every_call(End::PowerCut);
}

#[test]
fn p01_p02_p03_whichever_call_fails_the_log_keeps_what_it_acknowledged() {
    every_call(End::Fails);
}

#[test]
fn p01_p02_p03_full_at_any_call_the_log_keeps_what_it_acknowledged() {
    every_call(End::Full);
}
