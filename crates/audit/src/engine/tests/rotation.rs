//! The log's key is changed: announced once, signed by both, then by the new one alone; through kills, power cuts and failing calls at any moment.

use std::io;

use fte_tlog::{KeyAlgorithm, Policy, SignedNote};

use super::super::signers::shard_verifier;
use super::super::sim::SimDisk;
use super::super::state::last_signed;
use super::*;
use crate::entry::leaf;
use crate::verify::{self, Source, verify};

pub(super) fn key(seed: u8) -> Arc<SignerKey> {
    Arc::new(SignerKey::new("log.test", KeyAlgorithm::Ed25519, &[seed; 32]).unwrap())
}

/// Which of the keys 1 to 9 have signed.
fn signers(note: &SignedNote) -> Vec<u8> {
    let shard = note.text().lines().next().unwrap().rsplit_once('/').unwrap().1.parse().unwrap();
    (1..10).filter(|seed| note.verify([&shard_verifier(&key(*seed).verifier(), shard).unwrap()]).is_ok()).collect()
}

pub(super) fn signers_of(published: &Published) -> Vec<u8> {
    signers(&SignedNote::parse(published.note.as_bytes()).unwrap())
}

#[derive(Clone, Default)]
pub(super) struct Keys {
    present: u8,
    next: Option<u8>,
    former: Vec<u8>,
}

impl Keys {
    pub(super) fn of(present: u8, next: Option<u8>, former: &[u8]) -> Self {
        Self { present, next, former: former.to_vec() }
    }

    pub(super) fn options(&self, options: EngineOptions) -> EngineOptions {
        let former = self.former.iter().map(|seed| key(*seed).verifier()).collect();
        EngineOptions { key: key(self.present), next_key: self.next.map(key), former, ..options }
    }
}

fn opened(directory: &Path, keys: &Keys) -> Result<Engine, LogError> {
    Engine::open(keys.options(options(directory)))
}

/// Why it does not open.
fn refused(directory: &Path, keys: &Keys) -> String {
    fte_service::chain(&opened(directory, keys).err().unwrap_or_else(|| panic!("it starts")))
}

