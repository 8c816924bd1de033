//! The tampering suite: what must be caught, and which entry must be named.

use fte_tlog::{SignedNote, push_entry};

use super::building::{ORIGIN, key};
use super::*;
use crate::entry::leaf::{Header, Kind};

/// The report of a log whose files were touched; it must not verify.
fn caught(log: &Log, what: &str, tamper: impl FnOnce(&mut Files)) -> Report {
    let mut files = log.files();
    tamper(&mut files);
    let report = verified(&files, &options(log));
    assert!(report.is_tampered() || report.is_incomplete(), "{what} was missed: {report}");
    report
}

fn bad(report: &Report) -> (Option<u64>, &str, Option<u64>) {
    let finding = report.first_bad().unwrap_or_else(|| panic!("{report:?}"));
    (finding.entry, &finding.file, finding.byte)
}

#[test]
fn p09_every_single_bit_of_a_small_log_counts() {
    let mut log = Log::of(3);
    log.blob(&[b'x'; 20]);
    let files = log.files();
    let mut flipped = 0;
    for (name, bytes) in &files.0 {
        for bit in 0..bytes.len() * 8 {
            let report = caught(&log, &format!("bit {bit} of {name}"), |files| files.0.get_mut(name).unwrap()[bit / 8] ^= 1 << (bit % 8));
            let (_, file, _) = bad(&report);
            assert_eq!(file, name, "bit {bit}");
            flipped += 1;
        }
    }
    assert!(flipped > 8000, "{flipped}");
}

#[test]
fn p09_a_changed_entry_is_named_with_its_byte() {
    let log = Log::of(700);
    let mut random = fastrand::Rng::with_seed(9);
    for _ in 0..200 {
        let entry = random.u64(0..700);
        let (bundle, within) = (entry / 256, entry % 256);
        let name = TilePath::in_tree(TileLevel::Entries, bundle, 700).unwrap().to_string();
        let before = log.leaves[usize::try_from(bundle * 256).unwrap()..].iter().take(usize::try_from(within).unwrap());
        let start: usize = before.map(|leaf| leaf.len() + 2).sum();
        let length = log.leaves[usize::try_from(entry).unwrap()].len() + 2;
        let (at, bit) = (start + random.usize(0..length), random.u8(0..8));
        let report = caught(&log, "a bit", |files| files.0.get_mut(&name).unwrap()[at] ^= 1 << bit);
        assert_eq!(bad(&report), (Some(entry), name.as_str(), Some(start as u64)), "byte {at}");
    }
}

#[test]
fn p09_random_changes_of_any_file_name_that_file() {
    let log = Log::of(700);
    let names: Vec<String> = log.files().0.into_keys().collect();
    let mut random = fastrand::Rng::with_seed(10);
    for round in 0..600 {
        let name = &names[random.usize(0..names.len())];
        let length = log.files().0[name].len();
        let (at, count) = (random.usize(0..length), random.usize(1..40));
        let report = caught(&log, &format!("round {round} of {name}"), |files| {
            let bytes = files.0.get_mut(name).unwrap();
            match round % 4 {
                0 => bytes[at] = bytes[at].wrapping_add(random.u8(1..=255)),
                1 => bytes.truncate(at),
                2 => drop(bytes.splice(at..at, (0..count).map(|_| random.u8(..)))),
                _ => drop(bytes.drain(at..(at + count).min(length))),
            }
        });
        assert_eq!(bad(&report).1, name, "round {round}");
    }
}

#[test]
fn p09_bytes_appended_to_any_file() {
    let mut log = Log::of(700);
    log.blob(b"a payload");
    for name in log.files().0.keys() {
        for more in [&b"\0"[..], b"\n", b"more"] {
            let report = caught(&log, name, |files| files.0.get_mut(name).unwrap().extend_from_slice(more));
            assert_eq!(bad(&report).1, name);
        }
    }
}

#[test]
fn p09_files_deleted_alone_or_two_in_a_row() {
    let log = Log::of(1300);
    let names: Vec<String> = log.files().0.into_keys().collect();
    for at in 0..names.len() {
        for count in [1, 2] {
            let gone = &names[at..(at + count).min(names.len())];
            let report = caught(&log, &format!("{gone:?}"), |files| gone.iter().for_each(|name| drop(files.0.remove(name))));
            assert!(report.is_incomplete() && gone.contains(&report.findings[0].file), "{gone:?}: {report:?}");
        }
    }
}

