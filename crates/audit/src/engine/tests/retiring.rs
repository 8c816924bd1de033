//! P14: a shard is retired whole or is there whole, whatever ends the process in between; and it is on record before the first of its files is gone.

use fte_tlog::Policy;

use super::super::sim::SimDisk;
use super::super::view::Layout;
use super::rotation::OnDisk;
use super::*;
use crate::retention::{Due, KEPT_MS, records};
use crate::verify::{self, Report, Source, verify};

const YEAR: i64 = 366 * 24 * 3600 * 1000;

/// How a run ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Kill,
    PowerCut,
    Fails,
}

/// A log of three years, the first of which have had their time.
struct World {
    directory: tempfile::TempDir,
    disk: SimDisk,
    /// The index is a real file: this is how it was.
    index: Vec<u8>,
    now_ms: i64,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut this = Self { directory, disk: SimDisk::new(7), index: Vec::new(), now_ms: JULY_2026 };
        for (year, from) in [(0, 0), (1, 400), (7, 800)] {
            this.now_ms = JULY_2026 + year * YEAR;
            let mut core = Core::open(this.options(&this.disk).means(&Arc::default())).unwrap();
            // More than a bundle, so that there are full tiles; and a blob.
            for from in (from..from + 300).step_by(100) {
                core.append(&[(from..from + 100).map(|number| event(&numbered(number))).collect()], this.now_ms).unwrap();
                core.seal().unwrap();
            }
            let mut large = numbered(from + 300);
            large["data"]["text"] = "x".repeat(70_000).into();
            core.append(&[vec![event(&large)]], this.now_ms).unwrap();
            core.seal().unwrap();
        }
        this.now_ms = JULY_2026 + YEAR + KEPT_MS;
        this.index = std::fs::read(this.index_path()).unwrap();
        this
    }

    fn index_path(&self) -> std::path::PathBuf {
        self.directory.path().join("index.sqlite")
    }

    fn options(&self, disk: &SimDisk) -> EngineOptions {
        let now_ms = self.now_ms;
        let clock: Clock = Arc::new(move || now_ms);
        EngineOptions { disk: Arc::new(disk.clone()), clock, ..EngineOptions::at(self.directory.path(), test_key()) }
    }

    /// The disk as it was at the beginning.
    fn again(&self) -> SimDisk {
        super::super::recover::remove_index(&self.index_path()).unwrap();
        std::fs::write(self.index_path(), &self.index).unwrap();
        self.disk.copied()
    }

    /// Retires the first two years, as the command does.
    fn retire(&self, disk: &SimDisk) -> Result<(), LogError> {
        let mut retirer = Retirer::open(EngineOptions { removable: vec![2026, 2027], ..self.options(disk) })?;
        let standing = retirer.standing();
        let mut due = Vec::new();
        for shard in standing.shards().0.into_iter().filter(|shard| *shard < 2033) {
            let ended = standing.ended(shard)?;
            let (entries, checkpoint) = (ended.published.checkpoint.size, ended.published.note.to_string());
            due.push(Due { shard, entries, last_ms: ended.last_ms, checkpoint });
        }
        if due.is_empty() { Ok(()) } else { retirer.retire([2026, 2027], records(&due, &standing.final_notes()?, "ada", self.now_ms)) }
    }

    fn reports(&self, disk: &SimDisk) -> Vec<Report> {
        let layout = Layout { root: self.directory.path().to_owned() };
        let mut years: Vec<u16> = disk.list(&layout.root).unwrap().iter().filter_map(|name| name.parse().ok()).collect();
        years.retain(|year| disk.read(&layout.log(*year).join("checkpoint")).is_ok());
        let sources: Vec<_> = years.iter().map(|year| OnDisk { disk, log: layout.log(*year) }).collect();
        let sources: Vec<&dyn Source> = sources.iter().map(|source| source as &dyn Source).collect();
        let options = verify::Options { is_whole: true, ..verify::Options::new(Policy::of_logs([test_key().verifier()])) };
        verify(&sources, &options, &mut |_| {}).unwrap()
    }

    /// Everything that is left verifies. Gives which years are retired.
    fn check(&self, disk: &SimDisk, when: &str) -> Vec<bool> {
        let reports = self.reports(disk);
        for report in &reports {
            assert_eq!(report.findings, [], "{when}: {report}");
        }
        let retired: Vec<bool> = reports.iter().map(|report| report.retired.is_some()).collect();
        assert!(!retired.last().unwrap() && retired.is_sorted_by(|a, b| a >= b), "{when}: {retired:?}");
        for report in reports.iter().filter(|report| report.retired.is_none()) {
            assert_eq!(report.entries.good, report.size, "{when}");
        }
        retired
    }

    /// Only the final checkpoint of a retired year is left.
    fn left_of(&self, disk: &SimDisk, year: u16) -> Vec<String> {
        let layout = Layout { root: self.directory.path().to_owned() };
        let mut left = disk.list(&layout.shard(year)).unwrap();
        left.extend(disk.list(&layout.log(year)).unwrap());
        left
    }
}

