//! Each decision of the verifier by itself: on both of its sides, and at its edge.

use std::sync::atomic::{AtomicUsize, Ordering};

use fte_tlog::SignerKey;
use serde_json::json;

use super::building::{ORIGIN, key};
use super::*;
use crate::entry::leaf::{Header, Kind};

fn what(report: &Report) -> &str {
    report.findings.first().map_or("", |finding| &finding.what)
}

#[test]
fn a_range_is_within_the_log_and_looks_at_nothing_else() {
    let log = Log::of(1000);
    let files = log.files();
    let ranged = |start, end| verify(&[&files], &Options { range: Some(Range { start, end }), ..options(&log) }, &mut |_| {});
    for (start, end, bundles) in [(0, 1000, 4), (999, 1000, 1), (300, 700, 2), (256, 512, 1), (255, 257, 2)] {
        let report = ranged(start, end).unwrap().pop().unwrap();
        assert_eq!(report.findings, []);
        assert_eq!((report.bundles, report.entries.good), (Tally { good: bundles, all: bundles }, end - start), "{start}..{end}");
    }
    for (start, end) in [(5, 5), (6, 5), (999, 1001), (1000, 1001)] {
        assert!(matches!(ranged(start, end), Err(VerifyError::Range { size: 1000, .. })), "{start}..{end}");
    }
    let mut files = log.files();
    files.0.insert("notes.txt".to_owned(), Vec::new());
    assert_eq!(verified(&files, &Options { range: Some(0..5), ..options(&log) }).findings, []);
    assert!(verified(&files, &options(&log)).is_tampered());
}

#[test]
fn a_range_is_read_by_any_number_of_threads() {
    let log = Log::of(1300);
    let files = log.files();
    for threads in 1..=4 {
        for range in [0..1300, 256..1300, 300..1100, 600..601, 1280..1300] {
            let all = range.end - range.start;
            let threads = NonZero::new(threads).unwrap();
            let report = verified(&files, &Options { range: Some(range.clone()), threads, ..options(&log) });
            assert_eq!((report.findings.as_slice(), report.entries), (&[][..], Tally { good: all, all }), "{threads} {range:?}");
        }
    }
}

#[test]
fn whether_the_keys_came_with_the_log_is_said() {
    let log = Log::of(3);
    for keys_from_log in [true, false] {
        assert_eq!(verified(&log.files(), &Options { keys_from_log, ..options(&log) }).keys_from_log, keys_from_log);
    }
}

#[test]
fn what_was_kept_is_read_or_told_and_so_is_that_nothing_of_its_log_is_here() {
    let log = Log::of(300);
    let given = |note: &str| verified(&log.files(), &Options { given: vec![note.as_bytes().to_vec()], ..options(&log) });
    let good = |note: &str| (given(note).findings.is_empty(), given(note).checkpoints, given(note).anchor);
    let own = log.until(200).note();
    assert_eq!(good(&own), (true, Tally { good: 2, all: 2 }, Anchor::Given));
    let other = Log { key: key("log.example/2025", 1), ..log.until(200) };
    assert_eq!(good(&other.note()), (false, Tally { good: 1, all: 1 }, Anchor::None));
    let report = given(&other.note());
    assert!(report.is_incomplete() && !report.is_tampered(), "{report:?}");
    assert!(report.findings[0].what.contains("the given checkpoint is of log.example/2025"), "{report:?}");
    // Of what is remembered by itself, that of another year of this log counts where all years are here, and that of another log never.
    let remembered = |origin: &str, is_whole| {
        let note = Log { key: key(origin, 1), ..log.until(200) }.note().into_bytes();
        verified(&log.files(), &Options { remembered: vec![note], is_whole, ..options(&log) }).findings.len()
    };
    assert_eq!(
        [("log.example/2025", true), ("log.example/2025", false), ("other.example/2026", true)].map(|(of, whole)| remembered(of, whole)),
        [1, 0, 0]
    );
    for bad in ["", "no note", &own[..own.len() - 1], &own.replacen("200", "201", 1), &Log { key: key(ORIGIN, 2), ..log.until(200) }.note()]
    {
        let report = given(bad);
        let finding = report.first_bad().unwrap_or_else(|| panic!("{bad:?} was passed over"));
        assert_eq!(
            (finding.file.as_str(), report.checkpoints, report.anchor),
            ("the given checkpoint", Tally { good: 1, all: 2 }, Anchor::None)
        );
    }
}

