//! Which checkpoint counts for the quorum: the newest, or the last one that witnesses have signed.

use fte_tlog::{KeyAlgorithm, SignerKey};

use super::*;

fn witness(seed: u8) -> SignerKey {
    SignerKey::new(format!("witness.example/{seed}"), KeyAlgorithm::CosignatureV1, &[seed; 32]).unwrap()
}

/// A log of 300 entries whose newest checkpoint these witnesses have signed; others that of 200.
fn witnessed(quorum: &str, newest: &[u8], earlier: &[u8]) -> Report {
    let log = Log::of(300);
    let cosigned = |log: &Log, seeds: &[u8]| {
        let note = SignedNote::parse(log.note().as_bytes()).unwrap();
        let text = note.text().to_owned();
        seeds.iter().fold(note, |note, seed| note.with(witness(*seed).sign(&text, 5))).to_string().into_bytes()
    };
    let witnesses: String = [11, 12, 13].map(|seed| format!("witness w{seed} {}\n", witness(seed).verifier())).concat();
    let policy = format!("log {}\n{witnesses}{quorum}", log.key.verifier()).parse().unwrap();
    let mut files = log.files();
    files.0.insert("checkpoint".to_owned(), cosigned(&log, newest));
    files.0.insert(WITNESSED.to_owned(), cosigned(&log.until(200), earlier));
    verified(&files, &Options { policy, ..options(&log) })
}

#[test]
fn the_newest_counts_unless_an_earlier_one_has_the_quorum_alone_or_more_witnesses() {
    let check = |quorum: &str, newest: &[u8], earlier: &[u8], good: u64, size: u64, met: bool| {
        let report = witnessed(quorum, newest, earlier);
        let what = format!("{quorum}: {newest:?} and {earlier:?}: {report:?}");
        assert_eq!((report.witnesses.good, report.witnessed_size, report.quorum_met), (good, size, met), "{what}");
        assert_eq!((report.is_incomplete(), report.is_tampered(), report.anchor == Anchor::Witnessed), (!met, false, met), "{what}");
    };
    check("quorum w11", &[11], &[], 1, 300, true);
    check("quorum w11", &[11], &[11], 1, 300, true);
    check("quorum w11", &[11], &[12], 1, 300, true);
    check("quorum w11", &[], &[11], 1, 200, true);
    check("quorum w11", &[12], &[11], 1, 200, true);
    check("quorum w11", &[12, 13], &[11], 1, 200, true);
    check("quorum w11", &[11], &[11, 12], 2, 200, true);
    check("group both all w11 w12\nquorum both", &[], &[11], 1, 200, false);
    check("group both all w11 w12\nquorum both", &[11], &[12], 1, 300, false);
    // However many have signed an earlier one: the newest has the quorum, and they are not it.
    check("quorum w11", &[11], &[12, 13], 1, 300, true);
}

#[test]
fn a_signature_of_a_witness_is_known_also_where_that_of_the_log_is_not() {
    let first = Log::of(20);
    let mut second = Log { key: super::building::key("log.example/2027", 2), ..Log::empty() };
    second.own(
        crate::entry::leaf::Kind::ShardOpen,
        "open 2",
        &serde_json::json!({"previous": {"checkpoint": first.note()}}).to_string(),
        100,
    );
    let witnesses: String = [11, 12].map(|seed| format!("witness w{seed} {}\n", witness(seed).verifier())).concat();
    let policy = format!("log {}\n{witnesses}quorum none", second.key.verifier()).parse().unwrap();
    let mut files = first.files();
    let note = SignedNote::parse(first.note().as_bytes()).unwrap();
    let cosignatures = [11, 12].map(|seed| witness(seed).sign(note.text(), 5));
    let note = cosignatures.into_iter().fold(note, SignedNote::with);
    files.0.insert("checkpoint".to_owned(), note.to_string().into_bytes());
    let reports = verify(&[&files, &second.files()], &Options { policy, ..options(&first) }, &mut |_| {}).unwrap();
    assert_eq!((reports[0].findings.as_slice(), reports[0].unknown_signatures), (&[][..], 1));
    assert_eq!(reports[0].witnesses, Tally { good: 2, all: 2 });
}