fn every_call(end: End, step: usize) {
    let world = World::new();
    let (mut was_whole, mut was_retired) = (false, false);
    // All of them at leisure: FTE_AUDIT_SEEDS is how many runs of the other tests are made.
    let is_leisurely = fte_service::Env::get(&fte_service::ProcessEnv, "FTE_AUDIT_SEEDS").is_some();
    for calls in (0..).step_by(if is_leisurely { 1 } else { step }) {
        let when = format!("{end:?} after {calls} calls");
        let disk = world.again();
        if end == End::Fails {
            disk.fail_in(calls)
        } else {
            disk.cut_in(calls)
        }
        let done = world.retire(&disk);
        let is_over = done.is_ok() && !disk.has_failed();
        if done.is_err() {
            assert!(disk.has_failed(), "{when}: the disk is well: {done:?}");
        }
        if end == End::PowerCut {
            disk.power_cut()
        } else {
            disk.killed()
        }
        if end == End::Kill {
            // Whatever stands there verifies as it is.
            world.check(&disk, &when);
        }
        // The service starts, and may be ended as well.
        disk.cut_in(calls % 17);
        let _ = Core::open(world.options(&disk).means(&Arc::default()));
        if end == End::PowerCut {
            disk.power_cut()
        } else {
            disk.killed()
        }
        let core = Core::open(world.options(&disk).means(&Arc::default()));
        let core = core.unwrap_or_else(|fault| panic!("{when}: it does not start: {}", fte_service::chain(&fault)));
        let view: Vec<u16> = core.means.shared.view().retired.keys().copied().collect();
        drop(core);
        let retired = world.check(&disk, &when);
        assert_eq!(view.len(), retired.iter().filter(|retired| **retired).count(), "{when}");
        was_whole |= !retired[0];
        was_retired |= retired[0];
        // The command again: now it is retired in any case, and what is left is left alone.
        world.retire(&disk).unwrap();
        assert_eq!(world.check(&disk, &when)[..2], [true, true], "{when}");
        for year in [2026, 2027] {
            assert_eq!(world.left_of(&disk, year), ["log", "retired", "checkpoint"], "{when}");
        }
        world.retire(&disk).unwrap();
        if is_over {
            assert!(was_whole && was_retired && calls > 40, "{calls}");
            return;
        }
    }
}

#[test]
fn p14_a_retirement_that_is_killed_at_any_call_is_carried_on_or_never_was() {
    every_call(End::Kill, 4);
}

#[test]
fn p14_a_retirement_in_which_any_call_fails_is_carried_on_or_never_was() {
    every_call(End::Fails, 7);
}

#[test]
fn p14_a_retirement_in_which_the_power_goes_is_carried_on_or_never_was() {
    every_call(End::PowerCut, 7);
}

