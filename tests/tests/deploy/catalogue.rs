//! The chart's topics are the catalogue's, and each app may use what the catalogue says.

use std::collections::{BTreeMap, BTreeSet};

use fte_events::handoffs::built_in_agents;
use fte_events::{Topic, manifests, topics};
use serde_json::{Value, json};

use crate::chart::{Object, is_update, render, root, text};

/// The file that the templates read. What is planned is made, but nobody may use it yet: no service does.
#[test]
fn the_charts_list_of_topics_is_the_catalogue() {
    let list: Vec<Value> = topics(&[])
        .into_iter()
        .map(|topic| {
            let in_use = |services: &'static [&'static str]| if topic.later { &[][..] } else { services };
            json!({
                "name": topic.name, "partitions": topic.partitions, "retention_ms": topic.retention_ms,
                "segment_ms": topic.segment_ms, "publishers": in_use(topic.publishers), "subscribers": in_use(topic.subscribers),
            })
        })
        .collect();
    let lines: Vec<String> = list.iter().map(Value::to_string).collect();
    let expected = format!("[\n{}\n]\n", lines.join(",\n"));
    let path = root().join("deploy/helm/fte/files/topics.json");
    if is_update() {
        std::fs::write(&path, &expected).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), expected, "run with FTE_UPDATE_GOLDEN=1 and read the diff");
}

#[test]
fn the_charts_topics_are_those_that_the_command_prints() {
    let printed: Vec<Value> = serde_saphyr::from_multiple(&manifests::strimzi(&topics(&built_in_agents()), "kafka")).unwrap();
    let rendered = render("secured");
    for topic in &printed {
        let name = text(topic, "metadata/name");
        let ours = &rendered[&format!("KafkaTopic/{name}")].value;
        assert_eq!(ours["apiVersion"], topic["apiVersion"]);
        assert_eq!(ours["metadata"]["labels"]["strimzi.io/cluster"], "kafka");
        assert_eq!(ours["spec"]["partitions"], topic["spec"]["partitions"], "{name}");
        for (key, value) in topic["spec"]["config"].as_object().unwrap() {
            assert_eq!(&ours["spec"]["config"][key], value, "{name}: {key}");
        }
        // Uninstalling must not delete seven years of audit.
        assert_eq!(ours["metadata"]["annotations"]["helm.sh/resource-policy"], "keep");
    }
    assert_eq!(rendered.keys().filter(|id| id.starts_with("KafkaTopic/")).count(), printed.len());
}

fn metadata<'c>(component: &'c Object, name: &str) -> &'c str {
    let entries = component.value["spec"]["metadata"].as_array().unwrap();
    text(entries.iter().find(|entry| entry["name"] == name).unwrap(), "value")
}

#[test]
fn each_app_may_publish_and_subscribe_to_what_the_catalogue_says_and_to_nothing_else() {
    let rendered = render("default");
    for (scopes, role) in [
        ("publishingScopes", (|topic| topic.publishers) as fn(&Topic) -> &'static [&'static str]),
        ("subscriptionScopes", |topic| topic.subscribers),
    ] {
        let given: BTreeMap<&str, BTreeSet<&str>> = metadata(&rendered["Component/pubsub"], scopes)
            .split(';')
            .map(|app| app.split_once('=').unwrap())
            .map(|(app, topics)| (app, topics.split(',').filter(|topic| !topic.is_empty()).collect()))
            .collect();
        assert_eq!(given.keys().copied().collect::<Vec<_>>(), ["fte-audit", "fte-intake", "fte-runner", "fte-status"]);
        for (app, given) in given {
            let in_use = topics(&built_in_agents()).into_iter().filter(|topic| !topic.later && role(topic).contains(&&app[4..]));
            let needed: BTreeSet<String> = in_use.map(|topic| topic.name.into_owned()).collect();
            assert_eq!(given, needed.iter().map(String::as_str).collect(), "{app}: {scopes}");
        }
    }
}

/// `dapr/` is what is run in tests on real sidecars. What differs is where Kafka is, who logs in, and where secrets come from.
#[test]
fn the_sidecars_are_told_what_they_are_told_on_one_machine() {
    let rendered = render("default");
    let file = |name: &str| serde_saphyr::from_str::<Value>(&std::fs::read_to_string(root().join("dapr").join(name)).unwrap()).unwrap();
    assert_eq!(rendered["Resiliency/fte"].value["spec"], file("resiliency.yaml")["spec"]);
    let (ours, theirs) = (&rendered["Configuration/fte"].value["spec"], &file("config.yaml")["spec"]);
    assert_eq!((&ours["api"]["allowed"], &ours["features"]), (&theirs["api"]["allowed"], &theirs["features"]));

    let (ours, theirs) = (&rendered["Component/pubsub"], file("kafka/pubsub.yaml"));
    assert_eq!((&ours.value["scopes"], &ours.value["spec"]["initTimeout"]), (&app_ids(&theirs), &theirs["spec"]["initTimeout"]));
    for entry in theirs["spec"]["metadata"].as_array().unwrap() {
        let name = text(entry, "name");
        // The order of apps and topics in a scope says nothing; that both are the catalogue's is tested on either side.
        if !["brokers", "authType", "publishingScopes", "subscriptionScopes"].contains(&name) {
            assert_eq!(metadata(ours, name), text(entry, "value"), "{name}");
        }
    }
    for (file_name, kind) in [("redis/statestore.yaml", "secured"), ("postgresql/statestore.yaml", "default")] {
        let theirs = file(file_name);
        let ours = &render(kind)["Component/statestore"].value;
        let version = |component: &Value| (component["spec"]["type"].clone(), component["spec"]["version"].clone());
        assert_eq!((version(ours), &ours["scopes"]), (version(&theirs), &app_ids(&theirs)), "{file_name}");
    }
}

/// Its scopes, in order.
fn app_ids(component: &Value) -> Value {
    let mut apps: Vec<String> = component["scopes"].as_array().unwrap().iter().map(|app| app.as_str().unwrap().to_owned()).collect();
    apps.sort();
    json!(apps)
}