#[test]
fn p09_files_swapped_duplicated_or_put_beside() {
    let log = Log::of(1300);
    let report = caught(&log, "swapped bundles", |files| {
        let (a, b) = (files.0["tile/entries/001"].clone(), files.0["tile/entries/002"].clone());
        files.0.extend([("tile/entries/001".to_owned(), b), ("tile/entries/002".to_owned(), a)]);
    });
    assert_eq!(bad(&report), (Some(256), "tile/entries/001", Some(0)));
    let report = caught(&log, "swapped tiles", |files| {
        let (a, b) = (files.0["tile/0/001"].clone(), files.0["tile/0/002"].clone());
        files.0.extend([("tile/0/001".to_owned(), b), ("tile/0/002".to_owned(), a)]);
    });
    assert_eq!(bad(&report), (Some(256), "tile/0/001", None));
    for (name, entry) in [("tile/entries/005", 1300), ("tile/0/009", 2304), ("tile/0/005.p/21", 1300), ("tile/7/000", 1300)] {
        let report = caught(&log, name, |files| drop(files.0.insert(name.to_owned(), vec![0; 32])));
        assert_eq!(bad(&report), (Some(entry), name, None));
    }
    for name in ["tile/entries/1", "notes.txt", "tile/0/005.p/020"] {
        let report = caught(&log, name, |files| drop(files.0.insert(name.to_owned(), Vec::new())));
        assert_eq!(bad(&report), (None, name, None));
    }
    let report = caught(&log, "an earlier partial that differs", |files| {
        let mut bytes = log.until(1290).files().0["tile/0/005.p/10"].clone();
        bytes[100] ^= 1;
        files.0.insert("tile/0/005.p/10".to_owned(), bytes);
    });
    assert_eq!(bad(&report), (Some(1280), "tile/0/005.p/10", Some(100)));
}

/// A bundle whose leaves are others, the tiles being left or made to fit.
fn rebundle(files: &mut Files, name: &str, leaves: &[Vec<u8>]) {
    let mut bundle = Vec::new();
    leaves.iter().for_each(|leaf| push_entry(&mut bundle, leaf).unwrap());
    files.0.insert(name.to_owned(), bundle);
}

#[test]
fn p09_entries_reordered_removed_or_added_within_a_bundle() {
    let log = Log::of(300);
    let first = |report: &Report| bad(report).0;
    let with = |change: &dyn Fn(&mut Vec<Vec<u8>>)| {
        let mut leaves = log.leaves[..256].to_vec();
        change(&mut leaves);
        caught(&log, "a bundle", |files| rebundle(files, "tile/entries/000", &leaves))
    };
    assert_eq!(first(&with(&|leaves| leaves.swap(20, 21))), Some(20));
    assert_eq!(first(&with(&|leaves| drop(leaves.remove(20)))), Some(20));
    assert_eq!(first(&with(&|leaves| drop(leaves.remove(255)))), Some(255));
    assert_eq!(first(&with(&|leaves| leaves.insert(20, leaves[19].clone()))), Some(20));
    assert_eq!(first(&with(&|leaves| leaves.push(leaves[255].clone()))), Some(255));
    assert_eq!(first(&with(&|leaves| leaves[7] = Vec::new())), Some(7));
}

#[test]
fn p09_an_entry_and_its_hash_changed_together() {
    let log = Log::of(700);
    let other = Log {
        leaves: {
            let mut leaves = log.leaves.clone();
            leaves[100] = leaves[101].clone();
            leaves
        },
        ..log.clone()
    };
    let report = caught(&log, "bundle and tile", |files| {
        for name in ["tile/entries/000", "tile/0/000"] {
            files.0.insert(name.to_owned(), other.files().0[name].clone());
        }
    });
    // The hash above it gives the tile away; which of its entries is another nobody can know any more.
    assert_eq!(bad(&report), (Some(0), "tile/0/000", None));
    let report = caught(&log, "everything below the checkpoint", |files| {
        let checkpoint = files.0["checkpoint"].clone();
        *files = other.files();
        files.0.insert("checkpoint".to_owned(), checkpoint);
    });
    assert_eq!(bad(&report), (None, "checkpoint", None));
}

