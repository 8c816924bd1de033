//! P9 at random: everything in the list of what must be caught, in logs with several bundles, a large payload and a change of keys. Each mutation is found, and
//! where an entry can be named, the right one is.
//!
//! `FTE_AUDIT_SEED=n` runs one seed alone, the one that a failure has printed; `FTE_AUDIT_SEEDS=n` runs so many, as 10000 at leisure. Edits of the index alone are in
//! the engine's tests, which have one.

use fastrand::Rng;
use fte_service::{Env, ProcessEnv};
use fte_tlog::{SignedNote, SignerKey, push_entry};

use super::building::{ORIGIN, key};
use super::*;
use crate::entry::leaf::Kind;

/// Entries of the log; the key changes with [`ROTATED`].
const SIZE: u64 = 600;
const ROTATED: u64 = 300;

/// What a mutation is to be found as.
#[derive(Debug)]
enum Expected {
    /// At this entry, in this file.
    Entry(u64, String),
    /// At this entry, wherever.
    Somewhere(u64),
    /// In one of these files.
    File(Vec<String>),
    /// Something is not as it should be.
    Anything,
}

/// A log, its files, and what is known of it elsewhere.
struct World {
    log: Log,
    files: Files,
    names: Vec<String>,
    options: Options,
    old: SignerKey,
    new: SignerKey,
}

impl World {
    fn new() -> Self {
        let (old, new) = (key(ORIGIN, 1), key(ORIGIN, 2));
        let mut log = Log::of(ROTATED);
        let at = i64::try_from(ROTATED).unwrap();
        log.own(Kind::KeyRotated, "rotated", &serde_json::json!({"key": new.verifier().to_string()}).to_string(), at);
        (ROTATED + 1..SIZE - 1).for_each(|index| log.event(index));
        log.blob(&[b'x'; 300]);
        let options = Options { threads: NonZero::<usize>::MIN, ..Options::new(Policy::of_logs([old.verifier(), new.verifier()])) };
        let mut this = Self { files: log.files(), names: Vec::new(), log, options, old, new };
        let note = this.note(&this.log.checkpoint().to_string());
        this.files.0.insert("checkpoint".to_owned(), note.into_bytes());
        this.names = this.files.0.keys().cloned().collect();
        this
    }

    /// Signed as after the change of keys.
    fn note(&self, text: &str) -> String {
        SignedNote::new(text).unwrap().with(self.new.sign(text, 0)).to_string()
    }

    /// The first entries of it, the last of which has the payload that is a file.
    fn until(&self, size: u64) -> Log {
        Log { blobs: Vec::new(), ..self.log.until(usize::try_from(size).unwrap()) }
    }

    fn bundle(&self, number: u64) -> String {
        TilePath::in_tree(TileLevel::Entries, number, SIZE).unwrap().to_string()
    }

    fn leaves(&self, number: u64) -> Vec<Vec<u8>> {
        self.log.leaves.chunks(256).nth(usize::try_from(number).unwrap()).unwrap().to_vec()
    }

    /// Where an entry begins in its bundle, and how long it is, with its length.
    fn place(&self, entry: u64) -> (usize, usize) {
        let at = usize::try_from(entry % 256).unwrap();
        let leaves = self.leaves(entry / 256);
        (leaves[..at].iter().map(|leaf| leaf.len() + 2).sum(), leaves[at].len() + 2)
    }

    fn any(&self, random: &mut Rng) -> String {
        self.names[random.usize(..self.names.len())].clone()
    }

