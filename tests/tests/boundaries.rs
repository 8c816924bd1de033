//! What must never depend on what, read from `cargo metadata`, `Cargo.lock` and the sources.

#![expect(clippy::unwrap_used, reason = "a test that fails here shows where")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Each of our packages with those of ours that it depends on outside tests.
fn our_dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = cargo_metadata::MetadataCommand::new().manifest_path(root().join("Cargo.toml")).no_deps().exec().unwrap();
    let ours: BTreeSet<String> = metadata.packages.iter().map(|package| package.name.to_string()).collect();
    let edges = metadata.packages.iter().map(|package| {
        let normal = package.dependencies.iter().filter(|dependency| dependency.kind == cargo_metadata::DependencyKind::Normal);
        let depends = normal.map(|dependency| dependency.name.clone()).filter(|name| ours.contains(name)).collect();
        (package.name.to_string(), depends)
    });
    edges.collect()
}

#[test]
fn dependencies_point_one_way() {
    let edges = our_dependencies();
    let check = |package: &str, may: &[&str]| {
        let may: BTreeSet<String> = may.iter().map(|name| (*name).to_owned()).collect();
        let more: Vec<_> = edges[package].difference(&may).collect();
        assert!(more.is_empty(), "{package} must not depend on {more:?}");
    };
    check("fte-bus", &[]);
    check("fte-tlog", &[]);
    check("fte-sidecar", &[]);
    check("fte-sandbox", &[]);
    check("fte-events", &["fte-bus"]);
    check("fte-service", &["fte-bus", "fte-events"]);
    check("fte-kubernetes", &["fte-events", "fte-runner", "fte-service"]);
    check("fte-s3", &["fte-service"]);
    check("fte-artifacts", &["fte-events", "fte-s3", "fte-service"]);
    check("fte-intake", &["fte-bus", "fte-events", "fte-service"]);
    check("fte-audit", &["fte-bus", "fte-events", "fte-s3", "fte-service", "fte-tlog"]);
    // One keeps what the other gives away.
    check("fte-runner", &["fte-artifacts", "fte-bus", "fte-events", "fte-sandbox", "fte-service"]);
    check("fte-status", &["fte-artifacts", "fte-bus", "fte-events", "fte-service"]);
}

/// Who does not ask for it builds no client for Kubernetes.
#[test]
fn only_a_feature_of_the_command_that_is_off_brings_a_client_for_kubernetes() {
    let tree = |more: &[&str]| {
        let mut cargo = std::process::Command::new(env!("CARGO"));
        cargo.args(["tree", "--offline", "--locked", "--package", "fte", "--edges", "normal,build", "--prefix", "none"]).args(more);
        let out = cargo.current_dir(root()).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let text = String::from_utf8(out.stdout).unwrap();
        text.lines().any(|line| line.starts_with("kube ") || line.starts_with("k8s-openapi ") || line.starts_with("fte-kubernetes "))
    };
    assert!(!tree(&[]) && tree(&["--features", "kubernetes"]));
}

#[test]
fn what_deny_toml_bans_is_not_in_the_lock_file() {
    let deny: toml::Table = std::fs::read_to_string(root().join("deny.toml")).unwrap().parse().unwrap();
    let banned: Vec<String> =
        deny["bans"]["deny"].as_array().unwrap().iter().map(|ban| ban["crate"].as_str().unwrap().to_owned()).collect();
    assert!(banned.iter().any(|name| name == "rdkafka") && banned.iter().any(|name| name == "aws-lc-sys"));
    let lock: toml::Table = std::fs::read_to_string(root().join("Cargo.lock")).unwrap().parse().unwrap();
    let locked: BTreeSet<&str> = lock["package"].as_array().unwrap().iter().map(|package| package["name"].as_str().unwrap()).collect();
    // Whatever the next client is called: no list of names is ever whole.
    let found: Vec<_> = locked.iter().filter(|name| banned.iter().any(|banned| banned == *name) || name.contains("kafka")).collect();
    assert!(found.is_empty(), "banned crates in Cargo.lock: {found:?}");
}

/// The lines of our Rust sources outside tests that contain one of the words, by file.
fn lines_with(words: &[&str], crates: &[impl AsRef<Path>]) -> Vec<String> {
    let mut found = Vec::new();
    for name in crates {
        let mut folders = vec![root().join("crates").join(name).join("src")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|kind| kind == "rs") && !is_for_tests(&path) {
                    let text = std::fs::read_to_string(&path).unwrap();
                    let hits = outside_tests(&text)
                        .into_iter()
                        .filter(|line| !line.trim_start().starts_with("//") && words.iter().any(|word| line.contains(word)));
                    found.extend(hits.map(|line| format!("{}: {}", path.display(), line.trim())));
                }
            }
        }
    }
    found
}

/// Whether a file is compiled into tests alone, by its name.
fn is_for_tests(path: &Path) -> bool {
    let of_tests = ["tests.rs", "test_support.rs", "/engine/sim.rs", "/oracles.rs"];
    path.iter().any(|part| part == "tests") || of_tests.iter().any(|end| path.to_string_lossy().ends_with(end))
}

