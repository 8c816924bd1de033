//! Every public route of every service is reached through the one URL space, by the Gateway API and by nginx alike.

use std::path::Path;

use serde_json::Value;

use crate::chart::{render, root, text};
use crate::nginx::{Front, answering};

const SERVICES: [&str; 4] = ["intake", "runner", "status", "audit"];

/// A request, and the service whose route it is.
struct Request {
    method: String,
    path: String,
    service: &'static str,
}

/// What the services say of themselves: each `#[utoipa::path(METHOD, path = "PATH"` of their sources.
fn routes() -> Vec<Request> {
    let mut found = vec![Request { method: "POST".to_owned(), path: "/tasks".to_owned(), service: "intake" }];
    for service in SERVICES {
        found.push(Request { method: "GET".to_owned(), path: format!("/v1/services/{service}"), service });
        declared(&root().join(format!("crates/{service}/src")), service, &mut found);
    }
    for service in SERVICES {
        assert!(found.iter().any(|route| route.service == service), "{service}");
    }
    found
}

fn declared(folder: &Path, service: &'static str, found: &mut Vec<Request>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            declared(&path, service, found);
            continue;
        }
        for declaration in std::fs::read_to_string(&path).unwrap().split("#[utoipa::path(").skip(1) {
            let (method, rest) = declaration.split_once(',').unwrap();
            let path = rest.split_once("path = \"").unwrap().1.split_once('"').unwrap().0;
            let path = path
                .replace("{id}", "018f-1")
                .replace("{shard}", "0")
                .replace("{index}", "7")
                .replace("{artifact}", "a.md")
                .replace("{ref}", "user:ada");
            let path = path.replace("{*path}", "tile/0/x001/067");
            assert!(!path.contains('{'), "a parameter that this test does not know: {path}");
            found.push(Request { method: method.trim().to_ascii_uppercase(), path, service });
        }
    }
}

/// What belongs to nobody, or to the pods alone.
const NOWHERE: [(&str, &str); 7] = [
    ("GET", "/metrics"),
    ("GET", "/ready"),
    ("POST", "/events/triggers"),
    ("POST", "/job/a"),
    ("GET", "/dapr/subscribe"),
    ("GET", "/v1/tasksome"),
    ("GET", "/"),
];

/// The service that a conforming gateway chooses: the exact path, then the longest prefix, then a rule with a method.
fn by_http_route<'r>(rules: &'r Value, method: &str, path: &str) -> Option<&'r str> {
    let matches = rules.as_array().unwrap().iter().flat_map(|rule| {
        let backend = text(rule, "backendRefs/0/name");
        rule["matches"].as_array().unwrap().iter().map(move |candidate| (candidate, backend))
    });
    let fitting = matches.filter_map(|(candidate, backend)| {
        let (kind, value) = (text(candidate, "path/type"), text(candidate, "path/value"));
        let fits = match kind {
            "Exact" => path == value,
            "PathPrefix" => path == value || path.strip_prefix(value).is_some_and(|rest| rest.starts_with('/')),
            other => panic!("{other} is not in every gateway"),
        };
        let wanted = candidate.get("method").and_then(Value::as_str);
        (fits && wanted.is_none_or(|wanted| wanted == method)).then_some(((kind == "Exact", value.len(), wanted.is_some()), backend))
    });
    fitting.max_by_key(|(rank, _)| *rank).map(|(_, backend)| backend)
}

#[test]
fn a_gateway_takes_every_route_to_its_service() {
    let rendered = render("secured");
    let rules = &rendered["HTTPRoute/fte"].value["spec"]["rules"];
    for Request { method, path, service } in routes() {
        assert_eq!(by_http_route(rules, &method, &path), Some(format!("fte-{service}").as_str()), "{method} {path}");
    }
    for (method, path) in NOWHERE {
        assert_eq!(by_http_route(rules, method, path), None, "{method} {path}");
    }
}

/// Live streams have no end; a wait for a result, and an export of the audit log, take longer than a gateway's usual limit.
#[test]
fn a_gateway_does_not_cut_what_takes_long() {
    let rendered = render("secured");
    let mut unlimited = Vec::new();
    for rule in rendered["HTTPRoute/fte"].value["spec"]["rules"].as_array().unwrap() {
        if rule.pointer("/timeouts/request").is_some_and(|limit| limit == "0s") {
            unlimited.push(text(rule, "backendRefs/0/name"));
        }
    }
    assert_eq!(unlimited, ["fte-status", "fte-audit"]);
}

#[test]
fn the_nginx_behind_an_ingress_takes_every_route_to_its_service() {
    let services = SERVICES.into_iter().map(|service| (service.to_owned(), answering(service))).collect();
    let front = Front::start(text(&render("certificate")["ConfigMap/fte-front"].value, "data/nginx.conf"), &services);
    for Request { method, path, service } in routes() {
        let expected = format!("{service} {method} {path}?a=b fte.example.com");
        assert_eq!(front.ask(&method, &format!("{path}?a=b"), "", ""), (200, expected));
    }
    for (method, path) in NOWHERE {
        assert_eq!(front.ask(method, path, "", "").0, 404, "{method} {path}");
    }
    assert_eq!(front.ask("GET", "/front-health", "", "").0, 204);
}
