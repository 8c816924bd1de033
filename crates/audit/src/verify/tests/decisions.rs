//! Each decision of the verifier by itself: on both of its sides, and at its edge.

use std::sync::atomic::{AtomicUsize, Ordering};

use fte_tlog::SignerKey;
use serde_json::json;

use super::building::{ORIGIN, key};
use super::*;
use crate::leaf::{Header, Kind};

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
fn what_was_kept_is_read_or_told_and_that_of_another_log_is_passed_over() {
    let log = Log::of(300);
    let given = |note: &str| verified(&log.files(), &Options { given: vec![note.as_bytes().to_vec()], ..options(&log) });
    let good = |note: &str| (given(note).findings.is_empty(), given(note).checkpoints, given(note).anchor);
    let own = log.until(200).note();
    assert_eq!(good(&own), (true, Tally { good: 2, all: 2 }, Anchor::Given));
    let other = Log { key: key("log.example/2025", 1), ..log.until(200) };
    assert_eq!(good(&other.note()), (true, Tally { good: 1, all: 1 }, Anchor::None));
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
    assert_eq!(second(Some(&first.note()), Some(&first)).findings, []);
    assert_eq!(second(None, None).findings, []);
    assert!(what(&second(None, Some(&first))).contains("follows no shard"));
    assert!(what(&second(Some(&first.until(19).note()), Some(&first))).contains("follows a shard"));
    // Alone there is nothing to compare with, and what it names must be signed all the same.
    assert_eq!(second(Some(&first.until(19).note()), None).findings, []);
    let forged = Log { key: key(ORIGIN, 2), ..first.clone() }.note();
    assert!(what(&second(Some(&forged), None)).contains("is not accepted"));
    assert!(what(&second(Some("no note"), None)).contains("is not accepted"));
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
    // It never stands still.
    let many: Vec<Files> = (300..330).map(|size| log.until(size).files()).collect();
    let report = verified(&many, 1);
    assert!(report.is_incomplete() && what(&report).contains("grows faster"), "{report:?}");
}