/// Waits until the newest checkpoint is signed by exactly these.
async fn signed_by(log: &Engine, expected: &[u8]) -> Published {
    loop {
        match log.checkpoint(None).await.unwrap() {
            Some(published) if signers_of(&published) == expected => return published,
            _ => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

async fn rotations(log: &Engine) -> Vec<Position> {
    let found = every(log, Query { action: Some("key_rotated".to_owned()), ..any() }).await;
    found.iter().filter(|entry| entry.header.kind == Kind::KeyRotated).map(|entry| entry.position).collect()
}

/// What the verifier finds, by these keys.
fn findings(directory: &Path, shards: &[u16], keys: &[u8]) -> Vec<String> {
    let sources: Vec<_> = shards.iter().map(|shard| verify::Directory::new(directory.join(format!("audit/{shard}/log")))).collect();
    let sources: Vec<&dyn Source> = sources.iter().map(|source| source as &dyn Source).collect();
    let options = verify::Options::new(Policy::of_logs(keys.iter().map(|seed| key(*seed).verifier())));
    let reports = verify(&sources, &options, &mut |_| {}).unwrap();
    reports.iter().flat_map(|report| report.findings.iter().map(ToString::to_string)).collect()
}

#[tokio::test]
async fn a_key_is_announced_once_then_both_sign_then_the_new_one_alone() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let log = opened(at, &Keys::of(1, None, &[])).unwrap();
    log.append(vec![event(&numbered(0))]).await.unwrap();
    let shard = signed_by(&log, &[1]).await.shard;
    drop(log);
    // A key that the log has not announced signs nothing.
    assert!(refused(at, &Keys::of(2, None, &[1])).contains("was signed by the former key"));
    assert!(refused(at, &Keys::of(2, None, &[])).contains("was signed by another key"));

    // It is announced without any event, and once, however often it starts, also where the index is made again.
    for round in 1..4 {
        let log = opened(at, &Keys::of(1, Some(2), &[1])).unwrap();
        signed_by(&log, &[1, 2]).await;
        assert_eq!(rotations(&log).await, [Position { shard, index: 2 }]);
        log.append(vec![event(&numbered(round))]).await.unwrap();
        drop(log);
        super::recover::remove_index(&at.join("audit/index.sqlite")).unwrap();
        // Who knows one of the keys learns the other from the log.
        for known in [&[1][..], &[2], &[1, 2], &[2, 1]] {
            assert_eq!(findings(at, &[shard], known), [] as [String; 0], "{known:?}");
        }
    }
    // The successor has gone missing; or another log's key stands in its place; or one that had signed before.
    assert!(refused(at, &Keys::of(1, None, &[])).contains("has announced the key that follows"));
    let stranger = Arc::new(SignerKey::new("other.test", KeyAlgorithm::Ed25519, &[3; 32]).unwrap());
    let options = EngineOptions { next_key: Some(stranger), ..Keys::of(1, None, &[]).options(options(at)) };
    assert!(fte_service::chain(&Engine::open(options).err().unwrap()).contains("is named other.test"));
    assert!(refused(at, &Keys::of(1, Some(4), &[4])).contains("has signed this log before"));

    let log = opened(at, &Keys::of(2, None, &[1])).unwrap();
    log.append(vec![event(&numbered(10))]).await.unwrap();
    signed_by(&log, &[2]).await;
    assert_eq!(rotations(&log).await.len(), 1);
    drop(log);
    // The old key signs nothing any more, alone or beside its successor.
    assert!(refused(at, &Keys::of(1, None, &[])).contains("was signed by another key"));
    assert!(refused(at, &Keys::of(1, Some(2), &[])).contains("was signed by another key"));
    assert!(refused(at, &Keys::of(1, Some(3), &[2])).contains("was signed by the former key"));
    // Who names the key that has taken over as the next one, too, has not heard of it yet.
    drop(opened(at, &Keys::of(2, Some(2), &[1])).unwrap());
    for known in [&[2][..], &[1, 2]] {
        assert_eq!(findings(at, &[shard], known), [] as [String; 0], "{known:?}");
    }
    assert!(findings(at, &[shard], &[1])[0].contains("no signature is of a key that is known"));
}

#[tokio::test]
async fn a_successor_that_is_lost_before_it_took_over_gets_another() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let log = opened(at, &Keys::of(1, Some(2), &[1])).unwrap();
    let shard = signed_by(&log, &[1, 2]).await.shard;
    drop(log);
    let log = opened(at, &Keys::of(1, Some(3), &[1])).unwrap();
    signed_by(&log, &[1, 3]).await;
    assert_eq!(rotations(&log).await.len(), 2);
    drop(log);
    // The one that was lost, and is found again, was passed over.
    assert!(refused(at, &Keys::of(2, None, &[1])).contains("was signed by the former key"));
    let log = opened(at, &Keys::of(3, None, &[1])).unwrap();
    signed_by(&log, &[3]).await;
    drop(log);
    assert_eq!(findings(at, &[shard], &[3]), [] as [String; 0]);
}

#[tokio::test]
async fn no_event_announces_a_key() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let log = opened(at, &Keys::of(1, None, &[])).unwrap();
    let id = super::super::own::key_rotated_id(&key(1).verifier(), 0);
    let forged = json!({"id": id, "source": SOURCE, "type": "key_rotated", "kind": "key_rotated", "key": key(2).verifier().to_string(),
        "data": {"action": "key_rotated", "key": key(2).verifier().to_string()}});
    log.append(vec![event(&forged)]).await.unwrap();
    let shard = signed_by(&log, &[1]).await.shard;
    drop(log);
    // It goes on with its own key alone, and a successor of its own is announced all the same.
    let log = opened(at, &Keys::of(1, None, &[])).unwrap();
    log.append(vec![event(&numbered(1))]).await.unwrap();
    drop(log);
    assert!(refused(at, &Keys::of(2, None, &[1])).contains("was signed by the former key"));
    let log = opened(at, &Keys::of(1, Some(3), &[1])).unwrap();
    signed_by(&log, &[1, 3]).await;
    drop(log);
    assert_eq!(findings(at, &[shard], &[1]), [] as [String; 0]);
}

