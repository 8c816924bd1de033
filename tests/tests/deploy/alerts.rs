//! Each alert asks for metrics that are there, and the README says what to do.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::chart::{render, root, text};

/// What others export: Kafka Exporter, kube-state-metrics, the kubelet, Prometheus itself.
const OTHERS: [&str; 5] = [
    "kafka_consumergroup_lag",
    "kube_pod_status_ready",
    "kubelet_volume_stats_available_bytes",
    "kubelet_volume_stats_capacity_bytes",
    "up",
];

fn rules() -> Vec<Value> {
    let rule = &render("secured")["PrometheusRule/fte"].value;
    rule["spec"]["groups"][0]["rules"].as_array().unwrap().clone()
}

/// What stands before `{` in an expression.
fn metrics(expression: &str) -> BTreeSet<&str> {
    let ends = expression.match_indices('{').map(|(at, _)| &expression[..at]);
    ends.map(|before| before.rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap()).collect()
}

#[test]
fn every_metric_of_an_alert_exists() {
    let ours: String = ["audit", "bus", "service", "status"]
        .iter()
        .map(|name| std::fs::read_to_string(root().join(format!("crates/{name}/src/metrics.rs"))).unwrap())
        .collect();
    let mut seen = 0;
    for rule in rules() {
        for metric in metrics(text(&rule, "expr")) {
            // A histogram has its count by this name.
            let name = metric.strip_suffix("_count").unwrap_or(metric);
            let known = OTHERS.contains(&name) || ours.contains(&format!("\"{name}\";"));
            assert!(known, "{}: nobody exports {metric}", text(&rule, "alert"));
            seen += 1;
        }
    }
    assert!(seen > 10, "{seen}");
}

#[test]
fn the_readme_says_what_each_alert_means() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    for rule in rules() {
        let name = format!("`{}`", text(&rule, "alert"));
        assert!(readme.contains(&name), "the README does not explain {name}");
    }
}
