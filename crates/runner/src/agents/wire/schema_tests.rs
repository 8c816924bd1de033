//! The protocol's JSON Schema, made from its types: `docs/process-protocol.schema.json` for whoever writes an agent in a language with types.
//!
//! `FTE_UPDATE_GOLDEN=1 cargo test` writes it anew; its diff shows a break of the protocol in review. What a schema cannot say, the runner checks besides:
//! sizes in bytes, whether a deadline is a time, and what may follow what.

use std::path::PathBuf;

use fte_events::{Artifact, ClaimId, TaskId};
use jsonschema::Validator;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::{Message, PROTOCOL, Told, read, start_line, tell_line};
use crate::document::{HandoffReply, Parent};
use crate::ports::{Start, Tell};

/// An artifact that others made, as it lies in the workspace.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it stands for the JSON that `handed` makes")]
pub(super) struct LaidOut {
    #[serde(flatten)]
    artifact: Artifact,
    /// Where it is in the workspace. Absent where it could not be laid out.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
}

/// The schema of one direction, and the definitions that it uses.
fn direction<T: JsonSchema>(settings: SchemaSettings, definitions: &mut Map<String, Value>) -> Value {
    let mut generator = SchemaGenerator::new(settings);
    let root = T::json_schema(&mut generator);
    for (name, definition) in generator.take_definitions(true) {
        let known = definitions.insert(name.clone(), definition.clone());
        assert!(known.is_none_or(|known| known == definition), "{name} means one thing in both directions");
    }
    root.into()
}

fn schema() -> Value {
    let settings = SchemaSettings::draft2020_12();
    let mut definitions = Map::new();
    let told = direction::<Told<'_>>(settings.clone().for_serialize(), &mut definitions);
    let mut said = direction::<Message>(settings.for_deserialize(), &mut definitions);
    // Whatever an agent says may name the version that it speaks.
    for message in said["oneOf"].as_array_mut().into_iter().flatten() {
        message["properties"]["protocol"] = json!({ "const": PROTOCOL });
    }
    definitions.insert("FromRunner".to_owned(), told);
    definitions.insert("FromAgent".to_owned(), said);
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": format!("urn:fte:process-protocol:v{PROTOCOL}"),
        "title": format!("The JSON-lines protocol of agents, version {PROTOCOL}"),
        "description": "One message, which is one line. #/$defs/FromRunner is what an agent reads, #/$defs/FromAgent what it writes. Readers on either side ignore fields that they do not know; an agent ignores types that it does not know, the runner refuses them.",
        "anyOf": [{ "$ref": "#/$defs/FromRunner" }, { "$ref": "#/$defs/FromAgent" }],
        "$defs": definitions,
    })
}

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/process-protocol.schema.json")
}

/// Of one direction.
fn validator(name: &str) -> Validator {
    let mut schema = schema();
    let object = schema.as_object_mut().unwrap();
    object.remove("anyOf");
    object.insert("$ref".to_owned(), json!(format!("#/$defs/{name}")));
    jsonschema::validator_for(&schema).unwrap()
}

#[expect(clippy::disallowed_methods, reason = "a switch of this test, not configuration")]
fn is_update() -> bool {
    std::env::var_os("FTE_UPDATE_GOLDEN").is_some()
}

#[test]
fn the_committed_schema_is_that_of_the_types() {
    let made = schema();
    if is_update() {
        std::fs::write(file(), format!("{made:#}\n")).unwrap();
    }
    let committed: Value = serde_json::from_slice(&std::fs::read(file()).unwrap()).unwrap();
    assert_eq!(committed, made, "{} differs; see this file's first lines", file().display());
}