#[tokio::test]
async fn a_year_that_ended_is_of_a_key_that_the_log_says_was_followed() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let now = Arc::new(AtomicI64::new(JULY_2026));
    let opened = |keys: &Keys| {
        let clock = Arc::clone(&now);
        Engine::open(keys.options(EngineOptions { clock: Arc::new(move || clock.load(Ordering::Relaxed)), ..options(at) }))
    };
    let year = 366 * 24 * 60 * 60 * 1000;
    // 2026 is the first key's; the second is announced in 2027, both sign into 2028; 2029 is the second's, and hands over to the third.
    let lives = [
        (Keys::of(1, None, &[]), 0, vec![1]),
        (Keys::of(1, Some(2), &[1]), 1, vec![1, 2]),
        (Keys::of(1, Some(2), &[1]), 2, vec![1, 2]),
        (Keys::of(2, None, &[1]), 3, vec![2]),
        (Keys::of(2, Some(3), &[1, 2]), 3, vec![2, 3]),
        (Keys::of(3, None, &[1, 2]), 3, vec![3]),
    ];
    for (round, (keys, years, signed)) in lives.iter().enumerate() {
        now.store(JULY_2026 + years * year, Ordering::Relaxed);
        let log = opened(keys).unwrap();
        log.append(vec![event(&numbered(round * 2)), event(&numbered(round * 2 + 1))]).await.unwrap();
        signed_by(&log, signed).await;
    }
    let last = lives.last().unwrap().0.clone();
    assert_eq!(rotations(&opened(&last).unwrap()).await.len(), 2);
    let shards = [2026, 2027, 2028, 2029];
    // The newest key alone shows all of it: each year is what the next one says.
    for known in [&[3][..], &[1, 2, 3]] {
        assert_eq!(findings(at, &shards, known), [] as [String; 0], "{known:?}");
    }
    for shards in [&[2027][..], &[2028], &[2029]] {
        assert_eq!(findings(at, shards, &[1, 2, 3]), [] as [String; 0], "{shards:?}");
    }
    assert_eq!(findings(at, &[2029], &[3]), [] as [String; 0]);
    assert!(findings(at, &[2026], &[3])[0].contains("no signature is of a key that is known"));
    // A year that ended, signed by somebody who is named among the former keys and whom the log never had.
    let path = at.join("audit/2026/log/checkpoint");
    let note = SignedNote::parse(&std::fs::read(&path).unwrap()).unwrap();
    let stranger = key(9).renamed("log.test/2026", KeyAlgorithm::Ed25519).unwrap();
    let forged = SignedNote::new(note.text()).unwrap().with(stranger.sign(note.text(), 0));
    std::fs::write(&path, forged.to_string()).unwrap();
    let error = fte_service::chain(&opened(&Keys { former: vec![1, 2, 9], ..last.clone() }).err().unwrap());
    assert!(error.contains("the log does not say that a key which is known here follows"), "{error}");
    std::fs::write(&path, note.to_string()).unwrap();
    drop(opened(&last).unwrap());
}

#[tokio::test]
async fn p14_a_key_whose_announcement_is_retired_is_believed_through_the_chain() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let year = 366 * 24 * 60 * 60 * 1000;
    let now = Arc::new(AtomicI64::new(JULY_2026));
    let keyed = |keys: &Keys| {
        let clock = Arc::clone(&now);
        keys.options(EngineOptions { clock: Arc::new(move || clock.load(Ordering::Relaxed)), ..options(at) })
    };
    // The second key is announced in 2026 and the third in 2029; the first one signs until 2027.
    let lives = [
        (Keys::of(1, Some(2), &[1]), 0, vec![1, 2]),
        (Keys::of(1, Some(2), &[1]), 1, vec![1, 2]),
        (Keys::of(2, None, &[1]), 2, vec![2]),
        (Keys::of(2, Some(3), &[1, 2]), 3, vec![2, 3]),
        (Keys::of(3, None, &[1, 2]), 8, vec![3]),
    ];
    for (round, (keys, years, signed)) in lives.iter().enumerate() {
        now.store(JULY_2026 + years * year, Ordering::Relaxed);
        let log = Engine::open(keyed(keys)).unwrap();
        log.append(vec![event(&numbered(round))]).await.unwrap();
        signed_by(&log, signed).await;
    }
    let last = &lives[4].0;
    let mut retirer = Retirer::open(keyed(last)).unwrap();
    assert_eq!(retirer.announced_in().unwrap(), None);
    let ended = retirer.standing().ended(2026).unwrap();
    let due = crate::retention::Due { shard: 2026, entries: 3, last_ms: ended.last_ms, checkpoint: ended.published.note.to_string() };
    retirer.retire([due.shard], crate::retention::records(&[due], &[], "ada", JULY_2026 + 8 * year)).unwrap();
    drop(retirer);
    drop(Engine::open(keyed(last)).unwrap());
    for known in [&[3][..], &[1, 2, 3]] {
        assert_eq!(findings(at, &[2026, 2027, 2028, 2029, 2034], known), [] as [String; 0], "{known:?}");
    }
    // 2026 needs no signature of a key that is known: the log has its checkpoint.
    drop(Engine::open(keyed(&Keys::of(3, None, &[1, 2]))).unwrap());
    // The same end of 2027 as somebody else signs it, whom the log never had.
    let path = at.join("audit/2027/log/checkpoint");
    let note = SignedNote::parse(&std::fs::read(&path).unwrap()).unwrap();
    let stranger = key(9).renamed("log.test/2027", KeyAlgorithm::Ed25519).unwrap();
    let forged = SignedNote::new(note.text()).unwrap().with(stranger.sign(note.text(), 0));
    std::fs::write(&path, forged.to_string()).unwrap();
    let error = fte_service::chain(&Engine::open(keyed(&Keys::of(3, None, &[1, 2, 9]))).err().unwrap());
    assert!(error.contains("the log does not say that a key which is known here follows"), "{error}");
}

