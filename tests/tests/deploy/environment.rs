//! Every variable that the chart sets is one that a service reads.

use std::collections::BTreeSet;

use crate::chart::{cases, render, root};

#[test]
fn no_variable_is_set_that_nobody_reads() {
    let mut sources = String::new();
    let mut folders = vec![root().join("crates")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                sources += &std::fs::read_to_string(path).unwrap();
            }
        }
    }
    let mut set = BTreeSet::new();
    for case in cases() {
        for object in render(&case).values() {
            let containers = object.template().and_then(|pod| pod["spec"]["containers"].as_array()).into_iter().flatten();
            let entries = containers.flat_map(|container| container["env"].as_array().into_iter().flatten());
            set.extend(entries.map(|entry| entry["name"].as_str().unwrap().to_owned()));
        }
    }
    assert!(set.contains("FTE_RUNNER_SEAT") && set.contains("FTE_API_ADDR"));
    let unread: Vec<&String> = set.iter().filter(|name| !sources.contains(&format!("&str = \"{name}\";"))).collect();
    assert!(unread.is_empty(), "{unread:?}");
}