#[test]
fn p14_a_shard_that_is_not_whole_and_not_on_record_is_refused_and_named() {
    let world = World::new();
    let layout = Layout { root: world.directory.path().to_owned() };
    let refused = |disk: &SimDisk| fte_service::chain(&Core::open(world.options(disk).means(&Arc::default())).err().unwrap());
    let entries = |disk: &SimDisk, year: u16| {
        super::super::retiring::clear_for_tests(disk, &layout, year);
    };
    // Somebody removed a year, and says that it was retired.
    for is_said in [true, false] {
        let disk = world.again();
        if is_said {
            disk.create(&layout.retired(2026)).unwrap().write_at(0, b"{}\n").unwrap();
        }
        entries(&disk, 2026);
        assert!(refused(&disk).contains("shard 2026 has ended and is not whole, and no entry of the log says that it was retired"));
        let reports = world.reports(&disk);
        assert!(reports[0].is_incomplete() && reports[0].findings[0].what.contains("no entry that was read says that it was retired"));
        assert_eq!(reports[1].findings, []);
    }
    let disk = world.again();
    entries(&disk, 2027);
    assert!(refused(&disk).contains("shard 2027 is not whole, and the older shard 2026 is"));
    // Another final checkpoint in the place of the one that was retired.
    let disk = world.again();
    world.retire(&disk).unwrap();
    let path = layout.log(2026).join("checkpoint");
    let note = disk.read(&layout.log(2027).join("checkpoint")).unwrap();
    disk.create(&path).unwrap().write_at(0, &note).unwrap();
    assert!(refused(&disk).contains("is not the final checkpoint of the shard that was retired"));
}

/// Removes a shard with its directory, as who has the disk can.
fn take_away(disk: &SimDisk, layout: &Layout, year: u16) {
    super::super::retiring::clear_for_tests(disk, layout, year);
    for path in [layout.log(year).join("checkpoint"), layout.retired(year)] {
        let _ = disk.remove(&path);
    }
    disk.remove_dir(&layout.log(year)).unwrap();
    disk.remove_dir(&layout.shard(year)).unwrap();
}

#[test]
fn p14_a_year_of_which_nothing_is_left_is_refused_whether_it_was_retired_or_not() {
    let world = World::new();
    let layout = Layout { root: world.directory.path().to_owned() };
    let refused = |disk: &SimDisk| fte_service::chain(&Core::open(world.options(disk).means(&Arc::default())).err().unwrap());
    let disk = world.again();
    take_away(&disk, &layout, 2026);
    assert!(refused(&disk).contains("shard 2027 continues shard 2026, of which not even the final checkpoint is there"));
    let disk = world.again();
    world.retire(&disk).unwrap();
    let before = disk.copied();
    take_away(&disk, &layout, 2026);
    assert!(refused(&disk).contains("2026/log/checkpoint is not there, which is kept of a retired shard for ever"));
    take_away(&before, &layout, 2027);
    assert!(refused(&before).contains("shard 2033 continues shard 2027, of which not even the final checkpoint is there"));
}

/// A record of the retirement of 2026 that the command did not make, in a log that goes on for another year.
fn recorded(world: &mut World, disk: &SimDisk) {
    let standing = Retirer::open(world.options(disk)).unwrap().standing();
    let ended = standing.ended(2026).unwrap();
    let (entries, checkpoint) = (ended.published.checkpoint.size, ended.published.note.to_string());
    let due = Due { shard: 2026, entries, last_ms: ended.last_ms, checkpoint };
    let mut core = Core::open(world.options(disk).means(&Arc::default())).unwrap();
    core.append(&[records(&[due], &[], "mallory", world.now_ms)], world.now_ms).unwrap();
    core.seal().unwrap();
    world.now_ms += YEAR;
    core.append(&[vec![event(&numbered(2000))]], world.now_ms).unwrap();
    core.seal().unwrap();
}

