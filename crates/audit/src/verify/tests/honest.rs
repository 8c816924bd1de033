//! What is whole verifies, and says what was checked.

use fte_tlog::KeyAlgorithm;

use super::building::{ORIGIN, key};
use super::*;

#[test]
fn whole_logs_verify_at_every_kind_of_size() {
    for size in [0, 1, 2, 3, 255, 256, 257, 511, 512, 513, 1025] {
        let log = Log::of(size);
        let report = verified(&log.files(), &options(&log));
        assert_eq!(report.findings, [], "{size}");
        assert_eq!((report.entries, report.gaps), (Tally { good: size, all: size }, 0), "{size}");
        assert_eq!(report.origin, ORIGIN);
    }
}

#[test]
fn more_than_256_full_tiles_verify_by_several_threads() {
    let log = Log::of(70_000);
    let options = Options { threads: NonZero::new(3).unwrap(), ..options(&log) };
    let mut last = 0;
    let files = log.files();
    let reports = verify(&[&files], &options, &mut |progress| {
        assert!(progress.done > last && progress.all == 70_000);
        last = progress.done;
    });
    let report = &reports.unwrap()[0];
    let line = "checkpoints 1/1 · bundles 274/274 · entries 70000/70000 · gaps 0 · witnesses 0/0 · anchor none · first bad entry: none";
    assert_eq!((report.to_string().as_str(), last), (line, 70_000));
}

#[test]
fn the_partial_tiles_of_earlier_sizes_may_be_there() {
    let log = Log::of(600);
    let mut files = log.files();
    for size in [3, 256, 300, 599] {
        for (name, bytes) in log.until(size).files().0 {
            files.0.entry(name).or_insert(bytes);
        }
    }
    files.0.insert("tile/0/002.tmp".to_owned(), b"half a".to_vec());
    assert_eq!(verified(&files, &options(&log)).findings, []);
}

#[test]
fn a_range_is_verified_by_itself() {
    let log = Log::of(1000);
    let mut files = log.files();
    // Nothing outside of the range is looked at, but for what leads to the root.
    files.0.remove("tile/entries/000");
    files.0.remove("tile/entries/003.p/232");
    let report = verified(&files, &Options { range: Some(300..700), ..options(&log) });
    assert_eq!((report.findings.as_slice(), report.entries), (&[][..], Tally { good: 400, all: 400 }));
    let beyond = verify(&[&files], &Options { range: Some(300..1001), ..options(&log) }, &mut |_| {});
    assert!(matches!(beyond, Err(VerifyError::Range { size: 1000, .. })));
}

#[test]
fn a_large_payload_is_read_from_its_blob() {
    let mut log = Log::of(5);
    log.blob(&[7; 100_000]);
    assert_eq!(verified(&log.files(), &options(&log)).findings, []);
}

#[test]
fn shards_follow_each_other() {
    let first = Log::of(301);
    let mut second = Log { key: key("log.example/2027", 1), ..Log::empty() };
    second.own(
        crate::entry::leaf::Kind::ShardOpen,
        "open 2",
        &serde_json::json!({"previous": {"checkpoint": first.note()}}).to_string(),
        1000,
    );
    let options = Options::new(Policy::of_logs([first.key.verifier(), second.key.verifier()]));
    let check = |first: &Files, second: &Files| verify(&[first, second], &options, &mut |_| {}).unwrap().pop().unwrap();
    let report = check(&first.files(), &second.files());
    assert_eq!((report.findings.as_slice(), report.checkpoints), (&[][..], Tally { good: 2, all: 2 }));
    // The first shard was cut, and signed again with its key.
    let report = check(&first.until(299).files(), &second.files());
    assert_eq!(report.first_bad().map(|bad| bad.entry), Some(Some(0)));
    // Alone it verifies, with the key that the first had under another name.
    let alone = Options::new(Policy::of_logs([second.key.verifier()]));
    assert_eq!(verify(&[&second.files()], &alone, &mut |_| {}).unwrap()[0].findings, []);
}

#[test]
fn what_publishers_counted_and_is_not_there_is_a_gap() {
    let mut log = Log::of(9);
    log.event(9 + 4 * 5);
    let report = verified(&log.files(), &options(&log));
    assert_eq!((report.gaps, report.is_incomplete(), report.is_tampered()), (5, true, false));
    assert_eq!(report.findings, []);
    let [finding] = &report.behind_gaps[..] else { panic!("{:?}", report.behind_gaps) };
    assert!(finding.entry == Some(report.size - 1) && finding.what.ends_with("are not in the log"), "{finding:?}");
}