#[test]
fn p09_the_newest_entries_cut() {
    let log = Log::of(700);
    // The files of a shorter log under the long one's checkpoint.
    let report = caught(&log, "the end", |files| {
        let checkpoint = files.0["checkpoint"].clone();
        *files = log.until(600).files();
        files.0.insert("checkpoint".to_owned(), checkpoint);
    });
    assert!(report.is_incomplete());
    // An old checkpoint, validly signed, over the present files.
    let report =
        caught(&log, "an old checkpoint", |files| drop(files.0.insert("checkpoint".to_owned(), log.until(600).note().into_bytes())));
    assert_eq!(bad(&report).0, Some(600));
}

#[test]
fn p10_a_rollback_and_a_fork_signed_with_the_true_key_need_an_anchor() {
    let log = Log::of(700);
    let base = options(&log);
    let anchored = Options { remembered: vec![log.note().into_bytes()], ..base.clone() };
    let rolled_back = log.until(600).files();
    assert_eq!(verified(&rolled_back, &base).findings, [], "nothing in the files tells");
    assert_eq!(bad(&verified(&rolled_back, &anchored)), (Some(600), "checkpoint", None));

    let mut fork = log.clone();
    fork.leaves[650] = fork.leaves[651].clone();
    let forged = Log { leaves: fork.leaves[..651].to_vec(), ..fork };
    let mut longer = forged.clone();
    (651..720).for_each(|index| longer.event(index));
    // Longer than what is remembered, and another tree: entry 650 is that of 651.
    let report = verified(&longer.files(), &anchored);
    assert_eq!(bad(&report).1, "checkpoint");
    let given = Options { given: vec![log.until(651).note().into_bytes()], ..base };
    assert_eq!(bad(&verified(&longer.files(), &given)).1, "checkpoint");
}

#[test]
fn p09_keys_and_signatures() {
    let log = Log::of(5);
    let stranger = key(ORIGIN, 2);
    let set =
        |note: SignedNote| caught(&log, "a note", |files| drop(files.0.insert("checkpoint".to_owned(), note.to_string().into_bytes())));
    let text = log.checkpoint().to_string();
    let unsigned = SignedNote::new(&*text).unwrap();
    assert!(set(unsigned.clone().with(stranger.sign(&text, 0))).is_tampered());
    // A known key's bad signature beside a good unknown one, and beside its own good one.
    let wrong = log.key.sign("something else\n", 0);
    assert!(set(unsigned.clone().with(wrong.clone()).with(stranger.sign(&text, 0))).is_tampered());
    assert!(set(unsigned.with(log.key.sign(&text, 0)).with(wrong)).is_tampered());
    // The origin of another log, whose key signed it.
    let other = Log { key: key("log.example/other", 1), ..log.clone() };
    assert!(set(SignedNote::parse(other.note().as_bytes()).unwrap()).is_tampered());
    // A size beyond the tiles, signed.
    let mut huge = log.checkpoint();
    huge.size = i64::MAX.unsigned_abs();
    let text = huge.to_string();
    assert!(set(SignedNote::new(&*text).unwrap().with(log.key.sign(&text, 0))).is_incomplete());
}

#[test]
fn p09_the_boundary_of_a_key_rotation() {
    let (old, new) = (key(ORIGIN, 1), key(ORIGIN, 2));
    let mut log = Log::of(5);
    log.own(Kind::KeyRotated, "rotated", &serde_json::json!({"key": new.verifier().to_string()}).to_string(), 5);
    log.event(5);
    let text = log.checkpoint().to_string();
    let note = |keys: &[&fte_tlog::SignerKey]| {
        keys.iter().fold(SignedNote::new(&*text).unwrap(), |note, key| note.with(key.sign(&text, 0))).to_string()
    };
    let policy = Policy::of_logs([old.verifier(), new.verifier()]);
    let verified = |signers: &[&fte_tlog::SignerKey], policy: &Policy, change: &dyn Fn(&mut Files)| {
        let mut files = log.files();
        files.0.insert("checkpoint".to_owned(), note(signers).into_bytes());
        change(&mut files);
        super::verified(&files, &Options::new(policy.clone()))
    };
    let untouched = |_: &mut Files| {};
    assert_eq!(verified(&[&old, &new], &policy, &untouched).findings, []);
    assert_eq!(verified(&[&new], &policy, &untouched).findings, []);
    assert_eq!(verified(&[&new], &Policy::of_logs([new.verifier()]), &untouched).findings, []);
    // Signed with the old key alone, which whoever stole it could do.
    assert!(verified(&[&old], &policy, &untouched).is_tampered());
    for entry in [4, 5, 6] {
        let start: usize = log.leaves[..entry].iter().map(|leaf| leaf.len() + 2).sum();
        let report = verified(&[&old, &new], &policy, &|files| files.0.get_mut("tile/entries/000.p/7").unwrap()[start + 30] ^= 1);
        assert_eq!(bad(&report).0, Some(entry as u64));
    }
}