#[test]
fn witnesses_say_more_than_what_was_kept() {
    let log = Log::of(300);
    let witness = SignerKey::new("witness.example", fte_tlog::KeyAlgorithm::CosignatureV1, &[9; 32]).unwrap();
    let policy: Policy = format!("log {}\nwitness w {}\nquorum w", log.key.verifier(), witness.verifier()).parse().unwrap();
    let mut files = log.files();
    let note = SignedNote::parse(log.note().as_bytes()).unwrap();
    files.0.insert("checkpoint".to_owned(), note.clone().with(witness.sign(note.text(), 5)).to_string().into_bytes());
    // What was kept is looked at none the less; its own witnesses may be missing.
    let kept = |size| vec![log.until(size).note().into_bytes()];
    let report = verified(&files, &Options { policy: policy.clone(), given: kept(100), ..options(&log) });
    assert_eq!((report.findings.as_slice(), report.anchor, report.checkpoints.good), (&[][..], Anchor::Witnessed, 2));
    let longer = Log::of(301).note().into_bytes();
    assert!(verified(&files, &Options { policy, given: vec![longer], ..options(&log) }).is_tampered());
}

/// Verifies a first shard and a second that says this of the first.
fn second(previous: Option<&str>, first: Option<&Log>) -> Report {
    let mut log = Log { key: key("log.example/2027", 1), ..Log::empty() };
    let payload = previous.map_or_else(|| json!({}), |note| json!({"previous": {"checkpoint": note}}));
    log.own(Kind::ShardOpen, "open 2", &payload.to_string(), 1000);
    let options = Options::new(Policy::of_logs([key(ORIGIN, 1).verifier(), log.key.verifier()]));
    let (first, second) = (first.map(Log::files), log.files());
    let shards: Vec<&dyn Source> = first.iter().chain([&second]).map(|files| files as &dyn Source).collect();
    verify(&shards, &options, &mut |_| {}).unwrap().pop().unwrap()
}

#[test]
fn a_shard_says_how_the_one_before_ended() {
    let first = Log::of(20);
    let good = |previous: Option<&str>, first: Option<&Log>, checkpoints: u64| {
        let report = second(previous, first);
        assert_eq!((report.findings.as_slice(), report.checkpoints), (&[][..], Tally { good: checkpoints, all: checkpoints }));
    };
    good(Some(&first.note()), Some(&first), 2);
    good(None, None, 1);
    assert!(what(&second(None, Some(&first))).contains("follows no shard"));
    assert!(what(&second(Some(&first.until(19).note()), Some(&first))).contains("follows a shard"));
    // Alone there is nothing to compare with, and what it names must be signed all the same.
    good(Some(&first.until(19).note()), None, 2);
    let forged = Log { key: key(ORIGIN, 2), ..first.clone() }.note();
    assert!(what(&second(Some(&forged), None)).contains("is not accepted"));
    assert!(what(&second(Some("no note"), None)).contains("is not accepted"));
}

