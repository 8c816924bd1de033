//! Who each service is at Kafka, and whom it trusts there.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::chart::{Rendered, cases, notes, render, text};

const APPS: [&str; 4] = ["fte-audit", "fte-intake", "fte-runner", "fte-status"];

/// Dapr's components for Kafka, by the app that has each in its scopes.
fn components<'r>(rendered: &'r Rendered, case: &str) -> BTreeMap<String, &'r Value> {
    let mut found = BTreeMap::new();
    for component in rendered.values().map(|object| &object.value).filter(|value| value["spec"]["type"] == "pubsub.kafka") {
        for app in component["scopes"].as_array().unwrap() {
            let other = found.insert(app.as_str().unwrap().to_owned(), component);
            assert!(other.is_none(), "{case}: {app} has two components");
        }
    }
    found
}

/// The value that a component has by this name, or the secret that it comes from.
fn entry<'c>(component: &'c Value, name: &str) -> Option<&'c Value> {
    let mut entries = component["spec"]["metadata"].as_array().unwrap().iter();
    entries.find(|entry| entry["name"] == name).map(|entry| entry.get("value").unwrap_or_else(|| &entry["secretKeyRef"]))
}

#[test]
fn each_service_speaks_to_kafka_by_the_component_that_is_its_own() {
    for case in cases() {
        let rendered = render(&case);
        let components = components(&rendered, &case);
        assert_eq!(components.keys().collect::<Vec<_>>(), APPS, "{case}");
        let retried: Vec<&String> = rendered["Resiliency/fte"].value["spec"]["targets"]["components"].as_object().unwrap().keys().collect();
        for object in rendered.values().filter(|object| object.template().is_some()) {
            let pod = object.template().unwrap();
            let Some(app) = pod["metadata"]["annotations"].get("dapr.io/app-id") else { continue };
            let env = pod["spec"]["containers"][0]["env"].as_array().unwrap();
            let told = env.iter().find(|entry| entry["name"] == "FTE_PUBSUB").map_or("pubsub", |entry| text(entry, "value"));
            assert_eq!(text(components[app.as_str().unwrap()], "metadata/name"), told, "{case}: {app}");
            // Without it, what fails is tried three times and then dropped.
            assert!(retried.iter().any(|name| *name == told), "{case}: {told}");
        }
    }
}

#[test]
fn users_of_their_own_are_of_the_secrets_that_are_named_and_the_others_of_the_common_one() {
    let rendered = render("users");
    for (app, component) in components(&rendered, "users") {
        let secret = match app.as_str() {
            "fte-runner" => "fte-runner-user",
            "fte-audit" => "fte-audit-user",
            _ => "fte-user",
        };
        assert_eq!(component["scopes"], json!([app]));
        assert_eq!(entry(component, "saslUsername"), Some(&json!({"name": secret, "key": "username"})), "{app}");
        assert_eq!(entry(component, "saslPassword"), Some(&json!({"name": secret, "key": "password"})), "{app}");
        assert_eq!(entry(component, "authType"), Some(&"password".into()));
        // Dapr takes every name that is no SCRAM for PLAIN.
        assert_eq!(entry(component, "saslMechanism"), Some(&"PLAINTEXT".into()));
        assert_eq!(entry(component, "caCert"), None, "a public authority needs no certificate");
    }
    let login = &rendered["TriggerAuthentication/fte-runner-kafka"].value["spec"]["secretTargetRef"];
    let expected = json!([
        {"parameter": "username", "name": "fte-runner-user", "key": "username"},
        {"parameter": "password", "name": "fte-runner-user", "key": "password"},
    ]);
    assert_eq!(login, &expected);
    let asked = notes("users");
    for secret in ["fte-user", "fte-runner-user", "fte-audit-user"] {
        assert_eq!(asked.matches(&format!("create secret generic {secret} ")).count(), 1, "{secret}: {asked}");
    }
    assert!(!asked.contains("ca.crt"), "{asked}");
}

#[test]
fn the_brokers_authority_may_be_in_a_secret_of_its_own() {
    let rendered = render("certificate");
    let authority = json!({"name": "kafka-cluster-ca-cert", "key": "ca.crt"});
    for component in components(&rendered, "certificate").values() {
        assert_eq!(entry(component, "caCert"), Some(&authority));
        assert_eq!(entry(component, "clientCert"), Some(&json!({"name": "fte-user", "key": "user.crt"})));
    }
    let refs = rendered["TriggerAuthentication/fte-runner-kafka"].value["spec"]["secretTargetRef"].as_array().unwrap().clone();
    assert!(refs.contains(&json!({"parameter": "ca", "name": "kafka-cluster-ca-cert", "key": "ca.crt"})), "{refs:?}");
    for (case, said) in [("certificate", "kafka-cluster-ca-cert"), ("secured", "fte-kafka")] {
        let asked = notes(case);
        assert!(asked.contains(said) && asked.contains("the authority of the brokers"), "{case}: {asked}");
    }
}

/// What waits is in the topics that start tasks: requests, and what agents hand on.
#[test]
fn replicas_follow_every_topic_that_brings_the_runner_work() {
    for (case, agents) in [("secured", vec!["demo", "echo", "human"]), ("users", vec!["human", "writer"])] {
        let rendered = render(case);
        let triggers = rendered["ScaledObject/fte-runner"].value["spec"]["triggers"].as_array().unwrap().clone();
        let mut counted: Vec<&str> = triggers.iter().map(|trigger| text(trigger, "metadata/topic")).collect();
        counted.sort_unstable();
        let mut expected: Vec<String> = agents.iter().map(|agent| format!("fte.handoffs.{agent}")).collect();
        expected.push("fte.triggers.inbound".to_owned());
        assert_eq!(counted, expected, "{case}");
        let subscribed = entry(components(&rendered, case)["fte-runner"], "subscriptionScopes").unwrap().as_str().unwrap();
        let runner = subscribed.split(';').find_map(|app| app.strip_prefix("fte-runner=")).unwrap();
        for trigger in &triggers {
            assert!(runner.split(',').any(|topic| topic == text(trigger, "metadata/topic")), "{case}: {trigger} of {runner}");
            assert_eq!(text(trigger, "metadata/consumerGroup"), "fte-runner");
            // Kafka 4 no longer understands everything that KEDA's default version asks for.
            assert_eq!(Some(&trigger["metadata"]["version"]), entry(components(&rendered, case)["fte-runner"], "version"));
        }
    }
}
