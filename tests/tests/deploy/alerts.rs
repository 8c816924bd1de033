//! Each alert asks for metrics that are there, by labels and values that they have, and the README says what to do.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use crate::chart::{render, root, text};

/// What others export, and by which labels: Kafka Exporter, kube-state-metrics, the kubelet, Prometheus itself.
const OTHERS: [(&str, &[&str]); 5] = [
    ("kafka_consumergroup_lag", &["consumergroup", "topic", "partition"]),
    ("kube_pod_status_ready", &["condition"]),
    ("kubelet_volume_stats_available_bytes", &["persistentvolumeclaim"]),
    ("kubelet_volume_stats_capacity_bytes", &["persistentvolumeclaim"]),
    ("up", &[]),
];
/// What Prometheus adds where it scrapes a pod.
const SCRAPED: [&str; 3] = ["namespace", "job", "pod"];

fn rules() -> Vec<Value> {
    let rule = &render("secured")["PrometheusRule/fte"].value;
    rule["spec"]["groups"][0]["rules"].as_array().unwrap().clone()
}

fn expression(alert: &str) -> String {
    let rules = rules();
    text(rules.iter().find(|rule| rule["alert"] == alert).unwrap(), "expr").to_owned()
}

/// A metric with what is asked of its labels: name, operator and value of each.
#[derive(Debug)]
struct Selector<'e> {
    metric: &'e str,
    matchers: Vec<(&'e str, &'e str, &'e str)>,
    /// The labels that the aggregation around it keeps.
    by: Vec<&'e str>,
}

fn selectors(expression: &str) -> Vec<Selector<'_>> {
    let mut found = Vec::new();
    for (at, _) in expression.match_indices('{') {
        let before = &expression[..at];
        let metric = before.rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap();
        let inside = expression[at + 1..].split_once('}').unwrap().0;
        let matchers = inside.split(", ").map(|matcher| {
            let end = matcher.find(['=', '!']).unwrap();
            let value = &matcher[matcher.find('"').unwrap() + 1..matcher.len() - 1];
            (&matcher[..end], &matcher[end..matcher.find('"').unwrap()], value)
        });
        let by = before.rsplit_once(" by (").map_or("", |(_, rest)| rest.split_once(')').unwrap().0);
        found.push(Selector { metric, matchers: matchers.collect(), by: by.split(", ").filter(|label| !label.is_empty()).collect() });
    }
    found
}

/// What a crate of ours records: the labels of each metric, and all of its source, in which their values stand.
struct Recorded {
    labels: BTreeSet<String>,
    source: String,
}

fn read(folder: &Path, text: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read(&path, text);
        } else if path.extension().is_some_and(|kind| kind == "rs") && !path.ends_with("tests.rs") {
            *text += std::fs::read_to_string(path).unwrap().split("#[cfg(test)]").next().unwrap();
        }
    }
}

/// Every metric of ours by its name: what `crates/*/src/metrics.rs` names, and what `counter!`, `gauge!` and `histogram!` are given.
fn recorded() -> BTreeMap<String, Recorded> {
    let mut all = BTreeMap::new();
    for name in ["audit", "bus", "service", "status"] {
        let folder = root().join(format!("crates/{name}/src"));
        let names = std::fs::read_to_string(folder.join("metrics.rs")).unwrap();
        let mut source = String::new();
        read(&folder, &mut source);
        for line in
            names.lines().filter_map(|line| line.strip_prefix("pub").and_then(|line| line.split_once("const ")).map(|(_, line)| line))
        {
            let Some((constant, metric)) = line.split_once(": &str = \"") else { continue };
            let mut labels = BTreeSet::new();
            for kind in ["counter", "gauge", "histogram"] {
                for call in source.split(&format!("metrics::{kind}!({constant}")).skip(1) {
                    let arguments = call.split([';', '\n']).next().unwrap();
                    let keys = arguments.split(" => ").filter_map(|part| part.strip_suffix('"')?.rsplit_once('"'));
                    labels.extend(keys.map(|(_, key)| key.to_owned()));
                }
            }
            all.insert(metric.trim_end_matches("\";").to_owned(), Recorded { labels, source: source.clone() });
        }
    }
    all
}

#[test]
fn every_metric_of_an_alert_exists_with_the_labels_that_are_asked_for() {
    let ours = recorded();
    let mut seen = 0;
    for rule in rules() {
        let alert = text(&rule, "alert");
        for Selector { metric, matchers, by } in selectors(text(&rule, "expr")) {
            // A histogram has its count by this name.
            let recorded = ours.get(metric.strip_suffix("_count").unwrap_or(metric));
            let others = OTHERS.iter().find(|(name, _)| *name == metric).map(|(_, labels)| *labels);
            assert!(recorded.is_some() || others.is_some(), "{alert}: nobody exports {metric}");
            let has = |label: &str| {
                let own = recorded.is_some_and(|recorded| recorded.labels.contains(label));
                SCRAPED.contains(&label) || own || others.is_some_and(|labels| labels.contains(&label))
            };
            for label in matchers.iter().map(|(label, ..)| label).chain(&by) {
                assert!(has(label), "{alert}: {metric} has no label {label}");
            }
            let Some(recorded) = recorded else { continue };
            for (label, _, values) in matchers.iter().filter(|(label, ..)| !SCRAPED.contains(label)) {
                for value in values.split('|') {
                    assert!(recorded.source.contains(&format!("\"{value}\"")), "{alert}: {metric} has no {label} {value:?}");
                    seen += 1;
                }
            }
        }
    }
    assert!(seen > 10, "{seen}");
}

/// Probes are most of the requests of a quiet service; and who is told to come later was told the truth.
#[test]
fn what_is_put_off_is_no_error_and_probes_count_for_neither() {
    for (alert, statuses) in [("FteErrors", vec!["500", "5xx"]), ("FteBusy", vec!["429", "503"])] {
        let expression = expression(alert);
        let selectors = selectors(&expression);
        assert_eq!(selectors.len(), 2, "{alert}");
        for selector in &selectors {
            let route = selector.matchers.iter().find(|(label, ..)| *label == "route");
            assert_eq!(route, Some(&("route", "!~", "/health|/ready|/metrics")), "{alert}");
        }
        let asked = |selector: &Selector<'_>| {
            selector
                .matchers
                .iter()
                .find(|(label, ..)| *label == "status")
                .map(|(_, _, values)| values.split('|').map(str::to_owned).collect::<Vec<_>>())
        };
        assert_eq!(
            (asked(&selectors[0]), asked(&selectors[1])),
            (Some(statuses.into_iter().map(str::to_owned).collect()), None),
            "{alert}"
        );
    }
}

#[test]
fn the_readme_says_what_each_alert_means() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    for rule in rules() {
        let name = format!("`{}`", text(&rule, "alert"));
        assert!(readme.contains(&name), "the README does not explain {name}");
    }
}