#[test]
fn a_shard_is_not_blamed_for_entries_of_an_earlier_one_that_were_not_read() {
    // A task that begins in the first shard, and goes on in those that follow.
    let first = Log::of(299);
    let next = |year: u16, before: &Log, entries: &[u64]| {
        let mut log = Log { key: key(&format!("log.example/{year}"), 1), ..Log::empty() };
        let previous = json!({"previous": {"checkpoint": before.note()}});
        log.own(Kind::ShardOpen, &format!("open {year}"), &previous.to_string(), i64::from(year - 2027) + 298);
        entries.iter().for_each(|index| log.event(*index));
        log
    };
    let check = |shards: &[Files]| {
        let options = Options { policy: Policy::of_logs([key("log.example", 1).verifier()]), ..options(&first) };
        let shards: Vec<&dyn Source> = shards.iter().map(|files| files as &dyn Source).collect();
        let reports = verify(&shards, &options, &mut |_| {}).unwrap();
        reports.iter().map(|report| (report.is_tampered(), report.is_incomplete())).collect::<Vec<_>>()
    };
    const GOOD: (bool, bool) = (false, false);
    const TAMPERED: (bool, bool) = (true, false);
    const INCOMPLETE: (bool, bool) = (false, true);
    let without = |log: &Log, lacking: fn(&str) -> bool| {
        let mut files = log.files();
        files.0.retain(|name, _| !lacking(name));
        files
    };
    let (whole, hole) = (next(2027, &first, &[299, 300]).files(), next(2027, &first, &[300]).files());
    assert_eq!(check(&[first.files(), whole.clone()]), [GOOD, GOOD]);
    assert_eq!(check(&[first.files(), hole.clone()]), [GOOD, TAMPERED]);
    assert_eq!(check(&[without(&first, |name| name == "tile/entries/001.p/43"), whole.clone()]), [INCOMPLETE, GOOD]);
    assert_eq!(check(&[without(&first, |name| name == "checkpoint"), whole]), [INCOMPLETE, GOOD]);
    // A file too much is no entry too few.
    let mut more = first.files();
    more.0.insert("notes.txt".to_owned(), Vec::new());
    assert_eq!(check(&[more, hole]), [TAMPERED, TAMPERED]);
    // A shard between them of which nothing can be read, or nothing is there.
    let second = next(2027, &first, &[299]);
    let third = next(2028, &second, &[300]).files();
    assert_eq!(check(&[first.files(), second.files(), third.clone()]), [GOOD, GOOD, GOOD]);
    for lacking in [|name: &str| name == "checkpoint", |name: &str| name != "checkpoint"] {
        assert_eq!(check(&[first.files(), without(&second, lacking), third.clone()]), [GOOD, INCOMPLETE, GOOD]);
    }
}

#[test]
fn a_key_that_follows_is_of_the_same_log_and_can_be_read() {
    for (said, expected) in
        [(key("log.example/other", 2).verifier().to_string(), "that of another log"), ("nonsense".to_owned(), "cannot be read")]
    {
        let mut log = Log::of(5);
        log.own(Kind::KeyRotated, "rotated", &json!({"key": said}).to_string(), 5);
        let report = verified(&log.files(), &options(&log));
        assert!(what(&report).contains(expected) && report.findings[0].entry == Some(5), "{report:?}");
    }
    let mut log = Log::of(5);
    log.own(Kind::TaskClosed, "closed", "{}", 5);
    assert!(what(&verified(&log.files(), &options(&log))).contains("cannot be read"));
}

#[test]
fn what_is_no_event_comes_once_for_each_topic() {
    let unparsed = |log: &mut Log, topic: &'static str, id: &'static str, kind| {
        log.push(&Header { topic: Some(topic.into()), id: Some(id.into()), source: None, ..Header::new(kind, 99, b"x") }, b"x");
    };
    let mut log = Log::of(5);
    unparsed(&mut log, "a", "1", Kind::Unparsed);
    unparsed(&mut log, "b", "1", Kind::Unparsed);
    unparsed(&mut log, "a", "2", Kind::Unparsed);
    // A contradiction has the identity of another entry.
    unparsed(&mut log, "a", "1", Kind::Conflict);
    assert_eq!(verified(&log.files(), &options(&log)).findings, []);
    unparsed(&mut log, "b", "1", Kind::Unparsed);
    assert_eq!(verified(&log.files(), &options(&log)).first_bad().unwrap().entry, Some(9));
}

#[test]
fn numbers_are_counted_for_events_of_a_counter_and_for_changes_of_status() {
    let numbered = |kind, epoch: Option<&'static str>, event_type: &'static str| {
        let mut log = Log::of(5);
        for number in [1, 4] {
            let id = format!("n{number}");
            let header = Header {
                source: Some("/s".into()),
                id: Some(id.into()),
                event_type: Some(event_type.into()),
                ..Header::new(kind, 99, b"x")
            };
            let task = (epoch.is_none()).then_some("t");
            let header = Header {
                epoch: epoch.map(Into::into),
                sequence: Some(number),
                task: task.map(Into::into),
                task_seq: task.map(|_| number / 4),
                ..header
            };
            log.push(&header, b"x");
        }
        verified(&log.files(), &options(&log)).gaps
    };
    assert_eq!(numbered(Kind::Event, Some("e2"), "t"), 2);
    assert_eq!(numbered(Kind::Event, None, "fte.status.changed"), 2);
    assert_eq!(numbered(Kind::Event, None, "fte.other"), 0);
    assert_eq!(numbered(Kind::Conflict, Some("e2"), "t"), 0);
}

