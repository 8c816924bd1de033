//! The wire, held still: each event type has a committed JSON Schema and a committed golden example, and the code agrees with both.
//!
//! `FTE_UPDATE_GOLDEN=1 cargo test -p fte-events` writes both anew. A schema's diff shows a break of the wire in review.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use fte_bus::RawEvent;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::catalogue::event_types;
use crate::{Decoded, EventType, Payload, decode, sample};

fn directory(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

#[expect(clippy::disallowed_methods, reason = "a switch of this test, not configuration")]
fn is_update() -> bool {
    std::env::var_os("FTE_UPDATE_GOLDEN").is_some()
}

/// Compares with the committed file, or writes it.
fn assert_golden(directory_name: &str, file: &str, actual: &Value) {
    let path = directory(directory_name).join(file);
    if is_update() {
        fs::write(&path, format!("{actual:#}\n")).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}; see this file's first lines", path.display()));
    let committed: Value = serde_json::from_str(&committed).unwrap();
    assert_eq!(&committed, actual, "{} differs; see this test file's first lines", path.display());
}

fn schema_file(event: &EventType) -> String {
    format!("{}.v{}.json", event.name, event.version)
}

fn read_golden(name: &str) -> RawEvent {
    RawEvent::parse(&fs::read(directory("golden").join(format!("{name}.json"))).unwrap()).unwrap()
}

/// Through the types and back: the payload's JSON as this version passes it on.
fn passed_on(event_type: &str, data: &Value) -> Value {
    let decoded = decode(event_type, &data.to_string()).unwrap().unwrap();
    assert_eq!(decoded.event_type(), event_type);
    serde_json::to_value(decoded).unwrap()
}

fn data_of(event: &RawEvent) -> Value {
    event.decode().unwrap()
}

fn file_names(name: &str) -> BTreeSet<String> {
    fs::read_dir(directory(name)).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn schemas_are_those_committed() {
    for (_, event) in event_types() {
        assert_golden("schemas", &schema_file(event), event.schema().as_value());
    }
    let expected: BTreeSet<_> = event_types().map(|(_, event)| schema_file(event)).collect();
    assert_eq!(file_names("schemas"), expected);
}

#[test]
fn golden_examples_are_what_this_version_writes() {
    for payload in sample::all() {
        let event = serde_json::from_slice(&sample::envelope(&payload).to_bytes()).unwrap();
        assert_golden("golden", &format!("{}.json", payload.event_type()), &event);
    }
    let expected: BTreeSet<_> = event_types().map(|(_, event)| format!("{}.json", event.name)).collect();
    assert_eq!(file_names("golden"), expected);
}

#[test]
fn golden_examples_round_trip_and_fit_their_schemas() {
    for (topic, event) in event_types() {
        let golden = read_golden(event.name);
        let data = data_of(&golden);
        assert_eq!(passed_on(event.name, &data), data, "{}", event.name);

        let schema = jsonschema::validator_for(event.schema().as_value()).unwrap();
        assert!(schema.is_valid(&data), "{}: {:?}", event.name, schema.iter_errors(&data).collect::<Vec<_>>());

        let decoded = decode(event.name, &data.to_string()).unwrap().unwrap();
        assert_eq!(decoded.version(), event.version);
        let family = topic.name.trim_end_matches("{agent}").trim_end_matches("runner");
        assert!(decoded.topic().starts_with(family), "{} is published on {}", event.name, decoded.topic());
    }
}

#[test]
fn schemas_require_exactly_what_readers_require() {
    for (_, event) in event_types() {
        let schema = jsonschema::validator_for(event.schema().as_value()).unwrap();
        let data: Map<String, Value> = read_golden(event.name).decode().unwrap();
        for field in data.keys() {
            let mut without = data.clone();
            without.remove(field);
            let without = Value::Object(without);
            let is_read = decode(event.name, &without.to_string()).is_ok();
            assert_eq!(schema.is_valid(&without), is_read, "{} without {field}", event.name);
        }
    }
}

/// Adds a field to every object in `value`, however deep.
fn add_unknown_fields(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(add_unknown_fields);
            fields.insert("x_later".to_owned(), json!({"nested": [1, "two", null]}));
        }
        Value::Array(items) => items.iter_mut().for_each(add_unknown_fields),
        _ => {}
    }
}

#[test]
fn unknown_fields_and_attributes_are_kept_and_passed_on() {
    for (_, event) in event_types() {
        let golden = read_golden(event.name);
        let mut newer = serde_json::to_value(&golden).unwrap();
        newer["laterattribute"] = json!("kept");
        add_unknown_fields(&mut newer["data"]);

        let schema = jsonschema::validator_for(event.schema().as_value()).unwrap();
        assert!(schema.is_valid(&newer["data"]), "{} is closed to newer writers", event.name);

        let read = RawEvent::parse(newer.to_string().as_bytes()).unwrap();
        let decoded: Decoded = decode(&read.event_type, read.data.as_ref().unwrap().get()).unwrap().unwrap();
        assert_eq!(serde_json::to_value(read.with_data(Some(decoded))).unwrap(), newer, "{}", event.name);
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_filter("JSON has no NaN", |float| float.is_finite()).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(any::<String>(), inner, 0..4).prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_payload_survives_the_codec(
        index in 0..sample::all().len(),
        text in any::<String>(),
        unknown in proptest::collection::btree_map("x_[a-z]{1,8}", any_json(), 0..4),
    ) {
        let samples = sample::all();
        let mut data = serde_json::to_value(&samples[index % samples.len()]).unwrap();
        let event_type = samples[index % samples.len()].event_type();
        for name in ["task", "content", "message", "pool", "agent", "summary", "consumer"] {
            if data.get(name).is_some() {
                data[name] = text.clone().into();
            }
        }
        data.as_object_mut().unwrap().extend(unknown);
        prop_assert_eq!(passed_on(event_type, &data), data);
    }

    #[test]
    fn any_text_is_read_or_refused_without_a_panic(index in 0..sample::all().len(), data in any_json()) {
        let samples = sample::all();
        let _ = decode(samples[index % samples.len()].event_type(), &data.to_string());
    }
}
