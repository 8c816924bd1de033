//! Sandboxes in the cluster: who may claim them, and whether what is claimed is what agent-sandbox takes.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::chart::{Object, cases, render, root, text};
use crate::schemas::Schemas;

/// The containers of a pod that mount one of its volumes with a token for Kubernetes.
fn with_token(pod: &Value) -> Vec<&str> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let is_token = |volume: &Value| list(&volume["projected"]["sources"]).iter().any(|source| source.get("serviceAccountToken").is_some());
    let tokens: Vec<Value> = list(&pod["volumes"]).into_iter().filter(is_token).map(|volume| volume["name"].clone()).collect();
    let containers = pod["containers"].as_array().unwrap().iter();
    let mounts = containers.filter(|container| list(&container["volumeMounts"]).iter().any(|mount| tokens.contains(&mount["name"])));
    mounts.map(|container| text(container, "name")).collect()
}

#[test]
fn only_the_runner_gets_a_token_and_only_where_it_claims() {
    for case in cases() {
        let rendered = render(&case);
        let pods = rendered.values().filter_map(Object::template).map(|template| &template["spec"]);
        let found: Vec<&str> = pods.flat_map(with_token).collect();
        let expected: &[&str] = if case == "sandboxes" { &["runner"] } else { &[] };
        assert_eq!(found, expected, "{case}");
        let rights = rendered.keys().filter(|id| id.contains("Role") && !id.ends_with("-secrets")).count();
        assert_eq!(rights, if case == "sandboxes" { 2 } else { 0 }, "{case}");
    }
}

#[test]
fn the_runner_may_claim_in_the_agents_namespace_and_nothing_else() {
    let rendered = render("sandboxes");
    let (role, binding) = (&rendered["Role/fte-fte-runner"].value, &rendered["RoleBinding/fte-fte-runner"].value);
    let rules = json!([
        {"apiGroups": ["extensions.agents.x-k8s.io"], "resources": ["sandboxclaims"], "verbs": ["create", "get", "list", "watch", "patch", "delete"]},
        {"apiGroups": ["agents.x-k8s.io"], "resources": ["sandboxes"], "verbs": ["get"]},
    ]);
    assert_eq!(role["rules"], rules);
    for object in [role, binding] {
        assert_eq!(text(object, "metadata/namespace"), "agents");
    }
    assert_eq!((text(binding, "roleRef/kind"), text(binding, "roleRef/name")), ("Role", text(role, "metadata/name")));
    let subject = &binding["subjects"][0];
    assert_eq!(text(subject, "namespace"), "fte");
    let pod = &rendered["StatefulSet/fte-runner"].template().unwrap()["spec"];
    assert_eq!(text(pod, "serviceAccountName"), text(subject, "name"));
    assert!(rendered.contains_key(&format!("ServiceAccount/{}", text(subject, "name"))));
}

#[test]
fn what_the_runner_claims_is_what_agent_sandbox_takes() {
    let file = std::fs::read_to_string(root().join("crates/kubernetes/tests/claim.json")).unwrap();
    let claim: Value = serde_json::from_str(&file).unwrap();
    let mut schemas = Schemas::read();
    let mut errors = |value: Value| schemas.errors(&Object { text: String::new(), value });
    assert_eq!(errors(claim.clone()), Vec::<String>::new());
    // And that it would be noticed.
    let mut misspelt = claim;
    misspelt["spec"]["lifecycle"]["shutdownAt"] = misspelt["spec"]["lifecycle"]["shutdownTime"].take();
    misspelt["spec"].as_object_mut().unwrap().remove("warmPoolRef");
    let found: BTreeSet<String> = errors(misspelt).into_iter().collect();
    assert!(found.len() >= 2 && found.iter().any(|error| error.contains("warmPoolRef")), "{found:?}");
}