#[test]
fn anchors_and_witnesses_are_told_apart() {
    let log = Log::of(700);
    let (files, base) = (log.files(), options(&log));
    let anchor = |options: &Options| {
        let report = verified(&files, options);
        assert_eq!(report.findings, []);
        report.anchor
    };
    assert_eq!(anchor(&base), Anchor::None);
    for size in [1, 255, 256, 699, 700] {
        let note = log.until(size).note().into_bytes();
        assert_eq!(anchor(&Options { remembered: vec![note.clone()], ..base.clone() }), Anchor::Remembered);
        assert_eq!(anchor(&Options { given: vec![note.clone()], remembered: vec![note], ..base.clone() }), Anchor::Given);
    }
    // That an empty log came before excludes nothing.
    assert_eq!(anchor(&Options { remembered: vec![log.until(0).note().into_bytes()], ..base.clone() }), Anchor::None);
    let witness = fte_tlog::SignerKey::new("witness.example", KeyAlgorithm::CosignatureV1, &[9; 32]).unwrap();
    let policy: Policy = format!("log {}\nwitness w {}\nquorum w", log.key.verifier(), witness.verifier()).parse().unwrap();
    let witnessed = Options { policy, ..base };
    let report = verified(&files, &witnessed);
    assert!(report.is_incomplete() && !report.is_tampered() && report.anchor == Anchor::None);
    let mut files = log.files();
    let note = fte_tlog::SignedNote::parse(log.note().as_bytes()).unwrap();
    let note = note.clone().with(witness.sign(note.text(), 5)).to_string();
    files.0.insert("checkpoint".to_owned(), note.into_bytes());
    let report = verified(&files, &witnessed);
    assert_eq!((report.anchor, report.witnesses, report.findings.as_slice()), (Anchor::Witnessed, Tally { good: 1, all: 1 }, &[][..]));
    assert_eq!(report.witnessed_size, 700);
    // An earlier one that was cosigned, beside the newest.
    for size in [1, 256, 700] {
        let mut files = log.files();
        files.0.insert(WITNESSED.to_owned(), cosigned(&log.until(size), &witness));
        let report = verified(&files, &witnessed);
        assert_eq!((report.anchor, report.findings.as_slice(), report.witnessed_size), (Anchor::Witnessed, &[][..], size as u64));
        assert_eq!((report.witnesses, report.checkpoints), (Tally { good: 1, all: 1 }, Tally { good: 2, all: 2 }));
    }
}

fn cosigned(log: &Log, witness: &fte_tlog::SignerKey) -> Vec<u8> {
    let note = fte_tlog::SignedNote::parse(log.note().as_bytes()).unwrap();
    let signature = witness.sign(note.text(), 5);
    note.with(signature).to_string().into_bytes()
}

#[test]
fn p10_a_log_that_does_not_continue_what_witnesses_signed_is_found_with_or_without_their_keys() {
    let witness = fte_tlog::SignerKey::new("witness.example", KeyAlgorithm::CosignatureV1, &[9; 32]).unwrap();
    let (log, mut fork) = (Log::of(700), Log::of(600));
    fork.own(crate::entry::leaf::Kind::Event, "another", "{}", 1 << 40);
    let policy: Policy = format!("log {}\nwitness w {}\nquorum w", log.key.verifier(), witness.verifier()).parse().unwrap();
    for options in [options(&log), Options { policy, ..options(&log) }] {
        // Put back, and written anew from there.
        for now in [&log.until(650), &fork] {
            let mut files = now.files();
            files.0.insert(WITNESSED.to_owned(), cosigned(&log, &witness));
            let report = verified(&files, &options);
            assert!(report.is_tampered() && report.anchor != Anchor::Witnessed, "{report}");
        }
        // Not of this log; not signed by it.
        for note in [cosigned(&Log { key: super::building::key("other.example/2026", 1), ..log.clone() }, &witness), b"nothing".to_vec()] {
            let mut files = log.files();
            files.0.insert(WITNESSED.to_owned(), note);
            let report = verified(&files, &options);
            assert!(report.is_tampered() && report.findings[0].file == WITNESSED, "{report:?}");
        }
    }
}