/// The runner and the schema take and refuse the same.
#[test]
fn what_the_runner_reads_fits_the_schema_and_what_it_refuses_does_not() {
    let schema = validator("FromAgent");
    let fits = [
        r#"{"type":"stage","name":"plan"}"#,
        r#"{"type":"stage","name":"plan","protocol":1,"later":true}"#,
        r#"{"type":"progress"}"#,
        r#"{"type":"progress","pct":12.5,"message":null}"#,
        r#"{"type":"log","message":"m","level":"warn"}"#,
        r#"{"type":"action","action":"tool.called","data":{"tool":"search"}}"#,
        r#"{"type":"checkpoint","data":[1],"messages":["m1"]}"#,
        r#"{"type":"checkpoint","data":null}"#,
        r#"{"type":"artifact","path":"a","name":"b","content_type":"text/plain"}"#,
        r#"{"type":"approval"}"#,
        r#"{"type":"approval","action":"mail.send","reason":"go?","data":{"to":"ada"}}"#,
        r#"{"type":"handoff","to":"writer","task":"t"}"#,
        r#"{"type":"handoff","id":"a","to":"human","task":"t","context":{},"artifacts":["n"],"deadline":"1h","level":"L2","sentiment":-1,"history":[1]}"#,
        r#"{"type":"cost","usd":0}"#,
        r#"{"type":"cost","tokens":{"input":12}}"#,
        r#"{"type":"result","result":null}"#,
        r#"{"type":"error","code":"c","message":"m","retryable":true}"#,
    ];
    for line in fits {
        read(line.as_bytes()).unwrap_or_else(|error| panic!("{line}: {error}"));
        schema.validate(&serde_json::from_str(line).unwrap()).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
    let wrong = [
        "[1]",
        r#"{"type":"invented"}"#,
        r#"{"name":"plan"}"#,
        r#"{"type":"stage"}"#,
        r#"{"type":"stage","name":"x","protocol":2}"#,
        r#"{"type":"stage","name":"x","protocol":"1"}"#,
        r#"{"type":"progress","pct":101}"#,
        r#"{"type":"progress","pct":"many"}"#,
        r#"{"type":"log","message":"m","level":"loud"}"#,
        r#"{"type":"action","action":""}"#,
        r#"{"type":"action","action":"a","data":[]}"#,
        r#"{"type":"checkpoint"}"#,
        r#"{"type":"checkpoint","data":1,"messages":[1]}"#,
        r#"{"type":"artifact"}"#,
        r#"{"type":"approval","reason":1}"#,
        r#"{"type":"handoff","to":"writer"}"#,
        r#"{"type":"cost","usd":-1}"#,
        r#"{"type":"cost","tokens":{"input":-1}}"#,
        r#"{"type":"cost","tokens":{"input":0.5}}"#,
        r#"{"type":"result"}"#,
        r#"{"type":"error","code":"","message":"m"}"#,
        r#"{"type":"error","code":"c"}"#,
    ];
    for line in wrong {
        assert!(read(line.as_bytes()).is_err(), "{line}");
        assert!(!schema.is_valid(&serde_json::from_str(line).unwrap()), "{line}");
    }
}

#[test]
fn what_the_runner_writes_fits_the_schema() {
    let schema = validator("FromRunner");
    let check = |line: Vec<u8>| -> Value {
        let line = serde_json::from_slice(&line).unwrap();
        schema.validate(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
        line
    };
    let task_id = TaskId::now();
    let parent = Parent {
        task_id,
        handoff_id: *task_id.as_uuid(),
        from: "lead".parse().unwrap(),
        ancestors: Vec::new(),
        depth: 1,
        reason: None,
        artifacts: Vec::new(),
    };
    let start = Start {
        task_id,
        attempt: 1,
        claim_id: ClaimId::of(task_id, 0, 1),
        task: "t".into(),
        context: Map::new(),
        checkpoint: None,
        handed_off: None,
    };
    let laid_out = [
        json!({"name": "n", "content_type": "text/plain", "size_bytes": 1, "sha256": "00", "uri": "artifact:sha256/00", "path": "handed/n"}),
    ];
    let plain = check(start_line(&start, &[]));
    check(start_line(&Start { handed_off: Some(Box::new(parent)), ..start }, &laid_out));
    let decision = Tell::Decision { approved: true, reason: None, data: Some(json!({ "to": "ada" })) };
    let message = Tell::Message { id: "m1".into(), text: "short".into(), data: None, interrupt: true };
    let reply = Box::new(HandoffReply::failed(fte_events::ResultKind::Failed, "agent_unknown", "m"));
    let reply = Tell::Reply { handoff: "a".into(), task_id: Some(task_id), reply };
    let without_path = [json!({"name": "n", "content_type": "text/plain", "size_bytes": 1, "sha256": "00", "uri": "https://elsewhere/n"})];
    for tell in [decision, message, reply, Tell::Cancel] {
        check(tell_line(&tell, &laid_out));
        check(tell_line(&tell, &without_path));
    }
    // Another version, and a start without its task, are none.
    let mut other = plain.clone();
    other["protocol"] = json!(2);
    assert!(!schema.is_valid(&other));
    let mut less = plain;
    less.as_object_mut().unwrap().remove("task");
    assert!(!schema.is_valid(&less));
}
