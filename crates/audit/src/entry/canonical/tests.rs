//! The examples of RFC 8785, and what may and may not change an event's content.

use proptest::prelude::*;
use serde_json::json;

use super::*;

#[test]
fn the_example_of_the_specification_has_its_canonical_form() {
    let value = r#"{
        "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
        "literals": [null, true, false]
    }"#;
    let expected =
        r#"{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"string":"€$\u000f\nA'B\"\\\\\"/"}"#;
    assert_eq!(canonical(&serde_json::from_str(value).unwrap()), expected);
}

#[test]
fn members_are_sorted_by_their_utf_16_units() {
    let value = json!({"€": 1, "\r": 2, "\u{fb33}": 3, "1": 4, "😀": 5, "\u{80}": 6, "ö": 7});
    let expected = "{\"\\r\":2,\"1\":4,\"\u{80}\":6,\"ö\":7,\"€\":1,\"😀\":5,\"\u{fb33}\":3}";
    assert_eq!(canonical(&value), expected);
}

#[test]
fn numbers_are_written_as_ecmascript_does() {
    // Appendix B of RFC 8785, and the borders between its layouts.
    for (bits, expected) in [
        (0x0000_0000_0000_0000_u64, "0"),
        (0x8000_0000_0000_0000, "0"),
        (0x0000_0000_0000_0001, "5e-324"),
        (0x8000_0000_0000_0001, "-5e-324"),
        (0x7fef_ffff_ffff_ffff, "1.7976931348623157e+308"),
        (0x4340_0000_0000_0000, "9007199254740992"),
        (0x4430_0000_0000_0000, "295147905179352830000"),
        (0x44b5_2d02_c7e1_4af5, "9.999999999999997e+22"),
        (0x44b5_2d02_c7e1_4af6, "1e+23"),
        (0x444b_1ae4_d6e2_ef4e, "999999999999999700000"),
        (0x444b_1ae4_d6e2_ef50, "1e+21"),
        (0x3eb0_c6f7_a0b5_ed8c, "9.999999999999997e-7"),
        (0x3eb0_c6f7_a0b5_ed8d, "0.000001"),
        (0x41b3_de43_5555_5555, "333333333.3333333"),
        (0xbecb_f647_612f_3696, "-0.0000033333333333333333"),
        (0x4314_3ff3_c1cb_0959, "1424953923781206.2"),
    ] {
        let mut text = String::new();
        write_number(f64::from_bits(bits), &mut text);
        assert_eq!(text, expected);
    }
}

#[test]
fn what_a_sidecar_rewrites_is_no_content() {
    let published = br#"{"specversion":"1.0","id":"1","source":"/s","type":"t","data":{"a":1.0,"b":[1e2,"\u0041"]},"subject":null}"#;
    let repeated =
        br#"{"data":{"b":[100,"A"],"a":1},"id":"1","pubsubname":"pubsub","source":"/s","specversion":"1.0","time":"2026-01-01T00:00:00Z",
        "topic":"x","traceid":"00-0","traceparent":"00-0","tracestate":"","type":"t","expiration":"x"}"#;
    assert_eq!(content_digest(published), content_digest(repeated));
}

#[test]
fn each_member_of_the_content_counts() {
    let base = json!({"id":"1","source":"/s","type":"t","subject":"x","datacontenttype":"application/json","data":{"a":[1,{"b":null}]}});
    let digest = |event: &Value| content_digest(event.to_string().as_bytes());
    for (name, value) in [
        ("id", json!("2")),
        ("source", json!("/t")),
        ("type", json!("u")),
        ("subject", json!("y")),
        ("datacontenttype", json!("text/plain")),
        ("data", json!({"a":[1,{"b":0}]})),
        ("data", Value::Null),
        ("data_base64", json!("AA==")),
    ] {
        let mut other = base.clone();
        other[name] = value;
        assert_ne!(digest(&base), digest(&other), "{name}");
        if name != "data_base64" {
            other.as_object_mut().unwrap().remove(name);
            assert_ne!(digest(&base), digest(&other), "without {name}");
        }
    }
}

#[test]
fn what_has_no_canonical_form_is_compared_by_its_bytes() {
    let lone = br#"{"id":"1","source":"/s","data":"\ud800"}"#;
    let other = br#"{"id":"1","source":"/s","data":"\ud801"}"#;
    assert_eq!(content_digest(lone), content_digest(lone));
    assert_ne!(content_digest(lone), content_digest(other));
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        any::<f64>().prop_filter("finite", |n| n.is_finite()).prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(".{0,4}", inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Writes a value with its members turned round and with spaces, and with escapes where none is needed.
fn untidy(value: &Value, text: &mut String) {
    let escaped = |value: &str| -> String { value.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect() };
    match value {
        Value::Object(members) => {
            text.push_str("{ ");
            for (index, (name, value)) in members.iter().rev().enumerate() {
                text.push_str(if index > 0 { "\n,\t" } else { "" });
                let _ = write!(text, "\"{}\" : ", escaped(name));
                untidy(value, text);
            }
            text.push_str("\r}");
        }
        Value::Array(items) => {
            text.push_str("[ ");
            for (index, item) in items.iter().enumerate() {
                text.push_str(if index > 0 { " , " } else { "" });
                untidy(item, text);
            }
            text.push_str(" ]");
        }
        Value::String(value) => {
            let _ = write!(text, "\"{}\"", escaped(value));
        }
        other => {
            let _ = write!(text, "{other}");
        }
    }
}

/// A copy of a value in which one leaf, picked by `at`, is another.
fn altered(value: &Value, at: &mut usize) -> Value {
    match value {
        Value::Array(items) if !items.is_empty() => items.iter().map(|item| altered(item, at)).collect(),
        Value::Object(members) if !members.is_empty() => {
            Value::Object(members.iter().map(|(name, value)| (name.clone(), altered(value, at))).collect())
        }
        leaf if *at == 0 => {
            *at = usize::MAX;
            json!({ "altered": leaf })
        }
        leaf => {
            *at -= 1;
            leaf.clone()
        }
    }
}

proptest! {
    #[test]
    fn order_space_escapes_and_transport_do_not_matter(data in json_value(), transport in json_value(), name in "[a-z]{8,12}") {
        let event = json!({"id":"1","source":"/s","type":"t","data":data});
        let mut moved = event.clone();
        if !CONTENT.contains(&name.as_str()) {
            moved[&name] = transport;
        }
        let mut text = String::new();
        untidy(&moved, &mut text);
        prop_assert_eq!(content_digest(event.to_string().as_bytes()), content_digest(text.as_bytes()));
    }

    #[test]
    fn canonical_text_reads_back_as_the_same_value(value in json_value()) {
        let again: Value = serde_json::from_str(&canonical(&value)).unwrap();
        prop_assert_eq!(canonical(&again), canonical(&value));
    }

    #[test]
    fn any_change_of_the_data_matters(data in json_value(), mut at in 0_usize..4) {
        let other = altered(&data, &mut at);
        prop_assume!(other != data);
        let digest = |data: &Value| content_digest(json!({"id":"1","source":"/s","type":"t","data":data}).to_string().as_bytes());
        prop_assert_ne!(digest(&data), digest(&other));
    }
}
