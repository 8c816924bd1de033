use super::*;
use crate::key::{KeyAlgorithm, SignerKey};

const EXAMPLE: &str = "This is an example message.\n\n\u{2014} example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";
const EXAMPLE_KEY: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";

fn signer(name: &str, seed: u8) -> SignerKey {
    SignerKey::new(name, KeyAlgorithm::Ed25519, &[seed; 32]).unwrap()
}

#[test]
fn the_example_of_the_specification_verifies() {
    let key: VerifierKey = EXAMPLE_KEY.parse().unwrap();
    let note = SignedNote::parse(EXAMPLE.as_bytes()).unwrap();
    assert_eq!(note.verify([&key]).unwrap(), [Verified { key: &key, time_s: 0 }]);
    assert_eq!((note.text(), note.to_string().as_str()), ("This is an example message.\n", EXAMPLE));
}

#[test]
fn no_bit_of_a_note_can_change() {
    let key: VerifierKey = EXAMPLE_KEY.parse().unwrap();
    for bit in 0..EXAMPLE.len() * 8 {
        let mut bytes = EXAMPLE.as_bytes().to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let opened = SignedNote::parse(&bytes).and_then(|note| note.verify([&key]).map(|_| ()));
        assert!(opened.is_err(), "bit {bit} of byte {} is not missed", bit / 8);
    }
}

#[test]
fn a_known_key_that_fails_rejects_the_note_and_an_unknown_one_does_not() {
    let (good, bad, unknown) = (signer("good", 1), signer("bad", 2), signer("unknown", 3));
    let text = "text\n";
    let wrong = bad.sign("another text\n", 0);
    let note = SignedNote::new(text).unwrap().with(unknown.sign("nothing\n", 0)).with(good.sign(text, 0)).with(wrong);
    let (good, bad) = (good.verifier(), bad.verifier());
    assert_eq!(note.verify([&good]).unwrap().len(), 1);
    assert_eq!(note.verify([&good, &bad]), Err(NoteError::BadSignature { name: "bad".to_owned() }));
    assert_eq!(note.verify([&signer("other", 9).verifier()]), Err(NoteError::NoKnownKey));
    // A second, wrong signature of a key whose first is right.
    let twice = SignedNote::new(text).unwrap().with(signer("good", 1).sign(text, 0)).with(signer("good", 1).sign("x\n", 0));
    assert_eq!(twice.verify([&good]), Err(NoteError::BadSignature { name: "good".to_owned() }));
}

#[test]
fn a_key_with_the_name_of_another_is_not_the_other() {
    let (mine, theirs) = (signer("name", 1), signer("name", 2));
    let note = SignedNote::new("text\n").unwrap().with(theirs.sign("text\n", 0));
    assert_eq!(note.verify([&mine.verifier()]), Err(NoteError::NoKnownKey));
}

#[test]
fn each_key_counts_once_and_a_signature_stands_once() {
    let (first, second) = (signer("first", 1), signer("second", 2));
    let witness = SignerKey::new("witness", KeyAlgorithm::CosignatureV1, &[3; 32]).unwrap();
    let text = "text\n";
    let signatures = [first.sign(text, 0), second.sign(text, 0), first.sign(text, 0), witness.sign(text, 5), witness.sign(text, 6)];
    let note = signatures.into_iter().fold(SignedNote::new(text).unwrap(), SignedNote::with);
    // The same signature again is none more; another of the same key is.
    assert_eq!(note.signatures().len(), 4);
    let keys = [first.verifier(), second.verifier(), witness.verifier()];
    let verified: Vec<_> =
        note.verify(&keys).unwrap().into_iter().map(|verified| (verified.key.name().to_owned(), verified.time_s)).collect();
    assert_eq!(verified, [("first".to_owned(), 0), ("second".to_owned(), 0), ("witness".to_owned(), 5)]);
}

#[test]
fn a_note_has_so_many_bytes_and_no_more() {
    let end = "\n\n\u{2014} a AAAAAAA=\n";
    let largest = format!("{}{end}", "x".repeat(NOTE_BYTES_MAX - end.len()));
    assert_eq!((largest.len(), SignedNote::parse(largest.as_bytes()).is_ok()), (1_048_576, true));
    assert_eq!(SignedNote::parse(format!("x{largest}").as_bytes()), Err(NoteError::TooLarge));
}

#[test]
fn the_text_ends_at_the_last_empty_line() {
    let text = "one\n\ntwo\n\n\u{2014} not a signature\n";
    let key = signer("name", 1);
    let note = SignedNote::new(text).unwrap().with(key.sign(text, 0));
    let read = SignedNote::parse(note.to_string().as_bytes()).unwrap();
    assert_eq!((read.text(), read.verify([&key.verifier()]).unwrap().len()), (text, 1));
}

#[test]
fn what_has_not_the_form_is_refused_with_its_place() {
    let check = |text: &str, error| assert_eq!(SignedNote::parse(text.as_bytes()), Err(error), "{text:?}");
    check("", NoteError::Form);
    check("text\n", NoteError::Form);
    check("text\n\n", NoteError::Form);
    check("text\r\n\n\u{2014} a AAAAAAA=\n", NoteError::Characters { at: 4 });
    check("text\n\n\u{2014} a AAAAAAA=", NoteError::Form);
    check("text\n\n- a AAAAAAA=\n", NoteError::SignatureLine { line: 3 });
    check("text\n\n\u{2014} a AAAAAAA=\n\u{2014} a+b AAAAAAA=\n", NoteError::SignatureLine { line: 4 });
    check("text\n\n\u{2014} a AAAAAA==\n", NoteError::SignatureLine { line: 3 });
    check("text\n\n\u{2014} a  AAAAAAA=\n", NoteError::SignatureLine { line: 3 });
    assert_eq!(SignedNote::parse(b"\xff"), Err(NoteError::Characters { at: 0 }));
    let many = format!("text\n\n{}", "\u{2014} a AAAAAAA=\n".repeat(SIGNATURES_MAX));
    assert_eq!(SignedNote::parse(many.as_bytes()).unwrap().signatures().len(), SIGNATURES_MAX);
    check(&format!("{many}\u{2014} a AAAAAAA=\n"), NoteError::TooMany);
}