#[test]
fn full_files_stand_for_partial_ones_that_they_replaced() {
    let (log, longer) = (Log::of(300), Log::of(600));
    let mut files = log.files();
    for name in ["tile/entries/001", "tile/0/001"] {
        files.0.remove(&format!("{name}.p/44"));
        files.0.insert(name.to_owned(), longer.files().0[name].clone());
    }
    // Beyond the size nobody promised anything, and files beyond it are told as such.
    let report = verified(&files, &options(&log));
    assert_eq!((report.entries, report.findings.len()), (Tally { good: 300, all: 300 }, 1));
    assert!(what(&report).contains("goes beyond the 300 entries"), "{report:?}");
    // Within the size they count to the byte.
    let bundle = files.0.get_mut("tile/entries/001").unwrap();
    bundle[60] ^= 1;
    assert_eq!(verified(&files, &options(&log)).first_bad().unwrap().entry, Some(256));
}

#[test]
fn bundles_of_earlier_sizes_are_the_beginning_of_the_present_ones() {
    let log = Log::of(300);
    let name = "tile/entries/001.p/20";
    let earlier = log.until(276).files().0[name].clone();
    let with = |bytes: Vec<u8>| {
        let mut files = log.files();
        files.0.insert(name.to_owned(), bytes);
        verified(&files, &options(&log))
    };
    assert_eq!(with(earlier.clone()).findings, []);
    let mut other = earlier.clone();
    other[30] ^= 1;
    let finding = with(other).first_bad().unwrap().clone();
    assert_eq!((finding.file.as_str(), finding.byte, finding.entry), (name, Some(30), Some(256)));
    assert!(with(earlier[..earlier.len() - 1].to_vec()).is_tampered());
    assert!(with(log.files().0["tile/entries/001.p/44"].clone()).is_tampered());
}

/// A log that grows while it is read: its checkpoint is another from some read of it on.
struct Growing<'a> {
    states: &'a [Files],
    /// How many reads of the checkpoint each state stands for.
    reads: usize,
    read: AtomicUsize,
}

impl Growing<'_> {
    fn now(&self) -> &Files {
        let state = self.read.load(Ordering::SeqCst) / self.reads;
        &self.states[state.min(self.states.len() - 1)]
    }
}

impl Source for Growing<'_> {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let found = self.now().read(name);
        if name == "checkpoint" {
            self.read.fetch_add(1, Ordering::SeqCst);
        }
        found
    }

    fn list(&self, folder: &str, seen: &mut dyn FnMut(&str) -> io::Result<()>) -> io::Result<bool> {
        self.now().list(folder, seen)
    }
}

#[test]
fn a_log_that_grows_meanwhile_is_verified_as_of_one_moment() {
    let log = Log::of(900);
    let states: Vec<Files> = [300, 400, 500].iter().map(|size| log.until(*size).files()).collect();
    let verified = |states: &[Files], reads| {
        let source = Growing { states, reads, read: AtomicUsize::new(0) };
        verify(&[&source], &options(&log), &mut |_| {}).unwrap().pop().unwrap()
    };
    // Its partial tiles went while the first checkpoint was read.
    let report = verified(&states, 1);
    assert_eq!((report.findings.as_slice(), report.size), (&[][..], 500));
    // Another came after they were read: the files behind the first one's size are no finding.
    let report = verified(&states, 2);
    assert_eq!((report.findings.as_slice(), report.size), (&[][..], 300));
    // Also where tiles above the lowest are replaced meanwhile.
    let states: Vec<Files> = [300, 600, 900].iter().map(|size| log.until(*size).files()).collect();
    let report = verified(&states, 2);
    assert_eq!((report.findings.as_slice(), report.size), (&[][..], 300));
    // It never stands still.
    let many: Vec<Files> = (300..330).map(|size| log.until(size).files()).collect();
    let report = verified(&many, 1);
    assert!(report.is_incomplete() && what(&report).contains("grows faster"), "{report:?}");
}

/// A log that says at its entry `at` that the key 2 follows the key 1, signed by these keys.
struct Rotated {
    log: Log,
    by: Vec<u8>,
}

