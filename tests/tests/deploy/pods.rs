//! What holds for every pod of every case.

use serde_json::Value;

use crate::chart::{Object, cases, render, text};

/// Every workload of every case; `ours` has a sidecar.
fn each_workload(check: impl Fn(&str, &Object, bool)) {
    for case in cases() {
        let rendered = render(&case);
        let mut ours = 0;
        for object in rendered.values().filter(|object| object.template().is_some()) {
            let has_sidecar = object.template().unwrap()["metadata"]["annotations"].get("dapr.io/enabled").is_some();
            ours += usize::from(has_sidecar);
            check(&format!("{case}: {}", object.id()), object, has_sidecar);
        }
        assert_eq!(ours, 4, "{case}");
    }
}

fn containers(pod: &Value) -> &Vec<Value> {
    pod["containers"].as_array().unwrap()
}

#[test]
fn no_container_may_become_root_write_its_image_or_ask_the_kernel_for_more() {
    each_workload(|case, object, _| {
        let pod = &object.template().unwrap()["spec"];
        let all = &pod["securityContext"];
        assert_eq!((&all["runAsNonRoot"], &all["seccompProfile"]["type"]), (&true.into(), &"RuntimeDefault".into()), "{case}");
        assert!(all["runAsUser"].as_u64().unwrap() > 1000, "{case}");
        assert_eq!(pod["automountServiceAccountToken"], false, "{case}");
        for container in containers(pod) {
            let own = &container["securityContext"];
            assert_eq!(own["allowPrivilegeEscalation"], false, "{case}");
            assert_eq!(own["readOnlyRootFilesystem"], true, "{case}");
            assert_eq!(own["capabilities"]["drop"], serde_json::json!(["ALL"]), "{case}");
            assert!(own.get("privileged").is_none() && own["capabilities"].get("add").is_none(), "{case}");
            let mounts = container["volumeMounts"].as_array().unwrap();
            assert!(mounts.iter().any(|mount| mount["mountPath"] == "/tmp"), "{case}");
            for mount in mounts {
                let claimed =
                    object.value["spec"]["volumeClaimTemplates"].as_array().into_iter().flatten().map(|claim| &claim["metadata"]["name"]);
                let mut volumes = pod["volumes"].as_array().unwrap().iter().map(|volume| &volume["name"]).chain(claimed);
                assert!(volumes.any(|name| name == &mount["name"]), "{case}: {mount}");
            }
        }
        for part in ["hostNetwork", "hostPID", "hostIPC"] {
            assert!(pod.get(part).is_none(), "{case}");
        }
    });
}

/// In order: requests stop, the service drains, its sidecar goes on a little longer, then ends; only then would Kubernetes kill the pod.
#[test]
fn the_end_of_a_pod_gives_each_step_its_time() {
    each_workload(|case, object, ours| {
        if !ours {
            return;
        }
        let template = object.template().unwrap();
        let annotation = |name: &str| text(&template["metadata"]["annotations"], &format!("dapr.io~1{name}"));
        let block: u64 = annotation("block-shutdown-duration").strip_suffix('s').unwrap().parse().unwrap();
        let graceful: u64 = annotation("graceful-shutdown-seconds").parse().unwrap();
        let container = &containers(&template["spec"])[0];
        let wait = container["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().unwrap();
        let drain: u64 = env(container, "FTE_DRAIN_MS_MAX").unwrap().parse().unwrap();
        let kill = template["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap();
        assert!(block * 1000 > wait * 1000 + drain, "{case}: the sidecar goes before its service");
        assert!(kill > block + graceful, "{case}: the pod is killed before its sidecar has ended");
    });
}

#[test]
fn sidecar_and_service_mean_each_other() {
    each_workload(|case, object, ours| {
        if !ours {
            return;
        }
        let template = object.template().unwrap();
        let annotation = |name: &str| text(&template["metadata"]["annotations"], &format!("dapr.io~1{name}"));
        let container = &containers(&template["spec"])[0];
        let name = text(container, "name");
        assert_eq!(annotation("app-id"), format!("fte-{name}"), "{case}");
        assert_eq!(container["args"], serde_json::json!(["serve", name]), "{case}");
        assert_eq!(Some(annotation("app-port")), env(container, "APP_PORT"), "{case}");
        for (variable, secret) in [("DAPR_API_TOKEN", "api-token-secret"), ("APP_API_TOKEN", "app-token-secret")] {
            let reference = container["env"].as_array().unwrap().iter().find(|entry| entry["name"] == variable).unwrap();
            assert_eq!(text(reference, "valueFrom/secretKeyRef/name"), annotation(secret), "{case}");
        }
        assert_eq!((annotation("enable-app-health-check"), annotation("app-health-check-path")), ("true", "/health"), "{case}");
    });
}

fn env<'c>(container: &'c Value, name: &str) -> Option<&'c str> {
    container["env"].as_array().unwrap().iter().find(|entry| entry["name"] == name)?["value"].as_str()
}

/// Services, budgets, policies and scalers find the pods and objects that they name.
#[test]
fn whatever_names_something_else_finds_it() {
    for case in cases() {
        let rendered = render(&case);
        let pods: Vec<&Value> = rendered.values().filter_map(Object::template).map(|pod| &pod["metadata"]["labels"]).collect();
        let selects = |selector: &Value| {
            let wanted = selector.as_object().unwrap();
            pods.iter().filter(|labels| wanted.iter().all(|(key, value)| labels.get(key) == Some(value))).count()
        };
        for object in rendered.values() {
            let spec = &object.value["spec"];
            let selector = match text(&object.value, "kind") {
                "Service" => &spec["selector"],
                "NetworkPolicy" => &spec["podSelector"]["matchLabels"],
                "PodDisruptionBudget" | "Deployment" | "StatefulSet" => &spec["selector"]["matchLabels"],
                "HorizontalPodAutoscaler" | "ScaledObject" => {
                    let target = format!("{}/{}", text(spec, "scaleTargetRef/kind"), text(spec, "scaleTargetRef/name"));
                    assert!(rendered[&target].value["spec"].get("replicas").is_none(), "{case}: {target} has two masters");
                    continue;
                }
                _ => continue,
            };
            assert_eq!(selects(selector), 1, "{case}: {}", object.id());
        }
    }
}
