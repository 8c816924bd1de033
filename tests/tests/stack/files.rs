//! `dapr/` and `dapr.yaml` give each app what the catalogue says it needs, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use fte_events::Topic;
use fte_events::catalogue::topics;
use fte_events::handoffs::built_in_agents;
use fte_tests::infrastructure::root;
use serde_json::Value;

use crate::run_file::RunFile;

const PUBSUBS: [&str; 2] = ["kafka/pubsub.yaml", "kafka-secured/pubsub.yaml"];
const APPS: [&str; 4] = ["fte-audit", "fte-intake", "fte-runner", "fte-status"];

/// A resource as JSON.
fn resource(path: &str) -> Value {
    serde_saphyr::from_str(&std::fs::read_to_string(root().join("dapr").join(path)).unwrap()).unwrap()
}

/// Every YAML file below `dapr/`.
fn files() -> Vec<PathBuf> {
    let mut folders = vec![root().join("dapr")];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "yaml") {
                files.push(path);
            }
        }
    }
    files
}

fn metadata(component: &Value, name: &str) -> String {
    let entry = component["spec"]["metadata"].as_array().unwrap().iter().find(|entry| entry["name"] == name);
    entry.unwrap_or_else(|| panic!("no {name}"))["value"].as_str().unwrap_or_else(|| panic!("{name} is no text")).to_owned()
}

fn scopes(resource: &Value) -> BTreeSet<&str> {
    resource["scopes"].as_array().unwrap().iter().map(|app| app.as_str().unwrap()).collect()
}

/// `app=topic,topic;app=` as Dapr reads it.
fn topic_scopes(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let app = |entry: &str| {
        let (app, topics) = entry.split_once('=').unwrap();
        (app.to_owned(), topics.split(',').filter(|topic| !topic.is_empty()).map(str::to_owned).collect())
    };
    text.split(';').map(app).collect()
}

fn catalogue(services: fn(&Topic) -> &'static [&'static str]) -> BTreeMap<String, BTreeSet<String>> {
    let of = |app: &&str| {
        let in_use = topics(&built_in_agents()).into_iter().filter(|topic| !topic.later);
        let named = in_use.filter(|topic| services(topic).contains(&app.trim_start_matches("fte-")));
        ((*app).to_owned(), named.map(|topic| topic.name.into_owned()).collect())
    };
    APPS.iter().map(of).collect()
}

#[test]
fn each_app_may_publish_and_subscribe_to_what_the_catalogue_says_and_to_nothing_else() {
    for file in PUBSUBS {
        let pubsub = resource(file);
        assert_eq!(topic_scopes(&metadata(&pubsub, "publishingScopes")), catalogue(|topic| topic.publishers), "{file}");
        assert_eq!(topic_scopes(&metadata(&pubsub, "subscriptionScopes")), catalogue(|topic| topic.subscribers), "{file}");
    }
}

#[test]
fn nothing_starts_late_and_no_two_apps_share_a_group() {
    for file in PUBSUBS {
        let pubsub = resource(file);
        assert_eq!(metadata(&pubsub, "initialOffset"), "oldest", "{file}");
        let named: Vec<&str> = pubsub["spec"]["metadata"].as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap()).collect();
        assert!(!named.contains(&"consumerGroup") && !named.contains(&"consumerID"), "{file}: {named:?}");
    }
}

#[test]
fn every_component_is_for_named_apps_and_no_secret_stands_in_a_file() {
    for path in files() {
        let resource: Value = serde_saphyr::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        if resource["kind"] != "Component" {
            continue;
        }
        let apps = scopes(&resource);
        assert!(!apps.is_empty() && apps.iter().all(|app| APPS.contains(app)), "{}: {apps:?}", path.display());
        for entry in resource["spec"]["metadata"].as_array().unwrap() {
            let name = entry["name"].as_str().unwrap();
            let secret = ["password", "connectionstring", "token", "clientkey", "saslusername", "cacert"]
                .iter()
                .any(|word| name.to_lowercase().contains(word));
            assert_eq!(secret, entry.get("secretKeyRef").is_some(), "{}: {name}", path.display());
        }
    }
}

#[test]
fn the_run_file_starts_the_four_services_each_on_ports_of_its_own() {
    let apps = RunFile::read(&root().join("dapr.yaml"));
    assert_eq!(apps.iter().map(|app| app.id.as_str()).collect::<BTreeSet<_>>(), APPS.into());
    for app in &apps {
        assert_eq!(app.command, ["fte", "serve", app.id.trim_start_matches("fte-")]);
        assert_eq!(app.resources, [root().join("dapr"), root().join("dapr/kafka"), root().join("dapr/redis")]);
    }
    let ports: BTreeSet<_> = apps.iter().map(|app| app.port).collect();
    let addresses: BTreeSet<_> = apps.iter().map(|app| &app.env["FTE_API_ADDR"]).collect();
    assert_eq!((ports.len(), addresses.len()), (4, 4));
}