impl Rotated {
    fn of(before: u64, after: u64, by: &[u8]) -> Self {
        let mut log = Log::of(before);
        let [present, next] = [1, 2].map(|seed| key(ORIGIN, seed).verifier().to_string());
        log.own(Kind::KeyRotated, "key-rotated", &json!({"key": next, "previous": present}).to_string(), 1000);
        for entry in 0..after {
            log.own(Kind::Read, &format!("read {entry}"), "{}", 1000);
        }
        Self { log, by: by.to_vec() }
    }

    fn note(&self, size: usize, by: &[u8]) -> Vec<u8> {
        let text = self.log.until(size).checkpoint().to_string();
        let note = fte_tlog::SignedNote::new(&*text).unwrap();
        by.iter().fold(note, |note, seed| note.with(key(ORIGIN, *seed).sign(&text, 0))).to_string().into_bytes()
    }

    fn verified(&self, known: &[u8], given: &[Vec<u8>], range: Option<Range<u64>>) -> Report {
        let mut files = self.log.files();
        files.0.insert("checkpoint".to_owned(), self.note(self.log.leaves.len(), &self.by));
        let policy = Policy::of_logs(known.iter().map(|seed| key(ORIGIN, *seed).verifier()));
        verified(&files, &Options { given: given.to_vec(), range, policy, ..options(&self.log) })
    }
}

#[test]
fn each_side_of_a_change_of_keys_is_checked_against_its_own_key() {
    // Signed by both: whoever knows one of the keys learns the other. By the new one alone: also who knows both.
    for (by, known, unknown) in [(&[1, 2][..], &[1][..], 0), (&[1, 2], &[2], 1), (&[2, 1], &[1, 2], 0), (&[2], &[2], 0), (&[2], &[1, 2], 0)]
    {
        for after in [0, 1, 300] {
            let report = Rotated::of(20, after, by).verified(known, &[], None);
            assert_eq!((report.findings.as_slice(), report.unknown_signatures), (&[][..], unknown), "{by:?} {known:?}");
            assert_eq!(report.checkpoints, Tally { good: 1, all: 1 });
        }
    }
    // The old one alone counts up to the entry, and no further.
    for (after, known) in [(0, &[1][..]), (5, &[1]), (5, &[1, 2])] {
        let report = Rotated::of(20, after, &[1]).verified(known, &[], None);
        assert!(what(&report).contains("it signs with another key now") && report.findings[0].file == "checkpoint", "{report:?}");
    }
    assert!(what(&Rotated::of(20, 5, &[1]).verified(&[2], &[], None)).contains("no signature is of a key that is known"));
    // A second key's signature that is wrong, or a stranger's in its place.
    assert!(what(&Rotated::of(20, 5, &[1, 3]).verified(&[1], &[], None)).contains("it signs with another key now"));
}

#[test]
fn what_was_kept_is_of_the_key_of_its_time() {
    let log = Rotated::of(20, 30, &[2]);
    let check = |size: usize, by: &[u8], known: &[u8], expected: &str| {
        let report = log.verified(known, &[log.note(size, by)], None);
        match expected {
            "" => assert_eq!((report.findings.as_slice(), report.anchor), (&[][..], Anchor::Given), "{size} {by:?} {known:?}"),
            expected => {
                assert!(what(&report).contains(expected) && report.findings[0].file == "the given checkpoint", "{size} {by:?}: {report:?}")
            }
        }
    };
    for known in [&[2][..], &[1, 2]] {
        check(20, &[1], known, "");
        check(21, &[1, 2], known, "");
        check(40, &[2], known, "");
        check(51, &[2], known, "");
        // A key beyond its time.
        check(20, &[2], known, "from before the log changed its key");
        check(21, &[1], known, "it signs with another key now");
        check(20, &[3], known, "from before the log changed its key");
    }
    // Of a part of the log only that much is known of its keys.
    let part = |range| log.verified(&[2], &[], Some(range)).findings;
    for range in [0..10, 10..30, 25..51, 21..51, 20..51, 0..51] {
        assert_eq!(part(range.clone()), [], "{range:?}");
    }
    let old = Rotated::of(20, 30, &[1]);
    assert_eq!(old.verified(&[1], &[], Some(21..51)).findings, []);
    assert!(what(&old.verified(&[1], &[], Some(20..51))).contains("it signs with another key now"));
}