    /// Mutates the files by chance, and says as what that is to be found.
    fn mutate(&self, random: &mut Rng, files: &mut Files, options: &mut Options) -> (&'static str, Expected) {
        let put = |files: &mut Files, name: &str, bytes: Vec<u8>| drop(files.0.insert(name.to_owned(), bytes));
        match random.u8(..18) {
            0 => {
                let entry = random.u64(..SIZE);
                let ((start, length), name) = (self.place(entry), self.bundle(entry / 256));
                files.0.get_mut(&name).unwrap()[start + random.usize(..length)] ^= 1 << random.u8(..8);
                ("a bit of an entry", Expected::Entry(entry, name))
            }
            1 => {
                let name = self.any(random);
                let bytes = files.0.get_mut(&name).unwrap();
                let at = random.usize(..bytes.len());
                bytes[at] ^= 1 << random.u8(..8);
                ("a bit of a file", Expected::File(vec![name]))
            }
            2 => {
                let name = self.any(random);
                files.0.remove(&name);
                ("a file deleted", Expected::File(vec![name]))
            }
            3 => {
                let at = random.usize(..self.names.len() - 1);
                let gone = self.names[at..at + 2].to_vec();
                gone.iter().for_each(|name| drop(files.0.remove(name)));
                ("two files in a row deleted", Expected::File(gone))
            }
            4 => {
                let name = self.any(random);
                let bytes = files.0.get_mut(&name).unwrap();
                bytes.truncate(random.usize(..bytes.len()));
                ("a file truncated", Expected::File(vec![name]))
            }
            5 => {
                let (from, to) = (self.any(random), self.any(random));
                let (one, other) = (files.0[&from].clone(), files.0[&to].clone());
                if one == other {
                    return ("nothing", Expected::Anything);
                }
                put(files, &to, one);
                if random.bool() {
                    return ("a file in the place of another", Expected::File(vec![to]));
                }
                put(files, &from, other);
                ("files swapped", Expected::File(vec![from, to]))
            }
            6 => {
                let name = self.any(random);
                let more: Vec<u8> = (0..random.usize(1..100)).map(|_| random.u8(..)).collect();
                files.0.get_mut(&name).unwrap().extend(more);
                ("bytes appended", Expected::File(vec![name]))
            }
            7 => {
                // A payload that no entry names may be left of a crash.
                let name = Some(self.any(random)).filter(|name| !name.starts_with("blobs/")).unwrap_or_else(|| "checkpoint".to_owned());
                let copy = format!("{name}{}", ["~", ".bak", "/copy", "0"][random.usize(..4)]);
                let bytes = files.0[&name].clone();
                put(files, &copy, bytes);
                ("a file duplicated", Expected::File(vec![copy]))
            }
            8 => {
                let checkpoint = files.0["checkpoint"].clone();
                *files = self.until(random.u64(1..SIZE)).files();
                put(files, "checkpoint", checkpoint);
                ("the newest entries cut", Expected::Anything)
            }
            9 => {
                let size = random.u64(1..SIZE);
                let cut = self.until(size);
                *files = cut.files();
                put(files, "checkpoint", self.note(&cut.checkpoint().to_string()).into_bytes());
                options.remembered = vec![self.note(&self.log.checkpoint().to_string()).into_bytes()];
                ("an older copy, with what was remembered", Expected::Somewhere(size))
            }
            10 => {
                let note = self.note(&self.until(random.u64(1..SIZE)).checkpoint().to_string());
                put(files, "checkpoint", note.into_bytes());
                ("an older checkpoint", Expected::Anything)
            }
            11 => {
                let number = random.u64(..SIZE.div_ceil(256));
                let mut leaves = self.leaves(number);
                let (a, b) = (random.usize(..leaves.len()), random.usize(..leaves.len()));
                if a == b {
                    return ("nothing", Expected::Anything);
                }
                leaves.swap(a, b);
                put(files, &self.bundle(number), bundle_of(&leaves));
                ("entries reordered", Expected::Entry(number * 256 + a.min(b) as u64, self.bundle(number)))
            }
            12 => {
                let number = random.u64(..SIZE.div_ceil(256));
                let mut leaves = self.leaves(number);
                let at = random.usize(..leaves.len());
                drop(leaves.remove(at));
                put(files, &self.bundle(number), bundle_of(&leaves));
                ("an entry removed", Expected::Entry(number * 256 + at as u64, self.bundle(number)))
            }
            13 => {
                // At the boundary: the entry that names the new key, or one beside it.
                let entry = random.u64(ROTATED - 1..=ROTATED + 1);
                let ((start, length), name) = (self.place(entry), self.bundle(entry / 256));
                files.0.get_mut(&name).unwrap()[start + random.usize(..length)] ^= 1 << random.u8(..8);
                ("an edit where the key changes", Expected::Entry(entry, name))
            }
            14 => {
                let text = self.log.checkpoint().to_string();
                let stranger = key(ORIGIN, 3);
                let wrong = [&self.old, &self.new][random.usize(..2)].sign("something else\n", 0);
                let (mut note, good) = (SignedNote::new(&*text).unwrap(), stranger.sign(&text, 0));
                // A known key's bad signature, or none of a known key, beside the good one of a stranger.
                if random.bool() {
                    note = note.with(wrong);
                }
                put(files, "checkpoint", note.with(good).to_string().into_bytes());
                ("signatures", Expected::File(vec!["checkpoint".to_owned()]))
            }
            15 => {
                let text = self.log.checkpoint().to_string();
                put(files, "checkpoint", SignedNote::new(&*text).unwrap().with(self.old.sign(&text, 0)).to_string().into_bytes());
                ("the old key alone, after its change", Expected::File(vec!["checkpoint".to_owned()]))
            }
            16 => {
                let mut checkpoint = self.log.checkpoint();
                match random.u8(..3) {
                    0 => checkpoint.size += random.u64(1..1 << 40),
                    1 => checkpoint.root.0[random.usize(..32)] ^= 1 << random.u8(..8),
                    _ => checkpoint.origin += "x",
                }
                put(files, "checkpoint", self.note(&checkpoint.to_string()).into_bytes());
                ("another origin, size or root, signed", Expected::Anything)
            }
            _ => {
                // Another history, signed with the true keys.
                let at = random.u64(1..SIZE - 1);
                let mut fork = self.log.clone();
                let place = usize::try_from(at).unwrap();
                fork.leaves[place] = fork.leaves[place].iter().map(|byte| if *byte == b'9' { b'8' } else { *byte }).collect();
                fork.leaves[place].push(b' ');
                *files = fork.files();
                put(files, "checkpoint", self.note(&fork.checkpoint().to_string()).into_bytes());
                options.given = vec![self.note(&self.log.checkpoint().to_string()).into_bytes()];
                ("a fork, with a checkpoint that was kept", Expected::Anything)
            }
        }
    }
}

