//! Each case of the matrix: linted, rendered, valid, and as its snapshot has it. What must not be asked for is refused.

use std::fmt::Write as _;

use fte_testkit::Dir;

use crate::chart::{cases, helm, is_update, notes, render, root, values};
use crate::schemas::Schemas;

#[test]
fn every_case_is_linted_without_a_warning() {
    for case in cases() {
        let out = helm(&["lint", "--strict"], &["--values", &values(&case)]);
        assert!(out.status.success(), "{case}: {}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    }
}

#[test]
fn every_object_of_every_case_is_what_its_schema_takes() {
    let mut schemas = Schemas::read();
    for case in cases() {
        let errors: Vec<String> = render(&case).values().flat_map(|object| schemas.errors(object)).collect();
        assert!(errors.is_empty(), "{case}: {errors:#?}");
    }
}

/// The default whole; of the others, what differs from it; and what Helm says at the end.
#[test]
fn every_case_is_as_its_snapshot() {
    let default = render("default");
    for case in cases() {
        let rendered = render(&case);
        let mut snapshot = String::new();
        for (id, object) in &rendered {
            if case == "default" || default.get(id).is_none_or(|usual| usual.text != object.text) {
                write!(snapshot, "---\n{}", object.text).unwrap();
            }
        }
        for id in default.keys().filter(|id| !rendered.contains_key(*id)) {
            writeln!(snapshot, "# without {id}").unwrap();
        }
        write!(snapshot, "---\n# {}\n", notes(&case).trim_end().replace('\n', "\n# ").replace(" \n", "\n")).unwrap();
        let path = root().join(format!("tests/deploy/snapshots/{case}.yaml"));
        if is_update() {
            std::fs::write(&path, &snapshot).unwrap();
        }
        let known = std::fs::read_to_string(&path).unwrap_or_default();
        let differs = known.lines().zip(snapshot.lines()).position(|(known, new)| known != new);
        assert!(known == snapshot, "{case}.yaml differs (line {differs:?}): run with FTE_UPDATE_GOLDEN=1 and read the diff");
    }
}

/// What the README has people type for a first install.
#[test]
fn the_values_of_the_first_install_are_taken() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let (_, rest) = readme.split_once("cat > values.yaml <<'END'\n").expect("the README has them");
    let dir = Dir::new();
    let file = dir.write("values.yaml", rest.split_once("\nEND\n").unwrap().0);
    let out = helm(&["lint", "--strict"], &["--values", file.to_str().unwrap()]);
    assert!(out.status.success(), "{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
}

#[test]
fn values_that_would_lose_or_open_something_are_refused() {
    let dir = Dir::new();
    let refused = [
        ("services: {audit: {replicas: 2}}", "/services/audit/replicas"),
        ("services: {audit: {autoscaling: {kind: hpa}}}", "autoscaling"),
        ("services: {status: {replicas: 2}}", "/services/status/replicas"),
        ("services: {status: {database: mysql}}", "/services/status/database"),
        ("services: {intake: {autoscaling: {kind: keda}}}", "/services/intake/autoscaling/kind"),
        ("services: {runer: {replicas: 2}}", "runer"),
        ("kafka: {auth: {type: password}}", "/kafka/auth/type"),
        ("kafka: {auth: {mechanism: PLAIN}}", "/kafka/auth/mechanism"),
        ("kafka: {auth: {type: mtls, ca: public}}", "/kafka/auth/ca"),
        ("kafka: {auth: {type: scram, secrets: {fte-runner: a}}}", "fte-runner"),
        ("kafka: {auth: {secrets: {runner: a}}}", "/kafka/auth/secrets"),
        ("kafka: {brokers: 'kafka 9092'}", "/kafka/brokers"),
        ("route: {kind: httproute, hosts: [a.example.com]}", "/route/gateway/name"),
        ("artifacts: {kind: s3}", "/artifacts/s3/bucket"),
        ("artifacts: {kind: claim}", "/artifacts/claim/name"),
        ("artifacts: {kind: s3, s3: {bucket: b, endpoint: 'http://s3'}}", "/artifacts/s3/endpoint"),
        ("route: {kind: ingress}", "/route/hosts"),
        ("route: {hosts: ['https://a.example.com']}", "/route/hosts/0"),
        ("api: {publicUrl: fte.example.com}", "/api/publicUrl"),
        ("api: {publicUrl: 'https://fte.example.com/?x=1'}", "/api/publicUrl"),
        ("shutdown: {drainSeconds: 0}", "/shutdown/drainSeconds"),
        ("defaults: {env: {FTE_LOG: 1}}", "/defaults/env/FTE_LOG"),
        ("tokens: {apiSecret: ''}", "/tokens/apiSecret"),
        ("sandboxes: {enabled: yes please}", "/sandboxes/enabled"),
        ("sandboxes: {enabled: true, namespace: ''}", "/sandboxes/namespace"),
        ("sandboxes: {enabled: true, verbs: ['*']}", "verbs"),
        ("agents: {secrets: [API_KEY]}", "/agents/secrets/0"),
        ("services: {audit: {keys: {log: LOG}}}", "/services/audit/keys/log"),
        ("services: {status: {keys: {log: log}}}", "keys"),
        ("alerts: {enabled: true}", "alerts.enabled needs monitoring.enabled"),
        ("securityContext: {}", "securityContext"),
    ];
    for (values, expected) in refused {
        let file = dir.write("values.yaml", values);
        let out = helm(&["template", "fte"], &["--values", file.to_str().unwrap()]);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        let (said_path, dotted) = (said.contains(expected), said.contains(&expected.trim_start_matches('/').replace('/', ".")));
        assert!(!out.status.success() && (said_path || dotted), "{values}: expected {expected} in {said}");
    }
}