#[test]
fn a_part_of_the_log_says_nothing_of_the_keys_before_and_behind_it() {
    // The key 2 follows at entry 20 and is lost; at entry 24 the key 3 follows in its place.
    let mut log = Rotated::of(20, 3, &[3]);
    let [present, next] = [1, 3].map(|seed| key(ORIGIN, seed).verifier().to_string());
    log.log.own(Kind::KeyRotated, "again", &json!({"key": next, "previous": present}).to_string(), 1000);
    log.log.own(Kind::Read, "last", "{}", 1000);
    let part = |range, given: &[Vec<u8>]| log.verified(&[1, 2, 3], given, Some(range)).findings;
    for range in [0..22, 0..24, 22..24, 0..25, 24..26, 25..26] {
        assert_eq!(part(range.clone(), &[]), [], "{range:?}");
    }
    // What was kept is from before the part that was read, or of an end behind it.
    for (size, by) in [(21, 2), (20, 1), (5, 1), (23, 2), (25, 3)] {
        for range in [0..26, size as u64..25, size as u64..26, 0..22, 25..26] {
            if !range.is_empty() {
                assert_eq!(part(range.clone(), &[log.note(size, &[by])]), [], "{size} {range:?}");
            }
        }
    }
    // That of no entry is of the key that begins.
    assert_eq!(part(0..26, &[log.note(0, &[1])]), []);
    assert!(part(0..26, &[log.note(0, &[3])])[0].what.contains("from before the log changed its key"));
}

#[test]
fn a_key_is_named_by_the_one_before_it_and_not_by_an_event() {
    let rotated = |from: u8, to: u8, name: &str| {
        let mut log = Rotated::of(20, 3, &[3]);
        let [present, next] = [from, to].map(|seed| key(name, seed).verifier().to_string());
        log.log.own(Kind::KeyRotated, "again", &json!({"key": next, "previous": present}).to_string(), 1000);
        log
    };
    // In order; and another successor in the place of one that was lost.
    for from in [2, 1] {
        assert_eq!(rotated(from, 3, ORIGIN).verified(&[3], &[], None).findings, []);
    }
    let report = rotated(4, 3, ORIGIN).verified(&[3], &[], None);
    assert!(what(&report).contains("which was not the log's") && report.findings[0].entry == Some(24), "{report:?}");
    assert!(what(&rotated(2, 3, "log.example/other").verified(&[3], &[], None)).contains("that of another log"));
    // What a publisher says is no announcement.
    let mut log = Log::of(5);
    let payload = json!({"key": key(ORIGIN, 2).verifier().to_string(), "previous": key(ORIGIN, 1).verifier().to_string()}).to_string();
    for kind in [Kind::Event, Kind::Conflict, Kind::Unparsed] {
        let header =
            Header { source: Some("/fte/audit".into()), id: Some("key-rotated".into()), ..Header::new(kind, 99, payload.as_bytes()) };
        log.push(&header, payload.as_bytes());
    }
    assert_eq!(verified(&log.files(), &options(&log)).findings, []);
}

#[test]
fn an_edit_at_the_entry_that_changes_the_key_is_found_there() {
    let log = Rotated::of(20, 5, &[1, 2]);
    let mut other = log.log.clone();
    other.leaves[20] = {
        let mut forged = Log::of(0);
        let [present, next] = [1, 4].map(|seed| key(ORIGIN, seed).verifier().to_string());
        forged.own(Kind::KeyRotated, "key-rotated", &json!({"key": next, "previous": present}).to_string(), 1000);
        forged.leaves.remove(0)
    };
    let mut files = other.files();
    files.0.insert("checkpoint".to_owned(), log.note(26, &[1, 2]));
    let policy = Policy::of_logs([1, 2].map(|seed| key(ORIGIN, seed).verifier()));
    let report = verified(&files, &Options { policy: policy.clone(), ..options(&log.log) });
    assert!(report.is_tampered(), "{report}");
    // One bit of the entry alone.
    let mut files = log.log.files();
    files.0.insert("checkpoint".to_owned(), log.note(26, &[1, 2]));
    let bundle = files.0.get_mut("tile/entries/000.p/26").unwrap();
    let at = bundle.windows(12).position(|bytes| bytes == b"key_rotated\"").unwrap();
    bundle[at] ^= 1;
    let report = verified(&files, &Options { policy, ..options(&log.log) });
    assert_eq!(report.first_bad().unwrap().entry, Some(20));
    // The thief of the old key puts a history of his own in the place of what followed: the successor has not signed that.
    let mut forged = log.log.until(20);
    forged.own(Kind::Read, "another", "{}", 1000);
    let policy = Policy::of_logs([key(ORIGIN, 2).verifier()]);
    assert!(verified(&forged.files(), &Options { policy, ..options(&forged) }).is_tampered());
}