/// What only who has the key can do: the tree is right, and what its leaves say is not.
#[test]
fn p09_leaves_that_break_what_the_log_promises() {
    let check = |what: &str, entry: u64, change: &dyn Fn(&mut Log)| {
        let mut log = Log::of(12);
        change(&mut log);
        let report = caught(&log, what, |_| {});
        assert_eq!(bad(&report).0, Some(entry), "{what}: {report:?}");
    };
    fn header(task: Option<u64>, time: i64) -> Header<'static> {
        let mut header = Header { source: Some("/x".into()), id: Some("x".into()), ..Header::new(Kind::Event, time, b"payload") };
        if let Some(seq) = task {
            (header.task, header.task_seq) = (Some("x".into()), Some(seq));
        }
        header
    }
    check("time that goes back", 12, &|log| log.push(&header(None, 3), b"payload"));
    check("an event twice", 12, &|log| {
        log.push(&Header { source: Some("/test".into()), id: Some("5".into()), ..header(None, 99) }, b"payload")
    });
    check("a task that begins with 1", 12, &|log| log.push(&header(Some(1), 99), b"payload"));
    check("a task with a hole", 13, &|log| {
        log.push(&header(Some(0), 99), b"payload");
        log.push(&Header { id: Some("y".into()), ..header(Some(2), 99) }, b"payload");
    });
    check("a payload that is another", 12, &|log| {
        let mut leaf = crate::entry::leaf::encode(&header(None, 99), b"payload").unwrap();
        let last = leaf.len() - 1;
        leaf[last] ^= 1;
        log.leaves.push(leaf);
    });
    check("no header", 12, &|log| log.leaves.push(b"no header".to_vec()));
    check("a shard opened twice", 12, &|log| log.own(Kind::ShardOpen, "again", "{}", 99));
    check("a first entry that opens nothing", 0, &|log| drop(log.leaves.remove(0)));
    for entries in [0, 2, 4] {
        check("a wrong count", 13, &|log| {
            let payload = serde_json::json!({"entries": entries}).to_string();
            log.push(&header(Some(0), 99), b"payload");
            let closed = Header::new(Kind::TaskClosed, 99, payload.as_bytes());
            log.push(&Header { task: Some("x".into()), task_seq: Some(1), ..closed }, payload.as_bytes());
        });
    }
}

#[test]
fn p09_what_shows_only_once_all_was_read_is_named_with_its_bundle() {
    let mut log = Log::of(300);
    log.push(&Header { source: Some("/test".into()), id: Some("5".into()), ..Header::new(Kind::Event, 1000, b"x") }, b"x");
    assert_eq!(bad(&caught(&log, "an event twice", |_| {})), (Some(300), "tile/entries/001.p/45", None));
}

#[test]
fn p09_an_event_that_an_earlier_shard_has_is_named_where_it_comes_again() {
    let first = Log::of(20);
    let mut second = Log { key: key("log.example/2027", 1), ..Log::empty() };
    let previous = serde_json::json!({"previous": {"checkpoint": first.note()}});
    second.own(Kind::ShardOpen, "open 2", &previous.to_string(), 1000);
    second.push(&Header { source: Some("/test".into()), id: Some("5".into()), ..Header::new(Kind::Event, 1000, b"x") }, b"x");
    let options = Options::new(Policy::of_logs([first.key.verifier(), second.key.verifier()]));
    let reports = verify(&[&first.files(), &second.files()], &options, &mut |_| {}).unwrap();
    assert_eq!(reports[0].findings, []);
    assert_eq!(bad(&reports[1]), (Some(1), "tile/entries/000.p/2", None));
    assert_eq!(reports[1].findings[0].what, "the same event is entry 5 already");
}

