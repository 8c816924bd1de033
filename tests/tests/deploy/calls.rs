//! Who may ask a service by Dapr's service invocation reaches its sidecar, and nobody else reaches any.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::chart::{Rendered, cases, render, root, text};

/// Dapr's own port for what one sidecar asks another.
const INTERNAL: u64 = 50002;
/// What a container of daprd opens besides, and nobody outside the pod's node needs.
const OTHERS: [u64; 3] = [3500, 3501, 50001];
const SERVICES: [&str; 4] = ["intake", "runner", "status", "audit"];

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The annotations of a service's pod.
fn annotations<'r>(rendered: &'r Rendered, service: &str) -> &'r Value {
    let pods = rendered.values().filter_map(|object| object.template());
    pods.map(|pod| &pod["metadata"]["annotations"]).find(|all| all["dapr.io/app-id"] == format!("fte-{service}")).unwrap()
}

/// The operations that an app may call of a service, by its Configuration, each with the app.
fn allowed(rendered: &Rendered, service: &str) -> BTreeSet<(String, String)> {
    let name = text(annotations(rendered, service), "dapr.io~1config");
    let control = &rendered[&format!("Configuration/{name}")].value["spec"]["accessControl"];
    assert_eq!(text(control, "defaultAction"), "deny", "{name}");
    let mut found = BTreeSet::new();
    for policy in list(&control["policies"]) {
        assert_eq!((text(policy, "defaultAction"), text(policy, "namespace")), ("deny", "fte"), "{name}");
        for operation in list(&policy["operations"]) {
            assert_eq!((text(operation, "action"), &operation["httpVerb"]), ("allow", &serde_json::json!(["GET"])), "{name}");
            found.insert((text(policy, "appId").to_owned(), text(operation, "name").to_owned()));
        }
    }
    found
}

/// The apps whose pods these peers are; none may be more than pods of this namespace.
fn apps(rendered: &Rendered, peers: &Value) -> BTreeSet<String> {
    let peers = list(peers).iter().map(|peer| {
        assert_eq!(peer.as_object().unwrap().keys().collect::<Vec<_>>(), ["podSelector"], "{peer}");
        let wanted = peer["podSelector"]["matchLabels"].as_object().unwrap();
        let pods = rendered.values().filter_map(|object| object.template()).map(|pod| &pod["metadata"]);
        let fitting: Vec<&Value> = pods.filter(|pod| wanted.iter().all(|(key, value)| pod["labels"].get(key) == Some(value))).collect();
        assert_eq!(fitting.len(), 1, "{peer}");
        text(fitting[0], "annotations/dapr.io~1app-id").to_owned()
    });
    peers.collect()
}

fn has_port(rule: &Value, port: u64) -> bool {
    list(&rule["ports"]).iter().any(|open| open["port"] == port)
}

#[test]
fn the_sidecar_of_a_service_is_reached_by_those_that_may_call_it_and_by_nobody_else() {
    for case in cases() {
        let rendered = render(&case);
        let callers = |service: &str| -> BTreeSet<String> { allowed(&rendered, service).into_iter().map(|(app, _)| app).collect() };
        for service in SERVICES {
            let policy = &rendered[&format!("NetworkPolicy/fte-{service}")].value["spec"];
            let mut reach = BTreeSet::new();
            for rule in list(&policy["ingress"]) {
                assert!(!list(&rule["ports"]).is_empty(), "{case}: all ports of {service} are open");
                assert!(OTHERS.iter().all(|port| !has_port(rule, *port)), "{case}: {rule}");
                if has_port(rule, INTERNAL) {
                    assert_eq!(list(&rule["ports"]).len(), 1, "{case}: {rule}");
                    reach.extend(apps(&rendered, &rule["from"]));
                }
            }
            assert_eq!(reach, callers(service), "{case}: who reaches the sidecar of {service}");
            let Some(rules) = policy.get("egress") else { continue };
            let out: BTreeSet<String> =
                list(rules).iter().filter(|rule| has_port(rule, INTERNAL)).flat_map(|rule| apps(&rendered, &rule["to"])).collect();
            let called = SERVICES.iter().filter(|called| callers(called).contains(&format!("fte-{service}")));
            assert_eq!(out, called.map(|called| format!("fte-{called}")).collect(), "{case}: whose sidecars {service} reaches");
        }
    }
}

/// The services' side of it: `crates/service/src/pools.rs`.
#[test]
fn intake_and_status_may_ask_the_runner_what_they_ask_it() {
    let source = std::fs::read_to_string(root().join("crates/service/src/pools.rs")).unwrap();
    let path = |name: &str| source.split_once(&format!("pub const {name}: &str = \"")).unwrap().1.split_once('"').unwrap().0;
    assert!(source.contains("const RUNNER: &str = \"fte-runner\";"));
    let expected = [("fte-intake", format!("/{}", path("FULL_PATH"))), ("fte-status", format!("/{}/*", path("TASK_PATH")))];
    let rendered = render("default");
    assert_eq!(allowed(&rendered, "runner"), expected.map(|(app, path)| (app.to_owned(), path)).into());
    for service in ["intake", "status", "audit"] {
        assert_eq!(allowed(&rendered, service), BTreeSet::new(), "{service}");
    }
}
