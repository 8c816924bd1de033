use proptest::prelude::*;

use super::*;
use crate::entry::canonical::canonical;

fn full(payload: &[u8]) -> Header<'static> {
    Header {
        flags: vec![Flag::ClockBack, Flag::OffsetRegression],
        source: Some("/fte/runner".into()),
        id: Some("ev\"il\u{1}\u{2028}\n".into()),
        event_type: Some("fte.action.recorded".into()),
        time: Some("2026-07-01T10:00:00Z".into()),
        tenant: Some("default".into()),
        task: Some("01980000-0000-7000-8000-000000000001".into()),
        task_seq: Some(7),
        agent: Some("écho".into()),
        action: Some("tool.called".into()),
        actor: Some("ada".into()),
        outcome: Some("success".into()),
        sequence: Some(3),
        epoch: Some("e".into()),
        topic: Some("fte.audit.actions".into()),
        partition: Some(-1),
        offset: Some(INTEGER_MAX),
        payload_ref: None,
        content: Some("c".into()),
        enc: Some(Enc { alg: "a".into(), key: "k".into(), nonce: "n".into() }),
        ..Header::new(Kind::Conflict, 1_782_900_000_000, payload)
    }
}

#[test]
fn a_leaf_is_a_canonical_line_and_the_exact_payload() {
    let payload = b"{\"a\" : 1}\n\xff\n";
    let leaf = encode(&full(payload), payload).unwrap();
    let end = leaf.iter().position(|byte| *byte == b'\n').unwrap();
    let line = std::str::from_utf8(&leaf[..end]).unwrap();
    assert_eq!(line, canonical(&serde_json::from_str(line).unwrap()), "in the form of RFC 8785");
    assert_eq!(&leaf[end + 1..], payload);
    let (header, found) = decode(&leaf).unwrap();
    assert_eq!((&header, found), (&full(payload), payload.as_slice()));
    check_payload(&header, found).unwrap();
    assert!(check_payload(&header, b"{\"a\" : 2}\n\xff\n").is_err());
}

#[test]
fn a_large_payload_is_named_and_not_held() {
    let payload = vec![b'x'; LEAF_BYTES_MAX];
    let mut header = Header::new(Kind::Event, 0, &payload);
    assert!(matches!(encode(&header, &payload), Err(LeafError::TooLong(_))));
    header.payload_ref = Some(header.payload_sha256);
    let leaf = encode(&header, &payload).unwrap();
    let (again, held) = decode(&leaf).unwrap();
    assert_eq!((held, again.payload_len), (b"".as_slice(), LEAF_BYTES_MAX as u64));
    check_payload(&again, &payload).unwrap();
    let mut more = leaf.clone();
    more.push(b'x');
    assert!(matches!(decode(&more), Err(LeafError::Length { .. })));
}

#[test]
fn what_is_not_exactly_what_encoding_gives_is_refused() {
    let leaf = encode(&Header::new(Kind::Event, 5, b"x"), b"x").unwrap();
    let text = String::from_utf8(leaf).unwrap();
    decode(text.as_bytes()).unwrap();
    for (from, to) in [
        ("{\"kind\"", "{ \"kind\""),
        ("\"v\":1", "\"v\":2"),
        ("\"v\":1", "\"v\":1,\"w\":1"),
        ("\"v\":1", "\"v\":1.0"),
        ("\"v\":1", "\"v\":1,\"v\":1"),
        ("\"event\"", "\"party\""),
        ("\"event\"", "\"e\\u0076ent\""),
        ("{\"kind\"", "{\"agent\":null,\"kind\""),
        ("{\"kind\"", "{\"flags\":[],\"kind\""),
        ("{\"kind\"", "{\"flags\":[\"clock_back\",\"clock_back\"],\"kind\""),
        ("{\"kind\"", "{\"partition\":null,\"kind\""),
        ("\"payload_len\":1", "\"payload_len\":2"),
        ("}\nx", "}\n"),
        ("}\nx", "}\nxx"),
        ("}\nx", "}"),
    ] {
        let other = text.replacen(from, to, 1);
        assert_ne!(other, text);
        assert!(decode(other.as_bytes()).is_err(), "{other}");
    }
}

proptest! {
    #[test]
    fn every_header_comes_back(
        texts in prop::collection::vec(prop::option::of(".{0,40}"), 8), numbers in prop::collection::vec(prop::option::of(0u64..1 << 53), 3),
        partition in prop::option::of(any::<i32>()), kind in 0usize..Kind::ALL.len(), payload in prop::collection::vec(any::<u8>(), 0..300)
    ) {
        let text = |place: usize| texts[place].clone().map(Cow::Owned);
        let header = Header {
            source: text(0), id: text(1), event_type: text(2), task: text(3), agent: text(4), action: text(5), actor: text(6), topic: text(7),
            task_seq: numbers[0], sequence: numbers[1], offset: numbers[2].and_then(|n| i64::try_from(n).ok()), partition,
            ..Header::new(Kind::ALL[kind], 9, &payload)
        };
        let leaf = encode(&header, &payload).unwrap();
        let (again, held) = decode(&leaf).unwrap();
        prop_assert_eq!(again, header);
        prop_assert_eq!(held, &payload[..]);
    }

    #[test]
    fn no_bytes_make_it_panic(leaf in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&leaf);
    }
}
