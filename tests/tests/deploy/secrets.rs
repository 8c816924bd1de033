//! Secrets of agents: those that are listed reach the runner's sidecar, and whatever else there is stays closed.

use serde_json::{Value, json};

use crate::chart::{Rendered, cases, render, text};

fn listed(case: &str) -> Vec<&'static str> {
    if case == "users" { vec!["another", "writer-keys"] } else { Vec::new() }
}

/// Whether a Configuration lets its app ask for secrets, and which of the store `secretstore`.
fn open(configuration: &Value) -> (bool, Vec<&str>) {
    let spec = &configuration["spec"];
    let asks = spec["api"]["allowed"].as_array().unwrap().iter().any(|api| api["name"] == "secrets");
    let scopes = spec["secrets"]["scopes"].as_array().unwrap();
    assert!(scopes.iter().all(|scope| scope["defaultAccess"] == "deny"), "{scopes:?}");
    assert!(scopes.iter().any(|scope| scope["storeName"] == "kubernetes" && scope.get("allowedSecrets").is_none()), "{scopes:?}");
    let ours = scopes.iter().find(|scope| scope["storeName"] == "secretstore");
    let names = ours.map(|scope| scope["allowedSecrets"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect());
    (asks, names.unwrap_or_default())
}

fn pod<'r>(rendered: &'r Rendered, app: &str) -> &'r Value {
    let mut pods = rendered.values().filter_map(|object| object.template());
    pods.find(|pod| pod["metadata"]["annotations"]["dapr.io/app-id"] == app).unwrap()
}

#[test]
fn what_is_listed_is_open_to_the_runner_and_nothing_to_anybody_else() {
    for case in cases() {
        let rendered = render(&case);
        let names = listed(&case);
        for app in ["fte-intake", "fte-runner", "fte-status", "fte-audit"] {
            let pod = pod(&rendered, app);
            let annotations = &pod["metadata"]["annotations"];
            let configuration = &rendered[&format!("Configuration/{}", text(annotations, "dapr.io~1config"))].value;
            let expected = if app == "fte-runner" { (!names.is_empty(), names.clone()) } else { (false, Vec::new()) };
            assert_eq!(open(configuration), expected, "{case}: {app}");
            // Dapr's own store has every secret that the pod may read.
            assert_eq!(text(annotations, "dapr.io~1disable-builtin-k8s-secret-store"), "true", "{case}: {app}");
            // A token for its sidecar, and none that the injector would put in by default.
            let token = annotations.get("dapr.io/volume-mounts").map(|mounts| mounts.as_str().unwrap());
            assert_eq!(token.is_some(), expected.0, "{case}: {app}");
            if let Some((volume, at)) = token.map(|token| token.split_once(':').unwrap()) {
                assert_eq!(at, "/var/run/secrets/kubernetes.io/serviceaccount");
                let volume = pod["spec"]["volumes"].as_array().unwrap().iter().find(|other| other["name"] == volume).unwrap();
                let sources = volume["projected"]["sources"].as_array().unwrap();
                let paths: Vec<&str> = ["serviceAccountToken/path", "configMap/items/0/path", "downwardAPI/items/0/path"]
                    .iter()
                    .zip(sources)
                    .map(|(path, source)| text(source, path))
                    .collect();
                assert_eq!(paths, ["token", "ca.crt", "namespace"]);
            }
        }
        let store = rendered.get("Component/secretstore").map(|store| &store.value);
        assert_eq!(store.is_some(), !names.is_empty(), "{case}");
        assert_eq!(rendered.contains_key("Role/fte-runner-secrets"), !names.is_empty(), "{case}");
    }
}

#[test]
fn kubernetes_gives_the_runners_account_the_listed_secrets_by_name() {
    let rendered = render("users");
    let store = &rendered["Component/secretstore"].value;
    assert_eq!((&store["scopes"], text(store, "spec/type")), (&json!(["fte-runner"]), "secretstores.kubernetes"));
    let (role, binding) = (&rendered["Role/fte-runner-secrets"].value, &rendered["RoleBinding/fte-runner-secrets"].value);
    // No `list`, and no name but these: the whole store cannot be read.
    let rule = json!([{"apiGroups": [""], "resources": ["secrets"], "resourceNames": listed("users"), "verbs": ["get"]}]);
    assert_eq!(role["rules"], rule);
    assert_eq!(role["metadata"].get("namespace"), None, "its own namespace");
    assert_eq!((text(binding, "roleRef/kind"), text(binding, "roleRef/name")), ("Role", text(role, "metadata/name")));
    let subject = &binding["subjects"][0];
    assert_eq!((text(subject, "kind"), text(subject, "name"), text(subject, "namespace")), ("ServiceAccount", "fte-runner", "fte"));
    assert_eq!(text(pod(&rendered, "fte-runner"), "spec/serviceAccountName"), "fte-runner");
}