/// The lines of a file that are in no module of tests of its own; those that stand in other files end nothing.
fn outside_tests(text: &str) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text.lines();
    while let Some(line) = rest.next() {
        if line == "#[cfg(test)]" {
            let item = rest.find(|line| !line.starts_with("#["));
            if item.is_some_and(|item| item.ends_with('{')) {
                // Formatted as it is, an item ends where a brace stands at its beginning.
                rest.find(|line| *line == "}");
            }
        } else {
            lines.push(line);
        }
    }
    lines
}

#[test]
fn a_module_of_tests_hides_nothing_behind_it() {
    let text = "a\n#[cfg(test)]\nmod tests;\nb\n#[cfg(test)]\n#[expect(x)]\npub(crate) mod tests {\n    c\n    }\n}\nd\n";
    assert_eq!(outside_tests(text), ["a", "b", "d"]);
    assert!(is_for_tests(Path::new("/crates/audit/src/engine/tests/files.rs")) && !is_for_tests(Path::new("/crates/audit/src/engine.rs")));
}

fn all_but(exempt: &[&str]) -> Vec<String> {
    let folders = std::fs::read_dir(root().join("crates")).unwrap();
    let names: Vec<String> = folders.map(|folder| folder.unwrap().file_name().into_string().unwrap()).collect();
    assert!(names.len() > 10 && exempt.iter().all(|exempt| names.iter().any(|name| name == exempt)), "{names:?}");
    names.into_iter().filter(|name| !exempt.contains(&name.as_str())).collect()
}

#[test]
fn only_the_sdk_and_the_sidecar_know_daprs_routes() {
    // The testkit has a fake application, which a sidecar asks for its subscriptions.
    let found = lines_with(&["\"/v1.0", "/v1.0-alpha1", "/dapr/subscribe"], &all_but(&["bus", "sidecar", "testkit"]));
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn the_sdk_and_the_sidecar_know_no_topic() {
    let found = lines_with(
        &["fte.triggers", "fte.status", "fte.results", "fte.sandbox", "fte.audit.", "fte.handoffs", "fte.deadletter"],
        &["bus", "sidecar"],
    );
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn only_the_service_crate_reads_the_environment() {
    // The testkit hands two variables on to the processes it starts.
    let found = lines_with(&["env::var(", "env::var_os(", "env::vars"], &all_but(&["service", "testkit"]));
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn only_the_command_is_asked_to_stop() {
    // That a child has ended is another kind of signal, which the runner's agents listen for.
    let found = lines_with(&["SignalKind::terminate", "SignalKind::interrupt", "SignalKind::hangup", "signal::ctrl_c"], &all_but(&["cli"]));
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn the_protocol_knows_neither_http_nor_a_clock() {
    let mut found =
        lines_with(&["axum::", "hyper", "tokio::time", "tokio::spawn", "Timestamp::now", "Instant::now", "fastrand"], &["runner"]);
    found.retain(|line| line.contains("/protocol") || line.contains("/document"));
    assert!(found.is_empty(), "{found:#?}");
}

/// Where anything may come of it, the JSON of others is read by `fte_bus::json`, which cannot be made to stumble.
#[test]
fn what_others_wrote_is_read_into_values_by_the_sdk_alone() {
    let mut found = lines_with(
        &["serde_json::from_slice", "serde_json::from_str", "serde_json::from_reader"],
        &all_but(&["cli", "testkit", "sidecar"]),
    );
    found.retain(|line| line.replace("RawValue", "").contains("Value"));
    let ours = [
        // Two writings of a document of ours.
        "bus/src/state.rs",
        // A list in an event that was read before.
        "status/src/view.rs",
        // What the log wrote itself.
        "audit/src/engine/index/compare.rs",
        "audit/src/export.rs: let header",
    ];
    found.retain(|line| !ours.iter().any(|ours| line.contains(ours)));
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn the_core_of_the_log_reads_no_file_and_has_no_clock() {
    let found = lines_with(&["std::fs", "std::io", "std::net", "std::time", "tokio", "async ", "getrandom", "unsafe"], &["tlog"]);
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn the_one_test_command_runs_every_test_of_the_workspace() {
    let metadata = cargo_metadata::MetadataCommand::new().manifest_path(root().join("Cargo.toml")).no_deps().exec().unwrap();
    let tests = metadata.workspace_packages().into_iter().flat_map(|package| &package.targets).filter(|target| target.is_test());
    let tests: BTreeSet<&str> = tests.map(|target| target.name.as_str()).collect();
    assert!(tests.contains("boundaries"), "{tests:?}");
    let command = std::fs::read_to_string(root().join("tests/all")).unwrap();
    let words: Vec<&str> = command.lines().filter(|line| !line.trim_start().starts_with('#')).flat_map(str::split_whitespace).collect();
    let run: BTreeSet<&str> = words.windows(2).filter(|pair| pair[0] == "--test").map(|pair| pair[1]).collect();
    let left_out: Vec<_> = tests.difference(&run).collect();
    assert!(left_out.is_empty(), "tests/all leaves out {left_out:?}: give each a `--test NAME`");
    for kind in ["--lib", "--bins", "--examples", "--doc"] {
        assert!(words.contains(&kind), "tests/all leaves out {kind}");
    }
}
