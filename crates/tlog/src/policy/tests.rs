use super::*;
use crate::hash::leaf_hash;
use crate::key::{KeyAlgorithm, SignerKey};

fn log() -> SignerKey {
    SignerKey::new("log.example/1", KeyAlgorithm::Ed25519, &[1; 32]).unwrap()
}

fn witness(seed: u8) -> SignerKey {
    SignerKey::new(format!("witness.example/{seed}"), KeyAlgorithm::CosignatureV1, &[seed; 32]).unwrap()
}

/// The policy of the specification's example, with keys.
fn example() -> String {
    let mut text = format!("# two operators\n log {}\thttps://log.example/1\n\n", log().verifier());
    for (name, seed) in ["X1", "X2", "X3", "Y1", "Y2", "Y3"].into_iter().zip(10..) {
        text += &format!("witness {name} {}\n", witness(seed).verifier());
    }
    text + "group X-witnesses 2 X1 X2 X3\ngroup Y-witnesses any Y1 Y2 Y3\ngroup X-and-Y all X-witnesses Y-witnesses\nquorum X-and-Y\n"
}

fn signed_by(seeds: &[u8]) -> String {
    let checkpoint = Checkpoint { origin: "log.example/1".to_owned(), size: 1, root: leaf_hash(b"") };
    let text = checkpoint.to_string();
    let note = SignedNote::new(&*text).unwrap().with(log().sign(&text, 0));
    seeds.iter().fold(note, |note, seed| note.with(witness(*seed).sign(&text, 5))).to_string()
}

#[test]
fn a_quorum_of_groups_counts_who_signed() {
    let policy: Policy = example().parse().unwrap();
    let check = |seeds: &[u8], met| {
        let note = signed_by(seeds);
        let judged = policy.judge(note.as_bytes()).unwrap();
        assert_eq!((judged.quorum_met, policy.accept(note.as_bytes()).is_ok()), (met, met), "{seeds:?}");
    };
    check(&[10, 11, 13], true);
    check(&[12, 11, 15], true);
    check(&[10, 11, 12, 13, 14, 15], true);
    check(&[10, 11, 12], false);
    check(&[10, 13, 14, 15], false);
    check(&[10, 10, 13], false);
    check(&[], false);
    let note = signed_by(&[10, 99]);
    let judged = policy.judge(note.as_bytes()).unwrap();
    assert_eq!(judged.witnesses.iter().map(|(witness, time)| (witness.name.as_str(), *time)).collect::<Vec<_>>(), [("X1", 5)]);
    assert_eq!((judged.unknown_signatures, judged.logs), (1, vec![&log().verifier()]));
}

#[test]
fn a_policy_is_written_as_it_is_read() {
    let policy: Policy = example().parse().unwrap();
    assert_eq!(policy.to_string().parse::<Policy>().unwrap(), policy);
    assert_eq!((policy.logs[0].url.as_deref(), policy.quorum.as_deref()), (Some("https://log.example/1"), Some("X-and-Y")));
    let none: Policy = "quorum none".parse().unwrap();
    assert_eq!((none.quorum.as_deref(), none.to_string().as_str()), (None, "quorum none\n"));
}

#[test]
fn a_checkpoint_of_another_log_or_with_a_wrong_signature_is_refused() {
    let policy: Policy = example().parse().unwrap();
    let note = signed_by(&[10, 11, 13]);
    let other = SignerKey::new("log.example/2", KeyAlgorithm::Ed25519, &[2; 32]).unwrap();
    let of_other: Policy = format!("log {}\nquorum none", other.verifier()).parse().unwrap();
    assert!(matches!(of_other.judge(note.as_bytes()), Err(PolicyError::UnknownLog { .. })));
    // The right origin, signed only by another log that the policy knows.
    let both: Policy = format!("log {}\nlog {}\nquorum none", log().verifier(), other.verifier()).parse().unwrap();
    let text = "log.example/1\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n";
    let foreign = SignedNote::new(text).unwrap().with(other.sign(text, 0)).to_string();
    assert_eq!(both.judge(foreign.as_bytes()), Err(PolicyError::Note { source: NoteError::NoKnownKey }));
    // A known witness's bad signature beside good ones.
    let bad = SignedNote::parse(note.as_bytes()).unwrap().with(witness(12).sign("something else\n", 5)).to_string();
    assert!(matches!(policy.judge(bad.as_bytes()), Err(PolicyError::Note { source: NoteError::BadSignature { .. } })));
}

#[test]
fn what_is_no_policy_is_refused_with_its_line() {
    let (log, one) = (log().verifier(), witness(10).verifier());
    let check = |text: String, line: usize| match text.parse::<Policy>() {
        Err(PolicyError::Line { line: at, .. } | PolicyError::Key { line: at, .. }) => assert_eq!(at, line, "{text}"),
        other => panic!("{text}: {other:?}"),
    };
    assert_eq!("".parse::<Policy>(), Err(PolicyError::NoQuorum));
    check("quorum none\nquorum none".to_owned(), 2);
    check("quorum all".to_owned(), 1);
    check(format!("log {one}\nquorum none"), 1);
    check(format!("log {log}\nlog {log}\nquorum none"), 2);
    check(format!("witness w {log}\nquorum none"), 1);
    check(format!("witness none {one}\nquorum none"), 1);
    check(format!("witness w {one}\nwitness w {}\nquorum w", witness(11).verifier()), 2);
    check(format!("witness w {one}\nwitness v {one}\nquorum w"), 2);
    check(format!("witness w {one}\ngroup g 0 w\nquorum g"), 2);
    check(format!("witness w {one}\ngroup g 2 w\nquorum g"), 2);
    check(format!("witness w {one}\ngroup g any w\ngroup h any w\nquorum g"), 3);
    check(format!("witness w {one}\ngroup g any none\nquorum g"), 2);
    check(format!("group g any w\nwitness w {one}\nquorum g"), 1);
    check(format!("witness w {one}\ngroup g any\nquorum w"), 2);
    check(format!("witness w {one}\r\nquorum w"), 1);
    check("log key\nquorum none".to_owned(), 1);
    check(format!("log {log} https://log.example more\nquorum none"), 1);
    check(format!("witness w {one} https://witness.example more\nquorum w"), 1);
    check("Quorum none".to_owned(), 1);
}

#[test]
fn a_policy_has_so_many_lines_and_no_more_and_comments_do_not_count() {
    let with = |logs: u8| {
        let key = |seed: u8| SignerKey::new("log.example/1", KeyAlgorithm::Ed25519, &[seed; 32]).unwrap().verifier();
        let logs: String = (0..logs).map(|seed| format!("# one more\n\nlog {}\n", key(seed))).collect();
        format!("{logs}quorum none").parse::<Policy>()
    };
    assert_eq!(with(192).unwrap().logs.len(), 192);
    // The first that is too much is named: the quorum, or a log before it.
    for (more, at) in [(193, 580), (194, 582)] {
        assert!(matches!(with(more), Err(PolicyError::Line { line, .. }) if line == at), "{more}");
    }
}