/// The files of a shard on a disk that was cut off.
pub(super) struct OnDisk<'a> {
    pub(super) disk: &'a SimDisk,
    pub(super) log: std::path::PathBuf,
}

impl Source for OnDisk<'_> {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let beside = self.log.with_file_name(name);
        let is_beside = name == super::super::RETIRED || name.starts_with("blobs/");
        match self.disk.read(&if is_beside { beside } else { self.log.join(name) }) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            read => read.map(Some),
        }
    }

    fn list(&self, _: &str, _: &mut dyn FnMut(&str) -> io::Result<()>) -> io::Result<bool> {
        Ok(false)
    }
}

struct World {
    disk: SimDisk,
    directory: tempfile::TempDir,
    random: fastrand::Rng,
    now_ms: i64,
    keys: Keys,
    next: usize,
}

impl World {
    fn means(&self) -> Means {
        let options = EngineOptions { disk: Arc::new(self.disk.clone()), ..EngineOptions::at(self.directory.path(), test_key()) };
        self.keys.options(EngineOptions { segment_bytes: 16 * 1024, ..options }).means(&Arc::new(super::super::view::Shared::default()))
    }

    /// Lives until the disk ends it, or for a while.
    fn live(&mut self) -> Result<(), Fault> {
        let mut core = Core::open(self.means())?;
        self.check(&core);
        for _ in 0..self.random.usize(1..30) {
            self.now_ms += self.random.i64(-5..100);
            if self.random.u32(..60) == 0 {
                self.now_ms += 366 * 24 * 3600 * 1000;
            }
            match self.random.u32(..10) {
                0..4 => {
                    let events = (self.next..self.next + self.random.usize(1..40)).map(|number| event(&numbered(number))).collect();
                    core.append(&[events], self.now_ms)?;
                    self.next += 40;
                }
                4..6 if core.due_ms()?.is_some_and(|due| due <= self.now_ms) => drop(core.tick(self.now_ms)?),
                _ if core.unsealed() => {
                    core.seal()?;
                    self.check(&core);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Every key is announced once, and the checkpoint is signed by who should.
    fn check(&self, core: &Core) {
        let calm = self.disk.calm();
        let view = core.means.shared.view();
        let (shards, published) = (view.shards.clone(), view.published.clone());
        drop(view);
        let mut leaves = core.files.leaves();
        let mut announced = Vec::new();
        for (shard, size) in shards {
            for at in (0..size).map(|index| Position { shard, index }) {
                let leaf = leaves.leaf(at).unwrap().unwrap();
                let (header, payload) = leaf::decode(&leaf).unwrap();
                if header.kind == Kind::KeyRotated {
                    let payload: Value = serde_json::from_slice(payload).unwrap();
                    announced.push((at, payload["key"].as_str().unwrap().to_owned()));
                }
            }
        }
        let names: Vec<String> =
            announced.iter().map(|(at, _)| shard_verifier(&key(0).verifier(), at.shard).unwrap().name().to_owned()).collect();
        let is_of = |place: usize, seed: u8| {
            announced[place].1
                == VerifierKey::new(&*names[place], KeyAlgorithm::Ed25519, key(seed).verifier().public_bytes()).unwrap().to_string()
        };
        // Key after key, each once.
        for place in 0..announced.len() {
            assert!(is_of(place, u8::try_from(place).unwrap() + 2), "{announced:?}");
        }
        if let Some(published) = published {
            let covered = |place: &usize| {
                let at = announced[*place].0;
                (at.shard, at.index) < (published.shard, published.checkpoint.size)
            };
            let newest = 1 + u8::try_from((0..announced.len()).filter(covered).count()).unwrap();
            let mut expected = vec![self.keys.present, newest];
            expected.dedup();
            assert_eq!(signers_of(&published), expected, "{announced:?}");
        }
        self.disk.resume(calm);
    }

    /// What the operator does while the service is stopped: begins, ends, or has done half of the latter when the power went.
    fn operate(&mut self) {
        let Keys { present, next, former } = &mut self.keys;
        match *next {
            None if *present < 8 && self.random.bool() => *next = Some(*present + 1),
            None => {}
            Some(following) => {
                let note = last_signed(&self.disk, &self.directory.path().join("state")).unwrap();
                let both = note.is_some_and(|note| signers(&note) == [*present, following]);
                if both && self.random.bool() {
                    former.push(*present);
                    if self.random.u32(..4) > 0 {
                        (*present, *next) = (following, None);
                    }
                }
            }
        }
    }
}

fn run(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let disk = SimDisk::new(seed);
    let keys = Keys::of(1, None, &[]);
    let mut world = World { disk, directory: tempfile::tempdir().unwrap(), random: random.fork(), now_ms: JULY_2026, keys, next: 0 };
    for _ in 0..random.usize(4..14) {
        let is_cut = random.bool();
        match random.u32(..4) {
            0 => world.disk.fail_in(random.u64(..300)),
            1 => {}
            _ => world.disk.cut_in(random.u64(..300)),
        }
        if let Err(fault) = world.live() {
            assert!(world.disk.has_failed(), "the disk is well: {}", fte_service::chain(&fault));
        }
        if is_cut {
            world.disk.power_cut()
        } else {
            world.disk.killed()
        }
        if random.u32(..4) == 0 {
            super::recover::remove_index(&world.directory.path().join("index.sqlite")).unwrap();
        }
        world.operate();
    }
    let mut core = Core::open(world.means()).unwrap_or_else(|fault| panic!("it does not start again: {}", fte_service::chain(&fault)));
    core.append(&[vec![event(&numbered(world.next))]], world.now_ms).unwrap();
    core.seal().unwrap();
    world.check(&core);
    // Whoever knows the present key finds all of it in order, and so does who knows them all.
    let years: Vec<u16> = core.means.shared.view().shards.keys().copied().collect();
    let sources: Vec<_> = years.iter().map(|year| OnDisk { disk: &world.disk, log: core.files.layout.log(*year) }).collect();
    let sources: Vec<&dyn Source> = sources.iter().map(|source| source as &dyn Source).collect();
    for known in [vec![world.keys.present], (1..10).collect()] {
        let policy = Policy::of_logs(known.into_iter().map(|seed| key(seed).verifier()));
        for report in verify(&sources, &verify::Options::new(policy), &mut |_| {}).unwrap() {
            assert_eq!(report.findings, [], "{report}");
        }
    }
}

#[test]
fn p01_p02_p03_a_key_is_announced_once_and_both_sign_whatever_ends_the_process() {
    let number = |name: &str| fte_service::Env::get(&fte_service::ProcessEnv, name).and_then(|number| number.parse::<u64>().ok());
    let (only, count) = (number("FTE_AUDIT_SEED"), number("FTE_AUDIT_SEEDS").unwrap_or(60));
    for seed in only.map_or(0..count, |seed| seed..seed + 1) {
        let ran = std::panic::catch_unwind(|| run(seed));
        assert!(ran.is_ok(), "seed {seed} fails: run it alone with FTE_AUDIT_SEED={seed}");
    }
}