#[test]
fn a_later_shard_answers_for_the_keys_of_those_before_it_and_for_no_other_end() {
    let first = Log::of(20);
    let mut second = Log { key: key("log.example/2027", 2), ..Log::empty() };
    second.own(Kind::ShardOpen, "open 2", &json!({"previous": {"checkpoint": first.note()}}).to_string(), 100);
    let check = |first: &Files, second: &Files, known: &SignerKey| {
        let options = Options { threads: NonZero::<usize>::MIN, ..Options::new(Policy::of_logs([known.verifier()])) };
        verify(&[first, second], &options, &mut |_| {}).unwrap()
    };
    let findings = |reports: &[Report]| reports.iter().flat_map(|report| report.findings.clone()).collect::<Vec<_>>();
    let reports = check(&first.files(), &second.files(), &second.key);
    assert_eq!(findings(&reports), []);
    assert_eq!(reports.iter().map(|report| report.checkpoints.good).collect::<Vec<_>>(), [1, 2]);
    // Not for one that ended otherwise, and not where nobody knows who signed the later one.
    let thief = Log { key: key(ORIGIN, 5), ..first.until(19) };
    assert!(!findings(&check(&thief.files(), &second.files(), &second.key)).is_empty());
    assert!(!findings(&check(&first.files(), &second.files(), &key("log.example/2027", 6))).is_empty());
    let mut silent = second.clone();
    silent.leaves.clear();
    silent.open(None);
    assert!(!findings(&check(&first.files(), &silent.files(), &second.key)).is_empty());
    // A later shard that cannot be read answers for nothing.
    let mut gone = second.files();
    gone.0.remove("checkpoint");
    let reports = check(&first.files(), &gone, &second.key);
    assert!(reports[0].is_tampered() && what(&reports[0]).contains("no signature is of a key that is known"), "{reports:?}");
    // What an earlier shard named last, the later ones are signed with.
    let mut rotated = Rotated::of(20, 3, &[1, 2]).log;
    rotated.key = key(ORIGIN, 2);
    for (seed, is_good) in [(2, true), (1, false)] {
        let mut second = Log { key: key("log.example/2027", seed), ..Log::empty() };
        second.own(Kind::ShardOpen, "open 2", &json!({"previous": {"checkpoint": rotated.note()}}).to_string(), 2000);
        let policy = Policy::of_logs([1, 2].map(|seed| key(ORIGIN, seed).verifier()));
        let options = Options { threads: NonZero::<usize>::MIN, ..Options::new(policy) };
        let reports = verify(&[&rotated.files(), &second.files()], &options, &mut |_| {}).unwrap();
        assert_eq!(findings(&reports).is_empty(), is_good, "{reports:?}");
    }
}

#[test]
fn how_the_shard_before_ended_may_be_signed_with_the_key_that_this_one_says_it_had() {
    let first = Log::of(20);
    // A shard of which the key 2 alone is known, and that says from whom that took over.
    let check = |said: Option<[u8; 2]>| {
        let mut log = Log { key: key("log.example/2027", 2), ..Log::empty() };
        log.open(Some(&first.note()));
        if let Some(keys) = said {
            let [present, next] = keys.map(|seed| key("log.example/2027", seed).verifier().to_string());
            log.own(Kind::KeyRotated, "key-rotated", &json!({"key": next, "previous": present}).to_string(), 1000);
        }
        verified(&log.files(), &options(&log))
    };
    let report = check(Some([1, 2]));
    assert_eq!((report.findings.as_slice(), report.checkpoints), (&[][..], Tally { good: 2, all: 2 }));
    for said in [None, Some([3, 2])] {
        let report = check(said);
        assert!(what(&report).contains("is not accepted") && report.findings[0].entry == Some(0), "{said:?}: {report:?}");
        assert_eq!(report.checkpoints, Tally { good: 1, all: 2 });
    }
}