fn bundle_of(leaves: &[Vec<u8>]) -> Vec<u8> {
    let mut bundle = Vec::new();
    leaves.iter().for_each(|leaf| push_entry(&mut bundle, leaf).unwrap());
    bundle
}

#[test]
fn p09_random_mutations_are_found_and_located() {
    const COUNT: u64 = 2000;
    let number = |name: &str| ProcessEnv.get(name).map(|value| value.parse::<u64>().unwrap());
    let (only, count) = (number("FTE_AUDIT_SEED"), number("FTE_AUDIT_SEEDS").unwrap_or(COUNT));
    let world = World::new();
    assert_eq!(verified(&world.files, &world.options).findings, [], "untouched it is sound");
    let seeds = only.map_or(0..count, |seed| seed..seed + 1);
    for seed in seeds {
        let mut random = Rng::with_seed(seed);
        let (mut files, mut options) = (world.files.clone(), world.options.clone());
        let (what, expected) = world.mutate(&mut random, &mut files, &mut options);
        if what == "nothing" {
            continue;
        }
        let report = verified(&files, &options);
        let is_found = report.is_tampered() || report.is_incomplete();
        assert!(is_found, "seed {seed}: {what} was missed: {report}");
        let first = &report.findings[0];
        let is_right = match &expected {
            Expected::Anything => true,
            Expected::Somewhere(entry) => first.entry == Some(*entry),
            Expected::Entry(entry, file) => first.entry == Some(*entry) && first.file == *file,
            Expected::File(names) => names.contains(&first.file),
        };
        assert!(is_right, "seed {seed}: {what} is {expected:?} and was found as {first:?}");
    }
}
