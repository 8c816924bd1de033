//! The services as the chart starts them: the real program with each pod's arguments and variables, behind the chart's nginx, on the embedded sidecar. Only
//! ports, directories and secrets are this machine's.

use std::collections::BTreeMap;
use std::process::Command;

use fte_testkit::{Daemon, Dir, built_binary, eventually};
use fte_tests::ports::free_port;
use serde_json::Value;

use crate::chart::{Object, render, root, text};
use crate::nginx::{Front, HOST, ask};

struct Ports {
    app: u16,
    api: u16,
    sidecar: u16,
}

/// A variable as it is on this machine.
fn here(name: &str, entry: &Value, ports: &Ports, dir: &Dir, pod: &str) -> String {
    match (name, entry.get("value").and_then(Value::as_str)) {
        ("APP_PORT", _) => ports.app.to_string(),
        ("FTE_API_ADDR", Some(value)) => value.replace("0.0.0.0:8080", &format!("127.0.0.1:{}", ports.api)),
        ("FTE_DATA", Some(_)) => dir.join(pod).display().to_string(),
        ("FTE_API_KEYS_FILE", Some(value)) => value.replace("/etc/fte-keys", &dir.display().to_string()),
        (_, Some(value)) => value.to_owned(),
        (_, None) if entry.pointer("/valueFrom/fieldRef/fieldPath") == Some(&"metadata.name".into()) => pod.to_owned(),
        (_, None) => format!("token-of-{}", text(entry, "valueFrom/secretKeyRef/name")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_closes_its_loop_through_the_pods_of_the_chart() {
    let rendered = render("certificate");
    let dir = Dir::new();
    let roles = ["--role", "submit", "--role", "read", "--role", "audit"];
    let made = Command::new(built_binary()).args(["keys", "new", "ada", "--file"]).arg(dir.join("keys.toml")).args(roles).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let key = String::from_utf8(made.stdout).unwrap().trim().to_owned();

    let pods: Vec<&Object> =
        rendered.values().filter(|object| object.id().contains("Set/fte-") || object.id() == "Deployment/fte-intake").collect();
    let mut sidecar = Daemon::new("sidecar", [built_binary().into_os_string(), "sidecar".into()])
        .env("DAPR_API_TOKEN", "token-of-fte-dapr-api-token")
        .env("APP_API_TOKEN", "token-of-fte-app-token")
        .arg("--data")
        .arg(dir.join("sidecar"))
        .arg("--resources-path")
        .arg(root().join("dapr"));
    let mut services = Vec::new();
    let mut doors = BTreeMap::new();
    for object in pods {
        let ports = Ports { app: free_port(), api: free_port(), sidecar: free_port() };
        let container = &object.template().unwrap()["spec"]["containers"][0];
        let name = text(container, "name").to_owned();
        let arguments = container["args"].as_array().unwrap().iter().map(|argument| argument.as_str().unwrap().into());
        let mut service = Daemon::new(name.clone(), std::iter::once(built_binary().into_os_string()).chain(arguments))
            .env("DAPR_HTTP_PORT", ports.sidecar.to_string());
        for entry in container["env"].as_array().unwrap() {
            let variable = text(entry, "name");
            service = service.env(variable, here(variable, entry, &ports, &dir, &format!("fte-{name}-0")));
        }
        sidecar = sidecar.arg("--app").arg(format!("fte-{name}:{}:{}", ports.app, ports.sidecar));
        services.push(service);
        doors.insert(name, ports.api);
    }
    assert_eq!(doors.len(), 4);
    sidecar.start().await;
    for service in &mut services {
        service.start().await;
    }

    let front = Front::start(text(&rendered["ConfigMap/fte-front"].value, "data/nginx.conf"), &doors);
    let bearer = format!("Authorization: Bearer {key}");
    // As a kubelet asks, and as somebody in the cluster does.
    for (name, port) in &doors {
        for host in ["127.0.0.1".to_owned(), format!("fte-{name}.fte.svc")] {
            eventually(|| async {
                let (status, body) = ask(*port, &host, "GET", "/ready", "", "").map_err(|error| format!("{name}: {error}"))?;
                if status == 200 { Ok(()) } else { Err(format!("{name}: {status} {body}")) }
            })
            .await;
        }
    }

    assert_eq!(front.ask("POST", "/v1/tasks", "", r#"{"task":"hello"}"#).0, 401);
    let (status, accepted) = front.ask("POST", "/v1/tasks", &bearer, r#"{"task":"hello"}"#);
    assert_eq!(status, 202, "{accepted}");
    let accepted: Value = serde_json::from_str(&accepted).unwrap();
    let result = format!("{}?wait=30s", text(&accepted, "links/result"));
    let (status, result) = front.ask("GET", &result, &bearer, "");
    assert!(status == 200 && result.contains("\"completed\""), "{status} {result}");
    let history = format!("/v1/audit/tasks/{}", text(&accepted, "task_id"));
    eventually(|| async {
        let (status, history) = front.ask("GET", &history, &bearer, "");
        if status == 200 && history.contains("fte.result.completed") { Ok(()) } else { Err(history) }
    })
    .await;
    let other = ask(front.port, "evil.example", "GET", "/v1/tasks", &bearer, "").unwrap();
    assert_eq!(other.0, 403, "a foreign host is answered: {}", other.1);
    assert_eq!(HOST, text(&rendered["Ingress/fte"].value, "spec/rules/0/host"));
}