#[test]
fn p14_what_is_on_record_is_removed_by_the_command_alone() {
    let mut world = World::new();
    let disk = world.again();
    recorded(&mut world, &disk);
    // Starts of the service leave it: whoever can write files can put an entry where the next start signs it.
    for _ in 0..2 {
        let core = Core::open(world.options(&disk).means(&Arc::default())).unwrap();
        assert!(core.means.shared.view().shards.contains_key(&2026));
    }
    assert_eq!(world.check(&disk, "on record"), [false; 5]);
    // So does a command that has not found that it may go.
    drop(Retirer::open(EngineOptions { removable: vec![2027], ..world.options(&disk) }).unwrap());
    assert_eq!(world.check(&disk, "on record"), [false; 5]);
    drop(Retirer::open(EngineOptions { removable: vec![2026], ..world.options(&disk) }).unwrap());
    assert_eq!(world.check(&disk, "removed"), [true, false, false, false, false]);
}

#[test]
fn p14_a_record_that_is_not_the_one_that_was_signed_removes_nothing() {
    let mut world = World::new();
    let disk = world.again();
    recorded(&mut world, &disk);
    let layout = Layout { root: world.directory.path().to_owned() };
    let size = Core::open(world.options(&disk).means(&Arc::default())).unwrap().means.shared.view().shards[&2034];
    let path = fte_tlog::TilePath::in_tree(fte_tlog::TileLevel::Entries, (size - 1) / 256, size).unwrap();
    let file = layout.log(2034).join(path.to_string());
    let bundle = disk.read(&file).unwrap();
    let mut forged = Vec::new();
    let mut is_there = false;
    for leaf in fte_tlog::Bundle::parse(&bundle, path.width).unwrap().leaves() {
        let (header, payload) = crate::entry::leaf::decode(leaf).unwrap();
        if header.kind != Kind::ShardRetired {
            fte_tlog::push_entry(&mut forged, leaf).unwrap();
            continue;
        }
        is_there = true;
        let payload = String::from_utf8(payload.to_vec()).unwrap().replace("\"kept_days\":2557", "\"kept_days\":2558");
        let fresh = crate::entry::leaf::Header::new(Kind::ShardRetired, header.logged_time, payload.as_bytes());
        let header = crate::entry::leaf::Header { payload_len: fresh.payload_len, payload_sha256: fresh.payload_sha256, ..header };
        fte_tlog::push_entry(&mut forged, &crate::entry::leaf::encode(&header, payload.as_bytes()).unwrap()).unwrap();
    }
    assert!(is_there && forged != bundle);
    disk.create(&file).unwrap().write_at(0, &forged).unwrap();
    let error = Retirer::open(EngineOptions { removable: vec![2026], ..world.options(&disk) }).err().unwrap();
    let error = fte_service::chain(&error);
    assert!(error.contains("which says that a shard is retired, is not the one that was signed"), "{error}");
    assert!(disk.read(&layout.log(2026).join("tile/entries/000")).is_ok());
}

#[test]
fn p14_an_index_from_before_is_made_again_and_counters_go_on() {
    let world = World::new();
    let disk = world.again();
    world.retire(&disk).unwrap();
    let made = std::fs::read(world.index_path()).unwrap();
    // The index of before the retirement comes back.
    super::super::recover::remove_index(&world.index_path()).unwrap();
    std::fs::write(world.index_path(), &world.index).unwrap();
    let core = Core::open(world.options(&disk).means(&Arc::default())).unwrap();
    let first = Position { shard: 2033, index: 0 };
    assert!(!core.index.begins_before(first.shard).unwrap());
    assert_eq!(core.index.find(&event(&numbered(3)).key).unwrap(), None);
    assert!(core.index.find(&event(&numbered(803)).key).unwrap().is_some());
    assert!(!made.is_empty());
}