#[test]
fn p09_an_entry_that_was_signed_and_is_wrong_is_named_with_the_byte_of_its_leaf() {
    for size in [1, 2, 12] {
        let mut log = Log::of(size);
        let start: usize = log.leaves.iter().map(|leaf| leaf.len() + 2).sum();
        log.leaves.push(b"no header".to_vec());
        let report = caught(&log, "no header", |_| {});
        assert_eq!((bad(&report).0, bad(&report).2), (Some(size), Some(start as u64 + 2)));
    }
    let mut log = Log::empty();
    log.leaves.push(b"no header".to_vec());
    assert_eq!(bad(&caught(&log, "no header", |_| {})).2, Some(2));
}

#[test]
fn p09_a_tile_that_is_too_short_or_too_long_is_named_where_it_ends_or_should() {
    let log = Log::of(300);
    for (name, first, right) in [("tile/0/000", 0, 8192), ("tile/0/001.p/44", 256, 1408), ("tile/1/000.p/1", 0, 32)] {
        for length in [0, 1, right - 1, right + 1, right + 32] {
            let report = caught(&log, name, |files| files.0.get_mut(name).unwrap().resize(length, 0));
            assert_eq!(bad(&report), (Some(first), name, Some(length.min(right) as u64)));
            assert_eq!(report.first_bad().unwrap().what, format!("{length} bytes instead of {right}"));
        }
    }
}

#[test]
fn p09_an_entry_and_the_right_edge_changed_at_once() {
    let log = Log::of(600);
    let start = |entry: usize| log.leaves[entry / 256 * 256..entry].iter().map(|leaf| leaf.len() + 2).sum::<usize>();
    for edge in ["tile/0/002.p/88", "tile/1/000.p/2"] {
        for (bundle, entry) in
            [("tile/entries/000", 0), ("tile/entries/000", 10), ("tile/entries/001", 300), ("tile/entries/002.p/88", 599)]
        {
            let report = caught(&log, edge, |files| {
                files.0.get_mut(edge).unwrap()[0] ^= 1;
                files.0.get_mut(bundle).unwrap()[start(entry) + 10] ^= 1;
            });
            // The hash of entry 512 was changed itself, which comes before 599.
            let (at, name) = if (edge, entry) == ("tile/0/002.p/88", 599) { (512, "tile/entries/002.p/88") } else { (entry, bundle) };
            assert_eq!(bad(&report), (Some(at as u64), name, Some(start(at) as u64)), "{edge} {entry}");
        }
        // The edge alone: the entries lead to the signed root.
        let report = caught(&log, edge, |files| files.0.get_mut(edge).unwrap()[32] ^= 1);
        let entry = if edge.starts_with("tile/0") { 513 } else { 256 };
        assert_eq!(bad(&report), (Some(entry), edge, Some(32)));
    }
}

#[test]
fn p09_a_bundle_that_cannot_be_taken_apart_and_the_right_edge_changed_at_once() {
    let log = Log::of(600);
    let start = |entry: usize| log.leaves[entry / 256 * 256..entry].iter().map(|leaf| leaf.len() + 2).sum::<usize>();
    let check = |bundle: &str, entry: usize, change: &dyn Fn(&mut Vec<u8>)| {
        let report = caught(&log, bundle, |files| {
            files.0.get_mut("tile/1/000.p/2").unwrap()[0] ^= 1;
            change(files.0.get_mut(bundle).unwrap());
        });
        assert_eq!(bad(&report), (Some(entry as u64), bundle, Some(start(entry) as u64)));
    };
    for (bundle, entry) in [("tile/entries/000", 0), ("tile/entries/000", 10), ("tile/entries/001", 511), ("tile/entries/002.p/88", 599)] {
        // Cut within the entry, at its beginning, and within its length; and a length that leads beyond the end.
        for length in [0, 1, 2, 7] {
            check(bundle, entry, &|bytes| bytes.truncate(start(entry) + length));
        }
        check(bundle, entry, &|bytes| bytes[start(entry)] = 0xff);
    }
    // What is behind the last entry is told with that.
    let report = caught(&log, "more", |files| {
        files.0.get_mut("tile/1/000.p/2").unwrap()[0] ^= 1;
        files.0.get_mut("tile/entries/001").unwrap().push(0);
    });
    assert_eq!((bad(&report).0, bad(&report).1), (Some(511), "tile/entries/001"));
}
