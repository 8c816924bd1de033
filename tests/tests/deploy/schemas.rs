//! What Kubernetes and its operators take, from the documents that they publish: a key that is not in a schema is an error here, as an API server's strict
//! validation has it. Rules in CEL are not checked.

use std::collections::BTreeMap;

use jsonschema::Validator;
use serde_json::{Value, json};

use crate::chart::{Object, tools};

pub(crate) struct Schemas {
    /// By `apiVersion/Kind`.
    known: BTreeMap<String, Value>,
    ready: BTreeMap<String, Validator>,
}

impl Schemas {
    pub(crate) fn read() -> Self {
        let mut known = BTreeMap::new();
        for file in std::fs::read_dir(tools().join("kubernetes")).unwrap() {
            let mut document: Value = serde_json::from_slice(&std::fs::read(file.unwrap().path()).unwrap()).unwrap();
            strict(&mut document["components"]["schemas"]);
            for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
                for kind in schema["x-kubernetes-group-version-kind"].as_array().into_iter().flatten() {
                    let (group, version) = (kind["group"].as_str().unwrap(), kind["version"].as_str().unwrap());
                    let api = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
                    let schema = json!({"$ref": format!("#/components/schemas/{name}"), "components": document["components"]});
                    known.insert(format!("{api}/{}", kind["kind"].as_str().unwrap()), schema);
                }
            }
        }
        for file in std::fs::read_dir(tools().join("crds")).unwrap() {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            let definition: Value = serde_saphyr::from_multiple(&text).unwrap().into_iter().find(Value::is_object).unwrap();
            let spec = &definition["spec"];
            for version in spec["versions"].as_array().unwrap() {
                let mut schema = version["schema"]["openAPIV3Schema"].clone();
                strict(&mut schema);
                schema["properties"]["metadata"] = metadata();
                let api = format!("{}/{}", spec["group"].as_str().unwrap(), version["name"].as_str().unwrap());
                known.insert(format!("{api}/{}", spec["names"]["kind"].as_str().unwrap()), schema);
            }
        }
        Self { known, ready: BTreeMap::new() }
    }

    /// What is wrong with it.
    pub(crate) fn errors(&mut self, object: &Object) -> Vec<String> {
        let kind = format!("{}/{}", object.value["apiVersion"].as_str().unwrap(), object.value["kind"].as_str().unwrap());
        let Some(schema) = self.known.get(&kind) else { return vec![format!("{kind}: no schema")] };
        let validator = self.ready.entry(kind).or_insert_with(|| jsonschema::validator_for(schema).unwrap());
        validator.iter_errors(&object.value).map(|error| format!("{}: {} {error}", object.id(), error.instance_path())).collect()
    }
}

/// Custom resources leave it open.
fn metadata() -> Value {
    let texts = json!({"type": "object", "additionalProperties": {"type": "string"}});
    let text = json!({"type": "string"});
    let properties = json!({"name": text, "namespace": text, "labels": texts, "annotations": texts});
    json!({"type": "object", "required": ["name"], "properties": properties, "additionalProperties": false})
}

/// Closes each object that lists its keys, and takes out what is OpenAPI's alone.
fn strict(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            for bound in ["exclusiveMinimum", "exclusiveMaximum"] {
                if map.get(bound).is_some_and(Value::is_boolean) {
                    map.remove(bound);
                }
            }
            let open = map.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
            if map.get("properties").is_some_and(is_schemas) && !map.contains_key("additionalProperties") && !open {
                map.insert("additionalProperties".to_owned(), Value::Bool(false));
            }
            map.values_mut().for_each(strict);
        }
        Value::Array(list) => list.iter_mut().for_each(strict),
        _ => {}
    }
}

/// The keyword, whose values are schemas; the schema of a property of this name has texts in it.
fn is_schemas(properties: &Value) -> bool {
    properties.as_object().is_some_and(|map| map.values().all(Value::is_object))
}

#[test]
fn a_misspelt_key_a_wrong_type_and_a_missing_key_are_errors() {
    let mut schemas = Schemas::read();
    let mut check = |value: Value| schemas.errors(&Object { text: String::new(), value });
    let service = |spec: Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": spec});
    assert_eq!(check(service(json!({"ports": [{"port": 80}]}))), Vec::<String>::new());
    for wrong in [json!({"port": []}), json!({"ports": [{"port": "80"}]}), json!({"ports": [{}]})] {
        assert_eq!(check(service(wrong.clone())).len(), 1, "{wrong}");
    }
    let component = |spec: Value| json!({"apiVersion": "dapr.io/v1alpha1", "kind": "Component", "metadata": {"name": "a"}, "spec": spec});
    assert_eq!(check(component(json!({"type": "a", "version": "v1", "metadata": []}))), Vec::<String>::new());
    for wrong in [json!({"type": "a", "metadata": []}), json!({"type": "a", "version": "v1", "metadata": [{"name": "a", "valeu": "b"}]})] {
        assert_eq!(check(component(wrong.clone())).len(), 1, "{wrong}");
    }
}
